//! Judges what happens to a hold between placing and settling it, and after another node closed it.
//!
//! Invariant: nothing here closes a hold, and a correction is posted once per content.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use anima_core::ledger::{Account, EntryKind, Extension, Leg, true_up, true_up_named};

use super::{Judge, moved, too_large};
use crate::ledger::booked::given_back;
use crate::ledger::digest::{is_same_report, journal_id};
use crate::ledger::operation::PreparedCorrection;
use crate::ledger::plan::{AttemptRow, Booked, BookedTrueup, JournalRow, ReturnRow, State};
use crate::ledger::{Error, SaleCorrection, TruedUp};

pub(super) fn extend(judge: &mut Judge<'_, '_>, extension: &Extension) -> Result<(), Error> {
    let owner = Account::Wallet(Arc::clone(&extension.app));
    let account_id = judge.account(&owner, extension.currency)?;
    let stored = judge.known.holds.get(&extension.hold).ok_or(Error::HoldUnknown)?;
    if stored.account_id != account_id {
        return Err(Error::Conflict);
    }
    match stored.state {
        State::Closed { node, .. } | State::Open { node } if node != judge.node => {
            return Err(Error::Fenced);
        }
        State::Closed { .. } => return Err(Error::HoldUnknown),
        State::Open { .. } => {}
    }
    let more = extension.amount.checked_sub(stored.amount).ok_or_else(too_large)?;
    if more <= 0 {
        return Ok(());
    }
    let expired = judge.expired(account_id, stored.created_at);
    let wallet = judge.wallet(account_id)?;
    wallet.follow_floor(extension.floor);
    let available = wallet.above(extension.floor).saturating_sub(expired);
    if more > available {
        return Err(Error::InsufficientFunds { available });
    }
    wallet.held = wallet.held.checked_add(more).ok_or_else(too_large)?;
    wallet.changed = true;
    if let Some(stored) = judge.known.holds.get_mut(&extension.hold) {
        let extended = judge.plan.extensions.entry(extension.hold);
        extended.or_insert((stored.amount, extension.amount)).1 = extension.amount;
        stored.amount = extension.amount;
    }
    Ok(())
}

pub(super) fn correction<'a>(
    judge: &mut Judge<'_, 'a>,
    correction: &'a PreparedCorrection,
) -> Result<TruedUp, Error> {
    let settle = &correction.settle;
    let settlement = &settle.settlement;
    let wallet = Account::Wallet(Arc::clone(&settlement.app));
    let account_id = judge.account(&wallet, settlement.currency)?;
    let stored = judge.known.holds.get(&settlement.hold).ok_or(Error::HoldUnknown)?;
    if stored.account_id != account_id {
        return Err(Error::Conflict);
    }
    match stored.state {
        State::Open { node } if node == judge.node => {
            return Err(Error::Refused("the hold is open and ours: settle it".to_owned()));
        }
        State::Open { .. } => return Err(Error::Fenced),
        State::Closed { digest, .. } if digest == settle.digest => return Ok(REPLAY),
        State::Closed { .. } => {}
    }
    if was_posted_to(judge, settlement.hold) {
        return Err(Error::Fenced);
    }
    let booked = judge.known.booked.remove(&settlement.hold).unwrap_or_default();
    let floor = judge.wallet(account_id)?.floor;
    let may_take = match correction.sale {
        SaleCorrection::Keep => None,
        SaleCorrection::DownOnly => Some(0),
        SaleCorrection::BothWays => Some(judge.wallet(account_id)?.money_above(floor).max(0)),
    };
    let (booked, verdict) = correct(judge, booked, correction, (may_take, floor));
    judge.known.booked.insert(settlement.hold, booked);
    verdict
}

/// Whether this batch closes the hold or posts about it, which is not among what was read.
fn was_posted_to(judge: &Judge<'_, '_>, hold: Uuid) -> bool {
    let is_other = |row: &JournalRow<'_>| {
        let (subject, kind, _) = row.key;
        subject == hold && kind != EntryKind::Trueup.number()
    };
    judge.plan.closings.iter().any(|closed| closed.id == hold)
        || judge.plan.journals.iter().any(is_other)
}

