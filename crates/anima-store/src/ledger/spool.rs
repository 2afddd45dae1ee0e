//! Settlements that outlive both the database's absence and this process.
//!
//! A [`LedgerStore`] around another one. A settlement that the database did not take in time, or
//! that came when another node had taken over, is written to a file and synced before its caller is
//! told; a task writes it to the database when that is back, and a start does so before anything is
//! served. Synced there it counts as made ([`Error::Spooled`]), and its answer is delivered. What
//! another node has settled by then is corrected, in both directions where it counts. Writing twice
//! is harmless: the store knows a settlement again by its hold and digest. It does not judge and
//! books nothing itself.
//! Invariant: while a settlement waits for the database, no new hold is placed. Source:
//! `reliability` 1.6, row 21.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Balance, Checkpoint, Entry, Extension, Hold, Settlement};
use anima_core::money::Currency;

use super::{
    Claimed, Correction, Error, Finding, Health, Lease, Leases, LedgerStore, OpenHolds, Posted,
    Posting, Registration, Settled, TrialLine, TruedUp,
};
use crate::idempotency::{IdempotencyStore, UsedKey};
use file::SpoolFile;
use keeper::Keeper;
use record::Told;

mod fate; // what becomes of a settlement
mod file; // frames on disk
mod keeper; // what writes them, to the disk and to the database
pub(super) mod record; // a settlement as text

/// Pause between two looks whether the database is back.
const PAUSE: Duration = Duration::from_millis(200);

/// Panics after which a settlement is taken for refused for good.
const PANICS_MAX: u8 = 3;

/// Told how full the spool is, for metrics.
pub trait SpoolObserver: Send + Sync + fmt::Debug {
    /// So many settlements wait, in so many bytes of the file.
    fn waiting(&self, settlements: usize, size_bytes: u64);
    /// A settlement could not be spooled and lives in memory alone: the file is full or broken.
    fn overflowed(&self);
    /// The file was damaged: so many bytes at its end could not be read.
    fn damaged(&self, lost_bytes: u64);
    /// A settlement came too late, and what the books say of its hold was corrected.
    fn corrected(&self);
    /// A settlement came to more than hold and wallet cover. Told again after a crash.
    fn short(&self, settlement: &Settlement, settled: Settled);
    /// A settlement was refused for good: what it says is not in the books, but in a file beside.
    fn lost(&self);
}

/// A ledger with a spool. See the module.
#[derive(Debug)]
pub struct SpooledLedger {
    inner: Arc<dyn LedgerStore>,
    shared: Arc<Shared>,
    sender: mpsc::UnboundedSender<Keep>,
}

#[derive(Debug)]
struct Shared {
    /// Settlements that wait for the database, in the file or on their way into it. Those that wait
    /// for another node are not counted.
    waiting: AtomicUsize,
    /// The holds of all that is in the file.
    spooled: Mutex<BTreeSet<Uuid>>,
    /// The holds of dead processes that this one resolves, as of the last look.
    resolving: Mutex<BTreeSet<Uuid>>,
    /// Something has left the spool.
    progress: Notify,
}

/// A settlement in the file.
#[derive(Debug)]
struct Spooled {
    settlement: Settlement,
    /// It waits until another node has closed the hold, not for the database.
    fenced: bool,
    told: Told,
    /// How often writing it has panicked.
    panics: u8,
}

/// A settlement to be kept, and who waits until it is.
struct Keep {
    spooled: Spooled,
    kept: oneshot::Sender<Result<(), String>>,
}

