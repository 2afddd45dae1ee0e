//! Bodies that ask for vectors in forms of their own: Vertex's `predict`, Titan's, Cohere's.
//!
//! What each refuses is refused here: several texts (Titan), no `input_type` (Cohere). Sources:
//! the vendors' API references, as of November 2026.

use std::borrow::Cow;

use serde_json::Value;

use super::foreign::{list, text};
use super::{Ask, Embedding, Input, Vectors, parse, percent_decoded};
use crate::refusal::ErrorBody;

/// The model of a path of `predict`.
pub(super) fn predicts(path: &str) -> Option<&str> {
    path.split_once("/publishers/google/models/")?.1.strip_suffix(":predict")
}

/// Google's models at Vertex.
pub(super) fn predict(ask: &Ask<'_>) -> Result<Embedding<'static>, ErrorBody> {
    let model = predicts(ask.path).unwrap_or_default();
    let body: Value = parse(ask.body)?;
    let texts = list(&body, "instances")?.iter().map(|instance| text(instance, "content"));
    let size = body.pointer("/parameters/outputDimensionality");
    made(model, texts.collect(), Vectors::Predict, size)
}

/// What Bedrock's `InvokeModel` is asked by this body, if it is vectors.
pub(super) fn invoked(ask: &Ask<'_>, model: &str) -> Option<Result<Embedding<'static>, ErrorBody>> {
    let body: Value = parse(ask.body).ok()?;
    if body.get("inputText").is_some() {
        let size = body.get("dimensions");
        return Some(made(model, vec![text(&body, "inputText")], Vectors::Titan, size));
    }
    body.get("texts")?;
    Some(cohere(&body, model, Vectors::Floats))
}

/// Cohere's own `POST /v2/embed`.
pub(super) fn embed(ask: &Ask<'_>) -> Result<Embedding<'static>, ErrorBody> {
    let body: Value = parse(ask.body)?;
    cohere(&body, text(&body, "model"), Vectors::ByType)
}

fn cohere(body: &Value, model: &str, form: Vectors) -> Result<Embedding<'static>, ErrorBody> {
    let types = ["search_document", "search_query", "classification", "clustering"];
    if !types.contains(&text(body, "input_type")) {
        return Err(ErrorBody::invalid(format!("input_type must be one of {types:?}")));
    }
    let texts = list(body, "texts")?.iter().map(|text| text.as_str().unwrap_or_default());
    made(model, texts.collect(), form, body.get("output_dimension"))
}

fn made(
    model: &str,
    texts: Vec<&str>,
    form: Vectors,
    size: Option<&Value>,
) -> Result<Embedding<'static>, ErrorBody> {
    let size = size.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    Ok(Embedding {
        model: Cow::Owned(percent_decoded(model)),
        inputs: texts.into_iter().map(Input::of_text).collect(),
        form,
        dimensions: size.map(super::dimensions).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, body: &str) -> Result<Vectors, ErrorBody> {
        let ask = Ask {
            method: &http::Method::POST,
            path,
            query: "",
            key: None,
            content_type: "",
            body: body.as_bytes(),
        };
        super::super::read(&ask).map(|inquiry| {
            let super::super::Inquiry::Embedding(embedding) = inquiry else {
                panic!("{inquiry:?}")
            };
            embedding.form
        })
    }

    #[test]
    fn each_form_is_known_by_its_path_and_body() {
        let cohere = r#"{"model":"m","texts":["a"],"input_type":"clustering"}"#;
        for (path, body, form) in [
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:predict",
                r#"{"instances":[{"content":"a"}]}"#,
                Vectors::Predict,
            ),
            ("/model/m/invoke", r#"{"inputText":"a"}"#, Vectors::Titan),
            ("/model/m/invoke", cohere, Vectors::Floats),
            ("/v2/embed", cohere, Vectors::ByType),
        ] {
            assert_eq!(ask(path, body).unwrap(), form, "{path}");
        }
        assert!(ask("/v2/embed", r#"{"model":"m","texts":["a"]}"#).is_err());
    }
}
