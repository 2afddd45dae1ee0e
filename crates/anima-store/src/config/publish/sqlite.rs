//! Events, acknowledgements and hatches on SQLite.
//!
//! The contract is in `config::publish`. Times are microseconds, notices are JSON text.

use async_trait::async_trait;
use rusqlite::{Transaction, params};

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::{
    Event, Forced, GatewaySwitch, Hatch, Hatches, KEEP_MS, ManualCircuit, NodeState, Notice,
    PublishStore, sql,
};
use crate::config::sqlite::{SqliteConfig, insert_audit, micros, raise_rev, rows, time};
use crate::config::{Actor, AuditRecord, Error, Row, sql as config_sql};

/// Writes the event of a change.
pub(in crate::config) fn announce(
    tx: &Transaction<'_>,
    rev: i64,
    notices: &[Notice],
    now: Timestamp,
) -> Result<(), Error> {
    let notices = serde_json::to_string(notices).map_err(|e| Error::Damaged(e.to_string()))?;
    tx.execute(sql::INSERT_EVENT, params![rev, now.micros(), notices])?;
    let oldest = now.plus_millis(-KEEP_MS).micros();
    for text in [sql::PRUNE_EVENTS, sql::PRUNE_ACKS, sql::PRUNE_NODES] {
        tx.execute(text, params![oldest])?;
    }
    Ok(())
}

#[async_trait]
impl PublishStore for SqliteConfig {
    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error> {
        self.0
            .read(move |tx| {
                let mut statement = tx.prepare_cached(sql::EVENTS)?;
                let mut found = statement.query(params![after, limit])?;
                let mut events = Vec::new();
                while let Some(row) = found.next()? {
                    events.push(event(row)?);
                }
                Ok(events)
            })
            .await
    }

    async fn acknowledge(&self, node: &str, rev: i64, at: Timestamp) -> Result<(), Error> {
        let node = node.to_owned();
        self.0
            .write(move |tx| {
                tx.execute(sql::SEE_NODE, params![node, rev, at.micros()])?;
                tx.execute(sql::INSERT_ACK, params![node, rev, at.micros()])?;
                Ok(())
            })
            .await
    }

    async fn acknowledged(&self, rev: i64) -> Result<Vec<NodeState>, Error> {
        self.0
            .read(move |tx| {
                let mut statement = tx.prepare_cached(sql::ACKNOWLEDGED)?;
                let states = statement.query_map(params![rev], |row| {
                    let seen_at = Timestamp::from_micros(row.get(2)?);
                    let applied_at = time(row, 3)?;
                    Ok(NodeState { node: row.get(0)?, rev: row.get(1)?, seen_at, applied_at })
                })?;
                Ok(states.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn scheduled(&self, now: Timestamp) -> Result<Vec<(Resource, Row)>, Error> {
        let read = move |tx: &Transaction<'_>| {
            let mut ahead = Vec::new();
            for resource in Resource::ALL.iter().copied() {
                let text = config_sql::in_force(resource);
                let found = rows(tx, resource, text, params![now.micros()])?;
                let found = found.into_iter().filter(|row| row.effective_from > now);
                ahead.extend(found.map(|row| (resource, row)));
            }
            ahead.sort_by_key(|(_, row): &(Resource, Row)| row.effective_from);
            Ok(ahead)
        };
        self.0.read(read).await
    }

    async fn hatches(&self) -> Result<Hatches, Error> {
        let read = |tx: &Transaction<'_>| {
            let gateway = tx.query_row(sql::GATEWAY, [], |row| {
                let (enabled, reason, actor) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(GatewaySwitch { enabled, reason, actor, changed_at: time(row, 3)? })
            })?;
            let mut statement = tx.prepare_cached(sql::CIRCUITS)?;
            let circuits = statement.query_map([], circuit)?.collect::<Result<_, _>>()?;
            Ok(Hatches { gateway, circuits })
        };
        self.0.read(read).await
    }

    async fn pull(&self, hatch: Hatch, actor: &Actor, now: Timestamp) -> Result<i64, Error> {
        let actor = actor.clone();
        self.0
            .write(move |tx| {
                let rev = raise_rev(tx)?;
                write(tx, &hatch, &actor, now)?;
                announce(tx, rev, &[hatch.notice()], now)?;
                insert_audit(tx, AuditRecord::of(&hatch, &actor, now), Some(rev))?;
                Ok(rev)
            })
            .await
    }
}

fn event(row: &rusqlite::Row<'_>) -> Result<Event, Error> {
    let notices: String = row.get(2)?;
    let notices = serde_json::from_str(&notices).map_err(|e| Error::Damaged(e.to_string()))?;
    Ok(Event { rev: row.get(0)?, at: Timestamp::from_micros(row.get(1)?), notices })
}

fn circuit(row: &rusqlite::Row<'_>) -> rusqlite::Result<ManualCircuit> {
    let (model, state): (String, String) = (row.get(1)?, row.get(2)?);
    Ok(ManualCircuit {
        channel: row.get(0)?,
        model: (!model.is_empty()).then_some(model),
        state: if state == Forced::Open.name() { Forced::Open } else { Forced::Closed },
        reason: row.get(3)?,
        actor: row.get(4)?,
        set_at: Timestamp::from_micros(row.get(5)?),
        expires_at: time(row, 6)?,
    })
}

fn write(tx: &Transaction<'_>, hatch: &Hatch, actor: &Actor, now: Timestamp) -> Result<(), Error> {
    let at = now.micros();
    match hatch {
        Hatch::Circuit { channel, model, state: Some(state), expires_at } => {
            let model = model.as_deref().unwrap_or_default();
            let end = micros(*expires_at);
            let values = params![channel, model, state.name(), actor.reason, actor.name, at, end];
            tx.execute(sql::SET_CIRCUIT, values)?;
        }
        Hatch::Circuit { channel, model: Some(model), state: None, .. } => {
            tx.execute(sql::RESET_CIRCUIT, params![channel, model])?;
        }
        Hatch::Circuit { channel, model: None, state: None, .. } => {
            tx.execute(sql::RESET_CHANNEL, params![channel])?;
        }
        Hatch::Gateway { enabled, .. } => {
            tx.execute(sql::SET_GATEWAY, params![enabled, actor.reason, actor.name, at])?;
        }
        Hatch::Forget { .. } => {}
    }
    Ok(())
}
