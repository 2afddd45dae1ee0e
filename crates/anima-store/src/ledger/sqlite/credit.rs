//! Promotional credit on SQLite: read with the wallets, written with the settlements that use it.
//!
//! Invariant: read in the transaction that the writes belong to.

use rusqlite::{Error, Row, Transaction};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::promo::Credit;

use crate::ledger::plan::{Known, Plan, ReturnRow};

/// Reads the grants of the wallets that have any.
pub(super) fn load(transaction: &Transaction<'_>, known: &mut Known) -> rusqlite::Result<()> {
    const CREDITS: &str = "
        SELECT id, amount - used - expired, expires_at FROM promo_grant
        WHERE account_id = ?1 AND used + expired < amount";
    for (account_id, _) in known.wallets.iter().filter(|(_, wallet)| wallet.promo > 0) {
        let mut statement = transaction.prepare_cached(CREDITS)?;
        let credits = statement.query_map([account_id], credit)?;
        known.credits.insert(*account_id, credits.collect::<rusqlite::Result<_>>()?);
    }
    Ok(())
}

fn credit(row: &Row<'_>) -> rusqlite::Result<Credit> {
    Ok(Credit {
        id: Uuid::from_bytes(row.get(0)?),
        left: row.get(1)?,
        expires_at: Timestamp::from_micros(row.get(2)?),
    })
}

/// Writes what settlements and corrections take of grants, and what corrections give back.
pub(super) fn write(transaction: &Transaction<'_>, plan: &Plan<'_>) -> rusqlite::Result<()> {
    const USE: &str = "
        INSERT INTO promo_use (hold, grant_id, amount) VALUES (?1, ?2, ?3)
        ON CONFLICT (hold, grant_id) DO UPDATE SET amount = amount + excluded.amount";
    const TAKE: &str = "UPDATE promo_grant SET used = used + ?2 WHERE id = ?1";
    for row in &plan.uses {
        let (hold, grant) = (row.hold.into_bytes(), row.taken.id.into_bytes());
        transaction.prepare_cached(USE)?.execute((hold, grant, row.taken.amount))?;
        one(transaction.prepare_cached(TAKE)?.execute((grant, row.taken.amount))?)?;
    }
    plan.returns.iter().try_for_each(|row| give_back(transaction, row))
}

fn give_back(transaction: &Transaction<'_>, row: &ReturnRow) -> rusqlite::Result<()> {
    const USES: &str = "
        SELECT u.grant_id, u.amount - u.returned
        FROM promo_use u JOIN promo_grant g ON g.id = u.grant_id
        WHERE u.hold = ?1 AND u.returned < u.amount ORDER BY g.expires_at DESC, g.id DESC";
    const RETURN: &str =
        "UPDATE promo_use SET returned = returned + ?3 WHERE hold = ?1 AND grant_id = ?2";
    const GIVE: &str = "UPDATE promo_grant SET used = used - ?2 WHERE id = ?1";
    let hold = row.hold.into_bytes();
    let mut statement = transaction.prepare_cached(USES)?;
    let uses = statement.query_map([hold], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut left = row.amount;
    for used in uses.collect::<rusqlite::Result<Vec<([u8; 16], i64)>>>()? {
        let (grant, part) = (used.0, used.1.min(left));
        if part > 0 {
            one(transaction.prepare_cached(RETURN)?.execute((hold, grant, part))?)?;
            one(transaction.prepare_cached(GIVE)?.execute((grant, part))?)?;
            left = left.saturating_sub(part);
        }
    }
    if left > 0 { Err(Error::StatementChangedRows(0)) } else { Ok(()) }
}

const fn one(changed: usize) -> rusqlite::Result<()> {
    if changed == 1 { Ok(()) } else { Err(Error::StatementChangedRows(changed)) }
}
