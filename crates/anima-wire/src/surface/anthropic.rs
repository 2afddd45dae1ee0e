//! What this gateway writes to clients of Anthropic itself: errors and model lists.
//!
//! Messages are in `dialect`. Invariant: the list is whole, so `has_more` is always false and
//! cursors never need to be understood; an error's type is one that Anthropic documents.
//! Sources: `a-inbound` A.0 and A.2.5, `wire-conventions` 4.2 and 4.6, `ecosystem` 2.2.

use anima_core::failure::Failure;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Model, bytes_of};

#[derive(Serialize)]
struct List<'a> {
    data: Vec<Object<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Object<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: Timestamp,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    r#type: &'static str,
    error: ErrorMembers<'a>,
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anima: Option<&'a Value>,
}

#[derive(Serialize)]
struct ErrorMembers<'a> {
    r#type: &'static str,
    message: &'a str,
}

/// The body of an error. `extra` becomes the member `anima` beside `error`.
pub fn error_body(
    failure: Failure,
    message: &str,
    request_id: Option<&str>,
    extra: Option<&Value>,
) -> Bytes {
    let error = ErrorMembers { r#type: error_type(failure), message };
    bytes_of(&ErrorBody { r#type: "error", error, request_id, anima: extra })
}

/// The status of an error, which differs from OpenAI's where the types do.
pub fn error_status(failure: Failure) -> u16 {
    match error_type(failure) {
        "billing_error" => 402,
        "overloaded_error" => 529,
        _ => failure.row().status,
    }
}

/// The type of an error (`wire-conventions` 4.6).
fn error_type(failure: Failure) -> &'static str {
    if matches!(failure, Failure::InsufficientFunds | Failure::BudgetExceeded) {
        return "billing_error";
    }
    if matches!(failure, Failure::NoHealthyChannel | Failure::Overloaded) {
        return "overloaded_error";
    }
    match failure.row().status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// The models, in the given order.
pub fn model_list(models: &[Model<'_>]) -> Bytes {
    bytes_of(&List {
        data: models.iter().map(object).collect(),
        has_more: false,
        first_id: models.first().map(|model| model.id),
        last_id: models.last().map(|model| model.id),
    })
}

/// One model.
pub fn model_object(model: &Model<'_>) -> Bytes {
    bytes_of(&object(model))
}

fn object<'a>(model: &Model<'a>) -> Object<'a> {
    let created_at = Timestamp::from_second(model.created_s).unwrap_or(Timestamp::UNIX_EPOCH);
    Object { r#type: "model", id: model.id, display_name: model.id, created_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_a_type_of_anthropics_own() {
        let body = error_body(Failure::ModelUnknown, "say \"model\"", Some("r1"), None);
        let expected = concat!(
            r#"{"type":"error","error":{"type":"not_found_error","message":"say \"model\""},"#,
            r#""request_id":"r1"}"#,
        );
        assert_eq!(body, expected.as_bytes());
        assert_eq!(error_status(Failure::InsufficientFunds), 402);
        assert_eq!(error_status(Failure::NoHealthyChannel), 529);
        assert_eq!(error_status(Failure::KeyUnknown), 401);
    }

    #[test]
    fn models_are_listed_as_anthropic_lists_them() {
        let model =
            Model { id: "claude-x", created_s: 1_700_000_000, owned_by: "anima", embeds: false };
        let object = concat!(
            r#"{"type":"model","id":"claude-x","display_name":"claude-x","#,
            r#""created_at":"2023-11-14T22:13:20Z"}"#,
        );
        assert_eq!(model_object(&model), object.as_bytes());
        let list = format!(
            r#"{{"data":[{object}],"has_more":false,"first_id":"claude-x","last_id":"claude-x"}}"#
        );
        assert_eq!(model_list(&[model]), list.as_bytes());
        let empty = r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#;
        assert_eq!(model_list(&[]), empty.as_bytes());
    }
}
