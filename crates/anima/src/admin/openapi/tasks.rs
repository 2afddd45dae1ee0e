//! Tasks in the document: what they are asked with and what is shown of them.
//!
//! Invariant: the members are those that `admin::tasks` writes.

use serde_json::{Value, json};

use anima_core::task::State;

use super::query;
use super::schemas::{instant, integer, nullable, text, word};
use crate::admin::tasks::Wish;

/// Id and summary of what may be asked.
pub(super) const fn words(wish: Wish) -> (&'static str, &'static str) {
    match wish {
        Wish::List => ("tasks", "Lists tasks of all keys, youngest first"),
        Wish::Read => ("task", "Reads a task, without what was sent and answered"),
        Wish::Cancel => ("canceltask", "Cancels a task that was not sent yet"),
        Wish::Replay => ("replaywebhook", "Has a webhook that is over sent again"),
    }
}

/// What a list may be narrowed by.
pub(super) fn filters(limit: &Value) -> [Value; 5] {
    let name = json!({ "type": "string" });
    [
        query("state", &states(), false, "In this state"),
        query("app", &name, false, "Of this app"),
        query("key", &name, false, "Of this key, by its `kid`"),
        query("limit", limit, false, "Tasks of a page"),
        query("after", &name, false, "`next` of the page before"),
    ]
}

fn states() -> Value {
    let words: Vec<&str> = State::ALL.iter().map(|state| state.word()).collect();
    word(&words, "Where it is")
}

/// A task.
pub(super) fn task() -> Value {
    let error = json!({
        "type": "object",
        "properties": { "code": text("What went wrong"), "message": text("In words") },
    });
    let webhook = json!({
        "type": "object",
        "properties": {
            "state": word(&["waiting", "pending", "delivered", "dead"], "Where it is"),
            "tries": integer(0, "Tries so far, since it was last asked for"),
            "error": nullable(&text("Why the last one failed")),
        },
    });
    json!({
        "type": "object",
        "properties": {
            "id": text("Its id"),
            "kind": word(&["call", "image", "video", "music"], "What it is"),
            "app": text("Whose it is"),
            "key": text("The key that sent it, by its `kid`"),
            "endpoint": text("What was called"),
            "model": text("The alias that was called"),
            "state": states(),
            "run": integer(0, "How often a worker took it"),
            "request_id": nullable(&text("The request of its run, once it may have been sent")),
            "created_at": instant("When it came"),
            "expires_at": instant("It is not run after this"),
            "ended_at": nullable(&instant("When it ended")),
            "kept_until": nullable(&instant("Until when its answer is kept")),
            "error": nullable(&error),
            "webhook": nullable(&webhook),
        },
    })
}

/// The body of what is done to a task.
pub(super) fn reason() -> Value {
    let why = json!({ "type": "string", "maxLength": 1000, "description": "For the audit record" });
    json!({ "type": "object", "properties": { "reason": why }, "additionalProperties": false })
}
