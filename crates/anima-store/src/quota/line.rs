//! Who waits for limits, on all nodes or in one process (queue mode WAIT).
//!
//! Contract, for every backend:
//! - A call is in a tag's line once. What is given back under a tag is taken for the next in its
//!   line at once, in the same step; the call has [`CLAIM_US`] to ask for it again and keep it.
//! - Waiters of a node that does not [`LineStore::attend`] for [`NODE_US`] are out.
//! - Whether a node hears of a call at once ([`LineStore::calls`], [`LineStore::called`]) is not
//!   promised; what it attends to is.
//! - It agrees with [`anima_core::queue::Line`] on every sequence.
//!
//! A line that is lost is built again by its waiters, each at its old place.
//!
//! [`CLAIM_US`]: anima_core::queue::line::CLAIM_US
//! [`NODE_US`]: anima_core::queue::line::NODE_US

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::queue::line::{Attended, Joined, Joining};
use anima_core::queue::{Ahead, Waiting};
use anima_core::quota::{Ask, Tag, Verdict};

use super::Unavailable;
use crate::pubsub::Subscription;

/// The call that a message of [`LineStore::calls`] says has its turn, and in which line.
pub fn call_of(message: &[u8]) -> Option<(Uuid, Tag)> {
    let (id, word) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    Some((Uuid::parse_str(id).ok()?, tag_of(word)?))
}

/// A tag as messages and the set of lines have it.
pub(super) fn word_of(tag: &Tag) -> String {
    match tag {
        Tag::App(code) => format!("t:{code}"),
        Tag::TokenGroup(code) => format!("g:{code}"),
        Tag::Channel(code) => format!("c:{code}"),
    }
}

pub(super) fn tag_of(word: &str) -> Option<Tag> {
    let (kind, code) = word.split_once(':')?;
    match kind {
        "t" => Some(Tag::App(code.into())),
        "g" => Some(Tag::TokenGroup(code.into())),
        "c" => Some(Tag::Channel(code.into())),
        _ => None,
    }
}

/// What a call is told that does not overtake those who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InTurn {
    /// Nobody waits.
    Judged(Verdict),
    /// Others wait under this tag. Nothing was taken.
    Behind(Tag),
}

/// Those of one tenant that wait in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// What they wait for.
    pub tag: Tag,
    /// Whose they are, how many, and since when.
    pub of: Waiting,
    /// The line is that of all nodes.
    pub shared: bool,
}

/// How calls leave lines.
#[async_trait]
pub trait LineExits: Send + Sync + fmt::Debug {
    /// Takes a call out of a tag's line. `false` when it was not in it.
    ///
    /// # Errors
    /// When the counters cannot be reached: it is out when its time is over.
    async fn leave(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<bool, Unavailable>;

    /// A call has what it waited for under a tag, or waits under another: lines that cannot be
    /// asked now are told later that it left.
    fn served(&self, _tag: &Tag, _id: Uuid) {}

    /// Takes out a call that nobody waits for, and gives back what was taken for it when it was
    /// called.
    ///
    /// # Errors
    /// When the counters cannot be reached: what was taken is free when its claim is over.
    async fn disown(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<(), Unavailable> {
        // Where whoever leaves knows at once whether it was called.
        self.leave(tag, id, now).await.map(drop)
    }

    /// Takes calls out of a tag's line, all of them before anything is handed over.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn leave_all(&self, tag: &Tag, ids: &[Uuid], now: Timestamp) -> Result<(), Unavailable> {
        for id in ids {
            self.leave(tag, *id, now).await?;
        }
        Ok(())
    }
}

/// What lines show.
#[async_trait]
pub trait LineView: Send + Sync + fmt::Debug {
    /// What a call of a tenant finds in a tag's line if it comes again.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn ahead(&self, tag: &Tag, call: (&str, Uuid)) -> Result<Ahead, Unavailable>;

    /// Everyone who waits, on whatever node, by line and tenant; what is shown of calls of nodes
    /// that died may be a few seconds old.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn waiting(&self) -> Result<Vec<Waits>, Unavailable>;
}

/// Lines. See the module.
#[async_trait]
pub trait LineStore: LineExits + LineView {
    /// Takes all that is asked for, or nothing, unless others wait for it.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn admit_in_turn(&self, ask: Ask<'_>) -> Result<InTurn, Unavailable>;

    /// Takes all that is asked for, or nothing, and nothing that somebody waits for: for calls
    /// that do not wait.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn admit_at_once(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable>;

    /// Lets a call wait in a tag's line.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn join(
        &self,
        tag: &Tag,
        joining: Joining<'_>,
        now: Timestamp,
    ) -> Result<Joined, Unavailable>;

    /// Says that this node lives, and which of its calls are not in a tag's line any more.
    ///
    /// # Errors
    /// When the counters cannot be reached.
    async fn attend(
        &self,
        tag: &Tag,
        ids: &[Uuid],
        now: Timestamp,
    ) -> Result<Attended, Unavailable>;

    /// The calls of this node whose turn has come since this was last asked, as far as they were
    /// called in this process.
    fn called(&self) -> Vec<Uuid>;

    /// Hears of calls of this node whose turn has come, whoever called them: messages for
    /// [`call_of`]. `None` where [`LineStore::called`] knows all of them.
    async fn calls(&self) -> Option<Subscription>;
}
