//! Leases and claims on PostgreSQL, beside the writers.
//!
//! The server's clock alone says whether a lease is over. A claim skips rows that somebody else has
//! locked: another claim takes them, or their owner is about to close them. The owner's lease is
//! looked up in a subquery and not in a join, because only that is done again for a row that
//! changed between the snapshot and the lock. Invariant: nothing here waits for a lock while it
//! holds one on a hold.

use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, IsolationLevel, Row};
use uuid::Uuid;

use crate::ledger::Registration;
use crate::ledger::claim::{ClaimedRow, micros};
use crate::ledger::control::{
    FORGET, IS_UP, OVERDUE, REGISTER, RELEASE, REMEMBERED, RENEW, claimed,
};
use crate::ledger::epoch::Node;

const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// As for the writers: on disk, and never by scanning a table whose plan is from when it was small.
const CAREFULLY: &str = "
    SET LOCAL enable_seqscan = off;
    SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off'";

/// Nodes whose lease is over: now, this node.
const MISSED: &str = "
    UPDATE node_lease SET state = 'DEAD'
    WHERE id IN (
        SELECT id FROM node_lease WHERE state = 'UP' AND expires_at < $1 AND id <> $2
        ORDER BY id FOR UPDATE SKIP LOCKED)";

/// Node, now, when they must be resolved, most.
const CLAIM: &str = "
    UPDATE hold h SET node = $1, state = 'UNKNOWN', expires_at = $3
    WHERE h.id IN (
        SELECT o.id FROM hold o
        WHERE o.state IN ('HELD', 'UNKNOWN') AND o.node <> $1
          AND CASE (SELECT l.state FROM node_lease l WHERE l.id = o.node)
              WHEN 'UP' THEN false WHEN 'DEAD' THEN true WHEN 'RECOVERED' THEN true
              ELSE o.expires_at < $2 END
        ORDER BY o.expires_at, o.id
        LIMIT $4
        FOR UPDATE SKIP LOCKED)
    RETURNING h.id";

/// Node, overdue since before, when they must be resolved, not these.
const CLAIM_OVERDUE: &str = "
    UPDATE hold h SET state = 'UNKNOWN', expires_at = $3
    WHERE h.id IN (
        SELECT o.id FROM hold o
        WHERE o.node = $1 AND o.state = 'HELD' AND o.state IN ('HELD', 'UNKNOWN')
          AND o.expires_at < $2 AND o.id <> ALL ($4)
        FOR UPDATE SKIP LOCKED)";

/// Nodes that are gone and have nothing left to take over.
const RECOVERED: &str = "
    UPDATE node_lease SET state = 'RECOVERED'
    WHERE id IN (
        SELECT l.id FROM node_lease l
        WHERE l.state = 'DEAD' AND NOT EXISTS (
            SELECT 1 FROM hold h WHERE h.node = l.id AND h.state IN ('HELD', 'UNKNOWN'))
        ORDER BY l.id FOR UPDATE SKIP LOCKED)";

const CLAIMED: &str = claimed!("WHERE h.id = ANY($1)");

async fn begin(client: &mut Object) -> Result<(Transaction<'_>, i64), Error> {
    let level = IsolationLevel::ReadCommitted;
    let transaction = client.build_transaction().isolation_level(level).start().await?;
    transaction.batch_execute(CAREFULLY).await?;
    let now = transaction.query_one(CLOCK, &[]).await?.try_get(0)?;
    Ok((transaction, now))
}

