//! The look-up: what became of a call, asked by an id that the caller gave it.
//!
//! `GET /v1/calls/{id}`, where the id is a call's `x-anima-attempt-id`, its `x-anima-request-id` or
//! the provider's own. A caller that crashed learns here what it owes. It is not a call itself: it
//! is not logged, costs nothing and obeys no rule, but it needs a key where calls do.
//! Invariant: `unknown` is said only when no such call was accepted and none was forgotten.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::refusal::{ErrorBody, Face};
use crate::script::Script;
use crate::truth::{Call, Log, Outcome};

const PREFIX: &str = "/v1/calls/";

/// Whether a path is a look-up.
pub(crate) fn owns(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Answers with a status and a JSON body.
pub(crate) fn answer(
    log: &Log,
    script: &Script,
    (method, path, key): (&Method, &str, Option<&str>),
) -> (u16, Vec<u8>) {
    let refused = |error: ErrorBody| (error.status, error.json(Face::Openai));
    if *method != Method::GET {
        return refused(ErrorBody::no_path(405, format!("Not allowed to {method} on {path}.")));
    }
    if !script.accepts(key) {
        return refused(ErrorBody::wrong_key());
    }
    let id = path.strip_prefix(PREFIX).unwrap_or_default();
    let calls = log.find(id);
    if calls.is_empty() && !log.remembers_all() {
        let message = "Calls were forgotten, or are not kept: nothing can be said about this one.";
        return refused(ErrorBody::no_path(410, message.to_owned()));
    }
    let body = json!({
        "object": "call.lookup",
        "id": id,
        "state": state(&calls),
        "calls": calls.iter().map(shown).collect::<Vec<_>>(),
    });
    (StatusCode::OK.as_u16(), body.to_string().into_bytes())
}

/// Of several attempts of one request, one that runs keeps all of them running.
fn state(calls: &[Call]) -> &'static str {
    if calls.is_empty() {
        "unknown"
    } else if calls.iter().any(runs) {
        "running"
    } else {
        "finished"
    }
}

/// Its bill may still grow.
fn runs(call: &Call) -> bool {
    match call.outcome {
        Outcome::Open => true,
        Outcome::Silent => !call.caller_left,
        Outcome::Answered
        | Outcome::Refused
        | Outcome::Failed
        | Outcome::Cut
        | Outcome::Reset
        | Outcome::Left
        | Outcome::Stopped => false,
    }
}

fn shown(call: &Call) -> Value {
    let billed = &call.billed;
    json!({
        "id": call.id,
        "request_id": call.request_id,
        "attempt_id": call.attempt_id,
        "endpoint": call.endpoint,
        "model": call.model,
        "received_ms": call.received_ms,
        "state": if runs(call) { "running" } else { "finished" },
        "status": call.status,
        "usage": {
            "prompt_tokens": billed.prompt_tokens,
            "completion_tokens": billed.completion_tokens,
            "total_tokens": billed.prompt_tokens.saturating_add(billed.completion_tokens),
            "prompt_tokens_details": {"cached_tokens": billed.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": billed.reasoning_tokens},
        },
    })
}
