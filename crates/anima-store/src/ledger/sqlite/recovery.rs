//! Leases and open holds on SQLite: what goes through the writer, and what does not.
//!
//! Invariant: what changes money goes through the writer.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Row, params};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Checkpoint, Extension, Settlement};

use super::SqliteLedger;
use super::control::{Control, claimed_row};
use crate::idempotency::UsedKey;
use crate::ledger::claim::{ClaimedRow, lease_state};
use crate::ledger::control::{LEASES, UNRESOLVED};
use crate::ledger::{
    Claimed, Correction, Error, Lease, Leases, LedgerStore as _, OpenHolds, Registration, Settled,
    TruedUp,
};

#[async_trait]
impl Leases for SqliteLedger {
    async fn register(&self, registration: Registration) -> Result<(), Error> {
        self.control.run(move |control| control.register(&registration)).await
    }

    async fn renew(&self, ttl: Duration) -> Result<(), Error> {
        self.control.run(move |control| control.renew(ttl)).await
    }

    async fn release(&self) -> Result<(), Error> {
        self.control.run(Control::release).await
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let leases = self.read(|connection| {
            let mut statement = connection.prepare_cached(LEASES)?;
            statement.query_map([], lease)?.collect()
        });
        leases.await
    }
}

#[async_trait]
impl OpenHolds for SqliteLedger {
    async fn settle_repeatable(
        &self,
        settlement: Settlement,
        _key: Option<UsedKey>,
    ) -> Result<Settled, Error> {
        self.settle(settlement).await
    }

    async fn checkpoint(&self, checkpoints: Vec<Checkpoint>) -> Result<(), Error> {
        let sent: Vec<_> = checkpoints.into_iter().map(|c| self.writer.checkpoint(c)).collect();
        let mut result = Ok(());
        for sent in sent {
            let written = match sent {
                Ok(verdict) => verdict.await,
                Err(error) => Err(error),
            };
            result = result.and(written);
        }
        result
    }

    async fn extend(&self, extension: Extension) -> Result<(), Error> {
        self.writer.extend(extension).await
    }

    async fn claim_orphans(&self, limit: usize, within: Duration) -> Result<Vec<Claimed>, Error> {
        self.control.run(move |control| control.claim(limit, within)).await
    }

    async fn claim_overdue(
        &self,
        spared: BTreeSet<Uuid>,
        within: Duration,
    ) -> Result<usize, Error> {
        self.control.run(move |control| control.claim_overdue(&spared, within)).await
    }

    async fn unresolved(&self, limit: usize) -> Result<Vec<Claimed>, Error> {
        let node = self.control.epoch().node().id.into_bytes();
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.read(move |connection| {
            let mut statement = connection.prepare_cached(UNRESOLVED)?;
            let rows = statement.query_map(params![node, most], claimed_row)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        rows.await?.into_iter().map(ClaimedRow::read).collect()
    }

    async fn true_up(&self, correction: Correction) -> Result<TruedUp, Error> {
        self.writer.true_up(correction).await
    }
}

fn lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    let state: String = row.get(4)?;
    let open_holds: i64 = row.get(5)?;
    Ok(Lease {
        node: Uuid::from_bytes(row.get(0)?),
        host: row.get(1)?,
        started_at: Timestamp::from_micros(row.get(2)?),
        expires_at: Timestamp::from_micros(row.get(3)?),
        state: lease_state(&state),
        open_holds: u64::try_from(open_holds).unwrap_or(0),
    })
}
