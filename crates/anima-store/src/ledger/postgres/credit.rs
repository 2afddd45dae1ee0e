//! Promotional credit on PostgreSQL: read under the wallets' locks, written before the rest.
//!
//! A batch without promotional credit sends nothing here; one with it waits for a round trip more.
//! Grants need no lock of their own: whoever moves one holds its wallet's. Invariant: a correction
//! gives back exactly what its wallet got back, or the transaction fails.

use deadpool_postgres::Object;
use tokio_postgres::Error;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::promo::Credit;

use crate::ledger::plan::{Known, Plan};

const CREDITS: &str = "
    SELECT account_id, id, amount - used - expired, expires_at FROM promo_grant
    WHERE account_id = ANY($1) AND used + expired < amount";

const USE: &str = "
    WITH used AS (
        INSERT INTO promo_use AS p (hold, grant_id, amount)
        SELECT u.hold, u.grant_id, sum(u.amount)::bigint
        FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS u (hold, grant_id, amount)
        GROUP BY u.hold, u.grant_id
        ON CONFLICT (hold, grant_id) DO UPDATE SET amount = p.amount + excluded.amount
    ), taken AS (
        UPDATE promo_grant g SET used = g.used + s.amount
        FROM (SELECT u.grant_id, sum(u.amount)::bigint AS amount
              FROM unnest($2::uuid[], $3::bigint[]) AS u (grant_id, amount)
              GROUP BY u.grant_id) s
        WHERE g.id = s.grant_id
        RETURNING 1
    )
    SELECT expect_rows((SELECT count(*) FROM taken),
                       (SELECT count(DISTINCT u) FROM unnest($2::uuid[]) AS u))";

/// The last grant that was used is the first that gets back.
const RETURN: &str = "
    WITH room AS (
        SELECT u.grant_id, u.amount - u.returned AS room,
               sum(u.amount - u.returned) OVER (ORDER BY g.expires_at DESC, g.id DESC)
               - (u.amount - u.returned) AS before
        FROM promo_use u JOIN promo_grant g ON g.id = u.grant_id
        WHERE u.hold = $1 AND u.returned < u.amount
    ), part AS (
        SELECT grant_id, LEAST(room, $2::bigint - before)::bigint AS amount
        FROM room WHERE before < $2::bigint
    ), used AS (
        UPDATE promo_use u SET returned = u.returned + p.amount
        FROM part p WHERE u.hold = $1 AND u.grant_id = p.grant_id
    ), given AS (
        UPDATE promo_grant g SET used = g.used - p.amount
        FROM part p WHERE g.id = p.grant_id
    )
    SELECT expect_rows((SELECT COALESCE(sum(amount), 0)::bigint FROM part), $2::bigint)";

/// Reads the grants of the wallets that have any.
pub(super) async fn load(client: &Object, known: &mut Known) -> Result<(), Error> {
    let accounts = known.wallets.iter().filter(|(_, wallet)| wallet.promo > 0);
    let accounts: Vec<i64> = accounts.map(|(account_id, _)| *account_id).collect();
    if accounts.is_empty() {
        return Ok(());
    }
    let statement = client.prepare_cached(CREDITS).await?;
    for row in client.query(&statement, &[&accounts]).await? {
        let credit = Credit {
            id: row.try_get(1)?,
            left: row.try_get(2)?,
            expires_at: Timestamp::from_micros(row.try_get(3)?),
        };
        known.credits.entry(row.try_get(0)?).or_default().push(credit);
    }
    Ok(())
}

/// Writes what settlements and corrections take of grants, and what corrections give back.
pub(super) async fn write(client: &Object, plan: &Plan<'_>) -> Result<(), Error> {
    if !plan.uses.is_empty() {
        let holds: Vec<Uuid> = plan.uses.iter().map(|row| row.hold).collect();
        let grants: Vec<Uuid> = plan.uses.iter().map(|row| row.taken.id).collect();
        let amounts: Vec<i64> = plan.uses.iter().map(|row| row.taken.amount).collect();
        let statement = client.prepare_cached(USE).await?;
        client.execute(&statement, &[&holds, &grants, &amounts]).await?;
    }
    for row in &plan.returns {
        let statement = client.prepare_cached(RETURN).await?;
        client.execute(&statement, &[&row.hold, &row.amount]).await?;
    }
    Ok(())
}
