//! Calls that no wallet covers, found when the spool writes their settlement.
//!
//! The caller is long gone then, and at a start nothing that could pause a key is there yet: they
//! are counted and logged at once, and kept until `Shortfalls` writes them down. Not here: the
//! audit log. Invariant: whatever else the spool tells goes to the metrics as it is.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use anima_core::ledger::Settlement;
use anima_core::money::Money;
use anima_store::ledger::Settled;
use anima_store::ledger::spool::SpoolObserver;

use super::Shortfall;
use crate::metrics::Metrics;

/// What the spool tells.
#[derive(Debug)]
pub struct Late {
    metrics: Arc<Metrics>,
    found: Mutex<Vec<Shortfall>>,
    /// Rung with each.
    pub(super) bell: Notify,
}

impl Late {
    /// Nothing has been found yet.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), found: Mutex::default(), bell: Notify::new() }
    }

    /// What was found since it was last asked. The key is not known.
    pub(super) fn take(&self) -> Vec<Shortfall> {
        std::mem::take(&mut self.found.lock())
    }
}

impl SpoolObserver for Late {
    fn waiting(&self, settlements: usize, size_bytes: u64) {
        self.metrics.waiting(settlements, size_bytes);
    }

    fn overflowed(&self) {
        self.metrics.overflowed();
    }

    fn damaged(&self, lost_bytes: u64) {
        self.metrics.damaged(lost_bytes);
    }

    fn corrected(&self) {
        self.metrics.corrected();
    }

    fn short(&self, settlement: &Settlement, settled: Settled) {
        self.metrics.short(settlement, settled);
        let (request, app, kid) = (settlement.hold, Arc::clone(&settlement.app), "".into());
        let money = |units| Money::new(units, settlement.currency);
        let (charged, uncollected) = (money(settled.charged), money(settled.uncollected));
        tracing::error!(request_id = %request, app = &*app, %uncollected, "no wallet covers it");
        self.found.lock().push(Shortfall { request, app, kid, charged, uncollected });
        self.bell.notify_one();
    }

    fn lost(&self) {
        self.metrics.lost();
    }
}
