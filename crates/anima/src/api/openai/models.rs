//! `GET /v1/models` and `GET /v1/models/{id}`: the aliases that the key may use. `/v1beta` too.
//!
//! One path is three APIs: clients that send `anthropic-version` get Anthropic's shape, and
//! Google's own library gets Google's (`a-inbound` A.0). Invariant: an alias that the key may not
//! use is as unknown as one that does not exist.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use http::{Request, Response, StatusCode};

use anima_core::config::Kind;
use anima_core::failure::Failure;
use anima_core::snapshot::AliasEntry;
use anima_wire::surface::{Model, anthropic, gemini, openai};

use crate::api::Plane;
use crate::http::caller::Caller;
use crate::http::reply::{self, Format, Refusal};

/// Who may have made a model: shown as `owned_by`.
const OWNER: &str = "anima";

/// `GET /v1/models`.
pub async fn list(State(plane): State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    let mut facts = plane.facts(Format::of(&request));
    let (parts, _body) = request.into_parts();
    let caller = match plane.identify(&parts).await {
        Ok(caller) => caller,
        Err(refusal) => return reply::refuse(&refusal, &facts),
    };
    facts.config_version = caller.pinned.snapshot.rev;
    let aliases: Vec<Arc<AliasEntry>> = usable(&caller).cloned().collect();
    let models: Vec<Model<'_>> = aliases.iter().map(|a| model(a)).collect();
    let body = match facts.format {
        Format::Anthropic => anthropic::model_list(&models),
        Format::Gemini => gemini::model_list(&models),
        Format::OpenAi => openai::model_list(&models),
    };
    reply::json(StatusCode::OK, body, &facts)
}

/// `GET /v1/models/{id}`; the id may hold slashes. One that is not UTF-8 names no model.
pub async fn one(
    State(plane): State<Arc<Plane>>,
    id: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response<Body> {
    let mut facts = plane.facts(Format::of(&request));
    let (parts, _body) = request.into_parts();
    let caller = match plane.identify(&parts).await {
        Ok(caller) => caller,
        Err(refusal) => return reply::refuse(&refusal, &facts),
    };
    facts.config_version = caller.pinned.snapshot.rev;
    let found = id.ok().and_then(|Path(id)| usable(&caller).find(|a| *a.code == *id).cloned());
    let Some(alias) = found else {
        let message = "The model does not exist or this key may not use it.";
        let refusal = Refusal::new(Failure::ModelUnknown, message).param(Some("model"));
        return reply::refuse(&refusal, &facts);
    };
    let model = model(&alias);
    let body = match facts.format {
        Format::Anthropic => anthropic::model_object(&model),
        Format::Gemini => gemini::model_object(&model),
        Format::OpenAi => openai::model_object(&model),
    };
    reply::json(StatusCode::OK, body, &facts)
}

fn usable(caller: &Caller) -> impl Iterator<Item = &Arc<AliasEntry>> {
    let all = caller.pinned.snapshot.aliases();
    all.filter(|a| a.enabled && caller.allows(&a.code))
}

fn model(alias: &AliasEntry) -> Model<'_> {
    let embeds = alias.kind == Kind::Embedding;
    Model { id: &alias.code, created_s: alias.since.seconds(), owned_by: OWNER, embeds }
}
