//! What providers are owed, and what calls earn.
//!
//! Read only. Amounts are decimal strings in their currency, and currencies are never added up.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use anima_core::clock::Timestamp;
use anima_core::money::{Currency, Money};
use anima_store::ledger::money::{
    Age, Estimate, EstimatedDay, EstimatesOf, MarginLine, MarginOf, Payable,
};

use super::Admin;
use super::books::request_id;
use super::call::Call;
use super::invoices::{day_of, day_text, start_of};
use super::problem::{Code, Problem};
use super::reply::Reply;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// What margins may be grouped by. Always by currency, too.
const GROUPS: &[&str] = &["channel", "model", "alias", "app", "day"];

fn text(units: i64, currency: Currency) -> String {
    Money::new(units, currency).to_string()
}

/// What we owe each provider.
///
/// # Errors
/// A query, or the ledger's.
pub(crate) async fn payables(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let payables = admin.stores.money.payables(admin.clock.now()).await?;
    Ok(Reply::page(payables.iter().map(show_payable).collect(), Value::Null))
}

fn show_payable(payable: &Payable) -> Value {
    let age = |age: Age| {
        json!({
            "total": text(age.all(), payable.currency),
            "days_0_1": text(age.new, payable.currency),
            "days_2_7": text(age.week, payable.currency),
            "days_8_30": text(age.month, payable.currency),
            "older": text(age.older, payable.currency),
        })
    };
    json!({
        "channel": payable.channel,
        "currency": payable.currency.code(),
        "confirmed": age(payable.confirmed),
        "estimated": age(payable.estimated),
    })
}

/// The oldest costs that rest on our own estimate, call by call or by day.
///
/// # Errors
/// A bad query, or the ledger's.
pub(crate) async fn estimates(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["channel", "from", "to", "by", "limit"])?;
    let day = |name: &'static str| {
        let text = call.query.get(name);
        let day = |text: &String| {
            day_of(text).ok_or_else(|| Problem::invalid(name, "a day such as 2026-01-31"))
        };
        text.map(day).transpose()
    };
    let of = EstimatesOf {
        channel: call.query.get("channel").cloned(),
        currency: None,
        from: day("from")?.map(start_of),
        to: day("to")?.map(|day| start_of(day.saturating_add(1))),
        limit: call.limit()?,
    };
    let items = match call.query.get("by").map(String::as_str) {
        None | Some("call") => {
            let estimates = admin.stores.money.estimates(of).await?;
            estimates.iter().map(show_estimate).collect()
        }
        Some("day") => {
            let days = admin.stores.money.estimated_days(of).await?;
            days.iter().map(show_estimated_day).collect()
        }
        Some(_) => return Err(Problem::invalid("by", "`call` or `day`")),
    };
    Ok(Reply::page(items, Value::Null))
}

fn show_estimated_day(of: &EstimatedDay) -> Value {
    json!({
        "channel": of.channel,
        "currency": of.currency.code(),
        "day": day_text(of.day),
        "calls": of.calls,
        "amount": text(of.amount, of.currency),
    })
}

fn show_estimate(estimate: &Estimate) -> Value {
    json!({
        "request_id": format!("req_{}", estimate.request.simple()),
        "attempt": estimate.attempt,
        "channel": estimate.channel,
        "model": estimate.model,
        "amount": text(estimate.amount, estimate.currency),
        "currency": estimate.currency.code(),
        "posted_at": estimate.posted_at,
    })
}

/// What calls earned: one request's, or those posted in a period, grouped.
///
/// # Errors
/// A bad query, or the ledger's.
pub(crate) async fn margin(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["request_id", "from", "to", "group_by"])?;
    let of = match call.query.get("request_id") {
        Some(text) => MarginOf::Request(request_id(text)?),
        None => MarginOf::Posted(instant(call, "from")?, instant(call, "to")?),
    };
    let groups = groups(call)?;
    let lines = admin.stores.money.margin(of).await?;
    let mut sums: BTreeMap<Vec<String>, MarginLine> = BTreeMap::new();
    for line in lines {
        let mut key: Vec<String> = groups.iter().map(|group| part(&line, group)).collect();
        key.push(line.currency.code().to_owned());
        match sums.get_mut(&key) {
            Some(sum) => add(sum, &line),
            None => {
                sums.insert(key, line);
            }
        }
    }
    let items = sums.values().map(|line| show_margin(line, &groups)).collect();
    Ok(Reply::page(items, Value::Null))
}

fn instant(call: &Call, name: &str) -> Result<Timestamp, Problem> {
    let Some(text) = call.query.get(name) else {
        let detail = "is required, unless `request_id` is given";
        return Err(Problem::member(Code::InvalidMember, name, detail));
    };
    let instant = Timestamp::parse(text);
    instant.ok_or_else(|| Problem::invalid(name, "an RFC 3339 time such as 2026-01-31T00:00:00Z"))
}

fn groups(call: &Call) -> Result<Vec<&'static str>, Problem> {
    let text = call.query.get("group_by").map_or("channel,model,day", String::as_str);
    let names = text.split(',').filter(|name| !name.is_empty());
    let known = names.map(|name| GROUPS.iter().copied().find(|group| *group == name));
    let known: Option<Vec<_>> = known.collect();
    known.ok_or_else(|| Problem::invalid("group_by", "of channel, model, alias, app, day"))
}

fn part(line: &MarginLine, group: &str) -> String {
    match group {
        "channel" => line.channel.clone(),
        "model" => line.model.clone(),
        "alias" => line.alias.clone(),
        "app" => line.app.clone(),
        _ => {
            let day = Timestamp::from_micros(line.day.saturating_mul(DAY_US)).to_string();
            day.split('T').next().unwrap_or_default().to_owned()
        }
    }
}

const fn add(sum: &mut MarginLine, line: &MarginLine) {
    sum.revenue = sum.revenue.saturating_add(line.revenue);
    sum.refunds = sum.refunds.saturating_add(line.refunds);
    sum.cost = sum.cost.saturating_add(line.cost);
    sum.waste = sum.waste.saturating_add(line.waste);
    sum.uncollected = sum.uncollected.saturating_add(line.uncollected);
    sum.fx = sum.fx.saturating_add(line.fx);
    sum.sales = sum.sales.saturating_add(line.sales);
}

fn show_margin(line: &MarginLine, groups: &[&str]) -> Value {
    let mut shown: Map<String, Value> =
        groups.iter().map(|group| ((*group).to_owned(), json!(part(line, group)))).collect();
    let currency = line.currency;
    for (name, units) in [
        ("revenue", line.revenue),
        ("refunds", line.refunds),
        ("cost", line.cost),
        ("waste", line.waste),
        ("uncollected", line.uncollected),
        ("fx", line.fx),
        ("margin", line.margin()),
    ] {
        shown.insert(name.to_owned(), json!(text(units, currency)));
    }
    shown.insert("currency".to_owned(), json!(currency.code()));
    shown.insert("sales".to_owned(), json!(line.sales));
    Value::Object(shown)
}
