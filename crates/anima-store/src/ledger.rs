//! The ledger's store: holds, settlements and entries, durable when the call returns.
//!
//! Contract, for every backend:
//! - A call that returned `Ok` is on disk: it survives `kill -9` and power loss.
//! - [`LedgerStore::hold`] judges the wallet under its lock: `posted - held - amount >= floor`, in
//!   the order of arrival, and never on a stale balance. N parallel holds never pass N times on
//!   money for one.
//! - [`LedgerStore::settle`] closes a hold once, by compare-and-set on its state, in one
//!   transaction with its journal, legs, attempts and balances. A second settlement of the same
//!   content is a no-op that says so; another content is [`Error::Conflict`] and changes nothing.
//! - Calls are group-committed: one transaction carries what arrived while the last one was on its
//!   way to the disk. An error of one item in a batch refuses that item alone.
//! - A hold is released when its caller went away or was told [`Error::Unavailable`]: its id is not
//!   used again. A settlement that was told so is tried until it is written or the process ends.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Balance, Component, Entry, EntryKind, Hold, Settlement};
use anima_core::money::Currency;

mod audit; // the invariants
mod batch; // group commit
mod booked; // what stands in the books about a hold
mod claim; // holds that were taken over
mod control; // statements about leases and ownership
mod digest; // what makes two settlements the same
mod directory; // ids of accounts and prices, remembered
mod epoch; // which node this is
mod judge; // verdicts
pub mod money; // refunds, promotional credit, statements
mod off; // no ledger at all
mod operation; // a call on its way to the writer
mod plan; // rows before and after the verdict
pub(crate) mod postgres;
mod queue; // who comes next
mod recovery; // leases, running calls, orphans
mod reports; // balances, postings, trial balance
pub(crate) mod session; // one transaction on either database
pub mod spool; // settlements on disk while the database is away
pub(crate) mod sqlite;
#[cfg(test)]
mod tests;
mod trail; // upstream calls in a checkpoint

pub use audit::{Auditor, BREACHES_LISTED, Scope, Turn, WholeLook};
pub use off::Off;
pub use recovery::{
    Claimed, Correction, Lease, LeaseState, Leases, OpenHolds, Registration, SaleCorrection,
    TruedUp,
};

/// Why the ledger refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The wallet cannot cover the hold.
    #[error("insufficient funds: {available} units are available")]
    InsufficientFunds {
        /// What a hold could take, in units; may be negative.
        available: i64,
    },
    /// The same key was used before for something else.
    #[error("the same id was used before with other content")]
    Conflict,
    /// There is no open hold of that id.
    #[error("no such hold is open")]
    HoldUnknown,
    /// Another node has taken over what this node held, because its lease was over. What is known
    /// of the hold is booked by [`OpenHolds::true_up`], once the other node has closed it.
    #[error("another node has taken over")]
    Fenced,
    /// More is waiting than can be written in time; nothing was done.
    #[error("the ledger is overloaded")]
    Overloaded,
    /// The database does not answer; whether the write happened is not known. An entry may be
    /// retried with the same id, a settlement is retried by the store, a hold is released by it.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
    /// The settlement is synced to this node's own disk, because the database does not answer, and
    /// goes to the database from there: it counts as made. Only settlements.
    #[error("the settlement waits on disk for the database: {0}")]
    Spooled(String),
    /// The database refused the write: a defect or a damaged row. Nothing was done.
    #[error("the ledger refused the write: {0}")]
    Refused(String),
}

/// A settlement that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What was taken from the wallet, in units.
    pub charged: i64,
    /// What the sale was above that and could not be collected, in units.
    pub uncollected: i64,
    /// It had been settled before; nothing was posted now.
    pub replayed: bool,
}

/// An entry that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The journal entry.
    pub journal: Uuid,
    /// It had been posted before; nothing was posted now.
    pub replayed: bool,
}

