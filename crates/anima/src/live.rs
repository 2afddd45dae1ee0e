//! The configuration in force on this node, the escape hatches, and the cache of keys.
//!
//! Configuration proper is small and compiled whole into a timeline behind one swap; a request
//! takes its snapshot once. Keys and apps are many and cached one by one for 30 s (SPEC 5). Changes
//! are read as events by their number, so a node loads what changed and nothing else; where events
//! are missing it loads everything. Invariant: after [`Live::catch_up`] returns, every new request
//! on this node sees every change up to [`Live::rev`].

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use moka::future::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;

use anima_core::clock::{Clock, Timestamp};
use anima_core::config::{FxRate, Price, Resource};
use anima_core::ledger::{PriceRef, fx};
use anima_core::pricing::PriceList;
use anima_core::snapshot::{Snapshot, compile_price};
use anima_store::config::publish::{Event, Forced, Hatches, ManualCircuit, Notice, PublishStore};
use anima_store::config::{ConfigStore, Error};
use anima_store::keys::{KeyRecord, KeyStore};
use anima_store::pubsub::{PubSub, Subscription};
use anima_store::redis_keys::Topic;

use crate::circuits::Circuits;
use crate::second_level::{KeptConfig, SecondLevel};
use crate::secrets::Secrets;

mod compiled; // tables made ready to serve
mod levers; // the operator's word, for the circuits
mod lookup; // a key in memory, and for how long
mod missed; // what changed while nobody looked
mod parts; // what of memory a change touches
pub mod propagation; // who has which change in force
pub mod spread; // hears of changes, and looks for those it did not hear of
pub mod streams; // what streams now, so that it can be ended

pub use compiled::{Upstream, credential_context};

use compiled::{Compiled, compile, same_in_force};
use lookup::{Lookup, Remembered};
use parts::{Part, parts};
use streams::Streams;

/// Keys kept in memory; about 1 KiB each.
const KEYS_MAX: u64 = 100_000;

/// What a request pins at the door.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The configuration in force.
    pub snapshot: Arc<Snapshot>,
    /// Number of the last change in force.
    pub rev: i64,
    /// What [`Live::changes`] was before.
    pub changes: (i64, u64),
    hatches: Arc<Hatches>,
    compiled: Arc<Compiled>,
}

impl Pinned {
    /// How the circuit of a channel and a model was forced, if it was. What was set for the model
    /// goes before what was set for the whole channel.
    pub fn forced(&self, channel: &str, model: &str, now: Timestamp) -> Option<Forced> {
        self.word_on(channel, model, now).map(|word| word.state)
    }

    /// Until when; `None` when it is for good, or nothing was forced.
    pub fn forced_until(&self, channel: &str, model: &str, now: Timestamp) -> Option<Timestamp> {
        self.word_on(channel, model, now)?.expires_at
    }

    fn word_on(&self, channel: &str, model: &str, now: Timestamp) -> Option<&ManualCircuit> {
        let circuits = &self.hatches.circuits;
        let mut of_channel = circuits.iter().filter(|c| c.channel == channel && c.is_live(now));
        let whole = of_channel.clone().find(|c| c.model.is_none());
        of_channel.find(|c| c.model.as_deref() == Some(model)).or(whole)
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
    /// Tells the other nodes.
    pub pubsub: Arc<dyn PubSub>,
    /// Keeps what is read for nodes that start while the database is down, where there is a Redis.
    pub second: Option<SecondLevel>,
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
    circuits: OnceLock<Arc<Circuits>>,
    /// Rung when there may be a change.
    pub bell: tokio::sync::Notify,
    /// When every change that there was, was last known to be in force here.
    current: Mutex<Instant>,
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
        let tables = from.config.tables(now).await?;
        let live = Self::of(from, secrets, clock, KeptConfig { rev, tables, hatches });
        live.keep();
        Ok(live)
    }

