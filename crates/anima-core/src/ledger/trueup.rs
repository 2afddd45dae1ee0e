//! The correction of a request's books when more becomes known than when it was settled.
//!
//! [`true_up`] compares what stands in the books about a hold with what its settlement would be
//! now, and gives the legs between the two. A customer is given back what was charged too much;
//! more is only taken as far as the caller allows, by default never. What could not be collected
//! of a sale gets smaller with the sale, and by what is taken later; it never grows. Costs are
//! corrected both ways, and a payable that was estimated is cleared to the confirmed one.
//! Invariant: after its legs are booked too, it gives none. Source: `reliability` 1.4, and 1.6,
//! rows 12, 13, 15 and 20.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::fx::{further_legs, lacking};
use super::{Account, Close, Component, Leg, Settlement, cost_leg};
use crate::money::{Currency, Error};

/// Sums of amounts by the accounts that they are debited to and credited to, in order.
type Flows<'a> = Vec<((&'a Account, &'a Account, Currency), i128)>;

/// What a correction may take more of a customer, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// At most, in all.
    pub all: i64,
    /// What of it there is of promotional credit, which goes first.
    pub promo: i64,
}

/// The legs that lead from what is `booked` about a hold, refunds and earlier corrections included,
/// to what `settlement` says. At most `may_take` more is taken, promotional credit first.
///
/// # Errors
/// [`Error::Overflow`] when a sum leaves 64 bits.
pub fn true_up(booked: &[Leg], settlement: &Settlement, may_take: Room) -> Result<Vec<Leg>, Error> {
    let mut legs = sale(booked, settlement, may_take)?;
    legs.extend(costs(booked, settlement)?);
    Ok(legs)
}

/// The same for a report of some attempts: those that the settlement does not name stay as they are
/// booked, and without `may_take` the sale does, too.
///
/// # Errors
/// [`Error::Overflow`] when a sum leaves 64 bits.
pub fn true_up_named(
    booked: &[Leg],
    settlement: &Settlement,
    may_take: Option<Room>,
) -> Result<Vec<Leg>, Error> {
    let mut legs = match may_take {
        Some(may_take) => sale(booked, settlement, may_take)?,
        None => Vec::new(),
    };
    let is_named = |leg: &&Leg| settlement.attempts.iter().any(|a| leg.attempt == Some(a.n));
    let named: Vec<Leg> = booked.iter().filter(is_named).cloned().collect();
    legs.extend(costs(&named, settlement)?);
    Ok(legs)
}

fn sale(booked: &[Leg], settlement: &Settlement, may_take: Room) -> Result<Vec<Leg>, Error> {
    let (owed, estimate) = match settlement.close {
        Close::Settle { sale, estimate } => (sale, estimate),
        Close::Release => (0, false),
    };
    let sold = flows(booked, Component::Sale);
    let charged = sum(sold.iter().map(|(_, amount)| *amount))?;
    let refunds = || booked.iter().filter(|leg| leg.component == Component::Refund);
    let refunded = sum(refunds().filter(|leg| is_customer(&leg.credit)).map(|l| l.amount.into()))?;
    // What was given back already, for whatever reason, is not given back again.
    let paid = charged.saturating_sub(refunded);
    let excess = paid.saturating_sub(owed.into());
    let mut legs = if excess < 0 {
        // Above what was charged, and not above what is left of it: a refund is not taken back.
        let lacks = i128::from(owed).saturating_sub(charged);
        let more = units(lacks.min(may_take.all.into()))?.max(0);
        more_legs(booked, settlement, (owed, estimate), (charged, more, may_take.promo))?
    } else {
        less_legs(booked, settlement, (charged, excess, estimate))?
    };
    let mut moved = legs.iter().filter(|leg| leg.component == Component::Sale);
    let moved = moved.try_fold(0_i128, |sum, leg| {
        let amount = i128::from(leg.amount);
        sum.checked_add(if is_customer(&leg.debit) { amount } else { amount.saturating_neg() })
    });
    let total = charged.checked_add(moved.ok_or(Error::Overflow)?).ok_or(Error::Overflow)?;
    legs.extend(no_longer_lacking(booked, settlement, (owed, estimate), units(total)?)?);
    Ok(legs)
}

