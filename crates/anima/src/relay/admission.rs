//! May this call run now? Everything that its limits count is taken, or nothing is.
//!
//! What was taken is a [`Ticket`] that goes with the call: settled with what was really used, or
//! given back when the call ends without. Cost counters that know nothing are seeded from the
//! ledger first. Invariant: a refused call leaves no trace, and a slot is free again when its call
//! is over, whoever left and whatever failed. Source: SPEC 6, `reliability` 2.

use std::sync::Arc;
use std::time::Duration;

use anima_core::clock::{Clock, Timestamp};
use anima_core::config::{LimitKind, QueueMode};
use anima_core::failure::Failure;
use anima_core::quota::rule::Take;
use anima_core::quota::{Ask, Bound, Check, Pass, Standing, Tag, Verdict};
use anima_core::usage::{Meter, Usage};
use anima_store::quota::line::InTurn;
use anima_store::quota::{QuotaStore, Spend, Unavailable};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::estimate::Learned;
use self::repair::Purses;
use self::seeding::Seeding;
use self::ticket::Registry;
use self::waiting::{Coming, Rooms};
use super::admit::meters;
use super::call::Call;
use super::{Limits, Relay, hold};
use crate::http::rate_limits::RateLimits;
use crate::http::reply::Refusal;
use crate::live::Live;
use crate::metrics::Metrics;

mod drain; // when it is worth coming back
mod estimate; // what a call will take, before anybody knows
mod more; // what budgets hold for a call that runs
mod refusal; // which limit stands in the way, in words
pub mod repair; // budgets as the ledger knows them
pub mod report; // what operators see
mod seeding; // budgets of which nobody knows what was spent
mod ticket; // what was taken, until it is settled or given back
mod waiting; // calls that wait for their turn

pub(super) use more::Held;
pub(super) use seeding::Asking;
pub use ticket::Ticket;

/// How long what a call took is kept without a sign of its node (`reliability` 2.2).
const LEASE: Duration = Duration::from_secs(30);
/// Between two looks at whether shared counters that were away are back.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks between two of those signs: one in 10 s.
const RENEW_EVERY: u32 = 10;
/// Looks between two sweeps of the counters.
const SWEEP_EVERY: u32 = 60;
/// For how long counters that know nothing are seeded for one call. Each try but the first needs a
/// loss of the counters in between.
const SEEDS_FOR: Duration = Duration::from_secs(10);
/// How often a call is lowered to what its budget has left while others take from it.
const CLAMPS: usize = 3;

/// What admits calls. See the module.
#[derive(Debug)]
pub struct Admission {
    store: Arc<dyn QuotaStore>,
    spend: Arc<dyn Spend>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    learned: Learned,
    registry: Arc<Registry>,
    purses: Purses,
    seeding: Seeding,
    rooms: Arc<Rooms>,
    live: Arc<Live>,
    /// Shutdown waits for what is closed here.
    tasks: TaskTracker,
}

/// Whether a call goes before those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It does: its turn has come.
    Mine,
    /// It does not wait itself, and takes nothing that they wait for.
    AtOnce,
    /// It joins them.
    Behind,
}

/// What admission said.
#[derive(Debug)]
pub(super) struct Entered {
    /// The call has its ticket, or why not.
    pub(super) admitted: Result<(), Refusal>,
    /// Where the limits stand.
    pub(super) limits: Option<RateLimits>,
    /// How long the call waited.
    pub(super) waited: Duration,
}

impl Entered {
    const fn at_once(admitted: Result<(), Refusal>, limits: Option<RateLimits>) -> Self {
        Self { admitted, limits, waited: Duration::ZERO }
    }
}

impl Admission {
    /// Admits with these counters, seeded from this ledger.
    pub fn new(
        (store, spend): (Arc<dyn QuotaStore>, Arc<dyn Spend>),
        (live, metrics): (Arc<Live>, Arc<Metrics>),
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        let (registry, rooms) = (Arc::default(), Arc::default());
        let (learned, purses, seeding) = Default::default();
        Self {
            store,
            spend,
            metrics,
            clock,
            learned,
            registry,
            purses,
            seeding,
            rooms,
            live,
            tasks,
        }
    }

