//! Plan → answer: the one loop over candidates.
//!
//! One deadline and one attempt budget cover all of it: every candidate of the alias once, then the
//! aliases that it falls back to for what it failed with, then, when there is no other way, the
//! same again after a wait. After the caller has left no attempt starts. A stream counts as
//! answered at its first content byte; until then it falls back like any other failure. Source:
//! SPEC 7, `reliability` 4.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use anima_core::clock::Timestamp;
use anima_core::failure::{Class, Failure};
use anima_core::ledger::Attempt;
use anima_core::routing::SkipReason;
use anima_core::snapshot::RouteEntry;
use anima_wire::adapter::{self, Adapter, Answer, Classified, Destination, Encoded, StreamDecoder};
use anima_wire::request;

use super::Relay;
use super::call::Call;
use super::plan::{Candidate, Plan, Start, micros, see};
use super::progress::Progress;
use super::trace::{Late, Trace};
use super::trial::{Trial, classified};
use crate::circuits::{Circuits, Way};
use crate::live::Upstream;
use crate::outbound::Body;

mod one;
mod tries;

pub(super) use tries::may_be_made;
use tries::{Tries, backoff, is_credentials, may_follow, may_pass};

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
    /// How it came about.
    pub(super) trace: Trace,
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
    /// How it came about.
    pub(super) trace: Trace,
}

impl Exhausted {
    /// The request as the candidate's provider is asked. `None` when it cannot be asked so.
    fn encoded(
        &mut self,
        call: &Call,
        route: &RouteEntry,
        upstream: &Upstream,
    ) -> Option<(&'static dyn Adapter, Encoded)> {
        let adapter = adapter::of_model(upstream.adapter?, &route.model);
        let settings = Some(&route.channel.body.settings);
        let base_url = &route.channel.body.base_url;
        let to = Destination { model: &route.model, settings, base_url };
        match adapter.encode(&call.request, to) {
            Ok(encoded) => Some((adapter, encoded)),
            Err(refusal) => {
                self.note_uncarried(refusal.into());
                None
            }
        }
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

/// What follows from a try.
enum Step {
    /// It answers.
    Answered(Box<(Trial, Kind)>),
    /// Another credential of the channel.
    OtherCredential,
    /// The next candidate of the alias.
    NextCandidate,
    /// The aliases to fall back to.
    NextLink,
    /// Nothing: no attempt can follow.
    Stop,
}

/// A call on its way through its plan.
struct Course<'a> {
    relay: &'a Relay,
    call: &'a Arc<Call>,
    plan: &'a Arc<Plan>,
    progress: &'a Progress,
    state: Exhausted,
    tries: Tries,
    /// The aliases of the chain that it came to.
    followed: Vec<usize>,
    /// Waited for before the next attempt.
    pause: Duration,
}

/// Follows the plan until a candidate answers.
pub(super) async fn run(
    relay: &Relay,
    call: &Arc<Call>,
    plan: &Arc<Plan>,
    progress: &Progress,
) -> Result<Answered, Exhausted> {
    let state = Exhausted {
        failed: Vec::new(),
        last: classified(Failure::NoHealthyChannel),
        param: None,
        waited: Duration::ZERO,
        trace: Trace::of(plan),
    };
    let (tries, followed, pause) = (Tries::default(), Vec::new(), Duration::ZERO);
    let mut course = Course { relay, call, plan, progress, state, tries, followed, pause };
    if let Some(allowance) = relay.circuits.allowance(&call.alias) {
        allowance.call(relay.clock.now());
    }
    let answered = course.go().await;
    let (mut state, followed) = (course.state, course.followed);
    if let Some((trial, answer)) = answered {
        let Exhausted { failed, waited, trace, .. } = state;
        return Ok(Answered { failed, trial, answer, waited, trace });
    }
    if state.failed.is_empty() && state.last.failure == Failure::NoHealthyChannel {
        let wait_ms = plan.soonest_ms(&followed, relay.clock.now()).unwrap_or(1_000);
        state.last.retry_after_ms = Some(wait_ms);
    }
    Err(state)
}

#[expect(clippy::multiple_inherent_impl, reason = "where to go and how to go are two files")]
impl Course<'_> {
    /// From the start to an answer, or until no attempt can follow.
    async fn go(&mut self) -> Option<(Trial, Kind)> {
        let mut step = match self.plan.start {
            Start::Proper => self.follow(vec![0]).await,
            Start::LastResort(candidate) => self.last_resort(candidate).await,
            Start::After(candidate, until) => self.after(candidate, until).await,
        };
        loop {
            step = match step {
                Step::Answered(answered) => return Some(*answered),
                Step::Stop => return None,
                Step::OtherCredential | Step::NextCandidate => self.again().await,
                Step::NextLink => {
                    let next = self.onward(self.state.trace.link, true);
                    self.follow(next).await
                }
            };
        }
    }

