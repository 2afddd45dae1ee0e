//! Every metric, declared once.
//!
//! Names, units and label bounds follow `docs/metrics.md`. Invariant: label sets are bounded: codes
//! come from the configuration only, and past [`SERIES_MAX`] combinations the rest is `other`.
//! Handles are looked up once per combination and then only touched, so that a request costs a few
//! atomic additions. Money here is a float for graphs; the ledger is the truth.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{
    Counter, CounterVec, Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use anima_core::money::Money;
use anima_store::ledger::BatchObserver;

mod alarms; // what an operator is to be woken by
mod audits; // looks at the books
mod quotas; // limits: who was refused, and what comes near its end
mod recovery; // holds that outlive their call or their process
mod routing; // circuits, and the ways that calls take
mod tasks; // calls that nobody waits for

pub use alarms::Alarms;
pub use audits::Audits;
pub use quotas::Quotas;
pub use recovery::Recovery;
pub use routing::Routing;
pub use tasks::Tasks;

/// Combinations of (endpoint, alias, channel, app) with series of their own.
const SERIES_MAX: usize = 2_000;

/// Buckets for whole calls, seconds: the first for cached and embedding calls, the last for
/// reasoning models.
const CALL_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// Buckets for the gateway's own share and for ledger batches, seconds.
const FAST_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];
/// Buckets for batch sizes.
const SIZE_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// What labels a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    /// The endpoint's short name.
    pub endpoint: &'static str,
    /// The alias, after resolution.
    pub alias: Arc<str>,
    /// The channel of the last attempt; empty when there was none.
    pub channel: Arc<str>,
    /// The app.
    pub app: Arc<str>,
}

/// The handles of one combination of labels.
#[derive(Debug)]
pub struct Series {
    /// Under which it is counted: those asked for, or `other` when there are too many.
    labels: Labels,
    duration: Histogram,
    first_byte: Histogram,
    overhead: Histogram,
    /// Successful calls; others are counted by reason on the slow path.
    ok: IntCounter,
    cost: Counter,
    charge: Counter,
    tokens_input: IntCounter,
    tokens_output: IntCounter,
}

/// Declares the families with their help, and registers them.
macro_rules! families {
    ($registry:ident; $($field:ident = $make:expr),* $(,)?) => {{
        $(let $field = $make?; $registry.register(Box::new($field.clone()))?;)*
        let recovery = Recovery::register(&$registry)?;
        let alarms = Alarms::register(&$registry)?;
        let audits = Audits::register(&$registry)?;
        let routing = Routing::register(&$registry)?;
        let quotas = Quotas::register(&$registry)?;
        let tasks = Tasks::register(&$registry)?;
        let series = RwLock::default();
        let registry = $registry;
        Self { $($field,)* recovery, alarms, audits, routing, quotas, tasks, registry, series }
    }};
}

/// Every metric of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    series: RwLock<HashMap<Labels, Arc<Series>>>,
    requests: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    overhead: HistogramVec,
    tokens: IntCounterVec,
    cost: CounterVec,
    charge: CounterVec,
    attempts: IntCounterVec,
    inflight: IntGauge,
    /// Streams and calls that go on without their client.
    pub drains: IntCounter,
    /// Calls whose output limit was lowered to what the wallet covers.
    pub output_limited: IntCounter,
    /// Usage reports that were missing, or too odd to be believed.
    usage_suspect: IntCounterVec,
    promo_expired: Counter,
    /// Settlements that could not be written.
    pub settle_failures: IntCounter,
    ledger_batch_size: HistogramVec,
    ledger_batch_seconds: Histogram,
    ledger_batch_failures: IntCounter,
    /// Calls while they run, and what is left of those whose process is gone.
    pub recovery: Recovery,
    /// What an operator is to be woken by.
    pub alarms: Alarms,
    /// Looks at the books.
    pub audits: Audits,
    /// Circuits, and the ways that calls take.
    pub routing: Routing,
    /// Limits and queues.
    pub quotas: Quotas,
    /// Calls that nobody waits for.
    pub tasks: Tasks,
    config_version: IntGauge,
    config_lag: Gauge,
    degraded: IntGaugeVec,
    resident: Gauge,
    started: Gauge,
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("anima_{name}"), help)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec())
}

/// Says which build runs.
fn register_build(registry: &Registry) -> Result<(), prometheus::Error> {
    let info = IntGaugeVec::new(opts("build_info", "The build that runs."), &["version"])?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(info))
}

const CALL_LABELS: &[&str] = &["endpoint", "alias", "channel", "app"];

