//! A call on its way to the writer: its content, what could be worked out before, and who waits.
//!
//! Everything that needs no database (legs, hash, usage as JSON, obvious nonsense) is done here, on
//! the caller's thread, because there is only one writer. Invariant: every operation that somebody
//! waits for is answered, with a verdict or by dropping its sender.

use std::sync::Arc;

use tokio::sync::oneshot::Sender;
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::ledger::{
    Account, Checkpoint, Close, Entry, EntryKind, Extension, Hold, Leg, PriceRef, Settlement, legs,
};
use anima_core::money::Currency;

use super::digest::{self, Digest};
use super::{Error, Posted, SaleCorrection, Settled, TruedUp};

pub(super) mod open; // what happens to an open hold, and after it

/// Characters kept of the id that a service gave to a call. Theirs have up to 64.
const UPSTREAM_REF: usize = 128;

/// What is written together.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// Reserve money.
    Hold(Hold),
    /// Close a hold.
    Settle(Box<PreparedSettlement>),
    /// Post an entry.
    Post(Box<PreparedEntry>),
    /// Reserve more.
    Extend(Extension),
    /// Correct what a settlement booked.
    TrueUp(Box<PreparedCorrection>),
    /// Write down how far a call has come.
    Checkpoint(Box<PreparedCheckpoint>),
}

/// A settlement with what follows from it alone.
#[derive(Debug, Clone)]
pub(super) struct PreparedSettlement {
    pub(super) settlement: Settlement,
    /// The legs if the whole sale can be collected.
    pub(super) legs: Vec<Leg>,
    /// Usage of each attempt, as JSON.
    pub(super) usages: Vec<String>,
    pub(super) digest: Digest,
}

/// An entry with what follows from it alone.
#[derive(Debug, Clone)]
pub(super) struct PreparedEntry {
    pub(super) entry: Entry,
    pub(super) digest: Digest,
}

/// A correction with what follows from it alone.
#[derive(Debug, Clone)]
pub(super) struct PreparedCorrection {
    pub(super) settle: PreparedSettlement,
    pub(super) sale: SaleCorrection,
    /// It is about the attempts that it names.
    pub(super) is_report: bool,
    pub(super) reference: String,
}

/// A checkpoint with what follows from it alone.
#[derive(Debug, Clone)]
pub(super) struct PreparedCheckpoint {
    pub(super) checkpoint: Checkpoint,
    /// The upstream calls so far, as JSON.
    pub(super) trail: String,
}

/// What became of an operation.
#[derive(Debug)]
pub(super) enum Verdict {
    Extended(Result<(), Error>),
    TruedUp(Result<TruedUp, Error>),
    Checkpointed(Result<(), Error>),
    Held(Result<(), Error>),
    Settled(Result<Settled, Error>),
    Posted(Result<Posted, Error>),
}

/// Who waits for the verdict.
#[derive(Debug)]
pub(super) enum Waiter {
    Hold(Sender<Result<(), Error>>),
    Settle(Sender<Result<Settled, Error>>),
    Post(Sender<Result<Posted, Error>>),
    Extend(Sender<Result<(), Error>>),
    TrueUp(Sender<Result<TruedUp, Error>>),
    Checkpoint(Sender<Result<(), Error>>),
    /// Nobody any more: the caller of this settlement was told that the database is away.
    Told,
    /// Nobody: the writer gives back by itself what a hold without a caller took.
    Own,
}

/// An operation in the queue.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) operation: Operation,
    pub(super) waiter: Waiter,
    pub(super) since: Instant,
}

impl PreparedCheckpoint {
    /// The number of the upstream call that runs; 0 for none.
    pub(super) fn attempt(&self) -> i16 {
        self.checkpoint.running.as_ref().map_or(0, |running| running.n)
    }

    /// The id that the provider gave to the last upstream call.
    pub(super) fn upstream_ref(&self) -> Option<&str> {
        let last = self.checkpoint.ended.last().and_then(|attempt| attempt.upstream_ref.as_deref());
        match &self.checkpoint.running {
            Some(running) => running.upstream_ref.as_deref(),
            None => last,
        }
    }
}