/// One leg as it stands in the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// The journal entry.
    pub journal: Uuid,
    /// What kind of entry.
    pub kind: EntryKind,
    /// What the entry explains: for a settlement the request.
    pub subject: Uuid,
    /// Position in the entry, from 1.
    pub n: i16,
    /// Code of the debited account.
    pub debit: String,
    /// Code of the credited account.
    pub credit: String,
    /// In units; above 0.
    pub amount: i64,
    /// Of both accounts.
    pub currency: Currency,
    /// What it is for.
    pub component: Component,
    /// Which attempt.
    pub attempt: Option<i16>,
    /// Code and version of the price that gave the amount.
    pub price: Option<(String, i64)>,
    /// The amount is an estimate.
    pub estimate: bool,
    /// Reference or reason of the entry; empty for settlements.
    pub reference: String,
    /// When it was posted.
    pub posted_at: Timestamp,
}

/// The result of one invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Number of the invariant, `I1` to `I14` of `docs/integrity.md`.
    pub invariant: &'static str,
    /// What it says.
    pub statement: &'static str,
    /// Why there is nothing to check in this version; `None` when there is.
    pub not_applicable: Option<&'static str>,
    /// How many rows were looked at.
    pub checked: u64,
    /// The first breaches, in words; empty when it holds.
    pub breaches: Vec<String>,
}

/// One line of the trial balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialLine {
    /// The account's code.
    pub account: String,
    /// Class number.
    pub class: i16,
    /// Currency of the amounts.
    pub currency: Currency,
    /// Sum of debits, in units.
    pub debits: i128,
    /// Sum of credits, in units.
    pub credits: i128,
}

/// Reserves, settles and posts. See the module's contract.
#[async_trait]
pub trait LedgerStore: Health + Leases + OpenHolds + Send + Sync + fmt::Debug {
    /// Reserves money. The same id with the same content again is accepted without effect.
    ///
    /// # Errors
    /// [`Error::InsufficientFunds`], [`Error::Conflict`], [`Error::Overloaded`],
    /// [`Error::Unavailable`], or [`Error::Fenced`] when this node's lease was taken away.
    async fn hold(&self, hold: Hold) -> Result<(), Error>;

    /// Closes a hold and posts both sides.
    ///
    /// # Errors
    /// [`Error::HoldUnknown`], [`Error::Fenced`], [`Error::Conflict`] or [`Error::Unavailable`].
    async fn settle(&self, settlement: Settlement) -> Result<Settled, Error>;

    /// Posts an entry that stands on its own, once per (subject, kind, seq).
    ///
    /// # Errors
    /// [`Error::Conflict`] for other content under the same key; [`Error::InsufficientFunds`] when
    /// it would take a wallet below its floor; [`Error::Unavailable`].
    async fn post(&self, entry: Entry) -> Result<Posted, Error>;

    /// An app's wallet; zero when nothing was ever posted to it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn balance(&self, app: &str, currency: Currency) -> Result<Balance, Error>;

    /// The postings about one subject, in order. Empty when there are none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn postings(&self, subject: Uuid) -> Result<Vec<Posting>, Error>;

    /// Checks the invariants from the database alone, at instant `now`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn verify(&self, now: Timestamp) -> Result<Vec<Finding>, Error>;

    /// The trial balance, by account code. Empty books give an empty list.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn trial_balance(&self) -> Result<Vec<TrialLine>, Error>;
}

/// Whether a ledger can write. A trait of its own only because seven methods are enough for one.
pub trait Health {
    /// Whether what is asked for now can be written, as far as is known without asking the
    /// database: `false` after a transaction was lost, until what waits is written, and for good
    /// when the writer has ended.
    fn healthy(&self) -> bool {
        true
    }
}

/// Told about each batch, for metrics. Called on the writer's thread; must not block.
pub trait BatchObserver: Send + Sync + fmt::Debug {
    /// A batch was committed: how many holds and settlements it carried, and seconds it took.
    fn committed(&self, holds: usize, settlements: usize, seconds: f64);
    /// A batch failed and will be halved or refused.
    fn failed(&self);
    /// The writer panicked and goes on.
    fn panicked(&self) {}
}
