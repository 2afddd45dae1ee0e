//! A spool in front of a ledger that comes and goes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64};

use tokio::task::JoinSet;

use super::*;
use crate::config;
use crate::idempotency::{Claim, Ending, Verdict};
use crate::ledger::tests::fixtures::{assert_clean, hold, opener, release, settle, topup, wallet};
use crate::ledger::{Off, SaleCorrection};

mod keys; // calls under a key, on real databases

/// A ledger that is away until it is told otherwise, and knows what it has written.
#[derive(Debug, Default)]
struct Fickle {
    up: AtomicBool,
    /// It does not answer, and nobody has noticed yet.
    cut: AtomicBool,
    /// Every hold is another node's.
    fenced: AtomicBool,
    /// And that node has closed them.
    closed: AtomicBool,
    /// This process takes them over between a settlement and its correction.
    claims: AtomicBool,
    /// The next correction meets a posting of its hold in its own batch.
    crossed: AtomicBool,
    /// Corrections that were asked for.
    tried: AtomicUsize,
    corrected: Mutex<Vec<Uuid>>,
    /// What its corrections were.
    corrections: Mutex<Vec<Correction>>,
    /// It refuses everything for good.
    refuses: AtomicBool,
    /// Calls whose keys were to be retired.
    retired: Mutex<Vec<Uuid>>,
    /// The next of them is not, for want of a database.
    silent: AtomicBool,
    /// Their keys are other calls' by now.
    taken_over: AtomicBool,
    /// The next settlement panics.
    panics: AtomicBool,
    /// Every settlement does.
    breaks: AtomicBool,
    /// Of each sale.
    lacks: AtomicI64,
    written: Mutex<Vec<Settlement>>,
}

impl Health for Fickle {
    fn healthy(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl LedgerStore for Fickle {
    async fn hold(&self, hold: Hold) -> Result<(), Error> {
        Off.hold(hold).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, Error> {
        if !self.healthy() {
            return Err(Error::Unavailable("away".to_owned()));
        }
        if self.cut.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("cut".to_owned()));
        }
        assert!(!self.breaks.load(Ordering::SeqCst), "a defect");
        assert!(!self.panics.swap(false, Ordering::SeqCst), "a defect");
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Error::Refused("a defect".to_owned()));
        }
        if self.fenced.load(Ordering::SeqCst) {
            return Err(Error::Fenced);
        }
        let mut written = self.written.lock();
        let replayed = written.contains(&settlement);
        if !replayed {
            written.push(settlement);
        }
        Ok(Settled { charged: 1, uncollected: self.lacks.load(Ordering::SeqCst), replayed })
    }

    async fn post(&self, entry: Entry) -> Result<Posted, Error> {
        Off.post(entry).await
    }

    async fn balance(&self, app: &str, currency: Currency) -> Result<Balance, Error> {
        Off.balance(app, currency).await
    }

    async fn postings(&self, subject: Uuid) -> Result<Vec<Posting>, Error> {
        Off.postings(subject).await
    }

    async fn verify(&self, now: Timestamp) -> Result<Vec<Finding>, Error> {
        Off.verify(now).await
    }

    async fn trial_balance(&self) -> Result<Vec<TrialLine>, Error> {
        Off.trial_balance().await
    }
}

#[async_trait]
impl Leases for Fickle {
    async fn register(&self, registration: Registration) -> Result<(), Error> {
        Off.register(registration).await
    }

    async fn renew(&self, ttl: Duration) -> Result<(), Error> {
        Off.renew(ttl).await
    }

    async fn release(&self) -> Result<(), Error> {
        Off.release().await
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        Off.leases().await
    }
}

#[async_trait]
impl OpenHolds for Fickle {
    async fn settle_repeatable(
        &self,
        settlement: Settlement,
        _key: Option<UsedKey>,
    ) -> Result<Settled, Error> {
        self.settle(settlement).await
    }

