//! What scripts found of a bound, as the book says it.
//!
//! Scripts say what they saw and decide by the same arithmetic; what that means for people is said
//! here, by the pure code. Invariant: nothing is judged here that a script has not judged.

use anima_core::queue::line::behind;
use anima_core::quota::book::{more_standing, purse_standing, rated, slots};
use anima_core::quota::{Bound, Check, Pass, Standing};

/// What the script found, as the book says it.
pub(super) fn standing(bound: &Bound, (again, state): (i64, i64), now_us: i64) -> Standing {
    // From 2 on: others wait for it, and what is more is for how long they have it.
    if again >= 2 {
        return behind(bound, standing(bound, (0, state), now_us), again - 2);
    }
    let again = again == 1;
    match bound.check {
        Check::Slots { limit } => slots(limit, state, again),
        Check::Rate(rate) => rated(rate, (state, now_us), bound.units, again),
        Check::Purse { limit, .. } if state < 0 => {
            Standing { pass: Pass::Unseeded, limit, remaining: 0, reset_us: 0, warn: false }
        }
        Check::Purse { limit, span } => {
            let reset_us = if span.is_ever() { 0 } else { span.to.micros() - now_us };
            purse_standing(limit, state, bound.units, (reset_us, again))
        }
    }
}

/// What the script found of a purse that a ticket is to hold more of, as the book says it.
pub(super) fn more(bound: &Bound, (held, state): (i64, i64), now_us: i64) -> Standing {
    let Check::Purse { limit, span } = bound.check else { return Standing::FREE };
    if state < 0 {
        return Standing { pass: Pass::Unseeded, limit, remaining: 0, reset_us: 0, warn: false };
    }
    let reset_us = if span.is_ever() { 0 } else { span.to.micros() - now_us };
    more_standing((limit, state), (held, bound.units), reset_us)
}
