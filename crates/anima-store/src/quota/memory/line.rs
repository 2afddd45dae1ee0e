//! The lines of one process.
//!
//! Each shard has the lines of its tags beside its counters, under one lock. Invariant: whatever
//! gives something back hands it off before the lock is free.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::queue::line::{Attended, Called, Joined, Joining};
use anima_core::queue::{Ahead, Line};
use anima_core::quota::{Ask, Book, Bound, Standing, Tag, Verdict};

use super::MemoryQuotas;
use crate::pubsub::Subscription;
use crate::quota::Unavailable;
use crate::quota::line::{InTurn, LineExits, LineStore, LineView, Waits};

/// The only node there is.
const NODE: Uuid = Uuid::nil();

/// Counters, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) book: Book,
    lines: BTreeMap<Tag, Line>,
}

impl Shard {
    /// Whether calls wait under a tag.
    pub(super) fn waits(&self, tag: &Tag) -> bool {
        !self.lines.is_empty() && self.lines.contains_key(tag)
    }

    /// Takes all that is asked for under one tag, or nothing, and overtakes nobody.
    fn admit(&mut self, tag: &Tag, ask: Ask<'_>) -> Verdict {
        match self.lines.get(tag) {
            Some(line) => line.admit(&mut self.book, ask),
            None => self.book.admit(ask),
        }
    }

    /// Where a bound stands for a call that overtakes nobody.
    fn judge(&mut self, bound: &Bound, ask: Ask<'_>) -> Standing {
        match self.lines.get(&bound.tag) {
            Some(line) => line.judge(&mut self.book, bound, ask),
            None => self.book.judge(bound, ask),
        }
    }

    /// Takes for those who wait under a tag what is there.
    pub(super) fn hand_off(&mut self, tag: &Tag, now: Timestamp) -> Vec<Uuid> {
        if !self.waits(tag) {
            return Vec::new();
        }
        self.within(tag, |line, book| ((), line.hand_off(book, now))).1
    }

    /// Works with a tag's line, which is kept while anybody waits in it.
    fn within<T>(
        &mut self,
        tag: &Tag,
        work: impl FnOnce(&mut Line, &mut Book) -> (T, Called),
    ) -> (T, Vec<Uuid>) {
        let line = self.lines.entry(tag.clone()).or_default();
        let (said, called) = work(line, &mut self.book);
        if line.is_empty() {
            self.lines.remove(tag);
        }
        (said, called.ids)
    }
}

/// Whom hand-offs called.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<Vec<Uuid>>);

impl Calls {
    pub(super) fn note(&self, mut ids: Vec<Uuid>) {
        if !ids.is_empty() {
            self.0.lock().append(&mut ids);
        }
    }
}

fn within<T>(
    quotas: &MemoryQuotas,
    tag: &Tag,
    work: impl FnOnce(&mut Line, &mut Book) -> (T, Called),
) -> Result<T, Unavailable> {
    let shard = quotas.shard(tag).map(|mut shard| shard.within(tag, work));
    let (said, called) = shard.ok_or_else(|| Unavailable("no such shard".to_owned()))?;
    quotas.calls.note(called);
    Ok(said)
}

#[async_trait]
impl LineExits for MemoryQuotas {
    async fn leave(&self, tag: &Tag, id: Uuid, now: Timestamp) -> Result<bool, Unavailable> {
        within(self, tag, |line, book| line.leave(book, id, now))
    }
}

#[async_trait]
impl LineView for MemoryQuotas {
    async fn ahead(&self, tag: &Tag, (tenant, id): (&str, Uuid)) -> Result<Ahead, Unavailable> {
        let shard = self.shard(tag);
        let line = shard.as_ref().and_then(|shard| shard.lines.get(tag));
        let nobody = Ahead { tenants: 1, ..Ahead::default() };
        Ok(line.map_or(nobody, |line| line.queue().ahead(tenant, id)))
    }

    async fn waiting(&self) -> Result<Vec<Waits>, Unavailable> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (tag, line) in &shard.lock().lines {
                let waits = |of| Waits { tag: tag.clone(), of, shared: false };
                all.extend(line.queue().waiting().map(waits));
            }
        }
        Ok(all)
    }
}

#[async_trait]
impl LineStore for MemoryQuotas {
    async fn admit_in_turn(&self, ask: Ask<'_>) -> Result<InTurn, Unavailable> {
        Ok(match self.behind(ask.bounds) {
            Some(tag) => InTurn::Behind(tag),
            None => InTurn::Judged(self.admit_now(ask)),
        })
    }

    async fn admit_at_once(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        let Some(first) = ask.bounds.first() else { return Ok(Verdict::Admitted(vec![])) };
        if ask.bounds.iter().all(|bound| bound.tag == first.tag) {
            let said = self.shard(&first.tag).map(|mut shard| shard.admit(&first.tag, ask));
            return said.ok_or_else(|| Unavailable("no such shard".to_owned()));
        }
        Ok(self.over_all(
            ask,
            |shard, bound| shard.judge(bound, ask),
            |shard, bound, standing| shard.book.take(bound, standing, ask),
        ))
    }

    async fn join(
        &self,
        tag: &Tag,
        joining: Joining<'_>,
        now: Timestamp,
    ) -> Result<Joined, Unavailable> {
        let joined = within(self, tag, |line, book| line.join(book, (NODE, joining), now))?;
        if joined == Joined::Called {
            self.calls.0.lock().retain(|id| *id != joining.id);
        }
        Ok(joined)
    }

    async fn attend(
        &self,
        tag: &Tag,
        ids: &[Uuid],
        now: Timestamp,
    ) -> Result<Attended, Unavailable> {
        within(self, tag, |line, book| line.attend(book, (NODE, ids), now))
    }

    fn called(&self) -> Vec<Uuid> {
        std::mem::take(&mut *self.calls.0.lock())
    }

    async fn calls(&self) -> Option<Subscription> {
        None
    }
}
