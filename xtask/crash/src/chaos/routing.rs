//! A scripted day of failing providers: four simulated channels, three nodes, every kind of storm.
//!
//! Not what is done to stores and configuration, which the other scenarios do. Here providers fail
//! and the stores are well. Each scenario has channels of its own, so that none inherits a circuit;
//! what clients saw and what circuits did is kept in [`Day`] and judged once more at the end, as
//! decision records, as metrics and as money. Invariant: a verdict is taken from the clients, the
//! provider's truth log and the books, never from what a node says about itself alone.
//! Source: SPEC 7, `reliability` 3 and 4.

use std::collections::BTreeMap;

use crate::load::Seen;

mod bill;
mod down;
mod hands;
mod primary;
mod records;
mod stage;
mod stamp;
mod storms;
mod waits;
mod watch;

pub(crate) use bill::against_the_truth;
pub(crate) use down::everything;
pub(crate) use hands::obeyed;
pub(crate) use primary::fails;
pub(crate) use records::tell_all;
pub(crate) use storms::of_every_kind;
pub(crate) use waits::are_kept;

use super::load::Reply;
use watch::{Opening, Place};

/// What is known of the day so far.
#[derive(Debug, Default)]
pub(crate) struct Day {
    /// What clients saw, for the audit.
    seen: Vec<Seen>,
    /// Every opening that any node showed.
    openings: BTreeMap<Place, Vec<Opening>>,
    /// Channels whose wire was broken, and from when to when, microseconds since 1970.
    void: Vec<(String, i64, i64)>,
}

impl Day {
    /// Keeps what clients saw.
    fn keep(&mut self, replies: &[Reply]) {
        self.seen.extend(replies.iter().map(|reply| Seen {
            request_id: (!reply.request_id.is_empty()).then(|| reply.request_id.clone()),
            status: (reply.status != 0).then_some(reply.status),
            complete: reply.is_served() && reply.is_whole,
            once: None,
        }));
    }

    /// Keeps what circuits did.
    fn note(&mut self, openings: BTreeMap<Place, Vec<Opening>>) {
        for (place, of_place) in openings {
            self.openings.entry(place).or_default().extend(of_place);
        }
    }
}
