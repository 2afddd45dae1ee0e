//! Metrics of looks at the books: how often, when last, and what they found.
//!
//! Not what follows from it (`watch`). Invariant: the time of the last look at all books is that of
//! any node; everything else is this node's.

use std::time::Duration;

use prometheus::{Gauge, IntCounterVec, IntGaugeVec, Registry};

use anima_core::clock::Timestamp;

use super::opts;

/// See the module. `docs/metrics.md` says what each means.
#[derive(Debug)]
pub struct Audits {
    breaches: IntGaugeVec,
    recent: IntCounterVec,
    whole: IntCounterVec,
    whole_at: Gauge,
    whole_took: Gauge,
}

impl Audits {
    /// Declares and registers all of them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let recent = "Looks at what is recent in the books: clean, breached or failed.";
        let whole = "Looks of this node at all books: clean, breached or failed.";
        let at = "When any node last looked at all books, seconds since 1970; 0 never.";
        let took = "What this node's last look at all books took.";
        let audits = Self {
            breaches: IntGaugeVec::new(
                opts("ledger_breaches", "Breaches of an invariant at the last looks; 10 at most."),
                &["invariant"],
            )?,
            recent: IntCounterVec::new(opts("ledger_audits_total", recent), &["outcome"])?,
            whole: IntCounterVec::new(opts("ledger_whole_audits_total", whole), &["outcome"])?,
            whole_at: Gauge::with_opts(opts("ledger_whole_audit_timestamp_seconds", at))?,
            whole_took: Gauge::with_opts(opts("ledger_whole_audit_duration_seconds", took))?,
        };
        registry.register(Box::new(audits.breaches.clone()))?;
        for counter in [&audits.recent, &audits.whole] {
            registry.register(Box::new(counter.clone()))?;
        }
        for gauge in [&audits.whole_at, &audits.whole_took] {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(audits)
    }

    /// Says how many breaches of an invariant the last looks at the books found.
    pub fn breaches(&self, invariant: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.breaches.with_label_values(&[invariant]).set(count);
    }

    /// Counts a look at what is recent by its outcome.
    pub fn looked(&self, outcome: &str) {
        self.recent.with_label_values(&[outcome]).inc();
    }

    /// Counts a look at all books by its outcome.
    pub fn looked_at_all(&self, outcome: &str) {
        self.whole.with_label_values(&[outcome]).inc();
    }

    /// Says when all books were last looked at, by any node.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
    pub fn last_at(&self, at: Timestamp) {
        self.whole_at.set(at.seconds() as f64);
    }

    /// Says how long this node's look at all books took.
    pub fn took(&self, took: Duration) {
        self.whole_took.set(took.as_secs_f64());
    }
}
