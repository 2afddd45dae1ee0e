//! Keys in memory while they change, with a store that answers when told to.

use anima_core::clock::ManualClock;
use anima_store::config::Actor;
use anima_store::config::publish::Hatch;
use anima_store::database::{Location, Opener, open};
use anima_store::keys::AdminToken;
use anima_store::ledger::BatchObserver;
use anima_store::pubsub::memory::MemoryPubSub;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::streams::{Entered, Through};
use super::*;

#[derive(Debug)]
struct Unobserved;

impl BatchObserver for Unobserved {
    fn committed(&self, _: usize, _: usize, _: f64) {}
    fn failed(&self) {}
}

/// A store of one key, whose secrets tell its versions apart. A look-up reads the row, says that it
/// did, and waits for leave to answer.
#[derive(Debug)]
struct Slow {
    secrets: Mutex<usize>,
    reads: mpsc::UnboundedSender<()>,
    leave: Semaphore,
}

#[async_trait]
impl KeyStore for Slow {
    async fn key(&self, _: &str, _: Timestamp) -> Result<Option<KeyRecord>, Error> {
        let hash = anima_store::keys::SecretHash { hash: [0; 32], expires_at: None };
        let secrets = vec![hash; *self.secrets.lock()];
        self.reads.send(()).unwrap();
        self.leave.acquire().await.unwrap().forget();
        Ok(Some(KeyRecord { secrets, key: Vec::new(), app: Vec::new() }))
    }
    async fn admin_token(&self, _: &[u8; 32]) -> Result<Option<AdminToken>, Error> {
        Ok(None)
    }
    async fn store_admin_token(&self, _: AdminToken, _: Timestamp) -> Result<(), Error> {
        Ok(())
    }
    async fn count_admin_tokens(&self) -> Result<u64, Error> {
        Ok(0)
    }
}

struct Fixture {
    live: Arc<Live>,
    slow: Arc<Slow>,
    reads: mpsc::UnboundedReceiver<()>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("anima.db"));
        let opener = Opener { node: Uuid::nil(), observer: Arc::new(Unobserved) };
        let stores = open(&location, &opener).await.unwrap();
        let (sender, reads) = mpsc::unbounded_channel();
        let slow =
            Arc::new(Slow { secrets: Mutex::new(1), reads: sender, leave: Semaphore::new(0) });
        let secrets = Arc::new(Secrets::new(&[7; 32]).unwrap());
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1)));
        let from = Sources {
            config: stores.config,
            keys: slow.clone(),
            publish: stores.publish,
            pubsub: Arc::new(MemoryPubSub::default()),
            second: None,
            node: "n1".to_owned(),
        };
        let live = Live::load(from, secrets, clock).await.unwrap();
        Self { live: Arc::new(live), slow, reads, _folder: folder }
    }

    /// A stream that began just now.
    fn stream(&self) -> Entered {
        let through = Through {
            channel: "main".into(),
            alias: "chat".into(),
            kid: "k".into(),
            app: "acme".into(),
            group: None,
            since: Instant::now(),
        };
        self.live.streams.enter(through, &CancellationToken::new())
    }

    /// Switches the data plane, without this node hearing of it.
    async fn switch(&self, enabled: bool, cut: bool) -> i64 {
        let actor = Actor { name: "ada".to_owned(), reason: String::new() };
        let (hatch, now) = (Hatch::Gateway { enabled, cut }, self.live.clock.now());
        self.live.from.publish.pull(hatch, &actor, now).await.unwrap()
    }

    /// Starts a look-up; what it comes to is how many secrets it found.
    fn look_up(&self) -> tokio::task::JoinHandle<usize> {
        let live = Arc::clone(&self.live);
        tokio::spawn(async move { live.key("k").await.unwrap().unwrap().secrets.len() })
    }
}

#[tokio::test]
async fn a_look_up_that_read_the_row_before_it_changed_is_not_kept() {
    for all in [false, true] {
        let mut fixture = Fixture::open().await;
        let early = fixture.look_up();
        fixture.reads.recv().await.unwrap();
        *fixture.slow.secrets.lock() = 2;
        if all {
            fixture.live.forget_keys();
        } else {
            fixture.live.forget_key("k").await;
        }
        // This one is asked after the change, while the early one is under way.
        let late = fixture.look_up();
        fixture.slow.leave.add_permits(10);
        assert_eq!(late.await.unwrap(), 2, "all: {all}");
        assert_eq!(early.await.unwrap(), 2, "all: {all}");
        assert_eq!(fixture.look_up().await.unwrap(), 2, "all: {all}");
    }
}

#[tokio::test]
async fn a_key_is_read_once_until_it_is_forgotten() {
    let mut fixture = Fixture::open().await;
    fixture.slow.leave.add_permits(10);
    for _ in 0..3 {
        assert_eq!(fixture.look_up().await.unwrap(), 1);
    }
    fixture.live.forget_key("another").await;
    assert_eq!(fixture.look_up().await.unwrap(), 1);
    assert!(fixture.reads.try_recv().is_ok() && fixture.reads.try_recv().is_err());
    *fixture.slow.secrets.lock() = 2;
    fixture.live.forget_key("k").await;
    assert_eq!(fixture.look_up().await.unwrap(), 2);
    assert!(fixture.reads.try_recv().is_ok() && fixture.reads.try_recv().is_err());
}

#[tokio::test]
async fn a_cut_is_heard_of_also_where_everything_is_read_anew() {
    let fixture = Fixture::open().await;
    let (live, stream) = (&fixture.live, fixture.stream());
    fixture.switch(false, true).await;
    let rev = fixture.switch(true, false).await;
    live.compare().await.unwrap();
    assert!(stream.is_cut() && live.is_open());
    let heard = live.from.publish.acknowledged(rev).await.unwrap();
    assert!(heard.iter().all(|node| node.applied_at.is_some()) && heard.len() == 1, "{heard:?}");
    let later = fixture.stream();
    live.compare().await.unwrap();
    assert!(!later.is_cut(), "it is done once");
}

#[tokio::test]
async fn where_nobody_knows_what_was_cut_what_is_switched_off_ends() {
    for enabled in [true, false] {
        let fixture = Fixture::open().await;
        fixture.slow.leave.add_permits(10);
        let (live, stream) = (&fixture.live, fixture.stream());
        let rev = fixture.switch(enabled, false).await;
        // As after a restore: the number runs backward, and tells nothing.
        live.applied.store(rev + 1, Ordering::Release);
        live.catch_up().await.unwrap();
        assert_eq!((stream.is_cut(), live.rev()), (!enabled, rev));
    }
}
