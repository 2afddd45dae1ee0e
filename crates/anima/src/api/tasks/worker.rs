//! Tasks become calls: claimed, made on the way of any other call, and ended.
//!
//! Not here: limits, prices, holds, attempts and settlements, which are the relay's for a task as
//! for any call. Invariant: nothing is sent before the task's mark says so on disk; whatever a run
//! knows at its end it says until the database has heard it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use http::Response;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use anima_core::clock::mint_id;
use anima_core::failure::Failure;
use anima_core::task::State;
use anima_store::config::Error;
use anima_store::tasks::{Claim, Claimed, Ending, TaskQueue};

use super::super::Plane;
use super::super::idempotency::Kept;
use super::super::serve::answer;
use super::parcel::Parcel;
use super::verdict::{self, Next};
use super::{Part, Tasks};
use crate::http::caller::{self, Caller};
use crate::http::reply::{self, Facts, Format, Refusal};
use crate::relay::call::{Arrival, Call, Deferral};
use crate::relay::chat::{self, Answer};
use crate::relay::steer::Steering;
use crate::relay::{Relay, admit};

/// How long a claim lasts without a sign of its node.
const LEASE_MS: i64 = 15_000;
/// How often a node gives that sign: two may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// The longest that the queue is not looked at: tasks come from other nodes, and become due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two tries to tell the database how a run ended.
const PAUSE: Duration = Duration::from_secs(1);

/// What this node runs, by key.
type Running = Arc<Mutex<BTreeMap<Arc<str>, usize>>>;

