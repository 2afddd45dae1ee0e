//! Leases and open holds on PostgreSQL: what goes through the writers, and what does not.
//!
//! Invariant: what changes money goes through the writer of its hold.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Checkpoint, Extension, Settlement};

use super::{PostgresLedger, control, unavailable};
use crate::idempotency::UsedKey;
use crate::ledger::claim::{ClaimedRow, lease_state};
use crate::ledger::control::{LEASES, UNRESOLVED};
use crate::ledger::{
    Claimed, Correction, Error, Lease, Leases, LedgerStore as _, OpenHolds, Registration, Settled,
    TruedUp,
};

#[async_trait]
impl Leases for PostgresLedger {
    async fn register(&self, registration: Registration) -> Result<(), Error> {
        let mut client = self.reader().await?;
        let is_new = control::register(&mut client, &registration).await;
        if !is_new.map_err(|e| unavailable(&e))? {
            let node = registration.node;
            return Err(Error::Refused(format!("node {node} has registered before")));
        }
        self.epoch.registered(registration.node);
        Ok(())
    }

    async fn renew(&self, ttl: Duration) -> Result<(), Error> {
        let node = self.epoch.node().id;
        let renewed = control::renew(&mut self.reader().await?, node, ttl).await;
        if renewed.map_err(|e| unavailable(&e))? { Ok(()) } else { Err(Error::Fenced) }
    }

    async fn release(&self) -> Result<(), Error> {
        let node = self.epoch.node().id;
        let released = control::release(&mut self.reader().await?, node).await;
        released.map_err(|e| unavailable(&e))
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let rows = self.read(LEASES, &[]).await?;
        rows.iter().map(|row| lease(row).map_err(|e| unavailable(&e))).collect()
    }
}

#[async_trait]
impl OpenHolds for PostgresLedger {
    async fn settle_repeatable(
        &self,
        settlement: Settlement,
        _key: Option<UsedKey>,
    ) -> Result<Settled, Error> {
        self.settle(settlement).await
    }

    async fn checkpoint(&self, checkpoints: Vec<Checkpoint>) -> Result<(), Error> {
        let mut sent = Vec::with_capacity(checkpoints.len());
        for checkpoint in checkpoints {
            let writer = self.writer(checkpoint.hold)?;
            sent.push(writer.checkpoint(checkpoint));
        }
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
        self.writer(extension.hold)?.extend(extension).await
    }

    async fn claim_orphans(&self, limit: usize, within: Duration) -> Result<Vec<Claimed>, Error> {
        let node = self.epoch.node();
        let claimed = control::claim(&mut self.reader().await?, node, limit, within).await;
        let rows = claimed.map_err(|e| unavailable(&e))?.ok_or(Error::Fenced)?;
        rows.into_iter().map(ClaimedRow::read).collect()
    }

    async fn claim_overdue(
        &self,
        spared: BTreeSet<Uuid>,
        within: Duration,
    ) -> Result<usize, Error> {
        let (node, spared) = (self.epoch.node(), spared.into_iter().collect::<Vec<_>>());
        let mut client = self.reader().await?;
        let claimed = control::claim_overdue(&mut client, node, &spared, within).await;
        let claimed = claimed.map_err(|e| unavailable(&e))?.ok_or(Error::Fenced)?;
        Ok(usize::try_from(claimed).unwrap_or(usize::MAX))
    }

    async fn unresolved(&self, limit: usize) -> Result<Vec<Claimed>, Error> {
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.read(UNRESOLVED, &[&self.epoch.node().id, &most]).await?;
        let rows = rows.iter().map(|row| control::claimed_row(row).map_err(|e| unavailable(&e)));
        rows.map(|row| row?.read()).collect()
    }

    async fn true_up(&self, correction: Correction) -> Result<TruedUp, Error> {
        let settlement = &correction.settlement;
        self.writer(settlement.hold)?.true_up(correction).await
    }
}

fn lease(row: &Row) -> Result<Lease, tokio_postgres::Error> {
    let open_holds: i64 = row.try_get(5)?;
    Ok(Lease {
        node: row.try_get(0)?,
        host: row.try_get(1)?,
        started_at: Timestamp::from_micros(row.try_get(2)?),
        expires_at: Timestamp::from_micros(row.try_get(3)?),
        state: lease_state(row.try_get(4)?),
        open_holds: u64::try_from(open_holds).unwrap_or(0),
    })
}
