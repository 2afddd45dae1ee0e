//! Several nodes on one PostgreSQL and one Redis: a change on one is in force on all within a
//! second, is acknowledged by each, and a scheduled price changes on all at its instant.
//!
//! `ANIMA_TEST_KILLS` and `ANIMA_TEST_RATE` make it the measurement of `docs/operations.md`. Time
//! from the admin's reply is taken where requests are sent; the reply waits for nobody
//! (`wait_ms=0`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anima::clock::SystemClock;
use anima_core::clock::Clock as _;
use futures_util::StreamExt as _;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::testapp::{
    BACKUP_SECRET, Backend, Client, Neighbour, Rates, TestApp, eventually, price, prompt, variable,
};

/// What each request met: when it was sent, and its status.
type Log = Arc<Mutex<Vec<(Instant, u16)>>>;

struct Fleet {
    app: TestApp,
    others: Vec<Neighbour>,
}

impl Fleet {
    /// Three nodes. With `apart` each has a Redis prefix of its own and does not listen to the
    /// database, so that no message reaches another node.
    async fn start(apart: bool) -> Option<Self> {
        let place = Backend::Postgres.place().await?;
        let redis = variable("ANIMA_TEST_REDIS_URL");
        let settings = |n: usize| match &redis {
            Some(url) => {
                let own = if apart { n } else { 0 };
                let prefix = format!("fleet-{}-{own}:", place_id(&place));
                let listen = if apart { "off" } else { "on" };
                format!(
                    "redis_url = \"{url}\"\nredis_prefix = \"{prefix}\"\n\
                     database_listen = \"{listen}\"\n"
                )
            }
            None if apart => "database_listen = \"off\"\n".to_owned(),
            None => String::new(),
        };
        let (first, second, third) = (settings(0), settings(1), settings(2));
        let app = Box::pin(TestApp::start(place, &first)).await;
        let mut others = Vec::new();
        for settings in [second, third] {
            others.push(Box::pin(app.beside(&settings)).await);
        }
        Some(Self { app, others })
    }

    fn clients(&self) -> Vec<&Client> {
        let others = self.others.iter().map(|other| &other.client);
        std::iter::once(&self.app.client).chain(others).collect()
    }

    async fn finish(self) {
        for other in self.others {
            other.stop().await;
        }
        Box::pin(self.app.finish()).await;
    }
}

fn place_id(place: &crate::testapp::Place) -> String {
    place.url().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned()
}

fn number(name: &str, usual: usize) -> usize {
    variable(name).and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn send(client: &Client, key: &str) -> u16 {
    let headers = [("x-api-key", key)];
    let body = prompt("chat").to_string().into();
    client.open(Method::POST, "/v1/chat/completions", &headers, body).await.whole().await.status
}

/// Sends to every node at a steady rate until told to stop.
async fn load(client: &Client, key: &str, every: Duration, log: &Log, stop: &AtomicBool) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut running = futures_util::stream::FuturesUnordered::new();
    while !stop.load(Ordering::Relaxed) {
        tokio::select! {
            _ = ticks.tick(), if running.len() < 64 => {
                running.push(async { (Instant::now(), send(client, key).await) });
            }
            Some(outcome) = running.next() => log.lock().push(outcome),
        }
    }
    while let Some(outcome) = running.next().await {
        log.lock().push(outcome);
    }
}

/// Switches a row off and on again, so many times, and says how long after the reply each kill's
/// last request was let through.
async fn kills(fleet: &Fleet, path: &str, count: usize, log: &Log) -> Vec<Duration> {
    let mut late = Vec::with_capacity(count);
    for _ in 0..count {
        let path_now = format!("{path}?wait_ms=0");
        let off = json!({"enabled": false, "reason": "a kill"});
        fleet.app.admin(Method::PATCH, &path_now, &off).await;
        let replied = Instant::now();
        // Everything that was sent so far is answered after this, and then nothing passes.
        eventually("the kill is in force", async || {
            let since = replied.elapsed();
            let quiet = {
                let log = log.lock();
                let after = |at: &Instant| at.checked_duration_since(replied);
                let let_through = log.iter().filter(|(_, status)| *status == 200);
                let last = let_through.filter_map(|(at, _)| after(at)).max();
                let refused = log.iter().filter(|(at, status)| *at > replied && *status != 200);
                refused.count() > 6 && since > last.unwrap_or_default() + Duration::from_millis(250)
            };
            quiet.then_some(())
        })
        .await;
        let last = {
            let log = log.lock();
            let let_through = log.iter().filter(|(_, status)| *status == 200);
            let_through.filter_map(|(at, _)| at.checked_duration_since(replied)).max()
        };
        late.push(last.unwrap_or_default());
        fleet.app.admin(Method::PATCH, path, &json!({"enabled": true})).await;
        let back = Instant::now();
        eventually("calls pass again", async || {
            let log = log.lock();
            let passed = log.iter().filter(|(at, status)| *at > back && *status == 200).count();
            (passed > 6).then_some(())
        })
        .await;
        log.lock().clear();
    }
    late.sort();
    late
}

