//! Comments: every file says what it is, and nothing is left for later in silence.
//!
//! What a comment says is for review; here only that it is there and how long it is.
//! Invariant: a note for later carries the number of its issue.

use super::Finding;
use super::source::{Source, Tree};

/// The first lines of a file: what it is, what it is not, its invariant, its source.
const OPENING: std::ops::RangeInclusive<usize> = 3..=15;

const LATER: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

pub(super) fn check(tree: &Tree, found: &mut Vec<Finding>) {
    for source in &tree.sources {
        opening(source, found);
        for (line, text) in &source.lexed.comments {
            if is_for_later(text) {
                let place = format!("{}:{line}", source.path);
                let message = "a note for later names its issue, as in `TODO(#12)`";
                found.push(Finding::new("no-bare-todo", place, message));
            }
        }
    }
    for (path, text) in &tree.others {
        let judged = [".sql", ".lua", ".sh"].iter().any(|end| path.ends_with(end));
        if judged && text.lines().any(is_for_later) {
            let message = "a note for later names its issue, as in `TODO(#12)`";
            found.push(Finding::new("no-bare-todo", path.as_str(), message));
        }
    }
}

/// `lib.rs` is a table of contents and may be longer; a test file may be shorter.
fn opening(source: &Source, found: &mut Vec<Finding>) {
    let lines = source.text.lines().take_while(|line| line.starts_with("//!")).count();
    let least = if source.is_test() { 1 } else { *OPENING.start() };
    let most = if source.path.ends_with("/lib.rs") { usize::MAX } else { *OPENING.end() };
    if lines < least || lines > most {
        let message = format!("opens with {lines} lines of `//!`; wanted are {least} to 15");
        found.push(Finding::new("opening-words", source.path.as_str(), message));
    }
}

fn is_for_later(text: &str) -> bool {
    LATER.iter().any(|word| {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(word) {
            let alone = !before.ends_with(char::is_alphanumeric)
                && !after.starts_with(char::is_alphanumeric);
            if alone && !before.ends_with('`') && !after.starts_with("(#") {
                return true;
            }
            rest = after;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_for_later_needs_its_issue() {
        assert!(is_for_later("// TODO: more"));
        assert!(is_for_later("-- FIXME"));
        assert!(!is_for_later("// TODO(#12): more"));
        assert!(!is_for_later("// mentions `TODO` as a word, and METHODXXXS"));
    }
}
