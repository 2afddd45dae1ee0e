//! Puts a table into a document, or makes a document of it.
//!
//! Not the table (`report`). Invariant: of a document that has both marks only what stands between
//! them is replaced; what people wrote stays.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What stands after the table.
const END: &str = "<!-- end -->\n";

/// Writes the table of a verb into a file.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, verb: &str, table: &str) -> Result<()> {
    let before = fs::read_to_string(path).unwrap_or_default();
    let text = between(&before, verb, table).unwrap_or_else(|| table.to_owned());
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn between(before: &str, verb: &str, table: &str) -> Option<String> {
    let begin = format!("<!-- cargo xtask {verb} -->\n");
    let (head, rest) = before.split_once(&begin)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{begin}\n{table}\n{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let begin = "<!-- cargo xtask crash -->\n";
        let page = format!("# A\n\n{begin}old{END}\nB\n");
        let made = between(&page, "crash", "new\n").unwrap();
        assert_eq!(made, format!("# A\n\n{begin}\nnew\n\n{END}\nB\n"));
        assert_eq!(between(&made, "crash", "new\n").unwrap(), made);
        assert_eq!(between(&made, "chaos", "new\n"), None);
    }
}
