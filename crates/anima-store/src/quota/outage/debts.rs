//! What a node took of its limits without the shared counters, until they know of it.
//!
//! Calls that still run are told one by one; what ended calls spent is summed up for each purse and
//! charged under a name of its own, so that a charge whose answer was lost can be sent again.
//! Invariant: what was spent is owed until it is known to be charged. A process that dies with
//! debts leaves them to the ledger, from which counters are seeded and repaired.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use anima_core::quota::{Ask, Bound, Check, Counter, Span, Tag};

use super::super::Ticket;

/// Whether the shared counters know of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// They hold for it.
    Yes,
    /// They were not told.
    No,
}

#[derive(Debug)]
struct Open {
    bounds: Arc<[Bound]>,
    known: Known,
}

/// Names a purse in a span.
type Purse = (Tag, Counter, Span);

/// See the module.
#[derive(Debug)]
pub(super) struct Debts {
    /// Calls that run and were admitted, or hold more, without the shared counters.
    open: HashMap<Uuid, Open>,
    /// What calls spent that have ended.
    owed: BTreeMap<Purse, Bound>,
    /// What is being charged, by the name of the charge.
    charges: BTreeMap<Uuid, Bound>,
    /// Names charges.
    next: u128,
}

impl Debts {
    /// No debts, of a node.
    pub(super) fn of(node: Uuid) -> Self {
        let (open, owed, charges) = Default::default();
        Self { open, owed, charges, next: node.as_u128() }
    }

    /// A call took this alone.
    pub(super) fn took(&mut self, ask: Ask<'_>) {
        let before = self.open.remove(&ask.id);
        let kept = before.iter().flat_map(|open| open.bounds.iter());
        let kept = kept.filter(|old| ask.bounds.iter().all(|bound| bound.counter != old.counter));
        let bounds = ask.bounds.iter().chain(kept).cloned().collect();
        self.open.insert(ask.id, Open { bounds, known: Known::No });
    }

    /// A call has ended: whether the shared counters know of it, if it took anything alone.
    pub(super) fn ended(&mut self, id: Uuid) -> Option<Known> {
        if self.open.is_empty() {
            return None;
        }
        self.open.remove(&id).map(|open| open.known)
    }

    /// What a call spent that the shared counters do not know of.
    pub(super) fn owe(&mut self, used: &[Bound]) {
        for bound in used.iter().filter(|bound| bound.units > 0) {
            let Check::Purse { span, .. } = bound.check else { continue };
            let purse = (bound.tag.clone(), bound.counter.clone(), span);
            let owed =
                self.owed.entry(purse).or_insert_with(|| Bound { units: 0, ..bound.clone() });
            owed.units = owed.units.saturating_add(bound.units);
        }
    }

    /// Running calls that the shared counters do not know of.
    pub(super) fn untold(&self) -> Vec<Ticket> {
        let untold = self.open.iter().filter(|(_, open)| open.known == Known::No);
        untold.map(|(id, open)| Ticket { id: *id, bounds: Arc::clone(&open.bounds) }).collect()
    }

    /// The shared counters hold now what a call held as it stood in `ticket`. `false` when the call
    /// has ended.
    pub(super) fn told(&mut self, ticket: &Ticket) -> bool {
        let Some(open) = self.open.get_mut(&ticket.id) else { return false };
        if Arc::ptr_eq(&open.bounds, &ticket.bounds) {
            open.known = Known::Yes;
        }
        true
    }

    /// What is to be charged now, each under its name: the same until it is paid.
    pub(super) fn charges(&mut self) -> Vec<(Uuid, Bound)> {
        for (_, purse) in std::mem::take(&mut self.owed) {
            self.next = self.next.wrapping_add(1);
            self.charges.insert(Uuid::from_u128(self.next), purse);
        }
        self.charges.iter().map(|(charge, purse)| (*charge, purse.clone())).collect()
    }

    /// A charge was taken.
    pub(super) fn paid(&mut self, charge: Uuid) {
        self.charges.remove(&charge);
    }

    /// Whether the shared counters know everything.
    pub(super) fn are_told(&self) -> bool {
        let told = self.open.values().all(|open| open.known == Known::Yes);
        told && self.owed.is_empty() && self.charges.is_empty()
    }
}

/// The purses among some bounds, without a limit.
pub(super) fn unlimited(bounds: &[Bound]) -> Vec<Bound> {
    let purse = |bound: &Bound| match bound.check {
        Check::Purse { span, .. } => {
            let check = Check::Purse { limit: i64::MAX, span };
            Some(Bound { check, ..bound.clone() })
        }
        Check::Slots { .. } | Check::Rate(_) => None,
    };
    bounds.iter().filter_map(purse).collect()
}

/// A ticket that gives back all that it took.
pub(super) fn nothing_of(ticket: &Ticket) -> Ticket {
    let none = |bound: &Bound| Bound { units: 0, ..bound.clone() };
    Ticket { id: ticket.id, bounds: ticket.bounds.iter().map(none).collect() }
}