    /// The chain from some of its aliases on: each once, those first that the last failure leads
    /// to.
    async fn follow(&mut self, mut pending: Vec<usize>) -> Step {
        pending.reverse();
        while let Some(link) = pending.pop() {
            if self.followed.contains(&link) {
                continue;
            }
            self.note_link(link);
            let before = self.state.failed.len();
            match self.link(link).await {
                Step::NextLink | Step::NextCandidate | Step::OtherCredential => {}
                end @ (Step::Answered(_) | Step::Stop) => return end,
            }
            let was_tried = self.state.failed.len() > before;
            pending.extend(self.onward(link, was_tried).iter().rev());
        }
        Step::NextCandidate
    }

    /// The aliases that follow one, in order: those that the last failure leads to, and when none
    /// of its own places could be tried, those that stand in for it.
    fn onward(&self, link: usize, was_tried: bool) -> Vec<usize> {
        let mut next = Vec::new();
        if !self.state.failed.is_empty() {
            next = self.plan.after(link, self.state.last.failure.row().class);
        }
        if !was_tried {
            next.extend(self.plan.around(link));
        }
        next.retain(|link| !self.followed.contains(link));
        next
    }

    /// What the call fails with at the moment: the last failure, else why nothing was tried.
    fn class(&self, link: usize) -> Class {
        if !self.state.failed.is_empty() {
            return self.state.last.failure.row().class;
        }
        let order = self.plan.links.get(link).map(|link| &link.order);
        let cooling = |order: &anima_core::routing::Plan| {
            order.skips.iter().any(|skip| skip.reason == SkipReason::CoolingDown)
        };
        if order.is_some_and(cooling) { Class::RateLimited } else { Class::Error }
    }

    fn note_link(&mut self, link: usize) {
        self.followed.push(link);
        self.state.trace.link = link;
        if let (true, Some(part)) = (link > 0, self.plan.links.get(link)) {
            let class = self.class(0);
            let word = serde_json::to_value(class).unwrap_or_default();
            let (from, to) = (&self.call.alias.code, &part.alias.code);
            let class = word.as_str().unwrap_or_default();
            self.relay.metrics.routing.fell_back(from, to, class);
        }
    }

    /// Every candidate of one alias, with its credentials.
    async fn link(&mut self, link: usize) -> Step {
        let plan = Arc::clone(self.plan);
        let Some(part) = plan.links.get(link) else { return Step::NextLink };
        for route in &part.order.candidates {
            let candidate = Candidate { link, route: *route };
            match self.credentials(candidate).await {
                Step::OtherCredential | Step::NextCandidate => {}
                end @ (Step::Answered(_) | Step::NextLink | Step::Stop) => return end,
            }
        }
        Step::NextLink
    }

    /// A candidate with its credentials.
    async fn credentials(&mut self, candidate: Candidate) -> Step {
        let way = self.plan.way(candidate);
        loop {
            let step = self.attempt(candidate, way).await;
            if !matches!(step, Step::OtherCredential) {
                return step;
            }
        }
    }

    /// The only candidate, when its rest is over.
    async fn after(&mut self, candidate: Candidate, until: Timestamp) -> Step {
        self.note_link(candidate.link);
        let wait = micros(until.since(self.relay.clock.now()));
        if let Step::Stop = self.rest(wait).await {
            return Step::Stop;
        }
        self.credentials(candidate).await
    }