    async fn checkpoint(&self, checkpoints: Vec<Checkpoint>) -> Result<(), Error> {
        Off.checkpoint(checkpoints).await
    }

    async fn extend(&self, extension: Extension) -> Result<(), Error> {
        Off.extend(extension).await
    }

    async fn claim_orphans(&self, limit: usize, within: Duration) -> Result<Vec<Claimed>, Error> {
        Off.claim_orphans(limit, within).await
    }

    async fn claim_overdue(
        &self,
        spared: BTreeSet<Uuid>,
        _within: Duration,
    ) -> Result<usize, Error> {
        Ok(spared.len())
    }

    async fn unresolved(&self, limit: usize) -> Result<Vec<Claimed>, Error> {
        Off.unresolved(limit).await
    }

    async fn true_up(&self, correction: Correction) -> Result<TruedUp, Error> {
        self.tried.fetch_add(1, Ordering::SeqCst);
        if self.claims.swap(false, Ordering::SeqCst) {
            self.fenced.store(false, Ordering::SeqCst);
            return Err(Error::Refused("the hold is open and ours: settle it".to_owned()));
        }
        let is_crossed = self.crossed.swap(false, Ordering::SeqCst);
        if is_crossed || !self.closed.load(Ordering::SeqCst) {
            return Err(Error::Fenced);
        }
        self.corrected.lock().push(correction.settlement.hold);
        self.corrections.lock().push(correction.clone());
        Off.true_up(correction).await
    }
}

/// It keeps no answers, and retires keys.
#[async_trait]
impl IdempotencyStore for Fickle {
    async fn claim(&self, claim: &Claim) -> Result<Verdict, config::Error> {
        panic!("no spool claims {claim:?}")
    }

    async fn end(&self, claim: &Claim, _ending: Ending) -> Result<bool, config::Error> {
        panic!("no spool ends {claim:?}")
    }

    async fn retire(&self, _key: &UsedKey, call: Uuid) -> Result<bool, config::Error> {
        if self.silent.swap(false, Ordering::SeqCst) {
            return Err(config::Error::Unavailable("cut".to_owned()));
        }
        self.retired.lock().push(call);
        Ok(!self.taken_over.load(Ordering::SeqCst))
    }

    async fn abandon(&self, claim: &Claim) -> Result<(), config::Error> {
        panic!("no spool abandons {claim:?}")
    }

    async fn sweep(&self, _now: Timestamp, _most: u32) -> Result<u64, config::Error> {
        panic!("no spool sweeps")
    }
}

/// Remembers what it was told.
#[derive(Debug, Default)]
struct Watch {
    corrected: AtomicUsize,
    lost: AtomicUsize,
    lost_bytes: Mutex<u64>,
    waiting: Mutex<Vec<usize>>,
    /// Holds whose wallets did not cover them, and by how much.
    short: Mutex<Vec<(Uuid, i64)>>,
}

impl SpoolObserver for Watch {
    fn waiting(&self, settlements: usize, _size_bytes: u64) {
        self.waiting.lock().push(settlements);
    }
    fn overflowed(&self) {}
    fn damaged(&self, lost_bytes: u64) {
        *self.lost_bytes.lock() = lost_bytes;
    }
    fn corrected(&self) {
        self.corrected.fetch_add(1, Ordering::SeqCst);
    }
    fn short(&self, settlement: &Settlement, settled: Settled) {
        self.short.lock().push((settlement.hold, settled.uncollected));
    }
    fn lost(&self) {
        self.lost.fetch_add(1, Ordering::SeqCst);
    }
}