impl Metrics {
    /// Declares everything.
    ///
    /// # Errors
    /// When two metrics have one name, which a test holds.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self::registered()?;
        metrics.degraded.with_label_values(&["database"]).set(0);
        Ok(metrics)
    }

    fn registered() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        register_build(&registry)?;
        let metrics = families!(registry;
            requests = IntCounterVec::new(
                opts("requests_total", "Requests by outcome: ok, or the failure's reason."),
                &["endpoint", "alias", "channel", "app", "outcome"]),
            duration = HistogramVec::new(
                histogram("request_duration_seconds", "From a request's head to its answer's end.",
                    CALL_BUCKETS), CALL_LABELS),
            first_byte = HistogramVec::new(
                histogram("time_to_first_byte_seconds",
                    "From the request's head to the answer's first byte.", CALL_BUCKETS),
                CALL_LABELS),
            overhead = HistogramVec::new(
                histogram("gateway_overhead_seconds",
                    "Time of a request not spent waiting for its upstream.", FAST_BUCKETS),
                CALL_LABELS),
            tokens = IntCounterVec::new(
                opts("tokens_total", "Tokens by direction, input or output."),
                &["endpoint", "alias", "channel", "app", "direction"]),
            cost = CounterVec::new(
                opts("upstream_cost_total", "What providers charge us. The ledger is the truth."),
                &["endpoint", "alias", "channel", "app", "currency"]),
            charge = CounterVec::new(
                opts("charge_total", "What customers were charged. The ledger is the truth."),
                &["endpoint", "alias", "channel", "app", "currency"]),
            attempts = IntCounterVec::new(
                opts("upstream_attempts_total", "Upstream calls by outcome."),
                &["channel", "outcome"]),
            inflight = IntGauge::with_opts(opts("inflight_requests", "Requests being served now.")),
            drains = IntCounter::with_opts(
                opts("client_gone_total", "Calls whose client left before the end.")),
            output_limited = IntCounter::with_opts(
                opts("output_limited_total",
                    "Calls whose output limit was lowered to what the wallet covers.")),
            usage_suspect = IntCounterVec::new(
                opts("usage_suspect_total", "Usage reports that were missing or not believable."),
                &["channel"]),
            promo_expired = Counter::with_opts(
                opts("promo_expired_total", "Promotional credit that expired unused.")),
            settle_failures = IntCounter::with_opts(
                opts("settle_failures_total", "Settlements that could not be written.")),
            ledger_batch_size = HistogramVec::new(
                histogram("ledger_batch_size", "Operations in one ledger transaction.",
                    SIZE_BUCKETS), &["operation"]),
            ledger_batch_seconds = Histogram::with_opts(
                histogram("ledger_batch_duration_seconds", "Time of one ledger transaction.",
                    FAST_BUCKETS)),
            ledger_batch_failures = IntCounter::with_opts(
                opts("ledger_batch_failures_total", "Ledger transactions that failed.")),
            config_lag = Gauge::with_opts(
                opts("config_lag_seconds", "Since this node last knew that it lacks no change.")),
            config_version = IntGauge::with_opts(
                opts("config_version", "Revision of the configuration in force.")),
            degraded = IntGaugeVec::new(
                opts("degraded", "1 while a dependency is down."), &["dependency"]),
            resident = Gauge::with_opts(Opts::new("process_resident_memory_bytes",
                "Resident memory of the process.")),
            started = Gauge::with_opts(Opts::new("process_start_time_seconds",
                "When the process started, seconds since 1970.")),
        );
        Ok(metrics)
    }

    /// The handles for a combination of labels.
    pub fn series(&self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.series.read().get(labels) {
            return Arc::clone(series);
        }
        let mut all = self.series.write();
        let other: Arc<str> = "other".into();
        let capped = Labels {
            endpoint: labels.endpoint,
            alias: Arc::clone(&other),
            channel: Arc::clone(&other),
            app: other,
        };
        let labels = if all.len() < SERIES_MAX { labels } else { &capped };
        let make = || Arc::new(self.make_series(labels));
        Arc::clone(all.entry(labels.clone()).or_insert_with(make))
    }

    fn make_series(&self, l: &Labels) -> Series {
        let four = [l.endpoint, &l.alias, &l.channel, &l.app];
        let five = |last| [l.endpoint, &l.alias, &l.channel, &l.app, last];
        Series {
            labels: l.clone(),
            duration: self.duration.with_label_values(&four),
            first_byte: self.first_byte.with_label_values(&four),
            overhead: self.overhead.with_label_values(&four),
            ok: self.requests.with_label_values(&five("ok")),
            cost: self.cost.with_label_values(&five("USD")),
            charge: self.charge.with_label_values(&five("USD")),
            tokens_input: self.tokens.with_label_values(&five("input")),
            tokens_output: self.tokens.with_label_values(&five("output")),
        }
    }

    /// Counts a request that ended: its outcome and its times, in seconds.
    pub fn request(&self, labels: &Labels, outcome: &str, times: Times) {
        let series = self.series(labels);
        if outcome == "ok" {
            series.ok.inc();
        } else {
            let l = &series.labels;
            let five = [l.endpoint, &*l.alias, &*l.channel, &*l.app, outcome];
            self.requests.with_label_values(&five).inc();
        }
        series.duration.observe(times.total);
        series.overhead.observe(times.overhead);
        if let Some(first_byte) = times.first_byte {
            series.first_byte.observe(first_byte);
        }
    }

    /// Counts what a settled request consumed and came to.
    pub fn settled(&self, labels: &Labels, charge: Money, costs: &[Money], tokens: (u64, u64)) {
        let series = self.series(labels);
        series.tokens_input.inc_by(tokens.0);
        series.tokens_output.inc_by(tokens.1);
        for (amount, own, family) in std::iter::once((charge, &series.charge, &self.charge))
            .chain(costs.iter().map(|c| (*c, &series.cost, &self.cost)))
        {
            if amount.currency == anima_core::money::Currency::USD {
                own.inc_by(decimal(amount));
            } else {
                let l = &series.labels;
                let five = [l.endpoint, &*l.alias, &*l.channel, &*l.app, amount.currency.code()];
                family.with_label_values(&five).inc_by(decimal(amount));
            }
        }
    }

    /// Counts a request as being served until the value is dropped.
    pub fn enter(&self) -> Inflight {
        self.inflight.inc();
        Inflight(self.inflight.clone())
    }

    /// Requests being served now.
    pub fn in_flight(&self) -> i64 {
        self.inflight.get()
    }

    /// Counts an attempt by its outcome.
    pub fn attempt(&self, channel: &str, outcome: &str) {
        self.attempts.with_label_values(&[channel, outcome]).inc();
    }

    /// Counts a usage report that was missing or not believable.
    pub fn usage_suspect(&self, channel: &str) {
        self.usage_suspect.with_label_values(&[channel]).inc();
    }

    /// Counts promotional credit that was posted back unused.
    pub fn promo_expired(&self, amount: Money) {
        self.promo_expired.inc_by(decimal(amount));
    }

    /// Says for how long this node has not known whether it lacks a change.
    pub fn config_lag(&self, lag: Duration) {
        self.config_lag.set(lag.as_secs_f64());
    }

    /// Says which configuration is in force.
    pub fn config_version(&self, rev: i64) {
        self.config_version.set(rev);
    }

    /// Says whether a dependency is down.
    pub fn degraded(&self, dependency: &str, down: bool) {
        self.degraded.with_label_values(&[dependency]).set(i64::from(down));
    }

    /// Says when the process started.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double exactly")]
    pub fn started(&self, at: anima_core::clock::Timestamp) {
        self.started.set(at.seconds() as f64);
    }

    /// The Prometheus text, version 0.0.4.
    ///
    /// # Errors
    /// When a family cannot be written, which takes a defect.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// A request that is being served: from its head to its last byte.