    /// Asks for everything, seeding what must be, for as long as the call has. Gives also when it
    /// asked.
    async fn ask(
        &self,
        call: &Call,
        bounds: &[Bound],
        (turn, within): (Turn, Instant),
    ) -> Result<(InTurn, Asking), Refusal> {
        let lease_us = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
        let until = within.min(Instant::now() + SEEDS_FOR);
        loop {
            let asked = Asking::now(&*self.clock);
            let ask = Ask { id: call.arrival.id, bounds, now: self.clock.now(), lease_us };
            let said = match turn {
                Turn::Mine => self.store.admit(ask).await.map(InTurn::Judged),
                Turn::AtOnce => self.store.admit_at_once(ask).await.map(InTurn::Judged),
                Turn::Behind => self.store.admit_in_turn(ask).await,
            };
            let said = said.map_err(|error| unreachable_now(&error))?;
            let InTurn::Judged(Verdict::Unseeded(which)) = said else { return Ok((said, asked)) };
            let unseeded = which.iter().filter_map(|n| bounds.get(*n));
            seeding::seed_all(self, unseeded, until).await?;
        }
    }

    /// Corrects what a call took by what it really used: `None` when it was not served.
    pub(super) fn settle(&self, call: &Call, usage: Option<&Usage>, sold: i64) {
        let Some(ticket) = &call.ticket else { return };
        let tokens = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let take = Take {
            requests: 1,
            input_tokens: usage.map_or(0, |usage| tokens(usage.input_tokens())),
            output_tokens: usage.map_or(0, |usage| tokens(usage.output_tokens())),
            cost: sold,
        };
        let lasted = ticket.lasted();
        if ticket.close(take) {
            let output = usage.map(Usage::output_tokens);
            self.learned.note((&call.caller.kid, &call.alias.code), output, lasted);
        }
    }

    /// Counts what shadow limits would have refused and what comes near its end.
    fn note(&self, call: &Call, bounds: &[Bound], standings: &[Standing]) {
        for (bound, standing) in bounds.iter().zip(standings) {
            let rule = bound.counter.rule;
            if rule.shadow && standing.pass != Pass::Yes {
                self.metrics.quotas.refused(rule.kind, bound.counter.scope, "shadow");
            }
        }
        self.warn(call, bounds, standings);
    }

    /// Says which budgets come near their end.
    fn warn(&self, call: &Call, bounds: &[Bound], standings: &[Standing]) {
        for (bound, standing) in bounds.iter().zip(standings) {
            if standing.warn {
                self.metrics.quotas.warned(bound.counter.scope);
                tracing::warn!(
                    app = &*call.caller.app,
                    key = &*call.caller.kid,
                    scope = bound.counter.scope.word(),
                    code = &*bound.counter.code,
                    limit = %bound.counter.rule,
                    "four fifths of a budget are used up"
                );
            }
        }
    }
}

fn unreachable_now(error: &Unavailable) -> Refusal {
    tracing::error!(%error, "failed to ask the counters of limits");
    let message = "Limits cannot be checked at the moment. Try again shortly.";
    Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000)
}

/// Admits a call, or says which limit stands in the way and for how long. In queue mode WAIT the
/// call waits for its turn first.
pub(super) async fn enter(relay: &Relay, call: &mut Arc<Call>) -> Entered {
    let terms = Arc::clone(&call.caller.terms);
    if terms.is_free() {
        return Entered::at_once(Ok(()), None);
    }
    let admission = &relay.admission;
    limit_whole_answer(relay, call);
    let take = match estimate::take(relay, &admission.learned, call).await {
        Ok(take) => take,
        Err(refusal) => return Entered::at_once(Err(refusal), None),
    };
    let turn = if terms.mode == QueueMode::Wait { Turn::Behind } else { Turn::AtOnce };
    let Refused { refusal, told, why } = match attempt(relay, call, take, turn).await {
        Ok(told) => return Entered::at_once(Ok(()), told),
        Err(refused) => *refused,
    };
    let (tag, take, expected) = match why {
        Why::Behind(tag, take) => (tag, take, behind(admission, call, take)),
        Why::Bound(bound, standing, take)
            if turn == Turn::Behind && waiting::is_worth_it(&bound, &standing) =>
        {
            let expected = expected(admission, call, &bound, standing);
            (bound.tag, take, expected)
        }
        Why::Bound(..) | Why::Unknown => return Entered::at_once(Err(refusal), told),
    };
    let coming = Coming { take, tag, refusal, expected };
    let entered = queue(admission, call, coming).await;
    let limits = match entered.limits.or(told) {
        // It stood behind others, so nobody has said.
        None => report::told(admission, call, take).await,
        told => told,
    };
    Entered { limits, ..entered }
}

