//! Writes a plan's rows on SQLite, table by table, with statements that stay compiled.
//!
//! Nothing is decided here. Invariant: a hold that is closed was open and ours in this very
//! transaction, or the transaction fails.

use rusqlite::{Transaction, params};
use uuid::Uuid;

use anima_core::clock::Timestamp;

use crate::ledger::digest::source_name;
use crate::ledger::plan::{Known, Plan, day, ppm};

mod open; // extensions and checkpoints

/// Writes everything that the plan and the judged wallets say.
pub(super) fn write(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    known: &Known,
    node: Uuid,
    posted_at: Timestamp,
) -> rusqlite::Result<()> {
    holds(transaction, plan, node)?;
    open::extensions(transaction, plan, node)?;
    closings(transaction, plan, node)?;
    open::checkpoints(transaction, plan, node)?;
    journals(transaction, plan, posted_at)?;
    legs(transaction, plan)?;
    attempts(transaction, plan)?;
    super::credit::write(transaction, plan)?;
    super::corrections::write(transaction, plan)?;
    wallets(transaction, known)?;
    house(transaction, plan, posted_at)
}

fn holds(transaction: &Transaction<'_>, plan: &Plan<'_>, node: Uuid) -> rusqlite::Result<()> {
    const OPEN: &str = "
        INSERT INTO hold (id, app, kid, alias, account_id, node, amount, currency, price_id,
                          created_at, expires_at, multiplier, channel, cost_cap, cost_currency,
                          cost_price_id, fx_id)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    if plan.holds.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(OPEN)?;
    for row in &plan.holds {
        let hold = row.hold;
        let exposure = hold.exposure.as_ref();
        statement.execute(params![
            hold.id.as_bytes(),
            &*hold.app,
            &*hold.kid,
            &*hold.alias,
            row.account_id,
            node.as_bytes(),
            hold.amount,
            hold.currency.code(),
            row.price_id,
            hold.created_at.micros(),
            hold.expires_at.micros(),
            ppm(hold.multiplier),
            exposure.map(|e| &*e.channel),
            exposure.map(|e| e.amount),
            exposure.map(|e| e.currency.code()),
            row.cost_price_id,
            row.fx_id,
        ])?;
    }
    Ok(())
}

fn closings(transaction: &Transaction<'_>, plan: &Plan<'_>, node: Uuid) -> rusqlite::Result<()> {
    // What only others need who would have to end the call goes.
    const CLOSE: &str = "
        UPDATE hold SET state = ?3, settled = ?4, uncollected = ?5, digest = ?6, closed_at = ?7,
                        phase = 0, progress = 0, trail = NULL, upstream_ref = NULL,
                        channel = NULL, cost_cap = NULL, cost_currency = NULL,
                        cost_price_id = NULL
        WHERE id = ?1 AND node = ?2 AND state IN ('HELD', 'UNKNOWN')";
    if plan.closings.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(CLOSE)?;
    for row in &plan.closings {
        let state = if row.settled.is_some() { "SETTLED" } else { "RELEASED" };
        let changed = statement.execute(params![
            row.id.as_bytes(),
            node.as_bytes(),
            state,
            row.settled,
            row.uncollected,
            row.digest,
            row.at.micros(),
        ])?;
        if changed != 1 {
            return Err(rusqlite::Error::StatementChangedRows(changed));
        }
    }
    Ok(())
}

fn journals(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    posted_at: Timestamp,
) -> rusqlite::Result<()> {
    const POST: &str = "
        INSERT INTO journal (id, kind, subject, seq, at, posted_at, estimate, digest, reference)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    if plan.journals.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(POST)?;
    for row in &plan.journals {
        let (subject, kind, seq) = row.key;
        statement.execute(params![
            row.id.as_bytes(),
            kind,
            subject.as_bytes(),
            seq,
            row.at.micros(),
            posted_at.micros(),
            row.estimate,
            row.digest,
            row.reference,
        ])?;
    }
    Ok(())
}

fn legs(transaction: &Transaction<'_>, plan: &Plan<'_>) -> rusqlite::Result<()> {
    const LEG: &str = "
        INSERT INTO leg (journal, n, debit_id, credit_id, amount, currency, component, attempt,
                         price_id, estimate)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    if plan.legs.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(LEG)?;
    for row in &plan.legs {
        statement.execute(params![
            row.journal.as_bytes(),
            row.n,
            row.debit_id,
            row.credit_id,
            row.amount,
            row.currency.code(),
            row.component,
            row.attempt,
            row.price_id,
            row.estimate,
        ])?;
    }
    Ok(())
}

fn attempts(transaction: &Transaction<'_>, plan: &Plan<'_>) -> rusqlite::Result<()> {
    const ATTEMPT: &str = "
        INSERT INTO attempt (hold, n, channel, credential, model, outcome, served, usage_source,
                             usage, cost, cost_currency, cost_price_id, cost_estimate,
                             upstream_ref, started_at, first_byte_at, ended_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
    if plan.attempts.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(ATTEMPT)?;
    for row in &plan.attempts {
        let attempt = row.attempt;
        let cost = attempt.cost.as_ref();
        statement.execute(params![
            row.hold.as_bytes(),
            attempt.n,
            &*attempt.channel,
            &*attempt.credential,
            &*attempt.model,
            attempt.outcome,
            attempt.served,
            source_name(attempt.usage_source),
            row.usage,
            cost.map(|c| c.amount),
            cost.map(|c| c.currency.code()),
            row.cost_price_id,
            cost.map(|c| c.estimate),
            attempt.upstream_ref,
            attempt.started_at.micros(),
            attempt.first_byte_at.map(Timestamp::micros),
            attempt.ended_at.micros(),
        ])?;
    }
    Ok(())
}

fn wallets(transaction: &Transaction<'_>, known: &Known) -> rusqlite::Result<()> {
    const WALLET: &str = "
        UPDATE gated_balance SET debits = ?2, credits = ?3, held = ?4, floor = ?5, promo = ?6
        WHERE account_id = ?1";
    let mut statement = transaction.prepare_cached(WALLET)?;
    for (account_id, wallet) in known.wallets.iter().filter(|(_, wallet)| wallet.changed) {
        statement.execute(params![
            account_id,
            wallet.debits,
            wallet.credits,
            wallet.held,
            wallet.floor,
            wallet.promo
        ])?;
    }
    Ok(())
}

fn house(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    posted_at: Timestamp,
) -> rusqlite::Result<()> {
    const HOUSE: &str = "
        INSERT INTO house_balance (account_id, day, debits, credits) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (account_id, day) DO UPDATE
        SET debits = debits + excluded.debits, credits = credits + excluded.credits";
    if plan.house.is_empty() {
        return Ok(());
    }
    let day = day(posted_at);
    let mut statement = transaction.prepare_cached(HOUSE)?;
    for (account_id, (debits, credits)) in &plan.house {
        // Binding a number of more than 64 bits fails, which refuses the batch.
        let debits = i64::try_from(*debits).map_err(out_of_range)?;
        let credits = i64::try_from(*credits).map_err(out_of_range)?;
        statement.execute(params![account_id, day, debits, credits])?;
    }
    Ok(())
}

fn out_of_range(error: std::num::TryFromIntError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}
