//! Group commit: one transaction carries what arrived while the last one was on its
//! way to the disk.
//!
//! One [`run`] loop per writer, whatever the database: it takes what waits (settlements, then
//! entries, then holds), hands it to its [`Engine`] as one transaction, and answers everybody. A
//! batch that the database refuses is halved until the offender is alone.
//! A connection that is lost may have taken an answer with it. Everything is therefore made again
//! under the same id: settlements until they are written; entries, corrections and extensions until
//! their caller is told. Holds are released, for whoever asked for one is told at once and settles
//! nothing. Checkpoints are left to the next one.
//! Invariant: settlements and entries are never shed; holds are, rather than wait too long.
//! Source: `reliability` 1.7.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::operation::{Item, Operation, Verdict};
use super::queue::Lanes;
use super::{BatchObserver, Error};

/// Operations in one transaction. At 512 a batch already costs less than a tenth of a commit per
/// operation, and one that is refused is found in 9 halvings (`reliability` 1.7 and 1.9).
const MOST: usize = 512;

/// How often a writer waits for callers who are on their way before it goes on without them.
const PAUSES: usize = 3;

/// Pause between two tries while the database is away.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a transaction was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The database refused what is in it. Nothing was written.
    Refused(String),
    /// The database is away or busy; whether it was written is not known.
    Lost(String),
    /// Nothing may be written any more until a restart.
    Fatal(String),
}

/// Makes one transaction of a batch, on one database.
pub(super) trait Engine: Send {
    /// Writes all items, or none. One verdict per item, in order.
    fn commit(
        &mut self,
        items: &[Item],
    ) -> impl Future<Output = Result<Vec<Verdict>, Failure>> + Send;

    /// What of a batch is written in which transaction; the last part is the first. Operations on
    /// one wallet stay together and in order. All in one by default.
    fn split(&self, batch: Vec<Item>) -> Vec<Vec<Item>> {
        vec![batch]
    }

