//! Work that its caller does not wait for, kept until somebody has done it.
//!
//! Contract, for every backend:
//! - A task is on disk when [`Tasks::create`] says so. Of all who send one idempotency key, one
//!   makes a task and the others are told which.
//! - A task is claimed by one worker at a time, for as long as its lease; whoever is fair gets its
//!   turn: keys are served in rounds. A claim raises the task's `run`, and whatever an earlier run
//!   still says changes nothing.
//! - [`TaskQueue::begin`] is the mark that a request may be on its way. Before it a task whose
//!   worker is gone is claimed again; after it never: it is an [`Orphan`], and its hold tells.
//! - A task ends once. What it ended with, its webhook and its refund are written with its end.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;
use anima_core::task::State;

use crate::config::Error;

pub(crate) mod engine; // one statement on either database
mod queue; // for workers
mod read; // for callers
mod sql;
#[cfg(test)]
mod tests;
mod upkeep; // for whoever keeps house
mod webhook; // who is to be told

pub(crate) use engine::TaskBooks;

/// A task to be stored.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Its id, for ever.
    pub id: Uuid,
    /// Public id of the API key that sent it.
    pub kid: Arc<str>,
    /// Its app.
    pub app: Arc<str>,
    /// The short name of the endpoint.
    pub endpoint: &'static str,
    /// What was called.
    pub alias: Arc<str>,
    /// Of the app's wallet.
    pub currency: Currency,
    /// What was sent, sealed.
    pub request: Vec<u8>,
    /// Hash of its idempotency key, if it has one.
    pub key_hash: Option<[u8; 32]>,
    /// Hash of what was asked for.
    pub content_hash: [u8; 32],
    /// Where to send its end, sealed.
    pub webhook: Option<Vec<u8>>,
    /// When.
    pub at: Timestamp,
    /// It is not run after this.
    pub expires_at: Timestamp,
    /// As many of one key may wait.
    pub most: u64,
}

/// What became of a task to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is on disk.
    Fresh,
    /// Its idempotency key has made a task before.
    Known {
        /// That one.
        id: Uuid,
        /// What it asked for.
        content_hash: [u8; 32],
    },
    /// As many of its key wait as may.
    Full,
}

/// How a webhook stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookState {
    /// `WAITING` for the end, `PENDING`, `DELIVERED`, or `DEAD`: given up.
    pub word: String,
    /// Tries so far.
    pub tries: u32,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// A task without what was sent and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Accepted`")]
pub struct Task {
    pub id: Uuid,
    pub kid: Arc<str>,
    pub app: Arc<str>,
    pub kind: String,
    pub endpoint: String,
    pub alias: Arc<str>,
    pub currency: String,
    pub state: State,
    /// How often a worker took it.
    pub run: i64,
    /// The request, and hold, of its last run, once that may have been sent.
    pub call: Option<Uuid>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// What it ended with is kept until then.
    pub keep_until: Option<Timestamp>,
    /// Why it ended without an answer: code and message.
    pub error: Option<(String, String)>,
    pub hook: Option<HookState>,
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this key.
    pub kid: Option<String>,
    /// Of this app.
    pub app: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Older than this one.
    pub before: Option<Uuid>,
    /// At most.
    pub limit: u32,
}

/// A worker that has room.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its process start.
    pub node: Uuid,
    /// Now.
    pub now: Timestamp,
    /// What it claims is its own until then.
    pub lease_until: Timestamp,
    /// At most so many.
    pub most: u32,
    /// None of these keys: it has enough of theirs.
    pub skip: Vec<String>,
}

/// A task that is this worker's, until its lease is over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Accepted`")]
pub struct Claimed {
    pub id: Uuid,
    /// Fences what earlier runs say.
    pub run: i64,
    pub kid: Arc<str>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub request: Vec<u8>,
}

/// How a task ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// [`State::Succeeded`], [`State::Failed`] or [`State::Cancelled`].
    pub state: State,
    /// The answer, or the refusal, sealed.
    pub result: Option<Vec<u8>>,
    /// Why there is no answer: code and message.
    pub error: Option<(String, String)>,
    /// What its call was charged is to be given back.
    pub refund: bool,
    /// When.
    pub at: Timestamp,
    /// Kept until then.
    pub keep_until: Timestamp,
}

