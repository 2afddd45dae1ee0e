//! What callers ask about their tasks: one, all of them, its answer, its end.
//!
//! Invariant: a task of another key is as unknown as one that does not exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use anima_core::failure::Failure;
use anima_core::task::State as TaskState;
use anima_store::config::Error;
use anima_store::tasks::{Filter, Task};

use super::super::Plane;
use super::super::idempotency::Kept;
use super::{id_of, id_text, show};
use crate::http::caller::Caller;
use crate::http::reply::{self, Facts, Format, Refusal};

/// Tasks of a page when the caller does not say, and at most.
const PAGE: u32 = 20;
const PAGE_MAX: u32 = 100;

/// The id in a path; one that is not UTF-8 is none.
type Id = Result<Path<String>, PathRejection>;

/// `GET /v1/tasks/{id}`.
pub async fn one(
    State(plane): State<Arc<Plane>>,
    id: Id,
    request: Request<Body>,
) -> Response<Body> {
    told(&plane, request, async |plane, caller, _| {
        let task = own_task(plane, caller, id).await?;
        let kept = kept(plane, &task).await?;
        Ok(show(&task, kept.as_ref()))
    })
    .await
}

/// `GET /v1/tasks`: the key's own, youngest first.
pub async fn list(State(plane): State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    told(&plane, request, async |plane, caller, query| {
        let (mut filter, limit) = filter(query)?;
        filter.kid = Some(caller.kid.to_string());
        let mut tasks =
            plane.tasks.stores.tasks.list(filter).await.map_err(|error| unavailable(&error))?;
        let has_more = tasks.len() > limit;
        tasks.truncate(limit);
        let id = |task: Option<&Task>| task.map(|task| id_text(task.id));
        Ok(json!({
            "object": "list",
            "first_id": id(tasks.first()),
            "last_id": id(tasks.last()),
            "has_more": has_more,
            "data": tasks.iter().map(|task| show(task, None)).collect::<Vec<_>>(),
        }))
    })
    .await
}

/// `DELETE /v1/tasks/{id}` and `POST /v1/tasks/{id}/cancel`.
pub async fn cancel(
    State(plane): State<Arc<Plane>>,
    id: Id,
    request: Request<Body>,
) -> Response<Body> {
    told(&plane, request, async |plane, caller, _| {
        let task = own_task(plane, caller, id).await?;
        let now = plane.relay.clock.now();
        let ending = plane.tasks.cancelled("The task was cancelled by its caller.", now);
        let tasks = &plane.tasks.stores.tasks;
        if tasks.cancel(task.id, ending).await.map_err(|error| unavailable(&error))? {
            plane.relay.metrics.tasks.ended(TaskState::Cancelled);
            plane.tasks.ends.notify_one();
        }
        let task =
            tasks.task(task.id).await.map_err(|error| unavailable(&error))?.ok_or_else(unknown)?;
        if task.state == TaskState::Cancelled {
            return Ok(show(&task, None));
        }
        let message = if task.state.has_ended() {
            format!("The task has ended already: it has {}.", task.state.word())
        } else {
            "The task's call is being made and cannot be called back. See its result.".to_owned()
        };
        Err(Refusal::new(Failure::TaskStarted, message))
    })
    .await
}

/// `GET /v1/tasks/webhook_secret`: what the key's webhooks are signed with.
pub async fn secret(State(plane): State<Arc<Plane>>, request: Request<Body>) -> Response<Body> {
    told(&plane, request, async |plane, caller, _| {
        let secret = plane.tasks.secrets.webhook_secret(&caller.kid);
        Ok(json!({ "object": "webhook_secret", "secret": secret.as_str() }))
    })
    .await
}

/// `GET /v1/tasks/{id}/content`: the answer as the call would have been given it.
pub async fn content(
    State(plane): State<Arc<Plane>>,
    id: Id,
    request: Request<Body>,
) -> Response<Body> {
    let mut facts = plane.facts(Format::of(&request));
    match answered(&plane, id, request, &mut facts).await {
        Ok(kept) => kept.give(&facts),
        Err(refusal) => reply::refuse(&refusal, &facts),
    }
}