    /// What is in force without the database: what was kept last, else nothing, so that no request
    /// finds a configuration.
    pub async fn without_database(
        from: Sources,
        secrets: Arc<Secrets>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let kept = match &from.second {
            Some(second) => second.config_kept().await,
            None => None,
        };
        let known = kept.is_some();
        let live = Self::of(from, secrets, clock, kept.unwrap_or_default());
        if !known {
            live.compiled.store(Arc::default());
        }
        live
    }

    fn of(from: Sources, secrets: Arc<Secrets>, clock: Arc<dyn Clock>, kept: KeptConfig) -> Self {
        let compiled = compile(kept.tables, &secrets, clock.now());
        let remembered = Remembered { node: from.node.clone() };
        Self {
            from,
            secrets,
            clock,
            compiled: ArcSwap::from_pointee(compiled),
            hatches: ArcSwap::from_pointee(kept.hatches),
            applied: AtomicI64::new(kept.rev),
            refreshing: tokio::sync::Mutex::new(()),
            cache: Cache::builder().max_capacity(KEYS_MAX).expire_after(remembered).build(),
            forgotten: AtomicU64::new(0),
            streams: Streams::default(),
            circuits: OnceLock::new(),
            bell: tokio::sync::Notify::new(),
            current: Mutex::new(Instant::now()),
        }
    }

    /// Keeps what is in force, where there is a place for it.
    fn keep(&self) {
        if let Some(second) = &self.from.second {
            second.keep_config(self.rev(), &self.compiled.load().tables, &self.hatches.load());
        }
    }

    /// For how long this node has not known whether there are changes that it lacks.
    pub fn lag(&self) -> Duration {
        self.current.lock().elapsed()
    }

    /// Gives the operator's word to these circuits, now and whenever it changes.
    pub fn drive(&self, circuits: Arc<Circuits>) {
        levers::set(&circuits, &self.hatches.load(), self.clock.now());
        // A second fleet of circuits is nobody's.
        drop(self.circuits.set(circuits));
    }

    /// The configuration in force at `now`.
    pub fn pin(&self, now: Timestamp) -> Option<Pinned> {
        // First, so that what changes meanwhile is seen as a change.
        let changes = self.changes();
        let compiled = self.compiled.load_full();
        let snapshot = Arc::clone(compiled.timeline.at(now)?);
        let rev = self.rev().max(snapshot.rev);
        Some(Pinned { snapshot, rev, changes, hatches: self.hatches.load_full(), compiled })
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

    /// Reads everything again and swaps it in, whatever the revision says. For a node that serves
    /// nothing yet: what switches said to running calls before is not done again.
    ///
    /// # Errors
    /// When the store cannot be read; what was in force stays in force.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _one = self.refreshing.lock().await;
        let rev = self.from.config.rev().await?;
        self.read_all().await?;
        self.applied.store(rev, Ordering::Release);
        self.keep();
        Ok(())
    }

