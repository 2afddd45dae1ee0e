//! What became of calls that were sent under an `Idempotency-Key`, kept so that a call that is sent
//! again costs nothing.
//!
//! Contract, for every backend:
//! - Of all who claim one key for one request, on any node, one is told [`Verdict::Fresh`] and
//!   makes the call. Its claim is on disk when it is told.
//! - A claim ends by [`IdempotencyStore::end`], or is given up by [`IdempotencyStore::abandon`],
//!   and only by the call that holds it: one whose claim was taken over changes nothing. After its
//!   process died it ends by [`IdempotencyStore::retire`], or is taken over, and never both.
//! - A claim whose process died is judged by the call's hold: not charged, the key is free again;
//!   charged, the answer is lost, and nobody is told to make the call a second time. Without a hold
//!   the key is free as soon as the lease of [`Claim::node`] was taken away or given back.
//! - Another request under a key that is in use is [`Verdict::Conflict`].
//! - A record that has expired is not there, swept or not.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;

use crate::config::Error;

mod judge; // what a record means to a claim
pub(crate) mod postgres;
mod sql;
pub(crate) mod sqlite;
#[cfg(test)]
mod tests;

/// A call that wants to be the only one of its key.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Public id of the API key that sent it: keys do not see each other's answers.
    pub kid: Arc<str>,
    /// Hash of the `Idempotency-Key`.
    pub key_hash: [u8; 32],
    /// Hash of what was asked for.
    pub content_hash: [u8; 32],
    /// The call's id, also its hold's.
    pub call: Uuid,
    /// The lease that the call is made under. The caller vouches for this: the call sends nothing
    /// unless it finds, after its hold was placed, that this very lease has not ended. Under a
    /// later lease of its process it sends nothing.
    pub node: Uuid,
    /// Now.
    pub at: Timestamp,
    /// A claim without a hold and without a lease that has ended is believed until here: the call
    /// cannot begin any more.
    pub stale_at: Timestamp,
    /// The record is forgotten from here on.
    pub expires_at: Timestamp,
}

/// A key, as its record goes by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedKey {
    /// Public id of the API key that sent it.
    pub kid: Arc<str>,
    /// Hash of the `Idempotency-Key`.
    pub hash: [u8; 32],
}

/// What a claim is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The key was free and is yours: make the call.
    Fresh,
    /// The call is being made, or what became of it is not known yet.
    Running,
    /// The call was made, and here is its answer.
    Kept {
        /// The call that was made.
        call: Uuid,
        /// As it was given to [`IdempotencyStore::end`].
        sealed: Vec<u8>,
    },
    /// The call was made and charged, and its answer is not here.
    Gone {
        /// The call that was made.
        call: Uuid,
        /// Why there is no answer.
        why: Gone,
    },
    /// The key was used for something else.
    Conflict,
}

/// Why the answer of a call that was made cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It was larger than what is kept.
    TooLarge,
    /// It did not come to its end, or the process died before it was kept.
    Lost,
}

/// How a call ended that may have been charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With an answer, sealed.
    Kept(Vec<u8>),
    /// With one that is larger than what is kept.
    TooLarge,
}

/// Keeps the answers.
#[async_trait]
pub trait IdempotencyStore: Send + Sync + fmt::Debug {
    /// Asks for a key.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; whether the claim was made is then not known, so it has to be
    /// abandoned, and another one is another call's.
    async fn claim(&self, claim: &Claim) -> Result<Verdict, Error>;

    /// Ends the claim. `false` when the call does not hold it any more; then nothing is written.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn end(&self, claim: &Claim, ending: Ending) -> Result<bool, Error>;

    /// Keeps the key of a call whose answer was given from being used for another call, however its
    /// hold was closed: a claim that has not ended ends here, [`Gone::Lost`] until its answer is
    /// kept after all. `false` when the key may have been used for another call since; then nothing
    /// is written. Said once, it stays so until the record expires.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn retire(&self, key: &UsedKey, call: Uuid) -> Result<bool, Error>;

    /// Frees the key, because nothing was charged and the call may be tried again.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn abandon(&self, claim: &Claim) -> Result<(), Error>;

    /// Deletes up to `most` expired records and says how many it deleted.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn sweep(&self, now: Timestamp, most: u32) -> Result<u64, Error>;
}
