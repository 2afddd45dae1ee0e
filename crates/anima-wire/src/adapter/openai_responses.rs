//! OpenAI by way of Responses, which some of its models are only reached by.
//!
//! Speaks Responses as `platform.openai.com/docs/api-reference/responses` documents it
//! (`a-inbound` A.1.5, read November 2026), for clients of any dialect of chat. What is converted
//! is never stored at OpenAI: thoughts come back sealed instead, for the client to keep.
//! Invariant: a secret leaves only in the `authorization` header, marked as sensitive.

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap};

use super::passed::passed;
use super::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    classified, convert, retry_after, secure,
};
use crate::canonical::{Refusal, ToolNames};
use crate::dialect::Dialect;
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::responses::write_request;
use crate::request::{CallRequest, Endpoint};

const PATH: &str = "/responses";

/// The member that limits the output.
const LIMIT: &str = "max_output_tokens";

/// The adapter.
#[derive(Debug)]
pub(super) struct OpenAiResponses;

impl Adapter for OpenAiResponses {
    fn name(&self) -> &'static str {
        "openai_responses"
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        endpoint == Endpoint::ChatCompletions
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let upstream_model = to.model;
        if request.dialect == Dialect::Responses {
            let segments = request.rewrite(upstream_model, LIMIT);
            return Ok(passed(PATH, Dialect::Responses, segments));
        }
        let carried =
            convert(request, ToolNames::Plain, |wanted| write_request(wanted, upstream_model))?;
        Ok(Encoded::carried(PATH, carried))
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
        Answer::converted(Dialect::Responses, request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        StreamDecoder::of(Dialect::Responses, request)
    }
}
