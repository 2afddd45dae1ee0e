//! Keys and the configuration in Redis, between memory and the database (SPEC 5: L2).
//!
//! Keys are read from here before the database, and in its place while it is down. Each record is
//! sealed under the master key, bound to its key, and stamped with a revision that its node had
//! seen before it read the record. The configuration is kept whole at each change, for nodes that
//! start while the database is down. Invariant: a record is used only when its stamp is not behind
//! any change that this node has seen, so that no change and no revocation that is known here is
//! undone by the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use anima_core::clock::Timestamp;
use anima_core::config::{App, Key, Resource, Tables, Version};
use anima_store::config::publish::Hatches;
use anima_store::config::{
    Actor, AuditRecord, Batch, Committed, ConfigStore, Error, Page, Rejected, Row,
};
use anima_store::database::Stores;
use anima_store::keys::{AdminToken, KeyRecord, KeyStore, SecretHash};
use anima_store::redis_keys;
use anima_store::shared::Shared;

use crate::dependencies::Dependencies;
use crate::metrics::Metrics;
use crate::secrets::Secrets;

/// How long a record is kept: how long reads go on without a database.
const KEEP: Duration = Duration::from_mins(10);

/// How long the configuration is kept (`reliability` 5). It is written again at each change and at
/// each of the periodic comparisons, so it ends only where all nodes are gone.
const KEEP_CONFIG: Duration = Duration::from_hours(24);

/// The place that the configuration is sealed for.
const CONFIG: &str = "second_level|config";

/// The last revision that anything on this node has seen.
#[derive(Debug, Default)]
struct Seen(AtomicI64);

impl Seen {
    fn note(&self, rev: i64) {
        self.0.fetch_max(rev, Ordering::SeqCst);
    }
}

/// The database's configuration and keys, as a node uses them.
#[derive(Debug, Clone)]
pub struct SecondLevel {
    seen: Arc<Seen>,
    shared: Shared,
    secrets: Arc<Secrets>,
    dependencies: Arc<Dependencies>,
}

impl SecondLevel {
    /// Over shared state. Where that is in process nothing is kept: memory has it already.
    pub fn new(shared: Shared, secrets: Arc<Secrets>, dependencies: Arc<Dependencies>) -> Self {
        Self { seen: Arc::default(), shared, secrets, dependencies }
    }

    /// The same configuration, which tells this cache of every revision that is read.
    pub fn config(&self, inner: Arc<dyn ConfigStore>) -> Arc<dyn ConfigStore> {
        Arc::new(NotedConfig { inner, seen: Arc::clone(&self.seen) })
    }

    /// The same keys, through this cache.
    pub fn keys(&self, inner: Arc<dyn KeyStore>) -> Arc<dyn KeyStore> {
        Arc::new(CachedKeys { inner, level: self.clone() })
    }

    /// The record of a key, if there is one that is not behind `seen`.
    async fn look_up(&self, kid: &str, seen: i64) -> Option<KeyRecord> {
        if self.shared.redis.is_none() || seen == 0 {
            return None;
        }
        let sealed = self.shared.state.value(&redis_keys::key_record(kid)).await.ok()??;
        let plain = self.secrets.open_bytes(&context(kid), &sealed).ok()?;
        let kept: Kept = serde_json::from_slice(&plain).ok()?;
        (kept.rev >= seen).then(|| kept.into())
    }

    /// Keeps a record that was read when everything up to `seen` had been seen.
    fn keep(&self, kid: &str, seen: i64, record: &KeyRecord) {
        if self.shared.redis.is_none() || seen == 0 {
            return;
        }
        let plain = serde_json::to_vec(&Kept::of(seen, record)).ok();
        let sealed = plain.and_then(|p| self.secrets.seal_bytes(&context(kid), &p).ok());
        let Some(sealed) = sealed else { return };
        let (state, key) = (Arc::clone(&self.shared.state), redis_keys::key_record(kid));
        // In the background: who asked has the record and need not wait for Redis.
        tokio::spawn(async move { drop(state.put(&key, sealed.into(), KEEP).await) });
    }

    /// The configuration that was kept last, and from here on nothing older: keys that were kept
    /// before that change are not used any more. `None` when there is none that can be read.
    pub async fn config_kept(&self) -> Option<KeptConfig> {
        self.shared.redis.as_ref()?;
        let sealed = self.shared.state.value(&redis_keys::config_snapshot()).await.ok()??;
        let plain = self.secrets.open_bytes(CONFIG, &sealed).ok()?;
        let kept: KeptConfig = serde_json::from_slice(&plain).ok()?;
        self.seen.note(kept.rev);
        Some(kept)
    }

    /// Keeps the configuration of a change, in the background.
    pub fn keep_config(&self, rev: i64, tables: &Tables, hatches: &Hatches) {
        /// As [`KeptConfig`], without copies.
        #[derive(Serialize)]
        struct Keeping<'a> {
            rev: i64,
            tables: &'a Tables,
            hatches: &'a Hatches,
        }
        if self.shared.redis.is_none() {
            return;
        }
        let plain = serde_json::to_vec(&Keeping { rev, tables, hatches }).ok();
        let sealed = plain.and_then(|p| self.secrets.seal_bytes(CONFIG, &p).ok());
        let Some(sealed) = sealed else { return };
        let state = Arc::clone(&self.shared.state);
        tokio::spawn(async move {
            let key = redis_keys::config_snapshot();
            if let Err(error) = state.put(&key, sealed.into(), KEEP_CONFIG).await {
                tracing::debug!(%error, rev, "failed to keep the configuration in redis");
            }
        });
    }
}

