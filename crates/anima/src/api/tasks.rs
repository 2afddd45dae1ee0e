//! Calls that their callers do not wait for: keys in queue mode ASYNC.
//!
//! A call is stored, sealed, and answered with 202; a worker of any node makes it, on the same way
//! as any other call; its answer is kept for a while. Not here: what a call is (`relay`), and the
//! order of the queue (`anima_store::tasks`). Invariant: a task ends once and is charged once at
//! most; what may have been sent is never sent again. Sources: SPEC 6 and 9, `reliability` 1.6.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::task::{State, id_of, id_text};
use anima_store::database::{Stores, TaskStores};
use anima_store::ledger::money::Money;
use anima_store::tasks::{Ending, Task};

use super::Plane;
use super::idempotency::Kept;
use crate::boot::background::after;
use crate::secrets::Secrets;
use crate::settings::Settings;

pub mod endpoints; // what callers ask about their tasks
pub mod hooks; // their ends, told to whom it concerns
mod parcel; // a call as it is stored
mod pin; // what it is sold at, whenever it is made
pub(super) mod submit; // a call becomes a task
pub mod upkeep; // what nobody works at any more
mod verdict; // what follows from how a run went
pub mod worker; // tasks become calls

/// What tasks take.
#[derive(Debug)]
pub struct Tasks {
    pub(super) stores: TaskStores,
    /// For what is given back.
    money: Arc<dyn Money>,
    secrets: Arc<Secrets>,
    /// This process start.
    node: Uuid,
    bounds: Bounds,
    /// Rung when there may be something to run.
    work: Notify,
    /// Rung when there may be somebody to tell.
    ends: Notify,
}

/// From the settings.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Tasks that run at a time on this node.
    workers: usize,
    /// Tasks of one key that may wait, unless it says so itself.
    queue_max: u64,
    /// How long a task may wait.
    wait_ms: i64,
    /// How long what it ended with is kept.
    keep_ms: i64,
    /// The largest answer, bytes.
    answer_bytes_max: usize,
}

impl Bounds {
    fn of(settings: &Settings) -> Self {
        let ms = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Self {
            workers: settings.task_workers,
            queue_max: settings.task_queue_max,
            wait_ms: ms(settings.task_wait_max_ms),
            keep_ms: ms(settings.task_keep_ms),
            answer_bytes_max: settings.task_answer_bytes_max,
        }
    }
}

/// Starts everything that tasks need once the database is open, to end with `stop` or when it is
/// aborted.
pub fn start(
    plane: &Arc<Plane>,
    stop: &CancellationToken,
    opened: &CancellationToken,
) -> [JoinHandle<()>; 4] {
    [
        after(opened, worker::run(Arc::clone(plane), stop.clone())),
        after(opened, worker::renew(Arc::clone(plane))),
        after(opened, hooks::run(Arc::clone(plane), stop.clone())),
        after(opened, upkeep::run(Arc::clone(plane))),
    ]
}

/// What a sealed value of a task is, so that it opens as nothing else.
#[derive(Debug, Clone, Copy)]
enum Part {
    Request,
    Result,
    Webhook,
}

impl Part {
    fn context(self, id: Uuid) -> String {
        let part = match self {
            Self::Request => "request",
            Self::Result => "result",
            Self::Webhook => "webhook",
        };
        format!("task|{id}|{part}")
    }
}

impl Tasks {
    /// Keeps tasks in these stores, sealed by `secrets`.
    pub fn new(stores: &Stores, secrets: &Arc<Secrets>, node: Uuid, settings: &Settings) -> Self {
        Self {
            stores: stores.tasks.clone(),
            money: Arc::clone(&stores.money),
            secrets: Arc::clone(secrets),
            node,
            bounds: Bounds::of(settings),
            work: Notify::new(),
            ends: Notify::new(),
        }
    }

    /// `None` when the cipher fails, which takes a defect.
    fn seal(&self, (part, id): (Part, Uuid), plain: &[u8]) -> Option<Vec<u8>> {
        let sealed = self.secrets.seal_bytes(&part.context(id), plain);
        sealed.inspect_err(|error| tracing::error!(task = %id, %error, "failed to seal")).ok()
    }

    /// `None` for what was sealed under another master key, or is damaged.
    fn open(&self, (part, id): (Part, Uuid), sealed: &[u8]) -> Option<Vec<u8>> {
        let opened = self.secrets.open_bytes(&part.context(id), sealed);
        let opened =
            opened.inspect_err(|error| tracing::error!(task = %id, %error, "failed to open"));
        opened.ok().map(|plain| plain.to_vec())
    }

    /// What a task ended with, from the sealed bytes.
    fn kept(&self, id: Uuid, sealed: &[u8]) -> Option<Kept> {
        self.open((Part::Result, id), sealed).and_then(|bytes| Kept::from_bytes(&bytes))
    }

    /// An end without an answer, as of now.
    fn ending(&self, state: State, (code, message): (&str, &str), at: Timestamp) -> Ending {
        Ending {
            state,
            result: None,
            error: Some((code.to_owned(), message.to_owned())),
            refund: false,
            at,
            keep_until: at.plus_millis(self.bounds.keep_ms),
        }
    }

    fn cancelled(&self, message: &str, at: Timestamp) -> Ending {
        self.ending(State::Cancelled, ("task_cancelled", message), at)
    }
}

/// A task as its caller sees it, with what it ended with where that is at hand.
pub fn show(task: &Task, kept: Option<&Kept>) -> Value {
    let id = id_text(task.id);
    let is_done = task.state == State::Succeeded;
    let kind = kept.and_then(|kept| kept.header(&CONTENT_TYPE));
    let output = json!({ "url": format!("/v1/tasks/{id}/content"), "content_type": kind });
    let mut shown = json!({
        "id": id,
        "object": "task",
        "task_id": id,
        "kind": task.kind,
        "endpoint": task.endpoint,
        "model": &*task.alias,
        "status": task.state.word(),
        "progress": if is_done { 100 } else { 0 },
        "created_at": task.created_at.seconds(),
        "completed_at": task.ended_at.map(Timestamp::seconds),
        "expires_at": task.keep_until.unwrap_or(task.expires_at).seconds(),
        "request_id": task.call.map(crate::http::reply::id_text),
        "output": if is_done { vec![output] } else { vec![] },
        "error": task.error.as_ref().map(|(code, message)| {
            json!({ "code": code, "message": message })
        }),
    });
    if let (Some(hook), Value::Object(members)) = (&task.hook, &mut shown) {
        let state = hook.word.to_lowercase();
        let hook = json!({ "state": state, "tries": hook.tries, "error": hook.error });
        members.insert("webhook".to_owned(), hook);
    }
    if let (Some(kept), Value::Object(members)) = (kept, &mut shown) {
        let response = json!({ "status": kept.status(), "body": kept.body_value() });
        members.insert("response".to_owned(), response);
    }
    shown
}
