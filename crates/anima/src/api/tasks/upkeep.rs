//! What nobody works at any more: orphans, what waited too long, keys that are gone, refunds.
//!
//! Every node does all of it; the store sees to it that each step is done once. Invariant: a task
//! that may have been sent and whose worker is gone ends by what the books say, and never by being
//! sent again. Source: `reliability` 1.6, rows 12, 16 and 17.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use anima_core::clock::Timestamp;
use anima_core::failure::Failure;
use anima_core::task::State;
use anima_store::config::Error;
use anima_store::ledger::money::{MoveError, Refund};
use anima_store::tasks::{Ending, Orphan, RefundDue};

use super::super::Plane;
use super::Tasks;
use crate::http::caller;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(2);
/// Rounds between two sweeps.
const SWEEP_EVERY: u32 = 15;
/// Between a settlement and the end of its task there are milliseconds while its process lives.
/// After this long it never will. In milliseconds.
const ENDING_MS: i64 = 10_000;
/// How long it is known of a task that it was there, after what it ended with went.
const KNOWN_MS: i64 = 7 * 86_400_000;

/// Keeps house for as long as the node lives.
pub async fn run(plane: Arc<Plane>) {
    let mut every = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds = 0_u32;
    loop {
        every.tick().await;
        if plane.relay.dependencies.database_down() {
            continue;
        }
        rounds = rounds.wrapping_add(1);
        if let Err(error) = round(&plane, rounds.is_multiple_of(SWEEP_EVERY)).await {
            tracing::warn!(%error, "failed to keep the tasks in order");
        }
    }
}

async fn round(plane: &Plane, sweeps: bool) -> Result<(), Error> {
    let (tasks, now) = (&plane.tasks, plane.relay.clock.now());
    let upkeep = &tasks.stores.upkeep;
    for orphan in upkeep.orphans(now).await? {
        alone("end an orphan", resolve(plane, &orphan, now).await);
    }
    let message = "The task waited for its turn until its time was over.";
    let late = tasks.ending(State::Expired, ("task_expired", message), now);
    ended(plane, State::Expired, upkeep.expire(late).await?);
    give_back_all(plane).await?;
    let open = upkeep.open().await?;
    plane.relay.metrics.tasks.open(&open);
    for (kid, _, _) in open.iter().filter(|(_, state, _)| *state == State::Accepted) {
        alone("cancel the tasks of a key", cancel_if_gone(plane, kid, now).await);
    }
    if sweeps {
        upkeep.sweep(now, now.plus_millis(-KNOWN_MS)).await?;
    }
    Ok(())
}

/// What fails for one task waits for the next round, and holds up no other.
fn alone(what: &'static str, outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, what, "failed to keep a task in order");
    }
}

/// Gives back every charge that is due, one page after the other: those at the front may have to
/// wait for long.
async fn give_back_all(plane: &Plane) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = plane.tasks.stores.upkeep.refunds(after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        for due in page {
            alone("give back a charge", give_back(plane, due).await);
        }
    }
}

fn ended(plane: &Plane, state: State, count: u64) {
    if count > 0 {
        plane.relay.metrics.tasks.ended_many(state, count);
        plane.tasks.ends.notify_one();
    }
}

/// Cancels what waits of a key that may not be used any more.
async fn cancel_if_gone(plane: &Plane, kid: &Arc<str>, now: Timestamp) -> Result<(), Error> {
    let Err(refusal) = caller::terms(&plane.relay.live, now, kid).await else { return Ok(()) };
    if !matches!(refusal.failure, Failure::KeyDisabled | Failure::KeyExpired) {
        return Ok(());
    }
    let ending = plane.tasks.cancelled(&refusal.message, now);
    let cancelled = plane.tasks.stores.upkeep.cancel_of(kid, ending).await?;
    if cancelled > 0 {
        tracing::info!(key = &**kid, cancelled, "cancelled the tasks of a key that is gone");
    }
    ended(plane, State::Cancelled, cancelled);
    Ok(())
}

/// Ends an orphan once its hold is closed: whoever could have known its answer is gone.
async fn resolve(plane: &Plane, orphan: &Orphan, now: Timestamp) -> Result<(), Error> {
    let is_closed = match &orphan.hold {
        // Without billing there is no hold, and nothing to wait for.
        None => true,
        Some((_, closed_at)) => closed_at.is_some_and(|at| at.plus_millis(ENDING_MS) <= now),
    };
    if !is_closed {
        return Ok(());
    }
    let ending = lost(&plane.tasks, orphan, now);
    if plane.tasks.stores.queue.end(orphan.id, orphan.run, ending).await? {
        let (task, request_id) = (orphan.id, orphan.call);
        tracing::warn!(%task, %request_id, "the answer of a task is lost");
        ended(plane, State::Failed, 1);
    }
    Ok(())
}

fn lost(tasks: &Tasks, orphan: &Orphan, now: Timestamp) -> Ending {
    let message = "The call may have been made, and its answer was lost with the node that made \
                   it. It was not made again, and is not charged.";
    let ending = tasks.ending(State::Failed, ("task_answer_lost", message), now);
    Ending { refund: orphan.hold.is_some(), ..ending }
}

/// Gives back what the call of a failed task was charged, once it is known.
async fn give_back(plane: &Plane, due: RefundDue) -> Result<(), Error> {
    let tasks = &plane.tasks;
    let unavailable = |error: anima_store::ledger::Error| Error::Unavailable(error.to_string());
    let Some(request) = tasks.money.request(due.call).await.map_err(unavailable)? else {
        // Its hold is open still, or there never was one.
        return Ok(());
    };
    if request.is_sold {
        if plane.relay.watch.forbids_refunds().is_some() {
            return Ok(());
        }
        let refund = Refund {
            request: due.call,
            app: due.app,
            currency: due.currency,
            amount: None,
            // Names it among those of its request, always alike: it is given back once.
            key: due.id,
            reference: format!("{} failed", super::id_text(due.id)),
            at: plane.relay.clock.now(),
        };
        match tasks.money.refund(refund).await {
            Ok(_) | Err(MoveError::TooMuch { left: 0 }) => {}
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        }
        plane.relay.metrics.tasks.refunds.inc();
    }
    tasks.stores.upkeep.refunded(due.id).await
}
