//! One statement on either database, which commits by itself.
//!
//! Each step of a task is one statement, so nothing here holds a lock for longer than it runs, but
//! for those that count first. Invariant: what a statement changed is on disk when it has been
//! answered.

use std::fmt;
use std::sync::Arc;

use deadpool_postgres::Pool;
use tokio::sync::Semaphore;

use crate::config::Error;
use crate::ledger;
use crate::ledger::session::{Record, Value, bound, sqlite_query};
use crate::sqlite::connections::Connections;

/// Until the transaction is over no other one of that name runs.
const IN_TURN: &str = "SELECT pg_advisory_xact_lock(hashtextextended('task:' || $1::text, 0))";

/// Connections that may wait for their turn at one time: the others are for what waits for nobody.
const IN_LINE: usize = 2;

/// The tasks of one database.
pub(crate) enum TaskBooks {
    /// In a SQLite file.
    Sqlite(Arc<Connections>),
    /// In a PostgreSQL database.
    Postgres(Pool, Semaphore),
}

impl fmt::Debug for TaskBooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(connections) => f.debug_tuple("Sqlite").field(connections).finish(),
            Self::Postgres(..) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl TaskBooks {
    /// In a PostgreSQL database, by a pool of more connections than may wait for their turn.
    pub(crate) fn on_postgres(pool: Pool) -> Self {
        Self::Postgres(pool, Semaphore::new(IN_LINE))
    }

    /// One of two texts, where the databases do not say it alike.
    pub(super) const fn text(
        &self,
        (sqlite, postgres): (&'static str, &'static str),
    ) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite,
            Self::Postgres(..) => postgres,
        }
    }

    /// The rows of a query that changes nothing.
    pub(super) async fn read(
        &self,
        text: &'static str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Record>, Error> {
        match self {
            Self::Sqlite(connections) => {
                connections.read(move |tx| Ok(sqlite_query(tx, text, &parameters)?)).await
            }
            Self::Postgres(..) => self.change(text, parameters).await,
        }
    }

    /// The rows that a statement gives back.
    pub(super) async fn change(
        &self,
        text: &'static str,
        parameters: Vec<Value>,
    ) -> Result<Vec<Record>, Error> {
        match self {
            Self::Sqlite(connections) => {
                connections.write(move |tx| Ok(sqlite_query(tx, text, &parameters)?)).await
            }
            Self::Postgres(pool, _) => {
                let client = pool.get().await?;
                let statement = client.prepare_cached(text).await?;
                let rows = client.query(&statement, &bound(&parameters)).await?;
                rows.iter().map(|row| Ok(Record::of_postgres(row)?)).collect()
            }
        }
    }

    /// How many rows a statement changes that sees everything which others of this name did before.
    pub(super) async fn execute_in_turn(
        &self,
        name: &str,
        text: &'static str,
        parameters: Vec<Value>,
    ) -> Result<u64, Error> {
        // SQLite has one writer, whose statements are in turn as they are.
        let Self::Postgres(pool, waiting) = self else {
            return self.execute(text, parameters).await;
        };
        let _permit = waiting.acquire().await.map_err(|e| Error::Unavailable(e.to_string()))?;
        let mut client = pool.get().await?;
        let transaction = client.transaction().await?;
        let lock = transaction.prepare_cached(IN_TURN).await?;
        transaction.execute(&lock, &[&name]).await?;
        let statement = transaction.prepare_cached(text).await?;
        let changed = transaction.execute(&statement, &bound(&parameters)).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// How many rows a statement changes.
    pub(super) async fn execute(
        &self,
        text: &'static str,
        parameters: Vec<Value>,
    ) -> Result<u64, Error> {
        match self {
            Self::Sqlite(connections) => {
                let changed = connections.write(move |tx| {
                    let mut statement = tx.prepare_cached(text)?;
                    Ok(statement.execute(rusqlite::params_from_iter(&parameters))?)
                });
                Ok(changed.await? as u64)
            }
            Self::Postgres(pool, _) => {
                let client = pool.get().await?;
                let statement = client.prepare_cached(text).await?;
                Ok(client.execute(&statement, &bound(&parameters)).await?)
            }
        }
    }
}
