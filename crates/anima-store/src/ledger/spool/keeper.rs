//! What runs a spool: it keeps what comes on the disk, and writes what waits to the database.
//!
//! Not here: what becomes of one settlement (`fate`), and the file's format (`file`).
//! Invariant: what leaves the file is in the books, or beside it in the file of what was refused.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::fate::{self, Fate};
use super::file::SpoolFile;
use super::{Keep, PAUSE, Shared, SpoolObserver, Spooled, holds, waiting};
use crate::idempotency::IdempotencyStore;
use crate::ledger::LedgerStore;
use crate::ledger::batch::caught::caught;

/// A file below this is not worth writing anew.
const COMPACT_BYTES: u64 = 1024 * 1024;

/// Settlements that share one sync, or go to the database side by side, at most.
const TOGETHER: usize = 1_024;

/// What runs a spool: its file and what is in it.
pub(super) struct Keeper {
    pub(super) inner: Arc<dyn LedgerStore>,
    pub(super) keys: Arc<dyn IdempotencyStore>,
    pub(super) observer: Arc<dyn SpoolObserver>,
    pub(super) shared: Arc<Shared>,
    pub(super) file: SpoolFile,
    /// What the file holds and the database does not.
    pub(super) waiting: Vec<Spooled>,
    /// Settlements in the file, written or not.
    pub(super) frames: usize,
    pub(super) receiver: mpsc::UnboundedReceiver<Keep>,
}

impl Keeper {
    /// Keeps what comes and writes what waits, until every sender is gone.
    pub(super) async fn run(mut self) {
        loop {
            if self.waiting.is_empty() {
                let Some(first) = self.receiver.recv().await else { return };
                self.keep(first).await;
                continue;
            }
            tokio::select! {
                biased;
                more = self.receiver.recv() => match more {
                    Some(first) => self.keep(first).await,
                    // The node has stopped; what is left stays in the file for the next start.
                    None => return,
                },
                () = tokio::time::sleep(PAUSE) => {}
            }
            if self.inner.healthy() {
                self.write().await;
            }
        }
    }

    /// Writes and syncs what waits to be kept, and tells everybody.
    async fn keep(&mut self, first: Keep) {
        let mut all = vec![first];
        while all.len() < TOGETHER
            && let Ok(more) = self.receiver.try_recv()
        {
            all.push(more);
        }
        let payloads: Vec<_> = all.iter().map(|keep| keep.spooled.to_bytes()).collect();
        let written = self.file.append(payloads).await;
        self.frames += if written.is_ok() { all.len() } else { 0 };
        for Keep { spooled, kept } in all {
            let result = written.clone();
            if result.is_ok() {
                self.shared.spooled.lock().insert(spooled.settlement.hold);
                self.waiting.push(spooled);
            } else {
                self.observer.overflowed();
                if !spooled.fenced {
                    self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
                }
            }
            // Nobody listens when the caller has gone; it is kept all the same.
            drop(kept.send(result));
        }
        self.show();
    }

    /// Writes to the database what waits, oldest first, until one finds it away.
    async fn write(&mut self) {
        let before = waiting(&self.waiting);
        let (mut left, mut refused) = (Vec::new(), Vec::new());
        let mut all = std::mem::take(&mut self.waiting).into_iter();
        while waiting(&left) == 0 && all.len() > 0 {
            let together: Vec<_> = all.by_ref().take(TOGETHER).collect();
            for (spooled, is_refused) in self.write_together(together).await {
                if is_refused { refused.push(spooled) } else { left.push(spooled) }
            }
        }
        left.extend(all);
        self.waiting = left;
        self.set_aside(refused).await;
        *self.shared.spooled.lock() = holds(&self.waiting);
        self.shrink().await;
        // More can wait than before: what waited for another node and finds the database away.
        let after = waiting(&self.waiting);
        if after > before {
            self.shared.waiting.fetch_add(after - before, Ordering::AcqRel);
        } else {
            self.shared.waiting.fetch_sub(before - after, Ordering::AcqRel);
        }
        self.shared.progress.notify_waiters();
        self.show();
    }

    /// Keeps what the books refuse for good where people find it: it is the only copy. Where that
    /// fails it stays in the spool, and nothing waits for it.
    async fn set_aside(&mut self, refused: Vec<Spooled>) {
        if refused.is_empty() {
            return;
        }
        let lines = refused.iter().map(Spooled::to_bytes).collect();
        if let Err(why) = self.file.set_aside(lines).await {
            tracing::error!(why, "failed to keep what was refused for good");
            let kept = refused.into_iter().map(|spooled| Spooled { fenced: true, ..spooled });
            self.waiting.extend(kept);
        }
    }

    /// Empties the file, or, when most of a large one is done with, keeps what is left: settlements
    /// that wait for another node must not fill it for those that will wait for the database.
    async fn shrink(&mut self) {
        let left = self.waiting.len();
        let shrunk = if left == 0 {
            self.file.clear().await
        } else if left <= self.frames / 2 && self.file.size_bytes() > COMPACT_BYTES {
            let left = self.waiting.iter().map(Spooled::to_bytes);
            self.file.replace(left.collect()).await
        } else {
            return;
        };
        match shrunk {
            Ok(()) => self.frames = left,
            // What it holds is in the database: the next start finds that out again.
            Err(why) => tracing::error!(why, "failed to shrink the spool"),
        }
    }

    /// Writes some in one go, so that they share transactions. Gives back what is to be tried
    /// again, and what is refused for good (`true`).
    async fn write_together(&self, all: Vec<Spooled>) -> Vec<(Spooled, bool)> {
        let mut writing = JoinSet::new();
        for spooled in all {
            let (inner, observer) = (Arc::clone(&self.inner), Arc::clone(&self.observer));
            let keys = Arc::clone(&self.keys);
            writing.spawn(async move {
                match caught(fate::write_one((&*inner, &*keys), &*observer, &spooled)).await {
                    Ok(Fate::Done) => None,
                    Ok(Fate::Refused) => Some((spooled, true)),
                    Ok(Fate::Away) => Some((Spooled { fenced: false, ..spooled }, false)),
                    Ok(Fate::Fenced) => Some((Spooled { fenced: true, ..spooled }, false)),
                    Err(why) => Some(spooled.panicked(&why, &*observer)),
                }
            });
        }
        writing.join_all().await.into_iter().flatten().collect()
    }

    pub(super) fn show(&self) {
        self.observer.waiting(self.waiting.len(), self.file.size_bytes());
    }
}
