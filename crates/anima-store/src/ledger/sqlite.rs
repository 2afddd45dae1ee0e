//! The ledger on SQLite: one writer thread with a connection of its own, readers beside it.
//!
//! Invariant: only the writer thread writes to the ledger's tables, so that it may judge from what
//! it has read; `BEGIN IMMEDIATE` keeps other processes out meanwhile.
//! Source: `reliability` 1.9.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Row};
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
use crate::sqlite;

mod booked;
mod control;
mod corrections;
mod credit;
mod engine;
mod recovery;
mod rows;

/// Connections kept for the next read. More may be open for a moment.
const READERS: usize = 4;

/// The ledger in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteLedger {
    writer: Queue,
    readers: Arc<Readers>,
    control: Arc<control::Control>,
}

/// Connections for reading. WAL lets them read while the writer writes.
#[derive(Debug)]
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// Opens the ledger in a file whose schema is up to date, and starts its writer.
///
/// # Errors
/// [`OpenError::Unreachable`].
pub(crate) fn open(path: &Path, opener: &Opener) -> Result<SqliteLedger, OpenError> {
    let unreachable = |e: &dyn std::fmt::Display| OpenError::Unreachable(e.to_string());
    let epoch = Arc::new(Epoch::new(opener.node));
    let engine = engine::Engine::new(path, Arc::clone(&epoch))?;
    // A runtime of its own for the one thread: the queue is awaited there, SQLite is called there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| unreachable(&e))?;
    let (writer, lanes) = queue();
    let observer = Arc::clone(&opener.observer);
    std::thread::Builder::new()
        .name("ledger-writer".to_owned())
        .spawn(move || runtime.block_on(batch::run(engine, lanes, observer)))
        .map_err(|e| unreachable(&e))?;
    let readers = Readers { path: path.to_owned(), idle: Mutex::new(Vec::new()) };
    let control = Arc::new(control::Control::new(path, epoch));
    Ok(SqliteLedger { writer, readers: Arc::new(readers), control })
}

impl Readers {
    fn read<T>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let idle = self.idle.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                sqlite::open_reader(&self.path).map_err(|e| Error::Unavailable(e.to_string()))?
            }
        };
        let answer = query(&mut connection).map_err(|e| Error::Unavailable(e.to_string()))?;
        let mut idle = self.idle.lock();
        if idle.len() < READERS {
            idle.push(connection);
        }
        Ok(answer)
    }
}

impl SqliteLedger {
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.read(query))
            .await
            .unwrap_or_else(|e| Err(Error::Unavailable(e.to_string())))
    }
}

#[async_trait]
impl LedgerStore for SqliteLedger {
    async fn hold(&self, hold: Hold) -> Result<(), Error> {
        self.writer.hold(hold).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, Error> {
        self.writer.settle(settlement).await
    }

    async fn post(&self, entry: Entry) -> Result<Posted, Error> {
        self.writer.post(entry).await
    }

    async fn balance(&self, app: &str, currency: Currency) -> Result<Balance, Error> {
        let code = Account::Wallet(app.into()).to_string();
        let found = self.read(move |connection| {
            let mut statement = connection.prepare_cached(BALANCE)?;
            let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            statement.query_row((code, currency.code()), columns).optional()
        });
        Ok(reports::balance(currency, found.await?))
    }

    async fn postings(&self, subject: Uuid) -> Result<Vec<Posting>, Error> {
        let rows = self.read(move |connection| {
            let mut statement = connection.prepare_cached(POSTINGS)?;
            let rows = statement.query_map([subject.into_bytes()], posting_row)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.await?.into_iter().map(PostingRow::read).collect()
    }

    async fn verify(&self, now: Timestamp) -> Result<Vec<Finding>, Error> {
        let books = Books::Sqlite(self.readers.path.clone());
        books.audit(now, Scope::Everything).await
    }

    async fn trial_balance(&self) -> Result<Vec<TrialLine>, Error> {
        reports::trial_balance(self.read(|connection| lines(connection)).await?)
    }
}

impl Health for SqliteLedger {
    fn healthy(&self) -> bool {
        self.writer.healthy()
    }
}

fn posting_row(row: &Row<'_>) -> rusqlite::Result<PostingRow> {
    Ok(PostingRow {
        journal: Uuid::from_bytes(row.get(0)?),
        kind: row.get(1)?,
        subject: Uuid::from_bytes(row.get(2)?),
        n: row.get(3)?,
        debit: row.get(4)?,
        credit: row.get(5)?,
        amount: row.get(6)?,
        currency: row.get(7)?,
        component: row.get(8)?,
        attempt: row.get(9)?,
        price_code: row.get(10)?,
        price_version: row.get(11)?,
        estimate: row.get(12)?,
        reference: row.get(13)?,
        posted_at: row.get(14)?,
    })
}

fn lines(connection: &Connection) -> rusqlite::Result<Vec<Line>> {
    let mut statement = connection.prepare_cached(LINES)?;
    let rows = statement.query_map([], |row| {
        Ok(Line {
            account: row.get(0)?,
            class: row.get(1)?,
            currency: row.get(2)?,
            debits: row.get(3)?,
            credits: row.get(4)?,
        })
    })?;
    rows.collect()
}
