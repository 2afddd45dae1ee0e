//! Decisions on their way to the database, off the path of every call.
//!
//! A call that is over hands its decision to a bounded queue and goes on; one task makes texts of
//! what waits and writes them in batches. Calls out of the ordinary and plain ones have a rate of
//! their own each, so that neither load nor an attack fills the disk; a decision that finds no room
//! is counted and dropped. Invariant: no call waits here. Source: SPEC 10.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::clock::{Clock, Timestamp};
use anima_store::database::Stores;
use anima_store::decisions::{DecisionStore, Record};

use super::decision::Decision;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Decisions that may wait. At some kilobytes each this is bounded memory, and more than a second
/// of the highest rate that one database takes.
const WAITING: usize = 4_096;
/// Records in one transaction.
const BATCH: usize = 256;
/// How long the writer waits for more of them.
const LINGER: Duration = Duration::from_millis(100);
/// How long a reader waits for what is on its way.
const FLUSH: Duration = Duration::from_millis(500);
/// Between two sweeps of what is too old, and records removed in one transaction.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
const SWEPT: u32 = 500;

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of calls out of the ordinary, a second and node.
    pub notable_per_s: u32,
    /// Of plain ones.
    pub plain_per_s: u32,
    /// For how long, milliseconds.
    pub keep_ms: i64,
}

/// What the writer is sent.
#[derive(Debug)]
enum Item {
    Decided(Box<Decision>),
    /// Tell when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// See the module.
#[derive(Debug)]
pub struct Records {
    store: Arc<dyn DecisionStore>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    node: String,
    bounds: Bounds,
    notable: PerSecond,
    plain: PerSecond,
    queue: mpsc::Sender<Item>,
    waiting: Mutex<mpsc::Receiver<Item>>,
    /// Somebody wants what waits to be written now.
    hurry: Notify,
    /// A writer is at work.
    runs: AtomicBool,
}

impl Records {
    /// Writes nothing until [`Records::run`] does.
    pub fn new(
        store: Arc<dyn DecisionStore>,
        (metrics, clock): (Arc<Metrics>, Arc<dyn Clock>),
        node: Uuid,
        bounds: Bounds,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        Self {
            store,
            metrics,
            clock,
            node: node.to_string(),
            bounds,
            notable: PerSecond::default(),
            plain: PerSecond::default(),
            queue,
            waiting: Mutex::new(waiting),
            hurry: Notify::new(),
            runs: AtomicBool::new(false),
        }
    }

    /// As the settings say.
    pub fn of(
        settings: &Settings,
        stores: &Stores,
        (metrics, clock): (&Arc<Metrics>, &Arc<dyn Clock>),
        node: Uuid,
    ) -> Arc<Self> {
        let bounds = Bounds {
            notable_per_s: settings.records_per_s,
            plain_per_s: settings.plain_records_per_s,
            keep_ms: i64::try_from(settings.records_keep_ms).unwrap_or(i64::MAX),
        };
        let with = (Arc::clone(metrics), Arc::clone(clock));
        Arc::new(Self::new(Arc::clone(&stores.decisions), with, node, bounds))
    }

    /// Takes the decision about a call that is over, or lets it go. Never waits. A request whose
    /// key is not known leaves no record: anybody can send such.
    pub fn offer(&self, decision: Decision) {
        if decision.kid.is_empty() {
            return;
        }
        let (rate, most) = if decision.is_notable() {
            (&self.notable, self.bounds.notable_per_s)
        } else {
            (&self.plain, self.bounds.plain_per_s)
        };
        if !rate.take(self.clock.now(), most) {
            self.metrics.routing.recorded("above_rate", 1);
        } else if self.queue.try_send(Item::Decided(Box::new(decision))).is_err() {
            self.metrics.routing.recorded("dropped", 1);
        }
    }

    /// What is written down about a request, with what this node has on its way.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(&self, id: Uuid) -> Result<Option<String>, anima_store::config::Error> {
        if self.runs.load(Ordering::Acquire)
            && tokio::time::timeout(FLUSH, self.flush()).await.is_err()
        {
            tracing::debug!("decisions are late on their way to the database");
        }
        self.store.read(id).await
    }

