//! What gets lost on the way between dialects: refused by name, or dropped by name.
//!
//! Refused is what the caller would miss in the answer. Dropped is what only shades it, or only
//! the other vendor can use, and the caller is told in `x-anima-dropped`. Invariant: nothing is
//! lost without its name in one of the two. Source: `c-conversion` C.1.

use std::borrow::Cow;
use std::collections::BTreeSet;

use anima_core::failure::Failure;
use bytes::Bytes;

use crate::json::{self, Misfit};
use crate::request;

/// Names that are kept of one request; each is at most this many bytes, since callers choose them.
const NAMES_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 64;

/// Why a request cannot be read, or cannot be said in another dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no JSON.
    #[error("the request body cannot be read: {0}")]
    Json(#[from] json::Error),
    /// A member is of the wrong form.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A member that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The dialect on the other side has no word for it.
    #[error(
        "`{member}` cannot be carried to this model's provider: remove it or use another model"
    )]
    Unsupported {
        /// The member, as a path.
        member: Cow<'static, str>,
    },
}

impl Refusal {
    /// A refusal of a member that cannot be carried.
    pub fn unsupported(member: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported { member: member.into() }
    }

    /// The same for a kind that the caller has named, in a place of ours.
    pub(crate) fn unsupported_kind(place: &str, kind: &str) -> Self {
        let kind: String = kind.chars().take(NAME_BYTES_MAX).collect();
        Self::unsupported(format!("{place}.{kind}"))
    }
}

impl From<Refusal> for request::Error {
    fn from(refusal: Refusal) -> Self {
        let param = match &refusal {
            Refusal::Misfit(misfit) => Some(misfit.member),
            Refusal::Missing(member) | Refusal::Unsupported { member: Cow::Borrowed(member) } => {
                Some(*member)
            }
            Refusal::Json(_) | Refusal::Unsupported { .. } => None,
        };
        Self { failure: Failure::BodyInvalid, message: refusal.to_string(), param }
    }
}

/// Names of what was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped(BTreeSet<Cow<'static, str>>);

impl Dropped {
    /// Notes a member of ours.
    pub fn note(&mut self, member: &'static str) {
        self.0.insert(Cow::Borrowed(member));
    }

    /// Notes a member if it is there.
    pub fn note_if(&mut self, is_there: bool, member: &'static str) {
        if is_there {
            self.note(member);
        }
    }

    /// Notes a member that the caller has named. Names that no header can carry, and those beyond
    /// a bound, are counted as one.
    pub fn note_unplaced(&mut self, member: &str) {
        let plain = member.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        if plain && member.len() <= NAME_BYTES_MAX && self.0.len() < NAMES_MAX {
            self.0.insert(Cow::Owned(member.to_owned()));
        } else {
            self.note("others");
        }
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `x-anima-dropped`: names in order, with commas.
    pub fn header(&self) -> String {
        self.0.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")
    }
}

/// A request in another dialect.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The body.
    pub body: Bytes,
    /// What it lacks.
    pub dropped: Dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_callers_are_bounded_and_fit_a_header() {
        let mut dropped = Dropped::default();
        dropped.note("seed");
        for at in 0..100 {
            dropped.note_unplaced(&format!("m{at}"));
        }
        dropped.note_unplaced("a,b\r\nc");
        dropped.note_unplaced(&"x".repeat(1000));
        let header = dropped.header();
        assert!(header.len() < 400 && header.is_ascii() && !header.contains(['\r', '\n']));
        assert!(header.split(',').any(|name| name == "others"));
    }

    #[test]
    fn a_refusal_names_the_member() {
        let error = request::Error::from(Refusal::unsupported("logprobs"));
        assert_eq!((error.param, error.failure), (Some("logprobs"), Failure::BodyInvalid));
        assert!(error.message.contains("`logprobs`"));
    }
}