impl SpooledLedger {
    /// Opens the file at `path`, which is made when absent, and starts to write what is in it once
    /// the database may be written to, which is when `ready` is. `keys` are of the same database.
    /// To be called inside a runtime.
    ///
    /// # Errors
    /// When the file cannot be opened, read or made.
    pub async fn open(
        inner: Arc<dyn LedgerStore>,
        keys: Arc<dyn IdempotencyStore>,
        path: &Path,
        observer: Arc<dyn SpoolObserver>,
        ready: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<Self> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || SpoolFile::open_shared(&path)).await;
        let (file, read) = opened.map_err(std::io::Error::other)??;
        if read.lost_bytes > 0 {
            tracing::error!(
                lost_bytes = read.lost_bytes,
                "the spool of settlements is damaged: what stands behind the damage is lost, and \
                 its holds are resolved like those of a crash"
            );
            observer.damaged(read.lost_bytes);
        }
        let mut waiting = Vec::with_capacity(read.payloads.len());
        for payload in &read.payloads {
            match record::read(payload) {
                Ok((settlement, told)) => waiting.push(Spooled::new(settlement, false, told)),
                Err(why) => {
                    tracing::error!(why, "a spooled settlement cannot be read");
                    observer.lost();
                }
            }
        }
        if !waiting.is_empty() {
            tracing::warn!(settlements = waiting.len(), "found in the spool: to be written");
        }
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(waiting.len()),
            spooled: Mutex::new(holds(&waiting)),
            resolving: Mutex::default(),
            progress: Notify::new(),
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        let keeper = Keeper {
            inner: Arc::clone(&inner),
            keys,
            observer,
            shared: Arc::clone(&shared),
            file,
            frames: waiting.len(),
            waiting,
            receiver,
        };
        keeper.show();
        tokio::spawn(async move { (ready.await, keeper.run().await) });
        Ok(Self { inner, shared, sender })
    }

    /// How many settlements wait in the spool.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Waits until the spool is empty, at most for `within`. Tells whether it is.
    pub async fn drained(&self, within: Duration) -> bool {
        let emptied = async {
            loop {
                let progress = self.shared.progress.notified();
                if self.waiting() == 0 {
                    return;
                }
                progress.await;
            }
        };
        tokio::time::timeout(within, emptied).await.is_ok()
    }

    /// Has a settlement written, or keeps it. `once`: nobody can ask for its call again without
    /// being charged again; else it may be under `key`.
    async fn settle_or_keep(
        &self,
        settlement: Settlement,
        (once, key): (bool, Option<UsedKey>),
    ) -> Result<Settled, Error> {
        let kept = settlement.clone();
        let refusal = match self.inner.settle(settlement).await {
            Err(refusal @ (Error::Unavailable(_) | Error::Fenced)) => refusal,
            answered => return answered,
        };
        let (id, fenced) = (kept.hold, refusal == Error::Fenced);
        let resolves = self.shared.resolving.lock().contains(&id);
        // What was resolved in a dead process's place is a guess. It corrects nobody who came later
        // and may know more, and the next pass makes it again.
        let is_guess = kept
            .attempts
            .iter()
            .any(|attempt| attempt.outcome == anima_core::ledger::recovery::OUTCOME);
        if is_guess || (fenced && resolves) {
            return Err(refusal);
        }
        let counts = !fenced && !resolves;
        let spooled = Spooled::new(kept.clone(), fenced, Told { counts, once, key });
        match self.keep(spooled).await {
            Ok(()) if counts => Err(Error::Spooled(refusal.to_string())),
            Ok(()) => Err(refusal),
            Err(why) => {
                tracing::error!(%id, why, "a settlement is in memory alone");
                if counts {
                    // Its caller withholds the answer, and what was not delivered is not sold.
                    tokio::spawn(fate::take_back(Arc::clone(&self.inner), kept));
                }
                Err(refusal)
            }
        }
    }

    /// Puts a settlement into the file, synced.
    async fn keep(&self, spooled: Spooled) -> Result<(), String> {
        let (kept, answer) = oneshot::channel();
        if !spooled.fenced {
            self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        }
        let stopped = || "the spool has stopped".to_owned();
        self.sender.send(Keep { spooled, kept }).map_err(|_unsent| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Spooled {
    const fn new(settlement: Settlement, fenced: bool, told: Told) -> Self {
        Self { settlement, fenced, told, panics: 0 }
    }

    /// What becomes of it after a panic: it is tried again, or refused for good (`true`).
    fn panicked(mut self, why: &str, observer: &dyn SpoolObserver) -> (Self, bool) {
        let id = self.settlement.hold;
        tracing::error!(%id, why, "writing a spooled settlement panicked");
        self.fenced = false;
        self.panics = self.panics.saturating_add(1);
        let is_refused = self.panics >= PANICS_MAX;
        if is_refused {
            observer.lost();
        }
        (self, is_refused)
    }

    fn to_bytes(&self) -> Vec<u8> {
        record::write(&self.settlement, &self.told)
    }
}

fn holds(spooled: &[Spooled]) -> BTreeSet<Uuid> {
    spooled.iter().map(|spooled| spooled.settlement.hold).collect()
}

/// How many wait for the database.
fn waiting(spooled: &[Spooled]) -> usize {
    spooled.iter().filter(|spooled| !spooled.fenced).count()
}

#[async_trait]
impl LedgerStore for SpooledLedger {
    async fn hold(&self, hold: Hold) -> Result<(), Error> {
        if self.waiting() > 0 {
            return Err(Error::Unavailable("settlements wait in the spool".to_owned()));
        }
        self.inner.hold(hold).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, Error> {
        self.settle_or_keep(settlement, (true, None)).await
    }

    async fn post(&self, entry: Entry) -> Result<Posted, Error> {
        self.inner.post(entry).await
    }

    async fn balance(&self, app: &str, currency: Currency) -> Result<Balance, Error> {
        self.inner.balance(app, currency).await
    }

    async fn postings(&self, subject: Uuid) -> Result<Vec<Posting>, Error> {
        self.inner.postings(subject).await
    }

    async fn verify(&self, now: Timestamp) -> Result<Vec<Finding>, Error> {
        self.inner.verify(now).await
    }

    async fn trial_balance(&self) -> Result<Vec<TrialLine>, Error> {
        self.inner.trial_balance().await
    }
}

impl Health for SpooledLedger {
    fn healthy(&self) -> bool {
        self.inner.healthy() && self.waiting() == 0
    }
}

#[async_trait]
impl Leases for SpooledLedger {
    async fn register(&self, registration: Registration) -> Result<(), Error> {
        self.inner.register(registration).await
    }

    async fn renew(&self, ttl: Duration) -> Result<(), Error> {
        self.inner.renew(ttl).await
    }

    async fn release(&self) -> Result<(), Error> {
        self.inner.release().await
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        self.inner.leases().await
    }
}

#[async_trait]
impl OpenHolds for SpooledLedger {
    async fn settle_repeatable(
        &self,
        settlement: Settlement,
        key: Option<UsedKey>,
    ) -> Result<Settled, Error> {
        self.settle_or_keep(settlement, (false, key)).await
    }

    async fn checkpoint(&self, checkpoints: Vec<Checkpoint>) -> Result<(), Error> {
        self.inner.checkpoint(checkpoints).await
    }

    async fn extend(&self, extension: Extension) -> Result<(), Error> {
        self.inner.extend(extension).await
    }

    async fn claim_orphans(&self, limit: usize, within: Duration) -> Result<Vec<Claimed>, Error> {
        self.inner.claim_orphans(limit, within).await
    }

    /// Nor those whose settlement is known and waits in the spool.
    async fn claim_overdue(
        &self,
        mut spared: BTreeSet<Uuid>,
        within: Duration,
    ) -> Result<usize, Error> {
        spared.extend(self.shared.spooled.lock().iter());
        self.inner.claim_overdue(spared, within).await
    }

    /// Without those whose settlement is known and waits in the spool.
    async fn unresolved(&self, limit: usize) -> Result<Vec<Claimed>, Error> {
        let mut unresolved = self.inner.unresolved(limit).await?;
        {
            let spooled = self.shared.spooled.lock();
            unresolved.retain(|claimed| !spooled.contains(&claimed.hold));
        }
        *self.shared.resolving.lock() = unresolved.iter().map(|claimed| claimed.hold).collect();
        Ok(unresolved)
    }

    async fn true_up(&self, correction: Correction) -> Result<TruedUp, Error> {
        self.inner.true_up(correction).await
    }
}

#[cfg(test)]
mod tests;
