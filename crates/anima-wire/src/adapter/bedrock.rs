//! Claude at AWS Bedrock, by `InvokeModel`.
//!
//! Speaks Messages below the path of a model, as `docs.aws.amazon.com/bedrock` documents it
//! (`b-outbound-chat` B.1, B.3 and B.7, read November 2026). Streams come as frames of the AWS
//! event stream, each with one event of Anthropic's inside. A secret is `KEY_ID:SECRET`, with
//! `:SESSION_TOKEN` for a temporary one, which signs each request, or an API key of Bedrock's. The
//! base URL is `https://bedrock-runtime.{region}.amazonaws.com`, and the region that signs is read
//! from it; any other host is signed for as `us-east-1`. Not here: other vendors' models, which
//! speak Converse (`adapter::speaks` refuses them). Invariant: a secret access key never leaves,
//! and what leaves is marked as sensitive.

mod frames;
mod signature;

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap};

pub(super) use frames::Frames;
use signature::Keys;

use super::anthropic::Anthropic;
use super::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    classified, in_path, retry_after, secure, without,
};
use crate::canonical::Refusal;
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
        let body = without(&encoded.body.concat(), &gone, VERSION);
        let verb = if request.stream { "invoke-with-response-stream" } else { "invoke" };
        let path = format!("/model/{}/{verb}", in_path(to.model));
        let dropped = encoded.dropped;
        Ok(Encoded { dropped, ..Encoded::new(path, vec![body]) })
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        match Keys::read(secret) {
            Some(keys) => keys.sign(headers, sent),
            None => secure(headers, AUTHORIZATION, &format!("Bearer {secret}")),
        }
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        let mut fault = Fault::read(body);
        let kind = headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok());
        if let Some(kind) = kind {
            // `ThrottlingException:http://…`
            fault.code = kind.split(':').next().map(str::to_owned);
        }
        classified(fault, status, retry_after::read(headers))
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        Anthropic.answer(request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        Anthropic.stream(request).framed(Frames::default())
    }
}

#[cfg(test)]
mod tests {
    use crate::adapter::speaks;

    #[test]
    fn only_claude_is_spoken_and_a_profile_is_believed() {
        for model in [
            "anthropic.claude-sonnet-5-v1:0",
            "eu.anthropic.claude-opus-5-5",
            "arn:aws:bedrock:eu-west-1:1:application-inference-profile/a1",
        ] {
            assert!(speaks("bedrock", model), "{model}");
        }
        assert!(!speaks("bedrock", "amazon.nova-pro-v1:0"));
        assert!(speaks("openai", "amazon.nova-pro-v1:0"));
    }
}
