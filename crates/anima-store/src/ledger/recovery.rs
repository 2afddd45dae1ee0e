//! What a running call leaves behind for others, and how a node proves that it lives.
//!
//! Each process start is a node with an id of its own, which its holds carry. Its lease says until
//! when it is believed to live, by the database's clock. When the lease is over another node takes
//! the node's open holds over: it puts its own id on them first, and only then finds out how they
//! end. A node that was only slow is told [`Error::Fenced`] by whatever it does to them, and books
//! what it knows as a correction.
//! Invariant: at any instant one node at most can close a hold. Source: `reliability` 1.5.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{
    Attempt, Checkpoint, Exposure, Extension, Phase, PriceRef, Running, Settlement,
};
use anima_core::money::{Currency, Multiplier};

use super::{Error, Settled};
use crate::idempotency::UsedKey;

/// A node that starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its id: new at each start, and after each loss of a lease.
    pub node: Uuid,
    /// Where it runs, for people.
    pub host: String,
    /// How long its lease lasts without renewal: three renewals, 15 s for one each 5 s.
    pub ttl: Duration,
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// It lives, or has not been missed yet.
    Up,
    /// It was missed, or left holds open when it ended. Others take them over.
    Dead,
    /// It is gone, and nothing of it is open.
    Recovered,
}

/// A node as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub node: Uuid,
    /// Where it runs.
    pub host: String,
    /// When it registered.
    pub started_at: Timestamp,
    /// When it is missed, unless it renews.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: LeaseState,
    /// Open holds that carry its id.
    pub open_holds: u64,
}

/// An open hold that this node took over, with everything that is known of its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The hold, by the request's id.
    pub hold: Uuid,
    /// Whose wallet.
    pub app: Arc<str>,
    /// Which key asked.
    pub kid: Arc<str>,
    /// The alias that was asked for.
    pub alias: Arc<str>,
    /// Of the wallet.
    pub currency: Currency,
    /// How much is held, extensions included, in units.
    pub amount: i64,
    /// The sale price pinned at admission.
    pub sale_price: PriceRef,
    /// The conversion rate pinned with it. `None` when the price is in the wallet's own currency.
    pub fx: Option<PriceRef>,
    /// The caller's factor on the sale price.
    pub multiplier: Multiplier,
    /// Where it went first, and the most that it can cost us.
    pub exposure: Option<Exposure>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it must be resolved.
    pub resolve_by: Timestamp,
    /// How far it had come at its last checkpoint.
    pub phase: Phase,
    /// What the customer owed then, in units.
    pub progress: i64,
    /// Upstream calls that had ended then, in order.
    pub ended: Vec<Attempt>,
    /// The upstream call that was under way then.
    pub running: Option<Running>,
}

/// What is known now of a request that was settled differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// How it would be settled now. Names every attempt, not only what is new.
    pub settlement: Settlement,
    /// Whether the customer may be charged more than before.
    pub sale: SaleCorrection,
    /// The settlement is a report about the attempts that it names, which goes by this id: the
    /// others stay as they are booked, and other content under the same id is a conflict.
    pub report: Option<Uuid>,
    /// Why, for the books.
    pub reference: String,
}

/// Which way a customer's charge may be corrected (`reliability` 1.6, row 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaleCorrection {
    /// Downward always, upward never.
    #[default]
    DownOnly,
    /// Both ways, upward as far as the wallet's floor. What was closed as not sold stays so.
    BothWays,
    /// Both ways, what was closed as not sold included: its caller has the answer, and asks for it
    /// under no key that another call could be made for.
    Delivered,
    /// Not at all: it is about costs. Only in a report.
    Keep,
}

/// A correction that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TruedUp {
    /// The journal entry; `None` when the books said the same already.
    pub journal: Option<Uuid>,
    /// What the wallet and the promotional credit got back, in units; below 0 what was taken.
    pub given_back: i64,
    /// It had been posted before; nothing was posted now.
    pub replayed: bool,
}