struct Scene {
    ledger: Arc<Fickle>,
    watch: Arc<Watch>,
    path: PathBuf,
    #[expect(dead_code, reason = "the file lives as long")]
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        Self { ledger: Arc::default(), watch: Arc::default(), path, folder }
    }

    /// As the next process would: when the one before has let go of the file.
    async fn open(&self) -> SpooledLedger {
        while let Ok(file) = std::fs::File::open(&self.path)
            && file.try_lock().is_err()
        {
            tokio::task::yield_now().await;
        }
        let inner = Arc::clone(&self.ledger) as Arc<dyn LedgerStore>;
        let observer = Arc::clone(&self.watch) as Arc<dyn SpoolObserver>;
        let keys = Arc::clone(&self.ledger) as Arc<dyn IdempotencyStore>;
        let ready = std::future::ready(());
        SpooledLedger::open(inner, keys, &self.path, observer, ready).await.unwrap()
    }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_outage_is_spooled_then_written_once_and_no_hold_is_placed_meanwhile() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    let settlement = settle(&hold(1, "acme", 100), 90);
    let told = spooled.settle(settlement.clone()).await;
    assert!(matches!(told, Err(Error::Spooled(why)) if why.contains("away")));
    assert_eq!(spooled.waiting(), 1);
    assert!(!spooled.healthy());
    let refused = spooled.hold(hold(2, "acme", 1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    scene.ledger.up.store(true, Ordering::SeqCst);
    assert!(spooled.drained(LONG).await);
    assert_eq!(*scene.ledger.written.lock(), [settlement]);
    assert!(spooled.healthy());
    assert_eq!(spooled.hold(hold(2, "acme", 1)).await, Ok(()));
    assert_eq!(scene.watch.waiting.lock().last(), Some(&0));
}

#[tokio::test]
async fn a_spool_outlives_its_process_and_is_written_by_the_next() {
    let scene = Scene::new();
    let settlements: Vec<_> = (1..=40).map(|n| settle(&hold(n, "acme", 100), 90)).collect();
    let dying = scene.open().await;
    let mut telling = JoinSet::new();
    let dying = Arc::new(dying);
    for settlement in settlements.clone() {
        let dying = Arc::clone(&dying);
        telling.spawn(async move { dying.settle(settlement).await });
    }
    assert!(telling.join_all().await.iter().all(Result::is_err));
    drop(dying);
    scene.ledger.up.store(true, Ordering::SeqCst);
    // One was written although its caller was told otherwise.
    scene.ledger.written.lock().push(settlements[7].clone());
    let next = scene.open().await;
    assert!(next.drained(LONG).await);
    let mut written: Vec<_> = scene.ledger.written.lock().iter().map(|s| s.hold).collect();
    written.sort_unstable();
    assert_eq!(written, settlements.iter().map(|s| s.hold).collect::<Vec<_>>());
    drop(next);
    let empty = scene.open().await;
    assert_eq!(empty.waiting(), 0);
}

#[tokio::test]
async fn a_cut_tail_is_reported_and_the_rest_is_written() {
    let scene = Scene::new();
    let dying = scene.open().await;
    for n in [1, 2] {
        let settled = dying.settle(settle(&hold(n, "acme", 100), 90)).await;
        assert!(settled.is_err());
    }
    drop(dying);
    let bytes = std::fs::read(&scene.path).unwrap();
    std::fs::write(&scene.path, &bytes[..bytes.len() - 3]).unwrap();
    scene.ledger.up.store(true, Ordering::SeqCst);
    assert!(scene.open().await.drained(LONG).await);
    assert_eq!(scene.ledger.written.lock().len(), 1);
    assert!(*scene.watch.lost_bytes.lock() > 0);
}

#[tokio::test]
async fn what_another_node_took_over_is_corrected_once_that_has_closed_it() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    let told = spooled.settle(settle(&hold(5, "acme", 100), 90)).await;
    assert_eq!(told, Err(Error::Fenced));
    // It waits for the other node, and new work does not wait for it.
    assert_eq!((spooled.waiting(), spooled.healthy()), (0, true));
    assert_eq!(spooled.hold(hold(6, "acme", 1)).await, Ok(()));
    drop(spooled);
    let next = scene.open().await;
    assert!(next.drained(LONG).await);
    scene.ledger.closed.store(true, Ordering::SeqCst);
    while scene.watch.corrected.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*scene.ledger.corrected.lock(), [Uuid::from_u128(5)]);
}

