//! A seat in a channel: one of the attempts that may be under way there at once.
//!
//! Every node counts for itself. Invariant: whether there is a seat is seen and the seat taken in
//! one step, and a seat comes back when its owner is dropped, whatever became of the attempt.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anima_core::routing::SkipReason;

use super::health::{ChannelHealth, ModelHealth};

/// See the module.
#[derive(Debug)]
pub(super) struct Seat(Arc<ModelHealth>);

impl Seat {
    /// Takes a seat in the channel of a model, where at most so many are.
    pub(super) fn take(health: &Arc<ModelHealth>, most: Option<u32>) -> Result<Self, SkipReason> {
        let next = |n: u32| (n < most.unwrap_or(u32::MAX)).then(|| n.saturating_add(1));
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let taken = health.channel.inflight.fetch_update(order.0, order.1, next);
        taken.map(|_before| Self(Arc::clone(health))).map_err(|_full| SkipReason::Full)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.channel.inflight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether so many attempts are under way as may be: only so that a plan is likely to hold.
pub(super) fn is_full(channel: &ChannelHealth, most: Option<u32>) -> bool {
    most.is_some_and(|most| channel.inflight.load(Ordering::Relaxed) >= most)
}
