//! The model list for clients of Anthropic, who send `anthropic-version`.
//!
//! Not yet messages. Invariant: the list is whole, so `has_more` is always false and cursors never
//! need to be understood. Sources: `a-inbound` A.0, `ecosystem` 2.2.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

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
    fn models_are_listed_as_anthropic_lists_them() {
        let model = Model { id: "claude-x", created_s: 1_700_000_000, owned_by: "anima" };
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