#[tokio::test]
async fn what_waited_for_another_node_and_then_for_the_database_is_counted_once() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    let told = spooled.settle(settle(&hold(5, "acme", 100), 90)).await;
    assert_eq!(told, Err(Error::Fenced));
    scene.ledger.cut.store(true, Ordering::SeqCst);
    while spooled.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    scene.ledger.fenced.store(false, Ordering::SeqCst);
    scene.ledger.cut.store(false, Ordering::SeqCst);
    assert!(spooled.drained(LONG).await);
    assert_eq!((spooled.waiting(), spooled.healthy()), (0, true));
    assert_eq!(spooled.hold(hold(6, "acme", 1)).await, Ok(()));
}

#[tokio::test]
async fn a_guess_about_a_dead_process_is_not_kept() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    let mut guess = settle(&hold(5, "acme", 100), 90);
    guess.attempts[0].outcome = anima_core::ledger::recovery::OUTCOME;
    assert!(spooled.settle(guess).await.is_err());
    assert_eq!(spooled.waiting(), 0);
}

#[tokio::test]
async fn a_sale_that_no_wallet_covers_is_told_also_when_the_database_took_it_unheard() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    let settlements = [1, 2].map(|n| settle(&hold(n, "acme", 100), 90));
    for settlement in &settlements {
        assert!(spooled.settle(settlement.clone()).await.is_err());
    }
    scene.ledger.written.lock().push(settlements[1].clone());
    scene.ledger.lacks.store(7, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    assert!(spooled.drained(LONG).await);
    let mut short = scene.watch.short.lock().clone();
    short.sort_unstable();
    assert_eq!(short, [(Uuid::from_u128(1), 7), (Uuid::from_u128(2), 7)]);
}

/// Corrections of one hold that another node took over and closed.
async fn corrected(scene: &Scene) -> Correction {
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.closed.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    // Another process: what counts is written down.
    let next = scene.open().await;
    while scene.ledger.corrections.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(next);
    let corrections = scene.ledger.corrections.lock();
    corrections[0].clone()
}

#[tokio::test]
async fn what_was_delivered_is_sold_also_when_another_node_has_closed_the_hold() {
    let scene = Scene::new();
    let dying = scene.open().await;
    let told = dying.settle(settle(&hold(5, "acme", 100), 90)).await;
    assert!(matches!(told, Err(Error::Spooled(_))));
    drop(dying);
    let correction = corrected(&scene).await;
    assert_eq!(correction.sale, SaleCorrection::Delivered);
    assert_eq!(correction.settlement, settle(&hold(5, "acme", 100), 90));
}

#[tokio::test]
async fn what_its_own_process_claims_meanwhile_is_settled_and_not_dropped() {
    let scene = Scene::new();
    let dying = scene.open().await;
    let settlement = settle(&hold(5, "acme", 100), 90);
    let told = dying.settle(settlement.clone()).await;
    assert!(matches!(told, Err(Error::Spooled(_))));
    drop(dying);
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.claims.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    let next = scene.open().await;
    while next.waiting() > 0 || scene.ledger.claims.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    assert_eq!(*scene.ledger.written.lock(), [settlement]);
    assert!(scene.ledger.corrections.lock().is_empty());
}

#[tokio::test]
async fn what_may_be_asked_for_again_is_not_sold_after_another_node_has_closed_it() {
    let scene = Scene::new();
    let dying = scene.open().await;
    let told = dying.settle_repeatable(settle(&hold(5, "acme", 100), 90), None).await;
    assert!(matches!(told, Err(Error::Spooled(_))));
    drop(dying);
    assert_eq!(corrected(&scene).await.sale, SaleCorrection::BothWays);
    assert!(scene.ledger.retired.lock().is_empty());
}

fn key() -> UsedKey {
    UsedKey { kid: "kid1".into(), hash: [1; 32] }
}

