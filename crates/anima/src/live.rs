//! The configuration in force on this node, the escape hatches, and the cache of keys.
//!
//! Configuration proper is small and compiled whole into a [`Timeline`] behind one swap; a request
//! takes its snapshot once. Keys and apps are many and cached one by one for 30 s (SPEC 5). Changes
//! are read as events by their number, so a node loads what changed and nothing else; where events
//! are missing it loads everything. Invariant: after [`Live::catch_up`] returns, every new request
//! on this node sees every change up to [`Live::rev`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::future::Cache;
use zeroize::Zeroizing;

use anima_core::clock::{Clock, Timestamp};
use anima_core::config::{FxRate, Price, Resource, Tables, Version};
use anima_core::ledger::{PriceRef, fx};
use anima_core::pricing::PriceList;
use anima_core::snapshot::{Snapshot, Timeline, compile_price};
use anima_store::config::publish::{Event, Forced, Hatches, Notice, PublishStore};
use anima_store::config::{ConfigStore, Error};
use anima_store::keys::{KeyRecord, KeyStore};
use anima_wire::adapter::{self, Adapter};

use crate::secrets::Secrets;

pub mod propagation; // who has which change in force
pub mod spread; // hears of changes, and looks for those it did not hear of
pub mod streams; // what streams now, so that it can be ended

use streams::Streams;

/// Events read in one go; a node that is further behind loads everything (`reliability` 5).
const EVENTS_MAX: u32 = 1_000;
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
    /// Number of the last change in force.
    pub rev: i64,
    hatches: Arc<Hatches>,
    compiled: Arc<Compiled>,
}

impl Pinned {
    /// How the circuit of a channel and a model was forced, if it was. What was set for the model
    /// goes before what was set for the whole channel.
    pub fn forced(&self, channel: &str, model: &str, now: Timestamp) -> Option<Forced> {
        let circuits = &self.hatches.circuits;
        let mut of_channel = circuits.iter().filter(|c| c.channel == channel && c.is_live(now));
        let whole = of_channel.clone().find(|c| c.model.is_none());
        of_channel.find(|c| c.model.as_deref() == Some(model)).or(whole).map(|c| c.state)
    }

    /// The callable form of a channel, by [`anima_core::snapshot::ChannelEntry::index`].
    pub fn upstream(&self, index: usize) -> Option<&Arc<Upstream>> {
        self.compiled.upstreams.get(index).and_then(Option::as_ref)
    }
}

/// What a node reads its configuration from, and what it is called there.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Rows.
    pub config: Arc<dyn ConfigStore>,
    /// Keys.
    pub keys: Arc<dyn KeyStore>,
    /// Events, acknowledgements and hatches.
    pub publish: Arc<dyn PublishStore>,
    /// This process start.
    pub node: String,
}

/// The configuration in force and the key cache. See the module.
#[derive(Debug)]
pub struct Live {
    from: Sources,
    secrets: Arc<Secrets>,
    clock: Arc<dyn Clock>,
    compiled: ArcSwap<Compiled>,
    hatches: ArcSwap<Hatches>,
    /// Every change up to this one is in force here.
    applied: AtomicI64,
    /// One refresh at a time, so that an older read never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
    cache: Cache<Box<str>, Arc<Lookup>>,
    /// Counts the times that one or all keys were dropped from memory.
    forgotten: AtomicU64,
    /// What streams now.
    pub streams: Streams,
    /// Rung when there may be a change.
    pub bell: tokio::sync::Notify,
}

