//! A quota's row → the bounds of a call.
//!
//! Compiled once per change of the configuration; bound once per call, without looking at text.
//! Invariant: what a rule says is what its row says at that instant, a raise until its end
//! included.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::calendar;
use super::{Bound, Check, Counter, Rate, RuleName, Scope, Tag};
use crate::clock::Timestamp;
use crate::config::{Amount, Limit, LimitKind, OnOutage, TokenCount, Window};
use crate::money::{Currency, Money};

/// A limit, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    kind: LimitKind,
    count: Option<TokenCount>,
    window: Option<Window>,
    shadow: bool,
    on_outage: OnOutage,
    limit: Amount,
    burst: Option<i64>,
    raised: Option<(Amount, Timestamp)>,
}

/// Whom a rule is bound to.
#[derive(Debug, Clone)]
pub struct Holder {
    /// What it hangs on.
    pub scope: Scope,
    /// The code of that.
    pub code: Arc<str>,
    /// Counted together with what.
    pub tag: Tag,
}

/// What a call takes of its limits, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Take {
    /// 1, or 0 for a call that was not made.
    pub requests: i64,
    /// Tokens of the prompt.
    pub input_tokens: i64,
    /// Tokens of the answer.
    pub output_tokens: i64,
    /// In units of the wallet's currency.
    pub cost: i64,
}

impl Rule {
    /// Compiles a limit that was checked.
    pub fn of(limit: &Limit) -> Self {
        Self {
            kind: limit.kind,
            count: limit.count,
            window: limit.window,
            shadow: limit.shadow,
            on_outage: limit.on_outage,
            limit: limit.limit.clone(),
            burst: limit.burst.map(|burst| i64::try_from(burst).unwrap_or(i64::MAX)),
            raised: limit.raised.as_ref().map(|raised| (raised.limit.clone(), raised.until)),
        }
    }

    /// The rule as it applies to a call of `holder` at `now`. `None` when its amount cannot be read
    /// in the wallet's currency, which a checked row cannot be.
    pub fn bind(
        &self,
        holder: &Holder,
        (now, zone): (Timestamp, &TimeZone),
        (currency, take): (Currency, Take),
    ) -> Option<Bound> {
        let is_cost = self.kind == LimitKind::Cost;
        let check = self.check(now, zone, currency)?;
        let rate = match check {
            Check::Rate(rate) => Some((rate.limit, rate.burst)),
            Check::Slots { .. } | Check::Purse { .. } => None,
        };
        let rule = RuleName {
            kind: self.kind,
            count: self.token_count(),
            window: self.window,
            currency: is_cost.then_some(currency),
            rate,
            shadow: self.shadow,
        };
        let counter = Counter { scope: holder.scope, code: Arc::clone(&holder.code), rule };
        Some(Bound {
            units: self.units(take),
            check,
            counter,
            tag: holder.tag.clone(),
            on_outage: self.on_outage,
        })
    }

    /// What it limits.
    pub const fn kind(&self) -> LimitKind {
        self.kind
    }

    /// Whether it only counts.
    pub const fn is_shadow(&self) -> bool {
        self.shadow
    }

    fn token_count(&self) -> Option<TokenCount> {
        let tokens = self.kind == LimitKind::Tokens;
        tokens.then(|| self.count.unwrap_or(TokenCount::Total))
    }

    /// What a call takes of this rule.
    fn units(&self, take: Take) -> i64 {
        units(self.kind, self.count, take)
    }

    fn check(&self, now: Timestamp, zone: &TimeZone, currency: Currency) -> Option<Check> {
        let amount = match &self.raised {
            Some((raised, until)) if now < *until => raised,
            Some(_) | None => &self.limit,
        };
        let limit = match amount {
            Amount::Count(count) => i64::try_from(*count).unwrap_or(i64::MAX),
            Amount::Money(text) => Money::parse(text, currency).ok()?.units,
        };
        let window = self.window.unwrap_or(Window::Minute);
        Some(match self.kind {
            LimitKind::Concurrency => Check::Slots { limit },
            LimitKind::Cost => Check::Purse { limit, span: calendar::span(window, now, zone) },
            LimitKind::Requests | LimitKind::Tokens => {
                let burst = self.burst.unwrap_or(limit).max(i64::from(limit > 0));
                Check::Rate(Rate { limit, period_us: window.micros(), burst })
            }
        })
    }
}

/// What a call takes of a counter of that kind.
pub fn units(kind: LimitKind, count: Option<TokenCount>, take: Take) -> i64 {
    match (kind, count) {
        (LimitKind::Concurrency, _) => 1,
        (LimitKind::Requests, _) => take.requests,
        (LimitKind::Cost, _) => take.cost,
        (LimitKind::Tokens, Some(TokenCount::Input)) => take.input_tokens,
        (LimitKind::Tokens, Some(TokenCount::Output)) => take.output_tokens,
        (LimitKind::Tokens, Some(TokenCount::Total) | None) => {
            take.input_tokens.saturating_add(take.output_tokens)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(limit: serde_json::Value) -> Rule {
        Rule::of(&serde_json::from_value(limit).unwrap())
    }

    fn bind(rule: &Rule, now: Timestamp) -> Bound {
        let code: Arc<str> = "k1".into();
        let tag = Tag::App("acme".into());
        let holder = Holder { scope: Scope::Key, code, tag };
        let take = Take { requests: 1, input_tokens: 20, output_tokens: 30, cost: 7 };
        rule.bind(&holder, (now, &TimeZone::UTC), (Currency::USD, take)).unwrap()
    }

    #[test]
    fn a_row_becomes_what_it_says() {
        let now = Timestamp::parse("2026-11-23T01:00:00Z").unwrap();
        let second =
            bind(&rule(json!({"kind": "requests", "window": "1s", "limit": 20, "burst": 40})), now);
        let rate = Rate { limit: 20, period_us: 1_000_000, burst: 40 };
        assert_eq!((second.check, second.units), (Check::Rate(rate), 1));
        let tokens = bind(&rule(json!({"kind": "tokens", "window": "1m", "limit": 1000})), now);
        assert_eq!(tokens.units, 50);
        assert_eq!(tokens.counter.rule.to_string(), "tokens:total:1m:1000:1000");
        let cost = bind(&rule(json!({"kind": "cost", "window": "1mo", "limit": "100.00"})), now);
        let Check::Purse { limit, span } = cost.check else { panic!() };
        assert_eq!((limit, cost.units), (100_000_000_000, 7));
        assert_eq!(span.to, Timestamp::parse("2026-12-01T00:00:00Z").unwrap());
        assert_eq!(cost.counter.rule.to_string(), "cost:1mo:USD");
        let slots = bind(&rule(json!({"kind": "concurrency", "limit": 8})), now);
        assert_eq!((slots.check, slots.units), (Check::Slots { limit: 8 }, 1));
    }

    #[test]
    fn a_raise_ends_by_itself() {
        let until = Timestamp::parse("2026-11-23T02:00:00Z").unwrap();
        let rule = rule(json!({
            "kind": "concurrency", "limit": 2, "raised": {"limit": 9, "until": until},
        }));
        let before = Timestamp::from_micros(until.micros() - 1);
        assert_eq!(bind(&rule, before).check, Check::Slots { limit: 9 });
        assert_eq!(bind(&rule, until).check, Check::Slots { limit: 2 });
    }
}
