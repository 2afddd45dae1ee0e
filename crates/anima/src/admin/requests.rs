//! All that is known of one request: how it was routed, from its decision record; what was held,
//! charged and booked, from the ledger.
//!
//! Read only. A request that left no record (a plain one above the rate, one that is still running,
//! one whose node died) shows what the ledger has. Invariant: every amount comes from the ledger.

use serde_json::{Map, Value, json};

use anima_core::money::{Currency, Money, Multiplier};
use anima_store::ledger::money::{Named, Story, StoryAttempt};

use super::Admin;
use super::books::{request_id, show_posting};
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;

/// One request.
///
/// # Errors
/// A bad id, one that nothing is known of, or the database's.
pub(crate) async fn read(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let id = request_id(&call.names.code)?;
    let record = admin.records.read(id).await?;
    let story = admin.stores.money.story(id).await?;
    let postings = admin.stores.ledger.postings(id).await?;
    if record.is_none() && story.is_none() && postings.is_empty() {
        let detail = "nothing is known of this request: it never was, or its record has expired";
        return Err(Problem::new(Code::NotFound, detail));
    }
    let mut shown = record.as_deref().map_or_else(|| unrecorded(story.as_ref()), recorded);
    shown.insert("request_id".to_owned(), json!(format!("req_{}", id.simple())));
    shown.insert("recorded".to_owned(), json!(record.is_some()));
    let attempts = shown.remove("attempts").unwrap_or_default();
    shown.insert("attempts".to_owned(), attempts_with_cost(attempts, story.as_ref()));
    shown.insert("hold".to_owned(), story.as_ref().map_or(Value::Null, hold));
    shown.insert("postings".to_owned(), postings.iter().map(show_posting).collect());
    Ok(Reply::ok(Value::Object(shown)))
}

fn recorded(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// The members of a record, as far as the ledger knows them.
fn unrecorded(story: Option<&Story>) -> Map<String, Value> {
    let served = story.and_then(|story| story.attempts.iter().find(|attempt| attempt.served));
    let shown = json!({
        "at": story.map(|story| story.created_at),
        "node": null,
        "app": story.map(|story| &story.app),
        "key": story.map(|story| &story.kid),
        "alias": story.map(|story| &story.alias),
        "endpoint": null,
        "stream": null,
        "outcome": served.map(|attempt| &attempt.outcome),
        "status": null,
        "message": null,
        "config_version": null,
        "total_ms": null,
        "first_byte_ms": null,
        "overhead_us": null,
        "queue_wait_ms": null,
        "output_limit": null,
        "limits": [],
        "candidates": [],
        "skips": [],
        "attempts": [],
        "last_resort": null,
        "fallback": null,
    });
    shown.as_object().cloned().unwrap_or_default()
}

/// The attempts of a record with what the ledger says of each, and those that only it knows.
fn attempts_with_cost(recorded: Value, story: Option<&Story>) -> Value {
    let Value::Array(mut shown) = recorded else { return json!([]) };
    for booked in story.into_iter().flat_map(|story| &story.attempts) {
        let known = shown.iter_mut().find(|attempt| attempt["n"] == json!(booked.n));
        if let Some(known) = known {
            merge(known, money_of(booked));
        } else {
            let mut unknown = bare(booked);
            merge(&mut unknown, money_of(booked));
            shown.push(unknown);
        }
    }
    Value::Array(shown)
}

fn merge(into: &mut Value, members: Value) {
    if let (Value::Object(into), Value::Object(members)) = (into, members) {
        into.extend(members);
    }
}

/// An attempt that no record tells of.
fn bare(booked: &StoryAttempt) -> Value {
    let ms = |micros: i64| micros.div_euclid(1_000);
    let began = booked.started_at;
    json!({
        "n": booked.n,
        "channel": booked.channel,
        "credential": booked.credential,
        "model": booked.model,
        "started_at": began,
        "first_byte_ms": booked.first_byte_at.map(|at| ms(at.since(began))),
        "duration_ms": ms(booked.ended_at.since(began)),
        "outcome": booked.outcome,
    })
}

/// What an attempt came to.
fn money_of(booked: &StoryAttempt) -> Value {
    let cost = booked.cost.as_ref().map(|cost| {
        json!({
            "amount": text(cost.amount, cost.currency),
            "currency": cost.currency,
            "price": price(&cost.price),
            "estimate": cost.estimate,
        })
    });
    json!({
        "served": booked.served,
        "usage": serde_json::from_str::<Value>(&booked.usage).unwrap_or_default(),
        "usage_source": booked.usage_source,
        "cost": cost,
        "upstream_ref": booked.upstream_ref,
    })
}

fn hold(story: &Story) -> Value {
    let amount = |units| text(units, story.currency);
    json!({
        "state": story.state.to_ascii_lowercase(),
        "currency": story.currency,
        "held": amount(story.held),
        "charged": story.charged.map(amount),
        "uncollected": amount(story.uncollected),
        "sale_price": price(&story.sale_price),
        "fx_rate": story.fx.as_ref().map(price),
        "multiplier": factor(story.multiplier),
        "created_at": story.created_at,
        "closed_at": story.closed_at,
    })
}

fn price((code, version_no): &Named) -> Value {
    json!({ "code": code, "version_no": version_no })
}

fn text(units: i64, currency: Currency) -> String {
    Money::new(units, currency).to_string()
}

/// A factor as it is written in a configuration.
fn factor(multiplier: Multiplier) -> String {
    let ppm = multiplier.ppm();
    let exact = format!("{}.{:06}", ppm / 1_000_000, ppm % 1_000_000);
    exact.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_written_as_they_are_read() {
        for text in ["1", "0.5", "1.25", "10", "0.000001"] {
            assert_eq!(factor(Multiplier::parse(text).unwrap()), text);
        }
    }
}
