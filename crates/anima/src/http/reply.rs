//! Headers on every reply, and refusals in the caller's own format.
//!
//! Invariant: every reply of the data plane, errors included, carries the headers of SPEC 4; a
//! refusal says what to change and never shows what went wrong inside.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use uuid::Uuid;

use anima_core::failure::Failure;
use anima_wire::dialect::Dialect;
use anima_wire::surface::{anthropic, gemini, openai};

use super::rate_limits::RateLimits;

/// Whose errors and headers a client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `OpenAI`'s.
    #[default]
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Gemini's.
    Gemini,
}

impl From<Dialect> for Format {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAiChat | Dialect::Responses => Self::OpenAi,
            Dialect::Anthropic => Self::Anthropic,
            Dialect::Gemini => Self::Gemini,
        }
    }
}

impl Format {
    /// The format of a client, as far as the head of its request tells: Google's paths are its
    /// own, or its library says its name (3.4 of 2026 calls `/v1`), and Anthropic's clients always
    /// say their version. Of a list of models Google's key tells, too (`a-inbound` A.0).
    pub fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path();
        let is_anthropics = ["/v1/messages", "/messages"].iter().any(|p| path.starts_with(p));
        let headers = request.headers();
        let is_list = ["/v1/models", "/models"].iter().any(|p| path.starts_with(p));
        let by_key = is_list && headers.contains_key("x-goog-api-key");
        if by_key || path.starts_with("/v1beta") || headers.contains_key("x-goog-api-client") {
            Self::Gemini
        } else if is_anthropics || headers.contains_key("anthropic-version") {
            Self::Anthropic
        } else {
            Self::OpenAi
        }
    }
}

/// What every reply says about how it came about.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The request's id.
    pub id: Uuid,
    /// Whose errors and headers the client knows.
    pub format: Format,
    /// What is answered, where that is neither JSON nor events.
    pub content_type: Option<HeaderValue>,
    /// Whether a stream is one JSON array and not events.
    pub as_array: bool,
    /// The upstream model that served, if one did.
    pub served_model: Option<Arc<str>>,
    /// Upstream calls made.
    pub attempts: usize,
    /// What the output limit was lowered to, if it was.
    pub output_limit: Option<u64>,
    /// What the provider's dialect could not carry: names with commas, or empty.
    pub dropped: String,
    /// Where the caller's limits stand, if it has any.
    pub limits: Option<RateLimits>,
    /// What is out of the ordinary about the way that the call took.
    pub way: Option<Box<Way>>,
    /// Time spent queued.
    pub queue_wait_ms: u64,
    /// Revision of the configuration used.
    pub config_version: i64,
    /// Which dependency is down, if one is.
    pub degraded: Option<&'static str>,
}

/// The way that a call took, where it is not the ordinary one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// How far down the chain of aliases it was served or given up; 0 is the one asked for.
    pub fallback: usize,
    /// It was let through although every circuit is open.
    pub last_resort: bool,
    /// How it was routed, as JSON, for a caller who asked.
    pub trace: Option<String>,
}

impl Way {
    fn write(&self, headers: &mut HeaderMap) {
        if self.fallback > 0 {
            headers.insert(FALLBACK, HeaderValue::from(self.fallback));
        }
        if self.last_resort {
            headers.insert(LAST_RESORT, HeaderValue::from_static("true"));
        }
        let trace = self.trace.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
        if let Some(trace) = trace {
            headers.insert(TRACE, trace);
        }
    }
}

/// A request that is not served, in words for its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it counts as.
    pub failure: Failure,
    /// Written for the caller: what to change.
    pub message: String,
    /// The member at fault.
    pub param: Option<&'static str>,
    /// When to try again.
    pub retry_after_ms: Option<u64>,
    /// The limit that stands in the way.
    pub limit: Option<Box<LimitFact>>,
    /// What was asked for may have been made and paid: whoever asks again may pay again.
    pub may_be_made: bool,
}

/// A limit, as an error names it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LimitFact {
    /// What it hangs on: `key`, `app` or `token_group`.
    pub scope: &'static str,
    /// The code of that.
    pub code: Arc<str>,
    /// What it limits.
    pub kind: &'static str,
    /// Which tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<&'static str>,
    /// Over which span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<&'static str>,
    /// How much.
    pub limit: String,
}

