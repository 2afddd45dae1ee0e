//! Gemini's endpoints: the model and the method stand in the path, `models/{model}:{method}`, below
//! `/v1beta` or `/v1`.
//!
//! Invariant: a method that is not served is an unknown path in Google's own shape. Source:
//! `a-inbound` A.3.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::{Request, Response};

use anima_wire::dialect::Dialect;
use anima_wire::request::Endpoint;

use super::Plane;
use super::counting::{Question, count};
use super::openai::models;
use super::serve::{Wanted, serve, unknown};

/// `GET /v1beta/models`.
pub async fn models(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    models::list(plane, request).await
}

/// `GET /v1beta/models/{model}`.
pub async fn model(
    plane: State<Arc<Plane>>,
    id: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response<Body> {
    models::one(plane, id, request).await
}

/// `POST /v1beta/models/{model}:{method}`; the model may hold slashes and colons.
pub async fn call(
    plane: State<Arc<Plane>>,
    path: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response<Body> {
    let path = path.map(|Path(path)| path).unwrap_or_default();
    let Some((model, method)) = path.rsplit_once(':') else {
        return unknown(plane, request).await;
    };
    let events = wants_events(request.uri().query());
    let wanted = |stream: bool| Wanted {
        named: Some((model.to_owned(), stream)),
        as_array: stream && !events,
        ..Wanted::chat(Dialect::Gemini)
    };
    match method {
        "generateContent" => serve(plane.0, wanted(false), request).await,
        "streamGenerateContent" => serve(plane.0, wanted(true), request).await,
        "countTokens" => {
            let wrapped = Some("generateContentRequest");
            let wanted = wanted(false);
            let question = Question { wanted, unwrap: wrapped, answer: "totalTokens" };
            count(&plane.0, &question, request).await
        }
        "embedContent" => serve(plane.0, vectors(model, false), request).await,
        "batchEmbedContents" => serve(plane.0, vectors(model, true), request).await,
        _ => unknown(plane, request).await,
    }
}

/// Embeddings of one text, or of a list of them.
fn vectors(model: &str, is_list: bool) -> Wanted {
    Wanted {
        endpoint: Endpoint::Embeddings,
        named: Some((model.to_owned(), false)),
        as_array: is_list,
        ..Wanted::chat(Dialect::Gemini)
    }
}

/// Whether a stream is to be events: without `alt=sse` it is one JSON array.
fn wants_events(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|pair| pair == "alt=sse" || pair == "%24alt=sse")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_events_only_when_the_query_says_so() {
        assert!(wants_events(Some("alt=sse")));
        assert!(wants_events(Some("key=sk-a&alt=sse")));
        assert!(!wants_events(Some("salt=sse")));
        assert!(!wants_events(Some("alt=json")));
        assert!(!wants_events(None));
    }
}
