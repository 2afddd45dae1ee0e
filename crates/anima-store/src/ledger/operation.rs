//! A call on its way to the writer: its content, what could be worked out before, and who waits.
//!
//! Everything that needs no database (legs, hash, usage as JSON, obvious nonsense) is done here, on
//! the caller's thread, because there is only one writer. Invariant: every operation is answered,
//! with a verdict or by dropping its sender.

use tokio::sync::oneshot::Sender;
use tokio::time::Instant;

use anima_core::ledger::{Account, Close, Entry, EntryKind, Hold, Leg, PriceRef, Settlement, legs};
use anima_core::money::Currency;

use super::digest::{self, Digest};
use super::{Error, Posted, Settled};

/// What is written together.
#[derive(Debug)]
pub(super) enum Operation {
    /// Reserve money.
    Hold(Hold),
    /// Close a hold.
    Settle(Box<PreparedSettlement>),
    /// Post an entry.
    Post(Box<PreparedEntry>),
}

/// A settlement with what follows from it alone.
#[derive(Debug)]
pub(super) struct PreparedSettlement {
    pub(super) settlement: Settlement,
    /// The legs if the whole sale can be collected.
    pub(super) legs: Vec<Leg>,
    /// Usage of each attempt, as JSON.
    pub(super) usages: Vec<String>,
    pub(super) digest: Digest,
}

/// An entry with what follows from it alone.
#[derive(Debug)]
pub(super) struct PreparedEntry {
    pub(super) entry: Entry,
    pub(super) digest: Digest,
}

/// What became of an operation.
#[derive(Debug)]
pub(super) enum Verdict {
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
}

/// An operation in the queue.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) operation: Operation,
    pub(super) waiter: Waiter,
    pub(super) since: Instant,
}

impl Waiter {
    /// Answers. A caller that went away is not told, and what was written stays.
    pub(super) fn answer(self, verdict: Verdict) {
        let gone = match (self, verdict) {
            (Self::Hold(to), Verdict::Held(result)) => to.send(result).is_err(),
            (Self::Settle(to), Verdict::Settled(result)) => to.send(result).is_err(),
            (Self::Post(to), Verdict::Posted(result)) => to.send(result).is_err(),
            (waiter, verdict) => {
                tracing::error!(?waiter, ?verdict, "a ledger verdict does not fit its operation");
                return;
            }
        };
        if gone {
            tracing::debug!("the caller of a ledger operation did not wait for its verdict");
        }
    }

    /// Answers with an error.
    pub(super) fn refuse(self, error: Error) {
        let verdict = match self {
            Self::Hold(_) => Verdict::Held(Err(error)),
            Self::Settle(_) => Verdict::Settled(Err(error)),
            Self::Post(_) => Verdict::Posted(Err(error)),
        };
        self.answer(verdict);
    }
}

impl Operation {
    /// Checks a hold for what no store could accept.
    pub(super) fn hold(hold: Hold) -> Result<Self, Error> {
        if hold.amount < 0 || hold.floor > 0 {
            return Err(Error::Refused("a hold's amount is below 0 or its floor above".into()));
        }
        Ok(Self::Hold(hold))
    }

    /// Works out what a settlement posts.
    pub(super) fn settle(settlement: Settlement) -> Result<Self, Error> {
        let sale = match settlement.close {
            Close::Settle { sale, .. } => sale,
            Close::Release => 0,
        };
        let negative = settlement.attempts.iter().filter_map(|a| a.cost.as_ref());
        if sale < 0 || negative.into_iter().any(|cost| cost.amount < 0) {
            return Err(Error::Refused("a sale or a cost is below 0".into()));
        }
        let usages = settlement.attempts.iter().map(|a| serde_json::to_string(&a.usage));
        let usages = usages.collect::<Result<_, _>>().map_err(|e| Error::Refused(e.to_string()))?;
        let legs = legs(&settlement, sale);
        let digest = digest::of_settlement(&settlement);
        Ok(Self::Settle(Box::new(PreparedSettlement { settlement, legs, usages, digest })))
    }

    /// Checks an entry for what is no entry.
    pub(super) fn post(entry: Entry) -> Result<Self, Error> {
        let wrong = match entry.kind {
            EntryKind::Settle | EntryKind::ReleaseCost => Some("only a settlement posts that kind"),
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
            Self::Hold(_) => &[][..],
            Self::Settle(settle) => &settle.legs,
            Self::Post(post) => &post.entry.legs,
        };
        for leg in legs {
            see(&leg.debit, leg.currency);
            see(&leg.credit, leg.currency);
        }
        self.each_wallet(see);
    }

    /// Every price that the operation names. May repeat one.
    pub(super) fn each_price(&self, mut see: impl FnMut(&PriceRef)) {
        match self {
            Self::Hold(hold) => see(&hold.sale_price),
            Self::Settle(settle) => {
                see(&settle.settlement.sale_price);
                let costs = settle.settlement.attempts.iter().filter_map(|a| a.cost.as_ref());
                costs.for_each(|cost| see(&cost.price));
            }
            Self::Post(post) => {
                post.entry.legs.iter().filter_map(|leg| leg.price.as_ref()).for_each(see);
            }
        }
    }
}
