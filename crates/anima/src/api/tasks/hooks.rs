//! Ends of tasks, told to whom it concerns: signed, tried for about a day, then given up.
//!
//! Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. The id is of the task
//! and its end, the same at every try, so that a receiver can tell a repetition. Not here: where a
//! caller may send it (`outbound/webhook`). Invariant: no worker and no caller waits for a
//! receiver. Source: `wire-conventions` 4.7.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use anima_core::clock::{Clock, Timestamp};
use anima_core::task::webhook_pause_us;
use anima_store::tasks::{Hook, Task};

use super::super::Plane;
use super::{Part, Tasks, id_text, show};
use crate::outbound;

/// Tries at a time on this node.
const MOST: usize = 16;
/// Longer than a try may take, so that no other node tries beside it.
const LEASE_MS: i64 = 60_000;
/// The longest that nobody looks: tries become due, and other nodes end tasks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Tries in all: with the pauses between them a little more than a day.
const TRIES_MAX: u32 = 16;
/// The largest answer that is sent along, bytes. Larger ones are fetched.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Delivers until `stop`.
pub async fn run(plane: Arc<Plane>, stop: CancellationToken) {
    let mut trying = JoinSet::new();
    while !stop.is_cancelled() {
        while trying.try_join_next().is_some() {}
        let free = MOST.saturating_sub(trying.len());
        let taken = if free > 0 { take(&plane, free).await } else { vec![] };
        let some = taken.len();
        for hook in taken {
            let plane = Arc::clone(&plane);
            trying.spawn(async move { attempt(&plane, hook).await });
        }
        if some > 0 {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = plane.tasks.ends.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    // What is under way may end; a try that is cut off is made again under the same id.
    while trying.join_next().await.is_some() {}
}

async fn take(plane: &Plane, free: usize) -> Vec<Hook> {
    if plane.relay.dependencies.database_down() {
        return vec![];
    }
    let now = plane.relay.clock.now();
    let most = u32::try_from(free).unwrap_or(1);
    let due = plane.tasks.stores.hooks.due(now, now.plus_millis(LEASE_MS), most).await;
    due.unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to look for webhooks");
        vec![]
    })
}

async fn attempt(plane: &Plane, hook: Hook) {
    let (tasks, id) = (&plane.tasks, hook.task.id);
    let tries = hook.task.hook.as_ref().map_or(0, |state| state.tries);
    let sent = match request(tasks, &hook, &*plane.relay.clock) {
        Ok(request) => {
            let answer = outbound::deliver(&plane.relay.outbound, request).await;
            judged(answer.map_err(|error| error.detail))
        }
        Err(why) => Err((why, true)),
    };
    let metrics = &plane.relay.metrics.tasks;
    let told = match sent {
        Ok(()) => {
            metrics.hook("delivered");
            tasks.stores.hooks.delivered(id, tries).await
        }
        Err((why, for_good)) => {
            let over = for_good || tries >= TRIES_MAX;
            metrics.hook(if over { "dead" } else { "failed" });
            if over {
                tracing::warn!(task = %id, tries, why, "gave a webhook up");
            }
            let pause = webhook_pause_us(tries, plane.relay.rng.next_u64());
            let next_us = plane.relay.clock.now().micros().saturating_add(pause);
            let next_at = (!over).then_some(Timestamp::from_micros(next_us));
            tasks.stores.hooks.failed(id, tries, &why, next_at).await
        }
    };
    if let Err(error) = told {
        tracing::warn!(task = %id, %error, "failed to put down how a webhook went");
    }
}

/// Why a try failed, and whether all others will.
fn judged(sent: Result<StatusCode, String>) -> Result<(), (String, bool)> {
    match sent {
        Ok(status) if status.is_success() => Ok(()),
        // The receiver's word for "do not send this any more".
        Ok(StatusCode::GONE) => Err(("the receiver answered 410".to_owned(), true)),
        Ok(status) => Err((format!("the receiver answered {}", status.as_u16()), false)),
        Err(detail) => Err((detail, false)),
    }
}

/// The message. An error is for good: it would be the same the next time.
fn request(tasks: &Tasks, hook: &Hook, clock: &dyn Clock) -> Result<Request<Bytes>, String> {
    let task = &hook.task;
    let url = tasks.open((Part::Webhook, task.id), &hook.url);
    let url = url.and_then(|url| String::from_utf8(url).ok()).ok_or("its URL cannot be read")?;
    let body = body(tasks, hook);
    let id = message_id(task);
    let at_s = clock.now().seconds();
    let signature = tasks.secrets.webhook_signature(&task.kid, (&id, at_s), &body);
    let request = Request::post(url)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, "anima-webhook")
        .header("webhook-id", id)
        .header("webhook-timestamp", at_s)
        .header("webhook-signature", signature)
        .body(body);
    request.map_err(|error| error.to_string())
}

fn message_id(task: &Task) -> String {
    format!("msg_{}_{}", id_text(task.id), task.state.word())
}

fn body(tasks: &Tasks, hook: &Hook) -> Bytes {
    let task = &hook.task;
    let small = hook.result.as_deref().filter(|sealed| sealed.len() <= ANSWER_BYTES_MAX);
    let kept = small.and_then(|sealed| tasks.kept(task.id, sealed));
    let message = json!({
        "type": format!("task.{}", task.state.word()),
        "timestamp": task.ended_at,
        "data": show(task, kept.as_ref()),
    });
    Bytes::from(message.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_has_taken_it_when_it_says_so_and_gone_is_gone() {
        assert_eq!(judged(Ok(StatusCode::NO_CONTENT)), Ok(()));
        assert!(judged(Ok(StatusCode::GONE)).unwrap_err().1);
        for status in [StatusCode::FOUND, StatusCode::BAD_REQUEST, StatusCode::BAD_GATEWAY] {
            assert!(!judged(Ok(status)).unwrap_err().1, "{status}");
        }
        assert!(!judged(Err("no answer".to_owned())).unwrap_err().1);
    }
}
