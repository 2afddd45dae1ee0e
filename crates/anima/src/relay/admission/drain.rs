//! When it is worth coming back for a call that waited in vain or may not wait.
//!
//! Counted from what stands in the way now, not from what did when the call came: the calls of its
//! key that are in line still, times how long each takes there, and for rates the time until enough
//! has come back for all of them. Invariant: a longer line never gives a shorter time. Source:
//! `wire-conventions` 4.6 (estimated drain).

use std::time::Duration;

use anima_core::queue::Ahead;
use anima_core::quota::book::Level;
use anima_core::quota::rule::Take;
use anima_core::quota::{Bound, Check, Scope, Tag};

use super::super::call::Call;
use super::Admission;
use crate::http::terms::Terms;

/// Sooner than this nobody is told to come back, milliseconds.
const LEAST_MS: u64 = 50;
/// What is said when nobody knows, milliseconds.
const UNKNOWN_MS: u64 = 1_000;

/// After how many milliseconds a call that came then would have its turn under a tag.
pub(super) async fn retry_ms(
    admission: &Admission,
    call: &Call,
    (terms, take): (&Terms, Take),
    tag: &Tag,
) -> u64 {
    let now = admission.clock.now();
    let bounds = terms.bounds(now, call.caller.currency, take);
    let awaited = anima_core::queue::line::awaited(&bounds, tag);
    let kid = &call.caller.kid;
    let asked = tokio::join!(
        admission.store.levels(&awaited, now),
        admission.store.ahead(tag, (kid, call.arrival.id))
    );
    let (Ok(levels), Ok(ahead)) = asked else { return UNKNOWN_MS };
    let service = admission.learned.service_or_guess(kid);
    let drain = drain_us(&awaited, &levels, (ahead, service));
    u64::try_from(drain).unwrap_or(0).div_ceil(1_000).max(LEAST_MS)
}

