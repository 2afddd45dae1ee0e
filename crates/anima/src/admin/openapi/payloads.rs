//! The members of each resource's body, as JSON Schema, with the defaults of the types.
//!
//! The members that every row has beside its body are in `schemas`. Invariant, held by a test: the
//! members here are exactly those that the types take.

use serde_json::{Value, json};

use anima_core::config::{Breaker, Resource, RetryBudget, Timeouts};
use anima_core::usage::Meter;

use super::schemas::{amount, code, instant, integer, list, nullable, text, word};

/// A resource's body.
#[derive(Debug)]
pub(crate) struct Payload {
    /// The schema's name.
    pub(crate) name: &'static str,
    /// Its members.
    pub(crate) members: Value,
    /// Those without which no row can be created.
    pub(crate) required: &'static [&'static str],
}

/// The body of a resource.
pub(crate) fn payload(resource: Resource) -> Payload {
    let (name, members, required): (_, _, &[&str]) = match resource {
        Resource::Channel => ("Channel", channel(), &["provider", "base_url"]),
        Resource::Alias => ("Alias", alias(), &["kind", "routes"]),
        Resource::Price => ("Price", price(), &["side", "currency", "meters"]),
        Resource::Quota => ("Quota", quota(), &["limits"]),
        Resource::TokenGroup => ("TokenGroup", token_group(), &[]),
        Resource::App => ("App", app(), &[]),
        Resource::UserApiKey => ("Key", key(), &[]),
        Resource::FxRate => ("FxRate", fx_rate(), &["from", "to", "rate"]),
    };
    Payload { name, members, required }
}

fn object(members: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": members, "required": required,
        "additionalProperties": false })
}

fn with_default(mut schema: Value, default: Value) -> Value {
    if let Value::Object(members) = &mut schema {
        members.insert("default".to_owned(), default);
    }
    schema
}

fn channel() -> Value {
    let credential = object(
        &json!({
            "code": text("Its name inside the channel"),
            "secret": {
                "type": "string",
                "writeOnly": true,
                "description": "Sealed on arrival and never read back; left out in a change, the \
                    stored one of the same code stays",
            },
        }),
        &["code"],
    );
    json!({
        "provider": text("Who speaks there: `openai`, `openai_compatible`, …"),
        "base_url": text("What the provider's own SDK takes: with `/v1` for the OpenAI family"),
        "credentials": list(credential, "Used in turn"),
        "timeouts": timeouts(),
        "breaker": breaker(),
        "max_concurrency": integer(1, "Calls in flight at most"),
        "allow_private_network": {
            "type": "boolean",
            "default": false,
            "description": "Needed for loopback and private addresses",
        },
        "on_disconnect": with_default(word(&["drain", "cancel"], "On hang-up"), json!("drain")),
        "faults": list(fault(), "Faults of the operator's own, to rehearse with"),
        "settings": { "type": "object", "description": "The provider's own" },
    })
}

fn fault() -> Value {
    let ways = ["unreachable", "connection_lost", "error", "overloaded", "rate_limited", "timeout"];
    let members = json!({
        "percent": { "type": "integer", "minimum": 1, "maximum": 100 },
        "delay_ms": integer(0, "Waits so long before the call"),
        "fail": word(&ways, "Then fails so, and nothing is sent; without, it is sent"),
        "model": text("One model of the channel; all without"),
        "until": instant("Ends then by itself; within seven days"),
    });
    object(&members, &["percent", "until"])
}

fn timeouts() -> Value {
    let members = json!({
        "connect_ms": integer(1, "DNS, TCP and TLS together"),
        "first_byte_ms": integer(1, "From the request's last byte to the answer's first"),
        "idle_ms": integer(1, "Between two pieces of an answer"),
        "total_ms": integer(1, "From the attempt's start to the answer's end"),
    });
    with_default(object(&members, &[]), json!(Timeouts::default()))
}

fn breaker() -> Value {
    let percent = json!({ "type": "integer", "minimum": 1, "maximum": 100 });
    let members = json!({
        "window_ms": integer(0, "Length of the sliding window"),
        "window_calls": integer(1, "The window is the last so many calls instead of a time"),
        "minimum_calls": integer(0, "Calls in the window before a rate counts"),
        "failure_rate": percent,
        "consecutive_failures": integer(0, "Failures in a row that trip"),
        "slow_call_ms": integer(0, "A first byte later than this is slow"),
        "slow_rate": percent,
        "open_ms": integer(0, "How long the circuit stays open at first"),
        "max_open_ms": integer(0, "How long it stays open at most"),
        "half_open_permits": integer(0, "Probes while half open"),
        "metrics_only_until": nullable(&instant("Until then circuits only judge")),
    });
    with_default(object(&members, &[]), json!(Breaker::default()))
}

