//! The ledger on PostgreSQL: the writers of this process, and readers beside them.
//!
//! Other processes write too, so a writer judges what it has locked, or what others cannot make
//! wrong (`quick`). Each call goes to the writer that its hold's id hashes to, so that both writers
//! work for a wallet that takes all traffic. Never `NOTIFY` here: it takes a lock of the whole
//! database at commit.
//! Invariant: balances that are not gated are only ever appended to.
//! Source: `reliability` 1.7, 1.8.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool};
use tokio::task::JoinHandle;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Account, Balance, Entry, Hold, Settlement};
use anima_core::money::Currency;

use super::audit::{Auditor as _, Scope};
use super::epoch::Epoch;
use super::money::Books;
use super::queue::{Queue, queue};
use super::reports::{self, BALANCE, LINES, Line, POSTINGS, PostingRow};
use super::{Error, Finding, Health, LedgerStore, Posted, Posting, Settled, TrialLine, batch};
use crate::database::{OpenError, Opener};
use crate::postgres::{self, Chain, Link};

mod booked;
mod control;
mod corrections;
mod credit;
mod engine;
mod failure;
mod intern;
mod lookup;
pub(super) mod quick;
mod recovery;
mod rows;

/// Writers, and so connections that write. Two keep the server busy while one waits for its disk;
/// more only make batches smaller (`reliability` 1.7: 6,018 requests/s with one, 8,761 with two).
const WRITERS: usize = 2;

/// Between two folds of house balances.
const FOLD: Duration = Duration::from_secs(1);

/// The ledger in a PostgreSQL database.
#[derive(Debug)]
pub(crate) struct PostgresLedger {
    writers: Vec<Queue>,
    readers: Pool,
    epoch: Arc<Epoch>,
    folder: JoinHandle<()>,
}

/// What the writers of one process share.
#[derive(Debug)]
struct Shared {
    /// Connections of the writers alone: a busy console must not make settlements wait.
    pool: Pool,
    epoch: Arc<Epoch>,
    /// Something was written since the last fold.
    unfolded: AtomicBool,
}

/// Opens the ledger in a database whose schema is up to date, and starts its writers.
///
/// # Errors
/// [`OpenError::Unreachable`] when the URL is wrong. It connects when it is first used.
pub(crate) fn open(
    url: &str,
    readers: Pool,
    opener: &Opener,
    link: &Link,
) -> Result<PostgresLedger, OpenError> {
    let epoch = Arc::new(Epoch::new(opener.node));
    let shared = Arc::new(Shared {
        pool: postgres::writer_pool(url, WRITERS, link)?,
        epoch: Arc::clone(&epoch),
        unfolded: AtomicBool::new(false),
    });
    let writers = (0..WRITERS).map(|_| {
        let (writer, lanes) = queue();
        let engine = engine::Engine::new(Arc::clone(&shared));
        tokio::spawn(batch::run(engine, lanes, Arc::clone(&opener.observer)));
        writer
    });
    let writers = writers.collect();
    let folder = tokio::spawn(fold(shared, readers.clone()));
    Ok(PostgresLedger { writers, readers, epoch, folder })
}

impl Drop for PostgresLedger {
    fn drop(&mut self) {
        // The writers end by themselves, when what is queued is written.
        self.folder.abort();
    }
}

/// Moves house balances together, once a second while there is anything to move.
async fn fold(shared: Arc<Shared>, pool: Pool) {
    const FOLD_BALANCES: &str = "SELECT fold_balances()";
    let mut ticks = tokio::time::interval(FOLD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !shared.unfolded.swap(false, Ordering::Relaxed) {
            continue;
        }
        let folded = async {
            let client = pool.get().await.map_err(|e| Chain(&e).to_string())?;
            client.execute(FOLD_BALANCES, &[]).await.map_err(|e| Chain(&e).to_string())
        };
        if let Err(why) = folded.await {
            shared.unfolded.store(true, Ordering::Relaxed);
            tracing::warn!(why, "failed to fold house balances");
        }
    }
}

