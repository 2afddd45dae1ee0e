//! How a call was routed: what was planned, what was left out and why, what was tried.
//!
//! Collected while the call runs and only written as text when somebody wants it. Money is not
//! here: the ledger has it. Invariant: no prompt, no answer, no secret.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use anima_core::breaker::State;
use anima_core::clock::Timestamp;
use anima_core::routing::SkipReason;

use super::plan::{Candidate, Plan, Start};
use super::trial::Trial;
use crate::circuits::Change;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// What was planned.
    pub(super) plan: Option<Arc<Plan>>,
    /// Candidates that could not be tried when their turn came.
    pub(super) refused: Vec<Late>,
    /// What was tried, in order.
    pub(super) attempts: Vec<Tried>,
    /// The alias of the chain that was tried last: 0 is the one that was asked for.
    pub(super) link: usize,
}

/// A candidate that could not be tried when its turn came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Late {
    pub(super) at: Candidate,
    pub(super) reason: SkipReason,
    /// What its circuit did then.
    pub(super) circuit: State,
}

/// An attempt.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    n: i16,
    link: usize,
    channel: Arc<str>,
    credential: Arc<str>,
    model: Arc<str>,
    circuit: State,
    probe: bool,
    started_at: Timestamp,
    waited: Duration,
    first_byte: Option<Duration>,
    took: Option<Duration>,
    outcome: &'static str,
    status: Option<u16>,
    injected: bool,
    asked_ms: Option<u64>,
    /// The circuit whose state changed by it.
    changed: Change,
}

/// What is known of an attempt when it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) link: usize,
    pub(super) circuit: State,
    pub(super) probe: bool,
    /// Waited for before it.
    pub(super) waited: Duration,
}

impl Tried {
    /// An attempt that has come as far as `trial`.
    pub(super) fn of(trial: &Trial, begun: Begun, outcome: &'static str) -> Self {
        Self {
            n: trial.n,
            link: begun.link,
            channel: Arc::clone(&trial.channel),
            credential: Arc::clone(&trial.credential),
            model: Arc::clone(&trial.model),
            circuit: begun.circuit,
            probe: begun.probe,
            started_at: trial.started_at,
            waited: begun.waited,
            first_byte: trial.first_byte.map(|at| at.duration_since(trial.started)),
            took: Some(trial.started.elapsed()),
            outcome,
            status: trial.status,
            injected: trial.is_injected,
            asked_ms: None,
            changed: Change::default(),
        }
    }

    /// Notes what it changed.
    pub(super) fn changed(mut self, changed: Change) -> Self {
        self.changed = changed;
        self
    }

    /// Notes how long the provider asked to be left alone.
    pub(super) const fn asked(mut self, asked_ms: Option<u64>) -> Self {
        self.asked_ms = asked_ms;
        self
    }

    fn show(&self, alias: &str) -> Value {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        json!({
            "n": self.n,
            "alias": alias,
            "channel": &*self.channel,
            "credential": &*self.credential,
            "model": &*self.model,
            "circuit": self.circuit,
            "probe": self.probe,
            "started_at": self.started_at,
            "waited_ms": ms(self.waited),
            "first_byte_ms": self.first_byte.map(ms),
            "duration_ms": self.took.map(ms),
            "outcome": self.outcome,
            "status": self.status,
            "injected": self.injected,
            "retry_after_ms": self.asked_ms,
            "circuit_change": self.changed.get().map(|change| json!({
                "to": change.to,
                "cause": change.cause,
                "until": change.until,
            })),
        })
    }
}

impl Trace {
    /// The trace of a call that was planned so.
    pub(super) fn of(plan: &Arc<Plan>) -> Self {
        Self { plan: Some(Arc::clone(plan)), ..Self::default() }
    }

    /// Whether the call was let through although every circuit was open.
    pub fn is_last_resort(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| matches!(plan.start, Start::LastResort(_)))
    }

    /// How many aliases of the chain came before the one that was tried last.
    pub const fn fallback(&self) -> usize {
        self.link
    }

    /// The last attempt ended so, after so long, and changed a circuit or not.
    pub(super) fn ended(&mut self, outcome: &'static str, took: Duration, changed: Change) {
        if let Some(last) = self.attempts.last_mut() {
            last.outcome = outcome;
            last.took = Some(took);
            last.changed = changed;
        }
    }

    fn alias(&self, link: usize) -> &str {
        let plan = self.plan.as_deref();
        plan.and_then(|plan| plan.links.get(link)).map_or("", |link| &link.alias.code)
    }

    fn place(&self, candidate: Candidate) -> Value {
        let route = self.plan.as_deref().and_then(|plan| plan.route(candidate));
        json!({
            "alias": self.alias(candidate.link),
            "channel": route.map(|route| &*route.channel.code),
            "model": route.map(|route| &*route.model),
            "priority": route.map(|route| route.priority),
            "weight": route.map(|route| route.weight),
        })
    }

    /// Whether nothing happened but that the first candidate answered.
    pub(super) fn is_plain(&self) -> bool {
        let skips = self.plan.as_ref().is_some_and(|plan| {
            plan.start != Start::Proper || plan.links.iter().any(|l| !l.order.skips.is_empty())
        });
        let tried =
            matches!(&self.attempts[..], [one] if !one.probe && one.changed.get().is_none());
        tried && !skips && self.refused.is_empty() && self.link == 0
    }

    /// All of it, for operators.
    pub fn show(&self) -> Value {
        let plan = self.plan.as_deref();
        let candidates = plan.into_iter().flat_map(Plan::candidates);
        let candidates: Vec<Value> = candidates.map(|place| self.place(place)).collect();
        let planned = plan.into_iter().flat_map(|plan| plan.links.iter().enumerate());
        let planned = planned.flat_map(|(link, part)| {
            let place = move |route| Candidate { link, route };
            part.order.skips.iter().map(move |skip| {
                (
                    Late { at: place(skip.route), reason: skip.reason, circuit: skip.circuit },
                    skip.until,
                )
            })
        });
        let late = self.refused.iter().map(|late| (*late, None));
        let skips = planned.chain(late).map(|(left_out, until)| {
            let mut shown = self.place(left_out.at);
            if let Value::Object(members) = &mut shown {
                members.insert("reason".to_owned(), json!(left_out.reason.name()));
                members.insert("circuit".to_owned(), json!(left_out.circuit));
                members.insert("until".to_owned(), json!(until));
            }
            shown
        });
        let skips: Vec<Value> = skips.collect();
        let attempts = self.attempts.iter().map(|tried| tried.show(self.alias(tried.link)));
        let attempts: Vec<Value> = attempts.collect();
        json!({
            "candidates": candidates,
            "skips": skips,
            "attempts": attempts,
            "last_resort": self.is_last_resort(),
            "fallback": self.link,
        })
    }

    /// What a caller may see: how it went, not where.
    pub fn redacted(&self) -> String {
        let ms = |d: Option<Duration>| d.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let attempts = self.attempts.iter().map(|tried| {
            json!({
                "n": tried.n,
                "alias": self.alias(tried.link),
                "model": &*tried.model,
                "outcome": tried.outcome,
                "first_byte_ms": ms(tried.first_byte),
                "duration_ms": ms(tried.took),
            })
        });
        let attempts: Vec<Value> = attempts.collect();
        let skipped = self
            .plan
            .as_ref()
            .map_or(0, |plan| plan.links.iter().map(|link| link.order.skips.len()).sum::<usize>());
        json!({
            "attempts": attempts,
            "skipped": skipped + self.refused.len(),
            "last_resort": self.is_last_resort(),
            "fallback": self.link,
        })
        .to_string()
    }
}
