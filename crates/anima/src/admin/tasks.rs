//! Tasks of all keys as an operator sees them, and what may be done to them.
//!
//! What a caller sent and what it was answered are not shown: they are sealed, and their owner's.
//! Invariant: only what was certainly not sent is cancelled, and a webhook is sent again only when
//! nobody is at it. Sources: SPEC 9 and 10.

use serde::Deserialize;
use serde_json::{Value, json};

use anima_core::clock::Timestamp;
use anima_core::task::{State, id_of, id_text};
use anima_store::config::Actor;
use anima_store::tasks::{Ending, Filter, Task};
use uuid::Uuid;

use super::Admin;
use super::apps::{Noted, note};
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;
use super::typed;

/// What may be asked of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// `GET /tasks`.
    List,
    /// `GET /tasks/{id}`.
    Read,
    /// `POST /tasks/{id}/cancel`.
    Cancel,
    /// `POST /tasks/{id}/webhook`.
    Replay,
}

/// Serves a call about tasks.
///
/// # Errors
/// The first bad member, no such task, one that is not in the state for it, or the store's.
pub(crate) async fn serve(admin: &Admin, wish: Wish, call: &Call) -> Result<Reply, Problem> {
    match wish {
        Wish::List => list(admin, call).await,
        Wish::Read => {
            call.query_only(&[])?;
            Ok(Reply::ok(show(&find(admin, call).await?)))
        }
        Wish::Cancel => cancel(admin, call).await,
        Wish::Replay => replay(admin, call).await,
    }
}

/// A page of tasks, youngest first.
async fn list(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["state", "app", "key", "after", "limit"])?;
    let limit = call.limit()?;
    let state = match call.query.get("state") {
        None => None,
        Some(word) => Some(State::of(word).ok_or_else(|| Problem::invalid("state", STATES))?),
    };
    let before = match call.query.get("after") {
        None => None,
        Some(text) => Some(id_of(text).ok_or_else(|| Problem::invalid("after", "`next`"))?),
    };
    let filter = Filter {
        kid: call.query.get("key").cloned(),
        app: call.query.get("app").cloned(),
        state,
        before,
        limit: limit.saturating_add(1),
    };
    let mut tasks = admin.stores.tasks.tasks.list(filter).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = tasks.len() > wanted;
    tasks.truncate(wanted);
    let next = tasks.last().filter(|_| has_more).map(|task| id_text(task.id));
    Ok(Reply::page(tasks.iter().map(show).collect(), json!(next)))
}

const STATES: &str = "one of `accepted`, `submitting`, `queued`, `running`, `succeeded`, `failed`, \
                      `cancelled`, `expired` and `unknown`";

/// Why something is done; `None` of it may be said.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Because {
    #[serde(default)]
    reason: Option<String>,
}

/// The actor with the body's reason, or the header's.
fn because(call: &Call) -> Result<Actor, Problem> {
    call.query_only(&[])?;
    let body: Because = typed::typed(Value::Object(call.optional_object()?))?;
    let given = &call.caller.actor;
    let reason = body.reason.unwrap_or_else(|| given.reason.clone());
    if reason.chars().count() > 1_000 {
        return Err(Problem::invalid("reason", "a text of up to 1000 characters"));
    }
    Ok(Actor { name: given.name.clone(), reason })
}

async fn cancel(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    let actor = because(call)?;
    let task = find(admin, call).await?;
    let ending = cancelled(admin.clock.now(), admin.task_keep_ms);
    let is_done = admin.stores.tasks.tasks.cancel(task.id, ending).await?;
    let task = again(admin, task.id).await?;
    if is_done {
        record(admin, &actor, "cancel", &task).await?;
    }
    if task.state == State::Cancelled {
        return Ok(Reply::ok(show(&task)));
    }
    let detail = if task.state.has_ended() {
        format!("the task has ended: it has {}", task.state.word())
    } else {
        "the call may have been sent already; see what comes of it".to_owned()
    };
    Err(Problem::new(Code::TaskNotCancellable, detail))
}

fn cancelled(at: Timestamp, keep_ms: u64) -> Ending {
    let message = "The task was cancelled by an operator.".to_owned();
    Ending {
        state: State::Cancelled,
        result: None,
        error: Some(("task_cancelled".to_owned(), message)),
        refund: false,
        at,
        keep_until: at.plus_millis(i64::try_from(keep_ms).unwrap_or(i64::MAX)),
    }
}

async fn replay(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    let actor = because(call)?;
    let task = find(admin, call).await?;
    if task.hook.is_none() {
        return Err(Problem::new(Code::NotFound, "the task has no webhook"));
    }
    if !admin.stores.tasks.tasks.replay(task.id, admin.clock.now()).await? {
        let detail = if task.state.has_ended() {
            "the webhook is being tried: see `webhook.tries`"
        } else {
            "the webhook is sent when the task has ended"
        };
        return Err(Problem::new(Code::WebhookPending, detail));
    }
    let task = again(admin, task.id).await?;
    record(admin, &actor, "replay", &task).await?;
    Ok(Reply::ok(show(&task)))
}

async fn record(admin: &Admin, actor: &Actor, action: &str, task: &Task) -> Result<(), Problem> {
    let code = id_text(task.id);
    let noted = Noted { action, resource: "task", code: &code };
    note(admin, actor, noted, None, show(task)).await
}

async fn find(admin: &Admin, call: &Call) -> Result<Task, Problem> {
    let id = id_of(&call.names.code).ok_or_else(missing)?;
    again(admin, id).await
}

async fn again(admin: &Admin, id: Uuid) -> Result<Task, Problem> {
    admin.stores.tasks.tasks.task(id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::new(Code::NotFound, "there is no such task, or it is not kept any more")
}

fn show(task: &Task) -> Value {
    json!({
        "id": id_text(task.id),
        "kind": task.kind,
        "app": &*task.app,
        "key": &*task.kid,
        "endpoint": task.endpoint,
        "model": &*task.alias,
        "state": task.state.word(),
        "run": task.run,
        "request_id": task.call.map(|id| format!("req_{}", id.simple())),
        "created_at": task.created_at,
        "expires_at": task.expires_at,
        "ended_at": task.ended_at,
        "kept_until": task.keep_until,
        "error": task.error.as_ref().map(|(code, message)| {
            json!({ "code": code, "message": message })
        }),
        "webhook": task.hook.as_ref().map(|hook| {
            let state = hook.word.to_lowercase();
            json!({ "state": state, "tries": hook.tries, "error": hook.error })
        }),
    })
}
