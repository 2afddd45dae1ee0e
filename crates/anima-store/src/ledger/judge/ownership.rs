//! Judges what happens to a hold between placing and settling it, and after another node closed it.
//!
//! Invariant: nothing here closes a hold, and a correction is posted once per content.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{
    Account, Close, EntryKind, Extension, Leg, Room, Settlement, true_up, true_up_named,
};

use super::{Judge, moved, too_large};
use crate::ledger::booked::given_back;
use crate::ledger::digest::{is_same_report, journal_id};
use crate::ledger::operation::PreparedCorrection;
use crate::ledger::plan::{
    AttemptRow, Booked, BookedTrueup, CorrectedRow, CorrectionRow, JournalRow, ReturnRow, State,
};
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

/// What a correction is judged by.
struct Terms {
    account_id: i64,
    /// When the call was: it may use the promotional credit of that time.
    admitted_at: Timestamp,
    floor: i64,
    /// `None` where the sale stays as it is.
    may_take: Option<Room>,
    /// The customer may be charged more than before.
    upward: bool,
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
    let admitted_at = stored.created_at;
    let was_sold = match stored.state {
        State::Open { node } if node == judge.node => {
            return Err(Error::Refused("the hold is open and ours: settle it".to_owned()));
        }
        State::Open { .. } => return Err(Error::Fenced),
        State::Closed { digest, .. } if digest == settle.digest => return Ok(REPLAY),
        State::Closed { charged, uncollected, .. } => charged > 0 || uncollected > 0,
    };
    if was_posted_to(judge, settlement.hold) {
        return Err(Error::Fenced);
    }
    let booked = judge.known.booked.remove(&settlement.hold).unwrap_or_default();
    let floor = judge.wallet(account_id)?.floor;
    // What was closed as not sold stays so where its caller may have asked again under the same
    // key, or its task has been given back.
    let upward = match correction.sale {
        SaleCorrection::Delivered => true,
        SaleCorrection::BothWays => was_sold,
        SaleCorrection::DownOnly | SaleCorrection::Keep => false,
    };
    let may_take = match correction.sale {
        SaleCorrection::Keep => None,
        SaleCorrection::BothWays | SaleCorrection::Delivered if upward => {
            Some(room(judge, (account_id, floor), admitted_at)?)
        }
        SaleCorrection::BothWays | SaleCorrection::Delivered | SaleCorrection::DownOnly => {
            Some(Room::default())
        }
    };
    let terms = Terms { account_id, admitted_at, floor, may_take, upward };
    let (booked, verdict) = correct(judge, booked, correction, &terms);
    judge.known.booked.insert(settlement.hold, booked);
    verdict
}

/// What of a wallet may be taken later for a call, like what its settlement could have taken.
fn room(
    judge: &mut Judge<'_, '_>,
    (account_id, floor): (i64, i64),
    admitted_at: Timestamp,
) -> Result<Room, Error> {
    let expired = judge.expired(account_id, admitted_at);
    let promo = judge.usable(account_id, admitted_at);
    let above = judge.wallet(account_id)?.above(floor);
    Ok(Room { all: above.saturating_sub(expired).max(0), promo })
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
    terms: &Terms,
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
        true_up_named(&booked.legs, &settle.settlement, terms.may_take)
    } else {
        true_up(&booked.legs, &settle.settlement, terms.may_take.unwrap_or_default())
    };
    let legs = legs.map_err(|_overflow| too_large());
    let posted = legs.and_then(|legs| {
        let seq = booked.trueups.iter().map(|trueup| trueup.seq).max().unwrap_or(0);
        let seq = seq.checked_add(1).ok_or_else(too_large)?;
        let attempts = judge.attempts(settle)?;
        let journal = post_correction(judge, &legs, correction, (seq, terms))?;
        Ok((legs, attempts, seq, journal))
    });
    let verdict = posted.map(|(legs, attempts, seq, journal)| {
        if journal.is_some() {
            note_ground(judge, &booked, correction, (seq, &attempts, terms.upward));
        }
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
    (seq, terms): (i16, &Terms),
) -> Result<Option<Uuid>, Error> {
    if legs.is_empty() {
        return Ok(None);
    }
    let settle = &correction.settle;
    let hold = settle.settlement.hold;
    let mut wallets = Vec::new();
    for effect in judge.effects(legs)? {
        let wallet = judge.wallet(effect.account_id)?;
        wallets.push((effect.account_id, moved(wallet, &effect, terms.floor)?));
    }
    let (taken, returned) = judge.moved_credit(legs, &mut wallets)?;
    let id = journal_id(judge.posted_at, &settle.digest);
    judge.book(
        legs,
        JournalRow {
            id,
            key: (hold, EntryKind::Trueup.number(), seq),
            at: settle.settlement.at,
            estimate: legs.iter().any(|leg| leg.estimate),
            digest: settle.digest,
            reference: &correction.reference,
        },
    )?;
    judge.known.wallets.extend(wallets);
    judge.take_credit(hold, (terms.account_id, terms.admitted_at), taken);
    if returned > 0 {
        judge.plan.returns.push(ReturnRow { hold, amount: returned });
    }
    Ok(Some(id))
}

/// Writes down what a correction rests on, so that it can be computed again.
fn note_ground<'a>(
    judge: &mut Judge<'_, 'a>,
    booked: &Booked,
    correction: &PreparedCorrection,
    (seq, attempts, upward): (i16, &[AttemptRow<'a>], bool),
) {
    let hold = correction.settle.settlement.hold;
    judge.plan.corrections.push(ground_of_sale(correction, seq, upward));
    for row in attempts {
        let n = row.attempt.n;
        let is_new = !booked.attempts.contains(&n);
        judge.plan.corrected.push(CorrectedRow { hold, seq, n, is_new, attempt: Some(*row) });
    }
    // A report leaves the others alone; what is not part of a settlement costs nothing any more.
    let gone = |n: &&i16| !correction.is_report && attempts.iter().all(|row| row.attempt.n != **n);
    for n in booked.attempts.iter().filter(gone) {
        let row = CorrectedRow { hold, seq, n: *n, is_new: false, attempt: None };
        judge.plan.corrected.push(row);
    }
}

fn ground_of_sale(correction: &PreparedCorrection, seq: i16, upward: bool) -> CorrectionRow {
    let Settlement { hold, close, conversion, .. } = &correction.settle.settlement;
    let row = CorrectionRow { hold: *hold, seq, owed: None, priced: None, estimate: false, upward };
    match close {
        _ if correction.sale == SaleCorrection::Keep => row,
        Close::Release => CorrectionRow { owed: Some(0), ..row },
        Close::Settle { sale, estimate } => CorrectionRow {
            owed: Some(*sale),
            priced: Some(conversion.as_ref().map_or(*sale, |conversion| conversion.sale)),
            estimate: *estimate,
            ..row
        },
    }
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
