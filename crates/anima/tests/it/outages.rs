//! SPEC 12, row by row: what a node does while Redis, the database or both are away.
//!
//! Both stand behind proxies that the test breaks, by resets and by silence. An open SQLite file
//! cannot be taken away, so there only the rows without Redis are walked. `cargo xtask chaos` does
//! the same to three real nodes under load.

use std::time::Duration;

use anima_simulator::proxy::{Mode, Proxy};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::testapp::{Backend, Place, TestApp, eventually, prompt, redis_behind_proxy};

/// Reads and calls whose replies get lost: more reads than a node has connections for.
const READS: usize = 16;
const CALLS: usize = 4;

/// What asks a database that is silent waits for longer; how quick the rest is, benchmarks say.
const QUICK: Duration = Duration::from_millis(500);

struct World {
    app: TestApp,
    redis: Proxy,
    database: Option<Proxy>,
}

impl World {
    async fn start(backend: Backend) -> Option<Self> {
        let mut place: Place = backend.place().await?;
        let database = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(place.behind_proxy().await),
        };
        let (redis, url) = redis_behind_proxy().await?;
        let prefix = format!("anima_it_{}_{}", std::process::id(), redis.address().port());
        let settings = format!("redis_url = \"{url}\"\nredis_prefix = \"{prefix}\"");
        let app = Box::pin(TestApp::start(place, &settings)).await;
        Some(Self { app, redis, database })
    }

    fn database(&self) -> &Proxy {
        self.database.as_ref().unwrap()
    }

    /// Waits until replies say that this is down; nothing for all is well.
    async fn degrades(&self, expected: &str) {
        eventually(&format!("degraded: {expected:?}"), async || {
            let reply = self.app.get("/v1/unknown").await;
            (reply.header("x-anima-degraded") == expected).then_some(())
        })
        .await;
    }

    async fn health(&self) -> (u16, Value) {
        let reply = self.app.raw(Method::GET, "/actuator/health", &[], "").await;
        (reply.status, reply.json())
    }

    async fn metric(&self, dependency: &str) -> bool {
        let line = format!("anima_degraded{{dependency=\"{dependency}\"}} 1");
        self.app.metrics().await.contains(&line)
    }

    /// Billed calls are refused, at once and without a word to the provider.
    async fn refuses_calls(&self, degraded: &str) {
        let made = self.app.calls().await.len();
        let mut quick = 0;
        for _ in 0..20 {
            let began = Instant::now();
            let reply = self.app.ask("chat").await;
            quick += usize::from(began.elapsed() < QUICK);
            assert_eq!(reply.refusal(), (503, "service_unavailable".into()), "{reply:?}");
            assert_eq!(reply.header("x-anima-degraded"), degraded);
            assert_eq!(reply.header("x-should-retry"), "true");
        }
        let headers = [("x-api-key", self.app.key.as_str()), ("idempotency-key", "k")];
        let body = prompt("chat").to_string();
        let keyed = self.app.raw(Method::POST, "/v1/chat/completions", &headers, body).await;
        assert_eq!(keyed.refusal(), (503, "service_unavailable".into()), "{keyed:?}");
        assert!(quick >= 18, "{quick} of 20 within {QUICK:?}");
        assert_eq!(self.app.calls().await.len(), made, "nothing is sent unheld");
    }

    async fn serves(&self) {
        self.degrades("").await;
        let asked = async || (self.app.ask("chat").await.status == 200).then_some(());
        let began = Instant::now();
        eventually("a call is served", asked).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // One of the ledger's writers may still be at what the outage left it.
        eventually("it is ready", async || (self.health().await.0 == 200).then_some(())).await;
    }
}

