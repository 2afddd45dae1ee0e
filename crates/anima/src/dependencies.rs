//! Which dependencies are down, and what follows from it (SPEC 12).
//!
//! A task asks the database for a sign of life four times a second, over a connection of its own,
//! and sooner when somebody suspects it. Redis has its own breaker, which is only read here.
//! Invariant: while the database is known to be down nobody waits for it, and whoever waits when it
//! goes down is told at once, also he who waits on a connection for a reply that was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use anima_store::database::Probe;
use anima_store::shared::Shared;

use crate::metrics::Metrics;

/// Between two signs of life: with it, 503 within 100 ms begins a quarter of a second after a cut.
const EVERY: Duration = Duration::from_millis(250);
/// Between two of them that were asked for: a database that sheds load is not asked at once again.
const GAP: Duration = Duration::from_millis(20);
/// How long one may take. A database that is merely busy gives it within milliseconds: this bears a
/// stall of its disk and a login beside it, and is what calls wait for at most when it is silent. A
/// refusal counts at once.
const ANSWER: Duration = Duration::from_millis(1_500);

/// The dependencies of a node.
#[derive(Debug)]
pub struct Dependencies {
    probe: Arc<dyn Probe>,
    shared: Shared,
    metrics: Arc<Metrics>,
    database_down: watch::Sender<bool>,
    /// It did not answer when it was last looked at, opened or not.
    database_away: watch::Sender<bool>,
    suspected: Notify,
    /// It is used from here on. Until then it counts as down, for its schema may be an old one.
    opened: AtomicBool,
}

/// The times that the database comes back.
#[derive(Debug)]
pub struct Returns(watch::Receiver<bool>);

impl Returns {
    /// Waits until the database is back from an outage that was not reported here yet.
    pub async fn next(&mut self) {
        while self.0.changed().await.is_ok() {
            if !*self.0.borrow_and_update() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

impl Dependencies {
    /// All of them up, until looked at.
    pub fn new(probe: Arc<dyn Probe>, shared: Shared, metrics: Arc<Metrics>) -> Self {
        let database_down = watch::Sender::new(false);
        let found = Self {
            probe,
            shared,
            metrics,
            database_down,
            database_away: watch::Sender::new(false),
            suspected: Notify::new(),
            opened: AtomicBool::new(true),
        };
        found.metrics.degraded("redis", found.redis_down());
        found
    }

    /// The database was away when this node started: it is down until it has been opened.
    pub fn await_opening(&self) {
        self.opened.store(false, Ordering::Release);
        self.database_down.send_replace(true);
        self.metrics.degraded("database", true);
    }

    /// Whether the database answers, opened or not.
    pub async fn database_answers(&self) -> bool {
        matches!(self.probe.answers(ANSWER).await, Ok(true))
    }

    /// Waits until a look finds that the database does not answer, opened or not.
    pub async fn away(&self) {
        let mut away = self.database_away.subscribe();
        // Its sender is here, so that nothing else can end the wait.
        drop(away.wait_for(|away| *away).await);
    }

    /// The database has been opened: from here on it is down only when it does not answer.
    pub async fn opened(&self) {
        self.opened.store(true, Ordering::Release);
        self.look().await;
    }

    /// Whether the database is known to be down.
    pub fn database_down(&self) -> bool {
        *self.database_down.borrow()
    }

    /// Whether there is a Redis and it is known to be down.
    pub fn redis_down(&self) -> bool {
        self.shared.is_down()
    }

    /// What is down, in the words of `x-anima-degraded`; `None` when nothing is.
    pub fn degraded(&self) -> Option<&'static str> {
        match (self.redis_down(), self.database_down()) {
            (false, false) => None,
            (true, false) => Some("redis"),
            (false, true) => Some("database"),
            (true, true) => Some("redis,database"),
        }
    }

    /// Has the database looked at now: something that needs it has failed.
    pub fn suspect_database(&self) {
        self.suspected.notify_one();
    }

    /// Does work that needs the database, for as long as it is up. `None` when it is down, or goes
    /// down before the end: the work is then dropped, and what it did is not known.
    pub async fn while_up<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        if self.database_down() {
            return None;
        }
        let mut down = self.database_down.subscribe();
        tokio::select! {
            biased;
            done = work => Some(done),
            _ = down.wait_for(|down| *down) => None,
        }
    }

    /// For whoever has something to do as soon as the database is back.
    pub fn returns(&self) -> Returns {
        Returns(self.database_down.subscribe())
    }

    /// Looks at everything now and says which of it is down.
    pub async fn look(&self) -> Option<&'static str> {
        let mut why = match self.probe.answers(ANSWER).await {
            Ok(true) => None,
            Ok(false) => Some(format!("no answer within {ANSWER:?}")),
            Err(error) => Some(error),
        };
        let is_away = why.is_some();
        if !self.opened.load(Ordering::Acquire) {
            why = why.or_else(|| Some("it has not been opened yet".to_owned()));
        }
        self.note(why);
        // After new work is refused, so that none begins on a connection that is about to end.
        if is_away {
            self.probe.give_up();
        }
        self.database_away.send_replace(is_away);
        self.note_redis();
        self.degraded()
    }

