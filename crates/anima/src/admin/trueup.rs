//! Late usage: what a provider reports about the calls of a request after it was settled.
//!
//! A report names attempts and says for each what it consumed, or what it costs. The cost becomes
//! confirmed, up or down; where usage of what was sold is reported, the customer gets back what was
//! charged too much, and is charged more only within `sale_trueup_window_ms` after the settlement,
//! which by default is never. Attempts that it does not name stay as they are.
//! Invariant: one report is posted once per idempotency key. Source: `reliability` 1.6, row 15.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use anima_core::ledger::{Attempt, AttemptCost, Close, Settlement, fx};
use anima_core::money::{Money, Multiplier};
use anima_core::pricing::PriceList;
use anima_core::usage::{Usage, UsageSource};
use anima_store::config::Actor;
use anima_store::ledger::money::Request;
use anima_store::ledger::{Correction, Error as LedgerError, SaleCorrection};

use super::Admin;
use super::apps::{Moved, Noted, check_key, check_reference, note, subject};
use super::books::request_id;
use super::problem::{Code, Problem};
use super::typed::typed;

/// The payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    attempts: Vec<Reported>,
    reason: String,
    #[serde(default)]
    reference: String,
}

/// What is reported of one attempt: its usage or its cost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reported {
    n: i16,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    cost: Option<String>,
}

/// How a sale is corrected.
struct Sale {
    close: Close,
    conversion: Option<fx::Conversion>,
    correction: SaleCorrection,
}

/// Without a report of what was sold.
const KEPT: Sale =
    Sale { close: Close::Release, conversion: None, correction: SaleCorrection::Keep };

/// Books a provider's report about a request.
///
/// # Errors
/// No such request that is over; a bad member or key; a price that cannot be read; the key used
/// before with another body; or the ledger's.
pub(crate) async fn true_up(
    admin: &Admin,
    actor: &Actor,
    id: &str,
    key: &str,
    body: Value,
) -> Result<Moved, Problem> {
    check_key(key)?;
    let payload: Payload = typed(body)?;
    let id = request_id(id)?;
    check(&payload)?;
    let request = admin.stores.money.request(id).await?;
    let request = request.ok_or_else(|| Problem::not_found("settled request"))?;
    let (mut attempts, mut sale) = (Vec::new(), KEPT);
    for (at, reported) in payload.attempts.iter().enumerate() {
        let member = format!("attempts[{at}]");
        attempts.push(booked(admin, &request, reported, &member).await?);
        let served = attempts.last().is_some_and(|attempt| attempt.served);
        if let (true, true, Some(usage)) = (request.is_sold, served, &reported.usage) {
            sale = sold(admin, &request, (usage, reported.service_tier.as_deref())).await?;
        }
    }
    let reference = match payload.reference.as_str() {
        "" => payload.reason.clone(),
        reference => format!("{reference}: {}", payload.reason),
    };
    let correction = Correction {
        settlement: Settlement {
            hold: id,
            app: request.app.clone(),
            currency: request.currency,
            close: sale.close,
            sale_price: request.sale_price.clone(),
            conversion: sale.conversion,
            attempts: attempts.clone(),
            at: admin.clock.now(),
        },
        sale: sale.correction,
        report: Some(subject("true_up", &id.simple().to_string(), key)),
        reference: reference.clone(),
    };
    let done = admin.stores.ledger.true_up(correction).await.map_err(|error| {
        if error == LedgerError::Fenced {
            let message = "the request is being settled, try again";
            return Problem::new(Code::ServiceUnavailable, message);
        }
        error.into()
    })?;
    let request_id = format!("req_{}", id.simple());
    let money = |units| Money::new(units, request.currency).to_string();
    let body = json!({
        "id": done.journal,
        "request_id": request_id,
        "app": request.app,
        "given_back": money(done.given_back.max(0)),
        "charged_more": money(done.given_back.min(0).saturating_neg()),
        "currency": request.currency.code(),
        "attempts": attempts.iter().map(shown).collect::<Vec<_>>(),
        "reference": reference,
        "replayed": done.replayed,
    });
    let what = Noted { action: "true_up", resource: "request", code: &request_id };
    note(admin, actor, what, Some(payload.reason), body.clone()).await?;
    Ok(Moved { body, replayed: done.replayed })
}

fn check(payload: &Payload) -> Result<(), Problem> {
    if payload.reason.trim().is_empty() {
        return Err(Problem::member(Code::InvalidMember, "reason", "says why; it is required"));
    }
    check_reference(&payload.reference)?;
    if payload.attempts.is_empty() {
        return Err(Problem::invalid("attempts", "at least one attempt"));
    }
    let mut seen = BTreeSet::new();
    for (at, reported) in payload.attempts.iter().enumerate() {
        if !seen.insert(reported.n) {
            return Err(Problem::invalid(format!("attempts[{at}].n"), "each attempt once"));
        }
        if reported.usage.is_some() == reported.cost.is_some() {
            let detail = "expected `usage` or `cost`, and not both";
            let member = format!("attempts[{at}]");
            return Err(Problem::member(Code::InvalidMember, member, detail));
        }
    }
    Ok(())
}

