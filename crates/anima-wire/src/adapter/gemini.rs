//! Google's Gemini API.
//!
//! Speaks generateContent as `ai.google.dev/api/generate-content` documents it (`a-inbound` A.3,
//! read November 2026), for clients of any dialect of chat, and embedContent. The model stands in
//! the path. Quirks that cost money: thoughts are counted outside of the candidates; the dialect
//! sees to it. A bad key is a 400, the wait after a 429 stands in the body, and a quota of nothing
//! is no rate limit.
//! Invariant: a secret leaves only in the `x-goog-api-key` header, marked as sensitive.

use std::fmt::Write as _;

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};

use super::passed::passed;
use super::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    classified, convert, embedding, neutral_message, retry_after, secure,
};
use crate::canonical::{Refusal, ToolNames};
use crate::dialect::Dialect;
use crate::dialect::gemini::{Target, write_request};
use crate::dialect::openai::fault::Fault;
use crate::json::{Misfit, Node, Outline};
use crate::request::{CallRequest, Endpoint};

/// How the names of models go on that are older than the third generation.
const OLDER_MODELS: &[&str] = &["gemini-1", "gemini-2"];

/// What the names of models hold that make pictures. Who has no form for them would pay for what
/// it never sees (`c-conversion` C.3).
const PICTURES: &str = "-image";

/// The methods of a chat.
const WHOLE: &str = "generateContent";
const STREAM: &str = "streamGenerateContent?alt=sse";

/// The adapter.
#[derive(Debug)]
pub(super) struct Gemini;

/// That the client's format has a place for what this model answers with.
pub(super) fn can_be_shown(request: &CallRequest, model: &str) -> Result<(), Refusal> {
    if request.dialect != Dialect::Anthropic || !model.contains(PICTURES) {
        return Ok(());
    }
    let must = "be one that answers in words: this format has no pictures in answers";
    Err(Misfit { member: "model", must }.into())
}

impl Adapter for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Embeddings)
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let upstream_model = to.model;
        if request.endpoint == Endpoint::Embeddings {
            let (method, body, dropped) = embedding::to_gemini(request, upstream_model)?;
            return Ok(Encoded { dropped, ..Encoded::new(path(upstream_model, method), body) });
        }
        let path = path(upstream_model, if request.stream { STREAM } else { WHOLE });
        if request.dialect == Dialect::Gemini {
            return Ok(passed(path, Dialect::Gemini, request.with_limit()));
        }
        can_be_shown(request, upstream_model)?;
        let carried = convert(request, ToolNames::Dotted, |wanted| {
            write_request(wanted, target(upstream_model))
        })?;
        Ok(Encoded::carried(path, carried))
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        _sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        secure(headers, HeaderName::from_static("x-goog-api-key"), secret)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        let details = Details::read(body);
        let wait_ms = retry_after::read(headers).or(details.wait_ms);
        let mut found = classified(Fault::read(body), status, wait_ms);
        if found.failure == Failure::RateLimited && details.has_no_quota {
            found.failure = Failure::AccountExhausted;
            neutral_message(found.failure).clone_into(&mut found.message);
        }
        found
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        if request.endpoint == Endpoint::Embeddings {
            return embedding::from_gemini(request, body);
        }
        Answer::converted(Dialect::Gemini, request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        StreamDecoder::of(Dialect::Gemini, request)
    }
}

/// Who reads a request for a model, at Gemini's own API.
pub(super) fn target(model: &str) -> Target<'_> {
    let is_newer = !OLDER_MODELS.iter().any(|name| model.contains(name));
    Target { model, is_newer, takes_ids: true }
}

/// The path for a model. Names come from configuration, so that anything may stand in them.
fn path(model: &str, method: &str) -> String {
    let mut path = String::with_capacity(model.len() + 48);
    path.push_str(if model.contains('/') { "/v1beta/" } else { "/v1beta/models/" });
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            path.push(char::from(byte));
        } else if write!(path, "%{byte:02X}").is_err() {
            // Writing to a string does not fail.
            return path;
        }
    }
    path.push(':');
    path.push_str(method);
    path
}

/// What stands in `error.details`.
#[derive(Debug, Default)]
struct Details {
    wait_ms: Option<u64>,
    has_no_quota: bool,
}

impl Details {
    fn read(body: &[u8]) -> Self {
        let Ok(outline) = Outline::read(body) else {
            return Self::default();
        };
        let root = outline.root();
        let root = root.elements().next().unwrap_or(root);
        let details = root.get("error").and_then(|error| error.get("details"));
        let mut found = Self::default();
        for detail in details.iter().flat_map(Node::elements) {
            let delay = detail.text_of("retryDelay");
            let wait_ms = delay.and_then(|delay| retry_after::duration(&delay));
            found.wait_ms = found.wait_ms.or(wait_ms);
            for violation in detail.get("violations").iter().flat_map(Node::elements) {
                found.has_no_quota |=
                    violation.get("quotaValue").is_some_and(|value| value.is("0"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_stands_in_the_path_whatever_it_is_called() {
        assert_eq!(path("gemini-2.5-pro", WHOLE), "/v1beta/models/gemini-2.5-pro:generateContent");
        let tuned = "/v1beta/tunedModels/a:streamGenerateContent?alt=sse";
        assert_eq!(path("tunedModels/a", STREAM), tuned);
        assert_eq!(path("a b?c", WHOLE), "/v1beta/models/a%20b%3Fc:generateContent");
    }

    #[test]
    fn a_wait_and_a_quota_of_nothing_are_found_among_the_details() {
        let body = br#"[{"error":{"details":[{"violations":[{"quotaValue":"0"}]},
            {"retryDelay":"1.5s"},{"retryDelay":"9s"}]}}]"#;
        let found = Details::read(body);
        assert_eq!((found.wait_ms, found.has_no_quota), (Some(1_500), true));
        let found = Details::read(b"oops");
        assert_eq!((found.wait_ms, found.has_no_quota), (None, false));
    }

    #[test]
    fn the_secret_is_in_its_own_header_and_sensitive() {
        let mut headers = HeaderMap::new();
        Gemini.authorize(&mut headers, "AIza", &Sent::nothing()).unwrap();
        assert!(headers["x-goog-api-key"].is_sensitive());
        assert!(Gemini.authorize(&mut headers, "a\nb", &Sent::nothing()).is_err());
    }
}
