//! Prices that look like mistakes: what a published file gets wrong, and what changed too much.
//!
//! Pure. A negative price, or one that cannot be held, is refused whatever is said; the others are
//! [`Doubt::Odd`] and pass when the model is named. Source: `e-pricing` E.2 (traps).
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use anima_core::config::MeterPrice;
use anima_core::money::{Currency, Rate};
use anima_core::pricing::{self, When};
use anima_core::usage::Meter;

use super::decimal;

/// The dearest believable prices per million tokens, in whole USD.
const DEAREST: [(Meter, &str); 2] = [(Meter::InputTokens, "60"), (Meter::OutputTokens, "300")];

/// What is wrong with a price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Never a price.
    Wrong(String),
    /// A mistake, unless somebody says that it is not.
    Odd(String),
}

/// What is doubtful about a model's prices by themselves.
pub(crate) fn of(meters: &[MeterPrice]) -> Vec<Doubt> {
    let mut doubts: Vec<_> = meters.iter().filter_map(by_itself).collect();
    if !doubts.iter().any(|doubt| matches!(doubt, Doubt::Wrong(_))) {
        doubts.extend(DEAREST.into_iter().flat_map(|(meter, most)| too_dear(meters, meter, most)));
        doubts.extend(dear_cache(meters));
        doubts.extend(told_twice(meters));
    }
    doubts
}

fn by_itself(price: &MeterPrice) -> Option<Doubt> {
    let (name, amount) = (price.meter.name(), &price.amount);
    if amount.starts_with('-') && !decimal::is_zero(amount) {
        return Some(Doubt::Wrong(format!("{name} is negative: {amount}")));
    }
    match price.rate(Currency::USD) {
        Err(error) => Some(Doubt::Wrong(format!("{name}: {amount}: {error}"))),
        Ok(rate) if rate.units == 0 => Some(Doubt::Odd(format!("{name} is free"))),
        Ok(_) => None,
    }
}

fn too_dear(meters: &[MeterPrice], meter: Meter, most: &str) -> Vec<Doubt> {
    let bound = Rate::parse(most, 1_000_000, Currency::USD);
    let is_above = |price: &&MeterPrice| {
        let rate = price.rate(Currency::USD);
        matches!((rate, &bound), (Ok(rate), Ok(bound)) if is_over(rate, *bound, 1))
    };
    let say = |price: &MeterPrice| {
        let (name, amount, per) = (meter.name(), &price.amount, price.per);
        Doubt::Odd(format!("{name} is {amount} per {per}, above {most} per 1000000"))
    };
    let own = meters.iter().filter(|price| price.meter == meter);
    own.filter(is_above).map(say).collect()
}

/// What is read from a cache is never dearer than what is not: under no circumstances that either
/// of the two has a price for. Where one has none of its own, its base price holds.
fn dear_cache(meters: &[MeterPrice]) -> Vec<Doubt> {
    let (cache, prompt) = (Meter::CachedInputTokens, Meter::InputTokens);
    let rate = |meter, when: &When| {
        let own = find(meters, meter, when).or_else(|| find(meters, meter, &When::default()));
        own?.rate(Currency::USD).ok()
    };
    let mut dear: Vec<&When> = Vec::new();
    for price in meters.iter().filter(|price| price.meter == cache || price.meter == prompt) {
        let is_dear = || {
            let (cached, input) = (rate(cache, &price.when)?, rate(prompt, &price.when)?);
            Some(is_over(cached, input, 1))
        };
        if !dear.contains(&&price.when) && is_dear() == Some(true) {
            dear.push(&price.when);
        }
    }
    let say = |when: &When| {
        let tier = when.service_tier.as_ref().map(|tier| format!(" in the tier {tier}"));
        let length = when.input_tokens_over.map(|over| format!(" above {over} tokens"));
        let (tier, length) = (tier.unwrap_or_default(), length.unwrap_or_default());
        Doubt::Odd(format!("cached_input_tokens are dearer than input_tokens{tier}{length}"))
    };
    dear.into_iter().map(say).collect()
}

/// A rate for the unit and one for its tokens are two prices of one thing, of which the file does
/// not say which is meant.
fn told_twice(meters: &[MeterPrice]) -> Option<Doubt> {
    let is_paid = |price: &&MeterPrice| !decimal::is_zero(&price.amount);
    let (unit, token) = pricing::told_twice(meters.iter().filter(is_paid).map(|p| p.meter))?;
    let (unit, token) = (unit.name(), token.name());
    Some(Doubt::Odd(format!(
        "{unit} and {token} price the same thing: calls would be paid by their tokens where the \
         provider tells them, else by {unit}"
    )))
}

/// What changes by more than `factor`, up or down.
pub(crate) fn of_change(
    before: &[MeterPrice],
    after: &[MeterPrice],
    factor: u32,
    currency: Currency,
) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    for new in after {
        let Some(old) = find(before, new.meter, &new.when) else { continue };
        let (Ok(old_rate), Ok(new_rate)) = (old.rate(currency), new.rate(currency)) else {
            continue;
        };
        if is_over(new_rate, old_rate, factor) || is_over(old_rate, new_rate, factor) {
            let (name, old, new) = (new.meter.name(), &old.amount, &new.amount);
            let doubt = format!("{name} changes from {old} to {new}, by more than {factor} times");
            doubts.push(Doubt::Odd(doubt));
        }
    }
    doubts
}

/// The price of one meter under just these circumstances.
pub(crate) fn find<'a>(
    prices: &'a [MeterPrice],
    meter: Meter,
    when: &When,
) -> Option<&'a MeterPrice> {
    prices.iter().find(|price| price.meter == meter && price.when == *when)
}

/// Whether two prices are the same amount, however it is written.
pub(crate) fn is_same(one: &MeterPrice, other: &MeterPrice, currency: Currency) -> bool {
    match (one.rate(currency), other.rate(currency)) {
        (Ok(one), Ok(other)) => !is_over(one, other, 1) && !is_over(other, one, 1),
        _ => one == other,
    }
}

/// Whether `one` is above `other` times `factor`.
fn is_over(one: Rate, other: Rate, factor: u32) -> bool {
    // Below 2^63 x 10^18, which 128 bits hold; what the factor makes too large is above anyway.
    let raised = |rate: Rate, to: u8| {
        let power = 10_i128.saturating_pow(u32::from(to));
        i128::from(rate.units).saturating_mul(power)
    };
    let bound = raised(other, one.pow10).saturating_mul(i128::from(factor));
    raised(one, other.pow10) > bound
}
