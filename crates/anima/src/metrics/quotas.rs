//! Metrics about limits and queues.
//!
//! Apart from `metrics` only because they are many. Invariant: every label's values are a closed
//! list of ours; keys are no label.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use anima_core::config::LimitKind;
use anima_core::quota::Scope;

use super::{histogram, opts};

/// From a hand-over on this node to the longest wait that a key is likely to allow, seconds.
const WAIT_BUCKETS: &[f64] =
    &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// See the module. `docs/metrics.md` says what each means.
#[derive(Debug)]
pub struct Quotas {
    refusals: IntCounterVec,
    warnings: IntCounterVec,
    /// Cost counters that were seeded from the ledger.
    pub seeds: IntCounter,
    repairs: IntCounterVec,
    /// Calls that wait for their turn.
    pub waiting: IntGauge,
    waits: HistogramVec,
}

impl Quotas {
    /// Declares and registers all of them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let quotas = Self {
            refusals: IntCounterVec::new(
                opts("quota_refusals_total", "Calls that a limit refused, or would as a shadow."),
                &["kind", "scope", "effect"],
            )?,
            warnings: IntCounterVec::new(
                opts("quota_warnings_total", "Budgets of which four fifths were used up."),
                &["scope"],
            )?,
            seeds: IntCounter::with_opts(opts(
                "quota_seeds_total",
                "Cost counters that were seeded from the ledger.",
            ))?,
            repairs: IntCounterVec::new(
                opts(
                    "quota_repairs_total",
                    "Cost counters that differed from the ledger and were set right.",
                ),
                &["direction"],
            )?,
            waiting: IntGauge::with_opts(opts(
                "queue_length",
                "Calls that wait for their turn on this node.",
            ))?,
            waits: HistogramVec::new(
                histogram(
                    "queue_wait_seconds",
                    "Time that calls waited for their turn, by what came of it.",
                    WAIT_BUCKETS,
                ),
                &["outcome"],
            )?,
        };
        registry.register(Box::new(quotas.refusals.clone()))?;
        registry.register(Box::new(quotas.warnings.clone()))?;
        registry.register(Box::new(quotas.seeds.clone()))?;
        registry.register(Box::new(quotas.repairs.clone()))?;
        registry.register(Box::new(quotas.waiting.clone()))?;
        registry.register(Box::new(quotas.waits.clone()))?;
        Ok(quotas)
    }

    /// Counts a call that a limit refused, or would have.
    pub fn refused(&self, kind: LimitKind, scope: Scope, effect: &'static str) {
        self.refusals.with_label_values(&[kind.word(), scope.word(), effect]).inc();
    }

    /// Counts a call that waited: `served`, or the reason of its refusal.
    pub fn waited(&self, outcome: &'static str, waited: Duration) {
        self.waits.with_label_values(&[outcome]).observe(waited.as_secs_f64());
    }

    /// Counts a budget that was set right: `raised` where it knew too little of what was spent.
    pub fn repaired(&self, raised: bool) {
        let direction = if raised { "raised" } else { "lowered" };
        self.repairs.with_label_values(&[direction]).inc();
    }

    /// Counts a budget that comes near its end.
    pub fn warned(&self, scope: Scope) {
        self.warnings.with_label_values(&[scope.word()]).inc();
    }
}
