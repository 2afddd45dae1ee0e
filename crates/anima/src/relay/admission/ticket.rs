//! What a call took of its limits, until it is settled or given back.
//!
//! It goes with the call and not with the answer, so that whoever ends the call ends it: the
//! settlement, a stream whose client left, a refusal further on. Invariant: a ticket is closed
//! once; one that is dropped without gives everything back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use anima_core::clock::Clock;
use anima_core::quota::rule::{Take, units};
use anima_core::quota::{Bound, Check};
use anima_store::quota::{self, QuotaStore};

use super::Admission;
use super::seeding::Asking;
use super::waiting::Rooms;
use crate::relay::call::Call;

/// Parts of the registry, so that calls do not wait for each other.
const PARTS: usize = 16;

/// Tickets by call.
type Part = Mutex<HashMap<Uuid, Arc<[Bound]>>>;

/// What is open on this node, for renewals.
#[derive(Debug)]
pub(super) struct Registry(Vec<Part>);

impl Default for Registry {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }
}

impl Registry {
    fn part(&self, id: Uuid) -> Option<&Part> {
        // The low bits of an id are random.
        self.0.get(usize::try_from(id.as_u128() % PARTS as u128).unwrap_or(0))
    }

    fn enter(&self, id: Uuid, bounds: &Arc<[Bound]>) {
        if let Some(part) = self.part(id) {
            part.lock().insert(id, Arc::clone(bounds));
        }
    }

    fn leave(&self, id: Uuid) {
        if let Some(part) = self.part(id) {
            part.lock().remove(&id);
        }
    }

    /// Whether a call runs.
    pub(super) fn knows(&self, id: Uuid) -> bool {
        self.part(id).is_some_and(|part| part.lock().contains_key(&id))
    }

    /// Everything that is open.
    pub(super) fn open(&self) -> Vec<quota::Ticket> {
        let mut open = Vec::new();
        for part in &self.0 {
            let part = part.lock();
            open.extend(
                part.iter().map(|(id, bounds)| quota::Ticket { id: *id, bounds: bounds.clone() }),
            );
        }
        open
    }
}

/// What a call took. See the module.
#[derive(Debug)]
pub struct Ticket {
    id: Uuid,
    bounds: Arc<[Bound]>,
    closed: AtomicBool,
    since: Instant,
    asked: Asking,
    store: Arc<dyn QuotaStore>,
    registry: Arc<Registry>,
    /// Who waits for what this gives back.
    rooms: Arc<Rooms>,
    clock: Arc<dyn Clock>,
    /// Shutdown waits for what is spawned here.
    tasks: TaskTracker,
}

impl Ticket {
    /// The ticket of a call that was admitted under these bounds.
    pub(super) fn new(
        admission: &Admission,
        call: &Call,
        (bounds, asked): (Vec<Bound>, Asking),
    ) -> Self {
        let (id, bounds): (_, Arc<[Bound]>) = (call.arrival.id, bounds.into());
        admission.registry.enter(id, &bounds);
        admission.purses.note(&bounds);
        Self {
            id,
            bounds,
            closed: AtomicBool::new(false),
            since: Instant::now(),
            asked,
            store: Arc::clone(&admission.store),
            registry: Arc::clone(&admission.registry),
            rooms: Arc::clone(&admission.rooms),
            clock: Arc::clone(&admission.clock),
            tasks: admission.tasks.clone(),
        }
    }

    /// What it took, as it was admitted.
    pub(in crate::relay) fn bounds(&self) -> Arc<[Bound]> {
        Arc::clone(&self.bounds)
    }

    /// When it was asked for.
    pub(super) const fn asked(&self) -> Asking {
        self.asked
    }

    /// How long the call has been running.
    pub(super) fn lasted(&self) -> std::time::Duration {
        self.since.elapsed()
    }

    /// Whether a budget bounds the call.
    pub(in crate::relay) fn has_budget(&self) -> bool {
        self.bounds.iter().any(|bound| is_purse(bound) && !bound.counter.rule.shadow)
    }

    /// Its purses, each with so many units.
    pub(super) fn purses(&self, amount: i64) -> Vec<Bound> {
        let purses = self.bounds.iter().filter(|bound| is_purse(bound));
        purses.map(|bound| Bound { units: amount, ..bound.clone() }).collect()
    }

    /// Gives back what was taken for it after it was closed.
    pub(super) async fn still_open(&self) {
        if !self.closed.load(Ordering::Acquire) {
            return;
        }
        let ticket = quota::Ticket { id: self.id, bounds: self.purses(0).into() };
        if let Err(error) = self.store.close(&ticket, self.clock.now()).await {
            tracing::warn!(request_id = %self.id, %error, "failed to give back: it expires");
        }
    }

    /// Closes it with what the call really took. Never waits: shared counters are told by a task.
    /// `false` when it was closed before.
    pub(super) fn close(&self, take: Take) -> bool {
        if self.closed.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.registry.leave(self.id);
        let used = self.bounds.iter().map(|bound| {
            let rule = bound.counter.rule;
            Bound { units: units(rule.kind, rule.count, take), ..bound.clone() }
        });
        let (id, bounds) = (self.id, used.collect());
        let (store, rooms, now) =
            (Arc::clone(&self.store), Arc::clone(&self.rooms), self.clock.now());
        let mut closing = Box::pin(async move {
            let ticket = quota::Ticket { id, bounds };
            if let Err(error) = store.close(&ticket, now).await {
                tracing::warn!(request_id = %id, %error, "failed to close a ticket: it expires");
            }
            rooms.call(&store.called());
        });
        // Counters of this process answer at once.
        if (&mut closing).now_or_never().is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            self.tasks.spawn_on(closing, &runtime);
        }
        true
    }
}

const fn is_purse(bound: &Bound) -> bool {
    matches!(bound.check, Check::Purse { .. })
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.close(Take::default());
    }
}
