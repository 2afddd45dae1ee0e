//! Puts a table into a document, or makes a document of it.
//!
//! Not the table (`report`). Invariant: of a document that has both marks only what stands between
//! them is replaced; what people wrote stays.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What stands before and after the table.
const MARKS: (&str, &str) = ("<!-- cargo xtask crash -->\n", "<!-- end -->\n");

/// Writes a file.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, table: &str) -> Result<()> {
    let before = fs::read_to_string(path).unwrap_or_default();
    let text = between(&before, table).unwrap_or_else(|| table.to_owned());
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn between(before: &str, table: &str) -> Option<String> {
    let (head, rest) = before.split_once(MARKS.0)?;
    let (_, tail) = rest.split_once(MARKS.1)?;
    Some(format!("{head}{}\n{table}\n{}{tail}", MARKS.0, MARKS.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("# A\n\n{}old{}\nB\n", MARKS.0, MARKS.1);
        let made = between(&page, "new\n").unwrap();
        assert_eq!(made, format!("# A\n\n{}\nnew\n\n{}\nB\n", MARKS.0, MARKS.1));
        assert_eq!(between(&made, "new\n").unwrap(), made);
        assert_eq!(between("# A", "new"), None);
    }
}
