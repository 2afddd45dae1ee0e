//! The probes that may run while a circuit is half open.
//!
//! One set is shared by all nodes (a script in Redis does the same), or each node has its own when
//! there is nothing to share it by. Invariant: the probes that run and those that have passed are
//! together never more than the limit, and a permit comes back on every outcome or when it expires.

use crate::clock::Timestamp;

/// A permit that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    token: u64,
    until: Timestamp,
}

/// The permits of one circuit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permits {
    /// The opening of the circuit that they belong to.
    epoch: u64,
    out: Vec<Taken>,
    passed: u32,
}

impl Permits {
    /// Takes a permit until `until`. False when there is none, or when the opening that is asked
    /// for is over.
    pub fn take(
        &mut self,
        epoch: u64,
        (token, until): (u64, Timestamp),
        now: Timestamp,
        limit: u32,
    ) -> bool {
        if epoch < self.epoch {
            return false;
        }
        self.start(epoch);
        self.out.retain(|taken| now < taken.until);
        // Where the limit was lowered meanwhile, one more probe can still say that it passes.
        let passed = self.passed.min(limit.saturating_sub(1));
        let used = u32::try_from(self.out.len()).unwrap_or(u32::MAX).saturating_add(passed);
        let granted = used < limit;
        if granted {
            self.out.push(Taken { token, until });
        }
        granted
    }

    /// Gives a permit back. Says how many probes of the opening have passed so far. A permit that
    /// has expired meanwhile may be another's by now and counts for nothing.
    pub fn give_back(&mut self, epoch: u64, token: u64, passed: bool) -> u32 {
        let before = self.out.len();
        self.out.retain(|taken| taken.token != token);
        if passed && epoch == self.epoch && self.out.len() < before {
            self.passed += 1;
        }
        if epoch == self.epoch { self.passed } else { 0 }
    }

    /// Ends an opening: a probe of it failed. What is still out stays counted until it is back.
    pub fn end(&mut self, epoch: u64) {
        self.start(epoch.saturating_add(1));
    }

    /// Permits that are out at `now`.
    pub fn running(&self, now: Timestamp) -> usize {
        self.out.iter().filter(|taken| now < taken.until).count()
    }

    fn start(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.passed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Timestamp = Timestamp::from_micros(1_000);

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_neutral_outcome_gives_its_permit_back() {
        let mut permits = Permits::default();
        assert!(permits.take(1, (7, LATER), at(0), 1));
        assert!(!permits.take(1, (8, LATER), at(0), 1));
        assert_eq!(permits.give_back(1, 7, false), 0);
        assert!(permits.take(1, (8, LATER), at(0), 1));
    }

    #[test]
    fn a_permit_that_passed_is_not_given_again() {
        let mut permits = Permits::default();
        assert!(permits.take(1, (7, LATER), at(0), 2));
        assert_eq!(permits.give_back(1, 7, true), 1);
        assert!(permits.take(1, (8, LATER), at(0), 2));
        assert!(!permits.take(1, (9, LATER), at(0), 2));
    }

    #[test]
    fn a_permit_of_a_node_that_died_expires_and_counts_no_more() {
        let mut permits = Permits::default();
        assert!(permits.take(1, (7, at(10)), at(0), 1));
        assert!(permits.take(1, (8, at(20)), at(10), 1));
        assert_eq!(permits.give_back(1, 7, true), 0, "it was taken by another meanwhile");
        assert_eq!(permits.give_back(1, 8, true), 1);
    }

    #[test]
    fn an_opening_that_is_over_gives_no_permits() {
        let mut permits = Permits::default();
        assert!(permits.take(5, (1, LATER), at(0), 3));
        permits.end(5);
        assert!(!permits.take(5, (2, LATER), at(0), 3));
        assert!(permits.take(9, (3, LATER), at(0), 2), "a later one does");
        assert!(!permits.take(9, (4, LATER), at(0), 2), "but the first probe is still out");
    }
}