    /// Puts every change in force that there is, and acknowledges it.
    ///
    /// # Errors
    /// When the store cannot be read; what was in force stays in force.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let before = self.rev();
        let asked = Instant::now();
        {
            let _one = self.refreshing.lock().await;
            let rev = self.from.config.rev().await?;
            let applied = self.rev();
            let spent = self.compiled.load().timeline.is_spent(self.clock.now());
            if spent || rev != applied {
                match missed::events(&*self.from.publish, applied, rev).await? {
                    Some(events) if !spent => self.follow(&events).await?,
                    _ => self.reload(rev).await?,
                }
            }
        }
        *self.current.lock() = asked;
        self.acknowledge_since(before).await;
        Ok(())
    }

    /// Reads everything again, and says so in the log when it was not what is in force here: a
    /// message and every look since would have missed it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn compare(&self) -> Result<(), Error> {
        let (before, applied) = (self.compiled.load_full(), self.rev());
        {
            let _one = self.refreshing.lock().await;
            let rev = self.from.config.rev().await?;
            self.reload(rev).await?;
        }
        self.acknowledge_since(applied).await;
        let after = self.compiled.load();
        let same = same_in_force(&before.tables, &after.tables, self.clock.now());
        if before.tables.rev == after.tables.rev && !same {
            tracing::error!(rev = self.rev(), "what was in force was not what is stored");
        }
        Ok(())
    }

    /// Tells all nodes that there is a change. One that does not hear of it finds it by looking.
    pub async fn tell(&self, rev: i64) {
        let told = self.from.pubsub.publish(&Topic::config(), rev.to_string().as_bytes()).await;
        if let Err(error) = told {
            tracing::warn!(%error, rev, "failed to tell other nodes of a change: they look for it");
        }
    }

    /// The end at which this node hears of changes.
    pub async fn ear(&self) -> Subscription {
        self.from.pubsub.subscribe(&Topic::config()).await
    }

    /// Tells the others how far this node is, and that it lives.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn acknowledge(&self) -> Result<(), Error> {
        self.from.publish.acknowledge(&self.from.node, self.rev(), self.clock.now()).await
    }

    /// The same when there is news since a revision.
    async fn acknowledge_since(&self, before: i64) {
        if self.rev() != before
            && let Err(error) = self.acknowledge().await
        {
            tracing::warn!(%error, "failed to acknowledge a change: the next sign of life does");
        }
    }

    /// Loads what events say has changed. The number is raised last, so that nobody is told of a
    /// change before it is in force.
    async fn follow(&self, events: &[Event]) -> Result<(), Error> {
        let notices = || events.iter().flat_map(|event| &event.notices);
        let wanted = |wanted: Part| notices().any(|notice| parts(notice).contains(&wanted));
        if wanted(Part::Hatches) {
            self.load_hatches().await?;
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
        notices().for_each(|notice| self.obey(notice));
        self.applied.store(events.last().map_or(0, |last| last.rev), Ordering::Release);
        self.keep();
        Ok(())
    }

    /// Loads everything that there is at a revision or later, and does what switches have said
    /// since the last one. Where that is not known any more, what runs through something that is
    /// switched off ends: it may have been said to.
    async fn reload(&self, rev: i64) -> Result<(), Error> {
        let missed = missed::notices(&*self.from.publish, self.rev(), rev).await?;
        self.read_all().await?;
        match missed {
            Some(notices) => notices.iter().for_each(|notice| self.obey(notice)),
            None => self.end_switched_off().await?,
        }
        self.applied.store(rev, Ordering::Release);
        self.keep();
        Ok(())
    }

    async fn read_all(&self) -> Result<(), Error> {
        self.load_hatches().await?;
        self.load_tables().await?;
        self.forget_keys();
        Ok(())
    }

    /// Does what a switch says to what runs, once what it says of new calls is in force.
    fn obey(&self, notice: &Notice) {
        if let Some(circuits) = self.circuits.get() {
            levers::reset(circuits, &self.hatches.load(), notice);
        }
        let count = self.streams.cut(notice);
        if count > 0 {
            tracing::warn!(count, "ended streams that were cut by a switch");
        }
    }

    async fn end_switched_off(&self) -> Result<(), Error> {
        let now = self.clock.now();
        if !self.is_open() {
            self.obey(&Notice::Gateway { cut: true });
        }
        let Some(pinned) = self.pin(now) else { return Ok(()) };
        for through in self.streams.running() {
            let record = self.key(&through.kid).await.map_err(|error| (*error).clone())?;
            let off = missed::switched_off(&through, &pinned.snapshot, record.as_deref(), now);
            for notice in &off {
                self.obey(notice);
            }
        }
        Ok(())
    }

    async fn load_hatches(&self) -> Result<(), Error> {
        let hatches = self.from.publish.hatches().await?;
        if let Some(circuits) = self.circuits.get() {
            levers::set(circuits, &hatches, self.clock.now());
        }
        self.hatches.store(Arc::new(hatches));
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

    /// Changes with each change of the configuration or of a key that this node knows of.
    pub fn changes(&self) -> (i64, u64) {
        (self.rev(), self.forgotten.load(Ordering::SeqCst))
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

#[cfg(test)]
mod tests;