    /// Lets a moment pass, short next to a commit of this database. None by default.
    fn pause(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Writes batches until every sender is gone.
pub(super) async fn run<E: Engine>(
    mut engine: E,
    mut lanes: Lanes,
    observer: Arc<dyn BatchObserver>,
) {
    let mut expected = 0;
    while lanes.fill().await {
        gather(&mut engine, &mut lanes, expected).await;
        let batch = lanes.take(MOST);
        if batch.is_empty() {
            continue;
        }
        let answered = batch.len();
        let written = write(&mut engine, &mut lanes, batch, &*observer).await;
        lanes.take_in();
        expected = answered.saturating_add(lanes.waiting());
        match written {
            Ok(()) => {}
            Err(Failure::Lost(why)) => {
                tracing::warn!(why, "the ledger's database does not answer");
                tokio::time::sleep(PAUSE).await;
            }
            Err(Failure::Refused(why) | Failure::Fatal(why)) => {
                tracing::error!(why, "the ledger has stopped until a restart");
                return lanes.close(&Error::Unavailable(why)).await;
            }
        }
    }
}

/// Waits a little for callers who are on their way: those who were answered last and those who
/// waited meanwhile were all there a moment ago. Without it, callers that come and go together end
/// up in two groups, each in the queue while the other is being written, and each request pays for
/// the commits of both. A caller that is alone never waits, and nobody waits for one who stays
/// away.
async fn gather<E: Engine>(engine: &mut E, lanes: &mut Lanes, expected: usize) {
    let expected = expected.min(MOST);
    for _ in 0..PAUSES {
        let before = lanes.waiting();
        if before >= expected {
            return;
        }
        engine.pause().await;
        lanes.take_in();
        if lanes.waiting() == before {
            return;
        }
    }
}

/// Writes one batch, in halves where it has to be.
async fn write<E: Engine>(
    engine: &mut E,
    lanes: &mut Lanes,
    batch: Vec<Item>,
    observer: &dyn BatchObserver,
) -> Result<(), Failure> {
    let mut parts = engine.split(batch);
    while let Some(part) = parts.pop() {
        let started = Instant::now();
        match engine.commit(&part).await {
            Ok(verdicts) => {
                observe(&part, started, observer);
                lanes.recovered();
                answer(part, verdicts, &parts, lanes);
            }
            Err(Failure::Refused(why)) => {
                observer.failed();
                parts.extend(narrow(part, &why));
            }
            Err(failure @ (Failure::Lost(_) | Failure::Fatal(_))) => {
                observer.failed();
                parts.push(part);
                give_back(parts, lanes, &failure);
                return Err(failure);
            }
        }
    }
    Ok(())
}

fn observe(part: &[Item], started: Instant, observer: &dyn BatchObserver) {
    let count =
        |wanted: fn(&Operation) -> bool| part.iter().filter(|i| wanted(&i.operation)).count();
    let holds = count(|operation| matches!(operation, Operation::Hold(_)));
    let settlements = count(|operation| matches!(operation, Operation::Settle(_)));
    observer.committed(holds, settlements, started.elapsed().as_secs_f64());
}

/// What is tried next after a refusal: both halves, or an offender without the texts that others
/// wrote into it. One that is refused without them too is refused for good.
fn narrow(mut part: Vec<Item>, why: &str) -> Vec<Vec<Item>> {
    if part.len() > 1 {
        let second = part.split_off(part.len().div_ceil(2));
        return vec![second, part];
    }
    let mut again = Vec::new();
    for mut item in part {
        let (kind, id) = item.operation.name();
        if item.operation.drop_foreign_texts() {
            tracing::warn!(kind, %id, why, "refused by the database, tried without foreign texts");
            again.push(vec![item]);
        } else {
            tracing::error!(kind, %id, why, "refused by the database");
            item.refuse(Error::Refused(why.to_owned()));
        }
    }
    again
}

/// Answers everybody. A settlement that overtook its own hold, because the caller did not wait for
/// the hold's answer, goes back into the queue behind it.
///
/// A hold whose caller has gone is released: its future was dropped, so the code that would have
/// settled never learns that it holds money.
fn answer(part: Vec<Item>, verdicts: Vec<Verdict>, later: &[Vec<Item>], lanes: &mut Lanes) {
    let unknown = |verdict: &Verdict| matches!(verdict, Verdict::Settled(Err(Error::HoldUnknown)));
    let waiting = if verdicts.iter().any(unknown) {
        let rest = later.iter().flatten();
        part.iter().chain(rest).chain(lanes.holds()).filter_map(hold_id).collect()
    } else {
        HashSet::new()
    };
    for (item, verdict) in part.into_iter().zip(verdicts) {
        match &item.operation {
            // Never a release of our own: the hold that waits is another call under the same id.
            Operation::Settle(s)
                if unknown(&verdict) && waiting.contains(&s.settlement.hold) && !item.is_kept() =>
            {
                lanes.put_back(item);
            }
            Operation::Settle(_)
            | Operation::Hold(_)
            | Operation::Post(_)
            | Operation::Extend(_)
            | Operation::TrueUp(_)
            | Operation::Checkpoint(_) => {
                if let Some(hold) = item.answer(verdict) {
                    lanes.release(&hold);
                }
            }
        }
    }
}

fn hold_id(item: &Item) -> Option<Uuid> {
    match &item.operation {
        Operation::Hold(hold) => Some(hold.id),
        Operation::Settle(_)
        | Operation::Post(_)
        | Operation::Extend(_)
        | Operation::TrueUp(_)
        | Operation::Checkpoint(_) => None,
    }
}

/// After a failure: holds are told at once, everything else waits for the database.
fn give_back(parts: Vec<Vec<Item>>, lanes: &mut Lanes, failure: &Failure) {
    let (why, is_over) = match failure {
        Failure::Lost(why) => (why, false),
        Failure::Refused(why) | Failure::Fatal(why) => (why, true),
    };
    let error = Error::Unavailable(why.clone());
    let mut told = Vec::new();
    // Parts are a stack: the last one is the first in line.
    for item in parts.into_iter().rev().flatten().collect::<Vec<_>>().into_iter().rev() {
        match &item.operation {
            Operation::Settle(_)
            | Operation::Post(_)
            | Operation::Extend(_)
            | Operation::TrueUp(_)
                if !is_over =>
            {
                lanes.put_back(item);
            }
            Operation::Hold(hold) if !is_over => {
                // It may have been written. Its caller will not settle what it was refused.
                lanes.release(hold);
                told.push(item);
            }
            Operation::Settle(_)
            | Operation::Post(_)
            | Operation::Hold(_)
            | Operation::Extend(_)
            | Operation::TrueUp(_)
            | Operation::Checkpoint(_) => told.push(item),
        }
    }
    if is_over {
        lanes.stopped();
    } else {
        lanes.outage(&error);
    }
    for item in told {
        item.refuse(error.clone());
    }
}
