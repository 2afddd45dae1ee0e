//! The nodes of this installation, this one among them.
//!
//! Each says every few seconds what it is and how it does: in Redis where there is one and it is
//! up, else in the database. What was heard stays in memory while neither answers, so that a share
//! of a limit does not grow because others cannot be heard. Invariant: there is always at least one
//! node, this one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use anima_core::clock::{Clock, Timestamp};
use anima_store::database::Stores;
use anima_store::nodes::NodeStore;
use anima_store::redis_keys;
use anima_store::shared::Shared;

use crate::dependencies::Dependencies;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::relay::lease;

/// Between two reports.
const EVERY: Duration = Duration::from_secs(3);
/// A node that was not heard of for this long is gone: three reports missed.
pub const ALIVE_MS: i64 = 10_000;
/// A report is shown this long after its node was last heard of.
const KEEP_MS: i64 = 600_000;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One process start.
    pub id: String,
    /// The machine and the process, for people.
    pub host: String,
    /// What it does.
    pub roles: Vec<String>,
    /// The program's version.
    pub version: String,
    /// The last change of the configuration in force there.
    pub config_version: i64,
    /// Which of what it needs is down.
    pub degraded: Option<String>,
    /// Calls that it is serving.
    pub in_flight: i64,
    /// When it started.
    pub started_at: Timestamp,
    /// When it said so.
    pub seen_at: Timestamp,
}

impl Report {
    /// Whether the node counts as running at `now`.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.seen_at.plus_millis(ALIVE_MS) > now
    }
}

/// What this node says of itself comes from here.
#[derive(Debug, Clone)]
pub struct Facts {
    /// This process start.
    pub id: String,
    /// The machine and the process.
    pub host: String,
    /// The configuration in force.
    pub live: Arc<Live>,
    /// What is down.
    pub dependencies: Arc<Dependencies>,
    /// What is being served.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// This node among the others: what it is called, and what its reports are made of.
pub fn join(
    node: Uuid,
    (live, metrics, dependencies, clock): Sources<'_>,
    stores: &Stores,
    shared: &Shared,
) -> Arc<Nodes> {
    let facts = Facts {
        id: node.to_string(),
        host: lease::host(),
        live: Arc::clone(live),
        dependencies: Arc::clone(dependencies),
        metrics: Arc::clone(metrics),
        clock: Arc::clone(clock),
    };
    Arc::new(Nodes::new(facts, Arc::clone(&stores.nodes), shared.clone()))
}

/// What reports are made of.
type Sources<'a> = (&'a Arc<Live>, &'a Arc<Metrics>, &'a Arc<Dependencies>, &'a Arc<dyn Clock>);

/// All nodes. See the module.
#[derive(Debug)]
pub struct Nodes {
    facts: Facts,
    store: Arc<dyn NodeStore>,
    shared: Shared,
    started_at: Timestamp,
    heard: RwLock<BTreeMap<String, Report>>,
    /// How many were alive when they could last be heard.
    alive: Arc<AtomicI64>,
}

impl Nodes {
    /// This node alone, until others are heard.
    pub fn new(facts: Facts, store: Arc<dyn NodeStore>, shared: Shared) -> Self {
        let started_at = facts.clock.now();
        Self {
            facts,
            store,
            shared,
            started_at,
            heard: RwLock::default(),
            alive: Arc::new(AtomicI64::new(1)),
        }
    }

    /// How many nodes share what is shared, at least one: for shares of limits.
    pub fn live_count(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.alive)
    }

    /// What this node says of itself now.
    pub fn own(&self) -> Report {
        let facts = &self.facts;
        Report {
            id: facts.id.clone(),
            host: facts.host.clone(),
            roles: ["gateway", "worker", "admin"].map(str::to_owned).to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_version: facts.live.rev(),
            degraded: facts.dependencies.degraded().map(str::to_owned),
            in_flight: facts.metrics.in_flight(),
            started_at: self.started_at,
            seen_at: facts.clock.now(),
        }
    }

    /// Every node that was heard of lately, by id; this one as it is now.
    pub fn all(&self) -> Vec<Report> {
        let own = self.own();
        let mut reports = self.heard.read().clone();
        reports.insert(own.id.clone(), own);
        reports.into_values().collect()
    }

    /// Says what this node is, and hears what others say. Where nothing answers, what was heard
    /// stays.
    pub async fn meet(&self) {
        let own = self.own();
        let now = own.seen_at;
        if let Some(mut reports) = self.exchange(&own).await {
            // What a store that is away has not told yet is not forgotten before its time.
            let known: Vec<Report> = self.heard.read().values().cloned().collect();
            for report in known.into_iter().chain([own]) {
                let newer = reports.get(&report.id).is_none_or(|r| r.seen_at < report.seen_at);
                if newer && report.seen_at.plus_millis(KEEP_MS) > now {
                    reports.insert(report.id.clone(), report);
                }
            }
            let alive = reports.values().filter(|report| report.is_alive(now)).count();
            self.alive.store(i64::try_from(alive).unwrap_or(i64::MAX).max(1), Ordering::Relaxed);
            *self.heard.write() = reports;
        }
    }

    async fn exchange(&self, own: &Report) -> Option<BTreeMap<String, Report>> {
        let text = serde_json::to_string(own).ok()?;
        let texts = match self.over_redis(own, &text).await {
            Some(texts) => texts,
            None => self.over_database(own, text).await?,
        };
        let reports = texts.iter().filter_map(|text| serde_json::from_str::<Report>(text).ok());
        Some(reports.map(|report| (report.id.clone(), report)).collect())
    }

    async fn over_redis(&self, own: &Report, text: &str) -> Option<Vec<String>> {
        self.shared.redis.as_ref().filter(|redis| redis.is_up())?;
        let (state, hash) = (&self.shared.state, redis_keys::nodes());
        state.set_field(&hash, &own.id, text.to_owned().into()).await.ok()?;
        let fields = state.fields(&hash).await.ok()?;
        let mut texts = Vec::with_capacity(fields.len());
        for (id, value) in fields {
            let Ok(text) = String::from_utf8(value.to_vec()) else { continue };
            let report = serde_json::from_str::<Report>(&text);
            if report.is_ok_and(|r| r.seen_at.plus_millis(KEEP_MS) > own.seen_at) {
                texts.push(text);
            } else {
                drop(state.remove_field(&hash, &id).await);
            }
        }
        Some(texts)
    }

    async fn over_database(&self, own: &Report, text: String) -> Option<Vec<String>> {
        let since = own.seen_at.plus_millis(-KEEP_MS);
        let exchanging = async {
            self.store.publish(&own.id, own.seen_at, text).await?;
            self.store.list(since).await
        };
        self.facts.dependencies.while_up(exchanging).await?.ok()
    }

    /// Meets the others until the task is aborted.
    pub async fn run(self: Arc<Self>) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.meet().await;
        }
    }

    /// Takes leave: this node stops.
    pub async fn leave(&self) {
        let id = &self.facts.id;
        let (state, hash) = (&self.shared.state, redis_keys::nodes());
        if self.shared.redis.is_some() {
            drop(state.remove_field(&hash, id).await);
        }
        drop(self.facts.dependencies.while_up(self.store.remove(id)).await);
    }
}
