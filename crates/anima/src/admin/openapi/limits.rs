//! Schemas of what operators see of limits.
//!
//! Invariant: the members are those that `admin::limits` writes.

use serde_json::{Value, json};

use super::schemas::{instant, nullable};

/// The calls of a key that wait in one line.
pub(super) fn queue() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let count =
        |description: &str| json!({ "type": "integer", "minimum": 0, "description": description });
    json!({
        "type": "object",
        "properties": {
            "node": nullable(&text(
                "The node whose line it is; null for a line of all nodes, who share their counters",
            )),
            "scope": {
                "type": "string",
                "enum": ["app", "token_group", "channel"],
                "description": "Whose limit, or whose keys' limits, they wait for",
            },
            "code": text("The code of that"),
            "key": text("The key that they are of"),
            "waiting": count("How many wait"),
            "oldest_ms": count("How long the first of them has been waiting, milliseconds"),
            "expected_wait_ms": nullable(&count(
                "How long a call that comes now would wait, by the time between the key's last \
                 turns, milliseconds; null before it had two",
            )),
        },
    })
}

/// A limit and how far it is used.
pub(super) fn limit() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let kinds = ["integer", "string", "null"];
    let amount = |description: &str| json!({ "type": kinds, "description": description });
    json!({
        "type": "object",
        "properties": {
            "scope": {
                "type": "string",
                "enum": ["key", "app", "token_group"],
                "description": "What it hangs on",
            },
            "code": text("The code of that"),
            "kind": text("`concurrency`, `requests`, `tokens` or `cost`"),
            "count": nullable(&text("Of tokens, which are counted")),
            "window": nullable(&text("The window, where it has one")),
            "shadow": { "type": "boolean", "description": "It counts and refuses nothing" },
            "limit": amount("The limit now, raised or not; money as a decimal string"),
            "used": amount("What is used; null for a budget that no call has asked for yet"),
            "held": amount("Of that, what running calls hold of a budget"),
            "remaining": amount("What would pass at once"),
            "resets_at": nullable(&instant("When it is whole again, where that is known")),
        },
    })
}
