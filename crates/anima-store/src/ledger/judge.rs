//! Judges a batch: from what the database says and what is asked, to verdicts and rows to write.
//!
//! Pure, and the same for both databases. A store reads [`Known`], calls
//! [`Judge::judge`], and writes the [`Plan`] in the same transaction. Operations are judged one
//! after the other, each seeing what the ones before it did.
//! Invariant: an operation that is refused leaves no trace but a followed floor.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{
    Account, Close, EntryKind, Hold, Leg, PriceRef, Settlement, collectable, legs_with_promo,
};
use anima_core::money::Currency;

use super::digest::journal_id;
use super::directory::Directory;
use super::operation::{Item, Operation, PreparedEntry, PreparedSettlement, Verdict};
use super::plan::{
    AttemptRow, ClosedHold, JournalRow, Known, LegRow, OpenedHold, Plan, State, StoredHold, Wallet,
};
use super::{Error, Posted, Settled};

mod credit; // promotional credit
mod ownership; // extensions and corrections

/// One batch in front of the judge.
#[derive(Debug)]
pub(super) struct Judge<'k, 'a> {
    pub(super) directory: &'k Directory,
    /// This process start: what it holds, only it may close.
    pub(super) node: Uuid,
    /// The database's clock at the start of the batch.
    pub(super) posted_at: Timestamp,
    pub(super) known: &'k mut Known,
    pub(super) plan: Plan<'a>,
}

/// What an entry does to one wallet.
struct Effect {
    account_id: i64,
    debits: i64,
    credits: i64,
}

/// A defect: the store did not look up what it must before judging.
fn not_loaded(what: &str) -> Error {
    Error::Refused(format!("{what} was not loaded"))
}

fn too_large() -> Error {
    Error::Refused("an amount leaves 64 bits".to_owned())
}

fn sale_of(settlement: &Settlement) -> i64 {
    match settlement.close {
        Close::Settle { sale, .. } => sale,
        Close::Release => 0,
    }
}

