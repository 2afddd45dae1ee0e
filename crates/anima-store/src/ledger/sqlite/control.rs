//! Leases and claims on SQLite, on a connection of their own.
//!
//! One process serves from a file: it locks a second file beside it, which the system unlocks when
//! the process is gone, however it went. Who holds that lock knows that all other nodes are dead,
//! without waiting for their leases to end.
//! Invariant: every piece of work is one transaction that takes the write lock first.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::engine::now;
use crate::ledger::claim::{ClaimedRow, micros};
use crate::ledger::control::{
    FORGET, IS_UP, OVERDUE, REGISTER, RELEASE, REMEMBERED, RENEW, claimed,
};
use crate::ledger::epoch::Epoch;
use crate::ledger::{Claimed, Error, Registration};
use crate::sqlite;

/// Ends what the text of the database's file name begins.
const LOCK: &str = "-node";

/// The lease of this process.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    epoch: Arc<Epoch>,
    connection: Mutex<Option<Connection>>,
    /// Held while this process serves from the database.
    lock: Mutex<Option<File>>,
}

impl Control {
    pub(super) fn new(path: &Path, epoch: Arc<Epoch>) -> Self {
        let (connection, lock) = (Mutex::new(None), Mutex::new(None));
        Self { path: path.to_owned(), epoch, connection, lock }
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// Works off the async threads.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let control = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || work(&control)).await;
        working.unwrap_or_else(|e| Err(unavailable(&e)))
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut kept = self.connection.lock();
        let connection = match &mut *kept {
            Some(connection) => connection,
            none => none.insert(sqlite::open(&self.path).map_err(|e| unavailable(&e))?),
        };
        let done = in_transaction(connection, work);
        if done.is_err() {
            *kept = None;
        }
        done.map_err(|e| unavailable(&e))
    }

    /// Locks the file beside the database. `false` when the file system cannot lock.
    fn take_over(&self) -> Result<bool, Error> {
        let mut lock = self.lock.lock();
        if lock.is_some() {
            return Ok(true);
        }
        let mut name = OsString::from(&self.path);
        name.push(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&name).map_err(|e| unavailable(&e))?;
        match file.try_lock() {
            Ok(()) => {
                *lock = Some(file);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => {
                let path = self.path.display();
                Err(Error::Refused(format!("another process serves from {path}")))
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "the database's file system has no locks: one process only");
                Ok(false)
            }
        }
    }

    pub(super) fn register(&self, registration: &Registration) -> Result<(), Error> {
        const MISSED: &str = "UPDATE node_lease SET state = 'DEAD' WHERE state = 'UP'";
        const KNOWN: &str = "SELECT 1 FROM node_lease WHERE id = ?1";
        let is_alone = self.take_over()?;
        let node = registration.node;
        let is_new = self.write(|transaction| {
            let now = now(transaction)?.micros();
            if transaction.prepare(KNOWN)?.exists([node.into_bytes()])? {
                return Ok(false);
            }
            if is_alone {
                transaction.execute(MISSED, [])?;
            }
            transaction.execute(FORGET, [now.saturating_sub(REMEMBERED)])?;
            let end = now.saturating_add(micros(registration.ttl));
            let row = params![node.into_bytes(), registration.host, now, end];
            transaction.execute(REGISTER, row)?;
            Ok(true)
        })?;
        if !is_new {
            return Err(Error::Refused(format!("node {node} has registered before")));
        }
        self.epoch.registered(node);
        Ok(())
    }

    pub(super) fn renew(&self, ttl: Duration) -> Result<(), Error> {
        let node = self.epoch.node().id.into_bytes();
        let renewed = self.write(|transaction| {
            let end = now(transaction)?.micros().saturating_add(micros(ttl));
            transaction.execute(RENEW, params![end, node])
        })?;
        if renewed == 1 { Ok(()) } else { Err(Error::Fenced) }
    }

    pub(super) fn release(&self) -> Result<(), Error> {
        let node = self.epoch.node().id.into_bytes();
        self.write(|transaction| {
            let now = now(transaction)?.micros();
            transaction.execute(RELEASE, params![now, node])
        })?;
        *self.lock.lock() = None;
        Ok(())
    }

