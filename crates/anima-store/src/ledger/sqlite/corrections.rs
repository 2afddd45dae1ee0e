//! What corrections rest on, on SQLite. Rare: nothing is done for a batch without one.
//!
//! Invariant: written in the transaction that posts the correction.

use rusqlite::{Transaction, params};

use crate::ledger::digest::source_name;
use crate::ledger::plan::{CorrectedRow, Plan};

/// Writes them.
pub(super) fn write(transaction: &Transaction<'_>, plan: &Plan<'_>) -> rusqlite::Result<()> {
    const CORRECTION: &str = "
        INSERT INTO correction (hold, seq, is_known, owed, priced, estimate, upward)
        VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6)";
    for row in &plan.corrections {
        transaction.prepare_cached(CORRECTION)?.execute(params![
            row.hold.as_bytes(),
            row.seq,
            row.owed,
            row.priced,
            row.estimate,
            row.upward,
        ])?;
    }
    plan.corrected.iter().try_for_each(|row| attempt(transaction, row))
}

fn attempt(transaction: &Transaction<'_>, row: &CorrectedRow<'_>) -> rusqlite::Result<()> {
    const ATTEMPT: &str = "
        INSERT INTO corrected_attempt (hold, n, seq, is_new, served, usage_source, usage, cost,
                                       cost_currency, cost_price_id, cost_estimate)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let told = row.attempt;
    let cost = told.and_then(|told| told.attempt.cost.as_ref());
    transaction.prepare_cached(ATTEMPT)?.execute(params![
        row.hold.as_bytes(),
        row.n,
        row.seq,
        row.is_new,
        told.is_some_and(|told| told.attempt.served),
        told.map_or("none", |told| source_name(told.attempt.usage_source)),
        told.map_or("{}", |told| told.usage),
        cost.map(|cost| cost.amount),
        cost.map(|cost| cost.currency.code()),
        told.and_then(|told| told.cost_price_id),
        cost.map(|cost| cost.estimate),
    ])?;
    Ok(())
}
