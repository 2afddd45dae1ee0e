//! Names with `*` (any text, also none) and `?` (one character), for models and keys.
//!
//! Not a path glob: `/` is a character like any other, since model names contain it. Matching is
//! linear in the text for each star, with one saved position and no recursion.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pattern over a whole name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// A pattern from its text; every text is a pattern.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// Whether the pattern is a plain name.
    pub(crate) fn name(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(self.0.as_str())
    }

    /// Whether the pattern covers the whole text.
    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.chars(), text.chars());
        let mut star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            let mut rest = pattern.clone();
            let mut tail = text.clone();
            match (rest.next(), tail.next()) {
                (Some('*'), _) => {
                    star = Some((rest.clone(), text.clone()));
                    pattern = rest;
                }
                (None, None) => return true,
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    (pattern, text) = (rest, tail);
                }
                _ => {
                    // Let the last star swallow one character more.
                    let Some((after, mut swallowed)) = star.take() else {
                        return false;
                    };
                    if swallowed.next().is_none() {
                        return false;
                    }
                    (pattern, text) = (after.clone(), swallowed.clone());
                    star = Some((after, swallowed));
                }
            }
        }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_the_whole_name() {
        let table = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything/at:all", true),
            ("gpt-*", "gpt-4o", true),
            ("gpt-*", "a-gpt-4o", false),
            ("*-mini", "gpt-4o-mini", true),
            ("*-mini", "gpt-4o-mini-x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("?", "é", true),
            ("?", "", false),
            ("a*?", "a", false),
            ("*a", "baa", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} over {text}");
        }
    }
}
