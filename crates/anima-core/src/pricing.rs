//! Usage × price → charge.
//!
//! One price list prices one side: what a channel's provider charges us (cost), or what an alias
//! costs a customer (sale). Both have the same shape and go through the same arithmetic.
//! Invariants: one rounding per charge; a used meter is never silently free. Source: SPEC 8 and 15,
//! `e-pricing` E.5 (tiers are all or nothing).
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use serde::{Deserialize, Serialize};

use crate::money::{self, Currency, ExactSum, Multiplier, Rate};
use crate::usage::{Meter, Usage};

/// When a rate applies. All given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The whole prompt is longer than this many tokens; a prompt exactly at the bound is below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens_over: Option<u64>,
    /// The service tier that the provider reported back, such as `priority`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
}

/// The rate of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterRate {
    /// What is counted.
    pub meter: Meter,
    /// What it costs.
    pub rate: Rate,
    /// When this rate applies.
    pub when: When,
}

/// One version of a price list, ready to compute with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceList {
    /// The price's code.
    pub code: String,
    /// Which version of it.
    pub version_no: i64,
    /// Currency of every rate.
    pub currency: Currency,
    /// Rates; several for one meter when they differ in `when`.
    pub rates: Vec<MeterRate>,
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Currency units, rounded once.
    pub units: i64,
    /// A used meter had no rate of its own and took the rate of the kind that it is part of, or
    /// none at all could be found. The amount is then an estimate to look into.
    pub stood_in: bool,
}

/// Why a charge could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The list has no rate for a used meter, nor for the kind that it is part of.
    #[error("the price list has no rate for {}", .0.name())]
    Unpriced(Meter),
    /// The amount does not fit.
    #[error(transparent)]
    Amount(#[from] money::Error),
}

impl PriceList {
    /// The rate for one meter under the given circumstances: the most specific that applies.
    pub fn rate(&self, meter: Meter, prompt_tokens: u64, tier: Option<&str>) -> Option<Rate> {
        self.rates
            .iter()
            .filter(|r| r.meter == meter && r.when.holds(prompt_tokens, tier))
            .max_by_key(|r| (r.when.service_tier.is_some(), r.when.input_tokens_over))
            .map(|r| r.rate)
    }

    /// What a million of a meter costs at first, in the list's currency; `None` without a rate.
    pub fn per_million(&self, meter: Meter) -> Option<i64> {
        let (rate, _) = self.rate_or_whole(meter, 0, None)?;
        ExactSum::default().add(1_000_000, rate).ok()?.round(Multiplier::ONE).ok()
    }

    /// Whether a call that uses these meters can be priced by the list as it stands.
    ///
    /// A meter that is only a part of another needs no rate of its own.
    ///
    /// # Errors
    /// [`Error::Unpriced`] with the first meter that cannot.
    pub fn covers(&self, meters: &[Meter]) -> Result<(), Error> {
        match meters.iter().find(|m| self.rate_or_whole(**m, 0, None).is_none()) {
            Some(meter) => Err(Error::Unpriced(*meter)),
            None => Ok(()),
        }
    }

    /// What of a usage is paid. Some providers tell a picture or a query also in tokens, and some
    /// lists have rates for both: one thing is paid once, by its tokens where they are told and
    /// have rates, else by the unit. What is of the other side, such as the prompt of a picture, is
    /// paid beside.
    fn paid(&self, usage: &Usage) -> Usage {
        let mut paid = *usage;
        let Some(unit) = told_unit(usage) else { return paid };
        let twins = || usage.iter().map(|(meter, _)| meter).filter(|meter| is_same(unit, *meter));
        let has_unit = self.has(unit);
        if twins().next().is_some() && twins().all(|meter| self.has(meter)) {
            paid.set(unit, 0);
        } else if has_unit {
            twins().for_each(|meter| paid.set(meter, 0));
        }
        if has_unit {
            let tokens = usage.iter().map(|(meter, _)| meter).filter(|meter| is_token(*meter));
            tokens.filter(|meter| !self.has(*meter)).for_each(|meter| paid.set(meter, 0));
        }
        paid
    }

    /// A usage of which the tokens are our own guess and the units are not: without the tokens that
    /// the units stand for, where the list has a rate for the unit.
    pub fn in_units(&self, usage: &Usage) -> Usage {
        let mut units = *usage;
        if let Some(unit) = told_unit(usage).filter(|unit| self.has(*unit)) {
            let twins = usage.iter().filter(|(meter, _)| is_same(unit, *meter));
            twins.for_each(|(meter, _)| units.set(meter, 0));
        }
        units
    }

