//! OpenAI, and everybody who copies its API.
//!
//! Speaks chat completions, completions and embeddings as `platform.openai.com/docs/api-reference`
//! documents them (read November 2026). For clients of the same dialect the body passes through
//! but for `model` and, in streams, `stream_options.include_usage`; for others it is converted,
//! by the vendor's quirks, which are rows of [`super::presets`].
//! Quirks that cost money: usage of a stream comes only when it is asked for, and xAI counts
//! reasoning outside the completion; both are seen to in the dialect.
//! Invariant: a secret leaves only in the `authorization` header, marked as sensitive.

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap};
use memchr::memmem;
use serde_json::Value;

use super::passed::passed;
use super::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    classified, convert, embedding, presets, ranking, retry_after, secure,
};
use crate::canonical::{Refusal, ToolNames};
use crate::dialect::Dialect;
use crate::dialect::openai::chat;
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::quirks::{OPENAI as OPENAI_ITSELF, Quirks};
use crate::json::Outline;
use crate::request::rewrite::{NEWER, OLDER};
use crate::request::{CallRequest, Endpoint};

/// The adapter under the names that it has.
#[derive(Debug)]
pub(super) struct OpenAiCompatible {
    name: &'static str,
    is_openai: bool,
}

/// OpenAI itself.
pub(super) static OPENAI: OpenAiCompatible = OpenAiCompatible { name: "openai", is_openai: true };

/// Anybody else.
pub(super) static OPENAI_COMPATIBLE: OpenAiCompatible =
    OpenAiCompatible { name: "openai_compatible", is_openai: false };

impl OpenAiCompatible {
    fn quirks(&self, to: Destination<'_>) -> &'static Quirks {
        if self.is_openai { &OPENAI_ITSELF } else { presets::quirks(to.base_url) }
    }
}

/// The member by which usage of a stream is asked for.
const OPTIONS: &str = "stream_options";

/// A body without a wish that is refused, as its client may have it; all else as it came. The
/// usage comes all the same.
fn unasked(segments: Vec<Bytes>) -> Vec<Bytes> {
    if !segments.iter().any(|segment| memmem::find(segment, OPTIONS.as_bytes()).is_some()) {
        return segments;
    }
    let whole = segments.concat();
    let Ok(outline) = Outline::of_request(&whole) else { return segments };
    let root = outline.root();
    if root.members().all(|(name, _)| name != OPTIONS) {
        return segments;
    }
    let kept = root.members().filter(|(name, _)| name != OPTIONS);
    let texts: Vec<String> =
        kept.map(|(name, value)| format!("{}:{}", Value::from(&*name), value.raw())).collect();
    vec![Bytes::from(format!("{{{}}}", texts.join(",")))]
}

impl Adapter for OpenAiCompatible {
    fn name(&self) -> &'static str {
        self.name
    }

    fn serves(&self, _endpoint: Endpoint) -> bool {
        // Who lacks one answers 404, and the next channel is asked.
        true
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let upstream_model = to.model;
        let path = request.endpoint.path();
        if let (Endpoint::Rerank, Some(form)) = (request.endpoint, ranking::Form::at(to.base_url)) {
            return Ok(Encoded::carried(path, ranking::write(form, request, upstream_model)?));
        }
        if request.dialect == Dialect::OpenAiChat {
            // Models of OpenAI's that reason refuse the older name; many who copy know no other.
            let limit = if self.is_openai { NEWER } else { OLDER };
            let content_type = request.content_type().cloned();
            let segments = if self.quirks(to).asks_usage {
                request.rewrite(upstream_model, limit)
            } else {
                unasked(request.rewrite_unasked(upstream_model, limit))
            };
            let encoded = if request.endpoint == Endpoint::ChatCompletions {
                passed(path, Dialect::OpenAiChat, segments)
            } else {
                Encoded::new(path, segments)
            };
            return Ok(Encoded { content_type, ..encoded });
        }
        if request.endpoint == Endpoint::Embeddings {
            return Ok(Encoded::carried(path, embedding::to_openai(request, upstream_model)?));
        }
        let quirks = self.quirks(to);
        let target = chat::Target { model: upstream_model, is_openai: self.is_openai, quirks };
        let carried =
            convert(request, ToolNames::Plain, |wanted| chat::write_request(wanted, target))?;
        Ok(Encoded::carried(path, carried))
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        _sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        secure(headers, AUTHORIZATION, &format!("Bearer {secret}"))
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        classified(Fault::read(body), status, retry_after::read(headers))
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        let answer = Answer::read(request, body)?;
        if request.endpoint == Endpoint::Rerank {
            return ranking::said(answer, request);
        }
        let embeds = request.endpoint == Endpoint::Embeddings;
        if request.dialect == Dialect::OpenAiChat && embeds && !self.is_openai {
            // Many who copy the endpoint do not know of packing, and OpenAI's libraries ask for it.
            return embedding::packed(answer, request);
        }
        if request.dialect == Dialect::OpenAiChat {
            return Ok(answer);
        }
        if embeds {
            return embedding::said_to_gemini(answer, request);
        }
        answer.said_in(request)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        StreamDecoder::of(Dialect::OpenAiChat, request)
    }
}
