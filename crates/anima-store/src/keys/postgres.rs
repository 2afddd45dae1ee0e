//! Hashes of keys and admin tokens on PostgreSQL.
//!
//! The contract is in `keys`. A key's look-up is one statement and one round trip.

use async_trait::async_trait;
use deadpool_postgres::Pool;

use anima_core::clock::Timestamp;
use anima_core::config::Version;

use super::sql::{self, Part};
use super::{AdminToken, KeyRecord, KeyStore};
use crate::config::Error;
use crate::postgres::At;

/// The hashes in a PostgreSQL database.
#[derive(Clone)]
pub(crate) struct PostgresKeys(pub(crate) Pool);

impl std::fmt::Debug for PostgresKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresKeys").field(&self.0.status()).finish()
    }
}

#[async_trait]
impl KeyStore for PostgresKeys {
    async fn key(&self, kid: &str, now: Timestamp) -> Result<Option<KeyRecord>, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::KEY).await?;
        let rows = client.query(&statement, &[&kid, &At(now)]).await?;
        let parts = rows.iter().map(|row| part(kid, row)).collect::<Result<_, _>>()?;
        sql::record(kid, parts)
    }

    async fn admin_token(&self, hash: &[u8; 32]) -> Result<Option<AdminToken>, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::ADMIN_TOKEN).await?;
        let Some(row) = client.query_opt(&statement, &[&hash.as_slice()]).await? else {
            return Ok(None);
        };
        let role: String = row.try_get(1)?;
        sql::admin_token(row.try_get(0)?, &role, *hash).map(Some)
    }

    async fn store_admin_token(&self, token: AdminToken, now: Timestamp) -> Result<(), Error> {
        let mut client = self.0.get().await?;
        let tx = client.transaction().await?;
        let hash = token.hash.as_slice();
        tx.batch_execute(sql::LOCK_ADMIN_TOKENS).await?;
        tx.execute(sql::DELETE_ADMIN_TOKEN, &[&token.name, &hash]).await?;
        let role = token.role.name();
        tx.execute(sql::INSERT_ADMIN_TOKEN, &[&token.name, &role, &hash, &At(now)]).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn count_admin_tokens(&self) -> Result<u64, Error> {
        let client = self.0.get().await?;
        let row = client.query_one(sql::COUNT_ADMIN_TOKENS, &[]).await?;
        Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
    }
}

fn part(kid: &str, row: &tokio_postgres::Row) -> Result<Part, Error> {
    match row.try_get::<_, i32>(0)? {
        0 => Ok(Part::Head),
        1 => Ok(Part::Secret { hash: row.try_get(8)?, expires_at: time(row, 5)? }),
        2 => Ok(Part::Key(version(row)?)),
        3 => Ok(Part::App(version(row)?)),
        other => Err(sql::unknown_part(kid, other.into())),
    }
}

fn version(row: &tokio_postgres::Row) -> Result<crate::config::Row, Error> {
    Ok(Version {
        code: row.try_get(1)?,
        app: row.try_get(2)?,
        version_no: row.try_get(3)?,
        effective_from: row.try_get::<_, At>(4)?.0,
        effective_to: time(row, 5)?,
        enabled: row.try_get(6)?,
        body: row.try_get(7)?,
    })
}

fn time(row: &tokio_postgres::Row, column: usize) -> Result<Option<Timestamp>, Error> {
    Ok(row.try_get::<_, Option<At>>(column)?.map(|at| at.0))
}
