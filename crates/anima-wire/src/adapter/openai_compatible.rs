//! OpenAI, and everybody who copies its API.
//!
//! Speaks chat completions, completions and embeddings as `platform.openai.com/docs/api-reference`
//! documents them (read November 2026). The body passes through but for `model` and, in streams,
//! `stream_options.include_usage`. Quirks that cost money: usage of a stream comes only when it is
//! asked for, and xAI counts reasoning outside the completion; both are seen to in the dialect.
//! Invariant: a secret leaves only in the `authorization` header, marked as sensitive.

use anima_core::failure::{Failure, Source};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::{
    Adapter, Answer, Classified, Encoded, SecretUnusable, StreamDecoder, neutral_message,
    retry_after,
};
use crate::dialect::openai::fault::Fault;
use crate::request::{CallRequest, Endpoint};

/// The adapter under the names that it has.
#[derive(Debug)]
pub(super) struct OpenAiCompatible {
    name: &'static str,
}

/// OpenAI itself.
pub(super) static OPENAI: OpenAiCompatible = OpenAiCompatible { name: "openai" };

/// Anybody else.
pub(super) static OPENAI_COMPATIBLE: OpenAiCompatible =
    OpenAiCompatible { name: "openai_compatible" };

/// Bytes of a provider's message that are shown. Real ones have some hundred.
const MESSAGE_BYTES_MAX: usize = 1024;

impl Adapter for OpenAiCompatible {
    fn name(&self) -> &'static str {
        self.name
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        match endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Embeddings => true,
        }
    }

    fn encode(&self, request: &CallRequest, upstream_model: &str) -> Encoded {
        let body = request.rewrite(upstream_model);
        let content_length = body.iter().map(Bytes::len).sum();
        Encoded { path: request.endpoint.path(), body, content_length }
    }

    fn authorize(&self, headers: &mut HeaderMap, secret: &str) -> Result<(), SecretUnusable> {
        let value = HeaderValue::from_str(&format!("Bearer {secret}"));
        let mut value = value.map_err(|_shows_the_secret| SecretUnusable)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        let fault = Fault::read(body);
        let failure = fault.with_status(status);
        let own = failure.row().source == Source::Client && !fault.message.is_empty();
        let message = if own { shown(&fault.message) } else { neutral_message(failure).to_owned() };
        Classified {
            failure,
            message,
            retry_after_ms: retry_after::read(headers),
            upstream_code: fault.code.map(|code| shown(&code)),
        }
    }

    fn answer(&self, endpoint: Endpoint, body: &Bytes) -> Result<Answer, Failure> {
        Answer::read(endpoint, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        StreamDecoder::new(request.include_usage)
    }
}

/// A provider's text on one line and not too long.
fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    let text = text.get(..end).unwrap_or_default();
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect()
}