impl<'a> Judge<'_, 'a> {
    /// Judges in the given order, one verdict per item.
    pub(super) fn judge(&mut self, items: &'a [Item]) -> Vec<Verdict> {
        let verdicts = items.iter().map(|item| self.verdict(item)).collect();
        self.plan.sort();
        verdicts
    }

    fn verdict(&mut self, item: &'a Item) -> Verdict {
        match &item.operation {
            Operation::Hold(hold) => Verdict::Held(self.hold(hold)),
            Operation::Settle(settle) => Verdict::Settled(self.settle(settle)),
            Operation::Post(post) => Verdict::Posted(self.post(post)),
            Operation::Extend(extension) => Verdict::Extended(ownership::extend(self, extension)),
            Operation::TrueUp(correction) => {
                Verdict::TruedUp(ownership::correction(self, correction))
            }
            Operation::Checkpoint(written) => {
                self.plan.checkpoints.insert(written.checkpoint.hold, written);
                Verdict::Checkpointed(Ok(()))
            }
        }
    }

    fn hold(&mut self, hold: &'a Hold) -> Result<(), Error> {
        let account_id = self.account(&Account::Wallet(Arc::clone(&hold.app)), hold.currency)?;
        let price_id = self.price(&hold.sale_price)?;
        if let Some(stored) = self.known.holds.get(&hold.id) {
            let same = stored.account_id == account_id
                && stored.price_id == price_id
                && stored.amount == hold.amount
                && stored.kid == hold.kid
                && stored.alias == hold.alias;
            return if same { Ok(()) } else { Err(Error::Conflict) };
        }
        if self.known.is_fenced {
            return Err(Error::Fenced);
        }
        let cost_price_id = hold.exposure.as_ref().map(|e| self.price(&e.price)).transpose()?;
        let fx_id = hold.fx.as_ref().map(|rate| self.price(rate)).transpose()?;
        let expired = self.expired(account_id, hold.created_at);
        let wallet = self.wallet(account_id)?;
        wallet.follow_floor(hold.floor);
        let available = wallet.above(hold.floor).saturating_sub(expired);
        if hold.amount > available || available < 0 {
            return Err(Error::InsufficientFunds { available });
        }
        wallet.held = wallet.held.checked_add(hold.amount).ok_or_else(too_large)?;
        wallet.changed = true;
        let stored = StoredHold {
            account_id,
            price_id,
            amount: hold.amount,
            kid: Arc::clone(&hold.kid),
            alias: Arc::clone(&hold.alias),
            created_at: hold.created_at,
            state: State::Open { node: self.node },
        };
        self.known.holds.insert(hold.id, stored);
        self.plan.holds.push(OpenedHold { hold, account_id, price_id, cost_price_id, fx_id });
        Ok(())
    }

    fn settle(&mut self, settle: &'a PreparedSettlement) -> Result<Settled, Error> {
        let settlement = &settle.settlement;
        let wallet = Account::Wallet(Arc::clone(&settlement.app));
        let account_id = self.account(&wallet, settlement.currency)?;
        let stored = self.known.holds.get(&settlement.hold).ok_or(Error::HoldUnknown)?;
        if stored.account_id != account_id {
            return Err(Error::Conflict);
        }
        let admitted_at = stored.created_at;
        let amount = match stored.state {
            State::Closed { charged, uncollected, digest, .. } if digest == settle.digest => {
                return Ok(Settled { charged, uncollected, replayed: true });
            }
            State::Closed { node, .. } if node == self.node => return Err(Error::Conflict),
            State::Open { node } if node == self.node => stored.amount,
            // Another node has taken the hold over, and has closed it or will.
            State::Closed { .. } | State::Open { .. } => return Err(Error::Fenced),
        };
        let mut wallet = *self.wallet(account_id)?;
        let sale = sale_of(settlement);
        let expired = self.expired(account_id, admitted_at);
        let available = wallet.above(wallet.floor).saturating_sub(expired);
        let charged = collectable(sale, amount, available);
        let promo = charged.min(self.usable(account_id, admitted_at));
        wallet.promo = wallet.promo.checked_sub(promo).ok_or_else(too_large)?;
        let money = charged.saturating_sub(promo);
        wallet.debits = wallet.debits.checked_add(money).ok_or_else(too_large)?;
        // Never below zero while I3 holds; where it does not, the database refuses the row.
        wallet.held = wallet.held.checked_sub(amount).ok_or_else(too_large)?;
        wallet.changed = true;
        self.book_settlement(settle, charged, promo)?;
        *self.wallet(account_id)? = wallet;
        self.take_credit(settlement.hold, (account_id, admitted_at), promo);
        Ok(self.close(settle, amount, (charged, sale.saturating_sub(charged))))
    }

    fn close(
        &mut self,
        settle: &PreparedSettlement,
        amount: i64,
        (charged, uncollected): (i64, i64),
    ) -> Settled {
        let settlement = &settle.settlement;
        let digest = settle.digest;
        if let Some(stored) = self.known.holds.get_mut(&settlement.hold) {
            stored.state = State::Closed { node: self.node, charged, uncollected, digest };
        }
        self.plan.closings.push(ClosedHold {
            id: settlement.hold,
            amount,
            settled: matches!(settlement.close, Close::Settle { .. }).then_some(charged),
            uncollected,
            digest,
            at: settlement.at,
        });
        Settled { charged, uncollected, replayed: false }
    }

    /// Plans the journal, legs and attempts of a settlement. The wallet is the caller's.
    fn book_settlement(
        &mut self,
        settle: &'a PreparedSettlement,
        charged: i64,
        promo: i64,
    ) -> Result<(), Error> {
        let settlement = &settle.settlement;
        let collected;
        let legs = if charged == sale_of(settlement) && promo == 0 {
            &settle.legs
        } else {
            collected = legs_with_promo(settlement, charged, promo);
            &collected
        };
        let attempts = self.attempts(settle)?;
        let (kind, sale_estimate) = match settlement.close {
            Close::Settle { estimate, .. } => (EntryKind::Settle, estimate),
            Close::Release => (EntryKind::ReleaseCost, false),
        };
        // A settlement has its journal even when nothing was owed: it is what I5 counts.
        if kind == EntryKind::Settle || !legs.is_empty() {
            self.book(
                legs,
                JournalRow {
                    id: journal_id(self.posted_at, &settle.digest),
                    key: (settlement.hold, kind.number(), 0),
                    at: settlement.at,
                    estimate: sale_estimate || legs.iter().any(|leg| leg.estimate),
                    digest: settle.digest,
                    reference: "",
                },
            )?;
        }
        self.plan.attempts.extend(attempts);
        Ok(())
    }

    fn attempts(&self, settle: &'a PreparedSettlement) -> Result<Vec<AttemptRow<'a>>, Error> {
        let hold = settle.settlement.hold;
        let with_usage = settle.settlement.attempts.iter().zip(&settle.usages);
        with_usage
            .map(|(attempt, usage)| {
                let price = attempt.cost.as_ref().map(|cost| self.price(&cost.price));
                let cost_price_id = price.transpose()?;
                Ok(AttemptRow { hold, attempt, usage, cost_price_id })
            })
            .collect()
    }

    fn post(&mut self, post: &'a PreparedEntry) -> Result<Posted, Error> {
        let entry = &post.entry;
        let key = (entry.subject, entry.kind.number(), entry.seq);
        if let Some((journal, digest)) = self.known.gates.get(&key) {
            let replay = Posted { journal: *journal, replayed: true };
            return if *digest == post.digest { Ok(replay) } else { Err(Error::Conflict) };
        }
        let mut wallets = Vec::new();
        for effect in self.effects(&entry.legs)? {
            let wallet = self.wallet(effect.account_id)?;
            wallets.push((effect.account_id, moved(wallet, &effect, entry.floor)?));
        }
        let id = journal_id(self.posted_at, &post.digest);
        self.book(
            &entry.legs,
            JournalRow {
                id,
                key,
                at: entry.at,
                estimate: entry.legs.iter().any(|leg| leg.estimate),
                digest: post.digest,
                reference: &entry.reference,
            },
        )?;
        self.known.wallets.extend(wallets);
        self.known.gates.insert(key, (id, post.digest));
        Ok(Posted { journal: id, replayed: false })
    }

    fn effects(&self, legs: &[Leg]) -> Result<Vec<Effect>, Error> {
        let mut effects: Vec<Effect> = Vec::new();
        for leg in legs {
            for (account, debit, credit) in
                [(&leg.debit, leg.amount, 0), (&leg.credit, 0, leg.amount)]
            {
                if !account.is_gated() {
                    continue;
                }
                let account_id = self.account(account, leg.currency)?;
                let at = effects.iter().position(|e| e.account_id == account_id);
                let mut effect = at.map_or(Effect { account_id, debits: 0, credits: 0 }, |at| {
                    effects.swap_remove(at)
                });
                effect.debits = effect.debits.checked_add(debit).ok_or_else(too_large)?;
                effect.credits = effect.credits.checked_add(credit).ok_or_else(too_large)?;
                effects.push(effect);
            }
        }
        Ok(effects)
    }

    /// Plans a journal, its legs, and what they do to house accounts. All or nothing.
    fn book(&mut self, legs: &[Leg], journal: JournalRow<'a>) -> Result<(), Error> {
        let mut rows = Vec::with_capacity(legs.len());
        for (leg, n) in legs.iter().zip(1_i16..) {
            rows.push(self.leg(leg, n, journal.id)?);
        }
        for (leg, row) in legs.iter().zip(&rows) {
            let amount = i128::from(leg.amount);
            if !leg.debit.is_gated() {
                let sums = self.plan.house.entry(row.debit_id).or_default();
                sums.0 = sums.0.saturating_add(amount);
            }
            if !leg.credit.is_gated() {
                let sums = self.plan.house.entry(row.credit_id).or_default();
                sums.1 = sums.1.saturating_add(amount);
            }
        }
        self.plan.legs.append(&mut rows);
        self.plan.journals.push(journal);
        Ok(())
    }

    fn leg(&self, leg: &Leg, n: i16, journal: Uuid) -> Result<LegRow, Error> {
        Ok(LegRow {
            journal,
            n,
            debit_id: self.account(&leg.debit, leg.currency)?,
            credit_id: self.account(&leg.credit, leg.currency)?,
            amount: leg.amount,
            currency: leg.currency,
            component: leg.component.number(),
            attempt: leg.attempt,
            price_id: leg.price.as_ref().map(|price| self.price(price)).transpose()?,
            estimate: leg.estimate,
        })
    }

    fn account(&self, account: &Account, currency: Currency) -> Result<i64, Error> {
        let known = self.directory.account(account, currency);
        let known = known.or_else(|| self.promo_account(account, currency));
        known.ok_or_else(|| not_loaded("an account"))
    }

    fn price(&self, price: &PriceRef) -> Result<i64, Error> {
        self.directory.price(price).ok_or_else(|| not_loaded("a price"))
    }

    fn wallet(&mut self, account_id: i64) -> Result<&mut Wallet, Error> {
        self.known.wallets.get_mut(&account_id).ok_or_else(|| not_loaded("a wallet"))
    }
}

/// The wallet after an entry. Money that comes in is never refused; money that goes out may not
/// take the wallet below the floor that the entry brings.
fn moved(wallet: &Wallet, effect: &Effect, floor: i64) -> Result<Wallet, Error> {
    let mut after = *wallet;
    after.debits = wallet.debits.checked_add(effect.debits).ok_or_else(too_large)?;
    after.credits = wallet.credits.checked_add(effect.credits).ok_or_else(too_large)?;
    after.changed = true;
    if effect.debits > effect.credits && after.money_above(floor) < 0 {
        return Err(Error::InsufficientFunds { available: wallet.money_above(floor) });
    }
    after.follow_floor(floor);
    Ok(after)
}
