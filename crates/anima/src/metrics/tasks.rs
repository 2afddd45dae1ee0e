//! Metrics about tasks and their webhooks.
//!
//! Apart from `metrics` only because they are many. Invariant: every label's values are a closed
//! list of ours.

use std::sync::Arc;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use anima_core::task::State;

use super::{histogram, opts};

/// From a hand-over to a day in the queue, seconds.
const WAIT_BUCKETS: &[f64] =
    &[0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

/// States in which a task may be for a while.
const OPEN: [State; 5] =
    [State::Accepted, State::Submitting, State::Queued, State::Running, State::Unknown];

/// See the module. `docs/metrics.md` says what each means.
#[derive(Debug)]
pub struct Tasks {
    /// Calls that became tasks.
    pub accepted: IntCounter,
    ended: IntCounterVec,
    /// Runs that gave their task back.
    pub again: IntCounter,
    /// Runs whose word came too late.
    pub fenced: IntCounter,
    /// Charges of failed tasks that were given back.
    pub refunds: IntCounter,
    open: IntGaugeVec,
    waits: Histogram,
    hooks: IntCounterVec,
}

impl Tasks {
    /// Declares and registers all of them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| IntCounter::with_opts(opts(name, help));
        let tasks = Self {
            accepted: counter("tasks_accepted_total", "Calls that became tasks on this node.")?,
            ended: IntCounterVec::new(
                opts("tasks_ended_total", "Tasks that this node has ended, by state."),
                &["state"],
            )?,
            again: counter("task_runs_given_back_total", "Runs that gave their task back.")?,
            fenced: counter("task_runs_fenced_total", "Runs whose word came too late.")?,
            refunds: counter(
                "task_refunds_total",
                "Charges of failed tasks that this node gave back.",
            )?,
            open: IntGaugeVec::new(
                opts("tasks", "Tasks of all nodes that have not ended, by state."),
                &["state"],
            )?,
            waits: Histogram::with_opts(histogram(
                "task_wait_seconds",
                "From a task's arrival to a run of it.",
                WAIT_BUCKETS,
            ))?,
            hooks: IntCounterVec::new(
                opts("task_webhooks_total", "Tries of webhooks, by outcome."),
                &["outcome"],
            )?,
        };
        registry.register(Box::new(tasks.accepted.clone()))?;
        registry.register(Box::new(tasks.ended.clone()))?;
        registry.register(Box::new(tasks.again.clone()))?;
        registry.register(Box::new(tasks.fenced.clone()))?;
        registry.register(Box::new(tasks.refunds.clone()))?;
        registry.register(Box::new(tasks.open.clone()))?;
        registry.register(Box::new(tasks.waits.clone()))?;
        registry.register(Box::new(tasks.hooks.clone()))?;
        tasks.open(&[]);
        Ok(tasks)
    }

    /// Counts a task that has ended.
    pub fn ended(&self, state: State) {
        self.ended_many(state, 1);
    }

    /// Counts some at once.
    pub fn ended_many(&self, state: State, count: u64) {
        self.ended.with_label_values(&[state.word()]).inc_by(count);
    }

    /// Says how many have not ended.
    pub fn open(&self, open: &[(Arc<str>, State, u64)]) {
        for state in OPEN {
            let of_state = open.iter().filter(|(_, found, _)| *found == state);
            let count: u64 = of_state.map(|(_, _, count)| count).sum();
            let gauge = self.open.with_label_values(&[state.word()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts the time from a task's arrival to a run of it, in microseconds.
    pub fn waited(&self, waited_us: i64) {
        let waited = std::time::Duration::from_micros(u64::try_from(waited_us).unwrap_or(0));
        self.waits.observe(waited.as_secs_f64());
    }

    /// Counts a try of a webhook: `delivered`, `failed`, or `dead`.
    pub fn hook(&self, outcome: &'static str) {
        self.hooks.with_label_values(&[outcome]).inc();
    }
}