/// A task that may have been sent and whose worker is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Task`")]
pub struct Orphan {
    pub id: Uuid,
    pub run: i64,
    pub state: State,
    pub call: Uuid,
    /// The hold's state and, if it is closed, since when; `None` when there is no hold.
    pub hold: Option<(String, Option<Timestamp>)>,
}

/// Whose charge is to be given back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Task`")]
pub struct RefundDue {
    pub id: Uuid,
    pub call: Uuid,
    pub app: Arc<str>,
    pub currency: Currency,
}

/// An end that somebody is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Of which task.
    pub task: Task,
    /// Where to, sealed.
    pub url: Vec<u8>,
    /// What the task ended with, sealed.
    pub result: Option<Vec<u8>>,
}

/// For callers and operators.
#[async_trait]
pub trait Tasks: Send + Sync + fmt::Debug {
    /// Stores a task.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; whether it is stored is then not known.
    async fn create(&self, task: Accepted) -> Result<Created, Error>;

    /// A task.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn task(&self, id: Uuid) -> Result<Option<Task>, Error>;

    /// What a task ended with, sealed; `None` when that is nothing, or not kept any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn result(&self, id: Uuid) -> Result<Option<Vec<u8>>, Error>;

    /// Tasks, youngest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn list(&self, filter: Filter) -> Result<Vec<Task>, Error>;

    /// Cancels a task that was certainly not sent. `false` when there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn cancel(&self, id: Uuid, ending: Ending) -> Result<bool, Error>;

    /// Has a webhook that was delivered or given up sent again. `false` when there is none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn replay(&self, id: Uuid, at: Timestamp) -> Result<bool, Error>;
}

/// For workers.
#[async_trait]
pub trait TaskQueue: Send + Sync + fmt::Debug {
    /// Takes tasks that are due and nobody's.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; what was taken and not heard of is free when the lease is over.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, Error>;

    /// Marks that the request of run `run` may be sent from now on, as `call`. `false` when the
    /// task is not that run's any more: then nothing may be sent.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; then nothing may be sent either.
    async fn begin(&self, id: Uuid, run: i64, call: Uuid) -> Result<bool, Error>;

    /// Keeps what a worker has claimed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn renew(&self, node: Uuid, lease_until: Timestamp) -> Result<(), Error>;

    /// Gives a task back of which nothing was sent, to be run again at `due_at`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn give_back(&self, id: Uuid, run: i64, due_at: Timestamp) -> Result<bool, Error>;

    /// Ends a task. `false` when it is not that run's any more, or has ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; it may be asked again.
    async fn end(&self, id: Uuid, run: i64, ending: Ending) -> Result<bool, Error>;
}

/// For whoever keeps house. Every node does.
#[async_trait]
pub trait TaskUpkeep: Send + Sync + fmt::Debug {
    /// Tasks that may have been sent and whose worker is gone, now marked [`State::Unknown`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn orphans(&self, now: Timestamp) -> Result<Vec<Orphan>, Error>;

    /// Ends what waited for too long. Says how many.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn expire(&self, ending: Ending) -> Result<u64, Error>;

    /// Cancels what waits of a key. Says how many.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn cancel_of(&self, kid: &str, ending: Ending) -> Result<u64, Error>;

    /// How many tasks have not ended, by key and state.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn open(&self) -> Result<Vec<(Arc<str>, State, u64)>, Error>;

    /// Whose charge is to be given back: by id, at most a hundred of those past `after`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn refunds(&self, after: Option<Uuid>) -> Result<Vec<RefundDue>, Error>;

    /// It was given back.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn refunded(&self, id: Uuid) -> Result<(), Error>;

    /// Forgets what tasks ended with whose time is over, and those themselves that were forgotten
    /// before `gone` and owe nobody a refund. Says how many rows it touched, at most some hundreds.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn sweep(&self, now: Timestamp, gone: Timestamp) -> Result<u64, Error>;
}

/// For whoever delivers webhooks.
#[async_trait]
pub trait TaskHooks: Send + Sync + fmt::Debug {
    /// Takes webhooks that are due: they are this one's to try until `lease_until`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn due(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        most: u32,
    ) -> Result<Vec<Hook>, Error>;

    /// Try `tries` was received.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn delivered(&self, id: Uuid, tries: u32) -> Result<(), Error>;

    /// Try `tries` failed; the next is at `next_at`, if there is one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn failed(
        &self,
        id: Uuid,
        tries: u32,
        why: &str,
        next_at: Option<Timestamp>,
    ) -> Result<(), Error>;
}
