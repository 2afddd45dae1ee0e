//! Two nodes, one Redis, and a database that can be taken away.

use std::sync::atomic::{AtomicBool, AtomicU64};

use anima_store::database::Probe;
use anima_store::redis::Options;

use super::*;

const NOW: Timestamp = Timestamp::from_micros(0);

/// A database with one key.
#[derive(Debug, Default)]
struct Database {
    asked: AtomicU64,
    down: AtomicBool,
    revoked: AtomicBool,
}

#[async_trait]
impl KeyStore for Database {
    async fn key(&self, kid: &str, _now: Timestamp) -> Result<Option<KeyRecord>, Error> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("down".to_owned()));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let secret = SecretHash { hash: [7; 32], expires_at: Some(NOW.plus_millis(5)) };
        let version = Version {
            code: kid.to_owned(),
            app: Some("acme".to_owned()),
            version_no: 1,
            effective_from: NOW,
            effective_to: None,
            enabled: !self.revoked.load(Ordering::SeqCst),
            body: serde_json::from_value(serde_json::json!({"name": "k"})).unwrap(),
        };
        Ok(Some(KeyRecord { secrets: vec![secret], key: vec![version], app: vec![] }))
    }

    async fn admin_token(&self, _hash: &[u8; 32]) -> Result<Option<AdminToken>, Error> {
        Ok(None)
    }

    async fn store_admin_token(&self, _token: AdminToken, _now: Timestamp) -> Result<(), Error> {
        Ok(())
    }

    async fn count_admin_tokens(&self) -> Result<u64, Error> {
        Ok(0)
    }
}

#[async_trait]
impl Probe for Database {
    async fn answers(&self, _within: Duration) -> Result<bool, String> {
        if self.down.load(Ordering::SeqCst) { Err("down".to_owned()) } else { Ok(true) }
    }
}

struct Node {
    level: SecondLevel,
    keys: Arc<dyn KeyStore>,
}

impl Node {
    async fn new(database: &Arc<Database>, prefix: &str, master: u8) -> Option<Self> {
        let Some(url) = redis_url() else {
            eprintln!("skipped: ANIMA_TEST_REDIS_URL is not set");
            return None;
        };
        let options = Options { prefix: prefix.to_owned(), ..Options::default() };
        let shared = Shared::over_redis(&url, options).unwrap();
        assert!(shared.redis.as_ref().unwrap().ready(Duration::from_secs(5)).await.unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let probe = Arc::clone(database) as Arc<dyn Probe>;
        let dependencies = Arc::new(Dependencies::new(probe, shared.clone(), metrics));
        let secrets = Arc::new(Secrets::new(&[master; 32]).unwrap());
        let level = SecondLevel::new(shared, secrets, dependencies);
        let keys = level.keys(Arc::clone(database) as Arc<dyn KeyStore>);
        level.seen.note(5);
        Some(Self { level, keys })
    }

    async fn key(&self) -> Result<Option<KeyRecord>, Error> {
        self.keys.key("k", NOW).await
    }

    /// Reads the key from the database, and waits until the record is in Redis.
    async fn warm(&self) {
        assert!(self.key().await.unwrap().is_some());
        let seen = self.level.seen.0.load(Ordering::SeqCst);
        while self.level.look_up("k", seen).await.is_none() {
            tokio::task::yield_now().await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests take their servers from outside")]
fn redis_url() -> Option<String> {
    std::env::var("ANIMA_TEST_REDIS_URL").ok().filter(|url| !url.is_empty())
}

fn prefix(test: &str) -> String {
    format!("anima_l2_{}_{test}", std::process::id())
}

#[tokio::test]
async fn another_node_finds_the_key_without_the_database() {
    let database = Arc::new(Database::default());
    let Some(first) = Node::new(&database, &prefix("shared"), 1).await else { return };
    first.warm().await;
    let second = Node::new(&database, &prefix("shared"), 1).await.unwrap();
    let asked = database.asked.load(Ordering::SeqCst);
    let record = second.key().await.unwrap().unwrap();
    assert_eq!(database.asked.load(Ordering::SeqCst), asked);
    assert_eq!(record.secrets[0].expires_at, Some(NOW.plus_millis(5)), "its own end comes along");
    assert_eq!(record.key[0].app.as_deref(), Some("acme"));
    database.down.store(true, Ordering::SeqCst);
    second.level.dependencies.look().await;
    assert!(second.key().await.unwrap().is_some(), "nor while it is down");
}

#[tokio::test]
async fn a_change_that_the_node_has_seen_beats_the_cache() {
    let database = Arc::new(Database::default());
    let Some(node) = Node::new(&database, &prefix("seen"), 1).await else { return };
    node.warm().await;
    database.revoked.store(true, Ordering::SeqCst);
    node.level.seen.note(6);
    assert!(!node.key().await.unwrap().unwrap().key[0].enabled);
    node.warm().await;
    database.down.store(true, Ordering::SeqCst);
    node.level.dependencies.look().await;
    assert!(!node.key().await.unwrap().unwrap().key[0].enabled);
    node.level.seen.note(7);
    let error = node.key().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "cannot check, never unknown: {error}");
}

#[tokio::test]
async fn a_record_of_another_master_key_or_place_is_not_believed() {
    let database = Arc::new(Database::default());
    let Some(node) = Node::new(&database, &prefix("sealed"), 1).await else { return };
    node.warm().await;
    let other = Node::new(&database, &prefix("sealed"), 2).await.unwrap();
    assert!(other.level.look_up("k", 5).await.is_none());
    let state = &node.level.shared.state;
    let sealed = state.value(&redis_keys::key_record("k")).await.unwrap().unwrap();
    state.put(&redis_keys::key_record("other"), sealed, KEEP).await.unwrap();
    assert!(node.level.look_up("other", 5).await.is_none());
}
