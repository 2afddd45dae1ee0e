//! How many tries an alias may make beyond the first: a share of its calls, and a few a second.
//!
//! Keeps a provider that fails everywhere from being asked twice as much for it. Counts are kept
//! for a stretch of ten seconds and then start again. Invariant: in a stretch no more are granted
//! than the floor and the share together, whatever runs at once. Source: `reliability` 4.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::Timestamp;

/// How long counts are kept.
const STRETCH_MS: i64 = 10_000;
/// Tries that are always granted in a stretch: three a second.
const FLOOR: u64 = 30;
/// Calls that earn one try.
const CALLS_PER_TRY: u64 = 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Allowance {
    stretch: AtomicI64,
    /// Calls in the upper half, tries granted in the lower: one number, so that a new stretch
    /// starts for both at once.
    counts: AtomicU64,
}

const CALL: u64 = 1 << 32;

impl Allowance {
    /// Counts a call.
    pub fn call(&self, now: Timestamp) {
        self.turn(now);
        self.counts.fetch_add(CALL, Ordering::Relaxed);
    }

    /// Asks for a further try.
    pub fn grant(&self, now: Timestamp) -> bool {
        self.turn(now);
        let take = |counts: u64| {
            let (calls, tries) = (counts >> 32, counts & (CALL - 1));
            (tries < FLOOR + calls / CALLS_PER_TRY).then_some(counts + 1)
        };
        self.counts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn turn(&self, now: Timestamp) {
        let stretch = now.millis().div_euclid(STRETCH_MS);
        let known = self.stretch.load(Ordering::Relaxed);
        if known < stretch {
            let (relaxed, order) = (Ordering::Relaxed, Ordering::AcqRel);
            if self.stretch.compare_exchange(known, stretch, order, relaxed).is_ok() {
                self.counts.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_calls_and_the_floor_are_granted() {
        let allowance = Allowance::default();
        let now = Timestamp::from_micros(1);
        for _ in 0..1_000 {
            allowance.call(now);
        }
        let granted = (0..1_000).filter(|_| allowance.grant(now)).count();
        assert_eq!(granted, 130);
        assert!(allowance.grant(now.plus_millis(STRETCH_MS)), "and again in the next stretch");
    }
}
