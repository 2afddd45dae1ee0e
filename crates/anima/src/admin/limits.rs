//! How far the limits of a key are used, and which calls wait, as an operator reads them.
//!
//! Read only, from the counters that calls are judged by. Not here: the quotas themselves.

use std::sync::Arc;

use serde_json::{Value, json};

use anima_core::clock::Timestamp;
use anima_core::config::{LimitKind, TokenCount, Window};
use anima_core::failure::Failure;
use anima_core::money::{Currency, Money};
use anima_core::quota::{Check, Tag};

use super::Admin;
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;
use crate::http::caller;
use crate::relay::admission::Admission;
use crate::relay::admission::report::{self, Usage};

/// Where every limit of a key stands, those of its app and its token group among them.
///
/// # Errors
/// A bad query, a key that does not exist or is not in force, counters that do not answer.
pub(crate) async fn of_key(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let now = admin.clock.now();
    let missing = || Problem::new(Code::NotFound, "there is no such key");
    let unavailable = |detail: &str| Problem::new(Code::ServiceUnavailable, detail);
    let kid: Arc<str> = call.names.code.as_str().into();
    let found = admin.live.key(&kid).await;
    let record = found.map_err(|_logged| unavailable("keys cannot be read at the moment"))?;
    let record = record.ok_or_else(missing)?;
    let app = record.app.iter().find(|version| version.is_effective(now)).ok_or_else(missing)?;
    if Some(app.code.as_str()) != call.names.app.as_deref() {
        return Err(missing());
    }
    let terms = caller::terms(&admin.live, now, &kid).await;
    let terms = terms.map_err(|refusal| {
        let is_away = refusal.failure == Failure::ServiceUnavailable;
        let code = if is_away { Code::ServiceUnavailable } else { Code::NotFound };
        Problem::new(code, refusal.message)
    })?;
    let currency = app.body.currency;
    let usage = report::usage(serving(admin)?, &terms, currency).await;
    let usage = usage.map_err(|_logged| unavailable("counters cannot be read at the moment"))?;
    let items = usage.iter().map(|usage| shown(usage, (now, currency)));
    Ok(Reply::page(items.collect(), Value::Null))
}

/// Which calls wait: on all nodes where they share their counters, else on the one that answers.
///
/// # Errors
/// A bad query, counters that do not answer.
pub(crate) async fn queues(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let now = admin.clock.now();
    let node = admin.nodes.own().id;
    let waiting = report::waiting(serving(admin)?).await.map_err(|_logged| {
        Problem::new(Code::ServiceUnavailable, "lines cannot be read at the moment")
    })?;
    let items = waiting.into_iter().map(|waits| {
        let (scope, code) = match &waits.tag {
            Tag::App(code) => ("app", code),
            Tag::TokenGroup(code) => ("token_group", code),
            Tag::Channel(code) => ("channel", code),
        };
        let of = &waits.of;
        let turns = i64::try_from(of.calls).unwrap_or(i64::MAX).saturating_add(1);
        json!({
            "node": (!waits.shared).then_some(&node),
            "scope": scope,
            "code": &**code,
            "key": &*of.tenant,
            "waiting": of.calls,
            "oldest_ms": now.micros().saturating_sub(of.since_us).max(0) / 1_000,
            "expected_wait_ms": of.pace_us.map(|us| us.saturating_mul(turns) / 1_000),
        })
    });
    Ok(Reply::page(items.collect(), Value::Null))
}

fn serving(admin: &Admin) -> Result<&Admission, Problem> {
    let missing = || Problem::new(Code::ServiceUnavailable, "this process serves no calls");
    admin.limits.as_deref().ok_or_else(missing)
}

fn shown(usage: &Usage, (now, currency): (Timestamp, Currency)) -> Value {
    let (bound, level) = (&usage.bound, usage.level);
    let rule = bound.counter.rule;
    let (limit, most) = match bound.check {
        Check::Slots { limit } | Check::Purse { limit, .. } => (limit, limit),
        Check::Rate(rate) => (rate.limit, rate.burst),
    };
    let amount = |units: i64| match rule.kind {
        LimitKind::Cost => json!(Money::new(units, currency).to_string()),
        LimitKind::Concurrency | LimitKind::Requests | LimitKind::Tokens => json!(units),
    };
    let resets_us = level.map_or(0, |level| level.reset_us);
    let resets_at = Timestamp::from_micros(now.micros().saturating_add(resets_us));
    json!({
        "scope": bound.counter.scope.word(),
        "code": &*bound.counter.code,
        "kind": rule.kind.word(),
        "count": rule.count.map(TokenCount::word),
        "window": rule.window.map(Window::word),
        "shadow": rule.shadow,
        "limit": amount(limit),
        "used": level.map(|level| amount(level.used)),
        "held": level.map(|level| amount(level.held)),
        "remaining": level.map(|level| amount(most.saturating_sub(level.used).max(0))),
        "resets_at": (resets_us > 0).then_some(resets_at),
    })
}
