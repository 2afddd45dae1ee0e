//! Plan → answer: the one loop over candidates.
//!
//! One deadline and one attempt budget cover all of it. After the caller has left no attempt
//! starts. A stream counts as answered at its first content byte; until then it falls back like any
//! other failure. Source: SPEC 7.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use anima_core::config::OnDisconnect;
use anima_core::failure::{Failure, Retry};
use anima_core::ledger::Attempt;
use anima_core::pricing::PriceList;
use anima_core::snapshot::RouteEntry;
use anima_wire::adapter::{self, Adapter, Answer, Classified, Destination, Encoded, StreamDecoder};
use anima_wire::request;

use super::call::Call;
use super::plan::{Plan, candidate};
use super::progress::Progress;
use super::trial::{Outcome, Trial, classified};
use super::{Relay, booking};
use crate::live::Upstream;
use crate::outbound::{Body, Policy};

/// An answer, or the start of one.
#[derive(Debug)]
pub(super) struct Answered {
    /// The attempts before it.
    pub(super) failed: Vec<Attempt>,
    /// The attempt that answers.
    pub(super) trial: Trial,
    /// The answer.
    pub(super) answer: Kind,
    /// Time spent waiting for upstreams.
    pub(super) waited: Duration,
}

/// The two kinds of answer.
#[derive(Debug)]
pub(super) enum Kind {
    /// A JSON body.
    Whole(Box<Answer>, Bytes),
    /// A stream past its first content byte.
    Stream(Box<Started>),
}

/// A stream that has begun.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) body: Body,
    pub(super) decoder: StreamDecoder,
    /// What may go to the client now.
    pub(super) ready: Vec<Bytes>,
}

/// No candidate answered.
#[derive(Debug)]
pub(super) struct Exhausted {
    /// Every attempt made.
    pub(super) failed: Vec<Attempt>,
    /// Why the last one failed, in words for the caller.
    pub(super) last: Classified,
    /// The caller's member at fault, when one is.
    pub(super) param: Option<&'static str>,
    /// Time spent waiting for upstreams.
    pub(super) waited: Duration,
}

impl Exhausted {
    /// The request as the candidate's provider is asked.
    fn encoded(
        &mut self,
        call: &Call,
        route: &RouteEntry,
        upstream: &Upstream,
    ) -> Result<(&'static dyn Adapter, Encoded), Retry> {
        let adapter = upstream.adapter.ok_or(Retry::NextChannel)?;
        let adapter = adapter::of_model(adapter, &route.model);
        let settings = Some(&route.channel.body.settings);
        let to = Destination { model: &route.model, settings };
        let encoded = adapter.encode(&call.request, to).map_err(|refusal| {
            self.note_uncarried(refusal.into());
            Retry::NextChannel
        })?;
        Ok((adapter, encoded))
    }

    /// Notes that a provider cannot be asked for a member of the request. What an upstream that
    /// could be asked answered says more.
    fn note_uncarried(&mut self, error: request::Error) {
        if self.failed.is_empty() {
            let request::Error { failure, message, param } = error;
            self.param = param;
            self.last = Classified { message, ..classified(failure) };
        }
    }
}

/// Tries the candidates in order until one answers.
pub(super) async fn run(
    relay: &Relay,
    call: &Arc<Call>,
    plan: &Plan,
    progress: &Progress,
) -> Result<Answered, Exhausted> {
    let mut state = Exhausted {
        failed: Vec::new(),
        last: classified(Failure::NoHealthyChannel),
        param: None,
        waited: Duration::ZERO,
    };
    let budget = usize::try_from(call.alias.retry.max_attempts).unwrap_or(1);
    for index in &plan.candidates {
        if state.failed.len() >= budget {
            break;
        }
        if call.arrival.gone.is_cancelled() {
            state.last = classified(Failure::ClientGone);
            break;
        }
        if Instant::now() >= call.deadline {
            state.last = classified(Failure::DeadlineExceeded);
            break;
        }
        let Some((route, upstream)) = candidate(call, *index) else {
            continue;
        };
        let Some(cost) = route.cost.as_ref() else {
            continue;
        };
        let tried = one(relay, call, (route, upstream, cost), progress, &mut state).await;
        match tried {
            Ok((trial, answer)) => {
                let Exhausted { failed, waited, .. } = state;
                return Ok(Answered { failed, trial, answer, waited });
            }
            Err(Retry::Never) => break,
            Err(Retry::NextChannel) => {}
        }
    }
    Err(state)
}