#[tokio::test]
async fn what_may_be_asked_for_again_under_its_key_is_sold_once_nobody_can_take_that_over() {
    for (taken_over, sale) in [(false, SaleCorrection::Delivered), (true, SaleCorrection::BothWays)]
    {
        let scene = Scene::new();
        let dying = scene.open().await;
        let told = dying.settle_repeatable(settle(&hold(5, "acme", 100), 90), Some(key())).await;
        assert!(matches!(told, Err(Error::Spooled(_))));
        drop(dying);
        scene.ledger.taken_over.store(taken_over, Ordering::SeqCst);
        // Asked again where it was not answered.
        scene.ledger.silent.store(true, Ordering::SeqCst);
        assert_eq!(corrected(&scene).await.sale, sale);
        assert_eq!(*scene.ledger.retired.lock(), [Uuid::from_u128(5)]);
    }
}

#[tokio::test]
async fn what_is_not_sold_or_was_withheld_leaves_its_key_alone() {
    let scene = Scene::new();
    let dying = scene.open().await;
    let told = dying.settle_repeatable(release(&hold(5, "acme", 100)), Some(key())).await;
    assert!(matches!(told, Err(Error::Spooled(_))));
    drop(dying);
    assert_eq!(corrected(&scene).await.sale, SaleCorrection::BothWays);
    let scene = Scene::new();
    let dying = scene.open().await;
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    let told = dying.settle_repeatable(settle(&hold(5, "acme", 100), 90), Some(key())).await;
    assert_eq!(told, Err(Error::Fenced));
    drop(dying);
    assert_eq!(corrected(&scene).await.sale, SaleCorrection::DownOnly);
    assert!(scene.ledger.retired.lock().is_empty());
}

#[tokio::test]
async fn what_was_withheld_is_not_sold_when_its_own_process_claims_the_hold() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    let settlement = settle(&hold(5, "acme", 100), 90);
    assert_eq!(spooled.settle(settlement.clone()).await, Err(Error::Fenced));
    scene.ledger.claims.store(true, Ordering::SeqCst);
    scene.ledger.closed.store(true, Ordering::SeqCst);
    while scene.ledger.corrections.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*scene.ledger.written.lock(), [settlement]);
    let taken_back = scene.ledger.corrections.lock()[0].clone();
    assert_eq!(taken_back.settlement.close, anima_core::ledger::Close::Release);
    assert_eq!(taken_back.sale, SaleCorrection::DownOnly);
}

#[tokio::test]
async fn what_was_withheld_is_taken_back_also_when_its_first_try_is_fenced() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.closed.store(true, Ordering::SeqCst);
    scene.ledger.claims.store(true, Ordering::SeqCst);
    scene.ledger.crossed.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    let settlement = settle(&hold(5, "acme", 100), 90);
    assert_eq!(spooled.settle(settlement).await, Err(Error::Fenced));
    let lost = || scene.watch.lost.load(Ordering::SeqCst);
    while scene.ledger.corrections.lock().is_empty() && lost() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((lost(), scene.ledger.written.lock().len()), (0, 1));
    let taken_back = scene.ledger.corrections.lock()[0].clone();
    assert_eq!(taken_back.settlement.close, anima_core::ledger::Close::Release);
    assert!(!scene.path.with_extension("refused").exists());
}

#[tokio::test]
async fn a_settlement_that_always_panics_is_set_aside_and_calls_go_on() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    let settlement = settle(&hold(5, "acme", 100), 90);
    assert!(matches!(spooled.settle(settlement).await, Err(Error::Spooled(_))));
    scene.ledger.breaks.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    assert!(spooled.drained(LONG).await);
    assert_eq!(scene.watch.lost.load(Ordering::SeqCst), 1);
    assert!(scene.path.with_extension("refused").exists());
}