/// Gives a whole answer of unknown length under a budget a limit, so that what it may come to is
/// reserved in full: nobody can stop it on the way, as streams are.
fn limit_whole_answer(relay: &Relay, call: &mut Arc<Call>) {
    let generates = || meters(call.request.endpoint).contains(&Meter::OutputTokens);
    if !call.request.stream
        && call.request.output_tokens_max.is_none()
        && call.caller.terms.has_budget()
        && generates()
    {
        Arc::make_mut(call).request.limit_output(relay.limits.budget_output_tokens);
    }
}

/// What is in a call's way, and what it asked for.
enum Why {
    Bound(Bound, Standing, Take),
    /// Others wait under this tag.
    Behind(Tag, Take),
    Unknown,
}

/// Why a call was refused, and where the limits stand.
struct Refused {
    refusal: Refusal,
    told: Option<RateLimits>,
    why: Why,
}

impl Refused {
    fn unknown(refusal: Refusal) -> Box<Self> {
        Box::new(Self { refusal, told: None, why: Why::Unknown })
    }
}

/// Asks once, or a few times where a budget lowers the answer.
async fn attempt(
    relay: &Relay,
    call: &mut Arc<Call>,
    mut take: Take,
    turn: Turn,
) -> Result<Option<RateLimits>, Box<Refused>> {
    let admission = &relay.admission;
    for left in (0..=CLAMPS).rev() {
        let now = admission.clock.now();
        let bounds = call.caller.terms.bounds(now, call.caller.currency, take);
        let asked = admission.ask(call, &bounds, (turn, call.deadline)).await;
        let (said, asked) = asked.map_err(Refused::unknown)?;
        match said {
            InTurn::Behind(tag) => {
                let refusal = behind_others(admission, call);
                return Err(Box::new(Refused { refusal, told: None, why: Why::Behind(tag, take) }));
            }
            InTurn::Judged(Verdict::Admitted(standings)) => {
                admission.note(call, &bounds, &standings);
                let told = RateLimits::of(&bounds, &standings, now);
                let ticket = Ticket::new(admission, call, (bounds, asked));
                Arc::make_mut(call).ticket = Some(Arc::new(ticket));
                return Ok(Some(told));
            }
            InTurn::Judged(Verdict::Refused(n, standings)) => {
                let least = bounds.get(n).zip(standings.get(n));
                if left > 0
                    && let Some(lowered) = least.and_then(|l| lowered(call, relay, take, l))
                {
                    take = lowered;
                    continue;
                }
                let told = RateLimits::of(&bounds, &standings, now);
                let refusal = refuse(admission, call, least);
                let why = least.map_or(Why::Unknown, |(b, s)| Why::Bound(b.clone(), *s, take));
                return Err(Box::new(Refused { refusal, told: Some(told), why }));
            }
            InTurn::Judged(Verdict::Unseeded(_)) => break,
        }
    }
    Err(Refused::unknown(unreachable_now(&Unavailable("no verdict".to_owned()))))
}

/// Lets a call wait for its turn.
async fn queue(admission: &Arc<Admission>, call: &mut Arc<Call>, coming: Coming) -> Entered {
    let since = Instant::now();
    admission.metrics.quotas.waiting.inc();
    call.note_waiting(true);
    let answer = waiting::wait(admission, call, coming).await;
    call.note_waiting(false);
    admission.metrics.quotas.waiting.dec();
    let waited = since.elapsed();
    let outcome = answer.as_ref().map_or_else(|refusal| refusal.failure.reason(), |_| "served");
    admission.metrics.quotas.waited(outcome, waited);
    match answer {
        Ok((ticket, told)) => {
            Arc::make_mut(call).ticket = Some(Arc::new(ticket));
            Entered { admitted: Ok(()), limits: Some(told), waited }
        }
        Err(refusal) => Entered { admitted: Err(refusal), limits: None, waited },
    }
}