/// Posts what lies between the books and the settlement, and gives the books as they are then.
fn correct<'a>(
    judge: &mut Judge<'_, 'a>,
    mut booked: Booked,
    correction: &'a PreparedCorrection,
    (may_take, floor): (Option<i64>, i64),
) -> (Booked, Result<TruedUp, Error>) {
    let settle = &correction.settle;
    let earlier = booked.trueups.iter().find(|trueup| trueup.digest == settle.digest);
    if let Some(&BookedTrueup { journal, given_back, .. }) = earlier {
        return (booked, Ok(TruedUp { journal: Some(journal), given_back, replayed: true }));
    }
    let other = |trueup: &BookedTrueup| is_same_report(&trueup.digest, &settle.digest);
    if correction.is_report && booked.trueups.iter().any(other) {
        return (booked, Err(Error::Conflict));
    }
    let legs = if correction.is_report {
        true_up_named(&booked.legs, &settle.settlement, may_take)
    } else {
        true_up(&booked.legs, &settle.settlement, may_take.unwrap_or(0))
    };
    let legs = legs.map_err(|_overflow| too_large());
    let posted = legs.and_then(|legs| {
        let seq = booked.trueups.iter().map(|trueup| trueup.seq).max().unwrap_or(0);
        let seq = seq.checked_add(1).ok_or_else(too_large)?;
        let attempts = judge.attempts(settle)?;
        let journal = post_correction(judge, &legs, correction, (seq, floor))?;
        Ok((legs, attempts, seq, journal))
    });
    let verdict = posted.map(|(legs, attempts, seq, journal)| {
        later_attempts(judge, &mut booked, attempts);
        let given_back = given_back(&legs);
        let digest = settle.digest;
        let posted = journal.map(|journal| BookedTrueup { seq, journal, digest, given_back });
        booked.trueups.extend(posted);
        booked.legs.extend(legs);
        TruedUp { journal, given_back, replayed: false }
    });
    (booked, verdict)
}

fn post_correction<'a>(
    judge: &mut Judge<'_, 'a>,
    legs: &[Leg],
    correction: &'a PreparedCorrection,
    (seq, floor): (i16, i64),
) -> Result<Option<Uuid>, Error> {
    if legs.is_empty() {
        return Ok(None);
    }
    let settle = &correction.settle;
    let mut wallets = Vec::new();
    for effect in judge.effects(legs)? {
        let wallet = judge.wallet(effect.account_id)?;
        wallets.push((effect.account_id, moved(wallet, &effect, floor)?));
    }
    let returned = judge.returned_credit(legs, &mut wallets)?;
    let id = journal_id(judge.posted_at, &settle.digest);
    judge.book(
        legs,
        JournalRow {
            id,
            key: (settle.settlement.hold, EntryKind::Trueup.number(), seq),
            at: settle.settlement.at,
            estimate: legs.iter().any(|leg| leg.estimate),
            digest: settle.digest,
            reference: &correction.reference,
        },
    )?;
    judge.known.wallets.extend(wallets);
    if returned > 0 {
        judge.plan.returns.push(ReturnRow { hold: settle.settlement.hold, amount: returned });
    }
    Ok(Some(id))
}

/// Records the attempts that nobody knew of. What is recorded of the others stays.
fn later_attempts<'a>(
    judge: &mut Judge<'_, 'a>,
    booked: &mut Booked,
    attempts: Vec<AttemptRow<'a>>,
) {
    for row in attempts {
        if !booked.attempts.contains(&row.attempt.n) {
            booked.attempts.push(row.attempt.n);
            judge.plan.attempts.push(row);
        }
    }
}

const REPLAY: TruedUp = TruedUp { journal: None, given_back: 0, replayed: true };