#[derive(Debug)]
pub struct Inflight(IntGauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The times of one request, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Head to end.
    pub total: f64,
    /// Head to the answer's first byte.
    pub first_byte: Option<f64>,
    /// Not waiting for an upstream.
    pub overhead: f64,
}

impl BatchObserver for Metrics {
    #[expect(clippy::cast_precision_loss, reason = "batch sizes are far below 2^53")]
    fn committed(&self, holds: usize, settlements: usize, seconds: f64) {
        self.ledger_batch_seconds.observe(seconds);
        for (count, operation) in [(holds, "hold"), (settlements, "settle")] {
            if count > 0 {
                self.ledger_batch_size.with_label_values(&[operation]).observe(count as f64);
            }
        }
    }

    fn failed(&self) {
        self.ledger_batch_failures.inc();
    }

    fn panicked(&self) {
        self.alarms.writer_panics.inc();
    }
}

/// An amount as a float, for graphs only.
#[expect(clippy::cast_precision_loss, reason = "for graphs; the ledger is the truth")]
fn decimal(amount: Money) -> f64 {
    (amount.units.max(0) as f64) / 10_f64.powi(i32::from(amount.currency.scale()))
}

/// Resident memory from `/proc`; `None` where there is none.
fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = text.split_whitespace().nth(1)?.parse().ok()?;
    // Linux reports pages; 4 KiB on every platform that this program is built for.
    Some(pages * 4096.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_help() {
        let metrics = Metrics::new().unwrap();
        let labels =
            Labels { endpoint: "chat", alias: "a".into(), channel: "c".into(), app: "x".into() };
        let times = Times { total: 0.1, first_byte: Some(0.05), overhead: 0.001 };
        metrics.request(&labels, "ok", times);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("anima_requests_total{alias=\"a\""), "{text}");
        for line in text.lines().filter(|l| l.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
    }

    #[test]
    fn label_sets_are_bounded() {
        let metrics = Metrics::new().unwrap();
        for n in 0..SERIES_MAX + 50 {
            let alias = format!("a{n}").into();
            let labels = Labels { endpoint: "chat", alias, channel: "c".into(), app: "x".into() };
            let times = Times { total: 0.1, first_byte: None, overhead: 0.001 };
            metrics.request(&labels, "timeout", times);
            let euros = Money::new(1, anima_core::money::Currency::parse("EUR").unwrap());
            metrics.settled(&labels, euros, &[euros], (1, 1));
        }
        assert!(metrics.series.read().len() <= SERIES_MAX + 1);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        let beyond = format!("a{}\"", SERIES_MAX + 1);
        assert!(text.contains("a1\"") && !text.contains(&beyond));
    }
}