impl Live {
    /// Reads and compiles the configuration.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(
        from: Sources,
        secrets: Arc<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let now = clock.now();
        // The number first: what is read after it holds at least that change.
        let rev = from.config.rev().await?;
        let hatches = from.publish.hatches().await?;
        let compiled = compile(from.config.tables(now).await?, &secrets, now);
        Ok(Self {
            from,
            secrets,
            clock,
            compiled: ArcSwap::from_pointee(compiled),
            hatches: ArcSwap::from_pointee(hatches),
            applied: AtomicI64::new(rev),
            refreshing: tokio::sync::Mutex::new(()),
            cache: Cache::builder().max_capacity(KEYS_MAX).expire_after(Remembered).build(),
            forgotten: AtomicU64::new(0),
            streams: Streams::default(),
            bell: tokio::sync::Notify::new(),
        })
    }

    /// The configuration in force at `now`.
    pub fn pin(&self, now: Timestamp) -> Option<Pinned> {
        let compiled = self.compiled.load_full();
        let snapshot = Arc::clone(compiled.timeline.at(now)?);
        let rev = self.rev().max(snapshot.rev);
        Some(Pinned { snapshot, rev, hatches: self.hatches.load_full(), compiled })
    }

    /// Number of the last change in force here.
    pub fn rev(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The escape hatches as they stand here.
    pub fn hatches(&self) -> Arc<Hatches> {
        self.hatches.load_full()
    }

    /// Whether the data plane is switched on.
    pub fn is_open(&self) -> bool {
        self.hatches.load().gateway.enabled
    }

    /// Reads everything again and swaps it in, whatever the revision says.
    ///
    /// # Errors
    /// When the store cannot be read; what was in force stays in force.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _one = self.refreshing.lock().await;
        let rev = self.from.config.rev().await?;
        self.reload(rev).await
    }

    /// Puts every change in force that there is, and acknowledges it.
    ///
    /// # Errors
    /// When the store cannot be read; what was in force stays in force.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let before = self.rev();
        {
            let _one = self.refreshing.lock().await;
            let rev = self.from.config.rev().await?;
            let applied = self.rev();
            let spent = self.compiled.load().timeline.is_spent(self.clock.now());
            if spent || rev != applied {
                match self.events(applied, rev).await? {
                    Some(events) if !spent => self.follow(&events).await?,
                    _ => self.reload(rev).await?,
                }
            }
        }
        if self.rev() != before
            && let Err(error) = self.acknowledge().await
        {
            tracing::warn!(%error, "failed to acknowledge a change: the next look does");
        }
        Ok(())
    }

    /// Reads everything again, and says so in the log when it was not what is in force here: a
    /// message and every look since would have missed it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn compare(&self) -> Result<(), Error> {
        let before = self.compiled.load_full();
        self.refresh().await?;
        let after = self.compiled.load();
        let same = same_in_force(&before.tables, &after.tables, self.clock.now());
        if before.tables.rev == after.tables.rev && !same {
            tracing::error!(rev = self.rev(), "what was in force was not what is stored");
        }
        Ok(())
    }

    /// Tells the others how far this node is, and that it lives.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn acknowledge(&self) -> Result<(), Error> {
        self.from.publish.acknowledge(&self.from.node, self.rev(), self.clock.now()).await
    }

    /// The changes between two revisions, if all of them can be had.
    async fn events(&self, applied: i64, rev: i64) -> Result<Option<Vec<Event>>, Error> {
        if rev <= applied || rev - applied > i64::from(EVENTS_MAX) {
            return Ok(None);
        }
        let events = self.from.publish.events(applied, EVENTS_MAX).await?;
        let whole = events.iter().zip(applied + 1..).all(|(event, rev)| event.rev == rev);
        Ok((whole && events.last().is_some_and(|last| last.rev >= rev)).then_some(events))
    }

    /// Loads what events say has changed. The number is raised last, so that nobody is told of a
    /// change before it is in force.
    async fn follow(&self, events: &[Event]) -> Result<(), Error> {
        let notices = || events.iter().flat_map(|event| &event.notices);
        let wanted = |wanted: Part| notices().any(|notice| parts(notice).contains(&wanted));
        if wanted(Part::Hatches) {
            self.hatches.store(Arc::new(self.from.publish.hatches().await?));
        }
        if wanted(Part::Tables) {
            self.load_tables().await?;
        }
        for notice in notices() {
            match notice {
                Notice::Row { resource: Resource::UserApiKey, code, .. } => {
                    self.forget_key(code).await;
                }
                Notice::Forget { scope } if scope.starts_with("key:") => {
                    self.forget_key(scope.trim_start_matches("key:")).await;
                }
                Notice::Row { .. }
                | Notice::Circuit { .. }
                | Notice::Gateway { .. }
                | Notice::Forget { .. } => {}
            }
        }
        if wanted(Part::Keys) {
            self.forget_keys();
        }
        for notice in notices() {
            let count = self.streams.cut(notice);
            if count > 0 {
                tracing::warn!(count, "ended streams that were cut by a switch");
            }
        }
        self.applied.store(events.last().map_or(0, |last| last.rev), Ordering::Release);
        Ok(())
    }

    /// Loads everything that there is at a revision or later.
    async fn reload(&self, rev: i64) -> Result<(), Error> {
        self.hatches.store(Arc::new(self.from.publish.hatches().await?));
        self.load_tables().await?;
        self.forget_keys();
        self.applied.store(rev, Ordering::Release);
        Ok(())
    }

    async fn load_tables(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let tables = self.from.config.tables(now).await?;
        self.compiled.store(Arc::new(compile(tables, &self.secrets, now)));
        Ok(())
    }

    /// One version of a price, also one that is in force no longer. `None` when there is none or it
    /// does not compile.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn price(&self, code: &str, version_no: i64) -> Result<Option<PriceList>, Error> {
        let rows = self.from.config.versions(Resource::Price, code).await?;
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
        let rows = self.from.config.versions(Resource::FxRate, code).await?;
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
        let record = self.from.keys.key(kid, self.clock.now()).await?.map(Arc::new);
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

/// Whether two readings agree about `now`. What has ended by then is read no more.
fn same_in_force(a: &Tables, b: &Tables, now: Timestamp) -> bool {
    fn same<B: PartialEq>(a: &[Version<B>], b: &[Version<B>], now: Timestamp) -> bool {
        let in_force = |row: &&Version<B>| row.is_effective(now);
        a.iter().filter(in_force).eq(b.iter().filter(in_force))
    }
    same(&a.channels, &b.channels, now)
        && same(&a.aliases, &b.aliases, now)
        && same(&a.prices, &b.prices, now)
        && same(&a.quotas, &b.quotas, now)
        && same(&a.token_groups, &b.token_groups, now)
        && same(&a.fx_rates, &b.fx_rates, now)
}

/// What a node keeps in memory and may have to read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Rows, but for keys and apps.
    Tables,
    /// All keys, with their apps.
    Keys,
    /// The escape hatches.
    Hatches,
}

/// What a change touches beside single keys.
fn parts(notice: &Notice) -> &'static [Part] {
    match notice {
        Notice::Row { resource, .. } => match resource {
            Resource::UserApiKey => &[],
            Resource::App => &[Part::Keys],
            Resource::Channel
            | Resource::Alias
            | Resource::Price
            | Resource::Quota
            | Resource::TokenGroup
            | Resource::FxRate => &[Part::Tables],
        },
        Notice::Circuit { .. } | Notice::Gateway { .. } => &[Part::Hatches],
        Notice::Forget { scope } => match scope.as_str() {
            "config" => &[Part::Tables, Part::Hatches],
            "keys" | "apps" => &[Part::Keys],
            key if key.starts_with("key:") => &[],
            app if app.starts_with("app:") => &[Part::Keys],
            // `all`, and what a newer node may have named.
            _ => &[Part::Tables, Part::Keys, Part::Hatches],
        },
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