/// Says that a node lives. One lease per open ledger: that of the node that it was opened as, until
/// another id is registered.
#[async_trait]
pub trait Leases: Send + Sync + fmt::Debug {
    /// Takes a lease and makes holds under its id from now on.
    ///
    /// On SQLite a file beside the database is locked until the lease is released or the process
    /// ends, and the lease of every other node is over: they cannot be alive.
    ///
    /// # Errors
    /// [`Error::Refused`] when another process serves from this SQLite file, or the id was used
    /// before; [`Error::Unavailable`].
    async fn register(&self, registration: Registration) -> Result<(), Error>;

    /// Lives on for `ttl` from now. Harmless when late, as long as nobody missed the node.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the lease was taken away: others close this node's holds, and new
    /// ones are refused. Stop admitting; register under a new id, or exit. [`Error::Unavailable`].
    async fn renew(&self, ttl: Duration) -> Result<(), Error>;

    /// Ends the lease at a clean shutdown. Others take over at once what is still open.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn release(&self) -> Result<(), Error>;

    /// All nodes that are not long gone, the latest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn leases(&self) -> Result<Vec<Lease>, Error>;
}

/// What happens to a hold between placing and settling it, and to one whose owner is gone.
#[async_trait]
pub trait OpenHolds: Send + Sync + fmt::Debug {
    /// [`LedgerStore::settle`](super::LedgerStore::settle) for a call that may be asked for again
    /// without being charged again: under `key`, or as a task. What was closed as not sold
    /// meanwhile stays so, unless nobody can use the key for another call any more.
    ///
    /// # Errors
    /// As there.
    async fn settle_repeatable(
        &self,
        settlement: Settlement,
        key: Option<UsedKey>,
    ) -> Result<Settled, Error>;

    /// Writes down how far calls have come. Holds that are closed, or not ours, are left alone.
    /// Never delays anything else: of too many, the oldest are dropped.
    ///
    /// # Errors
    /// The first of [`Error::Overloaded`], [`Error::Unavailable`] and [`Error::Refused`]; the
    /// others may be written all the same. The next checkpoint makes up for it.
    async fn checkpoint(&self, checkpoints: Vec<Checkpoint>) -> Result<(), Error>;

    /// Holds more for a call that goes on, judged like a hold. A refusal leaves it as it was.
    ///
    /// # Errors
    /// [`Error::InsufficientFunds`]; [`Error::HoldUnknown`] when it is not open, [`Error::Fenced`]
    /// when it is another node's; [`Error::Unavailable`], after which it may be extended or not.
    async fn extend(&self, extension: Extension) -> Result<(), Error>;

    /// Takes over at most `limit` open holds of nodes that are gone, and of unregistered nodes
    /// when the hold has expired. Concurrent calls get different ones. They are to be resolved
    /// `within` that time from now.
    ///
    /// # Errors
    /// [`Error::Fenced`] when this node's own lease was taken away, [`Error::Unavailable`].
    async fn claim_orphans(&self, limit: usize, within: Duration) -> Result<Vec<Claimed>, Error>;

    /// Takes over this node's own holds that it will not close any more: their time has been over
    /// for a while and no call of `spared` owns them, so the settlement was refused. They are to be
    /// resolved `within` that time from now. Says how many.
    ///
    /// # Errors
    /// [`Error::Fenced`] when this node's own lease was taken away, [`Error::Unavailable`].
    async fn claim_overdue(&self, spared: BTreeSet<Uuid>, within: Duration)
    -> Result<usize, Error>;

    /// At most `limit` holds that this node took over and has not closed, the oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn unresolved(&self, limit: usize) -> Result<Vec<Claimed>, Error>;

    /// Corrects what is booked about a closed hold. Idempotent by the settlement's content.
    ///
    /// # Errors
    /// [`Error::HoldUnknown`] when there is no such hold; [`Error::Fenced`] while another node has
    /// still to close it, or something else is being posted about it: try again later;
    /// [`Error::Refused`] when it is ours to settle;
    /// [`Error::Conflict`] for another wallet's; [`Error::Unavailable`].
    async fn true_up(&self, correction: Correction) -> Result<TruedUp, Error>;
}