impl Refusal {
    /// A refusal with words for the caller.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self {
            failure,
            message: message.into(),
            param: None,
            retry_after_ms: None,
            limit: None,
            may_be_made: false,
        }
    }

    /// Names the member at fault.
    pub fn param(mut self, param: Option<&'static str>) -> Self {
        self.param = param;
        self
    }

    /// Names the limit that stands in the way.
    pub fn limit(mut self, limit: LimitFact) -> Self {
        self.limit = Some(Box::new(limit));
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

impl From<anima_wire::request::Error> for Refusal {
    fn from(error: anima_wire::request::Error) -> Self {
        Self::new(error.failure, error.message).param(error.param)
    }
}

/// The text of a request id, as headers and errors show it.
pub fn id_text(id: Uuid) -> String {
    let mut buffer = Uuid::encode_buffer();
    let hex = id.simple().encode_lower(&mut buffer);
    let mut text = String::with_capacity(36);
    text.push_str("req_");
    text.push_str(hex);
    text
}

/// A refusal in the client's format.
pub fn refuse(refusal: &Refusal, facts: &Facts) -> Response<Body> {
    let (failure, text) = (refusal.failure, refusal.message.as_str());
    // Several failures share a code of the wire; the reason tells them apart (`wire` 4.2).
    let mut reason = serde_json::json!({ "reason": failure.reason() });
    if let (Some(limit), Some(members)) = (&refusal.limit, reason.as_object_mut()) {
        members.insert("limit".to_owned(), serde_json::json!(limit));
    }
    let (mut status, head) = openai::error_head(failure, refusal.retry_after_ms);
    let body = match facts.format {
        Format::OpenAi => openai::error_body(failure, text, refusal.param, Some(&reason)),
        Format::Anthropic => {
            status = StatusCode::from_u16(anthropic::error_status(failure)).unwrap_or(status);
            anthropic::error_body(failure, text, Some(&id_text(facts.id)), Some(&reason))
        }
        Format::Gemini => {
            let detail = serde_json::json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": failure.reason(),
                "domain": "anima",
                "metadata": { "request_id": id_text(facts.id) },
            });
            let more = gemini_details(refusal);
            let details = std::iter::once(&detail).chain(&more).collect();
            gemini::error_details(failure, text, details)
        }
    };
    let mut response = json(status, body, facts);
    response.headers_mut().extend(head);
    let never_heals = refusal.limit.is_some() && refusal.retry_after_ms.is_none();
    if never_heals || refusal.may_be_made {
        // A limit that time does not heal, or a job that a library would buy twice.
        response.headers_mut().insert(openai::SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Some(ms) = refusal.retry_after_ms {
        response.headers_mut().insert(RETRY_AFTER_MS, HeaderValue::from(ms));
    }
    response
}

/// When to try again and which limit stands in the way, where Google's clients look for it.
fn gemini_details(refusal: &Refusal) -> Vec<serde_json::Value> {
    let wait = refusal.retry_after_ms.map(|ms| {
        let delay = match (ms / 1_000, ms % 1_000) {
            (seconds, 0) => format!("{seconds}s"),
            (seconds, rest) => format!("{seconds}.{rest:03}s"),
        };
        let kind = "type.googleapis.com/google.rpc.RetryInfo";
        serde_json::json!({ "@type": kind, "retryDelay": delay })
    });
    let limit = refusal.limit.as_ref().map(|limit| {
        let window = limit.window.map_or_else(String::new, |window| format!("/{window}"));
        serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{
                "subject": format!("{}:{}", limit.scope, limit.code),
                "description": refusal.message,
                "quotaId": format!("{}{window}", limit.kind),
                "quotaValue": limit.limit,
            }],
        })
    });
    wait.into_iter().chain(limit).collect()
}

/// A JSON reply.
pub fn json(status: StatusCode, body: Bytes, facts: &Facts) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let kind = facts.content_type.clone();
    let kind = kind.filter(|_| status == StatusCode::OK);
    headers
        .insert(CONTENT_TYPE, kind.unwrap_or_else(|| HeaderValue::from_static("application/json")));
    facts.write(headers);
    response
}