    /// Whether what was mainly used has no rate, neither by the unit nor by its tokens, although
    /// the list is not one of gifts: an amount would then be next to nothing by mistake, of the
    /// list or of the report.
    pub fn misses(&self, usage: &Usage) -> bool {
        let unit = told_unit(usage);
        let is_main = |meter: Meter| unit.is_none_or(|unit| meter == unit || is_same(unit, meter));
        let is_paid = usage.iter().any(|(meter, _)| is_main(meter) && self.has(meter));
        !usage.is_empty() && !is_paid && self.rates.iter().any(|rate| rate.rate.units > 0)
    }

    fn has(&self, meter: Meter) -> bool {
        self.rate_or_whole(meter, 0, None).is_some()
    }

    /// Whether a usage is paid by units, and whether by tokens.
    pub fn pays(&self, usage: &Usage) -> (bool, bool) {
        let paid = self.paid(usage);
        let has = |wanted: bool| paid.iter().any(|(meter, _)| is_token(meter) == wanted);
        (has(false), has(true))
    }

    /// Prices what was used. A fee per call (`requests`) applies when the list has one.
    ///
    /// # Errors
    /// [`Error::Unpriced`] when a used meter has no rate at all; [`Error::Amount`] on overflow.
    pub fn charge(
        &self,
        usage: &Usage,
        tier: Option<&str>,
        multiplier: Multiplier,
    ) -> Result<Charge, Error> {
        let usage = &self.paid(usage);
        let prompt = usage.input_tokens();
        let mut sum = ExactSum::default();
        let mut stood_in = false;
        for (meter, quantity) in usage.iter().filter(|(m, _)| *m != Meter::Requests) {
            let (rate, own) =
                self.rate_or_whole(meter, prompt, tier).ok_or(Error::Unpriced(meter))?;
            stood_in |= !own && meter != Meter::ReasoningTokens;
            sum = sum.add(quantity, rate)?;
        }
        if let Some(fee) = self.rate(Meter::Requests, prompt, tier) {
            sum = sum.add(usage.of(Meter::Requests).max(1), fee)?;
        }
        Ok(Charge { units: sum.round(multiplier)?, stood_in })
    }

    /// The meter's rate and whether it is its own, else the rate of the kind it is part of.
    fn rate_or_whole(&self, meter: Meter, prompt: u64, tier: Option<&str>) -> Option<(Rate, bool)> {
        let mut own = true;
        let mut wanted = Some(meter);
        while let Some(candidate) = wanted {
            if let Some(rate) = self.rate(candidate, prompt, tier) {
                return Some((rate, own));
            }
            own = false;
            wanted = candidate.part_of();
        }
        None
    }
}

/// The unit in which a usage is told, if it is told in one.
fn told_unit(usage: &Usage) -> Option<Meter> {
    let units = [Meter::Images, Meter::Queries, Meter::Characters, Meter::AudioSeconds];
    units.into_iter().find(|meter| usage.of(*meter) > 0)
}

const fn is_token(meter: Meter) -> bool {
    meter.is_input() || meter.is_output()
}

/// Whether tokens of this kind are the same thing as the unit, said in another way: a picture is
/// what was generated, a query, a text that is spoken or a sound that is heard is the whole call.
const fn is_same(unit: Meter, meter: Meter) -> bool {
    if matches!(unit, Meter::Images) { meter.is_output() } else { is_token(meter) }
}

/// The rates of a list that are for one thing, said in two ways: unit and tokens.
pub fn told_twice(meters: impl Iterator<Item = Meter> + Clone) -> Option<(Meter, Meter)> {
    let units = [Meter::Images, Meter::Queries, Meter::Characters, Meter::AudioSeconds];
    let unit = meters.clone().find(|meter| units.contains(meter))?;
    let mut twins = meters.filter(|meter| is_same(unit, *meter));
    twins.next().map(|token| (unit, token))
}