    pub(super) fn claim(&self, limit: usize, within: Duration) -> Result<Vec<Claimed>, Error> {
        const MISSED: &str = "
            UPDATE node_lease SET state = 'DEAD'
            WHERE state = 'UP' AND expires_at < ?1 AND id <> ?2";
        const RECOVERED: &str = "
            UPDATE node_lease SET state = 'RECOVERED'
            WHERE state = 'DEAD' AND NOT EXISTS (
                SELECT 1 FROM hold h
                WHERE h.node = node_lease.id AND h.state IN ('HELD', 'UNKNOWN'))";
        let node = self.epoch.node();
        let id = node.id.into_bytes();
        let rows = self.write(|transaction| {
            if node.has_lease && !transaction.prepare_cached(IS_UP)?.exists([id])? {
                return Ok(None);
            }
            let now = now(transaction)?.micros();
            transaction.execute(MISSED, params![now, id])?;
            let claimed = claim(transaction, (id, now), limit, within)?;
            if claimed.len() < limit {
                transaction.execute(RECOVERED, [])?;
            }
            let mut by_id = transaction.prepare_cached(claimed!("WHERE h.id = ?1"))?;
            let rows = claimed.into_iter().map(|id| by_id.query_row([id], claimed_row));
            rows.collect::<rusqlite::Result<Vec<_>>>().map(Some)
        })?;
        rows.ok_or(Error::Fenced)?.into_iter().map(ClaimedRow::read).collect()
    }

    /// Takes over this node's own holds whose time is long over.
    pub(super) fn claim_overdue(
        &self,
        spared: &BTreeSet<Uuid>,
        within: Duration,
    ) -> Result<usize, Error> {
        const FIND: &str = "
            SELECT id FROM hold
            WHERE node = ?1 AND state = 'HELD' AND state IN ('HELD', 'UNKNOWN')
              AND expires_at < ?2
            ORDER BY expires_at, id";
        const TAKE: &str = "UPDATE hold SET state = 'UNKNOWN', expires_at = ?2 WHERE id = ?1";
        let node = self.epoch.node();
        let id = node.id.into_bytes();
        let claimed = self.write(|transaction| {
            if node.has_lease && !transaction.prepare_cached(IS_UP)?.exists([id])? {
                return Ok(None);
            }
            let now = now(transaction)?.micros();
            let mut find = transaction.prepare_cached(FIND)?;
            let found = find.query_map(params![id, now.saturating_sub(OVERDUE)], |row| row.get(0));
            let overdue = found?.collect::<rusqlite::Result<Vec<[u8; 16]>>>()?;
            let mut take = transaction.prepare_cached(TAKE)?;
            let mut taken = 0;
            for hold in overdue {
                if !spared.contains(&Uuid::from_bytes(hold)) {
                    taken += take.execute(params![hold, now.saturating_add(micros(within))])?;
                }
            }
            Ok(Some(taken))
        })?;
        claimed.ok_or(Error::Fenced)
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// Puts this node's id on open holds of nodes that are gone, and gives the holds.
fn claim(
    transaction: &Transaction<'_>,
    (node, now): ([u8; 16], i64),
    limit: usize,
    within: Duration,
) -> rusqlite::Result<BTreeSet<[u8; 16]>> {
    const CLAIM: &str = "
        UPDATE hold SET node = ?1, state = 'UNKNOWN', expires_at = ?3
        WHERE id IN (
            SELECT h.id FROM hold h
            WHERE h.state IN ('HELD', 'UNKNOWN') AND h.node <> ?1
              AND CASE (SELECT l.state FROM node_lease l WHERE l.id = h.node)
                  WHEN 'UP' THEN 0 WHEN 'DEAD' THEN 1 WHEN 'RECOVERED' THEN 1
                  ELSE h.expires_at < ?2 END
            ORDER BY h.expires_at, h.id
            LIMIT ?4)
        RETURNING id";
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let end = now.saturating_add(micros(within));
    let mut statement = transaction.prepare_cached(CLAIM)?;
    let ids = statement.query_map(params![node, now, end, most], |row| row.get(0))?;
    ids.collect()
}

fn unavailable(error: &dyn std::fmt::Display) -> Error {
    Error::Unavailable(error.to_string())
}

/// A row of [`claimed!`].
pub(super) fn claimed_row(row: &Row<'_>) -> rusqlite::Result<ClaimedRow> {
    let cost_price: (Option<String>, Option<i64>) = (row.get(12)?, row.get(13)?);
    let fx: (Option<String>, Option<i64>) = (row.get(19)?, row.get(20)?);
    Ok(ClaimedRow {
        id: Uuid::from_bytes(row.get(0)?),
        app: row.get(1)?,
        kid: row.get(2)?,
        alias: row.get(3)?,
        currency: row.get(4)?,
        amount: row.get(5)?,
        sale_price: (row.get(6)?, row.get(7)?),
        multiplier: row.get(8)?,
        channel: row.get(9)?,
        cost_cap: row.get(10)?,
        cost_currency: row.get(11)?,
        cost_price: cost_price.0.zip(cost_price.1),
        fx: fx.0.zip(fx.1),
        created_at: row.get(14)?,
        expires_at: row.get(15)?,
        phase: row.get(16)?,
        progress: row.get(17)?,
        trail: row.get(18)?,
    })
}
