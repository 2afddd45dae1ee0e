//! GCRA: a rate limit in one instant, the one at which a counter is whole again.
//!
//! Each unit moves that instant on by its share of the period; a call passes while the instant is
//! not further ahead than the burst. Invariant: over any span what passes is at most limit × span
//! plus the burst, and a refusal says to the microsecond when the call would pass. Source:
//! `reliability` 2.1.

/// So many units in a period, and how many of them may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units in a period.
    pub limit: i64,
    /// Length of the period, microseconds.
    pub period_us: i64,
    /// Units that may come at once, at least 1 unless nothing may pass.
    pub burst: i64,
}

/// What came of looking at a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It passes, and the counter stands here then.
    Pass(i64),
    /// It passes after so many microseconds.
    After(i64),
    /// It is larger than the burst.
    Never,
}

/// Of units that take at least so long, each takes a whole number of microseconds: a burst is as
/// many single calls then, and not one less for what each was rounded up by. The limit is slower
/// by one in 10,000 at most. Of faster ones a fraction is of no account.
const WHOLE_US: i64 = 10_000;

impl Rate {
    /// How far one unit moves the instant, where that is whole.
    fn unit_us(&self) -> Option<i64> {
        let limit = self.limit.max(1);
        let up = i64::from(self.period_us % limit > 0);
        Some(self.period_us / limit + up).filter(|us| *us >= WHOLE_US)
    }

    /// How far `units` move the instant, microseconds. Rounded up, so that never more passes than
    /// the limit says.
    pub fn cost_us(&self, units: i64) -> i64 {
        if let Some(unit_us) = self.unit_us() {
            return unit_us.saturating_mul(units.max(0)).min(i64::MAX / 4);
        }
        let (units, limit) = (i128::from(units.max(0)), i128::from(self.limit.max(1)));
        let cost = (units * i128::from(self.period_us) + limit - 1) / limit;
        i64::try_from(cost).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
    }

    /// How far ahead the instant may be, microseconds.
    pub fn burst_us(&self) -> i64 {
        if self.limit <= 0 {
            return -1;
        }
        self.cost_us(self.burst)
    }

    /// Where the counter counts from: never before now, and after a fail-over never further ahead
    /// than the burst and a period.
    pub fn start(&self, tat_us: i64, now_us: i64) -> i64 {
        let furthest = now_us.saturating_add(self.burst_us().max(0)).saturating_add(self.period_us);
        tat_us.max(now_us).min(furthest)
    }

    /// Whether `units` pass at `now_us`.
    pub fn judge(&self, tat_us: i64, now_us: i64, units: i64) -> Judged {
        let (cost, burst) = (self.cost_us(units), self.burst_us());
        if cost > burst {
            return Judged::Never;
        }
        let after = self.start(tat_us, now_us).saturating_add(cost);
        let wait = after.saturating_sub(burst).saturating_sub(now_us);
        if wait <= 0 { Judged::Pass(after) } else { Judged::After(wait) }
    }

    /// Units that would pass at once at `now_us`.
    pub fn remaining(&self, tat_us: i64, now_us: i64) -> i64 {
        let free = self.burst_us().saturating_sub(self.start(tat_us, now_us) - now_us).max(0);
        if let Some(unit_us) = self.unit_us() {
            return (free / unit_us).min(self.burst);
        }
        let units = i128::from(free) * i128::from(self.limit) / i128::from(self.period_us.max(1));
        i64::try_from(units).unwrap_or(i64::MAX).min(self.burst)
    }
}

