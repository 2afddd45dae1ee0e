//! The queue in front of a writer: callers push and wait, the writer takes by rank.
//!
//! Settlements come first, because they free money and end requests; then entries; then holds,
//! which may be refused for want of time; then checkpoints, which may be dropped. While the
//! database is away, settlements are kept beyond their callers' patience; then nothing new is
//! begun. Invariant: within a rank the order is the order of arrival.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use anima_core::ledger::{Checkpoint, Entry, Extension, Hold, Settlement};

use super::operation::{Item, Operation, Waiter, open};
use super::{Correction, Error, Posted, Settled, TruedUp};

/// Holds that may wait: half a second of work for one SQLite writer. A longer queue would only be
/// shed by [`WAIT`] later.
const HOLDS: usize = 4_096;

/// How long a hold may have waited when its batch starts (`reliability` 1.7).
const WAIT: Duration = Duration::from_millis(250);

/// How long the caller of a settlement or an entry waits for a database that is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Settlements without a caller that one writer keeps for a database that is away: about 64 MiB of
/// them. Holds are refused meanwhile, so this is far more than the calls in flight can bring.
const KEPT: usize = 50_000;

/// Checkpoints that may wait. They come once per running call and some seconds, so this many wait
/// only while nothing is written.
const CHECKPOINTS: usize = 4_096;

/// Checkpoints in one transaction: a row each, behind which everybody in the batch waits.
const CHECKPOINTS_TOGETHER: usize = 128;

/// The callers' end.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::UnboundedSender<Item>,
    writer: Arc<Condition>,
}

/// What callers know of their writer.
#[derive(Debug, Default)]
struct Condition {
    /// Holds that wait.
    holds: AtomicUsize,
    /// The last transaction was lost and something waits for the next one, or nothing will be
    /// written any more.
    failing: AtomicBool,
    /// The last transaction was lost and settlements are kept for the next one.
    keeping: AtomicBool,
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Lanes {
    receiver: mpsc::UnboundedReceiver<Item>,
    settlements: VecDeque<Item>,
    entries: VecDeque<Item>,
    holds: VecDeque<Item>,
    checkpoints: VecDeque<Item>,
    condition: Arc<Condition>,
}

/// Makes both ends.
pub(super) fn queue() -> (Queue, Lanes) {
    // Unbounded, because settlements must not be refused; holds are bounded by their count.
    let (sender, receiver) = mpsc::unbounded_channel();
    let condition = Arc::new(Condition::default());
    let queue = Queue { sender, writer: Arc::clone(&condition) };
    let lanes = Lanes {
        receiver,
        settlements: VecDeque::new(),
        entries: VecDeque::new(),
        holds: VecDeque::new(),
        checkpoints: VecDeque::new(),
        condition,
    };
    (queue, lanes)
}

impl Queue {
    pub(super) async fn hold(&self, hold: Hold) -> Result<(), Error> {
        let operation = Operation::hold(hold.clone())?;
        if self.writer.keeping.load(Ordering::Relaxed) {
            return Err(Error::Unavailable("settlements wait for the database".to_owned()));
        }
        if self.writer.holds.fetch_add(1, Ordering::Relaxed) >= HOLDS {
            self.writer.holds.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Overloaded);
        }
        let (sender, verdict) = oneshot::channel();
        self.send(operation, Waiter::Hold(sender))?;
        let mut awaited = Awaited { queue: self, hold, verdict };
        (&mut awaited.verdict).await.unwrap_or_else(|_| Err(stopped()))
    }

    pub(super) async fn settle(&self, settlement: Settlement) -> Result<Settled, Error> {
        self.wait(Operation::settle(settlement)?, Waiter::Settle).await
    }

    pub(super) async fn post(&self, entry: Entry) -> Result<Posted, Error> {
        self.wait(Operation::post(entry)?, Waiter::Post).await
    }

    pub(super) async fn extend(&self, extension: Extension) -> Result<(), Error> {
        self.wait(open::extend(extension)?, Waiter::Extend).await
    }

