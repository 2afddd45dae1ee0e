//! What an attempt costs us and what the customer owes: usage × pinned prices, as records.
//!
//! Invariant: nothing consumed is ever booked as free for want of a report: what was not reported
//! is counted by ourselves and marked as an estimate. Source: SPEC 8, `reliability` 1.6.

use std::sync::Arc;

use anima_core::clock::Timestamp;
use anima_core::failure::{Cost, Failure};
use anima_core::ledger::{Attempt, AttemptCost, Exposure, Hold};
use anima_core::money::Multiplier;
use anima_core::pricing::{self, PriceList};
use anima_core::usage::{Meter, Usage, UsageSource};

use anima_wire::adapter::{Told, sound_usage};

use super::admit::{self, meters};
use super::call::{Call, price_ref};
use super::keeper::INTERVAL_TOKENS;
use super::trial::Trial;
use super::{Limits, hold};
use crate::settings::Partial;

/// Bytes of an unusable answer for one token: ordinary text has four to five (`f-tokens` F.1), so
/// this errs upwards by what the answer's framing adds.
const BYTES_PER_TOKEN: u64 = 4;

/// Generated tokens that an unusable answer is booked for at most when the caller set no limit: a
/// long answer of today's models. Beyond it the bytes were noise, not tokens.
const WASTED_TOKENS_MAX: u64 = 16_384;

/// What a served attempt delivered.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    /// What the provider reported; `None` when it did not, or when it is not believable.
    pub(super) reported: Option<Usage>,
    /// What it reported was not believable, whatever is known beside.
    pub(super) suspect: bool,
    /// Which of it the provider told.
    pub(super) told: Told,
    /// What the provider told of the prompt before its answer, in case it reported no more.
    pub(super) input: Option<Usage>,
    /// The service tier that the provider reported.
    pub(super) tier: Option<String>,
    /// Our own count of the generated tokens; only looked at without a report.
    pub(super) counted_output: u64,
    /// Nothing was generated.
    pub(super) empty: bool,
    /// How much of the answer it is.
    pub(super) part: Part,
}

/// How much of an answer was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// The provider broke it off.
    Broken,
    /// We stopped it; the provider may have gone on for a while.
    Stopped,
}

/// Usage with its origin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) usage: Usage,
    pub(super) source: UsageSource,
    /// Of what the provider reported: which meters are its own word.
    pub(super) told: Told,
}

impl Known {
    /// What of it a list is asked about: a guess at the tokens of what has a rate by the unit is
    /// not paid by.
    fn usage_for(&self, list: &PriceList) -> Usage {
        if self.told == Told::Units { list.in_units(&self.usage) } else { self.usage }
    }

    /// Whether what a list has rates for is our own count.
    fn is_estimate(&self, list: &PriceList) -> bool {
        let (units, tokens) = list.pays(&self.usage_for(list));
        self.source == UsageSource::Counted
            || match self.told {
                Told::All => false,
                Told::Units => tokens,
                Told::Tokens => units,
                Told::Nothing => true,
            }
    }
}

/// An amount and whether it is an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Priced {
    pub(super) units: i64,
    pub(super) estimate: bool,
}

/// What was consumed by a served attempt: the report, else our own count.
pub(super) async fn known(call: &Arc<Call>, cost: &PriceList, delivered: &Delivered) -> Known {
    if let Some(usage) = delivered.reported {
        let is_own = delivered.told == Told::Nothing;
        let source = if is_own { UsageSource::Counted } else { UsageSource::Provider };
        let known = Known { usage, source, told: delivered.told };
        let is_missed = cost.misses(&usage) || call.sale.misses(&usage);
        return if is_missed { filled(call, known).await } else { known };
    }
    let prompt = match delivered.input {
        Some(told) => prompt_alone(&told),
        None => Usage::default().with(Meter::InputTokens, count_input(call).await),
    };
    let usage = prompt.with(Meter::OutputTokens, delivered.counted_output);
    Known { usage, source: UsageSource::Counted, told: Told::Nothing }
}

/// The same with our own count of the tokens that the provider did not tell, where a list has rates
/// for these alone: nothing is free for want of a report.
async fn filled(call: &Arc<Call>, mut known: Known) -> Known {
    if call.request.endpoint.generates() {
        return known;
    }
    let mut own = admit::made(&call.request, known.usage.of(Meter::Images));
    if own.of(Meter::InputTokens) > 0 {
        own.set(Meter::InputTokens, count_input(call).await);
    }
    let told = known.usage;
    for (meter, quantity) in own.iter().filter(|(meter, _)| told.of(*meter) == 0) {
        known.usage.set(meter, quantity);
    }
    if known.told == Told::All {
        known.told = Told::Units;
    }
    known
}

/// The prompt's meters of a report whose others are a first guess.
fn prompt_alone(told: &Usage) -> Usage {
    let prompt = told.iter().filter(|(meter, _)| meter.is_input());
    prompt.fold(Usage::default(), |usage, (meter, quantity)| usage.with(meter, quantity))
}

