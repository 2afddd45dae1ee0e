//! One attempt: a credential, a permit, the request, and what became of it.
//!
//! Not here: which candidate is next. Invariant: an attempt that may cost is announced before it is
//! sent, recorded when it fails, and reported to the circuits however it ends.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::time::Instant;
use zeroize::Zeroizing;

use anima_core::config::{FaultKind, FaultRule, OnDisconnect};
use anima_core::failure::{Class, Failure};
use anima_core::routing::SkipReason;
use anima_core::snapshot::RouteEntry;
use anima_store::config::publish::Forced;
use anima_wire::adapter::{self, Adapter, Classified, Encoded};

use super::super::admit::suspended;
use super::super::booking;
use super::super::call::Call;
use super::super::plan::{Candidate, forced, upstream};
use super::super::stream::LAST_REPORT;
use super::super::trace::{Begun, Late, Tried};
use super::super::trial::{Outcome, Trial, classified};
use super::{Course, Kind, Started, Step, is_credentials, may_follow};
use crate::circuits::{Change, Ticket, Way};
use crate::http::caller;
use crate::http::reply::Refusal;
use crate::live::Upstream;
use crate::outbound::{Body, Policy};

/// A credential: its code and its secret.
type Credential = (Arc<str>, Zeroizing<String>);

