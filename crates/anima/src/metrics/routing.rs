//! Metrics about circuits and the ways that calls take.
//!
//! Apart from `metrics` only because they are many. Invariant: labels are codes and models of the
//! configuration, and closed lists of ours.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

use anima_core::breaker::{Cause, Mode, State};
use anima_core::routing::SkipReason;

use super::opts;

/// See the module. `docs/metrics.md` says what each means.
#[derive(Debug)]
pub struct Routing {
    state: IntGaugeVec,
    manual: IntGaugeVec,
    transitions: IntCounterVec,
    skips: IntCounterVec,
    last_resort: IntCounterVec,
    fallbacks: IntCounterVec,
    retries: IntCounterVec,
    credentials_out: IntGaugeVec,
    records: IntCounterVec,
    faults: IntCounterVec,
    /// Tries that the retry budget refused.
    pub retries_refused: IntCounter,
}

/// The label of a channel as a whole.
const WHOLE: &str = "*";

impl Routing {
    /// Declares and registers all of them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help, labels: &[&str]| IntCounterVec::new(opts(name, help), labels);
        let gauge = |name, help, labels: &[&str]| IntGaugeVec::new(opts(name, help), labels);
        let routing = Self {
            state: gauge(
                "circuit_state",
                "0 closed, 1 half open, 2 open; the model `*` is the channel as a whole.",
                &["channel", "model"],
            )?,
            manual: gauge(
                "circuit_manual",
                "1 while an operator's word about the channel holds.",
                &["channel", "mode"],
            )?,
            transitions: counter(
                "circuit_transitions_total",
                "Changes of a circuit's state, with their cause.",
                &["channel", "model", "to", "cause"],
            )?,
            skips: counter(
                "route_skips_total",
                "Routes that a call could have taken and did not, by reason.",
                &["channel", "reason"],
            )?,
            last_resort: counter(
                "last_resort_total",
                "Calls let through although every circuit was open.",
                &["channel"],
            )?,
            fallbacks: counter(
                "fallbacks_total",
                "Calls that went on to another alias, by what they failed with.",
                &["alias", "fallback", "class"],
            )?,
            retries: counter(
                "retries_total",
                "Attempts beyond a call's first, by what the one before failed with.",
                &["alias", "outcome"],
            )?,
            credentials_out: gauge(
                "credentials_out",
                "Credentials that their provider refuses or whose account is used up.",
                &["channel"],
            )?,
            records: counter(
                "decision_records_total",
                "Decisions about calls that are over, by what became of their record.",
                &["outcome"],
            )?,
            faults: counter(
                "faults_injected_total",
                "Calls that an operator's fault rule took, by what it did.",
                &["channel", "fault"],
            )?,
            retries_refused: IntCounter::with_opts(opts(
                "retries_refused_total",
                "Tries of the same channel that the retry budget refused.",
            ))?,
        };
        for gauge in [&routing.state, &routing.manual, &routing.credentials_out] {
            registry.register(Box::new(gauge.clone()))?;
        }
        let Self { transitions, skips, last_resort, fallbacks, retries, records, faults, .. } =
            &routing;
        for counter in [transitions, skips, last_resort, fallbacks, retries, records, faults] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(routing.retries_refused.clone()))?;
        Ok(routing)
    }

    /// Says what a circuit does.
    pub fn state(&self, (channel, model): (&str, Option<&str>), state: State) {
        let value = match state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        self.state.with_label_values(&[channel, model.unwrap_or(WHOLE)]).set(value);
    }

    /// Counts a change of a circuit, and says what it does now.
    pub fn changed(&self, place: (&str, Option<&str>), to: State, cause: Cause) {
        let labels = [place.0, place.1.unwrap_or(WHOLE), to.name(), cause.name()];
        self.transitions.with_label_values(&labels).inc();
        self.state(place, to);
    }

    /// Says which word of an operator holds.
    pub fn manual(&self, channel: &str, mode: Option<Mode>) {
        for one in [Mode::ForcedOpen, Mode::ForcedClosed, Mode::MetricsOnly] {
            let holds = i64::from(mode == Some(one));
            self.manual.with_label_values(&[channel, one.name()]).set(holds);
        }
    }

    /// Counts a route that was left out.
    pub fn skipped(&self, channel: &str, reason: SkipReason) {
        self.skips.with_label_values(&[channel, reason.name()]).inc();
    }

    /// Counts a call that was let through as a last resort.
    pub fn last_resort(&self, channel: &str) {
        self.last_resort.with_label_values(&[channel]).inc();
    }

    /// Counts a call that went on to another alias.
    pub fn fell_back(&self, alias: &str, fallback: &str, class: &str) {
        self.fallbacks.with_label_values(&[alias, fallback, class]).inc();
    }

    /// Counts an attempt after one that failed.
    pub fn retried(&self, alias: &str, outcome: &str) {
        self.retries.with_label_values(&[alias, outcome]).inc();
    }

    /// Counts decision records that were `written`, `dropped` for want of room, `failed` in the
    /// database, or `above_rate`.
    pub fn recorded(&self, outcome: &str, count: u64) {
        self.records.with_label_values(&[outcome]).inc_by(count);
    }

    /// Counts a call that a fault rule took.
    pub fn injected(&self, channel: &str, fault: &str) {
        self.faults.with_label_values(&[channel, fault]).inc();
    }

    /// Says how many credentials are out.
    pub fn credentials_out(&self, channel: &str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.credentials_out.with_label_values(&[channel]).set(count);
    }
}
