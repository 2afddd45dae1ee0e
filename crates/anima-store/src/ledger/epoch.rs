//! Which node this process is, at the moment.
//!
//! Shared by everything that writes for one open ledger. Invariant: whoever reads it once uses what
//! was read for the whole transaction.

use parking_lot::Mutex;
use uuid::Uuid;

/// The id under which holds are placed and closed.
#[derive(Debug)]
pub(super) struct Epoch(Mutex<Node>);

/// A node's id, and whether it has a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: Uuid,
    /// It has registered: without its lease it places no holds.
    pub(super) has_lease: bool,
}

impl Epoch {
    /// A process that has no lease yet.
    pub(super) const fn new(id: Uuid) -> Self {
        Self(Mutex::new(Node { id, has_lease: false }))
    }

    pub(super) fn node(&self) -> Node {
        *self.0.lock()
    }

    /// A lease was taken under this id.
    pub(super) fn registered(&self, id: Uuid) {
        *self.0.lock() = Node { id, has_lease: true };
    }
}
