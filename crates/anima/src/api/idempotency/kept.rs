//! An answer as it is stored, and as it is given again.
//!
//! Stored is a line of JSON with status and headers, then the body as it went out. Invariant: what
//! is given again is the same status and the same bytes; only headers about this very exchange are
//! this exchange's own.

use axum::body::Body;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::reply::{self, Facts};

/// Marks an answer that was given before.
const REPLAY: HeaderName = HeaderName::from_static("x-anima-idempotent-replay");

/// The request that was made and charged.
const ORIGINAL: HeaderName = HeaderName::from_static("x-anima-original-request-id");

/// Headers that are about one exchange and not about its answer, or that a repeated answer has for
/// itself.
const OWN: [&str; 7] = [
    "x-request-id",
    "request-id",
    "x-anima-request-id",
    "x-anima-queue-wait-ms",
    "x-anima-config-version",
    "x-anima-degraded",
    "content-length",
];

/// An answer.
#[derive(Debug, Default)]
pub struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The line before the body.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
}

impl Kept {
    /// What a reply of these parts and this body says.
    pub(in crate::api) fn of(parts: &Parts, body: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(parts.headers.len());
        for (name, value) in &parts.headers {
            if !OWN.contains(&name.as_str()) {
                headers.append(name.clone(), value.clone());
            }
        }
        if let Some(id) = parts.headers.get("x-anima-request-id") {
            headers.insert(ORIGINAL, id.clone());
        }
        Self { status: parts.status, headers, body }
    }

    /// The same answer with another body.
    pub(super) fn with_body(&self, body: Bytes) -> Self {
        Self { status: self.status, headers: self.headers.clone(), body }
    }

    /// Bytes of the body.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// As it is stored.
    pub(in crate::api) fn to_bytes(&self) -> Vec<u8> {
        let headers = self.headers.iter();
        let headers = headers.filter_map(|(n, v)| Some((n.as_str(), v.to_str().ok()?))).collect();
        let head = Head { status: self.status.as_u16(), headers };
        // Strings and a number always serialise.
        let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
        bytes.reserve(self.body.len() + 1);
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// What was stored. `None` when these are other bytes.
    pub(in crate::api) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let (head, body) = bytes.split_at_checked(end)?;
        let head: Head<'_> = serde_json::from_slice(head).ok()?;
        let mut headers = HeaderMap::with_capacity(head.headers.len());
        for (name, value) in head.headers {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        let status = StatusCode::from_u16(head.status).ok()?;
        let body = Bytes::copy_from_slice(body.get(1..)?);
        Some(Self { status, headers, body })
    }

    /// The status, for records.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// One of its headers.
    pub(in crate::api) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Its body inside another one: JSON as it is, anything else as text.
    pub(in crate::api) fn body_value(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&self.body)))
    }

    /// The answer once more, for another request.
    pub fn replay(&self, facts: &Facts) -> Response<Body> {
        let mut response = self.give(facts);
        response.headers_mut().insert(REPLAY, HeaderValue::from_static("true"));
        response
    }

    /// The answer, for whoever asks for it.
    pub(in crate::api) fn give(&self, facts: &Facts) -> Response<Body> {
        let mut response = reply::json(self.status, self.body.clone(), facts);
        for (name, value) in &self.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn facts(id: u128) -> Facts {
        Facts { id: Uuid::from_u128(id), attempts: 2, ..Facts::default() }
    }

    #[test]
    fn an_answer_is_given_again_as_it_was_under_an_id_of_its_own() {
        let body = Bytes::from_static(b"data: {}\n\ndata: [DONE]\n\n");
        let (parts, _) = reply::streamed(Body::empty(), &facts(1)).into_parts();
        let kept = Kept::from_bytes(&Kept::of(&parts, body.clone()).to_bytes()).unwrap();
        assert_eq!(kept.body, body);
        let again = kept.replay(&Facts { attempts: 0, ..facts(2) });
        assert_eq!(again.status(), 200);
        let header = |name: &str| again.headers()[name].to_str().unwrap();
        assert_eq!(header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!(header("x-anima-idempotent-replay"), "true");
        assert_eq!(header("x-anima-attempts"), "2");
        assert!(header("x-anima-request-id").ends_with('2'));
        assert!(header("x-anima-original-request-id").ends_with('1'));
    }

    #[test]
    fn what_was_not_stored_here_is_no_answer() {
        for bytes in [&b""[..], b"\n", b"{}\nx", b"{\"status\":200,\"headers\":[]}"] {
            assert!(Kept::from_bytes(bytes).is_none());
        }
    }
}
