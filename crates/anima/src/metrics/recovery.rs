//! Metrics about running calls, the spool, and what processes leave behind that are gone.
//!
//! Apart from `metrics` only because they are many. Invariant: every label's values are a closed
//! list of ours.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use anima_core::ledger::Settlement;
use anima_core::money::Money;
use anima_store::ledger::Settled;
use anima_store::ledger::spool::SpoolObserver;

use super::{Metrics, opts};

/// See the module. `docs/metrics.md` says what each means.
#[derive(Debug)]
pub struct Recovery {
    /// How far running calls had come, written down.
    pub checkpoints: IntCounter,
    extensions: IntCounterVec,
    recovered: IntCounterVec,
    /// Open holds that wait for their resolution.
    pub orphans: IntGauge,
    /// Leases of this process that others took over.
    pub leases_lost: IntCounter,
    spool_settlements: IntGauge,
    spool_bytes: IntGauge,
    spool_events: IntCounterVec,
}

impl Recovery {
    /// Declares and registers all of them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let recovery = Self {
            checkpoints: IntCounter::with_opts(opts(
                "checkpoints_total",
                "Checkpoints of running calls that were written.",
            ))?,
            extensions: IntCounterVec::new(
                opts(
                    "hold_extensions_total",
                    "Larger holds that running calls asked for, by outcome.",
                ),
                &["outcome"],
            )?,
            recovered: IntCounterVec::new(
                opts(
                    "recovered_total",
                    "Holds of processes that are gone, closed, by what that rests on.",
                ),
                &["by"],
            )?,
            orphans: IntGauge::with_opts(opts(
                "orphans",
                "Holds of processes that are gone and that this node has to close.",
            ))?,
            leases_lost: IntCounter::with_opts(opts(
                "leases_lost_total",
                "Leases of this process that others took over.",
            ))?,
            spool_settlements: IntGauge::with_opts(opts(
                "spool_settlements",
                "Settlements on disk that are not in the database.",
            ))?,
            spool_bytes: IntGauge::with_opts(opts(
                "spool_size_bytes",
                "Size of the spool of settlements.",
            ))?,
            spool_events: IntCounterVec::new(
                opts(
                    "spool_events_total",
                    "Settlements of the spool that did not simply go into the books.",
                ),
                &["event"],
            )?,
        };
        registry.register(Box::new(recovery.checkpoints.clone()))?;
        registry.register(Box::new(recovery.extensions.clone()))?;
        registry.register(Box::new(recovery.recovered.clone()))?;
        registry.register(Box::new(recovery.orphans.clone()))?;
        registry.register(Box::new(recovery.leases_lost.clone()))?;
        registry.register(Box::new(recovery.spool_settlements.clone()))?;
        registry.register(Box::new(recovery.spool_bytes.clone()))?;
        registry.register(Box::new(recovery.spool_events.clone()))?;
        Ok(recovery)
    }

    /// Counts a larger hold that was asked for.
    pub fn extension(&self, outcome: &str) {
        self.extensions.with_label_values(&[outcome]).inc();
    }

    /// Counts a hold of a process that is gone, by what its resolution rests on.
    pub fn recovered(&self, by: &str) {
        self.recovered.with_label_values(&[by]).inc();
    }

    fn event(&self, event: &str) {
        self.spool_events.with_label_values(&[event]).inc();
    }
}

impl SpoolObserver for Metrics {
    fn waiting(&self, settlements: usize, size_bytes: u64) {
        let recovery = &self.recovery;
        recovery.spool_settlements.set(i64::try_from(settlements).unwrap_or(i64::MAX));
        recovery.spool_bytes.set(i64::try_from(size_bytes).unwrap_or(i64::MAX));
    }

    fn overflowed(&self) {
        self.recovery.event("overflowed");
    }

    fn damaged(&self, _lost_bytes: u64) {
        self.recovery.event("damaged");
    }

    fn corrected(&self) {
        self.recovery.event("corrected");
    }

    fn short(&self, settlement: &Settlement, settled: Settled) {
        self.alarms.uncollected(Money::new(settled.uncollected, settlement.currency));
    }

    fn lost(&self) {
        self.recovery.event("lost");
    }
}