    /// Waits until everything that was offered before is written, or dropped.
    async fn flush(&self) {
        let (told, written) = oneshot::channel();
        if self.queue.send(Item::Flush(told)).await.is_ok() {
            self.hurry.notify_one();
            // The writer that is gone wrote what it could.
            if written.await.is_err() {
                tracing::debug!("the writer of decisions has ended");
            }
        }
    }

    /// Writes and sweeps until the node stops.
    pub async fn run(self: Arc<Self>) {
        let mut waiting = self.waiting.lock().await;
        self.runs.store(true, Ordering::Release);
        let mut sweep_at = Instant::now() + SWEEP_EVERY;
        loop {
            tokio::select! {
                first = waiting.recv() => {
                    let Some(first) = first else { return };
                    self.batch(first, &mut waiting).await;
                }
                () = tokio::time::sleep_until(sweep_at) => {
                    self.sweep().await;
                    sweep_at = Instant::now() + SWEEP_EVERY;
                }
            }
        }
    }

    /// Writes what still waits: the node stops, and its writer has been ended.
    pub async fn finish(&self) {
        self.runs.store(false, Ordering::Release);
        let mut waiting = self.waiting.lock().await;
        while let Ok(first) = waiting.try_recv() {
            self.hurry.notify_one();
            self.batch(first, &mut waiting).await;
        }
    }

    /// Writes one batch: what comes within a moment of its first.
    async fn batch(&self, first: Item, waiting: &mut mpsc::Receiver<Item>) {
        let (mut records, mut told) = (Vec::new(), Vec::new());
        self.add(first, &mut records, &mut told);
        let until = Instant::now() + LINGER;
        while records.len() < BATCH {
            let next = tokio::select! {
                biased;
                next = waiting.recv() => next,
                () = self.hurry.notified() => break,
                () = tokio::time::sleep_until(until) => break,
            };
            let Some(next) = next else { break };
            self.add(next, &mut records, &mut told);
        }
        if !records.is_empty() {
            self.write(records).await;
        }
        for told in told {
            // Who asked may have gone.
            let _gone = told.send(());
        }
    }

    fn add(&self, item: Item, records: &mut Vec<Record>, told: &mut Vec<oneshot::Sender<()>>) {
        match item {
            Item::Decided(decision) => records.push((decision.id, decision.record(&self.node))),
            Item::Flush(waits) => told.push(waits),
        }
    }

    async fn write(&self, records: Vec<Record>) {
        let count = records.len() as u64;
        match self.store.write(records).await {
            Ok(()) => self.metrics.routing.recorded("written", count),
            Err(error) => {
                tracing::warn!(%error, count, "failed to write decision records: they are lost");
                self.metrics.routing.recorded("failed", count);
            }
        }
    }

    async fn sweep(&self) {
        let before = self.clock.now().plus_millis(self.bounds.keep_ms.saturating_neg());
        loop {
            match self.store.sweep(before, SWEPT).await {
                Ok(swept) if swept >= u64::from(SWEPT) => tokio::task::yield_now().await,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to forget old decision records");
                    return;
                }
            }
        }
    }
}

/// A count per second, without a lock: the second in the upper half, the count in the lower.
#[derive(Debug, Default)]
struct PerSecond(AtomicU64);

impl PerSecond {
    /// Takes one of this second's `most`, if there is one left.
    fn take(&self, now: Timestamp, most: u32) -> bool {
        let second = u64::try_from(now.seconds()).unwrap_or(0) & u64::from(u32::MAX);
        let counted = |word: u64| if word >> 32 == second { word & u64::from(u32::MAX) } else { 0 };
        let next = |word: u64| {
            let count = counted(word);
            (count < u64::from(most)).then(|| (second << 32) | (count + 1))
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_no_more() {
        let rate = PerSecond::default();
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let taken = |second, most| (0..10).filter(|_| rate.take(at(second), most)).count();
        assert_eq!(taken(1, 3), 3);
        assert_eq!(taken(1, 4), 1);
        assert_eq!(taken(2, 4), 4);
        assert_eq!(taken(3, 0), 0);
    }
}