    pub(super) async fn true_up(&self, correction: Correction) -> Result<TruedUp, Error> {
        self.wait(open::true_up(correction)?, Waiter::TrueUp).await
    }

    /// Sends a checkpoint, and gives what to wait for.
    ///
    /// # Errors
    /// Those of a checkpoint that no store could accept, or of a writer that has stopped.
    pub(super) fn checkpoint(
        &self,
        checkpoint: Checkpoint,
    ) -> Result<impl Future<Output = Result<(), Error>> + use<>, Error> {
        let operation = open::checkpoint(checkpoint)?;
        let (sender, verdict) = oneshot::channel();
        self.send(operation, Waiter::Checkpoint(sender))?;
        Ok(async move { verdict.await.unwrap_or_else(|_| Err(stopped())) })
    }

    /// Whether what is asked for now can be written, as far as the last transaction tells.
    pub(super) fn healthy(&self) -> bool {
        !self.sender.is_closed() && !self.writer.failing.load(Ordering::Relaxed)
    }

    async fn wait<T>(
        &self,
        operation: Operation,
        waiter: fn(oneshot::Sender<Result<T, Error>>) -> Waiter,
    ) -> Result<T, Error> {
        let (sender, verdict) = oneshot::channel();
        self.send(operation, waiter(sender))?;
        verdict.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn send(&self, operation: Operation, waiter: Waiter) -> Result<(), Error> {
        let item = Item { operation, waiter, since: Instant::now() };
        self.sender.send(item).map_err(|_unsent| stopped())
    }
}

fn stopped() -> Error {
    Error::Unavailable("the ledger's writer has stopped".to_owned())
}

/// A caller that waits for its hold. When its future is dropped between the verdict and reading
/// it, the writer believes that it was heard: then the hold is released here.
#[derive(Debug)]
struct Awaited<'q> {
    queue: &'q Queue,
    hold: Hold,
    verdict: oneshot::Receiver<Result<(), Error>>,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        // From here on the writer sees that nobody listens, and what it said before is here.
        self.verdict.close();
        if let Ok(Ok(())) = self.verdict.try_recv()
            && self.queue.sender.send(Item::release(&self.hold)).is_err()
        {
            tracing::error!(id = %self.hold.id, "a hold is left open: the writer has stopped");
        }
    }
}

impl Lanes {
    /// Waits until something is there, then takes in everything that is. `false` when all callers
    /// are gone and nothing is left.
    pub(super) async fn fill(&mut self) -> bool {
        if self.is_idle() {
            match self.receiver.recv().await {
                Some(item) => self.sort(item),
                None => return false,
            }
        }
        self.take_in();
        true
    }

    /// Takes in everything that has come.
    pub(super) fn take_in(&mut self) {
        while let Ok(item) = self.receiver.try_recv() {
            self.sort(item);
        }
    }

    /// How many callers wait.
    pub(super) fn waiting(&self) -> usize {
        self.settlements.len() + self.entries.len() + self.holds.len()
    }

    fn is_idle(&self) -> bool {
        self.settlements.is_empty()
            && self.entries.is_empty()
            && self.holds.is_empty()
            && self.checkpoints.is_empty()
    }

    fn sort(&mut self, item: Item) {
        match item.operation {
            Operation::Settle(_) => self.settlements.push_back(item),
            Operation::Post(_) | Operation::Extend(_) | Operation::TrueUp(_) => {
                self.entries.push_back(item);
            }
            Operation::Hold(_) => self.holds.push_back(item),
            Operation::Checkpoint(_) => {
                self.checkpoints.push_back(item);
                if self.checkpoints.len() > CHECKPOINTS
                    && let Some(oldest) = self.checkpoints.pop_front()
                {
                    oldest.refuse(Error::Overloaded);
                }
            }
        }
    }

