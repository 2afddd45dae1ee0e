//! What this gateway writes to clients of Gemini itself: errors and model lists.
//!
//! Contents are in `dialect`. Invariant: an error has the status word that belongs to its number;
//! what Anima adds stands in `details`, where Google's own clients look for more.
//! Sources: `a-inbound` A.3.1 and A.3.4, `wire-conventions` 4.2 and 4.6.

use anima_core::failure::Failure;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::{Model, bytes_of};

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorMembers<'a>,
}

#[derive(Serialize)]
struct ErrorMembers<'a> {
    code: u16,
    message: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<&'a Value>,
}

/// The body of an error. `extra` becomes an element of `details`.
pub fn error_body(failure: Failure, message: &str, extra: Option<&Value>) -> Bytes {
    error_details(failure, message, extra.into_iter().collect())
}

/// The body of an error with any number of `details`.
pub fn error_details(failure: Failure, message: &str, details: Vec<&Value>) -> Bytes {
    let code = failure.row().status;
    bytes_of(&ErrorBody { error: ErrorMembers { code, message, status: status(failure), details } })
}

/// The status word of an error (`wire-conventions` 4.6).
fn status(failure: Failure) -> &'static str {
    if failure == Failure::ModelUnpriced {
        return "FAILED_PRECONDITION";
    }
    match failure.row().status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        503 => "UNAVAILABLE",
        408 | 504 => "DEADLINE_EXCEEDED",
        400..=499 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}

#[derive(Serialize)]
struct List<'a> {
    models: Vec<Object<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    name: String,
    display_name: &'a str,
    supported_generation_methods: [&'static str; 2],
}

/// What can be done with a model of text, and with one of vectors.
const GENERATES: [&str; 2] = ["generateContent", "streamGenerateContent"];
const EMBEDS: [&str; 2] = ["embedContent", "batchEmbedContents"];

/// The models, in the given order.
pub fn model_list(models: &[Model<'_>]) -> Bytes {
    bytes_of(&List { models: models.iter().map(object).collect() })
}

/// One model.
pub fn model_object(model: &Model<'_>) -> Bytes {
    bytes_of(&object(model))
}

fn object<'a>(model: &Model<'a>) -> Object<'a> {
    Object {
        name: format!("models/{}", model.id),
        display_name: model.id,
        supported_generation_methods: if model.embeds { EMBEDS } else { GENERATES },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_status_word_of_its_number() {
        let body = error_body(Failure::ModelUnknown, "x", None);
        assert_eq!(body, &br#"{"error":{"code":404,"message":"x","status":"NOT_FOUND"}}"#[..]);
        for failure in Failure::ALL {
            assert!(!status(*failure).is_empty());
        }
    }

    #[test]
    fn models_are_listed_as_google_lists_them() {
        let model = Model { id: "fast", created_s: 0, owned_by: "anima", embeds: false };
        let object = concat!(
            r#"{"name":"models/fast","displayName":"fast","#,
            r#""supportedGenerationMethods":["generateContent","streamGenerateContent"]}"#,
        );
        assert_eq!(model_object(&model), object.as_bytes());
        let vectors = Model { embeds: true, ..model };
        let object_of_vectors = String::from_utf8(model_object(&vectors).to_vec()).unwrap();
        assert!(object_of_vectors.contains(r#"["embedContent","batchEmbedContents"]"#));
        assert_eq!(model_list(&[model]), format!(r#"{{"models":[{object}]}}"#).as_bytes());
    }
}
