//! Words that say nothing are not names.
//!
//! Judges what a file defines (items and the file itself), not what it uses: names from outside
//! are not ours, nor are associated types. Fields and variables are left to review, and so are
//! tests, whose names are sentences.
//! Invariant: a word that the contract fixes (`base_url`, `data_dir`) is excused as that name only.

use super::Finding;
use super::source::{Source, Tree};

const WORDS: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "data", "info", "base",
    "impl", "v2",
];

/// Names of the contract: settings, admin members, paths.
const FIXED: &[&str] = &["base_url", "data_dir", "actuator_info", "data_plane", "data_key"];

const KEYWORDS: &[&str] =
    &["fn", "struct", "enum", "trait", "mod", "type", "const", "static", "union"];

pub(super) fn check(tree: &Tree, found: &mut Vec<Finding>) {
    for source in &tree.sources {
        file(source, found);
        for (number, line) in source.live.lines().enumerate() {
            if let Some(problem) = defined(line).and_then(problem) {
                let place = format!("{}:{}", source.path, number + 1);
                found.push(Finding::new("banned-names", place, problem));
            }
        }
    }
}

fn file(source: &Source, found: &mut Vec<Finding>) {
    let inner = source.path.split_once("/src/").map_or("", |(_, inner)| inner);
    for name in inner.trim_end_matches(".rs").split('/') {
        if let Some(problem) = problem(name) {
            found.push(Finding::new("banned-names", source.path.as_str(), problem));
        }
    }
}

/// The name that a line defines, if it defines one.
fn defined(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || ["async", "unsafe", "extern", "in"].contains(word)
    });
    let mut keyword = words.next()?;
    let mut name = words.next()?;
    if keyword == "const" && name == "fn" {
        (keyword, name) = (name, words.next()?);
    }
    let is_associated = keyword == "type" && line.starts_with(' ');
    if is_associated || !KEYWORDS.contains(&keyword) {
        return None;
    }
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

fn problem(name: &str) -> Option<String> {
    let snake = snake(name);
    if FIXED.iter().any(|fixed| snake.contains(fixed)) {
        return None;
    }
    if name.starts_with("get_") || name.starts_with("new_") {
        return Some(format!("`{name}`: no `get_` or `new_` in front"));
    }
    let word = snake.split('_').find(|word| WORDS.contains(word))?;
    Some(format!("`{name}`: `{word}` says nothing; name it by its subject"))
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    let mut before = '_';
    for c in name.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
        before = c;
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_words_are_refused_wherever_they_stand() {
        for name in ["utils", "RequestInfo", "new_user", "get_key", "DATA_MAX", "chat_v2"] {
            assert!(problem(name).is_some(), "{name}");
        }
    }

    #[test]
    fn words_of_the_contract_and_longer_words_are_names() {
        for name in ["base_url", "data_dir", "new", "Database", "informed", "baseline", "Implied"] {
            assert_eq!(problem(name), None, "{name}");
        }
    }

    #[test]
    fn only_definitions_are_judged() {
        assert_eq!(defined("    pub(crate) const fn plan(x: u8) {"), Some("plan"));
        assert_eq!(defined("impl Foo for Bar {"), None);
        assert_eq!(defined("let info = 3;"), None);
        assert_eq!(defined("    type Data = Bytes;"), None);
    }
}
