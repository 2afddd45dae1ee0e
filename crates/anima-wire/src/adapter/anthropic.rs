//! Anthropic's own API.
//!
//! Speaks Messages as `platform.claude.com/docs/en/api/messages` documents it (`a-inbound` A.2,
//! read November 2026), for clients of any dialect of chat. Quirks that cost money: input excludes
//! what was cached, writes of one hour cost twice those of five minutes and are told apart only at
//! the start of a stream; the dialect sees to both. A spent account says so with a 400.
//! Invariant: a secret leaves only in the `x-api-key` header, marked as sensitive.

use anima_core::failure::Failure;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::passed::passed;
use super::{
    Adapter, Answer, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    classified, convert, retry_after, secure,
};
use crate::canonical::Refusal;
use crate::dialect::Dialect;
use crate::dialect::anthropic::{Target, write_request};
use crate::dialect::openai::fault::Fault;
use crate::request::rewrite::OLDER;
use crate::request::{CallRequest, Endpoint};

/// The only version of the dialect that there is.
const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Below the bare origin, which is what the vendor's own SDKs take.
const PATH: &str = "/v1/messages";

/// How the names of models go on that want a budget for their thoughts and not an effort
/// (`b-outbound-chat` B.3): all up to 4.5.
const THINKS_BY_BUDGET: &[&str] =
    &["claude-3", "-4-0", "-4-1", "-4-5", "opus-4-2", "sonnet-4-2", "sonnet-4@", "opus-4@"];

/// The adapter.
#[derive(Debug)]
pub(super) struct Anthropic;

impl Adapter for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn serves(&self, endpoint: Endpoint) -> bool {
        endpoint == Endpoint::ChatCompletions
    }

    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal> {
        let upstream_model = to.model;
        if request.dialect == Dialect::Anthropic {
            let segments = request.rewrite(upstream_model, OLDER);
            return Ok(passed(PATH, Dialect::Anthropic, segments));
        }
        let thinks_by_budget = THINKS_BY_BUDGET.iter().any(|name| upstream_model.contains(name));
        let target = Target { model: upstream_model, thinks_by_budget };
        let carried = convert(request, |wanted| write_request(wanted, target))?;
        Ok(Encoded::carried(PATH, carried))
    }

    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        _sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable> {
        secure(headers, HeaderName::from_static("x-api-key"), secret)?;
        headers.insert(HeaderName::from_static("anthropic-version"), VERSION);
        Ok(())
    }

    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified {
        classified(Fault::read(body), status, retry_after::read(headers))
    }

    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure> {
        Answer::converted(Dialect::Anthropic, request, body)
    }

    fn stream(&self, request: &CallRequest) -> StreamDecoder {
        StreamDecoder::of(Dialect::Anthropic, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_in_its_own_header_and_sensitive_and_the_version_is_said() {
        let mut headers = HeaderMap::new();
        Anthropic.authorize(&mut headers, "sk-ant-1", &Sent::nothing()).unwrap();
        assert!(headers["x-api-key"].is_sensitive());
        assert_eq!(headers["anthropic-version"], "2023-06-01");
        assert!(Anthropic.authorize(&mut headers, "a\nb", &Sent::nothing()).is_err());
    }

    #[test]
    fn older_models_want_a_budget_and_newer_ones_an_effort() {
        let sent = |model: &str| {
            let body = r#"{"model":"m","reasoning_effort":"low","messages":[
                {"role":"user","content":"q"}]}"#;
            let request = CallRequest::parse(Endpoint::ChatCompletions, body.into()).unwrap();
            let encoded = Anthropic.encode(&request, Destination::bare(model)).unwrap();
            String::from_utf8(encoded.body.concat()).unwrap()
        };
        for model in ["claude-3-7-sonnet-latest", "claude-sonnet-4-20250514", "claude-haiku-4-5"] {
            let sent = sent(model);
            assert!(sent.contains(r#""budget_tokens":1024"#), "{sent}");
            assert!(sent.contains(r#""max_tokens":5120"#), "{sent}");
        }
        for model in ["claude-opus-4-6", "claude-sonnet-5", "claude-opus-5-5"] {
            assert!(sent(model).contains(r#""effort":"low""#), "{model}");
        }
    }
}
