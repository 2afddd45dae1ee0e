//! What must hold after every transaction, and what must hold when everything has come to rest.
//!
//! The books are compared with themselves after each transaction (the bank's checks) and with the
//! providers' own log at the end. Invariant: nothing here reads what a process believes.

use std::collections::BTreeMap;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, Component, EntryKind};
use anima_core::usage::UsageSource;

use super::call::charge;
use super::upstream::{CHANNELS, Truth, cost_list, sale_list};
use super::world::State;
use crate::ledger::plan::State as HoldState;
use crate::ledger::tests::memory::{LegRow, Memory};

/// After every transaction.
pub(super) fn always(state: &State) -> Result<(), String> {
    let store = &state.store;
    bank(store)?;
    balances(store)?;
    settlements(store)
}

/// I2, I4: money is neither made nor lost, and no wallet is below its floor.
fn bank(store: &Memory) -> Result<(), String> {
    let mut sums = (0_i128, 0_i128);
    for (id, wallet) in &store.wallets {
        sums.0 += i128::from(wallet.debits);
        sums.1 += i128::from(wallet.credits);
        if wallet.above(wallet.floor) < 0 || wallet.held < 0 {
            return Err(format!("I4: {} is below its floor: {wallet:?}", store.accounts[id].0));
        }
    }
    for (debits, credits) in store.house.values() {
        sums.0 += debits;
        sums.1 += credits;
    }
    if sums.0 == sums.1 {
        Ok(())
    } else {
        Err(format!("I2: {} debits, {} credits", sums.0, sums.1))
    }
}

/// I3: each balance equals its legs, and what a wallet holds equals its open holds.
fn balances(store: &Memory) -> Result<(), String> {
    let mut posted: BTreeMap<i64, (i128, i128)> = BTreeMap::new();
    let ids: BTreeMap<_, _> = store.accounts.iter().map(|(id, account)| (account, *id)).collect();
    for row in &store.legs {
        let LegRow { leg, .. } = row;
        let id = |account: &Account| ids[&(account.clone(), leg.currency)];
        posted.entry(id(&leg.debit)).or_default().0 += i128::from(leg.amount);
        posted.entry(id(&leg.credit)).or_default().1 += i128::from(leg.amount);
    }
    let mut held: BTreeMap<i64, i64> = BTreeMap::new();
    for hold in store.holds.values() {
        if let HoldState::Open { .. } = hold.stored.state {
            *held.entry(hold.stored.account_id).or_default() += hold.stored.amount;
        }
    }
    for (id, (account, _)) in &store.accounts {
        let balance = match store.wallets.get(id) {
            Some(wallet) => (i128::from(wallet.debits), i128::from(wallet.credits)),
            None => store.house.get(id).copied().unwrap_or_default(),
        };
        let rows = posted.get(id).copied().unwrap_or_default();
        if balance != rows {
            return Err(format!("I3: {account} says {balance:?}, its legs {rows:?}"));
        }
        let says = store.wallets.get(id).map_or(0, |wallet| wallet.held);
        let open = held.get(id).copied().unwrap_or(0);
        if says != open {
            return Err(format!("I3: {account} holds {says}, its open holds {open}"));
        }
    }
    Ok(())
}

/// I5, I7: one settlement for each settled hold, none for any other, no attempt without a hold.
fn settlements(store: &Memory) -> Result<(), String> {
    let mut sales: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut losses: BTreeMap<Uuid, i64> = BTreeMap::new();
    for row in &store.legs {
        let of = |component| row.leg.component == component;
        let sums = if of(Component::Uncollected) { &mut losses } else { &mut sales };
        if of(Component::Sale) || of(Component::Uncollected) {
            let is_settlement = row.kind == EntryKind::Settle.number();
            *sums.entry(row.subject).or_default() += if is_settlement { row.leg.amount } else { 0 };
        }
    }
    for (id, hold) in &store.holds {
        let journals =
            store.gates.keys().filter(|key| key.0 == *id && key.1 == EntryKind::Settle.number());
        let (count, sale) = (journals.count(), sales.remove(id).unwrap_or(0));
        let wanted = usize::from(hold.settled.is_some());
        if count != wanted || sale != hold.settled.unwrap_or(0) {
            return Err(format!("I5: hold {id} is {hold:?}, with {count} settlements of {sale}"));
        }
        let lost = losses.remove(id).unwrap_or(0);
        let lacks = match hold.stored.state {
            HoldState::Closed { uncollected, .. } => uncollected,
            HoldState::Open { .. } => 0,
        };
        if lost != lacks {
            return Err(format!("I5: hold {id} lacks {lacks}, and {lost} are booked as our loss"));
        }
    }
    if let Some(key) = store.attempts.keys().find(|key| !store.holds.contains_key(&key.0)) {
        return Err(format!("I7: attempt {key:?} has no hold"));
    }
    match sales.keys().chain(losses.keys()).next() {
        Some(id) => Err(format!("I5: a sale for {id}, which has no hold")),
        None => Ok(()),
    }
}

/// When everything has come to rest, at instant `now`.
pub(super) fn at_rest(state: &State, now: Timestamp) -> Result<(), String> {
    always(state)?;
    let store = &state.store;
    let open = |state: &HoldState| matches!(state, HoldState::Open { .. });
    if let Some((id, hold)) = store.holds.iter().find(|(_, hold)| open(&hold.stored.state)) {
        return Err(format!("I6: hold {id} is open at rest: {hold:?}"));
    }
    nothing_is_lost(state, now)?;
    nothing_is_made_up(state)?;
    sales_are_deserved(state, now)?;
    wallets_are_what_was_paid_in(state)
}

