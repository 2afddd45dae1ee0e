//! Sizes: of files, functions, traits and lines.
//!
//! Only the last column of STYLE.md's table is held here; the aims are for review. Lines are
//! counted as they stand, with comments: a reader scrolls past those too.
//! Invariant: production code only, but for the width and a (wider) limit on test files.

use super::Finding;
use super::source::{Source, Tree};

const FILE_LINES: usize = 500;
const TEST_FILE_LINES: usize = 1000;
const FUNCTION_LINES: usize = 70;
const TRAIT_METHODS: usize = 7;
const WIDTH: usize = 100;
/// For tables that are written as tables: under `#[rustfmt::skip]`, or in a `table! { … }`.
const TABLE_WIDTH: usize = 130;

pub(super) fn check(tree: &Tree, found: &mut Vec<Finding>) {
    for source in &tree.sources {
        file(source, found);
        width(source, found);
        for block in blocks(&source.live, "fn ") {
            if block.lines > FUNCTION_LINES {
                let place = format!("{}::{}", source.path, block.name);
                let message = format!("{} lines; {FUNCTION_LINES} at most", block.lines);
                found.push(Finding::new("function-size", place, message).of_size(block.lines));
            }
        }
        for block in blocks(&source.live, "trait ") {
            let methods = block.body.matches("fn ").count();
            if methods > TRAIT_METHODS {
                let place = format!("{}::{}", source.path, block.name);
                let message = format!("{methods} methods; {TRAIT_METHODS} at most");
                found.push(Finding::new("trait-size", place, message).of_size(methods));
            }
        }
    }
}

fn file(source: &Source, found: &mut Vec<Finding>) {
    let (lines, most) = if source.is_test() {
        (source.text.lines().count(), TEST_FILE_LINES)
    } else {
        (source.live_lines(), FILE_LINES)
    };
    if lines > most {
        let message = format!("{lines} lines; {most} at most");
        found.push(Finding::new("file-size", source.path.as_str(), message).of_size(lines));
    }
}

fn width(source: &Source, found: &mut Vec<Finding>) {
    let mut table: Option<usize> = None;
    for (number, line) in source.text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if line.trim() == "#[rustfmt::skip]" || (indent == 0 && line.ends_with("! {")) {
            table = Some(indent);
        }
        let most = if table.is_some() { TABLE_WIDTH } else { WIDTH };
        let columns = line.chars().count();
        if columns > most {
            let place = format!("{}:{}", source.path, number + 1);
            let message = format!("{columns} columns; {most} at most");
            found.push(Finding::new("line-width", place, message));
        }
        if table == Some(indent) && line.trim_start().starts_with(['}', ']', ')']) {
            table = None;
        }
    }
}

/// Something with a name and braces.
struct Block<'a> {
    name: &'a str,
    body: &'a str,
    lines: usize,
}

/// Every `KEYWORD name … { … }` of code without comments and literals.
fn blocks<'a>(code: &'a str, keyword: &str) -> Vec<Block<'a>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(keyword) {
        let before = code.get(..at).unwrap_or_default();
        let rest = code.get(at..).unwrap_or_default();
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name = rest.get(keyword.len()..).unwrap_or_default();
        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next();
        if let (Some(name), Some(body)) = (name.filter(|name| !name.is_empty()), body(rest)) {
            let lines = body.matches('\n').count() + 1;
            found.push(Block { name, body, lines });
        }
    }
    found
}

/// From the start to the brace that closes the first one; nothing for a declaration.
fn body(rest: &str) -> Option<&str> {
    let mut depth = 0_usize;
    // A `;` inside brackets or parentheses is an array's type.
    let mut inside = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' => inside += 1,
            ')' | ']' => inside = inside.saturating_sub(1),
            ';' if depth == 0 && inside == 0 => return None,
            '{' => depth += 1,
            '}' if depth <= 1 => return rest.get(..=at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_counted_from_its_name_to_its_last_brace() {
        let code = "fn a(x: [u8; 2]) {\n    if b {\n    }\n}\nfn c();\nlet f: fn(u8) = x;\n";
        let sizes: Vec<_> = blocks(code, "fn ").iter().map(|b| (b.name, b.lines)).collect();
        assert_eq!(sizes, [("a", 4)]);
    }

    #[test]
    fn only_a_table_may_be_wide() {
        let row = format!("    a{}\n", " ".repeat(110));
        let text = format!("#[rustfmt::skip]\nconst T: X = [\n{row}];\n{row}");
        let mut found = Vec::new();
        width(&Source::new("crates/x/src/a.rs", &text), &mut found);
        let places: Vec<_> = found.iter().map(|finding| finding.place.as_str()).collect();
        assert_eq!(places, ["crates/x/src/a.rs:5"]);
    }

    #[test]
    fn methods_are_counted_per_trait() {
        let code = "pub trait T {\n    fn a();\n    fn b() {}\n}\n";
        let methods = blocks(code, "trait ").first().map(|b| b.body.matches("fn ").count());
        assert_eq!(methods, Some(2));
    }
}