async fn redis_down(backend: Backend, mode: Mode) {
    let Some(world) = Box::pin(World::start(backend)).await else { return };
    assert_eq!(world.app.ask("chat").await.header("x-anima-degraded"), "");
    assert_eq!(world.health().await.1["components"]["redis"]["status"], "UP");
    world.redis.set(mode);
    world.degrades("redis").await;
    let reply = world.app.ask("chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("x-anima-degraded"), "redis");
    let (status, health) = world.health().await;
    assert_eq!(
        (status, &health["status"], &health["degraded"]),
        (200, &json!("UP"), &json!("redis"))
    );
    assert_eq!(health["components"]["redis"]["status"], "DOWN");
    assert!(world.metric("redis").await && !world.metric("database").await);
    // A key that is in no cache is found in the database, and a switch works.
    let (path, key) = world.app.mint("acme", json!({})).await;
    assert_eq!(world.app.ask_as(&key, "chat").await.status, 200);
    world.app.switch(&path, false).await;
    assert_eq!(world.app.ask_as(&key, "chat").await.status, 401);
    world.redis.set(Mode::Open);
    Box::pin(world.serves()).await;
    Box::pin(world.app.finish()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_serving_goes_on_sqlite() {
    Box::pin(redis_down(Backend::Sqlite, Mode::Cut)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_serving_goes_on_postgres() {
    Box::pin(redis_down(Backend::Postgres, Mode::Silent)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_calls_are_refused_and_reads_go_on() {
    for mode in [Mode::Cut, Mode::Silent] {
        let Some(world) = Box::pin(World::start(Backend::Postgres)).await else { return };
        let (_, unseen) = world.app.mint("acme", json!({})).await;
        assert_eq!(world.app.ask("chat").await.status, 200);
        world.database().set(mode);
        world.degrades("database").await;
        world.refuses_calls("database").await;
        assert_eq!(world.app.get("/v1/models").await.status, 200, "reads go on from memory");
        let reply = world.app.ask_as(&unseen, "chat").await;
        assert_eq!(reply.refusal(), (503, "auth_unavailable".into()), "never 401: {reply:?}");
        let reply = world.app.admin_try(Method::GET, "/apps", &Value::Null).await;
        assert_eq!(reply.status, 503, "{reply:?}");
        let (status, health) = world.health().await;
        assert_eq!((status, &health["degraded"]), (503, &json!("database")));
        assert!(world.metric("database").await);
        world.database().set(Mode::Open);
        Box::pin(world.serves()).await;
        Box::pin(world.app.finish()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_both_calls_are_refused_and_everything_comes_back_by_itself() {
    let Some(world) = Box::pin(World::start(Backend::Postgres)).await else { return };
    assert_eq!(world.app.ask("chat").await.status, 200);
    world.redis.set(Mode::Cut);
    world.database().set(Mode::Cut);
    world.degrades("redis,database").await;
    world.refuses_calls("redis,database").await;
    assert_eq!(world.app.get("/v1/models").await.status, 200, "reads go on from memory");
    assert!(world.metric("redis").await && world.metric("database").await);
    world.database().set(Mode::Open);
    world.redis.set(Mode::Open);
    Box::pin(world.serves()).await;
    Box::pin(world.app.finish()).await;
}

/// Replies get lost on the connections that are in use, which the network keeps open; meanwhile
/// this node is given up. None of them may be waited on or used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_whose_replies_were_lost_are_not_used_again() {
    let Some(world) = Box::pin(World::start(Backend::Postgres)).await else { return };
    let (_, unseen) = world.app.mint("acme", json!({})).await;
    assert_eq!(world.app.ask("chat").await.status, 200);
    world.database().set(Mode::Deaf);
    let reads =
        join_all((0..READS).map(|_| world.app.admin_try(Method::GET, "/apps", &Value::Null)));
    let calls = join_all((0..CALLS).map(|_| world.app.ask("chat")));
    let asked = async { tokio::join!(reads, calls) };
    let told = tokio::time::timeout(Duration::from_secs(10), asked).await;
    let (reads, calls) = told.expect("whoever waits is told");
    for reply in reads.iter().chain(&calls) {
        assert_eq!(reply.status, 503, "{reply:?}");
    }
    world.degrades("database").await;
    world.database().set(Mode::Silent);
    world.app.place.run("UPDATE node_lease SET state = 'DEAD'").await;
    world.refuses_calls("database").await;
    world.database().set(Mode::Open);
    Box::pin(world.serves()).await;
    assert_eq!(world.app.ask_as(&unseen, "chat").await.status, 200, "keys are read again");
    assert_eq!(world.app.admin_try(Method::GET, "/apps", &Value::Null).await.status, 200);
    Box::pin(world.app.finish()).await;
}
