//! Events, acknowledgements and hatches on PostgreSQL.
//!
//! The contract is in `config::publish`. A pull takes the lock of the revision's one row first, as
//! every change does, so all of them come one after another.

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use serde_json::Value;
use tokio_postgres::types::ToSql;

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::{
    Event, Forced, GatewaySwitch, Hatch, Hatches, KEEP_MS, ManualCircuit, NodeState, Notice,
    PublishStore, sql,
};
use crate::config::postgres::{PostgresConfig, execute, insert_audit, number, rows, time};
use crate::config::{Actor, AuditRecord, Error, Row, sql as config_sql};
use crate::postgres::At;

/// Writes the event of a change and tells listeners when it commits.
pub(in crate::config) async fn announce(
    tx: &Transaction<'_>,
    rev: i64,
    notices: &[Notice],
    now: Timestamp,
) -> Result<(), Error> {
    let notices = serde_json::to_value(notices).map_err(|e| Error::Damaged(e.to_string()))?;
    execute(tx, sql::INSERT_EVENT, &[&rev, &At(now), &notices]).await?;
    let oldest = At(now.plus_millis(-KEEP_MS));
    for text in [sql::PRUNE_EVENTS, sql::PRUNE_ACKS, sql::PRUNE_NODES] {
        execute(tx, text, &[&oldest]).await?;
    }
    let statement = tx.prepare_cached(sql::NOTIFY).await?;
    tx.query(&statement, &[&rev.to_string()]).await?;
    Ok(())
}

#[async_trait]
impl PublishStore for PostgresConfig {
    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::EVENTS).await?;
        let rows = client.query(&statement, &[&after, &i64::from(limit)]).await?;
        rows.iter().map(event).collect()
    }

    async fn acknowledge(&self, node: &str, rev: i64, at: Timestamp) -> Result<(), Error> {
        let mut client = self.0.get().await?;
        let tx = client.transaction().await?;
        execute(&tx, sql::SEE_NODE, &[&node, &rev, &At(at)]).await?;
        execute(&tx, sql::INSERT_ACK, &[&node, &rev, &At(at)]).await?;
        Ok(tx.commit().await?)
    }

    async fn acknowledged(&self, rev: i64) -> Result<Vec<NodeState>, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::ACKNOWLEDGED).await?;
        let rows = client.query(&statement, &[&rev]).await?;
        let state = |row: &tokio_postgres::Row| {
            let seen_at = row.try_get::<_, At>(2)?.0;
            let (node, rev) = (row.try_get(0)?, row.try_get(1)?);
            Ok(NodeState { node, rev, seen_at, applied_at: time(row, 3)? })
        };
        rows.iter().map(state).collect()
    }

    async fn scheduled(&self, now: Timestamp) -> Result<Vec<(Resource, Row)>, Error> {
        let client = self.0.get().await?;
        let mut ahead = Vec::new();
        for resource in Resource::ALL.iter().copied() {
            let found = rows(&client, config_sql::in_force(resource), &[&At(now)]).await?;
            let found = found.into_iter().filter(|row| row.effective_from > now);
            ahead.extend(found.map(|row| (resource, row)));
        }
        ahead.sort_by_key(|(_, row)| row.effective_from);
        Ok(ahead)
    }

    async fn hatches(&self) -> Result<Hatches, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::GATEWAY).await?;
        let row = client.query_one(&statement, &[]).await?;
        let gateway = GatewaySwitch {
            enabled: row.try_get(0)?,
            reason: row.try_get(1)?,
            actor: row.try_get(2)?,
            changed_at: time(&row, 3)?,
        };
        let statement = client.prepare_cached(sql::CIRCUITS).await?;
        let rows = client.query(&statement, &[]).await?;
        let circuits = rows.iter().map(circuit).collect::<Result<_, _>>()?;
        Ok(Hatches { gateway, circuits })
    }

    async fn pull(&self, hatch: Hatch, actor: &Actor, now: Timestamp) -> Result<i64, Error> {
        let mut client = self.0.get().await?;
        let tx = client.transaction().await?;
        let rev = number(&tx, config_sql::RAISE_REV).await?;
        write(&tx, &hatch, actor, now).await?;
        announce(&tx, rev, &[hatch.notice()], now).await?;
        insert_audit(&tx, AuditRecord::of(&hatch, actor, now), Some(rev)).await?;
        tx.commit().await?;
        Ok(rev)
    }
}

fn event(row: &tokio_postgres::Row) -> Result<Event, Error> {
    let notices: Value = row.try_get(2)?;
    let notices = serde_json::from_value(notices).map_err(|e| Error::Damaged(e.to_string()))?;
    Ok(Event { rev: row.try_get(0)?, at: row.try_get::<_, At>(1)?.0, notices })
}

fn circuit(row: &tokio_postgres::Row) -> Result<ManualCircuit, Error> {
    let (model, state): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    Ok(ManualCircuit {
        channel: row.try_get(0)?,
        model: (!model.is_empty()).then_some(model),
        state: if state == Forced::Open.name() { Forced::Open } else { Forced::Closed },
        reason: row.try_get(3)?,
        actor: row.try_get(4)?,
        set_at: row.try_get::<_, At>(5)?.0,
        expires_at: time(row, 6)?,
    })
}

async fn write(
    tx: &Transaction<'_>,
    hatch: &Hatch,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), Error> {
    let at = At(now);
    match hatch {
        Hatch::Circuit { channel, model, state: Some(state), expires_at } => {
            let model = model.as_deref().unwrap_or_default();
            let (state, expires_at) = (state.name(), expires_at.map(At));
            let values: [&(dyn ToSql + Sync); 7] =
                [channel, &model, &state, &actor.reason, &actor.name, &at, &expires_at];
            execute(tx, sql::SET_CIRCUIT, &values).await
        }
        Hatch::Circuit { channel, model: Some(model), state: None, .. } => {
            execute(tx, sql::RESET_CIRCUIT, &[channel, model]).await
        }
        Hatch::Circuit { channel, model: None, state: None, .. } => {
            execute(tx, sql::RESET_CHANNEL, &[channel]).await
        }
        Hatch::Gateway { enabled, .. } => {
            execute(tx, sql::SET_GATEWAY, &[enabled, &actor.reason, &actor.name, &at]).await
        }
        Hatch::Forget { .. } => Ok(()),
    }
}