impl PreparedSettlement {
    /// Works out what a settlement posts.
    fn of(mut settlement: Settlement) -> Result<Self, Error> {
        let unsold = matches!(settlement.close, Close::Settle { sale, .. } if sale < 0);
        let negative = settlement.attempts.iter().filter_map(|a| a.cost.as_ref());
        if unsold || negative.into_iter().any(|cost| cost.amount < 0) {
            return Err(Error::Refused("a sale or a cost is below 0".into()));
        }
        if settlement.conversion.as_ref().is_some_and(|c| !c.fits(&settlement)) {
            return Err(Error::Refused("a conversion of another sale".into()));
        }
        let usages = settlement.attempts.iter().map(|a| serde_json::to_string(&a.usage));
        let usages = usages.collect::<Result<_, _>>().map_err(|e| Error::Refused(e.to_string()))?;
        for text in settlement.attempts.iter_mut().filter_map(|a| a.upstream_ref.as_mut()) {
            clean(text);
        }
        Ok(Self::prepared(settlement, usages))
    }

    fn prepared(settlement: Settlement, usages: Vec<String>) -> Self {
        let sale = match settlement.close {
            Close::Settle { sale, .. } => sale,
            Close::Release => 0,
        };
        let legs = legs(&settlement, sale);
        let digest = digest::of_settlement(&settlement);
        Self { settlement, legs, usages, digest }
    }

    fn each_price(&self, mut see: impl FnMut(&PriceRef)) {
        see(&self.settlement.sale_price);
        self.settlement.conversion.iter().for_each(|conversion| see(&conversion.rate));
        let costs = self.settlement.attempts.iter().filter_map(|a| a.cost.as_ref());
        costs.for_each(|cost| see(&cost.price));
    }
}

/// PostgreSQL has no text with a NUL in it, and nobody needs the rest.
fn clean(upstream_ref: &mut String) {
    *upstream_ref = upstream_ref.chars().filter(|c| !c.is_control()).take(UPSTREAM_REF).collect();
}

impl Waiter {
    /// Answers. `false` when the caller went away and was not told.
    fn answer(self, verdict: Verdict, (kind, id): (&str, Uuid)) -> bool {
        match (self, verdict) {
            (Self::Hold(to), Verdict::Held(result))
            | (Self::Extend(to), Verdict::Extended(result))
            | (Self::Checkpoint(to), Verdict::Checkpointed(result)) => to.send(result).is_ok(),
            (Self::Settle(to), Verdict::Settled(result)) => to.send(result).is_ok(),
            (Self::Post(to), Verdict::Posted(result)) => to.send(result).is_ok(),
            (Self::TrueUp(to), Verdict::TruedUp(result)) => to.send(result).is_ok(),
            (Self::Told, Verdict::Settled(Ok(_))) => {
                tracing::info!(kind, %id, "written, after its caller was told of the outage");
                true
            }
            // A hold that was never written has nothing to give back; one that another node took
            // over is given back there.
            (Self::Own, Verdict::Settled(Ok(_) | Err(Error::HoldUnknown | Error::Fenced))) => true,
            (Self::Told | Self::Own, Verdict::Settled(Err(error))) => {
                tracing::error!(kind, %id, %error, "not written, and nobody waits for it");
                true
            }
            (waiter, verdict) => {
                tracing::error!(kind, %id, ?waiter, ?verdict, "a verdict of another operation");
                true
            }
        }
    }

    /// Answers with an error.
    fn refuse(self, error: Error, operation: (&str, Uuid)) {
        let verdict = match self {
            Self::Hold(_) => Verdict::Held(Err(error)),
            Self::Settle(_) | Self::Told | Self::Own => Verdict::Settled(Err(error)),
            Self::Post(_) => Verdict::Posted(Err(error)),
            Self::Extend(_) => Verdict::Extended(Err(error)),
            Self::TrueUp(_) => Verdict::TruedUp(Err(error)),
            Self::Checkpoint(_) => Verdict::Checkpointed(Err(error)),
        };
        self.answer(verdict, operation);
    }
}