/// After how many microseconds a call has its turn that comes after `ahead`, where each call runs
/// for so long.
fn drain_us(bounds: &[Bound], levels: &[Option<Level>], (ahead, each): (Ahead, Duration)) -> i64 {
    let each_us = i64::try_from(each.as_micros()).unwrap_or(i64::MAX);
    // Its own turn is the last of them.
    let turns = ahead.calls.saturating_add(1);
    let of_bound = |(bound, level): (&Bound, &Option<Level>)| {
        let level = level.unwrap_or(Level { used: 0, held: 0, reset_us: 0 });
        // Keys take turns at what they share.
        let keys = if bound.counter.scope == Scope::Key { 1 } else { ahead.tenants.max(1) };
        let turns = turns.saturating_mul(keys);
        match bound.check {
            Check::Slots { limit } => {
                let free = limit.saturating_sub(level.used).max(0);
                let ends = turns.saturating_sub(free).max(0);
                ends.saturating_mul(each_us) / limit.max(1)
            }
            Check::Rate(rate) => {
                let cost_us = rate.cost_us(bound.units).saturating_mul(turns);
                level.reset_us.saturating_add(cost_us).saturating_sub(rate.burst_us()).max(0)
            }
            Check::Purse { .. } => 0,
        }
    };
    let counted_us = bounds.iter().zip(levels).map(of_bound).max().unwrap_or(0);
    // What its turns took until now knows of what is not counted here.
    let paced_us = ahead.pace_us.map_or(0, |pace_us| pace_us.saturating_mul(turns));
    if counted_us > 0 { counted_us.max(paced_us) } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anima_core::config::{LimitKind, OnOutage, Window};
    use anima_core::quota::rate::Judged;
    use anima_core::quota::{Counter, Rate, RuleName};
    use proptest::prelude::*;

    use super::*;

    fn bound(scope: Scope, check: Check, units: i64) -> Bound {
        let kind = LimitKind::Requests;
        let window = Some(Window::Minute);
        let rule =
            RuleName { kind, count: None, window, currency: None, rate: None, shadow: false };
        let code: Arc<str> = "acme".into();
        let counter = Counter { scope, code: Arc::clone(&code), rule };
        Bound { counter, tag: Tag::App(code), check, units, on_outage: OnOutage::Share }
    }

    const fn level(used: i64, reset_us: i64) -> Level {
        Level { used, held: 0, reset_us }
    }

    fn line(calls: i64, tenants: i64, pace_us: Option<i64>) -> Ahead {
        Ahead { calls, tenants, pace_us }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_call_ahead_takes_its_share_of_the_slots() {
        let own = [bound(Scope::Key, Check::Slots { limit: 4 }, 1)];
        let drain = |ahead| drain_us(&own, &[Some(level(4, 0))], (ahead, SECOND));
        assert_eq!(drain(line(0, 1, None)), 250_000);
        assert_eq!(drain(line(699, 3, None)), 175_000_000, "700 turns of a quarter of a second");
        assert_eq!(drain(line(3, 1, Some(900_000))), 3_600_000, "its turns take longer");
        let free = drain_us(&own, &[Some(level(2, 0))], (line(1, 1, None), SECOND));
        assert_eq!(free, 0, "there are slots for both");
    }

    #[test]
    fn keys_take_turns_at_what_they_share() {
        let shared = [bound(Scope::App, Check::Slots { limit: 1 }, 1)];
        let drain = drain_us(&shared, &[Some(level(1, 0))], (line(9, 3, None), SECOND));
        assert_eq!(drain, 30_000_000);
    }

    #[test]
    fn what_takes_longest_counts() {
        let rate = Rate { limit: 60, period_us: 60_000_000, burst: 1 };
        let both = [
            bound(Scope::Key, Check::Slots { limit: 1 }, 1),
            bound(Scope::Key, Check::Rate(rate), 1),
        ];
        let short = Duration::from_millis(10);
        let drain = drain_us(
            &both,
            &[Some(level(1, 0)), Some(level(1, 1_000_000))],
            (line(4, 1, None), short),
        );
        assert_eq!(drain, 5_000_000, "one call a second");
    }

    proptest! {
        /// The time until the last of them passes, when each passes as soon as it may.
        #[test]
        fn a_rate_says_exactly_when_enough_has_come_back(
            limit in 1_i64..1_000, burst in 1_i64..50, units in 1_i64..50, calls in 0_i64..60,
            ahead_us in 0_i64..60_000_000,
        ) {
            let rate = Rate { limit, period_us: 60_000_000, burst: burst.max(units) };
            let bounds = [bound(Scope::Key, Check::Rate(rate), units)];
            let (mut now, mut tat) = (1_000_000_000, 1_000_000_000 + ahead_us);
            let levels = [Some(level(0, ahead_us))];
            let told = drain_us(&bounds, &levels, (line(calls, 1, None), SECOND));
            for _ in 0..=calls {
                match rate.judge(tat, now, units) {
                    Judged::Pass(after) => tat = after,
                    Judged::After(us) => {
                        now += us;
                        let Judged::Pass(after) = rate.judge(tat, now, units) else { panic!() };
                        tat = after;
                    }
                    Judged::Never => panic!("more than the burst"),
                }
            }
            prop_assert_eq!(told, now - 1_000_000_000);
        }

        #[test]
        fn a_longer_line_never_takes_less(
            limit in 1_i64..9, used in 0_i64..9, calls in 0_i64..1_000, tenants in 1_i64..9,
            pace_us in prop::option::of(0_i64..9_000_000),
        ) {
            let slots = [bound(Scope::App, Check::Slots { limit }, 1)];
            let drain = |calls, tenants| {
                drain_us(&slots, &[Some(level(used, 0))], (line(calls, tenants, pace_us), SECOND))
            };
            prop_assert!(drain(calls, tenants) <= drain(calls + 1, tenants));
            prop_assert!(drain(calls, tenants) <= drain(calls, tenants + 1));
        }
    }
}
