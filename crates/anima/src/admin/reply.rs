//! Answers as HTTP: JSON with an `ETag`, a `Location`, and a warning where one is due; or CSV.
//!
//! Invariant: the `ETag` is the row's latest version, which is what a write must state.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

use super::rows::{Outcome, Place};
use crate::live::propagation::Propagation;

/// Sent with a change that is stored but that this node could not read back (RFC 7234, 5.5: 199 is
/// a miscellaneous warning).
const DELAYED: &str = "199 anima \"stored, but not yet in force on this node\"";

/// The id of a change's propagation.
const PROPAGATION: HeaderName = HeaderName::from_static("x-anima-propagation");
/// Whether every living node has the change in force.
const PROPAGATED: HeaderName = HeaderName::from_static("x-anima-propagation-complete");

/// An answer on its way out.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: StatusCode,
    body: Option<Value>,
    version_no: Option<i64>,
    location: Option<String>,
    delayed: bool,
    csv: Option<Csv>,
    /// The change's revision, and whether every living node has it, if that was looked up.
    propagation: Option<(i64, Option<bool>)>,
}

/// A table, and the file's name.
#[derive(Debug, Clone)]
struct Csv {
    text: String,
    disposition: String,
}

impl Reply {
    /// A body alone.
    pub(crate) fn ok(body: Value) -> Self {
        Self {
            status: StatusCode::OK,
            body: Some(body),
            version_no: None,
            location: None,
            delayed: false,
            csv: None,
            propagation: None,
        }
    }

    /// A table, to be saved as a file of that name, which holds nothing but `a-z 0-9 . _ -`.
    pub(crate) fn csv(text: String, name: &str) -> Self {
        let disposition = format!("attachment; filename=\"{name}\"");
        let csv = Some(Csv { text, disposition });
        Self { body: None, csv, ..Self::ok(Value::Null) }
    }

    /// A page of a list.
    pub(crate) fn page(items: Vec<Value>, next: Value) -> Self {
        let items = Value::Array(items);
        let members = [("items", items), ("next", next)];
        Self::ok(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A row.
    pub(crate) fn row(place: Place<'_>, outcome: &Outcome) -> Self {
        let body = place.show(&outcome.row);
        let version_no = Some(outcome.latest);
        Self { version_no, delayed: outcome.delayed, ..Self::ok(body) }
    }

    /// Nothing more to say.
    pub(crate) fn gone(outcome: &Outcome) -> Self {
        let status = StatusCode::NO_CONTENT;
        Self { status, body: None, delayed: outcome.delayed, ..Self::ok(Value::Null) }
    }

    /// The same answer with another status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same answer for something that was created at `location`.
    pub(crate) fn created(self, location: String) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), ..self }
    }

    /// The same answer for a change that this node may not have read back yet.
    pub(crate) fn delayed(self, delayed: bool) -> Self {
        Self { delayed, ..self }
    }

    /// The same answer with how far its change has come. Rows are answered as they are, so that
    /// they can be sent back; what is no row has the nodes in its body.
    pub(crate) fn propagating(self, rev: i64, found: Option<&Propagation>) -> Self {
        let is_row = self.version_no.is_some();
        let shown = found.filter(|_| !is_row).map(Propagation::to_json);
        let reply = match shown {
            Some(shown) => self.with_member("propagation", shown),
            None => self,
        };
        Self { propagation: Some((rev, found.map(Propagation::is_complete))), ..reply }
    }

    /// The same answer with one member more.
    pub(crate) fn with_member(mut self, name: &str, value: Value) -> Self {
        if let Some(Value::Object(members)) = &mut self.body {
            members.insert(name.to_owned(), value);
        }
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = match self.body.as_ref().map(Value::to_string) {
            Some(body) => {
                let kind = [(header::CONTENT_TYPE, "application/json")];
                (self.status, kind, body).into_response()
            }
            None => match &self.csv {
                Some(csv) => {
                    let kind = [(header::CONTENT_TYPE, "text/csv; charset=utf-8")];
                    (self.status, kind, csv.text.clone()).into_response()
                }
                None => self.status.into_response(),
            },
        };
        let headers = response.headers_mut();
        // Rows and balances are for one token's eyes, and stale ones mislead.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let mut put = |name: HeaderName, text: String| {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        };
        if let Some(version_no) = self.version_no {
            put(header::ETAG, format!("\"{version_no}\""));
        }
        if let Some(location) = self.location {
            put(header::LOCATION, location);
        }
        if let Some(csv) = self.csv {
            put(header::CONTENT_DISPOSITION, csv.disposition);
        }
        if let Some((rev, is_complete)) = self.propagation {
            put(PROPAGATION, rev.to_string());
            if let Some(is_complete) = is_complete {
                put(PROPAGATED, is_complete.to_string());
            }
        }
        if self.delayed {
            put(header::WARNING, DELAYED.to_owned());
        }
        response
    }
}
