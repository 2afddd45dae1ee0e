//! One HTTP call, taken apart: path, query, headers and body, each with its limits.
//!
//! The content type is not looked at: a body is JSON or it is refused. Invariant: no more than
//! [`BODY_BYTES_MAX`] of a body is ever held.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::Uri;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::caller::Caller;
use super::problem::{Code, Problem};
use super::typed::object;

/// Largest body: a price list with a thousand meters has 100 KiB.
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);

const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Rows of a page when the caller does not say, and at most.
const PAGE_ROWS: u32 = 50;
const PAGE_ROWS_MAX: u32 = 200;

/// A call on its way to its verb.
#[derive(Debug)]
pub(crate) struct Call {
    /// Who asks.
    pub(crate) caller: Caller,
    /// The path as the client wrote it, with whatever this router is nested under.
    pub(crate) path: String,
    /// Names in the path.
    pub(crate) names: Names,
    /// Members of the query.
    pub(crate) query: BTreeMap<String, String>,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

/// The names in a path, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The row: `{code}`, or a key's `{kid}`.
    pub(crate) code: String,
    /// A key's `{app}`.
    pub(crate) app: Option<String>,
    /// A version's `{n}`.
    pub(crate) version: String,
}

impl Call {
    /// The body as a JSON object.
    ///
    /// # Errors
    /// [`Code::InvalidBody`].
    pub(crate) fn object(&self) -> Result<Map<String, Value>, Problem> {
        object(&self.body)
    }

    /// The same where a body may be left out.
    ///
    /// # Errors
    /// [`Code::InvalidBody`].
    pub(crate) fn optional_object(&self) -> Result<Map<String, Value>, Problem> {
        if self.body.is_empty() { Ok(Map::new()) } else { self.object() }
    }

    /// The version in `If-Match`, if the header is there.
    ///
    /// # Errors
    /// When it is not a version: `*` would give the lock away.
    pub(crate) fn if_match(&self) -> Result<Option<i64>, Problem> {
        let Some(value) = self.headers.get(header::IF_MATCH) else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or_default().trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let version = text.parse().ok().filter(|n| *n >= 1);
        version
            .map(Some)
            .ok_or_else(|| Problem::invalid("If-Match", "one version: \"<version_no>\""))
    }

    /// The version in the path.
    ///
    /// # Errors
    /// [`Code::NotFound`] when it is not a number.
    pub(crate) fn version(&self) -> Result<i64, Problem> {
        let version = self.names.version.parse().ok();
        version.ok_or_else(|| Problem::new(Code::NotFound, "the row has no such version"))
    }

    /// Refuses what is in the query but not known here.
    ///
    /// # Errors
    /// [`Code::UnknownMember`].
    pub(crate) fn query_only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.query.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let detail = match known {
                    [] => "is not known: this path takes no query".to_owned(),
                    _ => format!("is not known: expected {}", known.join(" or ")),
                };
                Err(Problem::member(Code::UnknownMember, name, detail))
            }
            None => Ok(()),
        }
    }

    /// How many rows a page shall have.
    ///
    /// # Errors
    /// When it is not a number in range.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        let Some(text) = self.query.get("limit") else {
            return Ok(PAGE_ROWS);
        };
        let limit = text.parse().ok().filter(|n| (1..=PAGE_ROWS_MAX).contains(n));
        limit.ok_or_else(|| Problem::invalid("limit", "a number from 1 to 200"))
    }
}

/// Reads a whole body.
///
/// # Errors
/// [`Code::BodyTooLarge`], or [`Code::InvalidBody`] when it breaks off or does not come.
pub(crate) async fn read(body: Body) -> Result<Bytes, Problem> {
    let collecting = Limited::new(body, BODY_BYTES_MAX).collect();
    let Ok(collected) = tokio::time::timeout(BODY_WITHIN, collecting).await else {
        return Err(Problem::new(Code::InvalidBody, "the body did not arrive within 30 s"));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::BodyTooLarge, "a body has at most 1 MiB"))
        }
        Err(_) => Err(Problem::new(Code::InvalidBody, "the body broke off")),
    }
}

/// The members of a query; the last one wins.
///
/// # Errors
/// [`Code::InvalidMember`] when it cannot be decoded.
pub(crate) fn query(uri: &Uri) -> Result<BTreeMap<String, String>, Problem> {
    let decoded = Query::<BTreeMap<String, String>>::try_from_uri(uri).ok();
    // PostgreSQL cannot compare with U+0000, so nothing is named so.
    let sound = decoded.filter(|Query(members)| !members.values().any(|text| text.contains('\0')));
    match sound {
        Some(Query(members)) => Ok(members),
        None => Err(Problem::new(Code::InvalidMember, "the query cannot be decoded")),
    }
}
