//! Hashes of keys and admin tokens on SQLite.
//!
//! The contract is in `keys`. Times are microseconds, bodies are JSON text.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, Transaction, params};

use anima_core::clock::Timestamp;
use anima_core::config::{Resource, Version};

use super::sql::{self, Part};
use super::{AdminToken, KeyRecord, KeyStore};
use crate::config::{Error, damaged};
use crate::sqlite::connections::Connections;

/// The hashes in a SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteKeys(pub(crate) Arc<Connections>);

#[async_trait]
impl KeyStore for SqliteKeys {
    async fn key(&self, kid: &str, now: Timestamp) -> Result<Option<KeyRecord>, Error> {
        let kid = kid.to_owned();
        self.0.read(move |tx| key(tx, &kid, now)).await
    }

    async fn admin_token(&self, hash: &[u8; 32]) -> Result<Option<AdminToken>, Error> {
        let hash = *hash;
        self.0
            .read(move |tx| {
                let mut statement = tx.prepare_cached(sql::ADMIN_TOKEN)?;
                let found = statement.query_row(params![hash], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                });
                found
                    .optional()?
                    .map(|(name, role)| sql::admin_token(name, &role, hash))
                    .transpose()
            })
            .await
    }

    async fn store_admin_token(&self, token: AdminToken, now: Timestamp) -> Result<(), Error> {
        self.0
            .write(move |tx| {
                tx.execute(sql::DELETE_ADMIN_TOKEN, params![token.name, token.hash])?;
                let values = params![token.name, token.role.name(), token.hash, now.micros()];
                tx.execute(sql::INSERT_ADMIN_TOKEN, values)?;
                Ok(())
            })
            .await
    }

    async fn count_admin_tokens(&self) -> Result<u64, Error> {
        let count = |tx: &Transaction<'_>| {
            Ok(tx.query_row(sql::COUNT_ADMIN_TOKENS, [], |row| row.get::<_, i64>(0))?)
        };
        Ok(self.0.read(count).await?.unsigned_abs())
    }
}

fn key(tx: &Transaction<'_>, kid: &str, now: Timestamp) -> Result<Option<KeyRecord>, Error> {
    let mut statement = tx.prepare_cached(sql::KEY)?;
    let mut found = statement.query(params![kid, now.micros()])?;
    let mut parts = Vec::new();
    while let Some(row) = found.next()? {
        parts.push(part(kid, row)?);
    }
    sql::record(kid, parts)
}

fn part(kid: &str, row: &rusqlite::Row<'_>) -> Result<Part, Error> {
    let to = row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros);
    match row.get::<_, i64>(0)? {
        0 => Ok(Part::Head),
        1 => Ok(Part::Secret { hash: row.get(8)?, expires_at: to }),
        2 => Ok(Part::Key(version(Resource::UserApiKey, row, to)?)),
        3 => Ok(Part::App(version(Resource::App, row, to)?)),
        other => Err(sql::unknown_part(kid, other)),
    }
}

fn version(
    resource: Resource,
    row: &rusqlite::Row<'_>,
    to: Option<Timestamp>,
) -> Result<crate::config::Row, Error> {
    let (code, version_no): (String, i64) = (row.get(1)?, row.get(3)?);
    let text: String = row.get(7)?;
    let body = serde_json::from_str(&text).map_err(|e| damaged(resource, &code, version_no, &e))?;
    Ok(Version {
        code,
        app: row.get(2)?,
        version_no,
        effective_from: Timestamp::from_micros(row.get(4)?),
        effective_to: to,
        enabled: row.get(6)?,
        body,
    })
}
