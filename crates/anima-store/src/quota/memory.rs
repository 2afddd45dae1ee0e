//! The counters of one process, sharded so that calls of different apps do not wait for each other.
//!
//! Nothing here waits for anything: a lock is held for the arithmetic and never over an await.
//! Invariant: an ask that spans several shards locks all of them, in order, before it is judged.

use std::hash::{BuildHasher as _, RandomState};

use async_trait::async_trait;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::quota::book::{Birth, Level, Seen};
use anima_core::quota::{Ask, Book, Bound, Standing, Tag, Verdict, verdict};

use self::line::{Calls, Shard};
use super::{PurseStore, QuotaStore, SeedStore, Ticket, Unavailable, UndoStore};

mod line; // who waits for them

/// Shards. Many more than cores, so that two apps seldom meet in one.
const SHARDS: usize = 64;

/// How long a ticket is kept after its lease, microseconds: a call that was cut off for a while may
/// still come to close it.
const KEPT_US: i64 = 3_600_000_000;

/// The counters. See the module.
#[derive(Debug)]
pub struct MemoryQuotas {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    calls: Calls,
}

impl Default for MemoryQuotas {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), calls: Calls::default() }
    }
}

impl MemoryQuotas {
    fn place(&self, tag: &Tag) -> usize {
        let hash = self.hasher.hash_one(tag);
        usize::try_from(hash % SHARDS as u64).unwrap_or(0)
    }

    fn shard(&self, tag: &Tag) -> Option<MutexGuard<'_, Shard>> {
        self.shards.get(self.place(tag)).map(Mutex::lock)
    }

    fn book(&self, tag: &Tag) -> Option<MappedMutexGuard<'_, Book>> {
        self.shard(tag).map(|shard| MutexGuard::map(shard, |shard| &mut shard.book))
    }

    /// Where others wait for one of these.
    pub(super) fn behind(&self, bounds: &[Bound]) -> Option<Tag> {
        let waits = |tag: &Tag| self.shard(tag).is_some_and(|shard| shard.waits(tag));
        bounds.iter().map(|bound| &bound.tag).find(|tag| waits(tag)).cloned()
    }

    /// The shards of some bounds, each once and in order.
    fn places(&self, bounds: &[Bound]) -> Vec<usize> {
        let mut places: Vec<usize> = bounds.iter().map(|bound| self.place(&bound.tag)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Judges and writes over several shards, all of them locked.
    fn over_all(
        &self,
        ask: Ask<'_>,
        judge: impl Fn(&mut Shard, &Bound) -> Standing,
        take: impl Fn(&mut Shard, &Bound, Standing),
    ) -> Verdict {
        let mut shards: Vec<(usize, MutexGuard<'_, Shard>)> = self
            .places(ask.bounds)
            .into_iter()
            .filter_map(|place| Some((place, self.shards.get(place)?.lock())))
            .collect();
        let mut in_shard = |bound: &Bound, work: &mut dyn FnMut(&mut Shard)| {
            let place = self.place(&bound.tag);
            if let Some((_, shard)) = shards.iter_mut().find(|(at, _)| *at == place) {
                work(shard);
            }
        };
        let mut standings = Vec::with_capacity(ask.bounds.len());
        for bound in ask.bounds {
            in_shard(bound, &mut |shard| standings.push(judge(shard, bound)));
        }
        let verdict = verdict(ask.bounds, standings);
        let Verdict::Admitted(standings) = verdict else { return verdict };
        for (bound, standing) in ask.bounds.iter().zip(&standings) {
            in_shard(bound, &mut |shard| take(shard, bound, *standing));
        }
        Verdict::Admitted(standings)
    }

    fn admit_now(&self, ask: Ask<'_>) -> Verdict {
        let Some(first) = ask.bounds.first() else { return Verdict::Admitted(vec![]) };
        if ask.bounds.iter().all(|bound| bound.tag == first.tag) {
            return self
                .book(&first.tag)
                .map_or_else(|| Verdict::Unseeded(vec![]), |mut book| book.admit(ask));
        }
        self.over_all(
            ask,
            |shard, bound| shard.book.judge(bound, ask),
            |shard, bound, standing| shard.book.take(bound, standing, ask),
        )
    }
}

#[async_trait]
impl SeedStore for MemoryQuotas {
    async fn birth(&self, purse: &Bound, now: Timestamp) -> Result<Option<Birth>, Unavailable> {
        Ok(self.book(&purse.tag).and_then(|mut book| book.birth(purse, now.micros())))
    }

    async fn seed(&self, purse: &Bound, seed: (i64, i64)) -> Result<bool, Unavailable> {
        Ok(self.book(&purse.tag).is_some_and(|mut book| book.seed_born(purse, seed)))
    }

    async fn put_off(&self, purse: &Bound) -> Result<bool, Unavailable> {
        Ok(self.book(&purse.tag).is_some_and(|mut book| book.put_off(purse)))
    }
}

#[async_trait]
impl PurseStore for MemoryQuotas {
    async fn charge(&self, purse: &Bound, charge: Uuid) -> Result<bool, Unavailable> {
        Ok(self.book(&purse.tag).is_some_and(|mut book| book.charge(purse, charge)))
    }

    async fn look(&self, purse: &Bound, now: Timestamp) -> Result<Option<Seen>, Unavailable> {
        Ok(self.book(&purse.tag).and_then(|mut book| book.look(purse, now.micros())))
    }

    async fn repair(&self, purse: &Bound, mend: (i64, i64)) -> Result<bool, Unavailable> {
        Ok(self.book(&purse.tag).is_some_and(|mut book| book.repair(purse, mend)))
    }
}

#[async_trait]
impl UndoStore for MemoryQuotas {
    async fn undo(&self, ticket: &Ticket, now: Timestamp) -> Result<(), Unavailable> {
        self.close(ticket, now).await.map(drop)
    }
}

#[async_trait]
impl QuotaStore for MemoryQuotas {
    async fn admit(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        Ok(self.admit_now(ask))
    }

    async fn close(&self, ticket: &Ticket, now: Timestamp) -> Result<bool, Unavailable> {
        let mut closed = false;
        for place in self.places(&ticket.bounds) {
            let Some(shard) = self.shards.get(place) else { continue };
            let mut shard = shard.lock();
            closed |= shard.book.close(ticket.id, &ticket.bounds, now.micros());
            for bound in ticket.bounds.iter().filter(|bound| self.place(&bound.tag) == place) {
                self.calls.note(shard.hand_off(&bound.tag, now));
            }
        }
        Ok(closed)
    }

    async fn renew(
        &self,
        tickets: &[Ticket],
        now: Timestamp,
        lease_us: i64,
    ) -> Result<(), Unavailable> {
        for ticket in tickets {
            for place in self.places(&ticket.bounds) {
                if let Some(shard) = self.shards.get(place) {
                    shard.lock().book.renew(&[ticket.id], (now.micros(), lease_us));
                }
            }
        }
        Ok(())
    }

    async fn extend(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        Ok(self.over_all(
            ask,
            |shard, bound| shard.book.judge_more(bound, ask),
            |shard, bound, standing| shard.book.take_more(bound, standing, ask),
        ))
    }

    async fn levels(
        &self,
        bounds: &[Bound],
        now: Timestamp,
    ) -> Result<Vec<Option<Level>>, Unavailable> {
        let level = |bound: &Bound| self.book(&bound.tag)?.level(bound, now.micros());
        Ok(bounds.iter().map(level).collect())
    }

    async fn sweep(&self, now: Timestamp) {
        for shard in &self.shards {
            shard.lock().book.sweep(now.micros(), KEPT_US);
        }
    }
}
