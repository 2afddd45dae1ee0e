//! Calls under a key that were answered from the spool of a process that died, and whose holds
//! another node released, on both databases.
//!
//! Invariant: of the calls of one key one is sold at most, and one that was answered and whose key
//! nobody took over is.

use anima_core::ledger::Close;

use super::*;
use crate::database::{Location, Opener, Stores, open};
use crate::idempotency::Gone;
use crate::ledger::tests::fixtures::{Counts, NOON, registration, shown};

/// A call that was answered and is not in the books, and what came of its hold.
struct Left {
    /// The node that released its hold, and serves.
    node: Stores,
    /// The one whose disk is back.
    back: Stores,
    scene: Scene,
}

fn claim(n: u128) -> Claim {
    let UsedKey { kid, hash } = key();
    Claim {
        kid,
        key_hash: hash,
        content_hash: [1; 32],
        call: Uuid::from_u128(n),
        node: Uuid::from_u128(0xB),
        at: NOON.plus_millis(20_000),
        stale_at: NOON.plus_millis(60_000),
        expires_at: NOON.plus_millis(86_400_000),
    }
}

async fn opened(location: &Location, node: u128) -> Stores {
    let opener = Opener { node: Uuid::from_u128(node), observer: Arc::new(Counts::default()) };
    open(location, &opener).await.unwrap()
}

/// Call 1 under the key, whose settlement came to the disk of a process that died, and whose hold
/// another node has released.
async fn left(location: &Location, settlement: Settlement) -> Left {
    let scene = Scene::new();
    let first = opened(location, 0xA).await;
    first.ledger.register(registration(0xA, Duration::ZERO)).await.unwrap();
    first.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    assert_eq!(first.idempotency.claim(&claim(1)).await, Ok(Verdict::Fresh));
    first.ledger.hold(hold(1, "acme", 100)).await.unwrap();
    let dying = scene.open().await;
    let told = dying.settle_repeatable(settlement, Some(key())).await;
    assert!(matches!(told, Err(Error::Spooled(_))));
    drop((dying, first));
    let node = opened(location, 0xB).await;
    node.ledger.register(registration(0xB, LONG * 100)).await.unwrap();
    // Over by the database's clock, which shows milliseconds on SQLite.
    while node.ledger.claim_orphans(10, LONG).await.unwrap().is_empty() {}
    node.ledger.settle(release(&hold(1, "acme", 100))).await.unwrap();
    let back = opened(location, 0xC).await;
    Left { node, back, scene }
}

impl Left {
    /// Has the spool write what it keeps, as the next process does.
    async fn written(&self) {
        let Scene { ledger, watch, path, .. } = &self.scene;
        while std::fs::File::open(path).unwrap().try_lock().is_err() {
            tokio::task::yield_now().await;
        }
        let (inner, keys) = (Arc::clone(&self.back.ledger), Arc::clone(&self.back.idempotency));
        let observer = Arc::clone(watch) as Arc<dyn SpoolObserver>;
        let ready = std::future::ready(());
        let opened = SpooledLedger::open(inner, keys, path, observer, ready).await.unwrap();
        assert!(opened.drained(LONG).await);
        assert_eq!(watch.lost.load(Ordering::SeqCst), 0);
        assert!(ledger.written.lock().is_empty());
    }

    async fn asked(&self, n: u128) -> Verdict {
        self.node.idempotency.claim(&claim(n)).await.unwrap()
    }

    /// What the wallet has.
    async fn has(&self) -> i64 {
        let (posted, held, _) = wallet(&*self.node.ledger, "acme").await;
        assert_eq!(held, 0);
        posted
    }
}

const LOST: Verdict = Verdict::Gone { call: Uuid::from_u128(1), why: Gone::Lost };

fn sold() -> Settlement {
    settle(&hold(1, "acme", 100), 90)
}

async fn what_nobody_took_over_is_sold_once_and_never_made_again(location: Location) {
    let left = left(&location, sold()).await;
    let kept = std::fs::read(&left.scene.path).unwrap();
    left.written().await;
    assert_eq!((left.asked(2).await, left.has().await), (LOST, 910));
    // As after a crash before the file was emptied.
    while std::fs::File::open(&left.scene.path).unwrap().try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    std::fs::write(&left.scene.path, kept).unwrap();
    left.written().await;
    assert_eq!((left.asked(2).await, left.has().await), (LOST, 910));
    let posted = shown(&*left.node.ledger, Uuid::from_u128(1)).await;
    assert_eq!(posted, ["wallet:acme revenue 90 USD", "cost_of_sales payable:openai 7 USD"]);
    assert_clean(&*left.node.ledger).await;
}