/// Answers a question about tasks with JSON.
async fn told<F>(plane: &Plane, request: Request<Body>, answer: F) -> Response<Body>
where
    F: AsyncFnOnce(&Plane, &Caller, &BTreeMap<String, String>) -> Result<Value, Refusal>,
{
    let mut facts = plane.facts(Format::of(&request));
    let (parts, _body) = request.into_parts();
    let query: Result<Query<BTreeMap<String, String>>, _> = Query::try_from_uri(&parts.uri);
    let asked = async {
        let caller = plane.identify(&parts).await?;
        facts.config_version = caller.pinned.rev;
        let Query(query) = query.map_err(|_malformed| invalid("query", "cannot be read"))?;
        answer(plane, &caller, &query).await
    };
    match asked.await {
        Ok(body) => reply::json(StatusCode::OK, Bytes::from(body.to_string()), &facts),
        Err(refusal) => reply::refuse(&refusal, &facts),
    }
}

async fn own_task(plane: &Plane, caller: &Caller, id: Id) -> Result<Task, Refusal> {
    let id = id.ok().and_then(|Path(text)| id_of(&text)).ok_or_else(unknown)?;
    let found = plane.tasks.stores.tasks.task(id).await.map_err(|error| unavailable(&error))?;
    found.filter(|task| task.kid == caller.kid).ok_or_else(unknown)
}

/// What a task ended with, while it is kept.
async fn kept(plane: &Plane, task: &Task) -> Result<Option<Kept>, Refusal> {
    let now = plane.relay.clock.now();
    if task.keep_until.is_none_or(|end| end <= now) {
        return Ok(None);
    }
    let sealed =
        plane.tasks.stores.tasks.result(task.id).await.map_err(|error| unavailable(&error))?;
    Ok(sealed.and_then(|sealed| plane.tasks.kept(task.id, &sealed)))
}

async fn answered(
    plane: &Plane,
    id: Id,
    request: Request<Body>,
    facts: &mut Facts,
) -> Result<Kept, Refusal> {
    let (parts, _body) = request.into_parts();
    let caller = plane.identify(&parts).await?;
    facts.config_version = caller.pinned.rev;
    let task = own_task(plane, &caller, id).await?;
    if !task.state.has_ended() {
        let message = "The task has not ended yet. Ask again later.";
        return Err(Refusal::new(Failure::TaskUnfinished, message).retry_after(1_000));
    }
    if let Some(kept) = kept(plane, &task).await? {
        return Ok(kept);
    }
    let is_kept = task.keep_until.is_some_and(|end| plane.relay.clock.now() < end);
    let words = task.error.filter(|_| is_kept).map(|(_, message)| message);
    match (task.state, words) {
        (TaskState::Failed, Some(message)) => Err(Refusal::new(Failure::TaskFailed, message)),
        (_, words) => {
            let message = words
                .unwrap_or_else(|| "What the task ended with is not kept any more.".to_owned());
            Err(Refusal::new(Failure::TaskGone, message))
        }
    }
}

/// What a list is to hold, and how many of it are shown: one more is asked for.
fn filter(query: &BTreeMap<String, String>) -> Result<(Filter, usize), Refusal> {
    let mut filter = Filter::default();
    let mut limit = PAGE;
    for (name, value) in query {
        match name.as_str() {
            "limit" => {
                let number = value.parse().ok().filter(|n| (1..=PAGE_MAX).contains(n));
                limit = number.ok_or_else(|| invalid("limit", "must be from 1 to 100"))?;
            }
            "after" => {
                let id = id_of(value);
                filter.before =
                    Some(id.ok_or_else(|| invalid("after", "must be the id of a task"))?);
            }
            "status" => {
                let state = TaskState::of(value);
                filter.state =
                    Some(state.ok_or_else(|| invalid("status", "must be a status of tasks"))?);
            }
            // The key itself may stand in the query.
            "key" => {}
            _ => {
                let message = "The query may have limit, after and status.";
                return Err(Refusal::new(Failure::BodyInvalid, message));
            }
        }
    }
    filter.limit = limit.saturating_add(1);
    Ok((filter, usize::try_from(limit).unwrap_or(usize::MAX)))
}

fn invalid(name: &'static str, what: &str) -> Refusal {
    Refusal::new(Failure::BodyInvalid, format!("`{name}` {what}.")).param(Some(name))
}

fn unknown() -> Refusal {
    let message = "There is no such task of this API key. See GET /v1/tasks.";
    Refusal::new(Failure::TaskUnknown, message)
}

fn unavailable(error: &Error) -> Refusal {
    tracing::error!(%error, "failed to read tasks");
    let message = "Tasks cannot be read at the moment. Try again shortly.";
    Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000)
}
