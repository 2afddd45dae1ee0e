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
//! A panic is met like a lost connection: nobody knows how far it came, and everything is made
//! again under the same id. One operation that panics alone is given back to its caller, and after
//! [`TRIES`] times it is refused for good, for it would hold up all others.
//! Invariant: settlements and entries are never shed; holds are, rather than wait too long.
//! Source: `reliability` 1.7.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::operation::{Item, Operation, Verdict};
use super::queue::Lanes;
use super::{BatchObserver, Error};

pub(super) mod caught; // panics as results

use caught::caught;

/// Operations in one transaction. At 512 a batch already costs less than a tenth of a commit per
/// operation, and one that is refused is found in 9 halvings (`reliability` 1.7 and 1.9).
const MOST: usize = 512;

/// How often a writer waits for callers who are on their way before it goes on without them.
const PAUSES: usize = 3;

/// Pause between two tries while the database is away.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a settlement that panics alone is tried.
const TRIES: u32 = 3;

/// Settlements that panicked alone and are remembered, at most.
const REMEMBERED: usize = 1_024;

/// Panics outside of any transaction, with nothing written in between, before a writer gives up: it
/// has a defect that no repetition mends.
const PANICS: u32 = 10;

/// Why a transaction was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The database refused what is in it. Nothing was written.
    Refused(String),
    /// The database is away or busy; whether it was written is not known.
    Lost(String),
    /// Nothing may be written any more until a restart.
    Fatal(String),
    /// The program panicked in it; whether it was written is not known.
    Panicked(String),
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

    /// Forgets what a transaction that panicked may have left half done. Nothing by default.
    fn reset(&mut self) {}

    /// Lets a moment pass, short next to a commit of this database. None by default.
    fn pause(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What a writer has in hand. It outlives a panic.
#[derive(Debug, Default)]
struct Desk {
    /// What of the batch is not answered. A stack: the last part is the first in line.
    parts: Vec<Vec<Item>>,
    /// How often settlements panicked alone, by their holds.
    panicked: HashMap<Uuid, u32>,
    /// Panics of the writer itself since something was written.
    panics: u32,
}

/// Writes batches until every sender is gone.
pub(super) async fn run<E: Engine>(
    mut engine: E,
    mut lanes: Lanes,
    observer: Arc<dyn BatchObserver>,
) {
    let mut desk = Desk::default();
    loop {
        let why = match caught(serve(&mut engine, &mut lanes, &mut desk, &*observer)).await {
            Ok(None) => return,
            Ok(Some(why)) => {
                tracing::error!(why, "the ledger has stopped until a restart");
                return lanes.close(&Error::Unavailable(why)).await;
            }
            Err(why) => why,
        };
        desk.panics = desk.panics.saturating_add(1);
        tracing::error!(why, count = desk.panics, "the ledger's writer panicked");
        observer.panicked();
        engine.reset();
        let parts = std::mem::take(&mut desk.parts);
        if desk.panics >= PANICS {
            give_back(parts, &mut lanes, &Failure::Fatal(unknown(&why)));
            return lanes.close(&Error::Unavailable(unknown(&why))).await;
        }
        give_back(parts, &mut lanes, &Failure::Lost(unknown(&why)));
        tokio::time::sleep(PAUSE).await;
    }
}

/// What callers are told of a panic.
fn unknown(why: &str) -> String {
    format!("the ledger's writer panicked, and whether it was written is not known: {why}")
}

/// Writes batches until every sender is gone, or until nothing may be written any more, and then
/// says why.
async fn serve<E: Engine>(
    engine: &mut E,
    lanes: &mut Lanes,
    desk: &mut Desk,
    observer: &dyn BatchObserver,
) -> Option<String> {
    let mut expected = 0;
    while lanes.fill().await {
        gather(engine, lanes, expected).await;
        let batch = lanes.take(MOST);
        if batch.is_empty() {
            continue;
        }
        let answered = batch.len();
        desk.parts = engine.split(batch);
        let written = write(engine, lanes, desk, observer).await;
        lanes.take_in();
        expected = answered.saturating_add(lanes.waiting());
        match written {
            Ok(()) => {}
            Err(Failure::Lost(why) | Failure::Panicked(why)) => {
                tracing::warn!(why, "the ledger's database does not answer");
                tokio::time::sleep(PAUSE).await;
            }
            Err(Failure::Refused(why) | Failure::Fatal(why)) => return Some(why),
        }
    }
    None
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

/// Writes what is on the desk, in halves where it has to be.
async fn write<E: Engine>(
    engine: &mut E,
    lanes: &mut Lanes,
    desk: &mut Desk,
    observer: &dyn BatchObserver,
) -> Result<(), Failure> {
    while let Some(part) = desk.parts.last() {
        let started = Instant::now();
        // It stays on the desk until its outcome is known.
        let outcome = caught(engine.commit(part)).await;
        match outcome.unwrap_or_else(|why| Err(Failure::Panicked(why))) {
            Ok(verdicts) => {
                observe(part, started, observer);
                lanes.recovered();
                desk.panics = 0;
                let part = desk.parts.pop().unwrap_or_default();
                answer(part, verdicts, &desk.parts, lanes);
            }
            Err(Failure::Refused(why)) => {
                observer.failed();
                let part = desk.parts.pop().unwrap_or_default();
                desk.parts.extend(narrow(part, &why));
            }
            Err(Failure::Panicked(why)) => {
                observer.failed();
                observer.panicked();
                engine.reset();
                desk.after_panic(&why, lanes);
            }
            Err(failure @ (Failure::Lost(_) | Failure::Fatal(_))) => {
                observer.failed();
                give_back(std::mem::take(&mut desk.parts), lanes, &failure);
                return Err(failure);
            }
        }
    }
    Ok(())
}

impl Desk {
    /// What becomes of the part whose transaction panicked: both halves are tried, and one
    /// operation alone goes back to who waits for it.
    fn after_panic(&mut self, why: &str, lanes: &mut Lanes) {
        let part = self.parts.pop().unwrap_or_default();
        tracing::error!(why, operations = part.len(), "a transaction of the ledger panicked");
        if part.len() > 1 {
            self.parts.extend(halves(part));
            return;
        }
        for item in part {
            let (kind, id) = item.operation.name();
            let is_over = matches!(item.operation, Operation::Settle(_)) && self.is_over(id);
            match &item.operation {
                // Nobody would try it again.
                Operation::Settle(_) if item.is_kept() && !is_over => {
                    lanes.put_back(item);
                    continue;
                }
                Operation::Settle(_) if is_over => {
                    tracing::error!(kind, %id, why, "refused: it panicked each time");
                    item.refuse(Error::Refused(unknown(why)));
                    continue;
                }
                // It may have been written. Its caller will not settle what it was refused.
                Operation::Hold(hold) => lanes.release(hold),
                Operation::Settle(_)
                | Operation::Post(_)
                | Operation::Extend(_)
                | Operation::TrueUp(_)
                | Operation::Checkpoint(_) => {}
            }
            item.refuse(Error::Unavailable(unknown(why)));
        }
    }

    /// Counts a panic of this settlement, and says whether it was the last that is taken.
    fn is_over(&mut self, id: Uuid) -> bool {
        if self.panicked.len() >= REMEMBERED {
            self.panicked.clear();
        }
        let count = self.panicked.entry(id).or_default();
        *count = count.saturating_add(1);
        *count >= TRIES
    }
}

fn halves(mut part: Vec<Item>) -> [Vec<Item>; 2] {
    let second = part.split_off(part.len().div_ceil(2));
    [second, part]
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
fn narrow(part: Vec<Item>, why: &str) -> Vec<Vec<Item>> {
    if part.len() > 1 {
        return halves(part).into();
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
        Failure::Lost(why) | Failure::Panicked(why) => (why, false),
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
