//! One transaction on either database, for what people do to the books: rare, and worth one text.
//!
//! The writer's hot path is not here; it has code of its own for each database. A [`Work`] runs on
//! a [`Session`] and sees the same records from both. The two meet at the wallet's row: whoever
//! moves a wallet's money holds its lock first, which on SQLite is the lock of the file.
//! Invariant: a work that ends with an error leaves nothing behind.

use std::future::Future;

use deadpool_postgres::Pool;
use rusqlite::Connection;
use tokio_postgres::IsolationLevel;

use super::Error;
use crate::postgres::Chain;

mod record;

pub(crate) use record::{Record, Value, bound};

/// How often a transaction that met another one is made again.
const AGAIN: usize = 5;

/// What a transaction may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Read, all of it from one state of the database.
    Read,
    /// Read and write. On disk when it has ended well.
    Write,
}

/// A piece of work in one transaction. May be run again from its start when it met another one.
pub(super) trait Work: Clone + Send + Sync + 'static {
    /// What it gives.
    type Output: Send + 'static;

    /// Whether it writes.
    const MODE: Mode;

    /// Whether it reads so much that no bound of time on its statements would be right.
    fn is_long(&self) -> bool {
        false
    }

    /// Does it. An error rolls everything back.
    fn run(
        &self,
        session: &mut Session<'_>,
    ) -> impl Future<Output = Result<Self::Output, Failed>> + Send;
}

/// Why a work was not done.
#[derive(Debug)]
pub(super) enum Failed {
    /// It said so itself, or the database did, for good.
    Ledger(Error),
    /// It met another transaction: again.
    Met(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Ledger(error)
    }
}

/// A transaction that is under way.
pub(super) struct Session<'c>(Engine<'c>);

enum Engine<'c> {
    Sqlite(&'c mut Connection),
    Postgres(deadpool_postgres::Transaction<'c>),
}

impl Session<'_> {
    /// Whether this is PostgreSQL, for the few texts that must differ.
    pub(super) const fn is_postgres(&self) -> bool {
        matches!(self.0, Engine::Postgres(_))
    }

    /// All rows of a query.
    pub(super) async fn query(
        &mut self,
        text: &'static str,
        parameters: &[Value],
    ) -> Result<Vec<Record>, Failed> {
        match &mut self.0 {
            Engine::Sqlite(connection) => {
                sqlite_query(connection, text, parameters).map_err(|e| of_sqlite(&e))
            }
            Engine::Postgres(transaction) => {
                let statement = transaction.prepare(text).await.map_err(|e| of_postgres(&e))?;
                let rows = transaction.query(&statement, &bound(parameters)).await;
                let rows = rows.map_err(|e| of_postgres(&e))?;
                rows.iter()
                    .map(|row| Record::of_postgres(row).map_err(|e| of_postgres(&e)))
                    .collect()
            }
        }
    }

    /// The first row of a query, if there is one.
    pub(super) async fn first(
        &mut self,
        text: &'static str,
        parameters: &[Value],
    ) -> Result<Option<Record>, Failed> {
        Ok(self.query(text, parameters).await?.into_iter().next())
    }

    /// Changes rows; says how many.
    pub(super) async fn execute(
        &mut self,
        text: &'static str,
        parameters: &[Value],
    ) -> Result<u64, Failed> {
        match &mut self.0 {
            Engine::Sqlite(connection) => {
                let changed = connection
                    .prepare_cached(text)
                    .and_then(|mut s| s.execute(rusqlite::params_from_iter(parameters)));
                changed.map(|n| n as u64).map_err(|e| of_sqlite(&e))
            }
            Engine::Postgres(transaction) => {
                let changed = transaction.execute(text, &bound(parameters)).await;
                changed.map_err(|e| of_postgres(&e))
            }
        }
    }

    /// Changes exactly one row, or fails.
    pub(super) async fn change(
        &mut self,
        text: &'static str,
        parameters: &[Value],
    ) -> Result<(), Failed> {
        match self.execute(text, parameters).await? {
            1 => Ok(()),
            changed => Err(Error::Refused(format!("{changed} rows changed where 1 must")).into()),
        }
    }
}