impl Course<'_> {
    /// Tries a candidate once.
    pub(super) async fn attempt(&mut self, candidate: Candidate, way: Way) -> Step {
        let (plan, call) = (Arc::clone(self.plan), Arc::clone(self.call));
        let Some(route) = plan.route(candidate) else { return Step::NextCandidate };
        let Some(upstream) = upstream(&call, route) else { return Step::NextCandidate };
        if self.is_spent() {
            return Step::Stop;
        }
        if let Some(refusal) = self.suspension().await {
            let Refusal { failure, message, param, .. } = refusal;
            self.state.last = Classified { message, ..classified(failure) };
            self.state.param = param;
            return Step::Stop;
        }
        if let Some(failure) = self.ended(self.usual(route)) {
            if self.state.failed.is_empty() || failure == Failure::ClientGone {
                self.state.last = classified(failure);
            }
            return Step::Stop;
        }
        if let Some(reason) = self.switched_off(candidate, route) {
            self.left_out(candidate, route, reason);
            return Step::NextCandidate;
        }
        let Some(encoded) = self.state.encoded(&call, route, upstream) else {
            return Step::NextCandidate;
        };
        let (credential, ticket) = match self.enter(route, upstream, way).await {
            Ok(entered) => entered,
            Err(reason) => {
                self.left_out(candidate, route, reason);
                return Step::NextCandidate;
            }
        };
        self.send(candidate, (route, upstream), encoded, (credential, ticket)).await
    }

    /// How long the first byte of a stream usually takes there. How long a whole answer takes is a
    /// matter of its length.
    fn usual(&self, route: &RouteEntry) -> Option<Duration> {
        let streams = self.call.request.stream;
        streams.then(|| self.relay.circuits.latency(route)).flatten()
    }

    /// Notes a candidate that cannot be tried now.
    fn left_out(&mut self, at: Candidate, route: &RouteEntry, reason: SkipReason) {
        self.relay.metrics.routing.skipped(&route.channel.code, reason);
        let circuit = self.relay.circuits.state_of(route);
        self.state.trace.refused.push(Late { at, reason, circuit });
    }

    /// Why nothing of the call may be attempted any more: its key, app, token group or model was
    /// switched off since it pinned its configuration. What cannot be read stays as it was.
    async fn suspension(&self) -> Option<Refusal> {
        let (live, asks) = (&self.relay.live, &self.call.caller);
        if live.changes() == asks.pinned.changes {
            return None;
        }
        let now = self.relay.clock.now();
        if let Err(refusal) = caller::terms(live, now, &asks.kid).await
            && refusal.failure != Failure::AuthUnavailable
        {
            return Some(refusal);
        }
        let asked = &self.call.alias.code;
        let current = live.pin(now)?.snapshot;
        let is_off = current.alias(asked).is_none_or(|alias| !alias.enabled);
        is_off.then(|| suspended(asked))
    }

    /// What operators have switched off since the call pinned its configuration: prices stay as
    /// they were, but no new attempt goes where none may go any more.
    fn switched_off(&self, at: Candidate, route: &RouteEntry) -> Option<SkipReason> {
        let (live, channel) = (&self.relay.live, &route.channel.code);
        if !live.is_open() {
            return Some(SkipReason::ChannelDisabled);
        }
        if live.rev() == self.call.caller.pinned.rev {
            return None;
        }
        let now = self.relay.clock.now();
        let current = live.pin(now)?;
        let alias = &self.plan.links.get(at.link)?.alias.code;
        let is_off = current.snapshot.channel(channel).is_none_or(|channel| !channel.enabled)
            || current.snapshot.alias(alias).is_none_or(|alias| !alias.enabled);
        if is_off {
            return Some(SkipReason::ChannelDisabled);
        }
        let forced = current.forced(channel, &route.model, now) == Some(Forced::Open);
        forced.then_some(SkipReason::ForcedOpen)
    }

    /// Chooses a credential and asks to be let through.
    async fn enter<'u>(
        &self,
        route: &RouteEntry,
        upstream: &'u Upstream,
        way: Way,
    ) -> Result<(&'u Credential, Ticket), SkipReason> {
        let channel = &route.channel.code;
        if !self.tries.has_room(channel) {
            return Err(SkipReason::Full);
        }
        let codes: Vec<&str> = upstream.credentials.iter().map(|(code, _)| &**code).collect();
        let is_forced = forced(self.call, route) == Some(Forced::Closed);
        let (order, way) = if is_forced {
            ((0..codes.len()).collect(), Way::Forced)
        } else {
            (self.relay.circuits.credentials(route, &codes), way)
        };
        let usable = || order.iter().filter_map(|n| upstream.credentials.get(*n));
        // One that was not tried in this call, else any.
        let fresh = usable().find(|(code, _)| !self.tries.has(channel, code));
        let chosen = fresh.or_else(|| usable().next());
        let chosen = chosen.ok_or(SkipReason::CredentialsFaulted)?;
        let left = self.call.deadline.saturating_duration_since(Instant::now());
        let ticket = self.relay.circuits.enter(route, &chosen.0, (way, left)).await?;
        Ok((chosen, ticket))
    }

    async fn send(
        &mut self,
        candidate: Candidate,
        (route, upstream): (&RouteEntry, &Arc<Upstream>),
        (adapter, encoded): (&'static dyn Adapter, Encoded),
        (credential, ticket): (&Credential, Ticket),
    ) -> Step {
        let (relay, call) = (self.relay, self.call);
        let Some(cost) = route.cost.as_ref() else { return Step::NextCandidate };
        let n = i16::try_from(self.state.failed.len()).unwrap_or(i16::MAX).saturating_add(1);
        if n > 1 {
            let before = self.state.last.failure.reason();
            relay.metrics.routing.retried(&call.alias.code, before);
        }
        let waited = std::mem::take(&mut self.pause);
        let circuit = relay.circuits.state_of(route);
        let begun = Begun { link: candidate.link, circuit, probe: ticket.is_probe(), waited };
        let begins = (relay.clock.now(), ticket);
        let mut trial = Trial::new(n, route, credential, Arc::clone(cost), begins);
        self.tries.add(&trial.channel, &trial.credential);
        self.state.trace.link = candidate.link;
        if let Err(failure) = self.announce(&trial).await {
            self.state.last = classified(failure);
            return Step::Stop;
        }
        let private = route.channel.body.allow_private_network;
        let policy = Policy { private, connect_ms: trial.timeouts.connect_ms };
        let out = (&relay.outbound, policy, relay.limits.answer_bytes_max);
        let asked = (adapter, encoded, credential.1.as_str());
        let sent = match self.rehearse(route, &mut trial).await {
            Some(failure) => Outcome::Failed(classified(failure)),
            None => trial.send(call, upstream, asked, out).await,
        };
        let outcome = match sent {
            Outcome::Whole(answer, body) => Ok(Kind::Whole(answer, body)),
            Outcome::Stream(body) => self.begin(&mut trial, upstream, body).await,
            Outcome::Failed(failed) => Err(failed),
        };
        self.state.waited += trial.started.elapsed();
        match outcome {
            Ok(kind) => {
                let whole = matches!(kind, Kind::Whole(..));
                let changed = if whole { trial.report(false, None) } else { Change::default() };
                let tried = Tried::of(&trial, begun, "ok").changed(changed);
                self.state.trace.attempts.push(tried);
                Step::Answered(Box::new((trial, kind)))
            }
            Err(failed) => self.failed((trial, begun), failed).await,
        }
    }

    /// Does what a fault rule of the operator's says, if one takes the call. How it fails then.
    async fn rehearse(&self, route: &RouteEntry, trial: &mut Trial) -> Option<Failure> {
        let rules = &route.channel.body.faults;
        if rules.is_empty() {
            return None;
        }
        let (relay, call) = (self.relay, self.call);
        let bits = relay.rng.next_u64();
        let rule = FaultRule::of(rules, &route.model, relay.clock.now(), bits)?;
        relay.metrics.routing.injected(&trial.channel, rule.name());
        trial.is_injected = true;
        let over = trial.started + Duration::from_millis(rule.delay_ms.into());
        let by = trial.first_byte_by(call);
        tokio::select! {
            () = tokio::time::sleep_until(over.min(by)) => {}
            () = call.arrival.gone.cancelled() => return Some(Failure::ClientGone),
        }
        if over >= by {
            return Some(trial.too_late(call));
        }
        let fails = rule.fail.map(FaultKind::failure);
        trial.is_injected = fails.is_some();
        fails
    }

    /// Whoever has to end this call in our place knows of its first candidate from the hold. Of
    /// another it must be told before it is asked.
    async fn announce(&self, trial: &Trial) -> Result<(), Failure> {
        let (relay, progress) = (self.relay, self.progress);
        progress.dispatched(trial, &self.state.failed);
        let announced = progress.hold.exposure.as_ref().map(|exposure| &exposure.channel);
        // Also on the same channel: another alias has other models, and other prices.
        let elsewhere = self.state.trace.link > 0 || announced != Some(&trial.channel);
        if trial.n > 1 || elsewhere {
            let checkpoint = progress.checkpoint(Instant::now()).await;
            if let Err(error) = relay.ledger.checkpoint(vec![checkpoint]).await {
                let request_id = self.call.arrival.id;
                tracing::warn!(%request_id, %error, "failed to note a fallback");
                return Err(Failure::ServiceUnavailable);
            }
        }
        if !relay.term.covers(progress.lease) {
            // Others may have closed the hold by now: nothing covers what would be sent.
            let request_id = self.call.arrival.id;
            tracing::error!(%request_id, "the lease is over: nothing is sent");
            return Err(Failure::ServiceUnavailable);
        }
        Ok(())
    }

    async fn begin(
        &self,
        trial: &mut Trial,
        upstream: &Upstream,
        body: Body,
    ) -> Result<Kind, Classified> {
        let gone = self.call.arrival.gone.clone();
        let cancels = trial.on_disconnect == OnDisconnect::Cancel;
        let started = tokio::select! {
            biased;
            started = start(self.call, trial, upstream, body) => started,
            () = gone.cancelled(), if cancels => Err(Failure::ClientGone),
        };
        started.map_err(classified)
    }

    /// Records an attempt that failed, and says what follows.
    async fn failed(&mut self, (mut trial, begun): (Trial, Begun), failed: Classified) -> Step {
        let (relay, call, failure) = (self.relay, self.call, failed.failure);
        let changed = trial.report(call.request.stream, Some(&failed));
        relay.metrics.attempt(&trial.channel, failure.reason());
        let tried = Tried::of(&trial, begun, failure.reason());
        let tried = tried.asked(failed.retry_after_ms).changed(changed);
        self.state.trace.attempts.push(tried);
        self.tries.note(&trial.channel, &failed, relay.clock.now());
        let attempt = booking::failed(call, &trial, failure, relay.clock.now()).await;
        self.state.failed.push(attempt);
        self.state.last = failed;
        self.state.param = None;
        let class = failure.row().class;
        if matches!(class, Class::ContextWindow | Class::ContentPolicy) {
            let next = self.plan.after(begun.link, class);
            let leads = next.iter().any(|link| !self.followed.contains(link));
            return if leads { Step::NextLink } else { Step::Stop };
        }
        if !may_follow(call.alias.kind, failure) {
            Step::Stop
        } else if is_credentials(failure) && self.has_other_credential(begun.link, &trial) {
            Step::OtherCredential
        } else {
            Step::NextCandidate
        }
    }

    /// Whether the channel has a credential that this call has not tried and that may be used.
    fn has_other_credential(&self, link: usize, trial: &Trial) -> bool {
        let part = self.plan.links.get(link);
        let routes = part.into_iter().flat_map(|part| part.alias.routes.iter());
        let mut same = routes.filter(|r| r.channel.code == trial.channel && r.model == trial.model);
        let Some(route) = same.next() else { return false };
        let codes: Vec<&str> =
            route.channel.body.credentials.iter().map(|c| c.code.as_str()).collect();
        let order = self.relay.circuits.credentials(route, &codes);
        let mut usable = order.iter().filter_map(|n| codes.get(*n));
        let fresh = usable.any(|code| !self.tries.has(&trial.channel, code));
        fresh && self.tries.has_room(&trial.channel)
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
    let content_by = trial.first_byte_by(call);
    let idle = Duration::from_millis(trial.timeouts.idle_ms.into());
    let mut report_by = content_by;
    while !decoder.has_content() && !decoder.is_done() {
        if decoder.is_failing() && report_by == content_by {
            report_by = content_by.min(Instant::now() + LAST_REPORT);
        }
        let by = report_by.min(Instant::now() + idle);
        match tokio::time::timeout_at(by, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(chunk) = frame.into_data() {
                    trial.wasted_bytes += chunk.len();
                    decoder.push(chunk, &mut ready).inspect_err(|_| trial.waste(&decoder))?;
                }
            }
            Ok(Some(Err(_broken))) => return Err(Failure::ConnectionLost),
            Ok(None) => {
                decoder.end(&mut ready).inspect_err(|_| trial.waste(&decoder))?;
                break;
            }
            Err(_elapsed) if decoder.is_failing() => {
                trial.waste(&decoder);
                return Err(Failure::ErrorInAnswer);
            }
            Err(_elapsed) if by == content_by => return Err(trial.too_late(call)),
            Err(_elapsed) => return Err(Failure::FirstByteTimeout),
        }
    }
    if !decoder.has_content() && decoder.usage().is_none() {
        return Err(Failure::AnswerEmpty);
    }
    Ok(Kind::Stream(Box::new(Started { body, decoder, ready })))
}
