//! What a circuit remembers of the calls before: counts over a stretch of time, or the last so many
//! calls, and the failures in a row.
//!
//! Failures are counted in halves, since some count half. Invariant: the memory is of fixed size,
//! whatever the traffic.

use std::collections::VecDeque;

use crate::clock::Timestamp;
use crate::config::Breaker;

/// Stretches that a window of time is cut into (`reliability` 3.2).
const BUCKETS: u8 = 10;

/// Failures in a row count as such when they are this close together (`reliability` 3.2).
const STREAK_MS: i64 = 60_000;

/// Calls of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that count.
    pub calls: u32,
    /// Failures, in halves.
    pub failed_halves: u32,
    /// With a late first byte.
    pub slow: u32,
}

impl Counts {
    /// Failures, in percent of the calls.
    pub fn failure_percent(self) -> u32 {
        percent(self.failed_halves, self.calls.saturating_mul(2))
    }

    /// Slow calls, in percent of the calls.
    pub fn slow_percent(self) -> u32 {
        percent(self.slow, self.calls)
    }

    /// Adds others, of the same circuit.
    pub fn add(&mut self, call: Self) {
        self.calls = self.calls.saturating_add(call.calls);
        self.failed_halves = self.failed_halves.saturating_add(call.failed_halves);
        self.slow = self.slow.saturating_add(call.slow);
    }
}

fn percent(part: u32, whole: u32) -> u32 {
    let hundredfold = u64::from(part) * 100;
    hundredfold.checked_div(whole.into()).map_or(0, |p| u32::try_from(p).unwrap_or(100))
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Which stretch since 1970 it holds.
    slot: i64,
    counts: Counts,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    buckets: [Bucket; BUCKETS as usize],
    last: VecDeque<Counts>,
    /// The failures in a row, oldest first: when, and how many halves.
    streak: VecDeque<(Timestamp, u32)>,
}

impl Window {
    /// Takes in a call. What neither failed nor was slow ends a row of failures; a call that was
    /// only slow does too.
    pub(super) fn add(&mut self, call: Counts, now: Timestamp, settings: &Breaker) {
        if let Some(most) = settings.window_calls {
            self.last.push_back(call);
            while self.last.len() > most as usize {
                self.last.pop_front();
            }
        } else {
            let slot = slot(now, settings);
            let index = usize::try_from(slot.rem_euclid(BUCKETS.into())).unwrap_or(0);
            if let Some(bucket) = self.buckets.get_mut(index) {
                if bucket.slot != slot {
                    *bucket = Bucket { slot, counts: Counts::default() };
                }
                bucket.counts.add(call);
            }
        }
        if call.failed_halves == 0 {
            self.streak.clear();
            return;
        }
        self.streak.push_back((now, call.failed_halves));
        // No more than it takes to trip, if each counts half.
        let most = settings.consecutive_failures.saturating_mul(2).max(1) as usize;
        let is_past = |at: Timestamp| now.since(at) > STREAK_MS * 1_000;
        while self.streak.len() > most || self.streak.front().is_some_and(|(at, _)| is_past(*at)) {
            self.streak.pop_front();
        }
    }

    /// The counts at `now`.
    pub(super) fn counts(&self, now: Timestamp, settings: &Breaker) -> Counts {
        let mut sum = Counts::default();
        if settings.window_calls.is_some() {
            self.last.iter().for_each(|call| sum.add(*call));
        } else {
            let newest = slot(now, settings);
            let lives = |b: &&Bucket| b.slot > newest - i64::from(BUCKETS) && b.slot <= newest;
            self.buckets.iter().filter(lives).for_each(|bucket| sum.add(bucket.counts));
        }
        sum
    }

    /// Failures in a row, in halves, and how many calls they were.
    pub(super) fn streak(&self) -> (u32, u32) {
        let halves =
            self.streak.iter().fold(0, |sum: u32, (_, halves)| sum.saturating_add(*halves));
        (halves, u32::try_from(self.streak.len()).unwrap_or(u32::MAX))
    }
}

fn slot(now: Timestamp, settings: &Breaker) -> i64 {
    let stretch_ms = (i64::from(settings.window_ms) / i64::from(BUCKETS)).max(1);
    now.millis().div_euclid(stretch_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Counts = Counts { calls: 1, failed_halves: 2, slow: 0 };
    const HALF: Counts = Counts { calls: 1, failed_halves: 1, slow: 0 };
    const FINE: Counts = Counts { calls: 1, failed_halves: 0, slow: 0 };

    fn at(ms: i64) -> Timestamp {
        Timestamp::default().plus_millis(ms)
    }

    #[test]
    fn calls_leave_a_window_of_time_by_and_by() {
        let settings = Breaker { window_ms: 1_000, ..Breaker::default() };
        let mut window = Window::default();
        window.add(FAILED, at(0), &settings);
        window.add(FINE, at(500), &settings);
        assert_eq!(window.counts(at(999), &settings).calls, 2);
        assert_eq!(window.counts(at(1_000), &settings), FINE);
        assert_eq!(window.counts(at(2_000), &settings), Counts::default());
    }

    #[test]
    fn a_window_of_calls_knows_no_time() {
        let settings = Breaker { window_calls: Some(2), ..Breaker::default() };
        let mut window = Window::default();
        for call in [FAILED, FAILED, FINE] {
            window.add(call, at(0), &settings);
        }
        let counts = window.counts(at(1_000_000), &settings);
        assert_eq!((counts.calls, counts.failure_percent()), (2, 50));
    }

    #[test]
    fn half_failures_count_half() {
        let settings = Breaker::default();
        let mut window = Window::default();
        (0..10).for_each(|_| window.add(HALF, at(0), &settings));
        assert_eq!(window.counts(at(0), &settings).failure_percent(), 50);
        assert_eq!(window.streak(), (10, 10));
    }

    #[test]
    fn a_success_or_a_minute_ends_a_row_of_failures() {
        let settings = Breaker::default();
        let mut window = Window::default();
        window.add(FAILED, at(0), &settings);
        window.add(FINE, at(1), &settings);
        window.add(FAILED, at(2), &settings);
        assert_eq!(window.streak(), (2, 1));
        window.add(FAILED, at(70_000), &settings);
        assert_eq!(window.streak(), (2, 1));
    }

    #[test]
    fn a_row_of_failures_is_counted_over_the_minute_before_now() {
        let settings = Breaker::default();
        let mut window = Window::default();
        for seconds in [0, 50, 55, 58, 61, 62] {
            window.add(FAILED, at(seconds * 1_000), &settings);
        }
        assert_eq!(window.streak(), (10, 5), "the first is too long ago, the others are not");
    }

    #[test]
    fn a_row_remembers_no_more_than_it_takes_to_trip() {
        let settings = Breaker { consecutive_failures: 3, ..Breaker::default() };
        let mut window = Window::default();
        (0..100).for_each(|ms| window.add(HALF, at(ms), &settings));
        assert_eq!(window.streak(), (6, 6));
    }
}