impl Item {
    /// The settlement that gives back what a hold took, for which nobody waits. Its content is that
    /// of any other release of the hold without attempts.
    pub(super) fn release(hold: &Hold) -> Self {
        let settlement = Settlement {
            hold: hold.id,
            app: Arc::clone(&hold.app),
            currency: hold.currency,
            close: Close::Release,
            sale_price: hold.sale_price.clone(),
            conversion: None,
            attempts: Vec::new(),
            at: hold.created_at,
        };
        let prepared = PreparedSettlement::prepared(settlement, Vec::new());
        let operation = Operation::Settle(Box::new(prepared));
        Self { operation, waiter: Waiter::Own, since: Instant::now() }
    }

    /// Answers, and gives a hold back that was placed and whose caller was not there to hear it.
    pub(super) fn answer(self, verdict: Verdict) -> Option<Hold> {
        let placed = matches!(verdict, Verdict::Held(Ok(())));
        let heard = self.waiter.answer(verdict, self.operation.name());
        match self.operation {
            Operation::Hold(hold) if placed && !heard => Some(hold),
            Operation::Hold(_)
            | Operation::Settle(_)
            | Operation::Post(_)
            | Operation::Extend(_)
            | Operation::TrueUp(_)
            | Operation::Checkpoint(_) => None,
        }
    }

    /// Answers with an error.
    pub(super) fn refuse(self, error: Error) {
        self.waiter.refuse(error, self.operation.name());
    }

    /// Answers with an error, and goes on without a caller.
    pub(super) fn tell(&mut self, error: Error) {
        std::mem::replace(&mut self.waiter, Waiter::Told).refuse(error, self.operation.name());
    }

    /// Whether nobody waits for it, so that nobody else will see to it.
    pub(super) const fn is_kept(&self) -> bool {
        matches!(self.waiter, Waiter::Told | Waiter::Own)
    }
}

impl Operation {
    /// What a log may say of it: its kind and its id.
    pub(super) fn name(&self) -> (&'static str, Uuid) {
        match self {
            Self::Hold(hold) => ("hold", hold.id),
            Self::Settle(settle) => ("settlement", settle.settlement.hold),
            Self::Post(post) => ("entry", post.entry.subject),
            Self::Extend(extension) => ("extension", extension.hold),
            Self::TrueUp(correction) => ("correction", correction.settle.settlement.hold),
            Self::Checkpoint(written) => ("checkpoint", written.checkpoint.hold),
        }
    }

    /// The hold whose books are to be corrected.
    pub(super) fn corrected(&self) -> Option<Uuid> {
        if let Self::TrueUp(correction) = self {
            Some(correction.settle.settlement.hold)
        } else {
            None
        }
    }

    /// Drops what is not from our own configuration. `false` when there was no such text. The
    /// digest stays: a repetition has the text again and is the same settlement.
    pub(super) fn drop_foreign_texts(&mut self) -> bool {
        let settle = match self {
            Self::Settle(settle) => settle,
            Self::TrueUp(correction) => &mut correction.settle,
            Self::Hold(_) | Self::Post(_) | Self::Extend(_) | Self::Checkpoint(_) => return false,
        };
        let attempts = settle.settlement.attempts.iter_mut();
        attempts.filter_map(|attempt| attempt.upstream_ref.take()).count() > 0
    }

    /// Checks a hold for what no store could accept.
    pub(super) fn hold(hold: Hold) -> Result<Self, Error> {
        if hold.amount < 0 || hold.floor > 0 {
            return Err(Error::Refused("a hold's amount is below 0 or its floor above".into()));
        }
        Ok(Self::Hold(hold))
    }

    /// Works out what a settlement posts.
    pub(super) fn settle(settlement: Settlement) -> Result<Self, Error> {
        Ok(Self::Settle(Box::new(PreparedSettlement::of(settlement)?)))
    }