fn report(what: &str, late: &[Duration], bound: Duration) {
    let at = |percent: usize| late[(late.len() - 1) * percent / 100];
    let (n, p50, p99, max) = (late.len(), at(50), at(99), at(100));
    eprintln!(
        "{what}: {n} kills, last request let through after p50 {p50:?} p99 {p99:?} max {max:?}"
    );
    assert!(max < bound, "{what}: {max:?}");
}

async fn measured(apart: bool, bound: Duration) {
    let Some(fleet) = Fleet::start(apart).await else { return };
    let (kid_path, key) = fleet.app.mint("acme", json!({})).await;
    let every = Duration::from_micros(3_000_000 / number("ANIMA_TEST_RATE", 60) as u64);
    let count = number("ANIMA_TEST_KILLS", 3);
    let (log, stop) = (Log::default(), AtomicBool::new(false));
    let loads = fleet.clients().into_iter().map(|client| load(client, &key, every, &log, &stop));
    let killing = async {
        let channel = kills(&fleet, "/channels/main", count, &log).await;
        let key = kills(&fleet, &kid_path, count, &log).await;
        stop.store(true, Ordering::Relaxed);
        (channel, key)
    };
    let (_, (channel, key)) = tokio::join!(futures_util::future::join_all(loads), killing);
    let how = if apart { "no message" } else { "messages" };
    report(&format!("channel, {how}"), &channel, bound);
    report(&format!("key, {how}"), &key, bound);
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_is_in_force_on_every_node_within_a_second() {
    Box::pin(measured(false, Duration::from_secs(1))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_whose_message_is_lost_is_in_force_within_two_seconds() {
    Box::pin(measured(true, Duration::from_secs(2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_acknowledges_a_change_with_its_time() {
    let Some(fleet) = Fleet::start(false).await else { return };
    let known = eventually("every node has been heard of", async || {
        let change = json!({"scope": "config"});
        let answer = fleet.app.admin(Method::POST, "/cache/invalidate", &change).await;
        let nodes = answer["propagation"]["nodes"].as_array().unwrap().len();
        (nodes == 3 && answer["propagation"]["complete"] == true).then_some(answer)
    })
    .await;
    let id = known["propagation"]["id"].to_string();
    let read = fleet.app.admin(Method::GET, &format!("/propagation/{id}"), &Value::Null).await;
    assert_eq!(read["complete"], true);
    for node in read["nodes"].as_array().unwrap() {
        assert!(node["applied_at"].is_string() && node["alive"] == true, "{read}");
    }
    fleet.finish().await;
}

const OTHER: Rates = Rates { input: "3.3", cached: "3.3", output: "3.3" };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_changes_on_every_node_at_its_instant() {
    let Some(fleet) = Fleet::start(false).await else { return };
    let start = SystemClock.now().plus_millis(3_000);
    let meters = price(&OTHER, json!({}))["meters"].clone();
    let change = json!({"meters": meters, "effective_from": start.to_string()});
    fleet.app.patch("/prices/chat-sale", change).await;
    let mut asked = Vec::new();
    let wanted = number("ANIMA_TEST_PRICE_CALLS", 60);
    for n in 0.. {
        let client = fleet.clients()[n % 3];
        let before = SystemClock.now();
        let headers = [("x-api-key", fleet.app.key.as_str())];
        let body = prompt("chat").to_string().into();
        let reply = client.open(Method::POST, "/v1/chat/completions", &headers, body).await;
        let reply = reply.whole().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        asked.push((before, SystemClock.now(), reply.request_id().to_owned()));
        let after = asked.iter().filter(|(before, _, _)| *before > start).count();
        if after >= wanted / 2 && asked.len() >= wanted {
            break;
        }
    }
    let (mut early, mut late) = (0, 0);
    for (before, after, id) in &asked {
        let version = fleet.app.postings(id).await[0].price.as_ref().unwrap().1;
        // A call that was under way at the instant may have pinned either.
        if *after < start {
            early += 1;
            assert_eq!(version, 1, "{before} is before {start}");
        } else if *before >= start {
            late += 1;
            assert_eq!(version, 2, "{before} is not before {start}");
        }
    }
    eprintln!("price change: {} calls, {early} before and {late} after, 0 wrong", asked.len());
    assert!(early > 0 && late > 0);
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_send_the_probes_of_one() {
    let Some(fleet) = Fleet::start(false).await else { return };
    if variable("ANIMA_TEST_REDIS_URL").is_some() {
        Box::pin(probed(&fleet)).await;
    }
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_send_a_channel_no_more_than_it_takes() {
    let Some(fleet) = Fleet::start(false).await else { return };
    if variable("ANIMA_TEST_REDIS_URL").is_some() {
        Box::pin(seated(&fleet)).await;
    }
    fleet.finish().await;
}

/// Many calls at once on three nodes, where a channel takes three that last for so long.
async fn seated(fleet: &Fleet) {
    const LASTS_MS: u64 = 1_000;
    let app = &fleet.app;
    app.patch("/channels/main", json!({"max_concurrency": 3})).await;
    let clients = fleet.clients();
    let version = async |client: &Client| {
        let headers = [("x-api-key", app.key.as_str())];
        let body = prompt("chat").to_string().into();
        let sent = client.open(Method::POST, "/v1/chat/completions", &headers, body).await;
        sent.whole().await.header("x-anima-config-version").to_owned()
    };
    let own = version(&app.client).await;
    for client in &clients {
        let knows = async || (version(client).await == own).then_some(());
        eventually("every node knows", knows).await;
    }
    let before = app.upstream.calls().len();
    app.fault(&format!("latency:{LASTS_MS}"));
    let mut served = 0;
    for _ in 0..2 {
        let calls = clients.iter().cycle().take(24).map(|client| send(client, &app.key));
        let statuses = futures_util::future::join_all(calls).await;
        served += statuses.iter().filter(|status| **status == 200).count();
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    }
    let calls = app.upstream.calls();
    let mut began: Vec<u64> = calls.iter().skip(before).map(|call| call.received_ms).collect();
    began.sort_unstable();
    assert!(served >= 6 && began.len() == served, "{served} served of {}", began.len());
    for four in began.windows(4) {
        // A call holds its seat until its answer has been read.
        assert!(four[3] - four[0] >= LASTS_MS, "four at once: {began:?}");
    }
}

async fn probed(fleet: &Fleet) {
    let app = &fleet.app;
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    let breaker = json!({"consecutive_failures": 5, "open_ms": 2_500, "half_open_permits": 3});
    app.patch("/channels/main", json!({ "breaker": breaker })).await;
    app.alias("two", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
    let fails = json!([{"match": {"model": "sim-chat"}, "do": "status:500+latency:200"}]);
    app.script(&fails);
    let ask = async |client: &Client| {
        let headers = [("x-api-key", app.key.as_str())];
        let body = prompt("two").to_string().into();
        let sent = client.open(Method::POST, "/v1/chat/completions", &headers, body).await;
        let reply = sent.whole().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.header("x-anima-attempts") == "1"
    };
    let heard = || app.upstream.calls().iter().filter(|call| call.model == "sim-chat").count();
    for client in fleet.clients() {
        eventually("every node leaves it alone", async || ask(client).await.then_some(())).await;
    }
    let before = heard();
    let clients = fleet.clients();
    eventually("it is probed", async || {
        futures_util::future::join_all(clients.iter().cycle().take(12).map(|c| ask(c))).await;
        (heard() > before).then_some(())
    })
    .await;
    for _ in 0..5 {
        futures_util::future::join_all(clients.iter().cycle().take(12).map(|c| ask(c))).await;
    }
    let probes = heard() - before;
    assert!((1..=3).contains(&probes), "{probes} probes of one open period");
}
