//! Anthropic's endpoints: messages, and how many tokens one would take.
//!
//! The list of models is shared with `OpenAI`'s path (`openai/models`). Source: `a-inbound` A.2.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::{Request, Response};

use anima_wire::dialect::Dialect;

use super::Plane;
use super::counting::{Question, count};
use super::serve::{Wanted, serve};

/// `POST /v1/messages`.
pub async fn messages(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    serve(plane.0, Wanted::chat(Dialect::Anthropic), request).await
}

/// `POST /v1/messages/count_tokens`: our own count, which no provider is asked for.
pub async fn count_tokens(plane: State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    let wanted = Wanted::chat(Dialect::Anthropic);
    let question = Question { wanted, unwrap: None, answer: "input_tokens" };
    count(&plane.0, &question, request).await
}
