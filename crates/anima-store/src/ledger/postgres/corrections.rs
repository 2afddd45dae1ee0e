//! What corrections rest on, on PostgreSQL. Rare: a batch without one sends nothing here.
//!
//! Invariant: written in the transaction that posts the correction.

use deadpool_postgres::Object;
use tokio_postgres::Error;

use crate::ledger::digest::source_name;
use crate::ledger::plan::{CorrectedRow, Plan};

const CORRECTION: &str = "
    INSERT INTO correction (hold, seq, is_known, owed, priced, estimate, upward)
    VALUES ($1, $2, true, $3, $4, $5, $6)";

const ATTEMPT: &str = "
    INSERT INTO corrected_attempt (hold, n, seq, is_new, served, usage_source, usage, cost,
                                   cost_currency, cost_price_id, cost_estimate)
    VALUES ($1, $2, $3, $4, $5, $6, ($7::text)::jsonb, $8, $9, $10, $11)";

/// Writes them.
pub(super) async fn write(client: &Object, plan: &Plan<'_>) -> Result<(), Error> {
    for row in &plan.corrections {
        let statement = client.prepare_cached(CORRECTION).await?;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&row.hold, &row.seq, &row.owed, &row.priced, &row.estimate, &row.upward];
        client.execute(&statement, &values).await?;
    }
    for row in &plan.corrected {
        attempt(client, row).await?;
    }
    Ok(())
}

async fn attempt(client: &Object, row: &CorrectedRow<'_>) -> Result<(), Error> {
    let told = row.attempt;
    let cost = told.and_then(|told| told.attempt.cost.as_ref());
    let statement = client.prepare_cached(ATTEMPT).await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
        &row.hold,
        &row.n,
        &row.seq,
        &row.is_new,
        &told.is_some_and(|told| told.attempt.served),
        &told.map_or("none", |told| source_name(told.attempt.usage_source)),
        &told.map_or("{}", |told| told.usage),
        &cost.map(|cost| cost.amount),
        &cost.map(|cost| cost.currency.code()),
        &told.and_then(|told| told.cost_price_id),
        &cost.map(|cost| cost.estimate),
    ];
    client.execute(&statement, &values).await?;
    Ok(())
}
