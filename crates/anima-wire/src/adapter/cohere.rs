//! Cohere: vectors and rankings by its own API, chats by its copy of OpenAI's.
//!
//! Speaks `v2/embed` and `v2/rerank` as `docs.cohere.com/reference` documents them, and the chat
//! completions below `compatibility/v1` (`b-outbound-chat` B.1, read November 2026). The base URL
//! is the bare origin. Quirk: what is billed stands in `meta.billed_units`, beside what was
//! counted. Invariant: a secret leaves only in its header, marked as sensitive.

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::HeaderMap;

use super::embedding::{self, Form};
use super::openai_compatible::OPENAI_COMPATIBLE;
use super::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder, ranking,
};
use crate::canonical::Refusal;
use crate::request::{CallRequest, Endpoint, Ranking};

/// The adapter.
#[derive(Debug)]
pub(super) struct Cohere;

impl Adapter for Cohere {
    fn name(&self) -> &'static str {
        "cohere"
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Embeddings | Endpoint::Rerank)
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        if request.endpoint == Endpoint::Embeddings {
            let carried = embedding::to_form(Form::Cohere, request, to.model)?;
            return Ok(Encoded::carried("/v2/embed", carried));
        }
        if request.endpoint == Endpoint::Rerank && request.ranking == Ranking::Jina {
            let carried = ranking::write(ranking::Form::Cohere, request, to.model)?;
            return Ok(Encoded::carried("/v2/rerank", carried));
        }
        let mut encoded = OPENAI_COMPATIBLE.encode(request, to)?;
        encoded.path = if request.endpoint == Endpoint::Rerank {
            "/v2/rerank".into()
        } else {
            format!("/compatibility/v1{}", encoded.path).into()
        };
        Ok(encoded)
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        OPENAI_COMPATIBLE.authorize(headers, secret, sent)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        OPENAI_COMPATIBLE.classify(status, headers, body)
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        if request.endpoint == Endpoint::Embeddings {
            return embedding::from_form(request, body);
        }
        OPENAI_COMPATIBLE.answer(request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        OPENAI_COMPATIBLE.stream(request)
    }
}