/// Our own count of the prompt's tokens.
pub(super) async fn count_input(call: &Arc<Call>) -> u64 {
    let shared = Arc::clone(call);
    counted(move || shared.request.count_input_tokens()).await
}

/// What the customer pays for of an answer whose end did not come and that nobody reported on: all
/// that was delivered, and the prompt as the operator wishes. `None` is nothing at all.
pub(super) fn sold(call: &Call, known: &Known, (part, limits): (Part, &Limits)) -> Option<Known> {
    let is_own = known.source == UsageSource::Counted;
    if !is_own || part != Part::Broken || limits.partial == Partial::Delivered {
        return Some(*known);
    }
    if limits.partial == Partial::Free {
        return None;
    }
    let output = known.usage.output_tokens();
    let each = hold::wanted_output(call, limits);
    let whole = each.saturating_mul(call.request.choices).max(output).max(1);
    let mut sold = *known;
    for (meter, quantity) in known.usage.iter().filter(|(meter, _)| meter.is_input()) {
        let share = u128::from(quantity) * u128::from(output) / u128::from(whole);
        sold.usage.set(meter, u64::try_from(share).unwrap_or(quantity));
    }
    Some(sold)
}

/// What an attempt may cost us that nobody reported on: what was delivered, and, when we stopped
/// it, as much again as a call may be ahead of its checkpoint (`reliability` 1.6, row 8).
pub(super) fn exposed(call: &Call, known: &Known, part: Part) -> Known {
    let mut exposed = *known;
    let generates = call.request.endpoint.generates();
    if generates && known.source == UsageSource::Counted && part == Part::Stopped {
        let output = known.usage.output_tokens();
        let most = call.request.output_tokens_max.map_or(INTERVAL_TOKENS, |each| {
            each.saturating_mul(call.request.choices).saturating_sub(output)
        });
        exposed.usage.set(Meter::OutputTokens, output + most.min(INTERVAL_TOKENS));
    }
    exposed
}

/// Runs the tokenizer on a thread that may block: it takes up to 25 ms for a text, and 140 ms more
/// and 70 MB for its tables the first time. Most nodes never need it.
pub(super) async fn counted(count: impl FnOnce() -> u64 + Send + 'static) -> u64 {
    tokio::task::spawn_blocking(count).await.unwrap_or_else(|panicked| {
        tracing::error!(%panicked, "failed to count tokens");
        0
    })
}

/// Prices usage. What has no rate is left out, and the amount then is an estimate: the call was
/// made, so refusing is too late, and the log says what to mend. `None` where the amount does not
/// fit, or where nothing that matters has a rate: something else stands in for it then, never
/// nothing.
pub(super) fn price(
    list: &PriceList,
    known: &Known,
    (tier, multiplier): (Option<&str>, Multiplier),
) -> Option<Priced> {
    let mut usage = known.usage_for(list);
    let counted = known.is_estimate(list);
    let mut left_out = false;
    loop {
        match list.charge(&usage, tier, multiplier) {
            Ok(_) if left_out && list.misses(&known.usage) => return None,
            Ok(charge) => {
                let estimate = counted || left_out || charge.stood_in;
                return Some(Priced { units: charge.units, estimate });
            }
            Err(pricing::Error::Unpriced(meter)) => {
                let (price, meter_name) = (list.code.as_str(), meter.name());
                tracing::error!(price, meter = meter_name, "a used meter has no rate");
                usage.set(meter, 0);
                left_out = true;
            }
            Err(pricing::Error::Amount(error)) => {
                tracing::error!(price = list.code, %error, "failed to price usage");
                return None;
            }
        }
    }
}

/// So much of a sale that no more than `most` units of the wallet are owed for it.
pub(super) fn within<E>(owed: impl Fn(i64) -> Result<i64, E>, sale: Priced, most: i64) -> Priced {
    match owed(sale.units) {
        Ok(whole) if whole > most => {
            let part = i128::from(sale.units) * i128::from(most.max(0)) / i128::from(whole);
            let mut units = i64::try_from(part).unwrap_or(0);
            // What is owed is rounded.
            while units > 0 && owed(units).is_ok_and(|owed| owed > most) {
                units -= 1;
            }
            Priced { units, estimate: true }
        }
        Ok(_) | Err(_) => sale,
    }
}

/// The record of an attempt whose answer, or part of it, went to the customer.
pub(super) fn served(
    trial: &Trial,
    known: &Known,
    tier: Option<&str>,
    (end, hold): (End, &Hold),
) -> Attempt {
    let priced = price(&trial.cost, known, (tier, Multiplier::ONE));
    let mut attempt = record(trial, end);
    attempt.usage = known.usage;
    attempt.usage_source = known.source;
    attempt.cost =
        Some(priced.map_or_else(|| worst(&trial.cost, hold), |priced| cost(&trial.cost, priced)));
    attempt
}

