//! The counters of limits, shared by all nodes or kept in one process.
//!
//! Contract, for every backend:
//! - [`QuotaStore::admit`] takes everything that an ask names or nothing; the same id again is
//!   admitted again and takes nothing more.
//! - A purse that nobody seeded admits nothing. The first seed is believed, if the ledger was read
//!   for it after all calls from before the purse's birth had their holds there ([`Birth`]).
//! - [`QuotaStore::close`] is done once for each ticket; what it names replaces the estimates.
//! - [`QuotaStore::extend`] and [`PurseStore::charge`] are done once, however often they are sent.
//! - What is not renewed within its lease is given back, but for money, which counts as spent.
//! - It agrees with [`anima_core::quota::Book`] on every sequence.
//!
//! Not here: what was really spent, which only the ledger knows ([`Spend`]).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::quota::book::{Birth, Level, Seen};
use anima_core::quota::{Ask, Bound, Check, Counter, Span, Tag, Verdict};

use self::line::LineStore;
use crate::config;

pub mod line; // who waits for them
pub mod memory; // the counters of one process
pub mod outage; // what a node does while the shared counters are away
pub mod redis; // the counters of all nodes
pub(crate) mod spend; // what the ledger says was spent
#[cfg(test)]
mod tests;

/// The counters cannot be asked. Whether what was asked for happened is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the counters of limits are unavailable: {0}")]
pub struct Unavailable(pub String);

/// A ticket to be closed or renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The call's id.
    pub id: Uuid,
    /// Its bounds, with what it really took of each.
    pub bounds: Arc<[Bound]>,
}

/// How purses of which nobody knows what was spent are told.
#[async_trait]
pub trait SeedStore: Send + Sync + fmt::Debug {
    /// After how long the ledger may be read for a purse that nobody has seeded, and the name under
    /// which it is seeded then. `None` when it is seeded.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn birth(&self, purse: &Bound, now: Timestamp) -> Result<Option<Birth>, Unavailable>;

    /// Says of a purse of that birth what was spent. The first one is believed. `false` when the
    /// counter has been lost since, so that what was read says too little.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn seed(&self, purse: &Bound, seed: (i64, i64)) -> Result<bool, Unavailable>;

    /// Has whoever seeds a purse that nobody has seeded wait as if it were born now. `false` when
    /// somebody has seeded it.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn put_off(&self, purse: &Bound) -> Result<bool, Unavailable>;
}

/// What purses know of what was spent.
#[async_trait]
pub trait PurseStore: SeedStore {
    /// Adds what was spent elsewhere to a purse, once for each charge. `false` when it was charged
    /// before, or when nobody has seeded the purse: its seed knows.
    ///
    /// # Errors
    /// When the counters cannot be reached. The same charge may be tried again.
    async fn charge(&self, purse: &Bound, charge: Uuid) -> Result<bool, Unavailable>;

    /// What a purse believes, to be compared with the ledger. `None` when nobody has seeded it.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn look(&self, purse: &Bound, now: Timestamp) -> Result<Option<Seen>, Unavailable>;

    /// Adds the second number to what a purse believes was spent, unless somebody has corrected it
    /// since it was seen as the first number says. `false` then.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn repair(&self, purse: &Bound, mend: (i64, i64)) -> Result<bool, Unavailable>;

    /// Says how many nodes the database knows: at least so many share each limit. Counters that
    /// were lost know only of the nodes that have called since.
    fn shared_by(&self, _nodes: i64) {}

    /// Brings to the shared counters what was counted without them, as soon as they are back.
    async fn reconcile(&self, _now: Timestamp, _lease_us: i64) {}
}

/// How it is made sure that nothing is taken.
#[async_trait]
pub trait UndoStore: Send + Sync + fmt::Debug {
    /// Takes back what an ask may have taken whose answer was lost. Unlike a ticket that was
    /// closed, its call may be told of later: it may be admitted elsewhere and run.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn undo(&self, ticket: &Ticket, now: Timestamp) -> Result<(), Unavailable>;
}

/// Counters. See the module.
#[async_trait]
pub trait QuotaStore: PurseStore + LineStore + UndoStore {
    /// Takes all that is asked for, or nothing.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn admit(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable>;

    /// Closes a ticket with what was really used; 0 gives back. `false` when it was closed before.
    ///
    /// # Errors
    /// When the counters cannot be reached: what was taken then expires by itself.
    async fn close(&self, ticket: &Ticket, now: Timestamp) -> Result<bool, Unavailable>;

    /// Closes a ticket of which the counters may know a part, or nothing. Gives the purses that are
    /// not known to be charged with what it spent: all, when they do not answer.
    async fn close_untold(&self, ticket: &Ticket, now: Timestamp) -> Vec<Bound> {
        // Where a ticket is known as a whole.
        if let Ok(true) = self.close(ticket, now).await {
            return vec![];
        }
        let purse = |bound: &&Bound| matches!(bound.check, Check::Purse { .. });
        ticket.bounds.iter().filter(purse).cloned().collect()
    }

    /// Keeps what tickets took for a further lease.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn renew(
        &self,
        tickets: &[Ticket],
        now: Timestamp,
        lease_us: i64,
    ) -> Result<(), Unavailable>;

    /// Sets what a call holds of the purses that are asked for: of all of them, or of none when one
    /// has too little left. The same amount again changes nothing.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn extend(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable>;

    /// What counters show. `None` for a purse that nobody has seeded. Parallel to the bounds.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn levels(
        &self,
        bounds: &[Bound],
        now: Timestamp,
    ) -> Result<Vec<Option<Level>>, Unavailable>;

    /// Forgets what says nothing any more.
    async fn sweep(&self, now: Timestamp);
}

/// What the ledger says was spent: the truth that purses are seeded from.
#[async_trait]
pub trait Spend: Send + Sync + fmt::Debug {
    /// What calls that came in within a span were charged, and what those hold that still run, in
    /// units of the counter's currency. Never less than what was spent.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn spent(&self, counter: &Counter, tag: &Tag, span: Span) -> Result<i64, config::Error>;

    /// The same, without what some calls were charged or hold.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn spent_besides(
        &self,
        place: (&Counter, &Tag, Span),
        calls: &[Uuid],
    ) -> Result<i64, config::Error>;

    /// How many nodes may place holds. Never less than do.
    ///
    /// # Errors
    /// When the database does not answer.
    async fn nodes(&self) -> Result<i64, config::Error>;
}
