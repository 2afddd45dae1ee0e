//! What happened to a request, written once at its end: the log line, the metrics and the record
//! show it.
//!
//! Its fields are listed in `docs/logging.md` and `docs/metrics.md`. Invariant: no prompt, no
//! answer, no secret.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::quota::Bound;

use super::call::Call;
use super::settle::Receipt;
use super::trace::Trace;
use crate::http::reply::Refusal;
use crate::metrics::{Labels, Metrics, Times};

/// How a request went.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The request's id.
    pub id: Uuid,
    /// When it came.
    pub at: Timestamp,
    /// The configuration that it was served under; 0 when it did not come so far.
    pub config_version: i64,
    /// Labels of its metrics.
    pub labels: Labels,
    /// The key's public id; empty when no key was recognised.
    pub kid: Arc<str>,
    /// The upstream model; empty when none served.
    pub model: Arc<str>,
    /// `ok` or the failure's reason.
    pub outcome: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// Upstream calls made.
    pub attempts: usize,
    /// What is wrong, in words, where it is not the caller's body.
    pub message: Option<String>,
    /// What the output limit was lowered to, because the wallet covers no more.
    pub output_limit: Option<u64>,
    /// From the head to now.
    pub total: Duration,
    /// From the head to the answer's first byte.
    pub first_byte: Option<Duration>,
    /// Not waiting for an upstream, up to the answer's first byte.
    pub overhead: Duration,
    /// How long it waited for its turn.
    pub queued: Duration,
    /// What it took of its limits.
    pub(super) limits: Option<Arc<[Bound]>>,
    /// The caller asked how it was routed.
    pub(super) is_traced: bool,
    /// How it was routed.
    pub(super) trace: Trace,
    /// What it came to.
    pub(super) receipt: Option<Receipt>,
}

impl Decision {
    /// A decision about an admitted call, with nothing done yet.
    pub(super) fn of(call: &Call) -> Self {
        let labels = Labels {
            endpoint: call.endpoint(),
            alias: Arc::clone(&call.alias.code),
            channel: Arc::default(),
            app: Arc::clone(&call.caller.app),
        };
        Self {
            id: call.arrival.id,
            at: call.arrival.at,
            config_version: call.caller.pinned.rev,
            labels,
            kid: Arc::clone(&call.caller.kid),
            model: Arc::default(),
            outcome: "ok",
            status: 200,
            stream: call.request.stream,
            attempts: 0,
            message: None,
            output_limit: call.request.limited_to,
            total: Duration::ZERO,
            first_byte: None,
            overhead: Duration::ZERO,
            queued: call.queued,
            limits: call.ticket.as_ref().map(|ticket| ticket.bounds()),
            is_traced: call.steering.trace,
            trace: Trace::default(),
            receipt: None,
        }
    }

    /// A decision about a request that was not admitted: nothing was done for it. Its alias is not
    /// a label, since callers choose it. See [`Decision::note`].
    pub fn unadmitted(
        (id, at): (Uuid, Timestamp),
        endpoint: &'static str,
        (app, kid): (Arc<str>, Arc<str>),
        total: Duration,
    ) -> Self {
        let labels = Labels { endpoint, alias: Arc::default(), channel: Arc::default(), app };
        Self {
            id,
            at,
            config_version: 0,
            labels,
            kid,
            model: Arc::default(),
            outcome: "ok",
            status: 200,
            stream: false,
            attempts: 0,
            message: None,
            output_limit: None,
            total,
            first_byte: None,
            overhead: total,
            queued: Duration::ZERO,
            limits: None,
            is_traced: false,
            trace: Trace::default(),
            receipt: None,
        }
    }

    /// A decision about a call that was made before, under its idempotency key: it was answered
    /// again and nothing was done for it.
    pub fn replayed(call: &Call, status: u16) -> Self {
        let total = call.arrival.instant.elapsed();
        Self { outcome: "idempotent_replay", status, total, overhead: total, ..Self::of(call) }
    }

    /// Notes what the caller is told instead of an answer.
    pub(crate) fn note(&mut self, refusal: &Refusal) {
        self.outcome = refusal.failure.reason();
        self.status = refusal.failure.row().status;
        // What is said about a body may quote it.
        let is_ours = matches!(self.status, 402 | 429 | 500..);
        self.message = is_ours.then(|| refusal.message.clone());
    }

    /// Whether an operator may want to look at it: anything but an answer from the first place.
    pub fn is_notable(&self) -> bool {
        let replayed = self.outcome == "idempotent_replay";
        let plain = replayed || (self.outcome == "ok" && self.trace.is_plain());
        !plain || self.is_traced || self.output_limit.is_some() || !self.queued.is_zero()
    }

    /// What is kept of it, as text. Money is not there: the ledger has it.
    pub fn record(&self, node: &str) -> String {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let limits = self.limits.iter().flat_map(|bounds| bounds.iter()).map(|bound| {
            json!({
                "quota": bound.counter.code,
                "scope": bound.counter.scope.word(),
                "limit": bound.counter.rule.to_string(),
                "took": bound.units,
            })
        });
        let mut shown = self.trace.show();
        let own = json!({
            "at": self.at,
            "node": node,
            "app": &*self.labels.app,
            "key": &*self.kid,
            "alias": &*self.labels.alias,
            "endpoint": self.labels.endpoint,
            "stream": self.stream,
            "outcome": self.outcome,
            "status": self.status,
            "message": self.message,
            "config_version": self.config_version,
            "total_ms": ms(self.total),
            "first_byte_ms": self.first_byte.map(ms),
            "overhead_us": u64::try_from(self.overhead.as_micros()).unwrap_or(u64::MAX),
            "queue_wait_ms": ms(self.queued),
            "output_limit": self.output_limit,
            "limits": limits.collect::<Vec<Value>>(),
        });
        if let (Value::Object(shown), Value::Object(own)) = (&mut shown, own) {
            shown.extend(own);
        }
        shown.to_string()
    }

    /// Writes the log line and the metrics.
    pub fn write(&self, metrics: &Metrics) {
        let times = Times {
            total: self.total.as_secs_f64(),
            first_byte: self.first_byte.map(|d| d.as_secs_f64()),
            overhead: self.overhead.as_secs_f64(),
        };
        metrics.request(&self.labels, self.outcome, times);
        if self.output_limit.is_some() {
            metrics.output_limited.inc();
        }
        let (mut tokens, mut charged, mut currency, mut estimate) = ((0, 0), 0, "", false);
        if let Some(receipt) = &self.receipt {
            metrics.settled(&self.labels, receipt.charged, &receipt.costs, receipt.tokens);
            (tokens, charged) = (receipt.tokens, receipt.charged.units);
            (currency, estimate) = (receipt.charged.currency.code(), receipt.estimate);
        }
        tracing::info!(
            request_id = crate::http::reply::id_text(self.id),
            endpoint = self.labels.endpoint,
            app = &*self.labels.app,
            key = &*self.kid,
            alias = &*self.labels.alias,
            channel = &*self.labels.channel,
            model = &*self.model,
            outcome = self.outcome,
            status = self.status,
            stream = self.stream,
            attempts = self.attempts,
            output_limit = self.output_limit,
            input_tokens = tokens.0,
            output_tokens = tokens.1,
            charged_units = charged,
            currency,
            estimate,
            duration_us = u64::try_from(self.total.as_micros()).unwrap_or(u64::MAX),
            overhead_us = u64::try_from(self.overhead.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
    }
}
