//! Metrics about limits and queues.
//!
//! Apart from `metrics` only because they are many. Invariant: every label's values are a closed
//! list of ours; keys are no label.

use prometheus::{IntCounter, IntCounterVec, Registry};

use anima_core::config::LimitKind;
use anima_core::quota::Scope;

use super::opts;

/// See the module. `docs/metrics.md` says what each means.
#[derive(Debug)]
pub struct Quotas {
    refusals: IntCounterVec,
    warnings: IntCounterVec,
    /// Cost counters that were seeded from the ledger.
    pub seeds: IntCounter,
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
        };
        registry.register(Box::new(quotas.refusals.clone()))?;
        registry.register(Box::new(quotas.warnings.clone()))?;
        registry.register(Box::new(quotas.seeds.clone()))?;
        Ok(quotas)
    }

    /// Counts a call that a limit refused, or would have.
    pub fn refused(&self, kind: LimitKind, scope: Scope, effect: &'static str) {
        self.refusals.with_label_values(&[kind.word(), scope.word(), effect]).inc();
    }

    /// Counts a budget that comes near its end.
    pub fn warned(&self, scope: Scope) {
        self.warnings.with_label_values(&[scope.word()]).inc();
    }
}
