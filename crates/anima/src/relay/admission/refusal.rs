//! Which limit stands in the way, in words for the caller.
//!
//! Invariant: a refusal names the limit, what it hangs on and when the call would pass; where it
//! never would, it says what to change. Source: `wire-conventions` 4.2 and 4.6.

use anima_core::config::{LimitKind, Window};
use anima_core::failure::Failure;
use anima_core::money::{Currency, Money};
use anima_core::quota::{Bound, Check, Pass, Scope, Standing};

use crate::http::reply::{LimitFact, Refusal};

/// Refuses a call for a bound. `free_ms`: when a slot is likely to be free.
pub(super) fn of(
    bound: &Bound,
    standing: &Standing,
    (currency, free_ms): (Currency, u64),
) -> Refusal {
    let rule = bound.counter.rule;
    let failure = match rule.kind {
        LimitKind::Concurrency => Failure::ConcurrencyLimited,
        LimitKind::Requests => Failure::RequestsLimited,
        LimitKind::Tokens => Failure::TokensLimited,
        LimitKind::Cost => Failure::BudgetExceeded,
    };
    let wait_ms = match standing.pass {
        Pass::Yes | Pass::Unseeded | Pass::Never => None,
        // Rounded up to the millisecond: earlier would be refused again.
        Pass::After(us) => u64::try_from(us).ok().map(|us| us.div_ceil(1_000)),
        Pass::WhenFree => Some(free_ms),
    };
    let amount = amount(bound, currency);
    let what = format!("The limit of {amount} of {}", hangs_on(bound.counter.scope));
    let message = match (wait_ms, rule.kind) {
        (Some(ms), LimitKind::Concurrency) => {
            format!("{what} is reached. Try again in about {} s.", seconds(ms))
        }
        (Some(ms), _) => format!("{what} is reached. Try again in {} s.", seconds(ms)),
        (None, LimitKind::Cost) => {
            format!("{what} is used up, or does not cover this call. Ask whoever issued the key.")
        }
        (None, LimitKind::Tokens) => format!(
            "{what} is less than this call may need, which is {} tokens. Shorten the prompt or \
             lower the output limit.",
            bound.units
        ),
        (None, LimitKind::Concurrency | LimitKind::Requests) => {
            format!("{what} lets no call pass. Ask whoever issued the key.")
        }
    };
    let mut refusal = Refusal::new(failure, message).limit(LimitFact {
        scope: bound.counter.scope.word(),
        code: std::sync::Arc::clone(&bound.counter.code),
        kind: rule.kind.word(),
        count: rule.count.map(anima_core::config::TokenCount::word),
        window: rule.window.map(Window::word),
        limit: limit_text(bound, currency),
    });
    refusal.retry_after_ms = wait_ms;
    refusal
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1_000) {
        (ms / 1_000).to_string()
    } else {
        format!("{}.{:03}", ms / 1_000, ms % 1_000)
    }
}

const fn hangs_on(scope: Scope) -> &'static str {
    match scope {
        Scope::Key => "this API key",
        Scope::App => "the app of this API key",
        Scope::TokenGroup => "the token group of this API key",
        Scope::Channel => "the channel",
    }
}

/// The limit's own number.
fn limit_text(bound: &Bound, currency: Currency) -> String {
    match bound.check {
        Check::Slots { limit } => limit.to_string(),
        Check::Rate(rate) => rate.limit.to_string(),
        Check::Purse { limit, .. } => Money::new(limit, currency).to_string(),
    }
}

/// Such as "20 requests per second".
fn amount(bound: &Bound, currency: Currency) -> String {
    let number = limit_text(bound, currency);
    let rule = bound.counter.rule;
    let things = match (rule.kind, rule.count.map(anima_core::config::TokenCount::word)) {
        (LimitKind::Concurrency, _) => return format!("{number} calls at a time"),
        (LimitKind::Requests, _) => "requests".to_owned(),
        (LimitKind::Tokens, Some("total") | None) => "tokens".to_owned(),
        (LimitKind::Tokens, Some(count)) => format!("{count} tokens"),
        (LimitKind::Cost, _) => currency.to_string(),
    };
    let per = match rule.window {
        Some(Window::Second) => " per second",
        Some(Window::Minute) => " per minute",
        Some(Window::Hour) => " per hour",
        Some(Window::Day) => " per day",
        Some(Window::Month) => " per month",
        Some(Window::Total) | None => " in total",
    };
    format!("{number} {things}{per}")
}
