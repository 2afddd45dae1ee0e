//! Whether a body makes sense on its own. References to other rows are the snapshot's to judge.
//!
//! Invariant: what passes here compiles into a snapshot without error.

use super::{
    Alias, Amount, App, Breaker, Channel, FaultRule, FxRate, Key, Limit, LimitKind, Price, Quota,
    Side, TokenGroup, Window,
};
use crate::money::{Currency, Money};

/// Rules of a channel at most, and the longest delay of one.
const FAULTS_MAX: usize = 8;
const FAULT_DELAY_MS_MAX: u32 = 600_000;

/// A member that is wrong, and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{member}`: {expected}")]
pub struct Problem {
    /// Path of the member, such as `meters[0].amount`.
    pub member: String,
    /// What to write instead.
    pub expected: String,
}

impl Problem {
    /// Says what `member` should be.
    pub fn new(member: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { member: member.into(), expected: expected.into() }
    }
}

/// A body that can be judged on its own.
pub trait Check {
    /// Finds the first bad member.
    ///
    /// # Errors
    /// The member and what it should be.
    fn check(&self) -> Result<(), Problem>;
}

fn ensure(holds: bool, member: &str, expected: &str) -> Result<(), Problem> {
    if holds { Ok(()) } else { Err(Problem::new(member, expected)) }
}

impl Check for Channel {
    fn check(&self) -> Result<(), Problem> {
        ensure(!self.provider.is_empty(), "provider", "a provider's name, such as `openai`")?;
        let http = self.base_url.starts_with("https://") || self.base_url.starts_with("http://");
        ensure(http, "base_url", "an absolute http or https URL")?;
        let mut codes: Vec<&str> = self.credentials.iter().map(|c| c.code.as_str()).collect();
        codes.sort_unstable();
        let unique = codes.windows(2).all(|pair| pair.first() != pair.last());
        ensure(unique, "credentials", "credentials with codes that differ")?;
        ensure(codes.iter().all(|c| !c.is_empty()), "credentials", "a code for each credential")?;
        let t = self.timeouts;
        for (ms, member) in [
            (t.connect_ms, "timeouts.connect_ms"),
            (t.first_byte_ms, "timeouts.first_byte_ms"),
            (t.idle_ms, "timeouts.idle_ms"),
            (t.total_ms, "timeouts.total_ms"),
        ] {
            ensure((1..=86_400_000).contains(&ms), member, "1 to 86400000 milliseconds")?;
        }
        for (rate, member) in [
            (self.breaker.failure_rate, "breaker.failure_rate"),
            (self.breaker.slow_rate, "breaker.slow_rate"),
        ] {
            ensure((1..=100).contains(&rate), member, "1 to 100 percent")?;
        }
        check_breaker(&self.breaker)?;
        check_faults(&self.faults)?;
        ensure(self.max_concurrency != Some(0), "max_concurrency", "at least 1, or null")
    }
}

fn check_faults(rules: &[FaultRule]) -> Result<(), Problem> {
    ensure(rules.len() <= FAULTS_MAX, "faults", "8 rules at most")?;
    for (n, rule) in rules.iter().enumerate() {
        let member = |name: &str| format!("faults[{n}].{name}");
        let percent = (1..=100).contains(&rule.percent);
        ensure(percent, &member("percent"), "1 to 100 percent")?;
        let delay = rule.delay_ms <= FAULT_DELAY_MS_MAX;
        ensure(delay, &member("delay_ms"), "at most 600000 milliseconds")?;
        let does = rule.delay_ms > 0 || rule.fail.is_some();
        ensure(does, &member("fail"), "a way to fail, or a `delay_ms` above 0")?;
    }
    Ok(())
}

fn check_breaker(breaker: &Breaker) -> Result<(), Problem> {
    let window = (100..=86_400_000).contains(&breaker.window_ms);
    ensure(window, "breaker.window_ms", "100 to 86400000 milliseconds")?;
    let calls = breaker.window_calls.is_none_or(|calls| (1..=10_000).contains(&calls));
    ensure(calls, "breaker.window_calls", "1 to 10000 calls, or null")?;
    ensure(breaker.minimum_calls > 0, "breaker.minimum_calls", "at least 1")?;
    ensure(breaker.slow_call_ms > 0, "breaker.slow_call_ms", "at least 1 millisecond")?;
    ensure(breaker.open_ms > 0, "breaker.open_ms", "at least 1 millisecond")?;
    let longest = (breaker.open_ms..=86_400_000).contains(&breaker.max_open_ms);
    ensure(longest, "breaker.max_open_ms", "at least `open_ms`, at most 86400000 milliseconds")?;
    let permits = (1..=1_000).contains(&breaker.half_open_permits);
    ensure(permits, "breaker.half_open_permits", "1 to 1000")
}

impl Check for Alias {
    fn check(&self) -> Result<(), Problem> {
        for (n, route) in self.routes.iter().enumerate() {
            ensure(!route.channel.is_empty(), &format!("routes[{n}].channel"), "a channel's code")?;
            ensure(!route.model.is_empty(), &format!("routes[{n}].model"), "the upstream's model")?;
            let weight = (1..=1_000_000).contains(&route.weight);
            ensure(weight, &format!("routes[{n}].weight"), "1 to 1000000")?;
        }
        ensure(!self.routes.is_empty(), "routes", "at least one route")?;
        let attempts = (1..=20).contains(&self.retry.max_attempts);
        ensure(attempts, "retry.max_attempts", "1 to 20")?;
        ensure(self.retry.deadline_ms > 0, "retry.deadline_ms", "at least 1 millisecond")
    }
}