/// What stands in for a cost that does not fit: the most that the hold says it can come to, else
/// all that is held, each in its own currency.
fn worst(list: &PriceList, hold: &Hold) -> AttemptCost {
    if let Some(Exposure { amount, currency, price, .. }) = hold.exposure.clone() {
        return AttemptCost { amount, currency, price, estimate: true };
    }
    let (amount, currency) = (hold.amount, hold.currency);
    AttemptCost { amount, currency, price: price_ref(list), estimate: true }
}

/// The record of an attempt that delivered nothing.
pub(super) async fn failed(
    call: &Arc<Call>,
    trial: &Trial,
    failure: Failure,
    now: Timestamp,
) -> Attempt {
    let mut attempt = record(trial, End { outcome: failure.reason(), served: false, at: now });
    match (failure.row().cost, &trial.wasted) {
        _ if !trial.is_sent() => {}
        (Cost::Nothing, _) => {}
        (Cost::EstimatedInput | Cost::Delivered, Some(wasted)) => {
            let (source, told) = if wasted.is_running {
                (UsageSource::Counted, Told::Nothing)
            } else {
                (UsageSource::Provider, Told::All)
            };
            let known = Known { usage: wasted.usage, source, told };
            let priced = price(&trial.cost, &known, (wasted.tier.as_deref(), Multiplier::ONE));
            attempt.usage = known.usage;
            attempt.usage_source = known.source;
            attempt.cost = priced.map(|priced| cost(&trial.cost, priced));
        }
        (Cost::EstimatedInput | Cost::Delivered, None) => {
            let input = if meters(call.request.endpoint).contains(&Meter::InputTokens) {
                count_input(call).await
            } else {
                0
            };
            // What came and could not be used was made all the same: the worst plausible exposure.
            // Pictures and queries are known before they are asked for.
            let sound = sound_usage(&call.request);
            let mut usage =
                sound.unwrap_or_else(|| admit::most(&call.request).with(Meter::InputTokens, input));
            if call.request.endpoint.generates() {
                let output = (trial.wasted_bytes as u64).div_ceil(BYTES_PER_TOKEN);
                let most = call.request.output_tokens_max.unwrap_or(WASTED_TOKENS_MAX);
                usage.set(
                    Meter::OutputTokens,
                    output.min(most.saturating_mul(call.request.choices)),
                );
            }
            let (source, told) = (UsageSource::Counted, Told::Nothing);
            let known = Known { usage, source, told };
            let priced = price(&trial.cost, &known, (None, Multiplier::ONE));
            attempt.usage = usage;
            attempt.usage_source = UsageSource::Counted;
            attempt.cost = priced.map(|priced| cost(&trial.cost, priced));
        }
    }
    attempt
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// `ok` or a failure's reason.
    pub(super) outcome: &'static str,
    /// Whether its answer, or part of it, went to the customer.
    pub(super) served: bool,
    /// When.
    pub(super) at: Timestamp,
}

fn record(trial: &Trial, end: End) -> Attempt {
    let first_byte_at = trial.first_byte.map(|instant| {
        let waited = instant.duration_since(trial.started).as_millis();
        trial.started_at.plus_millis(i64::try_from(waited).unwrap_or(i64::MAX))
    });
    Attempt {
        n: trial.n,
        channel: Arc::clone(&trial.channel),
        credential: Arc::clone(&trial.credential),
        model: Arc::clone(&trial.model),
        outcome: end.outcome,
        served: end.served,
        usage: Usage::default(),
        usage_source: UsageSource::None,
        cost: None,
        upstream_ref: trial.upstream_ref.clone(),
        started_at: trial.started_at,
        first_byte_at,
        ended_at: end.at,
    }
}

fn cost(list: &PriceList, priced: Priced) -> AttemptCost {
    AttemptCost {
        amount: priced.units,
        currency: list.currency,
        price: price_ref(list),
        estimate: priced.estimate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_first_counts_for_the_prompt_alone() {
        let told = Usage::default()
            .with(Meter::InputTokens, 7)
            .with(Meter::CachedInputTokens, 5)
            .with(Meter::OutputTokens, 1);
        let prompt = prompt_alone(&told);
        assert_eq!((prompt.input_tokens(), prompt.of(Meter::CachedInputTokens)), (12, 5));
        assert_eq!(prompt.output_tokens(), 0);
    }

    #[test]
    fn of_a_sale_in_another_currency_no_more_is_owed_than_may_be() {
        let sale = |units, estimate| Priced { units, estimate };
        let owed = |units: i64| Ok::<_, ()>((units * 1_237 + 500) / 1_000);
        assert_eq!(within(owed, sale(1_000, false), 1_237), sale(1_000, false));
        for most in 0..1_237 {
            let least = within(owed, sale(1_000, false), most);
            assert!(least.estimate && owed(least.units).unwrap() <= most, "{most}: {least:?}");
            assert!(owed(least.units + 2).unwrap() > most, "{most}: {least:?} is too little");
        }
        assert_eq!(within(|_| Err(()), sale(7, false), 1), sale(7, false), "what does not fit");
    }
}
