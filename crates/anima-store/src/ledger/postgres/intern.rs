//! The ids of accounts and prices, looked up and made in bulk.
//!
//! In transactions of their own, before the batch's: no batch ever waits for another one's new
//! account. An account without postings that a failed batch leaves behind does no harm.
//! Invariant: rows are inserted in sorted order, so that two nodes cannot block each other.

use deadpool_postgres::Object;
use tokio_postgres::Error;

use anima_core::ledger::Normal;

use crate::ledger::directory::Missing;

const FIND: &str = "
    SELECT u.n, a.id
    FROM unnest($1::text[], $2::text[], $3::boolean[]) WITH ORDINALITY
         AS u (code, currency, is_gated, n)
    JOIN account a ON a.code = u.code AND a.currency = u.currency
    WHERE NOT u.is_gated OR EXISTS (SELECT 1 FROM gated_balance g WHERE g.account_id = a.id)";

const CURRENCIES: &str = "
    INSERT INTO currency (code, scale)
    SELECT DISTINCT u.code, u.scale FROM unnest($1::text[], $2::smallint[]) AS u (code, scale)
    ORDER BY u.code
    ON CONFLICT DO NOTHING";

const ACCOUNTS: &str = "
    INSERT INTO account (code, class, normal, currency)
    SELECT u.code, u.class, u.normal, u.currency
    FROM unnest($1::text[], $2::smallint[], $3::text[], $4::text[])
         AS u (code, class, normal, currency)
    ORDER BY u.code, u.currency
    ON CONFLICT DO NOTHING";

const GATES: &str = "
    INSERT INTO gated_balance (account_id)
    SELECT a.id
    FROM unnest($1::text[], $2::text[], $3::boolean[]) AS u (code, currency, is_gated)
    JOIN account a ON a.code = u.code AND a.currency = u.currency
    WHERE u.is_gated
    ORDER BY a.id
    ON CONFLICT DO NOTHING";

const FIND_PRICES: &str = "
    SELECT u.n, p.id
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS u (code, version_no, n)
    JOIN price_ref p ON p.code = u.code AND p.version_no = u.version_no";

const PRICES: &str = "
    INSERT INTO price_ref (code, version_no)
    SELECT u.code, u.version_no FROM unnest($1::text[], $2::bigint[]) AS u (code, version_no)
    ORDER BY u.code, u.version_no
    ON CONFLICT DO NOTHING";

/// Ids with the position, from 1, of what they are of.
pub(super) type Ids = Vec<(i64, i64)>;

/// The ids of the accounts. One that could not be made is left out.
pub(super) async fn accounts(client: &Object, missing: &Missing) -> Result<Ids, Error> {
    let wanted = &missing.accounts;
    let codes: Vec<_> = wanted.iter().map(|(account, _)| account.to_string()).collect();
    let currencies: Vec<_> = wanted.iter().map(|(_, currency)| currency.code()).collect();
    let gates: Vec<_> = wanted.iter().map(|(account, _)| account.is_gated()).collect();
    let find = client.prepare_cached(FIND).await?;
    let found = ids(&client.query(&find, &[&codes, &currencies, &gates]).await?)?;
    if found.len() == wanted.len() {
        return Ok(found);
    }
    let scales: Vec<_> = wanted.iter().map(|(_, currency)| i16::from(currency.scale())).collect();
    let classes: Vec<_> = wanted.iter().map(|(account, _)| account.class()).collect();
    let normals: Vec<_> = wanted.iter().map(|(account, _)| letter(account.normal())).collect();
    client.execute(CURRENCIES, &[&currencies, &scales]).await?;
    client.execute(ACCOUNTS, &[&codes, &classes, &normals, &currencies]).await?;
    client.execute(GATES, &[&codes, &currencies, &gates]).await?;
    ids(&client.query(&find, &[&codes, &currencies, &gates]).await?)
}

/// The ids of the prices.
pub(super) async fn prices(client: &Object, missing: &Missing) -> Result<Ids, Error> {
    let codes: Vec<_> = missing.prices.iter().map(|price| &*price.code).collect();
    let versions: Vec<_> = missing.prices.iter().map(|price| price.version_no).collect();
    let find = client.prepare_cached(FIND_PRICES).await?;
    let found = ids(&client.query(&find, &[&codes, &versions]).await?)?;
    if found.len() == codes.len() {
        return Ok(found);
    }
    client.execute(PRICES, &[&codes, &versions]).await?;
    ids(&client.query(&find, &[&codes, &versions]).await?)
}

fn ids(rows: &[tokio_postgres::Row]) -> Result<Ids, Error> {
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

const fn letter(normal: Normal) -> &'static str {
    match normal {
        Normal::Debit => "D",
        Normal::Credit => "C",
    }
}