    /// The next batch, of at most `most`. When more waits than that, holds that have waited too
    /// long are shed on the way; a short line behind a slow disk is not, for it will be written.
    pub(super) fn take(&mut self, most: usize) -> Vec<Item> {
        let crowded = self.settlements.len() + self.entries.len() + self.holds.len() > most;
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
            self.condition.holds.fetch_sub(1, Ordering::Relaxed);
            if crowded && now.saturating_duration_since(item.since) > WAIT {
                item.refuse(Error::Overloaded);
            } else {
                batch.push(item);
            }
        }
        let room = most.saturating_sub(batch.len()).min(CHECKPOINTS_TOGETHER);
        batch.extend(self.checkpoints.drain(..room.min(self.checkpoints.len())));
        batch
    }

    /// Puts what must be written back to the front of its lane.
    pub(super) fn put_back(&mut self, item: Item) {
        match item.operation {
            Operation::Settle(_) => self.settlements.push_front(item),
            Operation::Post(_) | Operation::Extend(_) | Operation::TrueUp(_) => {
                self.entries.push_front(item);
            }
            Operation::Hold(_) | Operation::Checkpoint(_) => item.refuse(Error::Overloaded),
        }
    }

    /// Gives back what a hold took that nobody will settle.
    pub(super) fn release(&mut self, hold: &Hold) {
        self.settlements.push_back(Item::release(hold));
    }

    /// A transaction was made.
    pub(super) fn recovered(&self) {
        self.condition.failing.store(false, Ordering::Relaxed);
        self.condition.keeping.store(false, Ordering::Relaxed);
    }

    /// Nothing will be written any more.
    pub(super) fn stopped(&self) {
        self.condition.failing.store(true, Ordering::Relaxed);
    }

    /// A transaction was lost, and what was in it is back in the lanes. Tells whoever has waited
    /// long enough, and keeps settlements all the same.
    pub(super) fn outage(&mut self, error: &Error) {
        let is_tired = |item: &Item| item.since.elapsed() >= PATIENCE;
        // An entry is repeated by an operator, under its key, who must not find it half done.
        let (tired, rest) = self.entries.drain(..).partition::<VecDeque<_>, _>(is_tired);
        self.entries = rest;
        // The calls go on, and there will be a later one.
        for item in self.checkpoints.drain(..) {
            item.refuse(error.clone());
        }
        let kept = self.settlements.iter().filter(|item| item.is_kept() || is_tired(item)).count();
        self.condition.keeping.store(kept > 0, Ordering::Relaxed);
        // With nothing left to try, the next transaction is a caller's, and none might come to a
        // node that calls itself unwell.
        self.condition.failing.store(!self.is_idle(), Ordering::Relaxed);
        for item in self.settlements.iter_mut().filter(|item| !item.is_kept() && is_tired(item)) {
            item.tell(error.clone());
        }
        for item in tired {
            item.refuse(error.clone());
        }
        self.drop_oldest(kept.saturating_sub(KEPT));
        if kept > 0 {
            self.refuse_holds(error);
        }
    }

    fn drop_oldest(&mut self, mut count: usize) {
        self.settlements.retain(|item| {
            let is_dropped = count > 0 && item.is_kept();
            if is_dropped {
                count = count.saturating_sub(1);
                let (kind, id) = item.operation.name();
                tracing::error!(kind, %id, "dropped unwritten: too many wait for the database");
            }
            !is_dropped
        });
    }

    fn refuse_holds(&mut self, error: &Error) {
        for item in self.holds.drain(..) {
            self.condition.holds.fetch_sub(1, Ordering::Relaxed);
            item.refuse(error.clone());
        }
    }

    /// The holds that wait here.
    pub(super) fn holds(&self) -> impl Iterator<Item = &Item> {
        self.holds.iter()
    }

    /// Refuses everything that waits and everything that comes, until all callers are gone.
    pub(super) async fn close(mut self, error: &Error) {
        self.stopped();
        while self.fill().await {
            let lanes = [&mut self.settlements, &mut self.entries, &mut self.checkpoints];
            for item in lanes.into_iter().flat_map(|lane| lane.drain(..)) {
                item.refuse(error.clone());
            }
            self.refuse_holds(error);
        }
    }
}