/// The attempt with the cost that is reported.
async fn booked(
    admin: &Admin,
    request: &Request,
    reported: &Reported,
    member: &str,
) -> Result<Attempt, Problem> {
    let attempt = request.attempts.iter().find(|attempt| attempt.n == reported.n);
    let Some(attempt) = attempt else {
        return Err(Problem::invalid(format!("{member}.n"), "an attempt of the request"));
    };
    let Some(before) = &attempt.cost else {
        let detail = "the attempt was booked without a cost: it has no price to correct it by";
        return Err(Problem::member(Code::InvalidMember, format!("{member}.n"), detail));
    };
    let (amount, estimate) = match (&reported.usage, &reported.cost) {
        (Some(usage), _) => {
            let list = list(admin, &before.price.code, before.price.version_no).await?;
            let tier = reported.service_tier.as_deref();
            charged(&list, usage, (tier, Multiplier::ONE), &format!("{member}.usage"))?
        }
        (None, cost) => {
            let text = cost.as_deref().unwrap_or_default();
            let amount = Money::parse(text, before.currency).ok().filter(|m| m.units >= 0);
            let expected = "a decimal in a string, 0 or above, in the attempt's currency";
            let member = format!("{member}.cost");
            (amount.ok_or_else(|| Problem::invalid(member, expected))?.units, false)
        }
    };
    let cost = Some(AttemptCost { amount, estimate, ..before.clone() });
    // What the correction rests on is kept with it; a cost that is told alone rests on no usage.
    let usage_source = reported.usage.map_or(UsageSource::None, |_| UsageSource::Provider);
    let usage = reported.usage.unwrap_or_default();
    Ok(Attempt { cost, usage, usage_source, ..attempt.clone() })
}

/// What the customer owes for what is reported of what was sold.
async fn sold(
    admin: &Admin,
    request: &Request,
    (usage, tier): (&Usage, Option<&str>),
) -> Result<Sale, Problem> {
    let price = &request.sale_price;
    let list = list(admin, &price.code, price.version_no).await?;
    let (units, estimate) = charged(&list, usage, (tier, request.multiplier), "attempts")?;
    let correction = way(admin, request);
    if list.currency == request.currency {
        let close = Close::Settle { sale: units, estimate };
        return Ok(Sale { close, conversion: None, correction });
    }
    let rate = match &request.fx {
        Some(rate) => admin.live.fx_rate(rate).await?,
        None => None,
    };
    // Without the rate nobody can say what was too much, and the key must not be used up for less.
    let detail = "the rate that the request pinned cannot be read: report the cost instead";
    let rate = rate.ok_or_else(|| Problem::new(Code::UnknownReference, detail))?;
    let converted = rate.convert(units);
    let converted = converted.map_err(|_wide| Problem::invalid("attempts", "usage that fits"))?;
    let close = Close::Settle { sale: converted.owed, estimate };
    Ok(Sale { close, conversion: Some(rate.conversion(units, converted)), correction })
}

/// Which way the charge may be corrected now.
fn way(admin: &Admin, request: &Request) -> SaleCorrection {
    let window_ms = i64::try_from(admin.sale_trueup_window_ms).unwrap_or(i64::MAX);
    let since_ms = admin.clock.now().millis().saturating_sub(request.closed_at.millis());
    // The database's clock says when it was closed: it may be ahead of ours.
    if window_ms > 0 && since_ms < window_ms {
        SaleCorrection::BothWays
    } else {
        SaleCorrection::DownOnly
    }
}

async fn list(admin: &Admin, code: &str, version_no: i64) -> Result<PriceList, Problem> {
    let list = admin.live.price(code, version_no).await?;
    let detail = "the price that the request pinned cannot be read: report the cost instead";
    list.ok_or_else(|| Problem::new(Code::UnknownReference, detail))
}

/// The amount, and whether a rate stood in for another one.
fn charged(
    list: &PriceList,
    usage: &Usage,
    (tier, multiplier): (Option<&str>, Multiplier),
    member: &str,
) -> Result<(i64, bool), Problem> {
    match list.charge(usage, tier, multiplier) {
        Ok(charge) => Ok((charge.units, charge.stood_in)),
        Err(error) => {
            let detail = format!("cannot be priced: {error}");
            Err(Problem::member(Code::InvalidMember, member, detail))
        }
    }
}

fn shown(attempt: &Attempt) -> Value {
    let cost = attempt.cost.as_ref();
    json!({
        "n": attempt.n,
        "channel": attempt.channel,
        "model": attempt.model,
        "cost": cost.map(|cost| Money::new(cost.amount, cost.currency).to_string()),
        "currency": cost.map(|cost| cost.currency.code()),
        "estimate": cost.is_some_and(|cost| cost.estimate),
    })
}
