//! The admin API over a real SQLite file, call by call.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use anima_core::clock::{Clock as _, ManualClock, SeededRng, Timestamp};
use anima_store::config::Actor;
use anima_store::database::{Location, Opener, Stores, open};
use anima_store::keys::{AdminToken, Role};
use anima_store::ledger::BatchObserver;
use anima_store::pubsub::memory::MemoryPubSub;

use super::{Admin, router};
use crate::live::{Live, Sources};
use crate::secrets::Secrets;
use crate::watch::Watch;

mod access;
mod aliases;
mod bad_members;
mod channels;
mod faults;
mod hatches;
mod keys;
mod money;
mod movements;
mod nodes;
mod payloads;
mod rehearsals;
mod rows;
mod tasks;
mod usage;

/// Nobody watches the ledger here.
#[derive(Debug)]
struct Unobserved;

impl BatchObserver for Unobserved {
    fn committed(&self, _: usize, _: usize, _: f64) {}
    fn failed(&self) {}
}

/// An admin's desk: the API, its database and its clock.
pub(super) struct Desk {
    pub(super) admin: Admin,
    pub(super) clock: Arc<ManualClock>,
    router: Router,
    folder: tempfile::TempDir,
}

/// A reply.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    text: String,
    body: Value,
}

impl Answer {
    /// The reply's own words for what went wrong.
    fn refusal(&self) -> (u16, &str, &str) {
        let member = self.body["errors"][0]["member"].as_str().unwrap_or_default();
        (self.status.as_u16(), self.body["code"].as_str().unwrap_or_default(), member)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Desk {
    pub(super) async fn open() -> Self {
        Self::open_with(|stores| stores).await
    }

    /// A desk whose stores are wrapped, so that they can fail.
    async fn open_with(wrap: impl FnOnce(Stores) -> Stores) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("anima.db"));
        let opener = Opener { node: Uuid::nil(), observer: Arc::new(Unobserved) };
        let stores = open(&location, &opener).await.unwrap();
        let secrets = Arc::new(Secrets::new(&[7; 32]).unwrap());
        let start = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            let name = role.name().to_owned();
            let hash = secrets.hash_admin_token(&format!("at-{name}"));
            stores.keys.store_admin_token(AdminToken { name, role, hash }, start).await.unwrap();
        }
        let stores = wrap(stores);
        let clock = Arc::new(ManualClock::new(start));
        let from = Sources {
            config: Arc::clone(&stores.config),
            keys: Arc::clone(&stores.keys),
            publish: Arc::clone(&stores.publish),
            pubsub: Arc::new(MemoryPubSub::default()),
            second: None,
            node: "desk".to_owned(),
        };
        let live = Live::load(from, Arc::clone(&secrets), clock.clone()).await.unwrap();
        let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
        let rng = Arc::new(SeededRng::new(1));
        let auditor = Arc::clone(&stores.auditor);
        let watch = Watch::new(auditor, Arc::clone(&metrics), clock.clone());
        let circuits = crate::circuits::Circuits::new(
            (clock.clone(), rng, Arc::clone(&metrics)),
            anima_store::probes::Probes::in_process(),
        );
        let shared = anima_store::shared::Shared::in_process();
        let probe = Arc::clone(&stores.probe);
        let dependencies =
            crate::dependencies::Dependencies::new(probe, shared.clone(), Arc::clone(&metrics));
        let live = Arc::new(live);
        let facts = crate::nodes::Facts {
            id: "desk".to_owned(),
            host: "here".to_owned(),
            live: Arc::clone(&live),
            dependencies: Arc::new(dependencies),
            metrics,
            clock: clock.clone(),
        };
        let kept =
            crate::relay::records::Bounds { notable_per_s: 100, plain_per_s: 100, keep_ms: 60_000 };
        let told = (Arc::clone(&facts.metrics), clock.clone() as Arc<dyn anima_core::clock::Clock>);
        let decisions = Arc::clone(&stores.decisions);
        let records = crate::relay::records::Records::new(decisions, told, Uuid::nil(), kept);
        let nodes = crate::nodes::Nodes::new(facts, Arc::clone(&stores.nodes), shared);
        let admin = Admin {
            stores,
            circuits: Arc::new(circuits),
            secrets,
            live,
            nodes: Arc::new(nodes),
            limits: None,
            watch: Arc::new(watch),
            records: Arc::new(records),
            sale_trueup_window_ms: 0,
            task_keep_ms: 60_000,
            clock: clock.clone(),
            rng: Arc::new(SeededRng::new(1)),
            declared_chains: Arc::default(),
            usage_turn: Arc::new(tokio::sync::Semaphore::new(1)),
        };
        Self { router: router(admin.clone()), admin, clock, folder }
    }

    /// A desk with one row of each kind, named as SPEC 15's payloads name them.
    async fn furnished() -> Self {
        let desk = Self::open().await;
        for (path, payload) in payloads::examples() {
            let answer = desk.post(path, payload).await;
            assert_eq!(answer.status, 201, "{path}: {}", answer.text);
        }
        desk
    }

    /// Any call. Time moves by a millisecond first.
    async fn send(&self, request: Request<Body>) -> Answer {
        self.clock.advance_millis(1);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, text, body }
    }

    async fn call(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let body = body.map_or_else(Body::empty, |value| Body::from(value.to_string()));
        let request = ask(method, path).header("authorization", format!("Bearer {token}"));
        self.send(request.body(body).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call("at-viewer", Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("at-admin", Method::POST, path, Some(body)).await
    }

    pub(super) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call("at-admin", Method::PATCH, path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call("at-admin", Method::DELETE, path, None).await
    }

    async fn topup(&self, app: &str, key: &str, body: Value) -> Answer {
        let request = ask(Method::POST, &format!("/apps/{app}/topups"))
            .header("authorization", "Bearer at-admin")
            .header("idempotency-key", key);
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// What is written in a row at this moment, as the admin API shows it.
    pub(super) async fn row(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.body
    }

    pub(super) fn in_millis(&self, millis: i64) -> String {
        self.clock.now().plus_millis(millis).to_string()
    }
}

fn ask(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path)
}

pub(super) fn actor() -> Actor {
    Actor { name: "test".to_owned(), reason: "because".to_owned() }
}

fn channel(code: &str) -> Value {
    json!({"code": code, "provider": "openai", "base_url": "https://api.openai.com/v1"})
}