async fn what_another_call_took_over_is_sold_for_that_alone(location: Location) {
    let left = left(&location, sold()).await;
    assert_eq!(left.asked(2).await, Verdict::Fresh);
    left.node.ledger.hold(hold(2, "acme", 100)).await.unwrap();
    left.written().await;
    left.node.ledger.settle(settle(&hold(2, "acme", 100), 70)).await.unwrap();
    assert!(left.node.idempotency.end(&claim(2), Ending::Kept(vec![7])).await.unwrap());
    let kept = Verdict::Kept { call: Uuid::from_u128(2), sealed: vec![7] };
    assert_eq!((left.asked(3).await, left.has().await), (kept, 930));
    let posted = shown(&*left.node.ledger, Uuid::from_u128(1)).await;
    assert_eq!(posted, ["cost_of_sales payable:openai 7 USD"], "its cost alone");
    assert_clean(&*left.node.ledger).await;
}

/// Its process dies when the key is retired and nothing is posted.
async fn a_crash_between_the_key_and_the_sale_changes_nothing(location: Location) {
    let left = left(&location, sold()).await;
    let (ledger, watch) = (Arc::clone(&left.scene.ledger), Arc::clone(&left.scene.watch));
    ledger.fenced.store(true, Ordering::SeqCst);
    ledger.up.store(true, Ordering::SeqCst);
    let keys = Arc::clone(&left.back.idempotency);
    let ready = std::future::ready(());
    let inner = Arc::clone(&ledger) as Arc<dyn LedgerStore>;
    let opened = SpooledLedger::open(inner, keys, &left.scene.path, watch, ready).await;
    while ledger.tried.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    drop(opened);
    assert_eq!((left.asked(2).await, left.has().await), (LOST, 1_000));
    left.written().await;
    assert_eq!((left.asked(2).await, left.has().await), (LOST, 910));
    assert_clean(&*left.node.ledger).await;
}

/// While others ask for it under its key.
async fn of_the_calls_of_a_key_one_is_sold(location: Location) {
    let left = Arc::new(left(&location, sold()).await);
    let mut asking = JoinSet::new();
    for n in 2..=9 {
        let left = Arc::clone(&left);
        asking.spawn(async move { (n, left.asked(n).await) });
    }
    left.written().await;
    let answers = asking.join_all().await;
    let fresh: Vec<_> = answers.iter().filter(|(_, told)| *told == Verdict::Fresh).collect();
    if let [(n, _)] = fresh[..] {
        let hold = hold(*n, "acme", 100);
        left.node.ledger.hold(hold.clone()).await.unwrap();
        left.node.ledger.settle(settle(&hold, 90)).await.unwrap();
    } else {
        assert!(answers.iter().all(|(_, told)| *told == LOST), "{answers:?}");
    }
    assert_eq!(left.has().await, 910);
    assert_clean(&*left.node.ledger).await;
}

async fn a_call_that_is_not_sold_leaves_its_key_free(location: Location) {
    let released = Settlement { close: Close::Release, ..sold() };
    let left = left(&location, released).await;
    left.written().await;
    assert_eq!((left.asked(2).await, left.has().await), (Verdict::Fresh, 1_000));
    assert_clean(&*left.node.ledger).await;
}

/// The release before named no key in its file.
async fn a_file_of_the_release_before_is_not_sold(location: Location) {
    let left = left(&location, sold()).await;
    let mut file = SpoolFile::open_shared(&left.scene.path).unwrap().0;
    let frame = include_str!("frame-before-keys.json").trim_end();
    file.replace(vec![frame.as_bytes().to_vec()]).await.unwrap();
    drop(file);
    left.written().await;
    assert_eq!((left.asked(2).await, left.has().await), (Verdict::Fresh, 1_000));
    assert_clean(&*left.node.ledger).await;
}

/// One test per case and database.
macro_rules! on_both {
    ($($case:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let folder = tempfile::tempdir().unwrap();
                super::$case(super::Location::Sqlite(folder.path().join("a.db"))).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(scratch) = crate::tests::postgres().await else { return };
                super::$case(super::Location::Postgres(scratch.url())).await;
            })*
        }
    };
}

on_both! {
    what_nobody_took_over_is_sold_once_and_never_made_again
    what_another_call_took_over_is_sold_for_that_alone
    a_crash_between_the_key_and_the_sale_changes_nothing
    of_the_calls_of_a_key_one_is_sold
    a_call_that_is_not_sold_leaves_its_key_free
    a_file_of_the_release_before_is_not_sold
}