/// Makes one attempt. A failure is recorded in `state`; a request that this provider cannot be
/// asked is no attempt, and the caller's fault only when nobody can be.
async fn one(
    relay: &Relay,
    call: &Arc<Call>,
    (route, upstream, cost): (&RouteEntry, &Arc<Upstream>, &Arc<PriceList>),
    progress: &Progress,
    state: &mut Exhausted,
) -> Result<(Trial, Kind), Retry> {
    let n = i16::try_from(state.failed.len()).unwrap_or(i16::MAX).saturating_add(1);
    let spread = usize::try_from(relay.rng.next_u64() >> 33).unwrap_or(0);
    let count = upstream.credentials.len().max(1);
    let Some(credential) = upstream.credentials.get(spread % count) else {
        return Err(Retry::NextChannel);
    };
    let (adapter, encoded) = state.encoded(call, route, upstream)?;
    let mut trial = Trial::new(n, route, credential, Arc::clone(cost), relay.clock.now());
    let policy = Policy {
        private: route.channel.body.allow_private_network,
        connect_ms: trial.timeouts.connect_ms,
    };
    progress.dispatched(&trial, &state.failed);
    let announced = progress.hold.exposure.as_ref().map(|exposure| &exposure.channel);
    if n > 1 || announced != Some(&trial.channel) {
        // Whoever has to end this call in our place knows of its first candidate from the hold. Of
        // another it must be told before it is asked.
        let checkpoint = progress.checkpoint(Instant::now()).await;
        if let Err(error) = relay.ledger.checkpoint(vec![checkpoint]).await {
            tracing::warn!(request_id = %call.arrival.id, %error, "failed to note a fallback");
            state.last = classified(Failure::ServiceUnavailable);
            return Err(Retry::Never);
        }
    }
    if !relay.term.covers(progress.lease) {
        // Others may have closed the hold by now: nothing covers what would be sent.
        tracing::error!(request_id = %call.arrival.id, "the lease is over: nothing is sent");
        state.last = classified(Failure::ServiceUnavailable);
        return Err(Retry::Never);
    }
    let out = (&relay.outbound, policy, relay.limits.answer_bytes_max);
    let outcome = match trial.send(call, upstream, (adapter, encoded, &credential.1), out).await {
        Outcome::Whole(answer, body) => Ok(Kind::Whole(answer, body)),
        Outcome::Stream(body) => {
            let gone = call.arrival.gone.clone();
            let cancels = trial.on_disconnect == OnDisconnect::Cancel;
            let started = tokio::select! {
                biased;
                started = start(call, &mut trial, upstream, body) => started,
                () = gone.cancelled(), if cancels => Err(Failure::ClientGone),
            };
            started.map_err(classified)
        }
        Outcome::Failed(classified) => Err(classified),
    };
    state.waited += trial.started.elapsed();
    match outcome {
        Ok(kind) => Ok((trial, kind)),
        Err(failed) => {
            let failure = failed.failure;
            relay.metrics.attempt(&trial.channel, failure.reason());
            let attempt = booking::failed(call, &trial, failure, relay.clock.now()).await;
            state.failed.push(attempt);
            state.last = failed;
            state.param = None;
            Err(failure.row().retry)
        }
    }
}

/// Reads a stream up to its first content byte.
async fn start(
    call: &Call,
    trial: &mut Trial,
    upstream: &Upstream,
    mut body: Body,
) -> Result<Kind, Failure> {
    let adapter = upstream.adapter.ok_or(Failure::Internal)?;
    let adapter = adapter::of_model(adapter, &trial.model);
    let mut decoder = adapter.stream(&call.request);
    let mut ready = Vec::new();
    let deadline = trial.deadline(call);
    let content_by = trial.first_byte_by(call);
    let idle = Duration::from_millis(trial.timeouts.idle_ms.into());
    while !decoder.has_content() && !decoder.is_done() {
        let by = content_by.min(Instant::now() + idle);
        match tokio::time::timeout_at(by, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(chunk) = frame.into_data() {
                    trial.wasted_bytes += chunk.len();
                    decoder.push(chunk, &mut ready)?;
                }
            }
            Ok(Some(Err(_broken))) => return Err(Failure::ConnectionLost),
            Ok(None) => {
                decoder.end(&mut ready)?;
                break;
            }
            Err(_elapsed) if by == deadline => return Err(trial.late(call)),
            Err(_elapsed) => return Err(Failure::FirstByteTimeout),
        }
    }
    if !decoder.has_content() && decoder.usage().is_none() {
        return Err(Failure::AnswerEmpty);
    }
    Ok(Kind::Stream(Box::new(Started { body, decoder, ready })))
}