    /// The least bad of places that are all open. What fails there is not tried once more.
    async fn last_resort(&mut self, candidate: Candidate) -> Step {
        if !self.followed.contains(&candidate.link) {
            self.note_link(candidate.link);
        }
        match self.attempt(candidate, Way::LastResort).await {
            Step::OtherCredential | Step::NextCandidate => Step::Stop,
            step @ (Step::Answered(_) | Step::NextLink | Step::Stop) => step,
        }
    }

    /// Candidates that failed once more, after a wait, when there is no other way.
    async fn again(&mut self) -> Step {
        if self.state.failed.is_empty() {
            let tripped = |late: &&Late| Circuits::is_tripped(late.reason);
            let refused = self.state.trace.refused.iter().find(tripped).map(|late| late.at);
            return match refused {
                Some(candidate) => self.last_resort(candidate).await,
                None => Step::Stop,
            };
        }
        // Candidates that were not even asked: they would not be the next time either.
        let mut vain = Vec::new();
        for n in 1.. {
            let failure = self.state.last.failure;
            let Some((candidate, rest)) = self.once_more(failure, &vain) else { break };
            let now = self.relay.clock.now();
            let granted = self.relay.circuits.allowance(&self.call.alias);
            if !granted.is_some_and(|allowance| allowance.grant(now)) {
                self.relay.metrics.routing.retries_refused.inc();
                break;
            }
            let wait = rest.max(backoff(n, self.relay.rng.next_u64()));
            if let Step::Stop = self.rest(wait).await {
                break;
            }
            let before = self.state.failed.len();
            match self.attempt(candidate, self.plan.way(candidate)).await {
                Step::OtherCredential | Step::NextCandidate => {}
                end @ (Step::Answered(_) | Step::NextLink | Step::Stop) => return end,
            }
            if self.state.failed.len() == before {
                vain.push(candidate);
            }
        }
        Step::Stop
    }

    /// The candidate to try once more, and how long it wants to rest before.
    fn once_more(&self, failure: Failure, vain: &[Candidate]) -> Option<(Candidate, Duration)> {
        if !may_pass(failure) || self.is_spent() {
            return None;
        }
        let now = self.relay.clock.now();
        // Only where the failures have led: an alias for long prompts is none for outages.
        let led = |candidate: &Candidate| self.followed.contains(&candidate.link);
        let open = self.plan.candidates().filter(led);
        let open = open.filter(|candidate| !vain.contains(candidate)).filter_map(|candidate| {
            let route = self.plan.route(candidate)?;
            let seen = see(self.relay, self.call, (route, now));
            let rest = match seen.skip {
                None => Duration::ZERO,
                Some(_) if seen.slow && self.plan.way(candidate) == Way::Readmitted => {
                    Duration::ZERO
                }
                Some(SkipReason::CoolingDown) => micros(seen.until?.since(now)),
                Some(_) => return None,
            };
            let channel = &route.channel.code;
            let rest = rest.max(self.tries.asked(channel, now));
            let room = self.tries.has_room(channel);
            (room && rest <= self.relay.limits.retry_wait).then_some((candidate, rest))
        });
        open.min_by_key(|(_, rest)| *rest)
    }

    /// Whether the attempt budget is used up.
    fn is_spent(&self) -> bool {
        let budget = usize::try_from(self.call.alias.retry.max_attempts).unwrap_or(1);
        self.state.failed.len() >= budget
    }

    /// Waits, unless the call ends before.
    async fn rest(&mut self, wait: Duration) -> Step {
        if Instant::now() + wait >= self.call.deadline {
            return Step::Stop;
        }
        self.pause = wait;
        self.state.waited += wait;
        tokio::select! {
            () = tokio::time::sleep(wait) => Step::NextCandidate,
            () = self.call.arrival.gone.cancelled() => {
                self.state.last = classified(Failure::ClientGone);
                Step::Stop
            }
        }
    }

    /// Why no attempt may start any more, if so.
    fn ended(&self, usual: Option<Duration>) -> Option<Failure> {
        // An answer that usually takes five times as long will not be there in time.
        let least = usual.unwrap_or_default() / 5;
        if self.call.arrival.gone.is_cancelled() {
            Some(Failure::ClientGone)
        } else if Instant::now() + least >= self.call.deadline {
            Some(Failure::DeadlineExceeded)
        } else {
            None
        }
    }
}