impl When {
    fn holds(&self, prompt_tokens: u64, tier: Option<&str>) -> bool {
        self.input_tokens_over.is_none_or(|bound| prompt_tokens > bound)
            && self.service_tier.as_deref().is_none_or(|wanted| tier == Some(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rates: &[(&str, &str, When)]) -> PriceList {
        let rates = rates
            .iter()
            .map(|(meter, amount, when)| MeterRate {
                meter: Meter::parse(meter).unwrap(),
                rate: Rate::parse(amount, 1_000_000, Currency::USD).unwrap(),
                when: when.clone(),
            })
            .collect();
        PriceList { code: "p".into(), version_no: 1, currency: Currency::USD, rates }
    }

    fn chat() -> PriceList {
        let over = When { input_tokens_over: Some(272_000), ..When::default() };
        let flex = When { service_tier: Some("flex".into()), ..When::default() };
        list(&[
            ("input_tokens", "2", When::default()),
            ("input_tokens", "4", over.clone()),
            ("input_tokens", "1", flex),
            ("cached_input_tokens", "0.1", When::default()),
            ("output_tokens", "10", When::default()),
            ("output_tokens", "15", over),
        ])
    }

    fn units(usage: Usage, tier: Option<&str>) -> i64 {
        chat().charge(&usage, tier, Multiplier::ONE).unwrap().units
    }

    #[test]
    fn cached_tokens_take_their_own_rate() {
        let usage = Usage::default()
            .with(Meter::InputTokens, 1_000)
            .with(Meter::CachedInputTokens, 10_000)
            .with(Meter::OutputTokens, 100);
        assert_eq!(units(usage, None), 2_000_000 + 1_000_000 + 1_000_000);
    }

    #[test]
    fn a_length_tier_reprices_the_whole_request_and_starts_above_its_bound() {
        let at = Usage::default().with(Meter::InputTokens, 272_000).with(Meter::OutputTokens, 10);
        assert_eq!(units(at, None), 544_000_000 + 100_000);
        let above =
            Usage::default().with(Meter::InputTokens, 272_001).with(Meter::OutputTokens, 10);
        assert_eq!(units(above, None), 1_088_004_000 + 150_000);
    }

    #[test]
    fn the_reported_tier_decides() {
        let usage = Usage::default().with(Meter::InputTokens, 1_000);
        assert_eq!(units(usage, Some("flex")), 1_000_000);
        assert_eq!(units(usage, Some("default")), 2_000_000);
    }

    #[test]
    fn reasoning_is_priced_as_output_and_other_parts_say_that_a_rate_stood_in() {
        let reasoning = Usage::default().with(Meter::ReasoningTokens, 100);
        let charge = chat().charge(&reasoning, None, Multiplier::ONE).unwrap();
        assert_eq!(charge, Charge { units: 1_000_000, stood_in: false });
        let audio = Usage::default().with(Meter::InputAudioTokens, 100);
        assert!(chat().charge(&audio, None, Multiplier::ONE).unwrap().stood_in);
    }

    #[test]
    fn a_meter_without_any_rate_is_refused_never_free() {
        let image = Usage::default().with(Meter::Images, 1);
        let refused = chat().charge(&image, None, Multiplier::ONE);
        assert_eq!(refused, Err(Error::Unpriced(Meter::Images)));
        assert!(chat().covers(&[Meter::InputTokens, Meter::Images]).is_err());
        assert!(chat().covers(&[Meter::InputTokens, Meter::OutputTokens]).is_ok());
    }

    #[test]
    fn one_thing_that_has_two_rates_is_paid_once() {
        let plain = When::default;
        let both = list(&[
            ("images", "5000", plain()),
            ("input_tokens", "1", plain()),
            ("output_image_tokens", "2", plain()),
        ]);
        let picture = Usage::default().with(Meter::Images, 1).with(Meter::InputTokens, 10);
        let told = picture.with(Meter::OutputImageTokens, 100);
        let units = |usage: &Usage| both.charge(usage, None, Multiplier::ONE).unwrap().units;
        assert_eq!(units(&picture), 5_000_000 + 10_000, "no tokens of the picture: by the unit");
        assert_eq!(units(&told), 200_000 + 10_000, "by its tokens, and not also by the unit");
        assert_eq!(units(&both.in_units(&told)), 5_000_000 + 10_000, "where they are a guess");
        let heard = list(&[
            ("audio_seconds", "100", plain()),
            ("input_tokens", "1", plain()),
            ("output_tokens", "4", plain()),
        ]);
        let usage = Usage::default()
            .with(Meter::AudioSeconds, 9)
            .with(Meter::InputAudioTokens, 90)
            .with(Meter::OutputTokens, 20);
        assert_eq!(heard.charge(&usage, None, Multiplier::ONE).unwrap().units, 90_000 + 80_000);
    }

    #[test]
    fn what_is_mainly_used_and_has_no_rate_is_missed() {
        let tokens = list(&[
            ("input_tokens", "1", When::default()),
            ("output_image_tokens", "2", When::default()),
        ]);
        let pictures = Usage::default().with(Meter::Images, 2);
        assert!(tokens.misses(&pictures));
        assert!(tokens.misses(&pictures.with(Meter::InputTokens, 9)), "only the prompt is paid");
        assert!(!tokens.misses(&pictures.with(Meter::OutputImageTokens, 9)));
        assert!(!tokens.misses(&Usage::default()));
        assert!(chat().misses(&Usage::default().with(Meter::Queries, 1)));
        assert!(!chat().misses(&Usage::default().with(Meter::InputTokens, 1)));
        let gift = list(&[("input_tokens", "0", When::default())]);
        assert!(!gift.misses(&pictures));
    }

    #[test]
    fn a_fee_per_call_is_charged_once() {
        let fee = list(&[("requests", "5000", When::default())]);
        let charge = fee.charge(&Usage::default(), None, Multiplier::ONE).unwrap();
        assert_eq!(charge.units, 5_000_000);
    }
}