/// The legs that take `more` units, which are at most what is owed above what was `charged`, and at
/// most `promo` of them of promotional credit.
fn more_legs(
    booked: &[Leg],
    settlement: &Settlement,
    sale: (i64, bool),
    (charged, more, promo): (i128, i64, i64),
) -> Result<Vec<Leg>, Error> {
    if more == 0 {
        // Nor is anything converted: the two sides' roundings would differ by a unit.
        return Ok(Vec::new());
    }
    // What is booked of the two sides of a conversion.
    let sold = flows(booked, Component::Sale);
    let at_rate = sold.iter().filter(|((_, sink, _), _)| **sink == Account::FxPosition);
    let at_rate = units(sum(at_rate.map(|(_, amount)| *amount))?)?;
    let in_price = flows(booked, Component::Fx);
    let in_price = units(sum(in_price.iter().map(|(_, amount)| *amount))?)?;
    let total = units(charged.checked_add(more.into()).ok_or(Error::Overflow)?)?;
    Ok(further_legs(settlement, sale, (total, more, promo), (in_price, at_rate)))
}

/// The legs that give back `excess` units of what was `charged`, as far as they were not refunded.
fn less_legs(
    booked: &[Leg],
    settlement: &Settlement,
    (charged, excess, estimate): (i128, i128, bool),
) -> Result<Vec<Leg>, Error> {
    let leg = |debit: &Account, credit: &Account, amount, currency, component| Leg {
        debit: debit.clone(),
        credit: credit.clone(),
        amount,
        currency,
        component,
        attempt: None,
        price: Some(settlement.sale_price.clone()),
        estimate,
    };
    let refunds = || booked.iter().filter(|leg| leg.component == Component::Refund);
    let mut legs = Vec::new();
    let mut left = excess;
    // The last source that was used is the first that gets back: paid money before promotional.
    for ((source, sink, currency), amount) in flows(booked, Component::Sale).iter().rev() {
        // Nor to the same account: else promotional credit would come back as money.
        let had = sum(refunds().filter(|l| l.credit == **source).map(|l| l.amount.into()))?;
        let back = left.min(amount.saturating_sub(had));
        if back > 0 {
            legs.push(leg(sink, source, units(back)?, *currency, Component::Sale));
            left = left.saturating_sub(back);
        }
    }
    // The other currency's side goes back in proportion.
    for ((debit, credit, currency), amount) in flows(booked, Component::Fx) {
        let part = amount.checked_mul(excess.saturating_sub(left)).ok_or(Error::Overflow)?;
        let part = part.checked_div(charged).unwrap_or(0);
        if part > 0 {
            legs.push(leg(credit, debit, units(part)?, currency, Component::Fx));
        }
    }
    Ok(legs)
}

/// The leg that takes back what is booked as not collected and is owed no more, where `total`
/// units are paid for a sale.
fn no_longer_lacking(
    booked: &[Leg],
    settlement: &Settlement,
    (owed, estimate): (i64, bool),
    total: i64,
) -> Result<Option<Leg>, Error> {
    let flows = flows(booked, Component::Uncollected);
    let Some(((exposure, revenue, currency), amount)) = flows.first() else { return Ok(None) };
    let (lacks, of) = if total >= owed { (0, *currency) } else { lacking(settlement, owed, total) };
    let back = amount.saturating_sub(lacks.into());
    // Of another currency: nobody can say what of it is owed no more.
    if back <= 0 || of != *currency {
        return Ok(None);
    }
    Ok(Some(Leg {
        debit: (*revenue).clone(),
        credit: (*exposure).clone(),
        amount: units(back)?,
        currency: *currency,
        component: Component::Uncollected,
        attempt: None,
        price: Some(settlement.sale_price.clone()),
        estimate,
    }))
}