/// Runs tasks until `stop`, then gives back what was not begun.
pub async fn run(plane: Arc<Plane>, stop: CancellationToken) {
    let workers = plane.tasks.bounds.workers;
    if workers == 0 {
        return;
    }
    let running = Running::default();
    while !stop.is_cancelled() {
        let free = workers.saturating_sub(running.lock().values().sum());
        let is_well = plane.relay.live.is_open() && !plane.relay.dependencies.database_down();
        let taken = if free > 0 && is_well { take(&plane, &running, free).await } else { vec![] };
        let some = taken.len();
        for claimed in taken {
            let seat = Seat::enter(&running, &plane.tasks, &claimed.kid);
            let work = work(Arc::clone(&plane), claimed, stop.clone());
            plane.relay.tasks.spawn(Box::pin(async move {
                work.await;
                drop(seat);
            }));
        }
        if some > 0 {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = plane.tasks.work.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Keeps what this node has claimed, for as long as it lives.
pub async fn renew(plane: Arc<Plane>) {
    let mut every = tokio::time::interval_at(Instant::now() + RENEW_EVERY, RENEW_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let until = plane.relay.clock.now().plus_millis(LEASE_MS);
        if let Err(error) = plane.tasks.stores.queue.renew(plane.tasks.node, until).await {
            tracing::warn!(%error, "failed to renew what tasks this node runs");
        }
    }
}

/// Claims what there is room for. A key has at most half of the room, so that one whose limits let
/// few calls pass does not fill it with tasks that wait.
async fn take(plane: &Plane, running: &Running, free: usize) -> Vec<Claimed> {
    let half = plane.tasks.bounds.workers.div_ceil(2);
    let skip = {
        let running = running.lock();
        let full = running.iter().filter(|(_, count)| **count >= half);
        full.map(|(kid, _)| kid.to_string()).collect()
    };
    let now = plane.relay.clock.now();
    let claim = Claim {
        node: plane.tasks.node,
        now,
        lease_until: now.plus_millis(LEASE_MS),
        most: u32::try_from(free.min(half)).unwrap_or(u32::MAX),
        skip,
    };
    plane.tasks.stores.queue.claim(claim).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to claim tasks");
        vec![]
    })
}

/// A task that counts as running until this is dropped.
struct Seat {
    running: Running,
    tasks: Arc<Tasks>,
    kid: Arc<str>,
}

impl Seat {
    fn enter(running: &Running, tasks: &Arc<Tasks>, kid: &Arc<str>) -> Self {
        *running.lock().entry(Arc::clone(kid)).or_insert(0) += 1;
        let (running, tasks) = (Arc::clone(running), Arc::clone(tasks));
        Self { running, tasks, kid: Arc::clone(kid) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(count) = running.get_mut(&self.kid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(&self.kid);
            }
        }
        drop(running);
        self.tasks.work.notify_one();
    }
}

/// How a run ended.
#[derive(Debug)]
enum Ended {
    /// With an answer, or for good without.
    For(Ending),
    /// It is to be run again after so many milliseconds.
    Again(u64),
}

/// Runs one task to its end and says how it ended.
async fn work(plane: Arc<Plane>, claimed: Claimed, stop: CancellationToken) {
    let (id, run) = (claimed.id, claimed.run);
    let made = make(Arc::clone(&plane), claimed, stop);
    let ended = plane.relay.tasks.spawn(Box::pin(made)).await.unwrap_or_else(|panic| {
        tracing::error!(task = %id, %panic, "a task panicked");
        let why = ("internal_error", "Something went wrong inside the gateway.");
        let ending = plane.tasks.ending(State::Failed, why, plane.relay.clock.now());
        Ended::For(Ending { refund: true, ..ending })
    });
    let heard = match &ended {
        Ended::For(ending) => said(|| plane.tasks.stores.queue.end(id, run, ending.clone())).await,
        Ended::Again(ms) => {
            let ms = i64::try_from(*ms).unwrap_or(i64::MAX);
            let due_at = plane.relay.clock.now().plus_millis(ms);
            said(|| plane.tasks.stores.queue.give_back(id, run, due_at)).await
        }
    };
    match ended {
        Ended::For(ending) if heard => {
            plane.relay.metrics.tasks.ended(ending.state);
            plane.tasks.ends.notify_one();
        }
        Ended::Again(_) if heard => plane.relay.metrics.tasks.again.inc(),
        Ended::For(_) | Ended::Again(_) => {
            plane.relay.metrics.tasks.fenced.inc();
            tracing::warn!(task = %id, run, "what a run of a task says comes too late");
        }
    }
}

/// Tells the database something until it hears it.
async fn said<F: Future<Output = Result<bool, Error>>>(say: impl Fn() -> F) -> bool {
    loop {
        match say().await {
            Ok(heard) => return heard,
            Err(error) => tracing::warn!(%error, "failed to say how a task ended"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The run's word before and after its call.
#[derive(Debug)]
struct Mark {
    queue: Arc<dyn TaskQueue>,
    id: Uuid,
    run: i64,
    /// Nothing is begun any more: the node stops.
    stop: CancellationToken,
    begun: AtomicBool,
    /// How a stream ended.
    outcome: Mutex<Option<&'static str>>,
}

#[async_trait]
impl Deferral for Mark {
    async fn begin(&self, call: Uuid) -> bool {
        if self.stop.is_cancelled() {
            return false;
        }
        // Set first: a node that stops leaves alone what may be begun.
        self.begun.store(true, Ordering::Release);
        let begun = self.queue.begin(self.id, self.run, call).await;
        let begun = begun.unwrap_or_else(|error| {
            tracing::warn!(task = %self.id, %error, "failed to begin a task");
            false
        });
        self.begun.store(begun, Ordering::Release);
        begun
    }

    fn ended(&self, outcome: &'static str) {
        *self.outcome.lock() = Some(outcome);
    }
}

/// Makes the call of a task.
async fn make(plane: Arc<Plane>, claimed: Claimed, stop: CancellationToken) -> Ended {
    let (id, relay) = (claimed.id, Arc::clone(&plane.relay));
    let opened = plane.tasks.open((Part::Request, id), &claimed.request);
    let Some(parcel) = opened.and_then(|bytes| Parcel::from_bytes(&bytes)) else {
        let why = ("internal_error", "What was stored cannot be read.");
        return Ended::For(plane.tasks.ending(State::Failed, why, relay.clock.now()));
    };
    let format = Format::from(parcel.wanted.dialect);
    let facts = Facts { id: mint_id(relay.clock.now(), &*relay.rng), ..plane.facts(format) };
    let mark = Arc::new(Mark {
        queue: Arc::clone(&plane.tasks.stores.queue),
        id,
        run: claimed.run,
        stop: stop.clone(),
        begun: AtomicBool::new(false),
        outcome: Mutex::new(None),
    });
    let call = match prepared(&relay, (&claimed, parcel), (facts.id, &mark)).await {
        Ok(call) => call,
        Err(refusal) => return refused(&plane, (&refusal, false), id, &facts).await,
    };
    let waited_us = relay.clock.now().micros().saturating_sub(claimed.created_at.micros());
    relay.metrics.tasks.waited(waited_us);
    called(&plane, call, &mark, facts).await
}

/// A stored call, admitted as of now at the price of when it was sent.
async fn prepared(
    relay: &Relay,
    (claimed, parcel): (&Claimed, Parcel),
    (id, mark): (Uuid, &Arc<Mark>),
) -> Result<Call, Refusal> {
    let at = relay.clock.now();
    let caller = caller::again(&relay.live, at, &claimed.kid).await?;
    let terms = Arc::new(caller.terms.of_task());
    let mut request = parcel.wanted.read(&parcel.headers, parcel.body).map_err(Refusal::from)?;
    request.created_s = u64::try_from(at.seconds()).unwrap_or(0);
    let steering = Steering::read(&parcel.headers, caller.allowed(relay.limits.allowed))?;
    let gone = CancellationToken::new();
    let arrival = Arrival { id, at, instant: Instant::now(), gone };
    let tariff = match &parcel.pin {
        Some(pin) => Some(pin.tariff(&relay.live, (&caller, &request.model)).await?),
        None => None,
    };
    let caller = Caller { terms, ..caller };
    let call = admit::admit_at(caller, request, (arrival, steering), tariff)?;
    Ok(Call { deferral: Some(Arc::clone(mark) as Arc<dyn Deferral>), ..call })
}

/// Makes a call and says how it ended.
async fn called(plane: &Plane, call: Call, mark: &Arc<Mark>, mut facts: Facts) -> Ended {
    facts.config_version = call.caller.pinned.rev;
    facts.as_array = call.request.as_array;
    let inflight = plane.relay.metrics.enter();
    let gone = call.arrival.gone.clone();
    let mut running = Box::pin(chat::run(Arc::clone(&plane.relay), Arc::new(call)));
    let outcome = tokio::select! {
        outcome = &mut running => outcome,
        () = mark.stop.cancelled() => {
            if !mark.begun.load(Ordering::Acquire) {
                gone.cancel();
            }
            running.await
        }
    };
    let sent = mark.begun.load(Ordering::Acquire) && outcome.attempts > 0;
    let is_stream = matches!(outcome.answer, Ok(Answer::Stream(_)));
    if let Err(refusal) = &outcome.answer {
        let refusal = refusal.clone();
        facts.attempts = outcome.attempts;
        return refused(plane, (&refusal, sent), mark.id, &facts).await;
    }
    let response = answer(outcome, &mut facts, inflight);
    let read = whole(response, plane.tasks.bounds.answer_bytes_max).await;
    let broken = is_stream.then(|| mark.outcome.lock().unwrap_or("internal_error"));
    let now = plane.relay.clock.now();
    let failed = |code: &str, message: &str| {
        let ending = plane.tasks.ending(State::Failed, (code, message), now);
        Ended::For(Ending { refund: true, ..ending })
    };
    match (read, broken) {
        (Some(_), Some(outcome)) if outcome != "ok" => {
            failed(outcome, "The answer broke off. The task is not charged.")
        }
        (Some(kept), _) => ended(plane, State::Succeeded, (mark.id, &kept), None),
        (None, _) => {
            let message = "The answer is larger than what is kept. The task is not charged.";
            failed("task_answer_too_large", message)
        }
    }
}

/// What becomes of a task whose call was refused.
async fn refused(
    plane: &Plane,
    (refusal, sent): (&Refusal, bool),
    id: Uuid,
    facts: &Facts,
) -> Ended {
    let now = plane.relay.clock.now();
    match verdict::after(refusal, sent) {
        Next::Again(ms) => Ended::Again(ms),
        Next::Cancel => Ended::For(plane.tasks.cancelled(&refusal.message, now)),
        Next::Fail => {
            let bound = plane.tasks.bounds.answer_bytes_max;
            let error = (refusal.failure.reason().to_owned(), refusal.message.clone());
            let unbooked = refusal.failure == Failure::Unbooked;
            match whole(reply::refuse(refusal, facts), bound).await {
                Some(kept) => {
                    let ended = ended(plane, State::Failed, (id, &kept), Some(error));
                    match ended {
                        // What could not be booked may be yet, by the spool.
                        Ended::For(ending) => Ended::For(Ending { refund: unbooked, ..ending }),
                        again @ Ended::Again(_) => again,
                    }
                }
                None => Ended::For(plane.tasks.ending(State::Failed, (&error.0, &error.1), now)),
            }
        }
    }
}

/// An end with something to show.
fn ended(
    plane: &Plane,
    state: State,
    (id, kept): (Uuid, &Kept),
    error: Option<(String, String)>,
) -> Ended {
    let at = plane.relay.clock.now();
    let Some(sealed) = plane.tasks.seal((Part::Result, id), &kept.to_bytes()) else {
        let why = ("internal_error", "The answer could not be kept. The task is not charged.");
        let ending = plane.tasks.ending(State::Failed, why, at);
        return Ended::For(Ending { refund: true, ..ending });
    };
    let keep_until = at.plus_millis(plane.tasks.bounds.keep_ms);
    Ended::For(Ending { state, result: Some(sealed), error, refund: false, at, keep_until })
}

/// Reads a reply to its end. `None` when it is too large: then its call settles by itself.
async fn whole(response: Response<Body>, bytes_max: usize) -> Option<Kept> {
    let (parts, body) = response.into_parts();
    let read = Limited::new(body, bytes_max).collect().await.ok()?;
    Some(Kept::of(&parts, read.to_bytes()))
}
