//! The story of a call, on one page: admitted → planned → held → attempted → settled → answered.
//!
//! Runs in a task of its own, so that a client that leaves cannot cancel a settlement. Invariant: a
//! whole answer is returned only when its settlement is on disk; a stream carries that duty on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use anima_core::failure::Failure;
use anima_core::ledger::Attempt;
use anima_wire::adapter::Told;

use super::admission::Entered;
use super::attempt::{Answered, Exhausted, Kind};
use super::booking::{self, Delivered, Part};
use super::call::Call;
use super::decision::Decision;
use super::hold::Open;
use super::stream::RelayStream;
use super::trace::Trace;
use super::{Relay, admission, attempt, hold, plan, settle};
use crate::http::rate_limits::RateLimits;
use crate::http::reply::{self, Refusal};

/// What goes back to the client.
#[derive(Debug)]
pub enum Answer {
    /// A whole body, and what it is unless JSON.
    Whole(Bytes, Option<&'static str>),
    /// Server-sent events.
    Stream(Box<RelayStream>),
}

/// An answer and how it came about.
#[derive(Debug)]
pub struct Outcome {
    /// The answer, or why there is none.
    pub answer: Result<Answer, Refusal>,
    /// The upstream model that served.
    pub served_model: Option<Arc<str>>,
    /// Upstream calls made.
    pub attempts: usize,
    /// What the output limit was lowered to, because the wallet covers no more.
    pub output_limit: Option<u64>,
    /// What the provider's dialect could not carry: names with commas, or empty.
    pub dropped: String,
    /// Where its limits stand, if it has any.
    pub limits: Option<RateLimits>,
    /// How long it waited for its turn.
    pub waited: Duration,
    /// What is out of the ordinary about the way that it took; `None` when nothing is.
    pub way: Option<Box<reply::Way>>,
}

/// Runs a call to its answer, if its limits let it pass.
pub async fn run(relay: Arc<Relay>, mut call: Arc<Call>) -> Outcome {
    let Entered { admitted, limits, waited } = admission::enter(&relay, &mut call).await;
    if !waited.is_zero() {
        let call = Arc::make_mut(&mut call);
        call.queued = waited;
        call.begins_after(waited);
    }
    let outcome = match admitted {
        Ok(()) => served(relay, call).await,
        Err(refusal) => refused(&relay, &call, Trace::default(), refusal),
    };
    Outcome { limits, waited, ..outcome }
}

async fn served(relay: Arc<Relay>, mut call: Arc<Call>) -> Outcome {
    let plan = match plan::plan(&relay, &call) {
        Ok(plan) => Arc::new(plan),
        Err(refused_so) => {
            let (plan, refusal) = *refused_so;
            return refused(&relay, &call, Trace::of(&Arc::new(plan)), refusal);
        }
    };
    let placed = relay.dependencies.while_up(hold::place(&relay, &mut call, &plan)).await;
    let open = match placed.unwrap_or_else(|| Err(hold::database_down())) {
        Ok(open) => open,
        Err(refusal) => {
            if refusal.failure == Failure::ServiceUnavailable {
                relay.note_database(true);
            }
            return refused(&relay, &call, Trace::of(&plan), refusal);
        }
    };
    if let Err(refusal) = relay.admission.confirm(&call, open.amount()).await {
        // What cannot be released now is by the ledger, which has written it down.
        drop(settle::unserved(&relay, &call, open, vec![]).await);
        return refused(&relay, &call, Trace::of(&plan), refusal);
    }
    if let Some(deferral) = &call.deferral
        && !deferral.begin(call.arrival.id).await
    {
        // What cannot be released now is by the ledger, which has written it down.
        drop(settle::unserved(&relay, &call, open, vec![]).await);
        let message = "The task is not to be run any more, or not here.";
        return refused(
            &relay,
            &call,
            Trace::of(&plan),
            Refusal::new(Failure::ClientGone, message),
        );
    }
    match attempt::run(&relay, &call, &plan, &open.progress).await {
        Ok(answered) => answer(relay, call, open, answered).await,
        Err(exhausted) => give_up(&relay, &call, open, exhausted).await,
    }
}

/// A call that ends before any attempt.
fn refused(relay: &Relay, call: &Call, trace: Trace, refusal: Refusal) -> Outcome {
    let mut decision = Decision::of(call);
    let way = way(call, &trace);
    decision.trace = trace;
    decision.note(&refusal);
    decision.total = call.arrival.instant.elapsed();
    decision.overhead = decision.total;
    relay.conclude(decision);
    let answer = Err(refusal);
    Outcome {
        answer,
        served_model: None,
        attempts: 0,
        output_limit: None,
        dropped: String::new(),
        limits: None,
        waited: Duration::ZERO,
        way,
    }
}

async fn answer(relay: Arc<Relay>, call: Arc<Call>, open: Open, answered: Answered) -> Outcome {
    let attempts = answered.failed.len() + 1;
    let served_model = Some(Arc::clone(&answered.trial.model));
    let mut decision = Decision::of(&call);
    decision.attempts = attempts;
    decision.labels.channel = Arc::clone(&answered.trial.channel);
    decision.model = Arc::clone(&answered.trial.model);
    let output_limit = call.request.limited_to;
    let Answered { failed, trial, answer, waited, trace } = answered;
    let way = way(&call, &trace);
    decision.trace = trace;
    let dropped = trial.dropped.header();
    match answer {
        Kind::Stream(started) => {
            let so_far = call.arrival.instant.elapsed();
            decision.first_byte = Some(so_far);
            decision.overhead = so_far.saturating_sub(waited);
            let stream = RelayStream::new(relay, call, (open, failed, trial), *started, decision);
            let answer = Ok(Answer::Stream(Box::new(stream)));
            Outcome {
                answer,
                served_model,
                attempts,
                output_limit,
                dropped,
                limits: None,
                waited: Duration::ZERO,
                way,
            }
        }
        Kind::Whole(answer, body) => {
            let content_type = answer.content_type;
            let delivered = delivered(&call, answer).await;
            let booked = (failed, trial, delivered, "ok");
            let settled = settle::served(&relay, &call, open, booked).await;
            decision.total = call.arrival.instant.elapsed();
            decision.first_byte = Some(decision.total);
            decision.overhead = decision.total.saturating_sub(waited);
            let answer = match settled {
                Ok(receipt) => {
                    decision.receipt = Some(receipt);
                    Ok(Answer::Whole(body, content_type))
                }
                Err(_logged) => Err(unbooked()),
            };
            if let Err(refusal) = &answer {
                decision.note(refusal);
            }
            if call.arrival.gone.is_cancelled() {
                relay.metrics.drains.inc();
                decision.outcome = Failure::ClientGone.reason();
            }
            relay.conclude(decision);
            Outcome {
                answer,
                served_model,
                attempts,
                output_limit,
                dropped,
                limits: None,
                waited: Duration::ZERO,
                way,
            }
        }
    }
}

/// What the caller is told about the way that its call took.
fn way(call: &Call, trace: &Trace) -> Option<Box<reply::Way>> {
    let (fallback, last_resort) = (trace.fallback(), trace.is_last_resort());
    let told = call.steering.trace.then(|| trace.redacted());
    let plain = fallback == 0 && !last_resort && told.is_none();
    (!plain).then(|| Box::new(reply::Way { fallback, last_resort, trace: told }))
}

/// An answer that was made but could not be booked is withheld: an acknowledged answer is a billed
/// answer (SPEC 8).
fn unbooked() -> Refusal {
    let message = "The call was made but could not be booked, so its answer is withheld. It may \
                   still be charged.";
    Refusal::new(Failure::Unbooked, message)
}

async fn delivered(call: &Call, answer: Box<anima_wire::adapter::Answer>) -> Delivered {
    let suspect = answer.usage_suspect;
    // Of an odd report about pictures, queries or sound, what was counted here is left.
    let believed = answer.usage.filter(|_| !suspect || answer.told != Told::All);
    let generates = call.request.endpoint.generates();
    let silent = believed.is_none_or(|u| u.output_tokens() == 0);
    let empty = generates && silent && answer.text_bytes == 0;
    let tier = answer.service_tier.clone();
    let answer_told = answer.told;
    let counted_output = if believed.is_none() && generates && !empty {
        booking::counted(move || answer.count_output_tokens()).await
    } else {
        0
    };
    Delivered {
        reported: believed,
        suspect,
        told: answer_told,
        input: None,
        tier,
        counted_output,
        empty,
        part: Part::Whole,
    }
}

async fn give_up(relay: &Relay, call: &Arc<Call>, open: Open, exhausted: Exhausted) -> Outcome {
    let Exhausted { failed, last, param, waited, trace } = exhausted;
    let attempts = failed.len();
    let mut decision = Decision::of(call);
    decision.attempts = attempts;
    let way = way(call, &trace);
    decision.trace = trace;
    if let Some(Attempt { channel, model, .. }) = failed.last() {
        decision.labels.channel = Arc::clone(channel);
        decision.model = Arc::clone(model);
    }
    // A release that cannot be written now is kept and retried by the ledger; the caller's answer
    // is the failure of the upstream either way.
    decision.receipt = settle::unserved(relay, call, open, failed).await.ok();
    decision.total = call.arrival.instant.elapsed();
    decision.overhead = decision.total.saturating_sub(waited);
    let mut refusal = Refusal::new(last.failure, last.message).param(param);
    refusal.retry_after_ms = last.retry_after_ms;
    refusal.may_be_made = attempts > 0 && attempt::may_be_made(call.alias.kind, last.failure);
    decision.note(&refusal);
    relay.conclude(decision);
    let output_limit = call.request.limited_to;
    let (answer, dropped) = (Err(refusal), String::new());
    Outcome {
        answer,
        served_model: None,
        attempts,
        output_limit,
        dropped,
        limits: None,
        waited: Duration::ZERO,
        way,
    }
}
