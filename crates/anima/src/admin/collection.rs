//! What sets one resource apart from another, so that its verbs can be written once.
//!
//! A [`Collection`] says where its rows live, which codes they may have, and how a body is judged
//! before it is stored. Not here: the verbs (`rows`) and the routes (`endpoints`). Invariant: a
//! body that `prepare` gave has the type's exact shape and holds no secret in clear.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use anima_core::config::{Check, Resource};
use anima_store::config::Row;

use super::Admin;
use super::problem::{Code, Problem};
use super::rows::is_ahead;
use super::typed::typed;

/// One kind of row behind the admin API.
#[async_trait]
pub(crate) trait Collection: Sync + Debug {
    /// The table.
    fn resource(&self) -> Resource;

    /// The last word of the collection's path: `channels`, `token-groups`.
    fn path(&self) -> &'static str;

    /// How its rows are named.
    fn codes(&self) -> Codes {
        Codes::Plain
    }

    /// Judges what the caller wrote, before it is merged with what is stored.
    ///
    /// # Errors
    /// A member that only the store may write.
    fn vet(&self, _given: &Map<String, Value>) -> Result<(), Problem> {
        Ok(())
    }

    /// Judges a whole body and makes it ready to be stored.
    ///
    /// # Errors
    /// The first member that is wrong, or names a row that does not exist.
    async fn prepare(&self, admin: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem>;

    /// Takes out of a body what nobody may read back.
    fn veil(&self, _body: &mut Map<String, Value>) {}
}

/// A body on its way to the store.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// The row's code.
    pub(crate) code: &'a str,
    /// What the row shall say.
    pub(crate) body: Value,
    /// What it said: the version that is changed. `None` at creation.
    pub(crate) origin: Option<&'a Value>,
    /// All its versions, newest first; not empty for a code that was deleted before.
    pub(crate) history: &'a [Row],
}

/// A body that may be stored.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// In the type's exact shape, defaults written out.
    pub(crate) body: Value,
    /// For a price, what it is for.
    pub(crate) scope: Option<String>,
}

impl Prepared {
    /// A body without a scope.
    ///
    /// # Errors
    /// Never for the types of the configuration; a defect otherwise.
    pub(crate) fn of<B: Serialize>(body: &B) -> Result<Self, Problem> {
        match serde_json::to_value(body) {
            Ok(body) => Ok(Self { body, scope: None }),
            Err(error) => Err(Problem::new(Code::Internal, error.to_string())),
        }
    }
}

/// Gives a body its type and lets it judge itself.
///
/// # Errors
/// The first bad member.
pub(crate) fn checked<B: DeserializeOwned + Check>(body: Value) -> Result<B, Problem> {
    let body: B = typed(body)?;
    body.check()?;
    Ok(body)
}

/// How the rows of a collection are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codes {
    /// Chosen by the admin: `[a-z0-9._:-]`.
    Plain,
    /// Chosen by the admin, as models are named: capitals and slashes too.
    ModelName,
    /// Minted here.
    Minted,
}

/// Longest code, in characters: what the tables hold.
pub(crate) const CODE_CHARS_MAX: usize = 64;

impl Codes {
    /// Judges a new row's code.
    ///
    /// # Errors
    /// What a code may look like.
    pub(crate) fn check(self, code: &str) -> Result<(), Problem> {
        let model = self == Self::ModelName;
        let letter = |b: u8| {
            b.is_ascii_lowercase()
                || b.is_ascii_digit()
                || b"._:-".contains(&b)
                || (model && (b.is_ascii_uppercase() || b == b'/'))
        };
        let fits = code.len() <= CODE_CHARS_MAX && code.bytes().all(letter);
        // Each part starts with a letter or digit: `.` and `..` would be eaten by URL libraries.
        let starts = |part: &str| part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !fits || !code.split('/').all(starts) {
            let expected = if model {
                "1 to 64 of A-Z a-z 0-9 . _ : - /, each part starting with a letter or digit"
            } else {
                "1 to 64 of a-z 0-9 . _ : -, starting with a letter or digit"
            };
            return Err(Problem::invalid("code", expected));
        }
        if model && (code.ends_with("/versions") || code.ends_with("/restore")) {
            return Err(Problem::invalid(
                "code",
                "a name that does not end like a path of this API",
            ));
        }
        Ok(())
    }
}

/// Makes sure that the row which `member` names exists, now or later.
///
/// # Errors
/// [`Code::UnknownReference`], or the store's.
pub(crate) async fn ensure_exists(
    admin: &Admin,
    resource: Resource,
    code: &str,
    member: &str,
) -> Result<(), Problem> {
    let now = admin.clock.now();
    let versions = admin.stores.config.versions(resource, code).await?;
    if versions.iter().any(|row| is_ahead(row, now)) {
        return Ok(());
    }
    let what = resource.name().replace('_', " ");
    Err(Problem::member(Code::UnknownReference, member, format!("no {what} of that code exists")))
}

/// The same for a member that may be absent.
///
/// # Errors
/// Those of [`ensure_exists`].
pub(crate) async fn ensure_optional(
    admin: &Admin,
    resource: Resource,
    code: Option<&str>,
    member: &str,
) -> Result<(), Problem> {
    match code {
        Some(code) => ensure_exists(admin, resource, code, member).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_judged_by_kind() {
        for good in ["a", "gpt-4o", "eu.west:1_x", "0", &"x".repeat(64)] {
            assert!(Codes::Plain.check(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a/b", "a b", ".", "..", "-a", "ä", "a%", "a\n", &"x".repeat(65)] {
            assert!(Codes::Plain.check(bad).is_err(), "{bad}");
        }
        for good in ["gpt-4o", "meta-llama/Llama-3", "a/b/c"] {
            assert!(Codes::ModelName.check(good).is_ok(), "{good}");
        }
        for bad in ["/a", "a/", "a//b", "a/../b", "a/versions", "a/versions/3/restore", "a?b"] {
            assert!(Codes::ModelName.check(bad).is_err(), "{bad}");
        }
    }
}
