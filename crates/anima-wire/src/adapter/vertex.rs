//! Google's and Anthropic's models at Vertex AI.
//!
//! Speaks what `gemini` and `anthropic` do, below the paths of a project, as
//! `cloud.google.com/vertex-ai/docs/reference/rest` documents it (`b-outbound-chat` B.1, B.3 and
//! B.6, read November 2026). The channel's settings name `project` and `location`; the base URL is
//! the bare origin of the location. A secret is an access token, which `outbound` gets for a
//! service account, or an API key. Claude's model stands in the path and not in the body.
//! Invariant: a secret leaves only in its header, marked as sensitive.

mod call_ids; // of clients that have Gemini's own API in mind

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use super::anthropic::Anthropic;
use super::embedding::{self, Form};
use super::gemini::{Gemini, can_be_shown, target};
use super::{
    Adapter, Answer, BETA, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    convert, in_path, secure, without,
};
use crate::canonical::{Refusal, ToolNames};
use crate::dialect::Dialect;
use crate::dialect::gemini::{Target, write_request};
use crate::request::{CallRequest, Endpoint};

/// The word in a channel's `provider`.
pub(super) const NAME: &str = "vertex";

/// How API keys of Google's begin; tokens never do.
const KEY: &str = "AIza";

/// What a request for Claude says in the place of its model.
const VERSION: &str = r#""anthropic_version":"vertex-2023-10-16""#;

/// Google's own models.
#[derive(Debug)]
pub(super) struct Google;

/// Anthropic's models.
#[derive(Debug)]
pub(super) struct Claude;

fn path(to: Destination<'_>, publisher: &str, verb: &str) -> String {
    let project = in_path(to.setting("project").unwrap_or_default());
    let location = in_path(to.setting("location").unwrap_or_default());
    let model = in_path(to.model.trim_start_matches("models/"));
    format!(
        "/v1/projects/{project}/locations/{location}/publishers/{publisher}/models/{model}:{verb}"
    )
}

fn authorize(headers: &mut HeaderMap, secret: &str) -> Result<(), SecretUnusable> {
    if secret.starts_with(KEY) {
        return secure(headers, HeaderName::from_static("x-goog-api-key"), secret);
    }
    secure(headers, AUTHORIZATION, &format!("Bearer {secret}"))
}

impl Adapter for Google {
    fn name(&self) -> &'static str {
        NAME
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Embeddings)
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        if request.endpoint == Endpoint::Embeddings {
            // They have a method and a form of their own here.
            let carried = embedding::to_form(Form::Predict, request, to.model)?;
            return Ok(Encoded::carried(path(to, "google", "predict"), carried));
        }
        let verb = if request.stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        let path = path(to, "google", verb);
        if request.dialect == Dialect::Gemini {
            let encoded = Gemini.encode(request, to)?;
            return Ok(Encoded { path: path.into(), ..call_ids::without(encoded) });
        }
        can_be_shown(request, to.model)?;
        let target = Target { takes_ids: false, ..target(to.model) };
        let carried = convert(request, ToolNames::Dotted, |wanted| write_request(wanted, target))?;
        Ok(Encoded::carried(path, carried))
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        _sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        authorize(headers, secret)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        Gemini.classify(status, headers, body)
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        if request.endpoint == Endpoint::Embeddings {
            return embedding::from_form(request, body);
        }
        Gemini.answer(request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        Gemini.stream(request)
    }
}

impl Adapter for Claude {
    fn name(&self) -> &'static str {
        NAME
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        Anthropic.serves(endpoint)
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let encoded = Anthropic.encode(request, to)?;
        let mut dropped = encoded.dropped;
        let gone = ["model", "anthropic_version"];
        let body = without(&encoded.body.concat(), &gone, (VERSION, &mut dropped))?;
        let verb = if request.stream { "streamRawPredict" } else { "rawPredict" };
        dropped.note_if(encoded.beta.is_some(), BETA);
        Ok(Encoded { dropped, ..Encoded::new(path(to, "anthropic", verb), vec![body]) })
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        _sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        authorize(headers, secret)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        // Vertex itself refuses in Google's words, Claude in Anthropic's; both are read alike.
        Gemini.classify(status, headers, body)
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        Anthropic.answer(request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        Anthropic.stream(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_a_key_have_headers_of_their_own() {
        let mut headers = HeaderMap::new();
        Google.authorize(&mut headers, "ya29.x", &Sent::nothing()).unwrap();
        assert!(headers[AUTHORIZATION].is_sensitive());
        let mut headers = HeaderMap::new();
        Claude.authorize(&mut headers, "AIza1", &Sent::nothing()).unwrap();
        assert!(headers["x-goog-api-key"].is_sensitive() && !headers.contains_key(AUTHORIZATION));
    }
}
