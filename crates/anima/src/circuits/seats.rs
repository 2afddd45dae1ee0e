//! A seat in a channel: one of the attempts that may be under way there at once.
//!
//! Counted on this node, and where nodes share their counters by all of them together: there a seat
//! is a lease, renewed with those of running calls and free again when its node is silent for that
//! long. While the shared counters are away each node has its share. Invariant: whether there is a
//! seat is seen and the seat taken in one step, and a seat comes back when its owner is dropped,
//! whatever became of the attempt. Source: SPEC 6, `reliability` 2.3.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use uuid::Uuid;

use anima_core::clock::Clock;
use anima_core::config::{LimitKind, OnOutage};
use anima_core::quota::{Ask, Bound, Check, Counter, RuleName, Scope, Tag, Verdict};
use anima_core::routing::SkipReason;
use anima_store::quota::{QuotaStore, Ticket};

use super::Circuits;
use super::health::{ChannelHealth, ModelHealth};

/// How long a seat is kept without a sign of its node, microseconds (`reliability` 2.2).
const LEASE_US: i64 = 30_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Seat {
    _here: Here,
    _lease: Option<Lease>,
}

impl Seat {
    /// Takes a seat in the channel of a model, where at most so many are.
    pub(super) async fn take(
        circuits: &Circuits,
        health: &Arc<ModelHealth>,
        most: Option<u32>,
    ) -> Result<Self, SkipReason> {
        let here = Here::take(health, most)?;
        let lease = match (most, &circuits.seats) {
            (Some(most), Some(seats)) => {
                let id = Uuid::from_u64_pair(circuits.rng.next_u64(), circuits.rng.next_u64());
                Some(Lease::take(seats, (&health.channel.code, most), id).await?)
            }
            (None, _) | (_, None) => None,
        };
        Ok(Self { _here: here, _lease: lease })
    }
}

/// A seat among those of this node.
#[derive(Debug)]
struct Here(Arc<ModelHealth>);

impl Here {
    fn take(health: &Arc<ModelHealth>, most: Option<u32>) -> Result<Self, SkipReason> {
        let next = |n: u32| (n < most.unwrap_or(u32::MAX)).then(|| n.saturating_add(1));
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let taken = health.channel.inflight.fetch_update(order.0, order.1, next);
        taken.map(|_before| Self(Arc::clone(health))).map_err(|_full| SkipReason::Full)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.channel.inflight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether so many attempts are under way here as may be: only so that a plan is likely to hold.
pub(super) fn is_full(channel: &ChannelHealth, most: Option<u32>) -> bool {
    most.is_some_and(|most| channel.inflight.load(Ordering::Relaxed) >= most)
}

/// The seats that all nodes count together, and those of them that this node has.
#[derive(Debug)]
pub(super) struct Seats {
    store: Arc<dyn QuotaStore>,
    clock: Arc<dyn Clock>,
    taken: Mutex<HashMap<Uuid, Arc<[Bound]>>>,
}

impl Seats {
    pub(super) fn of(store: Arc<dyn QuotaStore>, clock: &Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { store, clock: Arc::clone(clock), taken: Mutex::default() })
    }

    /// Those that this node has, to be renewed.
    pub(super) fn taken(&self) -> Vec<Ticket> {
        let taken = self.taken.lock();
        let ticket =
            |(id, bounds): (&Uuid, &Arc<[Bound]>)| Ticket { id: *id, bounds: Arc::clone(bounds) };
        taken.iter().map(ticket).collect()
    }
}

/// A seat among those of all nodes.
#[derive(Debug)]
struct Lease {
    seats: Arc<Seats>,
    /// What is given back; nothing when there was no seat.
    ticket: Option<Ticket>,
}

impl Lease {
    async fn take(
        seats: &Arc<Seats>,
        (channel, most): (&Arc<str>, u32),
        id: Uuid,
    ) -> Result<Self, SkipReason> {
        let bounds: Arc<[Bound]> = [bound(channel, most)].into();
        // From here on it is given back, also when nobody waits for the answer any more.
        let ticket = Some(Ticket { id, bounds: Arc::clone(&bounds) });
        let mut lease = Self { seats: Arc::clone(seats), ticket };
        let ask = Ask { id, bounds: &bounds, now: seats.clock.now(), lease_us: LEASE_US };
        let said = seats.store.admit(ask).await;
        match said {
            Ok(Verdict::Admitted(_)) => {
                seats.taken.lock().insert(id, bounds);
                return Ok(lease);
            }
            Ok(Verdict::Refused(..) | Verdict::Unseeded(_)) => lease.ticket = None,
            // Whether it was taken is not known.
            Err(error) => tracing::warn!(%error, channel = &**channel, "failed to take a seat"),
        }
        Err(SkipReason::Full)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.seats.taken.lock().remove(&ticket.id);
        let seats = Arc::clone(&self.seats);
        let mut closing = Box::pin(async move {
            if let Err(error) = seats.store.close(&ticket, seats.clock.now()).await {
                tracing::warn!(%error, "failed to give a seat back: its lease ends");
            }
        });
        // Counters of this process answer at once.
        if (&mut closing).now_or_never().is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(closing);
        }
    }
}

/// The seats of a channel, as the counters of limits take them.
fn bound(channel: &Arc<str>, most: u32) -> Bound {
    let rule = RuleName {
        kind: LimitKind::Concurrency,
        count: None,
        window: None,
        currency: None,
        rate: None,
        shadow: false,
    };
    Bound {
        counter: Counter { scope: Scope::Channel, code: Arc::clone(channel), rule },
        tag: Tag::Channel(Arc::clone(channel)),
        check: Check::Slots { limit: most.into() },
        units: 1,
        on_outage: OnOutage::Share,
    }
}
