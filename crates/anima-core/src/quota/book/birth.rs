//! From when on the ledger knows of every call that a purse does not know of.
//!
//! A call has its ticket first and its hold in the ledger a moment later. When counters are lost,
//! or a budget is set on a key in use, the calls in between are in neither sum. So a purse that
//! nobody seeded is born when somebody first asks to seed it, and the ledger is read for it only
//! after the time in which a hold is written; a call whose hold took longer asks its purses again
//! before it is sent anywhere. Invariant: a seed is of a reading that began when its purse was
//! ripe, and of the same life of the counter. Source: `reliability` 2.3.

use super::super::{Bound, Check};
use super::{Book, State, place_of};

/// How long after its birth a counter may be seeded from the ledger, microseconds.
pub const RIPENS_US: i64 = 500_000;

/// A call whose hold is in the ledger later than this after it asked for its ticket asks its
/// budgets again, microseconds. The rest of [`RIPENS_US`] is for a change of the configuration, in
/// which a budget is set, to reach all nodes.
pub const LATE_US: i64 = 250_000;

/// How long the birth of a counter is known after it was last asked for, microseconds: longer than
/// the longest span, so that only the first of them waits.
const KEPT_US: i64 = 40 * 86_400_000_000;

/// The birth of a purse that nobody has seeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// What this life of the counter is called: its seed must name it.
    pub name: i64,
    /// After how long the ledger may be read for it, microseconds.
    pub wait_us: i64,
}

/// When a counter was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Born {
    name: i64,
    since_us: i64,
    asked_us: i64,
}

#[expect(clippy::multiple_inherent_impl, reason = "a purse's birth and its life are two files")]
impl Book {
    /// The birth of a purse that nobody has seeded; it is born now when nobody has asked before.
    /// The counter of a further span of a budget that is known is ripe. `None` when it is seeded.
    pub fn birth(&mut self, purse: &Bound, now_us: i64) -> Option<Birth> {
        if !matches!(purse.check, Check::Purse { .. }) || self.is_seeded(purse) {
            return None;
        }
        let known = self.births.get(&purse.counter).copied();
        let born = known.filter(|born| born.since_us <= now_us).unwrap_or_else(|| {
            let name = known.map_or(now_us, |born| now_us.max(born.name.saturating_add(1)));
            Born { name, since_us: now_us, asked_us: now_us }
        });
        let born = Born { asked_us: now_us, ..born };
        self.births.insert(purse.counter.clone(), born);
        let wait_us = born.since_us.saturating_add(RIPENS_US).saturating_sub(now_us).max(0);
        Some(Birth { name: born.name, wait_us })
    }

    /// Says of a purse of that birth what the ledger says was spent. `false` when it has another
    /// birth by now and is not seeded.
    pub fn seed_born(&mut self, purse: &Bound, (birth, spent): (i64, i64)) -> bool {
        let Check::Purse { span, .. } = purse.check else { return true };
        if self.is_seeded(purse) {
            return true;
        }
        let born = self.births.get(&purse.counter);
        let is_same = born.is_some_and(|born| born.name == birth && born.since_us < i64::MAX);
        is_same && self.seed(&purse.counter, span, spent)
    }

    /// Whoever wants to seed a purse that nobody has seeded begins to wait anew: a call that was
    /// admitted a moment ago may not have its hold yet. `false` when somebody has seeded it.
    pub fn put_off(&mut self, purse: &Bound) -> bool {
        if self.is_seeded(purse) {
            return false;
        }
        if let Some(born) = self.births.get_mut(&purse.counter) {
            // Born in a time to come: it is born anew when it is asked for.
            born.since_us = i64::MAX;
        }
        true
    }

    /// Forgets births that nobody asked for in a long time.
    pub(super) fn sweep_births(&mut self, now_us: i64) {
        self.births.retain(|_, born| born.asked_us.saturating_add(KEPT_US) > now_us);
    }

    fn is_seeded(&self, purse: &Bound) -> bool {
        let Check::Purse { span, .. } = purse.check else { return true };
        let state = self.counters.get(&place_of(purse));
        matches!(state, Some(State::Purse(known)) if known.span == span)
    }
}
