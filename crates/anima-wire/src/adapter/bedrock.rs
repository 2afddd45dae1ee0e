//! Models at AWS Bedrock: Claude and those that make vectors by `InvokeModel`, others by Converse.
//!
//! Speaks Messages, or Converse, below the path of a model, as `docs.aws.amazon.com/bedrock`
//! documents it (`b-outbound-chat` B.1, B.3 and B.7, read November 2026). Streams come as frames of
//! the AWS event stream: Claude's have one event of Anthropic's inside, those of Converse are said
//! in its words (`converse_in`). A secret is `KEY_ID:SECRET`, with `:SESSION_TOKEN` for a temporary
//! one, which signs each request, or an API key of Bedrock's. The region that signs is the setting
//! `region`, else that of the host, else `us-east-1`. The ARN of an inference profile does not tell
//! its model, and Converse takes any. Invariant: a secret access key never leaves, and what leaves
//! is marked as sensitive.

mod converse_in; // its answers, in Anthropic's words
mod converse_out; // requests for it
mod frames;
mod signature;
mod vectors;

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap};

pub(super) use frames::Frames;
use signature::Keys;
pub(super) use vectors::of_model as of_vectors;

use super::anthropic::Anthropic;
use super::{
    Adapter, Answer, BETA, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    classified, convert, in_path, retry_after, secure, without,
};
use crate::canonical::{Refusal, ToolNames};
use crate::dialect::Dialect;
use crate::dialect::openai::fault::Fault;
use crate::request::{CallRequest, Endpoint};

/// The word in a channel's `provider`.
pub(super) const NAME: &str = "bedrock";

/// What a request says in the place of its model.
const VERSION: &str = r#""anthropic_version":"bedrock-2023-05-31""#;

/// The adapter.
#[derive(Debug)]
pub(super) struct Invoke;

impl Adapter for Invoke {
    fn name(&self) -> &'static str {
        NAME
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        Anthropic.serves(endpoint)
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let encoded = Anthropic.encode(request, to)?;
        let gone = ["model", "stream", "anthropic_version"];
        let (mut dropped, region) = (encoded.dropped, region(to));
        let body = without(&encoded.body.concat(), &gone, (VERSION, &mut dropped))?;
        let verb = if request.stream { "invoke-with-response-stream" } else { "invoke" };
        let path = format!("/model/{}/{verb}", in_path(to.model));
        dropped.note_if(encoded.beta.is_some(), BETA);
        Ok(Encoded { dropped, region, ..Encoded::new(path, vec![body]) })
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        authorize(headers, secret, sent)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        classify(status, headers, body)
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        let answer = Anthropic.answer(request, body);
        answer.map_err(|failure| {
            // Amazon's own errors have nothing but a message.
            let fault = Fault::read(body);
            let is_told = failure == Failure::AnswerMalformed && fault != Fault::default();
            if is_told { fault.in_answer() } else { failure }
        })
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        Anthropic.stream(request).framed(Frames::default())
    }
}

/// Any model, by Converse.
#[derive(Debug)]
pub(super) struct Converse;

impl Adapter for Converse {
    fn name(&self) -> &'static str {
        NAME
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        endpoint == Endpoint::ChatCompletions
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let carried =
            convert(request, ToolNames::Plain, |wanted| converse_out::write(wanted, to.model))?;
        let verb = if request.stream { "converse-stream" } else { "converse" };
        let path = format!("/model/{}/{verb}", in_path(to.model));
        Ok(Encoded { region: region(to), ..Encoded::carried(path, carried) })
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        authorize(headers, secret, sent)
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        classify(status, headers, body)
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        let message = converse_in::message(body)?;
        Answer::said_anew(Dialect::Anthropic, request, &message)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        StreamDecoder::said_anew(Dialect::Anthropic, request).framed(Frames::of_converse())
    }
}

/// The region that a channel names.
fn region(to: Destination<'_>) -> Option<Box<str>> {
    to.setting("region").map(Box::from)
}

fn authorize(headers: &mut HeaderMap, secret: &str, sent: &Sent<'_>) -> Result<(), SecretUnusable> {
    match Keys::read(secret) {
        Some(keys) => keys.sign(headers, sent),
        None => secure(headers, AUTHORIZATION, &format!("Bearer {secret}")),
    }
}

fn classify(status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
    let mut fault = Fault::read(body);
    let kind = headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok());
    if let Some(kind) = kind {
        // `ThrottlingException:http://…`
        fault.code = kind.split(':').next().map(str::to_owned);
    }
    classified(fault, status, retry_after::read(headers))
}

#[cfg(test)]
mod tests;
