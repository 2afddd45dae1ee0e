//! What this gateway writes to OpenAI clients itself: errors and model lists.
//!
//! Invariant: an error is exactly `{"error":{"message","type","param","code"}}` with real nulls;
//! what Anima adds stands beside it under `anima`. Sources: `wire-conventions` 4.1, 4.2, 4.6,
//! `ecosystem` 2.2.

use anima_core::failure::Failure;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde_json::Value;

use super::{Model, bytes_of};

/// Tells the SDKs whether to try again, over the status.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The longest wait that the SDKs obey. A longer one they ignore, and try again at once.
const RETRY_AFTER_OBEYED_MS: u64 = 60_000;

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorMembers<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anima: Option<&'a Value>,
}

#[derive(Serialize)]
struct ErrorMembers<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

/// The body of an error. `extra` becomes the member `anima` beside `error`.
pub fn error_body(
    failure: Failure,
    message: &str,
    param: Option<&str>,
    extra: Option<&Value>,
) -> Bytes {
    let row = failure.row();
    let error = ErrorMembers { message, r#type: row.kind, param, code: row.code };
    bytes_of(&ErrorBody { error, anima: extra })
}

#[derive(Serialize)]
struct ErrorEvent<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
    param: Option<&'a str>,
    anima: &'a Value,
}

/// The payload of the event that ends a stream of Responses which failed.
pub fn error_event(failure: Failure, message: &str, extra: &Value) -> Bytes {
    let code = failure.row().code;
    bytes_of(&ErrorEvent { r#type: "error", code, message, param: None, anima: extra })
}

/// The status and the headers of an error: content type, `x-should-retry` and, when a wait is
/// known, `retry-after` in whole seconds, rounded up.
pub fn error_head(failure: Failure, retry_after_ms: Option<u64>) -> (StatusCode, HeaderMap) {
    let row = failure.row();
    let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let obeyed = retry_after_ms.is_none_or(|wait_ms| wait_ms <= RETRY_AFTER_OBEYED_MS);
    let should_retry = if row.should_retry && obeyed { "true" } else { "false" };
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(SHOULD_RETRY, HeaderValue::from_static(should_retry));
    if let Some(wait_ms) = retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1000)));
    }
    (status, headers)
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'a str,
}

/// The models, in the given order.
pub fn model_list(models: &[Model<'_>]) -> Bytes {
    bytes_of(&List { object: "list", data: models.iter().map(item).collect() })
}

/// One model.
pub fn model_object(model: &Model<'_>) -> Bytes {
    bytes_of(&item(model))
}

const fn item<'a>(model: &Model<'a>) -> Item<'a> {
    Item { id: model.id, object: "model", created: model.created_s, owned_by: model.owned_by }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_has_four_members_and_real_nulls() {
        let body = error_body(Failure::BodyInvalid, "say \"model\"", Some("model"), None);
        let expected = concat!(
            r#"{"error":{"message":"say \"model\"","type":"invalid_request_error","#,
            r#""param":"model","code":"invalid_request"}}"#,
        );
        assert_eq!(body, expected.as_bytes());
        let body = error_body(Failure::Overloaded, "x", None, Some(&json!({"request_id": "r"})));
        let expected = concat!(
            r#"{"error":{"message":"x","type":"server_error","param":null,"#,
            r#""code":"upstream_overloaded"},"anima":{"request_id":"r"}}"#,
        );
        assert_eq!(body, expected.as_bytes());
    }

    #[test]
    fn every_failure_has_a_status_and_says_whether_to_retry() {
        for failure in Failure::ALL {
            let (status, headers) = error_head(*failure, None);
            assert_eq!(status.as_u16(), failure.row().status);
            assert_eq!(headers[SHOULD_RETRY] == "true", failure.row().should_retry);
        }
    }

    #[test]
    fn a_wait_too_long_for_the_sdks_is_told_and_not_to_be_retried() {
        let (_, headers) = error_head(Failure::RateLimited, Some(1001));
        assert_eq!(
            (&headers[RETRY_AFTER], &headers[SHOULD_RETRY]),
            (&HeaderValue::from(2), &HeaderValue::from_static("true"))
        );
        let (_, headers) = error_head(Failure::RateLimited, Some(61_000));
        assert_eq!(
            (&headers[RETRY_AFTER], &headers[SHOULD_RETRY]),
            (&HeaderValue::from(61), &HeaderValue::from_static("false"))
        );
    }

    #[test]
    fn models_are_listed_as_openai_lists_them() {
        let model =
            Model { id: "gpt-4o", created_s: 1_700_000_000, owned_by: "anima", embeds: false };
        let object = r#"{"id":"gpt-4o","object":"model","created":1700000000,"owned_by":"anima"}"#;
        assert_eq!(model_object(&model), object.as_bytes());
        let list = format!(r#"{{"object":"list","data":[{object},{object}]}}"#);
        assert_eq!(model_list(&[model, model]), list.as_bytes());
        assert_eq!(model_list(&[]), &br#"{"object":"list","data":[]}"#[..]);
    }
}
