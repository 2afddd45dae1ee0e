//! Calls that came to more than hold and wallet covered: the alarm, and the pause of their key.
//!
//! A settlement that comes up short is counted, logged and put into the audit log by whoever made
//! it. Keys whose calls do so again and again are switched off, with the reason: found in the books
//! once a minute, and at once when this node was short, so that a crash between the two delays a
//! pause and never loses it. An operator switches the key on again; what came before counts no
//! more. Not here: what is booked (`anima-core`). Invariant: nobody waits for any of it. Source:
//! `reliability` 1.6, row 20.

mod late; // those that the spool finds

pub use late::Late;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use anima_core::clock::Clock;
use anima_core::config::Resource;
use anima_core::money::Money as Amount;
use anima_store::config::{Actor, AuditRecord, Batch, Change, ConfigStore, Error};
use anima_store::database::Stores;
use anima_store::ledger::money::{Money, Pause, ShortKey};

use crate::live::Live;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Between two looks at the books.
const EVERY: Duration = Duration::from_mins(1);

/// Who does it, in audit records.
const ACTOR: &str = "anima";

/// A call that came up short.
#[derive(Debug, Clone)]
pub struct Shortfall {
    /// The request.
    pub request: Uuid,
    /// Whose wallet.
    pub app: Arc<str>,
    /// Which key asked.
    pub kid: Arc<str>,
    /// What was taken.
    pub charged: Amount,
    /// What lacks.
    pub uncollected: Amount,
}

/// Raises the alarm, and pauses keys.
#[derive(Debug)]
pub struct Shortfalls {
    config: Arc<dyn ConfigStore>,
    books: Arc<dyn Money>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// So many calls that come up short pause a key; 0 is never.
    most: u32,
    /// Within this time.
    window: Duration,
    bell: Notify,
    late: Arc<Late>,
}

impl Shortfalls {
    /// Nothing is looked at yet.
    pub fn new(
        settings: &Settings,
        stores: &Stores,
        (live, metrics, late): (&Arc<Live>, &Arc<Metrics>, &Arc<Late>),
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            config: Arc::clone(&stores.config),
            books: Arc::clone(&stores.money),
            live: Arc::clone(live),
            metrics: Arc::clone(metrics),
            clock: Arc::clone(clock),
            most: settings.key_shortfalls_max,
            window: Duration::from_millis(settings.key_shortfall_window_ms),
            bell: Notify::new(),
            late: Arc::clone(late),
        }
    }

    /// Raises the alarm about a settlement that was made. Nobody waits for what has to be written.
    pub fn note(self: &Arc<Self>, shortfall: Shortfall, tasks: &TaskTracker) {
        let Shortfall { request, app, kid, uncollected, .. } = &shortfall;
        self.metrics.alarms.uncollected(*uncollected);
        let (app, kid) = (&**app, &**kid);
        tracing::error!(request_id = %request, app, kid, %uncollected, "no wallet covers a sale");
        let shared = Arc::clone(self);
        tasks.spawn(async move {
            shared.record(&shortfall).await;
            shared.bell.notify_one();
        });
    }

    async fn record(&self, shortfall: &Shortfall) {
        let Shortfall { request, app, kid, charged, uncollected } = shortfall;
        let after = json!({
            "app": app,
            "kid": kid,
            "charged": charged.to_string(),
            "uncollected": uncollected.to_string(),
            "currency": uncollected.currency.code(),
        });
        let record = AuditRecord {
            id: 0,
            at: self.clock.now(),
            actor: ACTOR.to_owned(),
            action: "shortfall".to_owned(),
            resource: "request".to_owned(),
            code: format!("req_{}", request.simple()),
            reason: "the call came to more than its hold and its wallet cover".to_owned(),
            before: None,
            after: Some(after),
        };
        if let Err(error) = self.config.record(record).await {
            tracing::warn!(request_id = %request, %error, "failed to record a shortfall");
        }
    }

    /// Looks at the books every so often and when it is told to, until the task is aborted.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.bell.notified() => {}
                () = self.late.bell.notified() => self.record_late().await,
            }
            if self.most > 0
                && let Err(error) = self.look().await
            {
                tracing::warn!(error, "failed to look for keys that come up short");
            }
        }
    }

    /// Puts into the audit log what the spool found. The hold knows which key asked.
    async fn record_late(&self) {
        for mut shortfall in self.late.take() {
            match self.books.story(shortfall.request).await {
                Ok(story) => {
                    shortfall.kid = story.map(|story| story.kid).unwrap_or_default().into();
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to look up the key of a shortfall");
                }
            }
            self.record(&shortfall).await;
        }
    }

    /// Pauses the keys that came up short too often.
    async fn look(&self) -> Result<(), String> {
        let window = i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX);
        let since = self.clock.now().plus_millis(window.saturating_neg());
        let keys = self.books.short_keys(since, self.most).await;
        for key in keys.map_err(|error| error.to_string())? {
            self.pause(key).await?;
        }
        Ok(())
    }

    /// Switches a key off, then remembers why: in this order, so that a crash between the two is
    /// found by the next look, which does the second alone.
    async fn pause(&self, key: ShortKey) -> Result<(), String> {
        let ShortKey { kid, app, calls, enabled } = key;
        let minutes = self.window.as_secs() / 60;
        let reason = format!(
            "paused: {calls} calls within {minutes} minutes came to more than the wallet of {app} \
             covers (setting `key_shortfalls_max`); give it money or credit, then switch the key on"
        );
        if enabled {
            self.switch_off(&kid, &reason).await.map_err(|error| error.to_string())?;
            self.metrics.alarms.key_pauses.inc();
            tracing::error!(
                kid = &*kid,
                app = &*app,
                calls,
                "a key is paused: its calls come short"
            );
        }
        let pause = Pause { kid, app, at: self.clock.now(), calls, reason };
        self.books.remember_pause(pause).await.map_err(|error| error.to_string())
    }

    async fn switch_off(&self, kid: &str, reason: &str) -> Result<(), Error> {
        let (resource, code) = (Resource::UserApiKey, kid.to_owned());
        let change = Change::Switch { resource, code, enabled: false, cut: false };
        let batch = Batch { changes: vec![change], rehearsal: false };
        let actor = Actor { name: ACTOR.to_owned(), reason: reason.to_owned() };
        let committed = self.config.commit(batch, &actor, self.clock.now()).await;
        let rev = committed.map_err(|rejected| rejected.error)?.rev;
        self.live.tell(rev).await;
        self.live.catch_up().await
    }
}
