//! Limits, queues and tasks under races, storms and kills (`cargo xtask chaos limits`).
//!
//! Not the limits' own tests, which know what is inside: here real nodes are called over HTTP, and
//! a verdict is taken from the clients, the provider's truth log and the books. Each scenario has
//! keys and quotas of its own. Invariant: what a scenario was told is kept in [`Kept`] and judged
//! once more as money, unless its calls are priced by a list of its own and judged apart.
//! Source: SPEC 6, `reliability` 2.

use std::collections::BTreeSet;

use crate::load::Seen;
use crate::operator::Key;

mod bill;
mod clients;
mod failover;
mod later;
mod line;
mod modes;
mod races;
mod rates;
mod rows;
mod seats;
mod slots;
mod storm;

pub(crate) use bill::against_the_truth;
pub(crate) use failover::fails_over;
pub(crate) use later::end_once;
pub(crate) use line::stand_in_line;
pub(crate) use modes::changes_live;
pub(crate) use races::pass_exactly;
pub(crate) use rates::keep_time;
pub(crate) use seats::of_a_node_that_dies;
pub(crate) use storm::{is_flushed, is_paused};

use clients::Told;

/// What is known of the calls so far.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// What clients saw, for the audit.
    seen: Vec<Seen>,
    /// Keys whose calls are judged apart.
    apart: BTreeSet<String>,
}

impl Kept {
    /// Keeps what clients were told.
    fn keep(&mut self, told: &[Told]) {
        self.seen.extend(told.iter().map(|told| Seen {
            request_id: (!told.request_id.is_empty()).then(|| told.request_id.clone()),
            status: (told.status != 0).then_some(told.status),
            complete: told.status == 200,
            once: None,
        }));
    }

    /// The calls of this key are judged by their scenario alone.
    fn judged_apart(&mut self, key: &Key) {
        self.apart.insert(key.kid.clone());
    }
}