#[tokio::test]
async fn a_settlement_that_panics_does_not_end_the_spool() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    let [first, second] = [5, 6].map(|n| settle(&hold(n, "acme", 100), 90));
    assert!(matches!(spooled.settle(first.clone()).await, Err(Error::Spooled(_))));
    assert!(matches!(spooled.settle(second.clone()).await, Err(Error::Spooled(_))));
    scene.ledger.panics.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    assert!(spooled.drained(LONG).await);
    let written = scene.ledger.written.lock();
    assert!(written.len() == 2 && written.contains(&first) && written.contains(&second));
}

#[tokio::test]
async fn what_is_refused_for_good_is_kept_beside_the_spool() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    let settlement = settle(&hold(5, "acme", 100), 90);
    assert!(matches!(spooled.settle(settlement).await, Err(Error::Spooled(_))));
    scene.ledger.refuses.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    assert!(spooled.drained(LONG).await);
    assert_eq!(scene.watch.lost.load(Ordering::SeqCst), 1);
    let kept = std::fs::read_to_string(scene.path.with_extension("refused")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(kept.trim_end()).unwrap();
    assert_eq!((kept["sale"]["amount"].as_i64(), kept["counts"].as_bool()), (Some(90), Some(true)));
}

#[tokio::test]
async fn what_was_withheld_because_another_node_took_over_charges_nobody_more() {
    let scene = Scene::new();
    let dying = scene.open().await;
    scene.ledger.fenced.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    let told = dying.settle(settle(&hold(5, "acme", 100), 90)).await;
    assert_eq!(told, Err(Error::Fenced));
    drop(dying);
    assert_eq!(corrected(&scene).await.sale, SaleCorrection::DownOnly);
}

#[tokio::test]
async fn what_nothing_could_keep_is_withheld_and_not_sold() {
    let scene = Scene::new();
    let spooled = scene.open().await;
    let mut huge = settle(&hold(5, "acme", 100), 90);
    // More than the file may hold.
    huge.attempts[0].upstream_ref = Some("x".repeat(80 * 1024 * 1024));
    let told = spooled.settle(huge).await;
    assert_eq!(told, Err(Error::Unavailable("away".to_owned())));
    scene.ledger.closed.store(true, Ordering::SeqCst);
    scene.ledger.up.store(true, Ordering::SeqCst);
    while scene.ledger.corrections.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let taken_back = scene.ledger.corrections.lock()[0].clone();
    assert_eq!(taken_back.settlement.close, anima_core::ledger::Close::Release);
    let attempts = &taken_back.settlement.attempts;
    assert!(attempts.len() == 1 && !attempts[0].served && attempts[0].cost.is_some());
}

/// Row 21 of the hard cases on SQLite, whose file another process keeps locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_waits_on_disk_for_a_file_that_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let (books, spool) = (folder.path().join("a.db"), folder.path().join("spool"));
    crate::sqlite::migrate(&mut crate::sqlite::open(&books).unwrap()).unwrap();
    let inner: Arc<dyn LedgerStore> =
        Arc::new(crate::ledger::sqlite::open(&books, &opener()).unwrap());
    let ready = std::future::ready(());
    let watch: Arc<Watch> = Arc::default();
    let keys: Arc<dyn IdempotencyStore> = Arc::new(Fickle::default());
    let opened = SpooledLedger::open(Arc::clone(&inner), keys, &spool, watch, ready).await;
    let spooled = opened.unwrap();
    spooled.post(topup(9, "acme", 1_000)).await.unwrap();
    let called = hold(1, "acme", 100);
    spooled.hold(called.clone()).await.unwrap();
    let other = crate::sqlite::open(&books).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = spooled.settle(settle(&called, 90)).await;
    assert!(matches!(told, Err(Error::Spooled(_))), "{told:?}");
    let refused = spooled.hold(hold(2, "acme", 1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert_eq!(wallet(&*inner, "acme").await, (1_000, 100, 0));
    other.execute_batch("ROLLBACK").unwrap();
    assert!(spooled.drained(LONG).await);
    assert_eq!(wallet(&*inner, "acme").await, (910, 0, 0));
    assert_eq!(inner.postings(called.id).await.unwrap().len(), 2);
    assert_clean(&*inner).await;
}