/// A stream. Proxies are told to pass each piece on at once.
pub fn streamed(body: Body, facts: &Facts) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = if facts.as_array {
        "application/json; charset=utf-8"
    } else {
        "text/event-stream; charset=utf-8"
    };
    let headers = response.headers_mut();
    let named = facts.content_type.clone();
    headers.insert(CONTENT_TYPE, named.unwrap_or_else(|| HeaderValue::from_static(kind)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    facts.write(headers);
    response
}

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Anthropic's own name for it.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const ANIMA_REQUEST_ID: HeaderName = HeaderName::from_static("x-anima-request-id");
const SERVED_MODEL: HeaderName = HeaderName::from_static("x-anima-served-model");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-anima-attempts");
const OUTPUT_LIMIT: HeaderName = HeaderName::from_static("x-anima-output-limit");
const DROPPED: HeaderName = HeaderName::from_static("x-anima-dropped");
const QUEUE_WAIT: HeaderName = HeaderName::from_static("x-anima-queue-wait-ms");
const CONFIG_VERSION: HeaderName = HeaderName::from_static("x-anima-config-version");
const FALLBACK: HeaderName = HeaderName::from_static("x-anima-fallback-index");
const LAST_RESORT: HeaderName = HeaderName::from_static("x-anima-last-resort");
const TRACE: HeaderName = HeaderName::from_static("x-anima-trace");
const DEGRADED: HeaderName = HeaderName::from_static("x-anima-degraded");

impl Facts {
    fn write(&self, headers: &mut HeaderMap) {
        let id = HeaderValue::try_from(id_text(self.id)).ok();
        if let Some(id) = id {
            headers.insert(REQUEST_ID, id.clone());
            if self.format == Format::Anthropic {
                headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
            }
            headers.insert(ANIMA_REQUEST_ID, id);
        }
        let model = self.served_model.as_deref().unwrap_or_default();
        // A model name that no header can carry is left empty rather than failing the reply.
        let model = HeaderValue::from_str(model).unwrap_or_else(|_| HeaderValue::from_static(""));
        headers.insert(SERVED_MODEL, model);
        headers.insert(ATTEMPTS, HeaderValue::from(self.attempts));
        headers.insert(QUEUE_WAIT, HeaderValue::from(self.queue_wait_ms));
        headers.insert(CONFIG_VERSION, HeaderValue::from(self.config_version));
        if let Some(tokens) = self.output_limit {
            headers.insert(OUTPUT_LIMIT, HeaderValue::from(tokens));
        }
        if !self.dropped.is_empty()
            && let Ok(names) = HeaderValue::from_str(&self.dropped)
        {
            headers.insert(DROPPED, names);
        }
        if let Some(limits) = &self.limits {
            limits.write(self.format, headers);
        }
        if let Some(way) = &self.way {
            way.write(headers);
        }
        if let Some(what) = self.degraded {
            headers.insert(DEGRADED, HeaderValue::from_static(what));
        }
    }
}

#[cfg(test)]
mod tests {
    use anima_wire::surface::openai::SHOULD_RETRY;
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn every_refusal_says_whether_to_retry_and_who_it_is() {
        for failure in Failure::ALL {
            let facts = Facts { id: Uuid::from_u128(7), ..Facts::default() };
            let response = refuse(&Refusal::new(*failure, "x"), &facts);
            assert_eq!(response.status().as_u16(), failure.row().status);
            for name in [SHOULD_RETRY, REQUEST_ID, ATTEMPTS, QUEUE_WAIT, CONFIG_VERSION] {
                assert!(response.headers().contains_key(&name), "{failure:?} {name}");
            }
        }
    }

    #[test]
    fn a_wait_that_the_sdks_do_not_obey_is_not_to_be_retried() {
        let refusal = Refusal::new(Failure::RateLimited, "x").retry_after(61_000);
        let response = refuse(&refusal, &Facts::default());
        assert_eq!(response.headers()[SHOULD_RETRY], "false");
        assert_eq!(response.headers()[RETRY_AFTER], "61");
    }
}
