//! What is allowed to cross a limit, with its reason.
//!
//! Not a place to put new debt: the list may only shrink. A size that fell lowers its entry, and
//! an entry that excuses nothing goes; both are findings until it is done.

use super::Finding;

/// One excused finding.
#[derive(Debug)]
pub(super) struct Exception {
    /// As in the finding.
    pub(super) rule: &'static str,
    /// As in the finding.
    pub(super) place: &'static str,
    /// For sizes: what it may be at most. 0 for other rules.
    pub(super) size: usize,
    /// Why it stays.
    pub(super) reason: &'static str,
}

/// All of them.
pub(super) const LIST: &[Exception] = &[];

/// Takes excused findings out, and puts outdated exceptions in.
pub(super) fn apply(list: &[Exception], found: Vec<Finding>) -> Vec<Finding> {
    let mut left = Vec::new();
    let mut used = vec![false; list.len()];
    for finding in found {
        let excuse = list.iter().zip(&mut used).find(|(exception, _)| {
            exception.rule == finding.rule && exception.place == finding.place
        });
        let Some((exception, used)) = excuse else {
            left.push(finding);
            continue;
        };
        *used = true;
        let size = finding.size.unwrap_or(0);
        if size > exception.size {
            left.push(finding);
        } else if size < exception.size {
            left.push(outdated(exception, &format!("it is {size} now: lower the exception")));
        }
    }
    let unused = list.iter().zip(used).filter(|(_, used)| !used);
    left.extend(unused.map(|(exception, _)| outdated(exception, "excuses nothing: remove it")));
    left
}

fn outdated(exception: &Exception, what: &str) -> Finding {
    let message = format!("{what} (it was there because {})", exception.reason);
    Finding::new("exceptions-shrink", exception.place, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Exception =
        Exception { rule: "file-size", place: "a.rs", size: 600, reason: "it is one table" };

    fn finding(size: usize) -> Finding {
        Finding::new("file-size", "a.rs", "too long").of_size(size)
    }

    #[test]
    fn an_exception_excuses_exactly_its_size() {
        assert!(apply(&[LONG], vec![finding(600)]).is_empty());
        assert_eq!(apply(&[LONG], vec![finding(601)]), vec![finding(601)]);
    }

    #[test]
    fn an_exception_that_is_too_large_is_a_finding() {
        let left = apply(&[LONG], vec![finding(550)]);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].rule, "exceptions-shrink");
    }

    #[test]
    fn an_exception_that_excuses_nothing_is_a_finding() {
        assert_eq!(apply(&[LONG], Vec::new()).len(), 1);
    }
}
