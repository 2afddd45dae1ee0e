//! Idempotency records on PostgreSQL.
//!
//! The contract is in `idempotency`. Every step is one statement that commits by itself; the server
//! shares its commits among them. Invariant: a claim is made by an insert that did not conflict, or
//! by an update of exactly the record that was judged.

use async_trait::async_trait;
use deadpool_postgres::Pool;
use tokio_postgres::Row;
use uuid::Uuid;

use anima_core::clock::Timestamp;

use super::judge::{Record, judge};
use super::{Claim, Ending, IdempotencyStore, UsedKey, Verdict, sql};
use crate::config::Error;

/// How often a claim is tried while others change the record under it. Each try that fails means
/// that another one went on.
const TRIES: usize = 16;

/// The records in a PostgreSQL database.
#[derive(Clone)]
pub(crate) struct PostgresIdempotency(pub(crate) Pool);

impl std::fmt::Debug for PostgresIdempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PostgresIdempotency").field(&self.0.status()).finish()
    }
}

impl PostgresIdempotency {
    async fn record(&self, claim: &Claim) -> Result<Option<Record>, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::RECORD).await?;
        let found = client.query_opt(&statement, &[&&*claim.kid, &&claim.key_hash[..]]).await?;
        Ok(found.as_ref().map(record).transpose()?)
    }

    async fn insert(&self, claim: &Claim) -> Result<bool, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::CLAIM).await?;
        let (at, stale, expires) = times(claim);
        let content = &claim.content_hash[..];
        let inserted = client
            .execute(
                &statement,
                &[
                    &&*claim.kid,
                    &&claim.key_hash[..],
                    &content,
                    &claim.call,
                    &claim.node,
                    &at,
                    &stale,
                    &expires,
                ],
            )
            .await?;
        Ok(inserted > 0)
    }

    async fn take_over(&self, claim: &Claim, record: &Record) -> Result<bool, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::TAKE_OVER).await?;
        let (at, stale, expires) = times(claim);
        let taken = client
            .execute(
                &statement,
                &[
                    &&claim.content_hash[..],
                    &claim.call,
                    &claim.node,
                    &at,
                    &stale,
                    &expires,
                    &&*claim.kid,
                    &&claim.key_hash[..],
                    &record.call,
                    &record.state,
                ],
            )
            .await?;
        Ok(taken > 0)
    }
}

#[async_trait]
impl IdempotencyStore for PostgresIdempotency {
    async fn claim(&self, claim: &Claim) -> Result<Verdict, Error> {
        for _ in 0..TRIES {
            if self.insert(claim).await? {
                return Ok(Verdict::Fresh);
            }
            let Some(record) = self.record(claim).await? else {
                continue;
            };
            if let Some(verdict) = judge(&record, claim) {
                return Ok(verdict);
            }
            if self.take_over(claim, &record).await? {
                return Ok(Verdict::Fresh);
            }
        }
        Err(Error::Unavailable("the record changed too often".to_owned()))
    }

    async fn end(&self, claim: &Claim, ending: Ending) -> Result<bool, Error> {
        let (state, answer) = sql::ended(ending);
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::END).await?;
        let key = &claim.key_hash[..];
        let changed =
            client.execute(&statement, &[&state, &answer, &&*claim.kid, &key, &claim.call]).await?;
        Ok(changed > 0)
    }

    async fn retire(&self, key: &UsedKey, call: Uuid) -> Result<bool, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::RETIRE).await?;
        let hash = &key.hash[..];
        let retired =
            client.execute(&statement, &[&sql::NO_ANSWER, &&*key.kid, &hash, &call]).await?;
        if retired > 0 {
            return Ok(true);
        }
        let statement = client.prepare_cached(sql::HAS_ENDED).await?;
        Ok(client.query_opt(&statement, &[&&*key.kid, &hash, &call]).await?.is_some())
    }

    async fn abandon(&self, claim: &Claim) -> Result<(), Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::ABANDON).await?;
        let key = &claim.key_hash[..];
        client.execute(&statement, &[&&*claim.kid, &key, &claim.call]).await?;
        Ok(())
    }

    async fn sweep(&self, now: Timestamp, most: u32) -> Result<u64, Error> {
        let client = self.0.get().await?;
        let statement = client.prepare_cached(sql::SWEEP).await?;
        Ok(client.execute(&statement, &[&now.micros(), &i64::from(most)]).await?)
    }
}

const fn times(claim: &Claim) -> (i64, i64, i64) {
    (claim.at.micros(), claim.stale_at.micros(), claim.expires_at.micros())
}

fn record(row: &Row) -> Result<Record, tokio_postgres::Error> {
    let hash: Vec<u8> = row.try_get(0)?;
    Ok(Record {
        // The column's check holds its length.
        content_hash: hash.try_into().unwrap_or([0; 32]),
        call: row.try_get(1)?,
        state: row.try_get(2)?,
        answer: row.try_get(3)?,
        stale_at: row.try_get(4)?,
        expires_at: row.try_get(5)?,
        hold: row.try_get(6)?,
        closed_at: row.try_get(7)?,
        is_orphaned: row.try_get(8)?,
    })
}
