//! Decision records: how calls were routed, one text per request.
//!
//! Contract: records are written in batches after their calls; one that is written again is left as
//! it was. They are kept for a while and then forgotten, and may be lost with their process: no
//! money rests on them. What stands in the text is the gateway's business. Both databases implement
//! [`DecisionStore`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use rusqlite::{OptionalExtension as _, params};
use uuid::Uuid;

use anima_core::clock::Timestamp;

use crate::config::Error;
use crate::sqlite::connections::Connections;

const WRITE_POSTGRES: &str = "
    INSERT INTO decision_record (id, record)
    SELECT * FROM unnest($1::uuid[], $2::text[]) ON CONFLICT (id) DO NOTHING";
const WRITE_SQLITE: &str = "
    INSERT INTO decision_record (id, record) VALUES (?1, ?2) ON CONFLICT (id) DO NOTHING";
/// A record that a crash of the server takes away was only about a call, not the call.
const LAZY_POSTGRES: &str = "SET LOCAL synchronous_commit TO off";
const READ: &str = "SELECT record FROM decision_record WHERE id = $1";
const SWEEP: &str = "
    DELETE FROM decision_record WHERE id IN
        (SELECT id FROM decision_record WHERE id < $1 ORDER BY id LIMIT $2)";

/// A request's id and what is written down about it.
pub type Record = (Uuid, String);

/// Keeps decision records.
#[async_trait]
pub trait DecisionStore: Send + Sync + fmt::Debug {
    /// Writes records, all or none.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn write(&self, records: Vec<Record>) -> Result<(), Error>;

    /// One request's record.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn read(&self, id: Uuid) -> Result<Option<String>, Error>;

    /// Removes records of requests that came before an instant, at most so many; says how many.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn sweep(&self, before: Timestamp, most: u32) -> Result<u64, Error>;
}

/// The lowest id of a request that came at `at`.
fn first_id(at: Timestamp) -> Uuid {
    let millis = u128::try_from(at.millis()).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

/// Records in a PostgreSQL database.
#[derive(Clone)]
pub(crate) struct PostgresDecisions(pub(crate) Pool);

impl fmt::Debug for PostgresDecisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresDecisions")
    }
}

#[async_trait]
impl DecisionStore for PostgresDecisions {
    async fn write(&self, records: Vec<Record>) -> Result<(), Error> {
        let (ids, texts): (Vec<Uuid>, Vec<String>) = records.into_iter().unzip();
        let mut client = self.0.get().await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute(LAZY_POSTGRES).await?;
        transaction.execute(WRITE_POSTGRES, &[&ids, &texts]).await?;
        Ok(transaction.commit().await?)
    }

    async fn read(&self, id: Uuid) -> Result<Option<String>, Error> {
        let client = self.0.get().await?;
        let row = client.query_opt(READ, &[&id]).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    async fn sweep(&self, before: Timestamp, most: u32) -> Result<u64, Error> {
        let client = self.0.get().await?;
        Ok(client.execute(SWEEP, &[&first_id(before), &i64::from(most)]).await?)
    }
}

/// Records in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteDecisions(pub(crate) Arc<Connections>);

#[async_trait]
impl DecisionStore for SqliteDecisions {
    async fn write(&self, records: Vec<Record>) -> Result<(), Error> {
        let writing = self.0.write(move |transaction| {
            let mut statement = transaction.prepare_cached(WRITE_SQLITE)?;
            for (id, record) in &records {
                statement.execute(params![id.as_bytes(), record])?;
            }
            Ok(())
        });
        writing.await
    }

    async fn read(&self, id: Uuid) -> Result<Option<String>, Error> {
        let reading = self.0.read(move |transaction| {
            let mut statement = transaction.prepare_cached(READ)?;
            Ok(statement.query_row(params![id.as_bytes()], |row| row.get(0)).optional()?)
        });
        reading.await
    }

    async fn sweep(&self, before: Timestamp, most: u32) -> Result<u64, Error> {
        let sweeping = self.0.write(move |transaction| {
            let bound = first_id(before);
            let mut statement = transaction.prepare_cached(SWEEP)?;
            Ok(statement.execute(params![bound.as_bytes(), most])? as u64)
        });
        sweeping.await
    }
}

#[cfg(test)]
mod tests;
