//! The queue in front of a writer: callers push and wait, the writer takes by rank.
//!
//! Settlements come first, because they free money and end requests; then entries; then holds,
//! which are the only ones that may be refused for want of time.
//! Invariant: within a rank the order is the order of arrival.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use anima_core::ledger::{Entry, Hold, Settlement};

use super::operation::{Item, Operation, Waiter};
use super::{Error, Posted, Settled};

/// Holds that may wait: half a second of work for one SQLite writer. A longer queue would only be
/// shed by [`WAIT`] later.
const HOLDS: usize = 4_096;

/// How long a hold may have waited when its batch starts (`reliability` 1.7).
const WAIT: Duration = Duration::from_millis(250);

/// The callers' end.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Item>,
    holds: Arc<AtomicUsize>,
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Lanes {
    receiver: mpsc::UnboundedReceiver<Item>,
    settlements: VecDeque<Item>,
    entries: VecDeque<Item>,
    holds: VecDeque<Item>,
    waiting: Arc<AtomicUsize>,
}

/// Makes both ends.
pub(super) fn queue() -> (Queue, Lanes) {
    // Unbounded, because settlements must not be refused; holds are bounded by their count.
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let queue = Queue { sender, holds: Arc::clone(&waiting) };
    let lanes = Lanes {
        receiver,
        settlements: VecDeque::new(),
        entries: VecDeque::new(),
        holds: VecDeque::new(),
        waiting,
    };
    (queue, lanes)
}

impl Queue {
    pub(super) async fn hold(&self, hold: Hold) -> Result<(), Error> {
        let operation = Operation::hold(hold)?;
        if self.holds.fetch_add(1, Ordering::Relaxed) >= HOLDS {
            self.holds.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Overloaded);
        }
        self.wait(operation, Waiter::Hold).await
    }

    pub(super) async fn settle(&self, settlement: Settlement) -> Result<Settled, Error> {
        self.wait(Operation::settle(settlement)?, Waiter::Settle).await
    }

    pub(super) async fn post(&self, entry: Entry) -> Result<Posted, Error> {
        self.wait(Operation::post(entry)?, Waiter::Post).await
    }

    async fn wait<T>(
        &self,
        operation: Operation,
        waiter: fn(oneshot::Sender<Result<T, Error>>) -> Waiter,
    ) -> Result<T, Error> {
        let stopped = || Error::Unavailable("the ledger's writer has stopped".to_owned());
        let (sender, verdict) = oneshot::channel();
        let item = Item { operation, waiter: waiter(sender), since: Instant::now() };
        if self.sender.send(item).is_err() {
            return Err(stopped());
        }
        verdict.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Lanes {
    /// Waits until something is there, then takes in everything that is. `false` when all callers
    /// are gone and nothing is left.
    pub(super) async fn fill(&mut self) -> bool {
        let idle = self.settlements.is_empty() && self.entries.is_empty() && self.holds.is_empty();
        if idle {
            match self.receiver.recv().await {
                Some(item) => self.sort(item),
                None => return false,
            }
        }
        while let Ok(item) = self.receiver.try_recv() {
            self.sort(item);
        }
        true
    }

    fn sort(&mut self, item: Item) {
        match item.operation {
            Operation::Settle(_) => self.settlements.push_back(item),
            Operation::Post(_) => self.entries.push_back(item),
            Operation::Hold(_) => self.holds.push_back(item),
        }
    }

    /// The next batch, of at most `most`. Holds that have waited too long are shed on the way.
    pub(super) fn take(&mut self, most: usize) -> Vec<Item> {
        let mut batch = Vec::with_capacity(most.min(64));
        while batch.len() < most
            && let Some(item) = self.settlements.pop_front().or_else(|| self.entries.pop_front())
        {
            batch.push(item);
        }
        let now = Instant::now();
        while batch.len() < most
            && let Some(item) = self.holds.pop_front()
        {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if now.saturating_duration_since(item.since) > WAIT {
                item.waiter.refuse(Error::Overloaded);
            } else {
                batch.push(item);
            }
        }
        batch
    }

    /// Puts a settlement or an entry back to the front of its lane.
    pub(super) fn put_back(&mut self, item: Item) {
        match item.operation {
            Operation::Settle(_) => self.settlements.push_front(item),
            Operation::Post(_) => self.entries.push_front(item),
            Operation::Hold(_) => item.waiter.refuse(Error::Overloaded),
        }
    }

    /// The holds that wait here.
    pub(super) fn holds(&self) -> impl Iterator<Item = &Item> {
        self.holds.iter()
    }

    /// Refuses everything that waits and everything that comes, until all callers are gone.
    pub(super) async fn close(mut self, error: &Error) {
        while self.fill().await {
            let lanes = [&mut self.settlements, &mut self.entries, &mut self.holds];
            for item in lanes.into_iter().flat_map(|lane| lane.drain(..)) {
                if matches!(item.operation, Operation::Hold(_)) {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                item.waiter.refuse(error.clone());
            }
        }
    }
}
