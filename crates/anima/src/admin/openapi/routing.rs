//! Schemas of what routing shows: circuits and their credentials.
//!
//! Invariant: the members are those that `crate::circuits` writes.

use serde_json::{Value, json};

use super::schemas::{instant, nullable};

/// A channel's circuits.
pub(super) fn channel() -> Value {
    json!({
        "type": "object",
        "properties": {
            "channel": { "type": "string" },
            "state": {
                "type": "string",
                "enum": ["closed", "open", "half_open", "forced_open", "forced_closed",
                    "metrics_only"],
                "description": "The operator's word, else that of the channel as a whole",
            },
            "manual": nullable(&manual()),
            "circuits": {
                "type": "array",
                "items": circuit(),
                "description": "The channel as a whole, then its models",
            },
            "credentials": {
                "type": "array",
                "items": credential(),
                "description": "Credentials that are not used now",
            },
        },
    })
}

/// A node of the installation.
pub(super) fn node() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "properties": {
            "id": text("One process start"),
            "host": text("The machine and the process"),
            "roles": { "type": "array", "items": { "type": "string" } },
            "version": text("The program's version"),
            "config_version": { "type": "integer", "description": "Revision in force there" },
            "degraded": { "type": ["string", "null"], "description": "What it needs and is down" },
            "in_flight": { "type": "integer", "description": "Calls that it is serving" },
            "started_at": instant("When it started"),
            "seen_at": instant("When it was last heard of"),
            "alive": { "type": "boolean", "description": "Heard of within ten seconds" },
            "answering": { "type": "boolean", "description": "Whether it is the one that answers" },
        },
    })
}

fn manual() -> Value {
    json!({
        "type": "object",
        "properties": {
            "mode": { "type": "string", "enum": ["forced_open", "forced_closed", "metrics_only"] },
            "reason": { "type": "string" },
            "actor": { "type": "string" },
            "since": instant("When it was said"),
            "until": nullable(&instant("When it ends by itself")),
        },
    })
}

fn circuit() -> Value {
    let count =
        |description: &str| json!({ "type": "integer", "minimum": 0, "description": description });
    json!({
        "type": "object",
        "properties": {
            "model": {
                "type": ["string", "null"],
                "description": "The channel's model; null for the channel as a whole",
            },
            "state": { "type": "string", "enum": ["closed", "open", "half_open"] },
            "cause": { "type": ["string", "null"], "description": "Why it is not closed" },
            "since": nullable(&instant("Since when it is not closed")),
            "until": nullable(&instant("When it is tried again")),
            "calls": count("Calls of the window on this node"),
            "failure_rate": count("Failed ones among them, percent"),
            "slow_rate": count("Slow ones among them, percent"),
            "probes": count("Probes that run now"),
            "in_flight": count("Calls under way on this node"),
        },
    })
}

fn credential() -> Value {
    json!({
        "type": "object",
        "properties": {
            "code": { "type": "string" },
            "model": {
                "type": ["string", "null"],
                "description": "The model that it rests for; null when it is out for all",
            },
            "state": { "type": "string", "enum": ["refused", "exhausted", "cooling_down"] },
            "until": nullable(&instant("When it is used again; null when it must be reset")),
        },
    })
}