impl Check for Price {
    fn check(&self) -> Result<(), Problem> {
        match self.side {
            Side::Cost => {
                ensure(self.channel.is_some(), "channel", "the channel whose cost this is")?;
                ensure(self.model.is_some(), "model", "the upstream model whose cost this is")?;
                ensure(self.alias.is_none(), "alias", "no alias: it belongs to side `sale`")?;
                let none = self.token_group.is_none();
                ensure(none, "token_group", "no token group: it belongs to side `sale`")?;
            }
            Side::Sale => {
                ensure(self.alias.is_some(), "alias", "the alias whose price this is")?;
                ensure(self.channel.is_none(), "channel", "no channel: it belongs to side `cost`")?;
                ensure(self.model.is_none(), "model", "no model: it belongs to side `cost`")?;
            }
        }
        ensure(!self.meters.is_empty(), "meters", "at least one meter")?;
        for (n, price) in self.meters.iter().enumerate() {
            let twice =
                self.meters.iter().take(n).any(|p| p.meter == price.meter && p.when == price.when);
            ensure(!twice, &format!("meters[{n}].meter"), "each meter once per `when`")?;
            price.rate(self.currency).map_err(|error| {
                let per = error == crate::money::Error::NotPowerOfTen;
                let member = if per { "per" } else { "amount" };
                Problem::new(format!("meters[{n}].{member}"), error.to_string())
            })?;
        }
        Ok(())
    }
}

impl Check for FxRate {
    fn check(&self) -> Result<(), Problem> {
        ensure(self.from != self.to, "to", "another currency than `from`")?;
        self.ratio().map_err(|e| Problem::new("rate", format!("{e}, above 0")))?;
        let spread = |e| Problem::new("spread", format!("{e}, from 0 to 1"));
        self.spread_ppm().map(|_| ()).map_err(spread)
    }
}

impl Check for Quota {
    fn check(&self) -> Result<(), Problem> {
        for (n, limit) in self.limits.iter().enumerate() {
            let member = |name: &str| format!("limits[{n}].{name}");
            check_window(limit, &member("window"))?;
            let tokens = limit.kind == LimitKind::Tokens;
            ensure(tokens || limit.count.is_none(), &member("count"), "no count but for tokens")?;
            let requests = limit.kind == LimitKind::Requests;
            let burst = &member("burst");
            ensure(requests || limit.burst.is_none(), burst, "no burst but for requests")?;
            ensure(limit.burst != Some(0), burst, "at least 1")?;
            check_amount(&limit.limit, limit.kind, &member("limit"))?;
            if let Some(raised) = &limit.raised {
                check_amount(&raised.limit, limit.kind, &member("raised.limit"))?;
            }
            let same = |other: &Limit| {
                let what = |limit: &Limit| (limit.kind, limit.count, limit.window, limit.shadow);
                what(other) == what(limit)
            };
            let once = !self.limits.iter().take(n).any(same);
            ensure(once, &member("kind"), "one limit for each kind, count and window")?;
        }
        Ok(())
    }
}

/// Requests and tokens flow, so their windows are rates; money is counted by the calendar.
fn check_window(limit: &Limit, member: &str) -> Result<(), Problem> {
    use Window::{Day, Hour, Minute, Month, Second, Total};
    let (fits, say) = match (limit.kind, limit.window) {
        (LimitKind::Concurrency, window) => (window.is_none(), "no window for concurrency"),
        (_, None) => (false, "a window such as `1m`"),
        (LimitKind::Requests, Some(window)) => (
            matches!(window, Second | Minute | Hour | Day),
            "`1s`, `1m`, `1h` or `1d` for requests",
        ),
        (LimitKind::Tokens, Some(window)) => {
            (matches!(window, Second | Minute | Hour | Day), "`1s`, `1m`, `1h` or `1d` for tokens")
        }
        (LimitKind::Cost, Some(window)) => {
            (matches!(window, Hour | Day | Month | Total), "`1h`, `1d`, `1mo` or `total` for cost")
        }
    };
    ensure(fits, member, say)
}

fn check_amount(amount: &Amount, kind: LimitKind, member: &str) -> Result<(), Problem> {
    match (amount, kind) {
        (Amount::Money(text), LimitKind::Cost) => {
            let money = Money::parse(text, Currency::USD)
                .map_err(|e| Problem::new(member, e.to_string()))?;
            ensure(money.units >= 0, member, "an amount that is not negative")
        }
        (Amount::Count(_), LimitKind::Cost) => {
            Err(Problem::new(member, "a decimal in a string, such as \"100.00\""))
        }
        (Amount::Money(_), _) => Err(Problem::new(member, "a whole number")),
        (Amount::Count(_), _) => Ok(()),
    }
}

impl Check for TokenGroup {
    fn check(&self) -> Result<(), Problem> {
        self.factor().map(|_| ()).map_err(|e| Problem::new("multiplier", e.to_string()))
    }
}

impl Check for App {
    fn check(&self) -> Result<(), Problem> {
        let known = crate::quota::calendar::zone(&self.time_zone).is_some();
        ensure(known, "time_zone", "a time zone such as `Europe/Berlin` or `UTC`")?;
        self.floor_units()
            .map(|_| ())
            .map_err(|e| Problem::new("credit_limit", format!("{e}, and not negative")))
    }
}

impl Check for Key {
    fn check(&self) -> Result<(), Problem> {
        for (n, block) in self.allowed_ips.iter().enumerate() {
            let (address, bits) = block.split_once('/').unwrap_or((block, "0"));
            let address: Option<std::net::IpAddr> = address.parse().ok();
            let widest = if address.is_some_and(|a| a.is_ipv6()) { 128 } else { 32 };
            let fits = bits.parse::<u8>().is_ok_and(|b| b <= widest);
            let member = format!("allowed_ips[{n}]");
            ensure(address.is_some() && fits, &member, "an address or a CIDR block")?;
        }
        Ok(())
    }
}
