//! What happens when the database does not answer.

use std::sync::atomic::{AtomicBool, Ordering};

use anima_core::config::{Resource, Tables};
use anima_store::config::{AuditRecord, Batch, Committed, ConfigStore, Error, Page, Rejected, Row};
use anima_store::keys::{KeyRecord, KeyStore};
use async_trait::async_trait;

use super::*;

/// A store that answers until told not to.
#[derive(Debug)]
struct Flaky<S: ?Sized> {
    down: Arc<AtomicBool>,
    inner: Arc<S>,
}

impl<S: ?Sized> Flaky<S> {
    fn up(&self) -> Result<&S, Error> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::Unavailable("postgres://secret@host is gone".to_owned()));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl ConfigStore for Flaky<dyn ConfigStore> {
    async fn tables(&self, now: Timestamp) -> Result<Tables, Error> {
        self.up()?.tables(now).await
    }
    async fn rev(&self) -> Result<i64, Error> {
        self.up()?.rev().await
    }
    async fn list(&self, page: Page<'_>, now: Timestamp) -> Result<Vec<Row>, Error> {
        self.inner.list(page, now).await
    }
    async fn versions(&self, resource: Resource, code: &str) -> Result<Vec<Row>, Error> {
        self.inner.versions(resource, code).await
    }
    async fn commit(
        &self,
        batch: Batch,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Committed, Rejected> {
        self.inner.commit(batch, actor, now).await
    }
    async fn record(&self, record: AuditRecord) -> Result<(), Error> {
        self.up()?.record(record).await
    }
    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditRecord>, Error> {
        self.inner.audit(before, limit).await
    }
}

#[async_trait]
impl KeyStore for Flaky<dyn KeyStore> {
    async fn key(&self, kid: &str, now: Timestamp) -> Result<Option<KeyRecord>, Error> {
        self.inner.key(kid, now).await
    }
    async fn admin_token(&self, hash: &[u8; 32]) -> Result<Option<AdminToken>, Error> {
        self.up()?.admin_token(hash).await
    }
    async fn store_admin_token(&self, token: AdminToken, now: Timestamp) -> Result<(), Error> {
        self.inner.store_admin_token(token, now).await
    }
    async fn count_admin_tokens(&self) -> Result<u64, Error> {
        self.inner.count_admin_tokens().await
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_is_not_called_wrong() {
    let down = Arc::new(AtomicBool::new(false));
    let desk = Desk::open_with(|stores| {
        let inner = Arc::clone(&stores.keys);
        Stores { keys: Arc::new(Flaky { down: Arc::clone(&down), inner }), ..stores }
    })
    .await;
    assert_eq!(desk.get("/apps").await.status, 200);
    down.store(true, Ordering::SeqCst);
    let refused = desk.get("/apps").await;
    assert_eq!(refused.refusal(), (503, "service_unavailable", ""));
    assert_eq!(refused.header("retry-after"), "1");
    assert!(!refused.text.contains("postgres"), "{}", refused.text);
}

#[tokio::test]
async fn a_change_that_is_stored_but_not_read_back_says_so() {
    let down = Arc::new(AtomicBool::new(false));
    let desk = Desk::open_with(|stores| {
        let inner = Arc::clone(&stores.config);
        Stores { config: Arc::new(Flaky { down: Arc::clone(&down), inner }), ..stores }
    })
    .await;
    down.store(true, Ordering::SeqCst);
    let created = desk.post("/apps", json!({"code": "a"})).await;
    assert_eq!(created.status, 201);
    assert!(created.header("warning").contains("not yet in force"));
    let changed = desk.patch("/apps/a", json!({"enabled": false})).await;
    assert!(changed.header("warning").contains("not yet in force"));
    down.store(false, Ordering::SeqCst);
    assert_eq!(desk.row("/apps/a").await["enabled"], false);
    let changed = desk.patch("/apps/a", json!({"enabled": true})).await;
    assert!(changed.header("warning").is_empty());
}

#[tokio::test]
async fn a_topup_without_its_record_is_healed_by_the_retry() {
    let down = Arc::new(AtomicBool::new(false));
    let desk = Desk::open_with(|stores| {
        let inner = Arc::clone(&stores.config);
        Stores { config: Arc::new(Flaky { down: Arc::clone(&down), inner }), ..stores }
    })
    .await;
    desk.post("/apps", json!({"code": "a"})).await;
    down.store(true, Ordering::SeqCst);
    assert_eq!(desk.topup("a", "k", json!({"amount": "1"})).await.status, 503);
    down.store(false, Ordering::SeqCst);
    let retried = desk.topup("a", "k", json!({"amount": "1"})).await;
    assert_eq!((retried.status.as_u16(), &retried.body["replayed"]), (200, &json!(true)));
    assert_eq!(retried.body["balance"]["posted"], "1.00");
    assert_eq!(desk.row("/audit?limit=1").await["items"][0]["action"], "topup");
}
