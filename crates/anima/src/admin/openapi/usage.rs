//! Usage in the document: what it is asked with and what a line shows.
//!
//! Invariant: the members are those that `admin::usage` writes.

use serde_json::{Value, json};

use anima_core::usage::Meter;

use super::query;
use super::schemas::{self, amount, instant, integer, nullable, text};

/// What may be asked.
pub(super) fn parameters(limit: &Value, moment: &Value) -> [Value; 10] {
    let word = json!({ "type": "string" });
    let groups = "Some of `channel,model,alias,app,key` and at most one of `hour,day,month` (UTC), \
        with commas between; one line for each currency without";
    let from = "Of calls that were admitted from here on; 30 days before `to` when absent, at \
        most 366 before it, by the hour 31";
    [
        query("group_by", &word, false, groups),
        query("from", moment, false, from),
        query("to", moment, false, "Of calls that were admitted before here; now when absent"),
        query("channel", &word, false, "Of this channel"),
        query("model", &word, false, "Of this upstream model"),
        query("alias", &word, false, "Of this alias"),
        query("app", &word, false, "Of this app"),
        query("key", &word, false, "Of this key, by its `kid`"),
        query("limit", limit, false, "Lines of a page"),
        query("after", &word, false, "`next` of the page before; it carries `from` and `to`"),
    ]
}

/// A page.
pub(super) fn page() -> Value {
    let mut page = schemas::page(&line());
    if let Some(Value::Object(members)) = page.get_mut("properties") {
        members.insert("from".to_owned(), instant("The period's first instant"));
        members.insert("to".to_owned(), instant("The period ends just before"));
    }
    if let Some(Value::Array(required)) = page.get_mut("required") {
        required.extend([json!("from"), json!("to")]);
    }
    page
}

fn meters(description: &str) -> Value {
    let names: Vec<&str> = Meter::ALL.iter().map(|meter| meter.name()).collect();
    json!({ "type": "object", "description": description,
        "propertyNames": { "enum": names },
        "additionalProperties": { "type": "integer" } })
}

fn line() -> Value {
    let groups = json!({
        "hour": text("Its start, such as `2026-01-31T13:00:00Z`"),
        "day": { "type": "string", "format": "date" },
        "month": text("Such as `2026-01`"),
        "channel": nullable(&text("Where it went; null where nothing was sent")),
        "model": nullable(&text("The upstream model; null where nothing was sent")),
        "alias": text("The alias that was asked for"),
        "app": text("Whose calls"),
        "key": text("The key's `kid`"),
    });
    let counts = json!({
        "requests": integer(0, "Calls that are over, each once: at the channel that answered, \
            else at the last that was tried"),
        "errors": integer(0, "What of them nobody answered"),
        "open": integer(0, "Calls that run; nothing else of them is counted yet"),
        "attempts": integer(0, "Upstream calls"),
        "failed_attempts": integer(0, "What of them answered nobody"),
        "estimated_attempts": integer(0, "What of them reported no usage, so that we counted"),
        "tokens": integer(0, "All tokens of prompts and answers in `meters`"),
        "meters": meters("Quantities of the upstream calls that answered, by meter"),
        "meters_estimated": meters("What of `meters` is our own count"),
        "meters_wasted": meters("Quantities of the upstream calls that answered nobody"),
    });
    let amounts = json!({
        "currency": text("ISO 4217; lines of different currencies are never added up"),
        "charge": amount("Taken from wallets and promotional credit, corrections included"),
        "refunds": amount("Given back by refunds"),
        "revenue": amount("Sales in their price's currency, collected or not"),
        "uncollected": amount("Of the sales, what no wallet covered"),
        "fx": amount("What conversions earned"),
        "cost": amount("All that providers charge, or may charge"),
        "cost_estimated": amount("Of the cost, what no provider has confirmed"),
        "cost_wasted": amount("Of the cost, that of upstream calls that answered nobody"),
        "margin": amount("revenue + fx - refunds - uncollected - cost"),
    });
    let mut members = groups;
    let mut required = Vec::new();
    for always in [counts, amounts] {
        if let (Value::Object(members), Value::Object(always)) = (&mut members, always) {
            required.extend(always.keys().cloned());
            members.extend(always);
        }
    }
    json!({ "type": "object", "properties": members, "required": required })
}