/// Runs a work on SQLite. Blocks.
pub(super) fn on_sqlite<W: Work>(
    connection: &mut Connection,
    work: &W,
) -> Result<W::Output, Error> {
    let begin = match W::MODE {
        Mode::Read => "BEGIN",
        // The lock is taken at the start: taken later, another writer's commit would fail us.
        Mode::Write => "BEGIN IMMEDIATE",
    };
    connection.execute_batch(begin).map_err(|e| ledger_error(of_sqlite(&e)))?;
    let mut session = Session(Engine::Sqlite(&mut *connection));
    // Nothing in there waits: SQLite answers on this very thread.
    let done = tokio::runtime::Handle::current().block_on(work.run(&mut session));
    drop(session);
    let done = done.and_then(|output| {
        connection.execute_batch("COMMIT").map_err(|e| of_sqlite(&e))?;
        Ok(output)
    });
    done.map_err(|failed| {
        if let Err(error) = connection.execute_batch("ROLLBACK") {
            tracing::debug!(%error, "nothing to roll back");
        }
        ledger_error(failed)
    })
}

/// Runs a work on PostgreSQL.
pub(super) async fn on_postgres<W: Work>(pool: &Pool, work: &W) -> Result<W::Output, Error> {
    let mut met = String::new();
    for _ in 0..AGAIN {
        match once_on_postgres(pool, work).await {
            Ok(output) => return Ok(output),
            Err(Failed::Ledger(error)) => return Err(error),
            Err(Failed::Met(why)) => met = why,
        }
    }
    Err(Error::Unavailable(met))
}

async fn once_on_postgres<W: Work>(pool: &Pool, work: &W) -> Result<W::Output, Failed> {
    /// Commits must be on disk, whatever the server's default; a stronger setting stays.
    const DURABLE: &str = "
        SELECT set_config('synchronous_commit', 'on', true)
        WHERE current_setting('synchronous_commit') = 'off'";
    const UNBOUND: &str = "SET LOCAL statement_timeout = 0";
    let client = pool.get().await;
    let mut client = client.map_err(|e| Error::Unavailable(Chain(&e).to_string()))?;
    let begun = match W::MODE {
        Mode::Read => {
            client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await
        }
        Mode::Write => client.build_transaction().start().await,
    };
    let transaction = begun.map_err(|e| of_postgres(&e))?;
    if work.is_long() {
        transaction.batch_execute(UNBOUND).await.map_err(|e| of_postgres(&e))?;
    }
    if W::MODE == Mode::Write {
        transaction.batch_execute(DURABLE).await.map_err(|e| of_postgres(&e))?;
    }
    let mut session = Session(Engine::Postgres(transaction));
    // A transaction that is dropped is rolled back before its connection serves anybody else.
    let output = work.run(&mut session).await?;
    if let Session(Engine::Postgres(transaction)) = session {
        transaction.commit().await.map_err(|e| of_postgres(&e))?;
    }
    Ok(output)
}

pub(crate) fn sqlite_query(
    connection: &Connection,
    text: &'static str,
    parameters: &[Value],
) -> rusqlite::Result<Vec<Record>> {
    let mut statement = connection.prepare_cached(text)?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(Record::of_sqlite(row, columns)?);
    }
    Ok(records)
}

fn ledger_error(failed: Failed) -> Error {
    match failed {
        Failed::Ledger(error) => error,
        Failed::Met(why) => Error::Unavailable(why),
    }
}

fn of_sqlite(error: &rusqlite::Error) -> Failed {
    use rusqlite::ErrorCode as Code;
    let why = error.to_string();
    let refusals = [Code::ConstraintViolation, Code::TypeMismatch, Code::TooBig];
    // What has no code is a row that cannot be read or bound.
    let refused = error.sqlite_error_code().is_none_or(|code| refusals.contains(&code));
    Failed::Ledger(if refused { Error::Refused(why) } else { Error::Unavailable(why) })
}

/// Conditions of the server and not of what is written, by the first two letters of their code.
const SERVER: &[&str] = &["08", "53", "57", "58"];

fn of_postgres(error: &tokio_postgres::Error) -> Failed {
    let why = Chain(error).to_string();
    let Some(code) = error.code().map(tokio_postgres::error::SqlState::code) else {
        return Failed::Ledger(Error::Unavailable(why));
    };
    let class = code.get(..2).unwrap_or(code);
    if class == "40" {
        Failed::Met(why)
    } else if SERVER.contains(&class) {
        Failed::Ledger(Error::Unavailable(why))
    } else {
        Failed::Ledger(Error::Refused(why))
    }
}
