//! Folders that must agree with something: migrations with each other, error pages with names.
//!
//! The words of errors are read out of the two files that declare them, since this crate links
//! nothing of the product.
//! Invariant: both databases have the same migrations, by name, and every word that a caller can
//! be refused with has exactly one page.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::source::Tree;

const MIGRATIONS: &str = "crates/anima-store/migrations/";

const PAGES: &str = "docs/errors/";

/// Where the words of the data plane and of the admin API are declared.
const FAILURES: &str = "crates/anima-core/src/failure.rs";
const PROBLEMS: &str = "crates/anima/src/admin/problem.rs";

pub(super) fn check(tree: &Tree, found: &mut Vec<Finding>) {
    modules(tree, found);
    error_pages(tree, found);
    let (postgres, sqlite) = (names(tree, "postgres/"), names(tree, "sqlite/"));
    for name in postgres.symmetric_difference(&sqlite) {
        let message = "a migration that only one of the two databases has";
        found.push(Finding::new("twin-migrations", format!("{MIGRATIONS}*/{name}"), message));
    }
}

fn modules(tree: &Tree, found: &mut Vec<Finding>) {
    for source in tree.sources.iter().filter(|source| source.path.ends_with("/mod.rs")) {
        let message = "modules are `foo.rs` beside `foo/`";
        found.push(Finding::new("no-mod-rs", source.path.as_str(), message));
    }
}

fn error_pages(tree: &Tree, found: &mut Vec<Finding>) {
    let text = |path: &str| {
        let source = tree.sources.iter().find(|source| source.path == path);
        source.map_or("", |source| source.text.as_str())
    };
    let mut unpaged: BTreeSet<&str> = reasons(text(FAILURES)).into_values().collect();
    unpaged.extend(problems(text(PROBLEMS)));
    for (path, text) in &tree.others {
        let name = path.strip_prefix(PAGES).unwrap_or_default();
        let word = name.strip_suffix(".md").unwrap_or_default();
        if !word.is_empty() && word != "README" {
            let known = unpaged.remove(word);
            found.extend(
                page_problem(word, text, known)
                    .map(|message| Finding::new("error-pages", path.as_str(), message)),
            );
        }
    }
    for word in unpaged {
        let place = format!("{PAGES}{word}.md");
        let message = "is missing: callers can be refused with this word";
        found.push(Finding::new("error-pages", place, message));
    }
}

fn page_problem(word: &str, text: &str, known: bool) -> Option<String> {
    if !known {
        return Some("the page of a word that nobody is refused with".to_owned());
    }
    let title = text.lines().next().unwrap_or_default();
    let wrong = title.trim_start_matches("# ") != word || text.lines().count() < 3;
    wrong.then(|| format!("starts with `# {word}` and says what happened and what to do"))
}

/// The reason of each failure: its code in the table, `Name: Source 401 "type" "code" …;`, unless
/// an arm `Self::Name => "reason",` gives it a word of its own.
fn reasons(text: &str) -> BTreeMap<&str, &str> {
    let mut reasons = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        let mut literals = line.split('"').skip(1).step_by(2);
        let arm = line.strip_prefix("Self::").and_then(|arm| arm.split_once(" => \""));
        let row = line.split_once(": ").filter(|(name, _)| !name.contains([' ', '/']));
        if let Some((name, _)) = arm {
            reasons.extend(literals.next().map(|word| (name, word)));
        } else if let Some((name, _)) = row.filter(|_| line.ends_with(';')) {
            reasons.extend(literals.nth(1).map(|word| (name, word)));
        }
    }
    reasons
}

/// The words of the admin API: every other literal of `Code::row`; the ones between are titles.
fn problems(text: &str) -> impl Iterator<Item = &str> {
    let row = text.split_once("const fn row(self)").map_or("", |(_, rest)| rest);
    let row = row.split_once("\n    }\n").map_or("", |(row, _)| row);
    row.split('"').skip(1).step_by(4)
}

fn names<'a>(tree: &'a Tree, database: &str) -> BTreeSet<&'a str> {
    let paths = tree.others.iter().filter_map(|(path, _)| path.strip_prefix(MIGRATIONS));
    paths.filter_map(|path| path.strip_prefix(database)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::Source;

    const TABLE: &str = r#"
failures! {
    /// No key: none.
    KeyMissing: Client 401 "type" "invalid_api_key" Never;
    KeyUnknown: Client 401 "type" "unknown" Never;
}
        match self {
            Self::KeyMissing => "missing",
            _ => self.row().code,
        }
"#;

    const ROWS: &str = r#"
    const fn row(self) -> X {
        match self {
            Self::A => (S::A, "gone", "It is gone"),
            Self::B => (
                S::B,
                "taken",
                "It is taken",
            ),
        }
    }

    const fn other() -> &'static str { "other" }
"#;

    fn places(pages: &[&str]) -> Vec<String> {
        let page = |word: &&str| (format!("{PAGES}{word}.md"), format!("# {word}\n\nx\n"));
        let tree = Tree {
            sources: vec![Source::new(FAILURES, TABLE), Source::new(PROBLEMS, ROWS)],
            others: pages.iter().map(page).collect(),
            ..Tree::default()
        };
        let mut found = Vec::new();
        error_pages(&tree, &mut found);
        found.into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn every_word_has_a_page() {
        assert!(places(&["README", "missing", "unknown", "gone", "taken"]).is_empty());
        let found = places(&["missing", "gone", "taken"]);
        assert_eq!(found, ["docs/errors/unknown.md"]);
    }

    #[test]
    fn a_page_without_a_word_is_found() {
        let found = places(&["missing", "unknown", "gone", "taken", "invalid_api_key"]);
        assert_eq!(found, ["docs/errors/invalid_api_key.md"]);
    }
}