/// Takes a lease. `false` when the id was used before.
pub(super) async fn register(client: &mut Object, node: &Registration) -> Result<bool, Error> {
    const KNOWN: &str = "SELECT 1 FROM node_lease WHERE id = $1";
    let (transaction, now) = begin(client).await?;
    if !transaction.query(KNOWN, &[&node.node]).await?.is_empty() {
        return Ok(false);
    }
    transaction.execute(FORGET, &[&now.saturating_sub(REMEMBERED)]).await?;
    let end = now.saturating_add(micros(node.ttl));
    transaction.execute(REGISTER, &[&node.node, &node.host, &now, &end]).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Renews a lease. `false` when it was taken away.
pub(super) async fn renew(client: &mut Object, node: Uuid, ttl: Duration) -> Result<bool, Error> {
    let (transaction, now) = begin(client).await?;
    let end = now.saturating_add(micros(ttl));
    let renewed = transaction.execute(RENEW, &[&end, &node]).await?;
    transaction.commit().await?;
    Ok(renewed == 1)
}

pub(super) async fn release(client: &mut Object, node: Uuid) -> Result<(), Error> {
    let (transaction, now) = begin(client).await?;
    transaction.execute(RELEASE, &[&now, &node]).await?;
    transaction.commit().await
}

/// Takes holds over. `None` when this node's own lease was taken away.
pub(super) async fn claim(
    client: &mut Object,
    node: Node,
    limit: usize,
    within: Duration,
) -> Result<Option<Vec<ClaimedRow>>, Error> {
    let (transaction, now) = begin(client).await?;
    if node.has_lease && transaction.query(IS_UP, &[&node.id]).await?.is_empty() {
        return Ok(None);
    }
    transaction.execute(MISSED, &[&now, &node.id]).await?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let end = now.saturating_add(micros(within));
    let parameters: [&(dyn ToSql + Sync); 4] = [&node.id, &now, &end, &most];
    let claimed = transaction.query(CLAIM, &parameters).await?;
    if claimed.len() < limit {
        transaction.execute(RECOVERED, &[]).await?;
    }
    let ids = claimed.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Uuid>, _>>()?;
    let rows = transaction.query(CLAIMED, &[&ids]).await?;
    transaction.commit().await?;
    rows.iter().map(claimed_row).collect::<Result<_, _>>().map(Some)
}

/// Takes over this node's own holds whose time is long over. `None` when its lease was taken away.
pub(super) async fn claim_overdue(
    client: &mut Object,
    node: Node,
    spared: &[Uuid],
    within: Duration,
) -> Result<Option<u64>, Error> {
    let (transaction, now) = begin(client).await?;
    if node.has_lease && transaction.query(IS_UP, &[&node.id]).await?.is_empty() {
        return Ok(None);
    }
    let (since, end) = (now.saturating_sub(OVERDUE), now.saturating_add(micros(within)));
    let parameters: [&(dyn ToSql + Sync); 4] = [&node.id, &since, &end, &spared];
    let claimed = transaction.execute(CLAIM_OVERDUE, &parameters).await?;
    transaction.commit().await?;
    Ok(Some(claimed))
}

/// A row of [`claimed!`].
pub(super) fn claimed_row(row: &Row) -> Result<ClaimedRow, Error> {
    let cost_price: (Option<String>, Option<i64>) = (row.try_get(12)?, row.try_get(13)?);
    let fx: (Option<String>, Option<i64>) = (row.try_get(19)?, row.try_get(20)?);
    Ok(ClaimedRow {
        id: row.try_get(0)?,
        app: row.try_get(1)?,
        kid: row.try_get(2)?,
        alias: row.try_get(3)?,
        currency: row.try_get(4)?,
        amount: row.try_get(5)?,
        sale_price: (row.try_get(6)?, row.try_get(7)?),
        multiplier: row.try_get(8)?,
        channel: row.try_get(9)?,
        cost_cap: row.try_get(10)?,
        cost_currency: row.try_get(11)?,
        cost_price: cost_price.0.zip(cost_price.1),
        fx: fx.0.zip(fx.1),
        created_at: row.try_get(14)?,
        expires_at: row.try_get(15)?,
        phase: row.try_get(16)?,
        progress: row.try_get(17)?,
        trail: row.try_get(18)?,
    })
}
