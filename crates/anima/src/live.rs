//! The configuration in force on this node, and the cache of keys.
//!
//! Configuration proper is small and compiled whole into a [`Timeline`] behind one swap; a request
//! takes its snapshot once. Keys and apps are many and cached one by one for 30 s (SPEC 5).
//! Invariant: after [`Live::refresh`] returns, every new request on this node sees the change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::future::Cache;
use zeroize::Zeroizing;

use anima_core::clock::{Clock, Timestamp};
use anima_core::config::{FxRate, Price, Resource, Tables};
use anima_core::ledger::{PriceRef, fx};
use anima_core::pricing::PriceList;
use anima_core::snapshot::{Snapshot, Timeline, compile_price};
use anima_store::config::{ConfigStore, Error};
use anima_store::keys::{KeyRecord, KeyStore};
use anima_wire::adapter::{self, Adapter};

use crate::secrets::Secrets;

/// How long a key may be served from memory (SPEC 5: L1).
const KEY_TTL: Duration = Duration::from_secs(30);
/// How long "no such key" is remembered: long enough to stop a flood of wrong keys from reaching
/// the database, short enough for a key that was just made on another node (`reliability` 5).
const UNKNOWN_TTL: Duration = Duration::from_secs(5);
/// Keys kept in memory; about 1 KiB each.
const KEYS_MAX: u64 = 100_000;

/// What a look-up found.
#[derive(Debug)]
struct Lookup {
    record: Option<Arc<KeyRecord>>,
    /// How many times keys had been forgotten when the store was asked.
    forgotten: u64,
    /// It was in memory when no key had been forgotten since: whatever forgets it from then on also
    /// finds it.
    confirmed: AtomicBool,
}

/// How long a look-up is remembered.
#[derive(Debug)]
struct Remembered;

impl moka::Expiry<Box<str>, Arc<Lookup>> for Remembered {
    fn expire_after_create(
        &self,
        _kid: &Box<str>,
        found: &Arc<Lookup>,
        _now: std::time::Instant,
    ) -> Option<Duration> {
        Some(if found.record.is_some() { KEY_TTL } else { UNKNOWN_TTL })
    }
}

/// A channel made ready to be called.
pub struct Upstream {
    /// The provider's translator; `None` when this binary does not know the provider.
    pub adapter: Option<&'static dyn Adapter>,
    /// Scheme and authority, and the path prefix without a final slash.
    pub base: http::Uri,
    /// Credentials in clear: code and secret.
    pub credentials: Vec<(Arc<str>, Zeroizing<String>)>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The compiled configuration.
#[derive(Debug)]
struct Compiled {
    tables: Tables,
    timeline: Timeline,
    /// Parallel to `tables.channels`.
    upstreams: Vec<Option<Arc<Upstream>>>,
}

/// What a request pins at the door.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The configuration in force.
    pub snapshot: Arc<Snapshot>,
    compiled: Arc<Compiled>,
}

impl Pinned {
    /// The callable form of a channel, by [`anima_core::snapshot::ChannelEntry::index`].
    pub fn upstream(&self, index: usize) -> Option<&Arc<Upstream>> {
        self.compiled.upstreams.get(index).and_then(Option::as_ref)
    }
}

/// The configuration in force and the key cache. See the module.
#[derive(Debug)]
pub struct Live {
    config: Arc<dyn ConfigStore>,
    keys: Arc<dyn KeyStore>,
    secrets: Arc<Secrets>,
    clock: Arc<dyn Clock>,
    compiled: ArcSwap<Compiled>,
    /// One refresh at a time, so that an older read never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
    cache: Cache<Box<str>, Arc<Lookup>>,
    /// Counts the times that one or all keys were dropped from memory.
    forgotten: AtomicU64,
}

