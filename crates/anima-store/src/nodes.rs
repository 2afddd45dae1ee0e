//! What nodes say of themselves, in the database: for nodes that share no Redis.
//!
//! Contract: a report replaces the node's last one; reports older than a limit are removed by
//! whoever lists. Nothing decides about money by them. Both databases implement [`NodeStore`].

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use rusqlite::params;

use anima_core::clock::Timestamp;

use crate::config::Error;
use crate::postgres::At;
use crate::sqlite::connections::Connections;

const PUBLISH_POSTGRES: &str = "
    INSERT INTO node_report (node, seen_at, report) VALUES ($1, $2, $3)
    ON CONFLICT (node) DO UPDATE SET seen_at = excluded.seen_at, report = excluded.report";
const PUBLISH_SQLITE: &str = "
    INSERT INTO node_report (node, seen_at, report) VALUES (?1, ?2, ?3)
    ON CONFLICT (node) DO UPDATE SET seen_at = excluded.seen_at, report = excluded.report";
const SWEEP_POSTGRES: &str = "DELETE FROM node_report WHERE seen_at < $1";
const SWEEP_SQLITE: &str = "DELETE FROM node_report WHERE seen_at < ?1";
const LIST: &str = "SELECT report FROM node_report ORDER BY node";
const REMOVE_POSTGRES: &str = "DELETE FROM node_report WHERE node = $1";
const REMOVE_SQLITE: &str = "DELETE FROM node_report WHERE node = ?1";

/// Keeps what nodes say of themselves.
#[async_trait]
pub trait NodeStore: Send + Sync + fmt::Debug {
    /// Replaces what a node says.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn publish(&self, node: &str, seen_at: Timestamp, report: String) -> Result<(), Error>;

    /// What all nodes say, by node, after what was said before `since` is removed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn list(&self, since: Timestamp) -> Result<Vec<String>, Error>;

    /// Removes what a node said: it stops.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn remove(&self, node: &str) -> Result<(), Error>;
}

/// Reports in a PostgreSQL database.
#[derive(Clone)]
pub(crate) struct PostgresNodes(pub(crate) Pool);

impl fmt::Debug for PostgresNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresNodes")
    }
}

#[async_trait]
impl NodeStore for PostgresNodes {
    async fn publish(&self, node: &str, seen_at: Timestamp, report: String) -> Result<(), Error> {
        let client = self.0.get().await?;
        client.execute(PUBLISH_POSTGRES, &[&node, &At(seen_at), &report]).await?;
        Ok(())
    }

    async fn list(&self, since: Timestamp) -> Result<Vec<String>, Error> {
        let client = self.0.get().await?;
        client.execute(SWEEP_POSTGRES, &[&At(since)]).await?;
        let rows = client.query(LIST, &[]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn remove(&self, node: &str) -> Result<(), Error> {
        let client = self.0.get().await?;
        client.execute(REMOVE_POSTGRES, &[&node]).await?;
        Ok(())
    }
}

/// Reports in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteNodes(pub(crate) Arc<Connections>);

#[async_trait]
impl NodeStore for SqliteNodes {
    async fn publish(&self, node: &str, seen_at: Timestamp, report: String) -> Result<(), Error> {
        let node = node.to_owned();
        let write = self.0.write(move |tx| {
            tx.execute(PUBLISH_SQLITE, params![node, seen_at.micros(), report])?;
            Ok(())
        });
        write.await
    }

    async fn list(&self, since: Timestamp) -> Result<Vec<String>, Error> {
        let listing = self.0.write(move |tx| {
            tx.execute(SWEEP_SQLITE, params![since.micros()])?;
            let mut statement = tx.prepare_cached(LIST)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        listing.await
    }

    async fn remove(&self, node: &str) -> Result<(), Error> {
        let node = node.to_owned();
        let write = self.0.write(move |tx| {
            tx.execute(REMOVE_SQLITE, params![node])?;
            Ok(())
        });
        write.await
    }
}

#[cfg(test)]
mod tests;
