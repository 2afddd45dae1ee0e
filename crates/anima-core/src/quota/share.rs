//! What a node may give out alone, while the shared counters cannot be reached.
//!
//! Invariant: the shares of all live nodes together are at most the limit, but for concurrency,
//! where each node has at least one. Source: SPEC 6, `reliability` 2.3.

use super::{Bound, Check, Rate};
use crate::config::OnOutage;

/// A bound as one of `nodes` enforces it alone. `None`: it lets everything pass.
///
/// A purse is shared by what it is seeded with ([`spent_alone`]), since a bound does not know what
/// was spent.
pub fn alone(bound: &Bound, nodes: i64) -> Option<Bound> {
    let nodes = nodes.max(1);
    let mut own = bound.clone();
    match bound.on_outage {
        OnOutage::Open => return None,
        OnOutage::Closed => {
            own.check = match bound.check {
                Check::Slots { .. } => Check::Slots { limit: 0 },
                Check::Rate(rate) => Check::Rate(Rate { limit: 0, burst: 0, ..rate }),
                Check::Purse { span, .. } => Check::Purse { limit: 0, span },
            };
        }
        OnOutage::Share => {
            own.check = match bound.check {
                Check::Slots { limit } => {
                    let share = limit.saturating_add(nodes - 1) / nodes;
                    Check::Slots { limit: share.max(limit.min(1)) }
                }
                // A longer period is the same rate without the rounding of a smaller limit.
                Check::Rate(rate) => Check::Rate(Rate {
                    period_us: rate.period_us.saturating_mul(nodes),
                    burst: (rate.burst / nodes).max(rate.burst.min(1)),
                    ..rate
                }),
                purse @ Check::Purse { .. } => purse,
            };
        }
    }
    Some(own)
}

/// What a purse of `limit` is seeded with on one of `nodes` that is alone: so much that its share
/// of what is left is left.
pub fn spent_alone(limit: i64, known: i64, nodes: i64) -> i64 {
    let left = limit.saturating_sub(known);
    if left <= 0 { known } else { limit - left / nodes.max(1) }
}

#[cfg(test)]
mod tests {
    use super::super::book::tests::{purse, rate, slots};
    use super::*;

    #[test]
    fn three_nodes_have_a_third_each() {
        assert_eq!(alone(&slots(10), 3).unwrap().check, Check::Slots { limit: 4 });
        assert_eq!(alone(&slots(0), 3).unwrap().check, Check::Slots { limit: 0 });
        let Check::Rate(own) = alone(&rate(60, 60, 30), 3).unwrap().check else { panic!() };
        assert_eq!((own.limit, own.period_us, own.burst), (60, 180_000_000, 10));
        assert_eq!(alone(&purse(100), 3).unwrap().check, purse(100).check);
    }

    #[test]
    fn what_is_left_of_a_purse_is_divided() {
        assert_eq!(spent_alone(100, 10, 3), 70);
        assert_eq!(spent_alone(100, 120, 3), 120);
        assert_eq!(spent_alone(100, 0, 0), 0);
    }

    #[test]
    fn a_limit_may_let_nothing_or_everything_pass() {
        let closed = Bound { on_outage: OnOutage::Closed, ..slots(10) };
        assert_eq!(alone(&closed, 1).unwrap().check, Check::Slots { limit: 0 });
        let open = Bound { on_outage: OnOutage::Open, ..slots(10) };
        assert!(alone(&open, 1).is_none());
    }
}