fn unavailable(error: &dyn std::error::Error) -> Error {
    Error::Unavailable(Chain(error).to_string())
}

impl PostgresLedger {
    /// The writer of a hold, or of whatever else an entry is about. What happens to one hold is
    /// written in the order in which it was asked for.
    fn writer(&self, subject: Uuid) -> Result<&Queue, Error> {
        let mut hasher = DefaultHasher::new();
        subject.hash(&mut hasher);
        let count = u64::try_from(self.writers.len().max(1)).unwrap_or(1);
        let at = usize::try_from(hasher.finish() % count).unwrap_or(0);
        self.writers.get(at).ok_or_else(|| Error::Unavailable("there is no writer".to_owned()))
    }

    async fn reader(&self) -> Result<Object, Error> {
        self.readers.get().await.map_err(|e| unavailable(&e))
    }

    async fn read(
        &self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let client = self.reader().await?;
        let statement = client.prepare_cached(query).await.map_err(|e| unavailable(&e))?;
        client.query(&statement, parameters).await.map_err(|e| unavailable(&e))
    }
}

#[async_trait]
impl LedgerStore for PostgresLedger {
    async fn hold(&self, hold: Hold) -> Result<(), Error> {
        self.writer(hold.id)?.hold(hold).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, Error> {
        self.writer(settlement.hold)?.settle(settlement).await
    }

    async fn post(&self, entry: Entry) -> Result<Posted, Error> {
        self.writer(entry.subject)?.post(entry).await
    }

    async fn balance(&self, app: &str, currency: Currency) -> Result<Balance, Error> {
        let code = Account::Wallet(app.into()).to_string();
        let rows = self.read(BALANCE, &[&code, &currency.code()]).await?;
        let found = rows
            .first()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)));
        let found = found.transpose().map_err(|e: tokio_postgres::Error| unavailable(&e))?;
        Ok(reports::balance(currency, found))
    }

    async fn postings(&self, subject: Uuid) -> Result<Vec<Posting>, Error> {
        let rows = self.read(POSTINGS, &[&subject]).await?;
        let rows = rows.iter().map(|row| posting_row(row).map_err(|e| unavailable(&e))?.read());
        rows.collect()
    }

    async fn verify(&self, now: Timestamp) -> Result<Vec<Finding>, Error> {
        Books::Postgres(self.readers.clone()).audit(now, Scope::Everything).await
    }

    async fn trial_balance(&self) -> Result<Vec<TrialLine>, Error> {
        let rows = self.read(LINES, &[]).await?;
        reports::trial_balance(lines(&rows).map_err(|e| unavailable(&e))?)
    }
}

impl Health for PostgresLedger {
    fn healthy(&self) -> bool {
        self.writers.iter().all(Queue::healthy)
    }
}

fn posting_row(row: &Row) -> Result<PostingRow, tokio_postgres::Error> {
    Ok(PostingRow {
        journal: row.try_get(0)?,
        kind: row.try_get(1)?,
        subject: row.try_get(2)?,
        n: row.try_get(3)?,
        debit: row.try_get(4)?,
        credit: row.try_get(5)?,
        amount: row.try_get(6)?,
        currency: row.try_get(7)?,
        component: row.try_get(8)?,
        attempt: row.try_get(9)?,
        price_code: row.try_get(10)?,
        price_version: row.try_get(11)?,
        estimate: row.try_get(12)?,
        reference: row.try_get(13)?,
        posted_at: row.try_get(14)?,
    })
}

fn lines(rows: &[Row]) -> Result<Vec<Line>, tokio_postgres::Error> {
    let line = |row: &Row| {
        Ok(Line {
            account: row.try_get(0)?,
            class: row.try_get(1)?,
            currency: row.try_get(2)?,
            debits: row.try_get(3)?,
            credits: row.try_get(4)?,
        })
    };
    rows.iter().map(line).collect()
}