/// The configuration as it is kept: the number of the last change in it, rows and hatches.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KeptConfig {
    /// Every change up to this one is in it.
    pub rev: i64,
    /// Rows.
    pub tables: Tables,
    /// The escape hatches.
    pub hatches: Hatches,
}

/// Puts the cache of keys before the database, and watches whether that answers.
pub fn install(
    stores: &mut Stores,
    shared: &Shared,
    secrets: &Arc<Secrets>,
    metrics: &Arc<Metrics>,
) -> (Arc<Dependencies>, SecondLevel) {
    let probe = Arc::clone(&stores.probe);
    let dependencies = Arc::new(Dependencies::new(probe, shared.clone(), Arc::clone(metrics)));
    let level = SecondLevel::new(shared.clone(), Arc::clone(secrets), Arc::clone(&dependencies));
    stores.config = level.config(Arc::clone(&stores.config));
    stores.keys = level.keys(Arc::clone(&stores.keys));
    (dependencies, level)
}

/// The place that a record is sealed for.
fn context(kid: &str) -> String {
    format!("second_level|key|{kid}")
}

/// A record as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    rev: i64,
    secrets: Vec<([u8; 32], Option<Timestamp>)>,
    key: Vec<Version<Key>>,
    app: Vec<Version<App>>,
}

impl Kept {
    fn of(rev: i64, record: &KeyRecord) -> Self {
        let secrets = record.secrets.iter().map(|s| (s.hash, s.expires_at)).collect();
        Self { rev, secrets, key: record.key.clone(), app: record.app.clone() }
    }
}

impl From<Kept> for KeyRecord {
    fn from(kept: Kept) -> Self {
        let secrets = kept.secrets.into_iter();
        Self {
            secrets: secrets.map(|(hash, expires_at)| SecretHash { hash, expires_at }).collect(),
            key: kept.key,
            app: kept.app,
        }
    }
}

#[derive(Debug)]
struct CachedKeys {
    inner: Arc<dyn KeyStore>,
    level: SecondLevel,
}

impl CachedKeys {
    /// Asks the database, unless it is down or goes down meanwhile.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let answer = self.level.dependencies.while_up(question).await;
        if matches!(answer, Some(Err(Error::Unavailable(_)))) {
            self.level.dependencies.suspect_database();
        }
        answer.unwrap_or_else(|| Err(Error::Unavailable("the database is down".to_owned())))
    }
}

#[async_trait]
impl KeyStore for CachedKeys {
    async fn key(&self, kid: &str, now: Timestamp) -> Result<Option<KeyRecord>, Error> {
        let seen = self.level.seen.0.load(Ordering::SeqCst);
        if let Some(record) = self.level.look_up(kid, seen).await {
            return Ok(Some(record));
        }
        let found = self.ask(self.inner.key(kid, now)).await?;
        if let Some(record) = &found {
            self.level.keep(kid, seen, record);
        }
        Ok(found)
    }

    async fn admin_token(&self, hash: &[u8; 32]) -> Result<Option<AdminToken>, Error> {
        self.ask(self.inner.admin_token(hash)).await
    }

    async fn store_admin_token(&self, token: AdminToken, now: Timestamp) -> Result<(), Error> {
        self.inner.store_admin_token(token, now).await
    }

    async fn count_admin_tokens(&self) -> Result<u64, Error> {
        self.inner.count_admin_tokens().await
    }
}

/// Configuration that notes each revision it hands out.
#[derive(Debug)]
struct NotedConfig {
    inner: Arc<dyn ConfigStore>,
    seen: Arc<Seen>,
}

#[async_trait]
impl ConfigStore for NotedConfig {
    async fn tables(&self, now: Timestamp) -> Result<Tables, Error> {
        let tables = self.inner.tables(now).await?;
        self.seen.note(tables.rev);
        Ok(tables)
    }

    async fn rev(&self) -> Result<i64, Error> {
        let rev = self.inner.rev().await?;
        self.seen.note(rev);
        Ok(rev)
    }

    async fn list(&self, page: Page<'_>, now: Timestamp) -> Result<Vec<Row>, Error> {
        self.inner.list(page, now).await
    }

    async fn versions(&self, resource: Resource, code: &str) -> Result<Vec<Row>, Error> {
        self.inner.versions(resource, code).await
    }

    async fn commit(
        &self,
        batch: Batch,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Committed, Rejected> {
        let committed = self.inner.commit(batch, actor, now).await?;
        // What this node changes it has seen, before it forgets what it had in memory. When the
        // database does not say, the next look does.
        drop(self.rev().await);
        Ok(committed)
    }

    async fn record(&self, record: AuditRecord) -> Result<(), Error> {
        self.inner.record(record).await
    }

    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        self.inner.audit(before, limit).await
    }
}

#[cfg(test)]
mod tests;