const fn is_customer(account: &Account) -> bool {
    matches!(account, Account::Wallet(_) | Account::Promo(_))
}

/// What legs of one component come to, with what went back taken off.
fn flows(booked: &[Leg], component: Component) -> Flows<'_> {
    let mut flows: Flows<'_> = Vec::new();
    for leg in booked.iter().filter(|leg| leg.component == component) {
        let there = (&leg.debit, &leg.credit, leg.currency);
        let back = (&leg.credit, &leg.debit, leg.currency);
        let amount = i128::from(leg.amount);
        if let Some((_, sum)) = flows.iter_mut().find(|(flow, _)| *flow == back) {
            *sum = sum.saturating_sub(amount);
        } else if let Some((_, sum)) = flows.iter_mut().find(|(flow, _)| *flow == there) {
            *sum = sum.saturating_add(amount);
        } else {
            flows.push((there, amount));
        }
    }
    flows
}

/// One attempt's costs in one currency: what each account lacks, debits above 0, and how the new
/// amount is explained.
#[derive(Default)]
struct Lack {
    accounts: BTreeMap<Account, i128>,
    example: Option<Leg>,
}

fn costs(booked: &[Leg], settlement: &Settlement) -> Result<Vec<Leg>, Error> {
    let mut lacks: BTreeMap<(Option<i16>, Currency), Lack> = BTreeMap::new();
    let mut add = |leg: &Leg, amount: i128| {
        let lack = lacks.entry((leg.attempt, leg.currency)).or_default();
        let debit = lack.accounts.entry(leg.debit.clone()).or_default();
        *debit = debit.saturating_add(amount);
        let credit = lack.accounts.entry(leg.credit.clone()).or_default();
        *credit = credit.saturating_sub(amount);
        lack.example = Some(leg.clone());
    };
    let is_cost = |leg: &&Leg| {
        matches!(leg.component, Component::Cost | Component::Waste | Component::Exposure)
    };
    for leg in booked.iter().filter(is_cost) {
        add(leg, i128::from(leg.amount).saturating_neg());
    }
    for attempt in &settlement.attempts {
        if let Some(leg) = attempt.cost.as_ref().and_then(|cost| cost_leg(attempt, cost)) {
            add(&leg, leg.amount.into());
        }
    }
    let mut legs = Vec::new();
    for lack in lacks.into_values() {
        legs.extend(filled(lack)?);
    }
    Ok(legs)
}

/// The legs that give each account what it lacks: first what only moves between payables or between
/// expenses, then what changes both.
fn filled(mut lack: Lack) -> Result<Vec<Leg>, Error> {
    let Some(example) = lack.example else { return Ok(Vec::new()) };
    let accounts: Vec<Account> = lack.accounts.keys().cloned().collect();
    let mut legs = Vec::new();
    for is_one_sided in [true, false] {
        for (debit, credit) in
            accounts.iter().flat_map(|debit| accounts.iter().map(move |credit| (debit, credit)))
        {
            if is_one_sided && debit.normal() != credit.normal() {
                continue;
            }
            let of = |account| lack.accounts.get(account).copied().unwrap_or(0);
            let amount = of(debit).min(of(credit).saturating_neg());
            if amount <= 0 {
                continue;
            }
            let (still, open) =
                (of(debit).saturating_sub(amount), of(credit).saturating_add(amount));
            lack.accounts.insert(debit.clone(), still);
            lack.accounts.insert(credit.clone(), open);
            let (debit, credit) = (debit.clone(), credit.clone());
            legs.push(Leg { debit, credit, amount: units(amount)?, ..example.clone() });
        }
    }
    Ok(legs)
}

fn sum(mut amounts: impl Iterator<Item = i128>) -> Result<i128, Error> {
    amounts.try_fold(0_i128, i128::checked_add).ok_or(Error::Overflow)
}

fn units(amount: i128) -> Result<i64, Error> {
    i64::try_from(amount).map_err(|_wide| Error::Overflow)
}

#[cfg(test)]
mod tests;
