//! Sentinel and Cluster, on real servers of the test's own.
//!
//! The suites of everything that is kept in Redis are run again, by this very program, over either;
//! then a primary is failed over and a node of a Cluster is lost. Invariant: what holds over one
//! server holds over both.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use crate::pubsub::redis::RedisPubSub;
use crate::pubsub::{Delivery, PubSub as _, Subscription};
use crate::redis::{Options, Redis};
use crate::redis_keys::{self, Topic};
use crate::shared::SharedState as _;
use crate::shared::redis::RedisState;
use crate::tests::redis_servers::{Cluster, Watched};

/// Whose tests are run again: values, messages, permits and counters, every script among them.
const SUITES: [&str; 4] = ["shared::", "pubsub::", "probes::", "quota::"];

/// Longer than any failover takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the suites over that Redis.
async fn suites_pass(url: String) {
    let program = std::env::current_exe().unwrap();
    let run = move || {
        let mut command = Command::new(program);
        command.args(SUITES).env("ANIMA_TEST_REDIS_URL", url);
        command.output().unwrap()
    };
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("counters_in_redis_keep_the_contract ... ok"), "{said}");
}

async fn open(url: &str) -> Redis {
    let redis = Redis::open(url, Options::default()).unwrap();
    assert!(redis.ready(PATIENCE).await.unwrap(), "{url}");
    redis
}

/// Publishes until a message arrives.
async fn heard_again(speaker: &RedisPubSub, topic: &Topic, listener: &mut Subscription) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "no message arrives any more");
        // While there is no primary it is refused.
        drop(speaker.publish(topic, b"after").await);
        let heard = timeout(Duration::from_millis(200), listener.next()).await;
        if heard == Ok(Delivery::Message(Bytes::from_static(b"after"))) {
            return;
        }
    }
}

/// Writes until it is taken, and reads it.
async fn serves_again(state: &RedisState, key: &redis_keys::Key) {
    let began = Instant::now();
    while state.put(key, Bytes::from_static(b"new"), PATIENCE).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "nothing is taken any more");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(state.value(key).await.unwrap().unwrap(), b"new"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_holds_over_a_sentinel_and_goes_on_after_a_failover() {
    let Some(servers) = Watched::start().await else { return };
    let redis = open(&servers.url()).await;
    assert_eq!(redis.kind(), "sentinel");
    suites_pass(servers.url()).await;
    let (topic, state) = (Topic::of_test("failover"), RedisState(redis.clone()));
    let (speaker, ears) = (RedisPubSub::new(redis), open(&servers.url()).await);
    let ears = RedisPubSub::new(ears);
    let mut listener = ears.subscribe(&topic).await;
    heard_again(&speaker, &topic, &mut listener).await;
    servers.fail_over().await;
    heard_again(&speaker, &topic, &mut listener).await;
    serves_again(&state, &redis_keys::of_test("failover")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_holds_over_a_cluster_and_a_lost_node_costs_its_slots_alone() {
    let Some(mut servers) = Cluster::start().await else { return };
    let redis = open(&servers.url()).await;
    assert_eq!(redis.kind(), "cluster");
    suites_pass(servers.url()).await;
    let (speaker, ears) = (open(&servers.url()).await, open(&servers.url()).await);
    let (speaker, ears) = (RedisPubSub::new(speaker), RedisPubSub::new(ears));
    // Slot 14,918 is the last node's; the first is the one that everybody listens at.
    let topic = Topic::of_test("lost");
    let mut listener = ears.subscribe(&topic).await;
    heard_again(&speaker, &topic, &mut listener).await;
    servers.lose_one();
    heard_again(&speaker, &topic, &mut listener).await;
}