/// What is booked about one attempt, corrections included: confirmed and estimated payables.
fn payable(store: &Memory, key: &(Uuid, i16)) -> (i64, i64) {
    let legs =
        store.legs.iter().filter(|row| row.subject == key.0 && row.leg.attempt == Some(key.1));
    let mut sums = (0, 0);
    for LegRow { leg, .. } in legs {
        for (account, amount) in [(&leg.credit, leg.amount), (&leg.debit, -leg.amount)] {
            if let Account::Payable(_) = account {
                sums.0 += amount;
            } else if let Account::PayableEstimated(_) = account {
                sums.1 += amount;
            }
        }
    }
    sums
}

/// Each call that a provider charges for is booked once: for what it charges, or as an estimate.
fn nothing_is_lost(state: &State, now: Timestamp) -> Result<(), String> {
    for (key, truth) in &state.upstream.log {
        let billed = truth.billed(now);
        if billed.is_empty() {
            continue;
        }
        let exact = charge(&cost_list(&truth.channel), &billed);
        match payable(&state.store, key) {
            // One stated estimate stands for all calls of a request of which nothing is known.
            (0, 0) if has_estimate(&state.store, key.0) => {}
            (0, 0) => return Err(format!("lost: {key:?} {truth:?} is not in the books")),
            (confirmed, 0) if confirmed != exact => {
                return Err(format!("wrong: {key:?} costs {exact} and is booked for {confirmed}"));
            }
            (confirmed, estimated) if confirmed < 0 || estimated < 0 => {
                return Err(format!("wrong: {key:?} owes {confirmed} and about {estimated}"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn has_estimate(store: &Memory, hold: Uuid) -> bool {
    let of_hold = store.attempts.range((hold, i16::MIN)..=(hold, i16::MAX));
    of_hold.into_iter().any(|(key, _)| payable(store, key).1 > 0)
}

/// Nothing is booked as reported that no provider charges for.
fn nothing_is_made_up(state: &State) -> Result<(), String> {
    for (key, attempt) in &state.store.attempts {
        let booked = attempt.cost.as_ref().is_some_and(|cost| cost.amount > 0 && !cost.estimate);
        let real = state.upstream.log.get(key);
        let same = real.is_some_and(|truth: &Truth| truth.channel.name == &*attempt.channel);
        if booked && !same {
            return Err(format!("phantom: {key:?} is booked and was never made: {attempt:?}"));
        }
        let known = CHANNELS.iter().any(|channel| channel.name == &*attempt.channel);
        if !known || booked && attempt.usage_source != UsageSource::Provider {
            return Err(format!("wrong: {key:?} has {attempt:?}"));
        }
    }
    Ok(())
}

/// Nobody pays for more than was made for it, and who saw the end of an answer paid for it.
fn sales_are_deserved(state: &State, now: Timestamp) -> Result<(), String> {
    for id in state.store.holds.keys() {
        let settled = sold(&state.store, *id);
        let calls = state.upstream.log.range((*id, i16::MIN)..=(*id, i16::MAX));
        let most = calls.map(|(_, truth)| charge(&sale_list(), &truth.billed(now))).max();
        if settled > most.unwrap_or(0) {
            return Err(format!("wrong: {id} is sold for {settled}; at most {most:?} was made"));
        }
    }
    for (id, charged) in &state.answered {
        let settled = state.store.holds.get(id).and_then(|hold| hold.settled);
        if settled != Some(*charged) {
            return Err(format!("lost: {id} was answered for {charged} and is {settled:?}"));
        }
    }
    Ok(())
}

/// What a request was sold for, corrections included.
fn sold(store: &Memory, hold: Uuid) -> i64 {
    let legs = store.legs.iter().filter(|row| row.subject == hold);
    let legs = legs.filter(|row| row.leg.component == Component::Sale);
    legs.map(
        |row| if row.leg.credit == Account::Revenue { row.leg.amount } else { -row.leg.amount },
    )
    .sum()
}

/// Wallets hold what was paid in and not sold, and nothing was paid in twice.
fn wallets_are_what_was_paid_in(state: &State) -> Result<(), String> {
    let store = &state.store;
    let mut paid: BTreeMap<&Account, i64> = BTreeMap::new();
    for (id, (amount, told)) in &state.paid_in {
        let rows = store.legs.iter().filter(|row| row.subject == Uuid::from_u128(*id));
        let rows: Vec<_> = rows.collect();
        match rows.as_slice() {
            [] if !told => {}
            [row] if row.leg.amount == *amount => {
                *paid.entry(&row.leg.credit).or_default() += amount;
            }
            _ => return Err(format!("bank: {amount} were paid in once, the books say {rows:?}")),
        }
    }
    for (id, wallet) in &store.wallets {
        let account = &store.accounts[id].0;
        let Account::Wallet(app) = account else { continue };
        let paid = paid.get(account).copied().unwrap_or(0);
        let holds = store.holds.iter().filter(|(_, hold)| hold.app == *app);
        let spent: i64 = holds.map(|(id, _)| sold(store, *id)).sum();
        if wallet.credits - wallet.debits != paid - spent {
            return Err(format!(
                "bank: {account} has {wallet:?}; {paid} came in, {spent} was sold"
            ));
        }
    }
    Ok(())
}
