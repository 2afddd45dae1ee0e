//! The escape hatches in the document: what they are called with and what they answer.
//!
//! Not here: rows and money. Invariant: every member that a handler takes or gives is named.

use serde_json::{Value, json};

use super::reference;
use super::schemas::{closed, instant, integer, list, nullable, page, text, word};
use crate::admin::hatches::Lever;

/// Id and summary of a lever.
pub(super) const fn words(lever: Lever) -> (&'static str, &'static str) {
    match lever {
        Lever::Open => ("opencircuit", "Opens a circuit: no call goes through"),
        Lever::Close => ("closecircuit", "Closes a circuit, whatever the outcomes"),
        Lever::Reset => ("resetcircuit", "Gives a circuit back to its breaker"),
        Lever::Gateway => ("switch", "Reads the switch of the whole data plane"),
        Lever::SwitchGateway => ("setswitch", "Switches the whole data plane"),
        Lever::Invalidate => ("invalidate", "Drops from memory what nodes keep there"),
        Lever::Propagation => ("propagation", "Says which nodes have a change, and since when"),
        Lever::Scheduled => ("scheduled", "Lists versions that have not begun"),
        Lever::CancelScheduled => ("cancelscheduled", "Takes back a version that has not begun"),
    }
}

/// Whether the lever takes `wait_ms`.
pub(super) const fn waits(lever: Lever) -> bool {
    !matches!(lever, Lever::Gateway | Lever::Scheduled)
}

/// The schema of the body, and whether one is required.
pub(super) const fn body(lever: Lever) -> Option<(&'static str, bool)> {
    match lever {
        Lever::Open | Lever::Close => Some(("CircuitWish", true)),
        Lever::Reset => Some(("CircuitReset", true)),
        Lever::SwitchGateway => Some(("SwitchWish", true)),
        Lever::Invalidate => Some(("Invalidation", true)),
        Lever::CancelScheduled => Some(("StatedVersion", false)),
        Lever::Gateway | Lever::Propagation | Lever::Scheduled => None,
    }
}

/// Status and schema of the answer.
pub(super) const fn answer(lever: Lever) -> (&'static str, Option<&'static str>) {
    match lever {
        Lever::Open | Lever::Close | Lever::Reset => ("200", Some("ForcedCircuit")),
        Lever::Gateway | Lever::SwitchGateway => ("200", Some("Switch")),
        Lever::Invalidate => ("200", Some("Invalidated")),
        Lever::Propagation => ("200", Some("Propagation")),
        Lever::Scheduled => ("200", Some("ScheduledPage")),
        Lever::CancelScheduled => ("204", None),
    }
}

/// Every schema, by name.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("CircuitWish", wish()),
        ("CircuitReset", payload(&json!({ "model": model(), "reason": why() }), &["reason"])),
        ("ForcedCircuit", circuit()),
        ("SwitchWish", switch_wish()),
        ("Switch", switch()),
        ("Invalidation", invalidation()),
        ("Invalidated", invalidated()),
        ("Propagation", propagation()),
        ("ScheduledPage", page(&scheduled())),
        ("Rehearsal", rehearsal()),
    ]
}

fn payload(members: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": members, "required": required,
        "additionalProperties": false })
}

fn model() -> Value {
    text("A model's name at the provider; all of the channel's without")
}

fn why() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": 1000, "description":
        "Why; may stand in `x-anima-reason` instead" })
}

fn wish() -> Value {
    let members = json!({
        "model": model(),
        "reason": why(),
        "expires_at": instant("Back to automatic from here on; never without"),
        "expires_in_ms": integer(1, "The same, from now; instead of `expires_at`"),
    });
    payload(&members, &["reason"])
}

fn manual() -> Value {
    closed(&json!({
        "state": word(&["open", "closed"], "Which way it was forced"),
        "reason": text("Why"),
        "actor": text("Who"),
        "set_at": instant("When"),
        "expires_at": nullable(&instant("Back to automatic from here on")),
    }))
}

fn circuit() -> Value {
    spreading(&json!({
        "channel": text("The channel's code"),
        "model": nullable(&model()),
        "manual": nullable(&manual()),
    }))
}

/// Members that are all there, and the nodes, which are there when the call waited for them.
fn spreading(members: &Value) -> Value {
    let mut schema = closed(members);
    if let Some(members) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        members.insert("propagation".to_owned(), reference("Propagation"));
    }
    schema
}

fn switch_wish() -> Value {
    let members = json!({
        "enabled": { "type": "boolean", "description": "Off refuses every call with 503" },
        "running": running(),
        "reason": why(),
    });
    payload(&members, &["enabled", "reason"])
}

/// What becomes of what streams through something that is switched off.
pub(super) fn running() -> Value {
    word(
        &["finish", "cut"],
        "Beside `enabled: false`: what streams finishes (the default), or ends \
        now with its format's error event",
    )
}

fn switch() -> Value {
    spreading(&json!({
        "enabled": { "type": "boolean", "description": "Whether calls are served" },
        "reason": text("Why"),
        "actor": text("Who"),
        "changed_at": nullable(&instant("When; null when it never was touched")),
    }))
}

fn scope() -> Value {
    text("`all`, `config`, `keys`, `key:<kid>`, `apps` or `app:<code>`")
}

fn invalidation() -> Value {
    payload(&json!({ "scope": scope(), "reason": text("Why") }), &["scope"])
}

fn invalidated() -> Value {
    spreading(&json!({ "scope": scope() }))
}

fn propagation() -> Value {
    let node = closed(&json!({
        "node": text("The node's id: one process start"),
        "applied_at": nullable(&instant("In force there since; null is not yet")),
        "rev": integer(0, "The last change in force there"),
        "seen_at": instant("Last heard of"),
        "alive": { "type": "boolean", "description": "Heard of within the last 15 s" },
    }));
    closed(&json!({
        "id": integer(1, "The change's revision"),
        "complete": { "type": "boolean", "description": "Every living node has it in force" },
        "last_applied_at": nullable(&instant("When the last node had it, once complete")),
        "nodes": list(node, "Nodes that have it, and living ones that do not yet"),
    }))
}

fn scheduled() -> Value {
    closed(&json!({
        "id": text("`<resource>:<version_no>:<code>`; names it in `DELETE /scheduled/{id}`"),
        "resource": text("The row's table"),
        "code": text("The row's code"),
        "effective_from": instant("When it begins"),
        "row": { "type": "object", "description": "The row as it will be" },
    }))
}

fn anything(description: &str) -> Value {
    let types = ["string", "number", "boolean", "object", "array", "null"];
    json!({ "type": types, "description": description })
}

fn rehearsal() -> Value {
    let difference = closed(&json!({
        "member": text("Its path"),
        "before": anything("As it is; null when it is not there"),
        "after": anything("As it would be; null when it goes"),
    }));
    closed(&json!({
        "dry_run": { "type": "boolean", "description": "True" },
        "actions": list(text("`create`, `change`, `switch`, `restore`, `delete` or `cancel`"),
            "What would be done"),
        "before": { "type": ["object", "null"], "description": "The row as it is" },
        "after": { "type": ["object", "null"], "description": "The row as it would be" },
        "difference": list(difference, "Member by member"),
    }))
}
