//! What the shared counters may have taken for calls of which their answer was lost.
//!
//! Such a call is judged by its node's share. Where it is refused nobody closes what it may hold
//! there, and a hold that expires counts as spent. Invariant: what is noted here is taken back
//! before the node goes back to the shared counters and before it asks them for the same call
//! again, unless the call was admitted alone: then they are told of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::quota::Ask;

use super::debts;
use crate::quota::{QuotaStore, Ticket, Unavailable};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Undos {
    tickets: Mutex<HashMap<Uuid, Ticket>>,
    /// How many there are, so that calls take no lock while there is none.
    count: AtomicUsize,
}

impl Undos {
    /// No answer came to this.
    pub(super) fn note(&self, ask: Ask<'_>) {
        let ticket = debts::nothing_of(&Ticket { id: ask.id, bounds: ask.bounds.into() });
        let mut tickets = self.tickets.lock();
        tickets.insert(ask.id, ticket);
        self.count.store(tickets.len(), Ordering::Release);
    }

    /// Nothing is to be taken back of a call, or nothing any more.
    pub(super) fn forget(&self, id: Uuid) {
        if self.is_empty() {
            return;
        }
        let mut tickets = self.tickets.lock();
        tickets.remove(&id);
        self.count.store(tickets.len(), Ordering::Release);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn of(&self, id: Uuid) -> Option<Ticket> {
        if self.is_empty() {
            return None;
        }
        self.tickets.lock().get(&id).cloned()
    }

    pub(super) fn has(&self, id: Uuid) -> bool {
        self.of(id).is_some()
    }

    /// Takes back all that is noted. Who calls it is the payer.
    pub(super) async fn clear(
        &self,
        shared: &dyn QuotaStore,
        now: Timestamp,
    ) -> Result<(), Unavailable> {
        let ids: Vec<Uuid> = self.tickets.lock().keys().copied().collect();
        for id in ids {
            self.take_back(id, (shared, now)).await?;
        }
        Ok(())
    }

    /// Takes back what is noted of a call. Who calls it is the payer.
    pub(super) async fn take_back(
        &self,
        id: Uuid,
        (shared, now): (&dyn QuotaStore, Timestamp),
    ) -> Result<(), Unavailable> {
        // It may have been admitted alone meanwhile.
        let Some(ticket) = self.of(id) else { return Ok(()) };
        shared.undo(&ticket, now).await?;
        self.forget(id);
        Ok(())
    }
}
