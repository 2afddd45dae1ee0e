//! `OpenAI`'s endpoints of one body and one answer. They differ only in what they accept.
//!
//! Not here: how a call is served (`serve`). Responses are here too: another dialect, the same
//! errors.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::{Request, Response};

use anima_wire::dialect::Dialect;
use anima_wire::request::{Endpoint, Ranking};

use super::Plane;
use super::serve::{Wanted, serve};

pub mod models;

/// `POST /v1/chat/completions`.
pub async fn chat_completions(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::ChatCompletions), request).await
}

/// `POST /v1/completions`.
pub async fn completions(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Completions), request).await
}

/// `POST /v1/embeddings`.
pub async fn embeddings(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Embeddings), request).await
}

/// `POST /v1/moderations`.
pub async fn moderations(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Moderations), request).await
}

/// `POST /v1/images/generations`.
pub async fn images(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Images), request).await
}

/// `POST /v1/images/edits`, as a form or as JSON.
pub async fn image_edits(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::ImageEdits), request).await
}

/// `POST /v1/audio/speech`.
pub async fn speech(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Speech), request).await
}

/// `POST /v1/audio/transcriptions`.
pub async fn transcriptions(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Transcriptions), request).await
}

/// `POST /v1/audio/translations`.
pub async fn translations(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Translations), request).await
}

/// `POST /v1/rerank`, as Jina has it.
pub async fn rerank(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::openai(Endpoint::Rerank), request).await
}

/// `POST /v2/rerank`, as Cohere has it.
pub async fn rerank_of_cohere(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    let wanted = Wanted { ranking: Ranking::Cohere, ..Wanted::openai(Endpoint::Rerank) };
    serve(plane.0, wanted, request).await
}

/// `POST /v1/responses`.
pub async fn responses(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::chat(Dialect::Responses), request).await
}
