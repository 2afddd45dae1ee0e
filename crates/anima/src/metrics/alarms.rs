//! Metrics that an operator is to be woken by: money that was not collected, and what follows.
//!
//! Apart from `metrics` only because they are many. Invariant: each goes up when something is
//! wrong, and only then.

use prometheus::{Counter, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use anima_core::money::Money;

use super::{decimal, opts};

/// See the module. `docs/metrics.md` says what each means.
#[derive(Debug)]
pub struct Alarms {
    uncollected: Counter,
    shortfalls: IntCounter,
    /// Keys that were paused because their calls came up short.
    pub key_pauses: IntCounter,
    usage_missing: IntGaugeVec,
    unreported: IntCounterVec,
    invoice_days_off: IntCounterVec,
    /// Panics of the ledger's writer, after which it went on.
    pub writer_panics: IntCounter,
}

impl Alarms {
    /// Declares and registers all of them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let alarms = Self {
            uncollected: Counter::with_opts(opts(
                "uncollected_total",
                "Sale amounts above what the wallet could cover.",
            ))?,
            shortfalls: IntCounter::with_opts(opts(
                "shortfalls_total",
                "Calls that came to more than hold and wallet cover.",
            ))?,
            key_pauses: IntCounter::with_opts(opts(
                "key_pauses_total",
                "Keys paused because their calls came up short.",
            ))?,
            usage_missing: IntGaugeVec::new(
                opts(
                    "usage_missing_per_million",
                    "Whole answers of the last hour without usage, of a million.",
                ),
                &["channel"],
            )?,
            unreported: IntCounterVec::new(
                opts("usage_alarms_total", "Times that a channel began to report too little."),
                &["channel"],
            )?,
            invoice_days_off: IntCounterVec::new(
                opts("invoice_days_off_total", "Invoiced days that were off by more than 0.5 %."),
                &["channel"],
            )?,
            writer_panics: IntCounter::with_opts(opts(
                "ledger_writer_panics_total",
                "Panics of the ledger's writer, which went on.",
            ))?,
        };
        registry.register(Box::new(alarms.uncollected.clone()))?;
        registry.register(Box::new(alarms.shortfalls.clone()))?;
        registry.register(Box::new(alarms.key_pauses.clone()))?;
        registry.register(Box::new(alarms.usage_missing.clone()))?;
        registry.register(Box::new(alarms.unreported.clone()))?;
        registry.register(Box::new(alarms.invoice_days_off.clone()))?;
        registry.register(Box::new(alarms.writer_panics.clone()))?;
        Ok(alarms)
    }

    /// Counts a call of which so much could not be collected.
    pub fn uncollected(&self, amount: Money) {
        self.uncollected.inc_by(decimal(amount));
        self.shortfalls.inc();
    }

    /// Shows how many of a channel's whole answers lacked usage, of a million.
    pub fn usage_missing(&self, channel: &str, per_million: u64) {
        let shown = i64::try_from(per_million).unwrap_or(i64::MAX);
        self.usage_missing.with_label_values(&[channel]).set(shown);
    }

    /// Counts days of a channel's invoice of which the books say something else.
    pub fn invoice_days_off(&self, channel: &str, days: usize) {
        let days = u64::try_from(days).unwrap_or(u64::MAX);
        self.invoice_days_off.with_label_values(&[channel]).inc_by(days);
    }

    /// Counts a channel that began to report too little.
    pub fn usage_alarm(&self, channel: &str) {
        self.unreported.with_label_values(&[channel]).inc();
    }
}
