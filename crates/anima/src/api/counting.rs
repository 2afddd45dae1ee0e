//! How many tokens a prompt takes, by our own count: no provider is asked and nothing is charged.
//!
//! Invariant: who may not call a model learns nothing about it here either. Source: `f-tokens` F.5.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::json;

use anima_core::failure::Failure;
use anima_wire::json::Outline;

use super::Plane;
use super::serve::Wanted;
use crate::http::body;
use crate::http::reply::{self, Facts, Format, Refusal};
use crate::relay::admit;

/// What is asked, and how the answer is to be said.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) wanted: Wanted,
    /// A member that may hold the request instead of the body itself.
    pub(super) unwrap: Option<&'static str>,
    /// The member of the answer that holds the count.
    pub(super) answer: &'static str,
}

/// Answers with a count, or says why not.
pub(super) async fn count(
    plane: &Plane,
    question: &Question,
    request: Request<Body>,
) -> Response<Body> {
    let mut facts = plane.facts(Format::from(question.wanted.dialect));
    match counted(plane, question, request, &mut facts).await {
        Ok(tokens) => {
            let body = json!({ question.answer: tokens }).to_string();
            reply::json(StatusCode::OK, Bytes::from(body), &facts)
        }
        Err(refusal) => reply::refuse(&refusal, &facts),
    }
}

async fn counted(
    plane: &Plane,
    question: &Question,
    request: Request<Body>,
    facts: &mut Facts,
) -> Result<u64, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = plane.identify(&parts).await?;
    facts.config_version = caller.pinned.snapshot.rev;
    let bytes = body::read(body, plane.body_bytes_max, plane.body_within, &plane.room).await?;
    let call = question.wanted.read(&parts.headers, unwrapped(bytes, question.unwrap))?;
    admit::resolve(&caller, &call.model, call.dialect)?;
    // Up to 25 ms of work, and more the first time.
    let counted = tokio::task::spawn_blocking(move || call.count_input_tokens()).await;
    counted.map_err(|panic| {
        tracing::error!(%panic, "failed to count tokens");
        Refusal::new(Failure::Internal, "Something went wrong inside the gateway.")
    })
}

/// The request inside a body, where it is wrapped. What is not JSON is judged by whoever reads it.
fn unwrapped(bytes: Bytes, member: Option<&'static str>) -> Bytes {
    let Some(member) = member else { return bytes };
    let place = Outline::of_request(&bytes).ok().and_then(|body| {
        let inner = body.root().get(member)?;
        Some(inner.range())
    });
    match place {
        Some(place) => bytes.slice(place),
        None => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_request_is_found_and_any_other_body_stays() {
        let wrapped = Bytes::from_static(br#"{"generateContentRequest":{"contents":[]}}"#);
        let member = Some("generateContentRequest");
        assert_eq!(unwrapped(wrapped.clone(), member), &br#"{"contents":[]}"#[..]);
        assert_eq!(unwrapped(wrapped.clone(), None), wrapped);
        for other in [&br#"{"contents":[]}"#[..], b"{", b"[]"] {
            assert_eq!(unwrapped(Bytes::from_static(other), member), other);
        }
    }
}