/// What an alias may serve.
const KINDS: &[&str] = &[
    "chat",
    "embedding",
    "image",
    "video",
    "music",
    "speech",
    "transcription",
    "rerank",
    "moderation",
];

fn alias() -> Value {
    let route = json!({
        "channel": code("A channel"),
        "model": text("The model's name there"),
        "priority": { "type": "integer", "default": 0, "description": "Higher goes first" },
        "weight": with_default(integer(1, "Share inside the priority"), json!(1)),
    });
    let chain = list(code("An alias"), "Tried in order");
    let fallbacks = json!({
        "error": chain,
        "rate_limited": chain,
        "context_window": chain,
        "content_policy": chain,
        "timeout": chain,
    });
    let retry = json!({
        "max_attempts": integer(1, "Attempts over all candidates"),
        "deadline_ms": integer(1, "From admission to the answer's end"),
    });
    json!({
        "kind": word(KINDS, "Which endpoints serve it"),
        "routes": list(object(&route, &["channel", "model"]), "At least one"),
        "fallbacks": object(&fallbacks, &[]),
        "retry": with_default(object(&retry, &[]), json!(RetryBudget::default())),
    })
}

fn price() -> Value {
    let meters: Vec<&str> = Meter::ALL.iter().map(|meter| meter.name()).collect();
    let when = json!({
        "input_tokens_over": integer(0, "The whole prompt is longer than this"),
        "service_tier": text("The tier that the provider reported back"),
    });
    let meter = json!({
        "meter": word(&meters, "What is counted"),
        "per": with_default(integer(1, "A power of ten up to 1000000000"), json!(1)),
        "amount": amount("For so many units"),
        "when": object(&when, &[]),
    });
    json!({
        "side": word(&["cost", "sale"], "Which book"),
        "channel": code("Cost only: the channel"),
        "model": text("Cost only: the upstream model"),
        "alias": code("Sale only: the alias"),
        "token_group": code("Sale only: for keys of this group; without, for all others"),
        "currency": currency(),
        "meters": list(object(&meter, &["meter", "amount"]), "At least one"),
    })
}

fn currency() -> Value {
    json!({ "type": "string", "pattern": "^[A-Z]{3}$" })
}

fn fx_rate() -> Value {
    json!({
        "from": currency(),
        "to": currency(),
        "rate": amount("How much of `to` one of `from` is"),
        "spread": with_default(amount("On top of the rate: `0.01` is one percent"), json!("0")),
    })
}

fn quota() -> Value {
    let raised = json!({
        "limit": { "anyOf": [integer(0, "A count"), amount("Cost only")] },
        "until": instant("From here on `limit` itself is in force again"),
    });
    let limit = json!({
        "kind": word(&["concurrency", "requests", "tokens", "cost"], "What is limited"),
        "count": word(&["input", "output", "total"], "Tokens only"),
        "window": word(&["1s", "1m", "1h", "1d", "1mo", "total"], "All but concurrency"),
        "limit": { "anyOf": [integer(0, "A count"), amount("Cost only")] },
        "burst": integer(1, "Requests only: how many may come at once"),
        "on_outage": with_default(word(&["share", "closed", "open"], "Alone"), json!("share")),
        "shadow": { "type": "boolean", "default": false,
            "description": "It counts what it would refuse, and refuses nothing" },
        "raised": object(&raised, &["limit", "until"]),
    });
    json!({ "limits": list(object(&limit, &["kind", "limit"]), "All of them hold together") })
}

fn queue_mode() -> Value {
    word(&["REJECT", "WAIT", "ASYNC"], "What happens over a limit")
}

fn token_group() -> Value {
    json!({
        "aliases": list(text("An alias, or `*`"), "What its keys may use"),
        "multiplier": with_default(amount("Factor on sale prices"), json!("1")),
        "quota": code("A quota"),
        "queue_mode": queue_mode(),
    })
}

fn app() -> Value {
    json!({
        "name": text("For people"),
        "currency": with_default(currency(), json!("USD")),
        "credit_limit": with_default(amount("How far below zero the wallet may go"), json!("0")),
        "time_zone": with_default(text("Where its days begin: `Europe/Berlin`"), json!("UTC")),
        "token_group": code("Default of its keys"),
        "quota": code("A quota"),
    })
}

fn key() -> Value {
    json!({
        "name": text("For people"),
        "token_group": code("Overrides the app's"),
        "quota": code("A quota, beside those of the app and the group"),
        "queue_mode": queue_mode(),
        "wait_timeout_ms": integer(0, "WAIT only: how long a call may wait"),
        "max_queue": integer(0, "WAIT only: how many may wait"),
        "expires_at": instant("The key is dead from here on"),
        "allowed_ips": list(text("An address or a CIDR block"), "Who may use it; empty is all"),
        "caller_trace": json!({
            "type": "boolean",
            "description": "Whether `x-anima-trace` is answered; overrides the setting",
        }),
    })
}