    /// Checks an entry for what is no entry.
    pub(super) fn post(entry: Entry) -> Result<Self, Error> {
        let wrong = match entry.kind {
            EntryKind::Settle | EntryKind::ReleaseCost => Some("only a settlement posts that kind"),
            EntryKind::Trueup => Some("only a correction posts that kind"),
            EntryKind::PromoGrant | EntryKind::PromoExpiry => {
                Some("promotional credit moves apart")
            }
            EntryKind::Topup | EntryKind::Refund | EntryKind::Adjust => None,
        };
        let wrong = wrong.or_else(|| entry.legs.is_empty().then_some("an entry without legs"));
        let odd = |leg: &Leg| leg.amount <= 0 || leg.debit == leg.credit;
        let wrong = wrong.or_else(|| {
            entry.legs.iter().any(odd).then_some("a leg of nothing, or of one account to itself")
        });
        let wrong = wrong.or_else(|| (entry.floor > 0).then_some("a floor above 0"));
        if let Some(why) = wrong {
            return Err(Error::Refused(why.to_owned()));
        }
        let digest = digest::of_entry(&entry);
        Ok(Self::Post(Box::new(PreparedEntry { entry, digest })))
    }

    /// The wallets whose balance the operation rests on. May repeat one.
    pub(super) fn each_wallet(&self, mut see: impl FnMut(&Account, Currency)) {
        match self {
            Self::Hold(hold) => see(&Account::Wallet(hold.app.clone()), hold.currency),
            Self::Settle(s) => {
                see(&Account::Wallet(s.settlement.app.clone()), s.settlement.currency);
            }
            Self::TrueUp(t) => {
                let settlement = &t.settle.settlement;
                see(&Account::Wallet(settlement.app.clone()), settlement.currency);
            }
            Self::Extend(extension) => {
                see(&Account::Wallet(extension.app.clone()), extension.currency);
            }
            Self::Checkpoint(_) => {}
            Self::Post(post) => {
                let sides = post
                    .entry
                    .legs
                    .iter()
                    .flat_map(|leg| [(&leg.debit, leg.currency), (&leg.credit, leg.currency)]);
                sides.filter(|(a, _)| a.is_gated()).for_each(|(a, currency)| see(a, currency));
            }
        }
    }

    /// Every account that the operation may post to, its wallets included. May repeat one.
    pub(super) fn each_account(&self, mut see: impl FnMut(&Account, Currency)) {
        let legs = match self {
            Self::Hold(_) | Self::Extend(_) | Self::Checkpoint(_) => &[][..],
            Self::Settle(settle) => &settle.legs,
            Self::TrueUp(correction) => &correction.settle.legs,
            Self::Post(post) => &post.entry.legs,
        };
        for leg in legs {
            see(&leg.debit, leg.currency);
            see(&leg.credit, leg.currency);
        }
        // What the wallet turns out not to cover of a sale is our loss.
        if let Self::Settle(settle) = self
            && let Close::Settle { sale: 1.., .. } = settle.settlement.close
        {
            let conversion = settle.settlement.conversion.as_ref();
            see(&Account::Exposure, conversion.map_or(settle.settlement.currency, |c| c.currency));
        }
        // A part of a conversion may leave a unit that the whole does not.
        if let Self::TrueUp(correction) = self
            && correction.settle.settlement.conversion.is_some()
        {
            see(&Account::FxResult, correction.settle.settlement.currency);
        }
        self.each_wallet(see);
    }

    /// Every price that the operation names. May repeat one.
    pub(super) fn each_price(&self, mut see: impl FnMut(&PriceRef)) {
        match self {
            Self::Hold(hold) => {
                see(&hold.sale_price);
                hold.fx.iter().for_each(&mut see);
                hold.exposure.iter().for_each(|exposure| see(&exposure.price));
            }
            Self::Settle(settle) => settle.each_price(see),
            Self::TrueUp(correction) => correction.settle.each_price(see),
            Self::Extend(_) | Self::Checkpoint(_) => {}
            Self::Post(post) => {
                post.entry.legs.iter().filter_map(|leg| leg.price.as_ref()).for_each(see);
            }
        }
    }
}
