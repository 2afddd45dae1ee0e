//! Clears estimated costs in bulk: what a provider's invoice says of all calls of a period for
//! which it reported nothing when they were made.
//!
//! Each request is corrected as by a report about its attempts (`trueup`), but for the sale, which
//! stays. The reference names the report: what it has cleared is open no more, so that the same
//! request again, after an error or when more was open than one takes, goes on where it ended.
//! Invariant: one report is posted once about one request.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Attempt, AttemptCost, Close, Settlement};
use anima_core::money::{Currency, Money};
use anima_store::ledger::money::{Estimate, EstimatesOf};
use anima_store::ledger::{Correction, Error as LedgerError, SaleCorrection};

use super::Admin;
use super::apps::{Noted, check_reference, note, subject};
use super::call::Call;
use super::invoices::{day_of, start_of};
use super::problem::{Code, Problem};
use super::reply::Reply;
use super::typed::typed;

/// Upstream calls that one request clears at most: a few seconds of work.
const CLEARED_MAX: u32 = 1_000;

/// The payload. Both days are of the period, by when a call began.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    channel: String,
    currency: Currency,
    from: String,
    to: String,
    billed: Billed,
    reference: String,
    reason: String,
}

/// What the provider charges for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Billed {
    /// What we estimated.
    AsEstimated,
    /// Nothing: the estimate is taken back.
    Nothing,
}

/// What was cleared.
#[derive(Debug, Default)]
struct Cleared {
    calls: u64,
    amount: i128,
    /// Nothing stays that could be cleared.
    is_all: bool,
}

/// Clears a period's estimates of one channel.
///
/// # Errors
/// A bad member; or the ledger's, when nothing was cleared.
pub(crate) async fn clear(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let payload: Payload = typed(Value::Object(call.object()?))?;
    let (from, to) = checked(&payload)?;
    let wanted = EstimatesOf {
        channel: Some(payload.channel.clone()),
        currency: Some(payload.currency),
        from: Some(from),
        to: Some(to),
        limit: CLEARED_MAX,
    };
    let open = admin.stores.money.estimates(wanted).await?;
    let cleared = clear_all(admin, &payload, open).await?;
    let body = json!({
        "channel": payload.channel,
        "currency": payload.currency.code(),
        "from": payload.from,
        "to": payload.to,
        "billed": if payload.billed == Billed::Nothing { "nothing" } else { "as_estimated" },
        "reference": payload.reference,
        "cleared": cleared.calls,
        "amount": i64::try_from(cleared.amount).ok()
            .map(|units| Money::new(units, payload.currency).to_string()),
        "is_all": cleared.is_all,
    });
    if cleared.calls > 0 {
        let what = Noted { action: "clear_estimates", resource: "channel", code: &payload.channel };
        note(admin, &call.caller.actor, what, Some(payload.reason), body.clone()).await?;
    }
    Ok(Reply::ok(body))
}

/// The start of the first day, and of the day after the last one.
fn checked(payload: &Payload) -> Result<(Timestamp, Timestamp), Problem> {
    check_reference(&payload.reference)?;
    if payload.reference.trim().is_empty() {
        return Err(Problem::invalid("reference", "the number of the invoice or report"));
    }
    if payload.reason.trim().is_empty() {
        return Err(Problem::member(Code::InvalidMember, "reason", "says why; it is required"));
    }
    let day = |member: &'static str, text: &str| {
        day_of(text).ok_or_else(|| Problem::invalid(member, "a day such as 2026-01-31"))
    };
    let (from, to) = (day("from", &payload.from)?, day("to", &payload.to)?);
    if to < from {
        return Err(Problem::invalid("to", "a day that is not before `from`"));
    }
    Ok((start_of(from), start_of(to.saturating_add(1))))
}

/// Corrects request by request. An error ends it; what was cleared before it stays.
async fn clear_all(
    admin: &Admin,
    payload: &Payload,
    open: Vec<Estimate>,
) -> Result<Cleared, Problem> {
    let is_all = u32::try_from(open.len()).is_ok_and(|count| count < CLEARED_MAX);
    let mut cleared = Cleared { is_all, ..Cleared::default() };
    let mut requests: BTreeMap<Uuid, Vec<Estimate>> = BTreeMap::new();
    for estimate in open.into_iter().filter(|estimate| estimate.attempt.is_some()) {
        requests.entry(estimate.request).or_default().push(estimate);
    }
    for (id, estimates) in requests {
        match clear_one(admin, payload, id, &estimates).await {
            Ok(true) => {
                cleared.calls = cleared.calls.saturating_add(estimates.len() as u64);
                let amounts = estimates.iter().map(|estimate| i128::from(estimate.amount));
                cleared.amount = cleared.amount.saturating_add(amounts.sum());
            }
            Ok(false) => cleared.is_all = false,
            Err(error) if cleared.calls == 0 => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "estimates are left that could not be cleared");
                cleared.is_all = false;
                break;
            }
        }
    }
    Ok(cleared)
}

/// Whether a request's estimates are cleared; `false` while something else is posted about it.
async fn clear_one(
    admin: &Admin,
    payload: &Payload,
    id: Uuid,
    estimates: &[Estimate],
) -> Result<bool, Problem> {
    let Some(request) = admin.stores.money.request(id).await? else { return Ok(false) };
    let told = |attempt: &Attempt| {
        let estimate = estimates.iter().find(|e| e.attempt == Some(attempt.n))?;
        let before = attempt.cost.as_ref().filter(|cost| cost.currency == estimate.currency)?;
        let amount = if payload.billed == Billed::Nothing { 0 } else { estimate.amount };
        let cost = Some(AttemptCost { amount, estimate: false, ..before.clone() });
        Some(Attempt { cost, ..attempt.clone() })
    };
    let attempts: Vec<_> = request.attempts.iter().filter_map(told).collect();
    if attempts.len() != estimates.len() {
        return Ok(false);
    }
    let settlement = Settlement {
        hold: id,
        app: request.app,
        currency: request.currency,
        close: Close::Release,
        sale_price: request.sale_price,
        conversion: None,
        attempts,
        at: admin.clock.now(),
    };
    // What one report names of one request: the day may end between two of its attempts.
    let names = estimates.iter().filter_map(|e| e.attempt).map(|n| format!("/{n}"));
    let about = format!("{}{}", id.simple(), names.collect::<String>());
    let correction = Correction {
        settlement,
        sale: SaleCorrection::Keep,
        report: Some(subject("clear_estimates", &about, &payload.reference)),
        reference: format!("{}: {}", payload.reference, payload.reason),
    };
    match admin.stores.ledger.true_up(correction).await {
        Ok(_) => Ok(true),
        Err(LedgerError::Fenced) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
