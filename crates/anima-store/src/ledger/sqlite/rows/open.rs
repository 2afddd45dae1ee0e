//! Writes what happens to open holds on SQLite: more money, and how far they have come.
//!
//! Invariant: a hold that is extended was open and ours in this very transaction, or it fails; one
//! that is not, is not touched by a checkpoint.

use rusqlite::{Transaction, params};
use uuid::Uuid;

use crate::ledger::plan::Plan;

pub(super) fn extensions(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    node: Uuid,
) -> rusqlite::Result<()> {
    const EXTEND: &str = "
        UPDATE hold SET amount = ?3
        WHERE id = ?1 AND node = ?2 AND state IN ('HELD', 'UNKNOWN')";
    if plan.extensions.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(EXTEND)?;
    for (id, (_, amount)) in &plan.extensions {
        let changed = statement.execute(params![id.as_bytes(), node.as_bytes(), amount])?;
        if changed != 1 {
            return Err(rusqlite::Error::StatementChangedRows(changed));
        }
    }
    Ok(())
}

pub(super) fn checkpoints(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    node: Uuid,
) -> rusqlite::Result<()> {
    const CHECKPOINT: &str = "
        UPDATE hold SET phase = ?3, progress = ?4, upstream_ref = ?5, trail = ?6, expires_at = ?7
        WHERE id = ?1 AND node = ?2 AND state = 'HELD'
          AND (?8, ?3, ?4) >= (coalesce(json_extract(trail, '$.running.n'), 0), phase, progress)";
    if plan.checkpoints.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(CHECKPOINT)?;
    for (id, row) in &plan.checkpoints {
        let checkpoint = &row.checkpoint;
        statement.execute(params![
            id.as_bytes(),
            node.as_bytes(),
            checkpoint.phase.number(),
            checkpoint.progress,
            row.upstream_ref(),
            row.trail,
            checkpoint.expires_at.micros(),
            row.attempt(),
        ])?;
    }
    Ok(())
}
