//! The schema of what is known of one request.
//!
//! Invariant: the members are those that `crate::relay::decision` records and `super::requests`
//! adds.

use serde_json::{Value, json};

use super::schemas::{amount, instant, integer, list, nullable, text};

/// See the module.
pub(super) fn record() -> Value {
    let number = |description: &str| nullable(&integer(0, description));
    let word = |description: &str| nullable(&text(description));
    json!({
        "type": "object",
        "properties": {
            "request_id": text("`req_` and 32 hex digits"),
            "recorded": {
                "type": "boolean",
                "description": "Whether there is a decision record; if not, only what the ledger \
                    knows is shown",
            },
            "at": nullable(&instant("When it came")),
            "node": word("The process that served it"),
            "app": word("Whose"),
            "key": word("The key's public id"),
            "alias": word("What was asked for"),
            "endpoint": word("Short name of the endpoint"),
            "stream": { "type": ["boolean", "null"] },
            "outcome": word("`ok`, or the failure's reason"),
            "status": number("HTTP status"),
            "message": word("What the caller was told, where a limit or the gateway refused"),
            "config_version": number("The configuration that it was served under"),
            "total_ms": number("From the head to the end"),
            "first_byte_ms": number("From the head to the answer's first byte"),
            "overhead_us": number("Of that not waiting for a provider"),
            "queue_wait_ms": number("Waited for its turn"),
            "output_limit": number("What the output limit was lowered to"),
            "limits": list(limit(), "What it took of its limits"),
            "candidates": list(place(), "Where it could go, first choice first"),
            "skips": list(skip(), "Where it could not go"),
            "attempts": list(attempt(), "Its upstream calls"),
            "last_resort": { "type": ["boolean", "null"],
                "description": "Let through although every circuit was open" },
            "fallback": number("The alias of the chain that was tried last; 0 is the first"),
            "hold": nullable(&hold()),
            "postings": list(json!({ "type": "object" }), "As `/ledger/postings` lists them"),
        },
    })
}

fn limit() -> Value {
    json!({ "type": "object", "properties": {
        "quota": text("Code of the quota"),
        "scope": text("Whose it is"),
        "limit": text("The limit, such as `tokens:total:1m`"),
        "took": { "type": "integer", "description": "In what it counts; money in units" },
    }})
}

fn place() -> Value {
    json!({ "type": "object", "properties": place_members() })
}

fn place_members() -> Value {
    json!({
        "alias": text("Of the chain"),
        "channel": text("Its code"),
        "model": text("The provider's name of it"),
        "priority": { "type": "integer" },
        "weight": { "type": "integer" },
    })
}

fn skip() -> Value {
    let mut members = place_members();
    let own = json!({
        "reason": text("Why, as in `anima_route_skips_total`"),
        "until": nullable(&instant("When that may be over")),
        "circuit": { "type": "string", "enum": ["closed", "open", "half_open"],
            "description": "What its circuit did then" },
    });
    if let (Value::Object(members), Value::Object(own)) = (&mut members, own) {
        members.extend(own);
    }
    json!({ "type": "object", "properties": members })
}

fn price() -> Value {
    json!({ "type": "object", "properties": {
        "code": text("Of the price"),
        "version_no": super::schemas::version_no(),
    }})
}

fn attempt() -> Value {
    json!({ "type": "object", "properties": {
        "n": integer(1, "Counts up"),
        "alias": text("Of the chain"),
        "channel": text("Where it went"),
        "credential": text("With which credential"),
        "model": text("The provider's name of it"),
        "circuit": text("What the circuit did then"),
        "probe": { "type": "boolean", "description": "Whether it held a permit of it" },
        "started_at": instant("When it began"),
        "waited_ms": integer(0, "Waited for before it"),
        "first_byte_ms": nullable(&integer(0, "Until its first byte")),
        "duration_ms": nullable(&integer(0, "Until its end")),
        "outcome": text("`ok`, or the failure's reason"),
        "status": nullable(&integer(100, "The provider's HTTP status")),
        "retry_after_ms": nullable(&integer(0, "How long the provider asked to be left alone")),
        "circuit_change": nullable(&json!({ "type": "object", "properties": {
            "to": text("What the circuit is now"),
            "cause": text("Why"),
            "until": nullable(&instant("Until when it is open")),
        }})),
        "served": { "type": "boolean", "description": "It answered the caller" },
        "usage": { "type": "object", "description": "By meter" },
        "usage_source": text("Who counted"),
        "cost": nullable(&json!({ "type": "object", "properties": {
            "amount": amount("What it costs us"),
            "currency": text("ISO 4217"),
            "price": price(),
            "estimate": { "type": "boolean", "description": "It rests on our own count" },
        }})),
        "upstream_ref": nullable(&text("The provider's own id of it")),
    }})
}

fn hold() -> Value {
    json!({ "type": "object", "properties": {
        "state": { "type": "string", "enum": ["held", "settled", "released", "unknown"] },
        "currency": text("ISO 4217"),
        "held": amount("Reserved"),
        "charged": nullable(&amount("Taken from the wallet")),
        "uncollected": amount("Sold, but more than the wallet had"),
        "sale_price": price(),
        "fx_rate": nullable(&price()),
        "multiplier": text("The caller's factor on the sale price"),
        "created_at": instant("When it was held"),
        "closed_at": nullable(&instant("When it was settled or released")),
    }})
}
