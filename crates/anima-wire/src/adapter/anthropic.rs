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
    Adapter, Answer, BETA, Classified, Destination, Encoded, SecretUnusable, Sent, StreamDecoder,
    classified, convert, retry_after, secure,
};
use crate::canonical::{Dropped, Refusal, ToolNames};
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

/// Names in `anthropic-beta` that stay here, by how they begin.
const WITHHELD: &[&str] = &["fast-mode-", "oauth-"];

/// How all names end.
const DATE: &str = "-0000-00-00";

/// Names that are taken of one call, and how long each may be.
const BETAS_MAX: usize = 32;
const BETA_BYTES_MAX: usize = 64;

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
            let mut encoded = passed(PATH, Dialect::Anthropic, segments);
            encoded.beta = betas(&request.betas, &mut encoded.dropped);
            return Ok(encoded);
        }
        let thinks_by_budget = THINKS_BY_BUDGET.iter().any(|name| upstream_model.contains(name));
        let target = Target { model: upstream_model, thinks_by_budget };
        let carried = convert(request, ToolNames::Plain, |wanted| write_request(wanted, target))?;
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

/// What goes on of the names of features that are not released: those that are formed as
/// Anthropic's are, `name-2026-01-31`. Not those that change what a call costs (`fast-mode`), nor
/// those that need the caller's own login (`oauth`).
fn betas(names: &str, dropped: &mut Dropped) -> Option<HeaderValue> {
    let given = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let (mut kept, mut count) = (String::new(), 0);
    for name in given {
        count += 1;
        if count > BETAS_MAX || !is_allowed(name) {
            dropped.note(BETA);
            continue;
        }
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str(name);
    }
    HeaderValue::from_str(&kept).ok().filter(|value| !value.is_empty())
}

fn is_allowed(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_withheld = WITHHELD.iter().any(|prefix| name.starts_with(prefix));
    let date = name.len().checked_sub(DATE.len()).and_then(|at| name.get(at..));
    let is_dated = date.is_some_and(|date| {
        date.bytes().zip(DATE.bytes()).all(|(byte, form)| match form {
            b'-' => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
    });
    is_dated && !is_withheld && name.len() <= BETA_BYTES_MAX && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_unreleased_features_go_on_but_for_some_that_are_told() {
        let mut request = CallRequest::parse_as(
            Dialect::Anthropic,
            r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"q"}]}"#.into(),
            None,
        )
        .unwrap();
        let mut sent = |betas: &str| {
            betas.clone_into(&mut request.betas);
            let encoded = Anthropic.encode(&request, Destination::bare("claude-x")).unwrap();
            let value = encoded.beta.map(|value| value.to_str().unwrap().to_owned());
            (value, encoded.dropped.header())
        };
        assert_eq!(sent(""), (None, String::new()));
        let known = "context-management-2025-06-27,interleaved-thinking-2025-05-14";
        assert_eq!(sent(known), (Some(known.to_owned()), String::new()));
        for withheld in ["fast-mode-2026-02-01", "oauth-2025-04-20", "claude-code", "X-2025-04-20"]
        {
            let (value, dropped) = sent(&format!("{withheld}, context-1m-2025-08-07"));
            assert_eq!(value.as_deref(), Some("context-1m-2025-08-07"), "{withheld}");
            assert_eq!(dropped, "anthropic-beta", "{withheld}");
        }
        assert_eq!(sent(&"a-2025-01-01,".repeat(99)).1, "anthropic-beta");
        // Nobody else is told, and the caller is.
        request.betas = known.to_owned();
        for provider in ["openai", "gemini"] {
            let adapter = crate::adapter::lookup(provider).unwrap();
            let encoded = adapter.encode(&request, Destination::bare("m")).unwrap();
            assert_eq!((encoded.beta, encoded.dropped.header()), (None, BETA.to_owned()));
        }
        for (provider, model) in [("bedrock", "anthropic.claude-x"), ("vertex", "claude-x")] {
            let adapter = crate::adapter::lookup(provider).unwrap();
            let adapter = crate::adapter::of_model(adapter, model);
            let encoded = adapter.encode(&request, Destination::bare(model)).unwrap();
            assert_eq!((encoded.beta, encoded.dropped.header()), (None, BETA.to_owned()));
        }
    }

    #[test]
    fn what_only_anthropic_manages_goes_nowhere_else_and_is_told() {
        let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"q"}],
            "context_management":{"edits":[{"type":"clear_tool_uses_20250919"}]}}"#;
        let request = CallRequest::parse_as(Dialect::Anthropic, body.into(), None).unwrap();
        let encoded = Anthropic.encode(&request, Destination::bare("claude-x")).unwrap();
        assert!(encoded.body.concat().windows(18).any(|part| part == b"context_management"));
        assert_eq!(encoded.dropped.header(), "");
        for (provider, model) in [
            ("bedrock", "anthropic.claude-x"),
            ("bedrock", "amazon.nova-x"),
            ("vertex", "claude-x"),
            ("gemini", "m"),
            ("openai", "m"),
        ] {
            let adapter =
                crate::adapter::of_model(crate::adapter::lookup(provider).unwrap(), model);
            let encoded = adapter.encode(&request, Destination::bare(model)).unwrap();
            assert_eq!(encoded.dropped.header(), "context_management", "{provider} {model}");
            let sent = encoded.body.concat();
            assert!(!sent.windows(18).any(|part| part == b"context_management"), "{provider}");
        }
    }

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