/// Where a counter stands after `reserved_us` of it turned out to be `actual_us`.
///
/// What was reserved and not used is given back as far as time has not passed over it: the
/// reservation ends at `end_us`. What was used beyond it is a debt.
pub fn correct(tat_us: i64, now_us: i64, reserved: (i64, i64), actual_us: i64) -> i64 {
    let (reserved_us, end_us) = reserved;
    if actual_us >= reserved_us {
        let more = actual_us - reserved_us;
        return if more == 0 { tat_us } else { tat_us.max(now_us).saturating_add(more) };
    }
    let unused = reserved_us - actual_us;
    let ahead = end_us.min(tat_us).saturating_sub(now_us).max(0);
    tat_us - unused.min(ahead)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn rate(limit: i64, period_s: i64, burst: i64) -> Rate {
        Rate { limit, period_us: period_s * SECOND, burst }
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_by_one() {
        let rate = rate(100, 60, 20);
        let mut tat = 0;
        for _ in 0..20 {
            let Judged::Pass(after) = rate.judge(tat, SECOND, 1) else { panic!() };
            tat = after;
        }
        assert_eq!(rate.judge(tat, SECOND, 1), Judged::After(600_000));
        assert_eq!(rate.remaining(tat, SECOND), 0);
        assert!(matches!(rate.judge(tat, SECOND + 600_000, 1), Judged::Pass(_)));
    }

    #[test]
    fn a_burst_is_as_many_calls_as_it_says_whatever_the_period() {
        for limit in 1..400 {
            let rate = rate(limit, 3_600, limit);
            let mut tat = 0;
            for left in (0..limit).rev() {
                let Judged::Pass(after) = rate.judge(tat, SECOND, 1) else { panic!("{limit}") };
                tat = after;
                assert_eq!(rate.remaining(tat, SECOND), left, "of {limit}");
            }
            assert!(matches!(rate.judge(tat, SECOND, 1), Judged::After(_)), "of {limit}");
        }
    }

    #[test]
    fn a_limit_of_nothing_lets_nothing_pass() {
        assert_eq!(rate(0, 1, 0).judge(0, 5, 1), Judged::Never);
        assert_eq!(rate(0, 1, 10).judge(0, 5, 1), Judged::Never);
        assert_eq!(rate(0, 1, 0).remaining(0, 5), 0);
    }

    #[test]
    fn what_is_larger_than_the_burst_never_passes() {
        assert_eq!(rate(10, 60, 10).judge(0, 5, 11), Judged::Never);
    }

    #[test]
    fn an_instant_from_a_clock_that_ran_ahead_is_pulled_back() {
        let rate = rate(60, 60, 10);
        let Judged::After(wait) = rate.judge(i64::MAX / 2, SECOND, 1) else { panic!() };
        assert_eq!(wait, 61 * SECOND);
    }

    #[test]
    fn time_that_passed_over_a_reservation_is_not_given_back() {
        let rate = rate(1_000, 60, 1_000);
        let Judged::Pass(end) = rate.judge(0, 0, 1_000) else { panic!() };
        assert_eq!(end, 60 * SECOND);
        assert_eq!(correct(end, 30 * SECOND, (end, end), 0), 30 * SECOND);
        // Another call took the same again after the first was through: nothing is left to give.
        assert_eq!(correct(120 * SECOND, 61 * SECOND, (end, end), 0), 120 * SECOND);
    }

    #[test]
    fn what_was_used_beyond_the_reservation_is_a_debt() {
        assert_eq!(correct(10, 100, (10, 10), 25), 115);
        assert_eq!(correct(200, 100, (10, 10), 25), 215);
    }

    proptest! {
        #[test]
        fn over_any_window_no_more_passes_than_limit_times_window_and_burst(
            limit in 1_i64..500,
            period_s in 1_i64..120,
            burst in 1_i64..200,
            calls in prop::collection::vec((0_i64..5_000_000, 1_i64..20), 1..200),
        ) {
            let rate = rate(limit, period_s, burst);
            let (mut tat, mut now) = (0, 0);
            let mut passed: Vec<(i64, i64)> = vec![];
            for (gap, units) in calls {
                now += gap;
                if let Judged::Pass(after) = rate.judge(tat, now, units) {
                    tat = after;
                    passed.push((now, units));
                }
            }
            for (first, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (at, units) in passed.iter().skip(first) {
                    sum += units;
                    let span = i128::from(at - from);
                    let most = i128::from(burst) * i128::from(rate.period_us)
                        + i128::from(limit) * span;
                    // One unit may be a microsecond short.
                    let slack = i128::from(limit);
                    prop_assert!(i128::from(sum) * i128::from(rate.period_us) <= most + slack);
                }
            }
        }

        #[test]
        fn a_refusal_says_exactly_when_the_call_would_pass(
            limit in 1_i64..5_000,
            period_s in 1_i64..3_600,
            burst in 1_i64..200,
            tat in 0_i64..10_000_000_000,
            now in 0_i64..10_000_000_000,
            units in 1_i64..200,
        ) {
            let rate = rate(limit, period_s, burst);
            if let Judged::After(wait) = rate.judge(tat, now, units) {
                // An instant that was pulled back is pulled back again, so it is taken as it is.
                let tat = rate.start(tat, now);
                prop_assert!(matches!(rate.judge(tat, now + wait, units), Judged::Pass(_)));
                prop_assert!(matches!(rate.judge(tat, now + wait - 1, units), Judged::After(1)));
            }
        }

        #[test]
        fn a_correction_never_gives_back_more_than_was_reserved(
            tat in 0_i64..1_000_000,
            now in 0_i64..1_000_000,
            reserved in 0_i64..100_000,
            end in 0_i64..1_000_000,
            actual in 0_i64..200_000,
        ) {
            let after = correct(tat, now, (reserved, end), actual);
            prop_assert!(after >= tat - reserved);
            prop_assert!(after >= tat || after >= now.min(tat));
        }
    }
}