/// What a call that joins those who wait would be told if it did not.
fn behind_others(admission: &Admission, call: &Call) -> Refusal {
    let message = "Calls that came earlier wait for a limit of this API key. Try again later.";
    let free_ms = admission.learned.slot_free_ms(&call.caller.kid, 1);
    Refusal::new(Failure::ConcurrencyLimited, message).retry_after(free_ms)
}

/// How long the first in line waits for a bound, and each behind it longer.
fn expected(
    admission: &Admission,
    call: &Call,
    bound: &Bound,
    standing: Standing,
) -> Option<(Duration, Duration)> {
    match (bound.check, standing.pass) {
        (Check::Rate(rate), Pass::After(us)) => {
            let micros = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
            Some((micros(us), micros(rate.cost_us(bound.units))))
        }
        (Check::Slots { limit }, _) => {
            let service = admission.learned.service(&call.caller.kid)?;
            let each = service / u32::try_from(limit.max(1)).unwrap_or(u32::MAX);
            Some((each, each))
        }
        (Check::Rate(_) | Check::Purse { .. }, _) => None,
    }
}

/// How long each call of a key that waits behind others of it does so, where its slots are the
/// least that it needs.
fn behind(admission: &Admission, call: &Call, take: Take) -> Option<(Duration, Duration)> {
    let service = admission.learned.service(&call.caller.kid)?;
    let bounds = call.caller.terms.bounds(admission.clock.now(), call.caller.currency, take);
    let slots = bounds.iter().filter(|bound| !bound.counter.rule.shadow);
    let least = slots.filter_map(|bound| match bound.check {
        Check::Slots { limit } => u32::try_from(limit.max(1)).ok(),
        Check::Rate(_) | Check::Purse { .. } => None,
    });
    least.min().map(|slots| (Duration::ZERO, service / slots))
}

fn refuse(admission: &Admission, call: &Call, least: Option<(&Bound, &Standing)>) -> Refusal {
    let Some((bound, standing)) = least else {
        return unreachable_now(&Unavailable("no limit was named".to_owned()));
    };
    admission.metrics.quotas.refused(bound.counter.rule.kind, bound.counter.scope, "refused");
    let free_ms = admission.learned.slot_free_ms(&call.caller.kid, standing.limit);
    refusal::of(bound, standing, (call.caller.currency, free_ms))
}

/// Lowers a call's output limit to what its budget has left, as holds do with wallets. `None` when
/// it is another limit, or too little is left.
fn lowered(
    call: &mut Arc<Call>,
    relay: &Relay,
    take: Take,
    (bound, standing): (&Bound, &Standing),
) -> Option<Take> {
    if bound.counter.rule.kind != LimitKind::Cost {
        return None;
    }
    let limits: &Limits = &relay.limits;
    let least = limits.min_output_tokens.saturating_sub(1);
    let range = (least, hold::wanted_output(call, limits));
    let tokens = hold::longest(call, standing.remaining, range)?;
    let cost = hold::amount(call, tokens).ok()?;
    Arc::make_mut(call).request.limit_output(tokens);
    Some(Take { cost, ..take })
}

/// Keeps what running calls took, and calls those whose turn has come, for as long as the node
/// lives.
pub async fn run(relay: Arc<Relay>) {
    tokio::join!(keep(&relay), waiting::hear(&relay.admission));
}

async fn keep(relay: &Relay) {
    let admission = &relay.admission;
    let lease_us = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = 0_u32;
    loop {
        every.tick().await;
        let now: Timestamp = admission.clock.now();
        admission.store.reconcile(now, lease_us).await;
        if looks.is_multiple_of(RENEW_EVERY) {
            if let Ok(nodes) = admission.spend.nodes().await {
                admission.store.shared_by(nodes);
            }
            let mut open = admission.registry.open();
            open.extend(relay.circuits.open_seats());
            if let Err(error) = admission.store.renew(&open, now, lease_us).await {
                tracing::warn!(%error, "failed to renew what running calls took");
            }
        }
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(SWEEP_EVERY) {
            admission.store.sweep(now).await;
            admission.learned.sweep();
        }
    }
}
