//! Idempotency records on SQLite.
//!
//! The contract is in `idempotency`. Reads go beside the writer; what is written waits in a queue,
//! and one transaction takes all that waits, so that many calls share one sync of the disk.
//! Invariant: a claim is judged again in the transaction that makes it.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::judge::{Record, judge};
use super::{Claim, Ending, IdempotencyStore, UsedKey, Verdict, sql};
use crate::config::Error;
use crate::sqlite::connections::Connections;

/// Operations in one transaction. More would keep the ledger's writer waiting for longer than one
/// of its own batches does.
const MOST: usize = 64;

/// The records in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteIdempotency {
    connections: Arc<Connections>,
    queue: mpsc::UnboundedSender<Item>,
}

/// What is to be written.
#[derive(Debug)]
enum Operation {
    Claim(Claim),
    End(Claim, Ending),
    Retire(UsedKey, Uuid),
    Abandon(Claim),
}

/// What came of it.
#[derive(Debug)]
enum Done {
    Claimed(Verdict),
    Ended(bool),
}

#[derive(Debug)]
struct Item {
    operation: Operation,
    waiter: oneshot::Sender<Result<Done, Error>>,
}

impl SqliteIdempotency {
    /// Starts the writer, which ends with the last user of the store. Needs a runtime.
    pub(crate) fn new(connections: Arc<Connections>) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write_all(Arc::clone(&connections), waiting));
        Self { connections, queue }
    }

    async fn write(&self, operation: Operation) -> Result<Done, Error> {
        let stopped = || Error::Unavailable("the writer has stopped".to_owned());
        let (waiter, done) = oneshot::channel();
        self.queue.send(Item { operation, waiter }).map_err(|_unsent| stopped())?;
        done.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Writes what waits until nobody can ask any more.
async fn write_all(connections: Arc<Connections>, mut waiting: mpsc::UnboundedReceiver<Item>) {
    let mut items = Vec::new();
    while waiting.recv_many(&mut items, MOST).await > 0 {
        let (operations, waiters): (Vec<_>, Vec<_>) =
            items.drain(..).map(|item| (item.operation, item.waiter)).unzip();
        let written = connections.write(move |tx| {
            operations.into_iter().map(|operation| apply(tx, operation)).collect::<Result<_, _>>()
        });
        let answers: Vec<Result<Done, Error>> = match written.await {
            Ok(done) => Vec::into_iter(done).map(Ok).collect(),
            Err(error) => waiters.iter().map(|_| Err(error.clone())).collect(),
        };
        for (waiter, answer) in waiters.into_iter().zip(answers) {
            // A caller that has gone does not want to know.
            drop(waiter.send(answer));
        }
    }
}

#[async_trait]
impl IdempotencyStore for SqliteIdempotency {
    async fn claim(&self, claim: &Claim) -> Result<Verdict, Error> {
        let asked = claim.clone();
        let known = self.connections.read(move |tx| {
            let found = record(tx, &asked)?;
            Ok(found.and_then(|record| judge(&record, &asked)))
        });
        if let Some(verdict) = known.await? {
            return Ok(verdict);
        }
        match self.write(Operation::Claim(claim.clone())).await? {
            Done::Claimed(verdict) => Ok(verdict),
            Done::Ended(_) => Err(Error::Unavailable("another answer was given".to_owned())),
        }
    }

    async fn end(&self, claim: &Claim, ending: Ending) -> Result<bool, Error> {
        let done = self.write(Operation::End(claim.clone(), ending)).await?;
        Ok(matches!(done, Done::Ended(true)))
    }

    async fn retire(&self, key: &UsedKey, call: Uuid) -> Result<bool, Error> {
        let done = self.write(Operation::Retire(key.clone(), call)).await?;
        Ok(matches!(done, Done::Ended(true)))
    }

    async fn abandon(&self, claim: &Claim) -> Result<(), Error> {
        self.write(Operation::Abandon(claim.clone())).await.map(drop)
    }

    async fn sweep(&self, now: Timestamp, most: u32) -> Result<u64, Error> {
        let swept = self.connections.write(move |tx| {
            let mut statement = tx.prepare_cached(sql::SWEEP)?;
            Ok(statement.execute(params![now.micros(), most])?)
        });
        Ok(u64::try_from(swept.await?).unwrap_or(u64::MAX))
    }
}

fn apply(tx: &Transaction<'_>, operation: Operation) -> Result<Done, Error> {
    match operation {
        Operation::Claim(claim) => make(tx, &claim).map(Done::Claimed),
        Operation::End(claim, ending) => {
            let (state, answer) = sql::ended(ending);
            let call = claim.call.as_bytes();
            let values = params![state, answer, &*claim.kid, claim.key_hash, call];
            Ok(Done::Ended(tx.prepare_cached(sql::END)?.execute(values)? > 0))
        }
        Operation::Retire(key, call) => {
            let values = params![sql::NO_ANSWER, &*key.kid, key.hash, call.as_bytes()];
            let is_retired = tx.prepare_cached(sql::RETIRE)?.execute(values)? > 0;
            let values = params![&*key.kid, key.hash, call.as_bytes()];
            let mut ended = tx.prepare_cached(sql::HAS_ENDED)?;
            Ok(Done::Ended(is_retired || ended.exists(values)?))
        }
        Operation::Abandon(claim) => {
            let values = params![&*claim.kid, claim.key_hash, claim.call.as_bytes()];
            Ok(Done::Ended(tx.prepare_cached(sql::ABANDON)?.execute(values)? > 0))
        }
    }
}

/// Makes a claim, or says why not. Nobody else writes meanwhile.
fn make(tx: &Transaction<'_>, claim: &Claim) -> Result<Verdict, Error> {
    let (call, node) = (claim.call.as_bytes(), claim.node.as_bytes());
    let (kid, key, content) = (&*claim.kid, claim.key_hash, claim.content_hash);
    let at = claim.at.micros();
    let (stale_at, expires_at) = (claim.stale_at.micros(), claim.expires_at.micros());
    let Some(found) = record(tx, claim)? else {
        let values = params![kid, key, content, call, node, at, stale_at, expires_at];
        tx.prepare_cached(sql::CLAIM)?.execute(values)?;
        return Ok(Verdict::Fresh);
    };
    if let Some(verdict) = judge(&found, claim) {
        return Ok(verdict);
    }
    let (before, state) = (found.call.as_bytes(), &found.state);
    let values = params![content, call, node, at, stale_at, expires_at, kid, key, before, state];
    tx.prepare_cached(sql::TAKE_OVER)?.execute(values)?;
    Ok(Verdict::Fresh)
}

fn record(tx: &Transaction<'_>, claim: &Claim) -> Result<Option<Record>, Error> {
    let mut statement = tx.prepare_cached(sql::RECORD)?;
    let columns = |row: &Row<'_>| {
        Ok(Record {
            content_hash: row.get(0)?,
            call: Uuid::from_bytes(row.get(1)?),
            state: row.get(2)?,
            answer: row.get(3)?,
            stale_at: row.get(4)?,
            expires_at: row.get(5)?,
            hold: row.get(6)?,
            closed_at: row.get(7)?,
            is_orphaned: row.get(8)?,
        })
    };
    Ok(statement.query_row(params![&*claim.kid, claim.key_hash], columns).optional()?)
}