    /// Shows in the metrics what is known of Redis: its breaker may have opened meanwhile.
    pub fn note_redis(&self) {
        self.metrics.degraded("redis", self.redis_down());
    }

    fn note(&self, why: Option<String>) {
        let down = why.is_some();
        self.metrics.degraded("database", down);
        let is_news =
            self.database_down.send_if_modified(|was| std::mem::replace(was, down) != down);
        if is_news {
            if let Some(error) = why {
                tracing::error!(error, "the database is down; refusing calls");
            } else {
                tracing::info!("the database is back");
            }
        }
    }

    /// Looks again and again, until the task is aborted.
    pub async fn run(self: Arc<Self>) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let soonest = Instant::now() + GAP;
            tokio::select! {
                _ = every.tick() => {}
                () = self.suspected.notified() => tokio::time::sleep_until(soonest).await,
            }
            self.look().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use async_trait::async_trait;

    use super::*;

    /// 0 answers, 1 refuses, 2 never answers.
    #[derive(Debug, Default)]
    struct Moody(AtomicU8);

    #[async_trait]
    impl Probe for Moody {
        async fn answers(&self, within: Duration) -> Result<bool, String> {
            match self.0.load(Ordering::SeqCst) {
                0 => Ok(true),
                1 => Err("refused".to_owned()),
                _ => {
                    tokio::time::sleep(within).await;
                    Ok(false)
                }
            }
        }
    }

    fn dependencies() -> (Arc<Moody>, Arc<Dependencies>) {
        let mood = Arc::new(Moody::default());
        let metrics = Arc::new(Metrics::new().unwrap());
        let found = Dependencies::new(Arc::clone(&mood) as _, Shared::in_process(), metrics);
        (mood, Arc::new(found))
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_counts_at_once_and_recovery_needs_nobody() {
        let (mood, found) = dependencies();
        let task = tokio::spawn(Arc::clone(&found).run());
        mood.0.store(1, Ordering::SeqCst);
        tokio::time::sleep(EVERY * 2).await;
        assert_eq!(found.degraded(), Some("database"));
        assert_eq!(found.while_up(async { 1 }).await, None, "nothing is begun");
        mood.0.store(0, Ordering::SeqCst);
        tokio::time::sleep(EVERY * 2).await;
        assert_eq!(found.degraded(), None);
        assert_eq!(found.while_up(async { 1 }).await, Some(1));
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_has_not_been_opened_is_down_although_it_answers() {
        let (_mood, found) = dependencies();
        found.await_opening();
        assert_eq!(found.degraded(), Some("database"));
        assert_eq!(found.look().await, Some("database"));
        found.opened().await;
        assert_eq!(found.degraded(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_opens_it_is_told_when_it_goes_away_again() {
        let (mood, found) = dependencies();
        found.await_opening();
        found.look().await;
        assert!(tokio::time::timeout(ANSWER, found.away()).await.is_err(), "it answers");
        let task = tokio::spawn(Arc::clone(&found).run());
        mood.0.store(2, Ordering::SeqCst);
        tokio::time::timeout(EVERY + ANSWER * 2, found.away()).await.expect("told in time");
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_when_it_goes_down_is_told() {
        let (mood, found) = dependencies();
        let task = tokio::spawn(Arc::clone(&found).run());
        mood.0.store(2, Ordering::SeqCst);
        let began = Instant::now();
        assert_eq!(found.while_up(std::future::pending::<()>()).await, None);
        assert!(began.elapsed() <= EVERY + ANSWER + Duration::from_millis(10));
        task.abort();
    }
}