impl Live {
    /// Reads and compiles the configuration.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(
        config: Arc<dyn ConfigStore>,
        keys: Arc<dyn KeyStore>,
        secrets: Arc<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let now = clock.now();
        let compiled = compile(config.tables(now).await?, &secrets, now);
        Ok(Self {
            config,
            keys,
            secrets,
            clock,
            compiled: ArcSwap::from_pointee(compiled),
            refreshing: tokio::sync::Mutex::new(()),
            cache: Cache::builder().max_capacity(KEYS_MAX).expire_after(Remembered).build(),
            forgotten: AtomicU64::new(0),
        })
    }

    /// The configuration in force at `now`.
    pub fn pin(&self, now: Timestamp) -> Option<Pinned> {
        let compiled = self.compiled.load_full();
        let snapshot = Arc::clone(compiled.timeline.at(now)?);
        Some(Pinned { snapshot, compiled })
    }

    /// Number of the last change in force here.
    pub fn rev(&self) -> i64 {
        self.compiled.load().tables.rev
    }

    /// Reads the configuration again and swaps it in.
    ///
    /// # Errors
    /// When the store cannot be read; what was in force stays in force.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _one = self.refreshing.lock().await;
        let now = self.clock.now();
        let tables = self.config.tables(now).await?;
        self.compiled.store(Arc::new(compile(tables, &self.secrets, now)));
        Ok(())
    }

    /// Refreshes when another node changed something or the timeline has run out.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let spent = self.compiled.load().timeline.is_spent(self.clock.now());
        if spent || self.config.rev().await? != self.rev() {
            self.forget_keys();
            self.refresh().await?;
        }
        Ok(())
    }

    /// One version of a price, also one that is in force no longer. `None` when there is none or it
    /// does not compile.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn price(&self, code: &str, version_no: i64) -> Result<Option<PriceList>, Error> {
        let rows = self.config.versions(Resource::Price, code).await?;
        let row = rows.into_iter().find(|row| row.version_no == version_no);
        Ok(row.and_then(|row| {
            let price: Price = serde_json::from_value(row.body).ok()?;
            compile_price(code, version_no, &price)
        }))
    }

    /// One version of a conversion rate, as postings name it, likewise.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn fx_rate(&self, rate: &PriceRef) -> Result<Option<fx::FxRate>, Error> {
        let Some(code) = FxRate::code_of(rate) else { return Ok(None) };
        let rows = self.config.versions(Resource::FxRate, code).await?;
        let row = rows.into_iter().find(|row| row.version_no == rate.version_no);
        let body = row.and_then(|row| serde_json::from_value::<FxRate>(row.body).ok());
        Ok(body.and_then(|body| body.compile(code, rate.version_no).ok()))
    }

    /// The record of a key, from memory or the store. `None` when there is no such key.
    ///
    /// # Errors
    /// When the key is not in memory and the store cannot be read.
    pub async fn key(&self, kid: &str) -> Result<Option<Arc<KeyRecord>>, Arc<Error>> {
        // A look-up that was under way when its key was forgotten may have read the old row, and
        // ends in memory all the same. It is taken out again, and the store is asked once more.
        loop {
            let found = match self.cache.get(kid).await {
                Some(found) => found,
                None => self.cache.try_get_with(kid.into(), self.look_up(kid)).await?,
            };
            if found.confirmed.load(Ordering::SeqCst) {
                return Ok(found.record.clone());
            }
            if found.forgotten == self.forgotten.load(Ordering::SeqCst) {
                found.confirmed.store(true, Ordering::SeqCst);
                return Ok(found.record.clone());
            }
            self.cache.invalidate(kid).await;
        }
    }

    async fn look_up(&self, kid: &str) -> Result<Arc<Lookup>, Error> {
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let record = self.keys.key(kid, self.clock.now()).await?.map(Arc::new);
        Ok(Arc::new(Lookup { record, forgotten, confirmed: AtomicBool::new(false) }))
    }

    /// Drops one key from memory.
    pub async fn forget_key(&self, kid: &str) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate(kid).await;
    }

    /// Drops all keys from memory: an app of theirs changed.
    pub fn forget_keys(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate_all();
    }
}

fn compile(tables: Tables, secrets: &Secrets, now: Timestamp) -> Compiled {
    let timeline = Timeline::compile(&tables, now);
    let upstreams = tables
        .channels
        .iter()
        .map(|row| {
            let base: http::Uri = row.body.base_url.trim_end_matches('/').parse().ok()?;
            let credentials = open_credentials(secrets, &row.code, &row.body);
            let adapter = adapter::lookup(&row.body.provider);
            Some(Arc::new(Upstream { adapter, base, credentials }))
        })
        .collect();
    Compiled { tables, timeline, upstreams }
}

/// Opens what can be opened. A credential sealed under another master key is left out with an
/// alarm: the channel then fails alone, not the node.
fn open_credentials(
    secrets: &Secrets,
    channel: &str,
    body: &anima_core::config::Channel,
) -> Vec<(Arc<str>, Zeroizing<String>)> {
    let mut opened = BTreeMap::new();
    for credential in &body.credentials {
        let context = credential_context(channel, &credential.code);
        let sealed = credential.sealed.as_deref().unwrap_or_default();
        let text = secrets
            .open(&context, sealed)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        if let Some(text) = text {
            opened.insert(Arc::from(credential.code.as_str()), Zeroizing::new(text));
        } else {
            tracing::error!(channel, credential = credential.code, "failed to open credential");
        }
    }
    opened.into_iter().collect()
}

/// The place a credential is sealed for.
pub fn credential_context(channel: &str, credential: &str) -> String {
    format!("channel|{channel}|{credential}")
}

#[cfg(test)]
mod tests;
