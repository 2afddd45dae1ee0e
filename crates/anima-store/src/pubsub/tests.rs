//! The contract of messages, run against both backends.

use std::time::Duration;

use anima_simulator::proxy::Mode;
use tokio::time::timeout;

use super::*;
use crate::pubsub::memory::MemoryPubSub;
use crate::pubsub::redis::RedisPubSub;
use crate::redis::{Options, Redis};
use crate::tests::redis_proxy;

/// Two nodes of each backend.
async fn both() -> Vec<[Arc<dyn PubSub>; 2]> {
    let memory: Arc<dyn PubSub> = Arc::new(MemoryPubSub::default());
    let mut backends = vec![[Arc::clone(&memory), memory]];
    if let Some((url, prefix)) = crate::tests::redis() {
        let first = over_redis(&url, &prefix).await;
        backends.push([first, over_redis(&url, &prefix).await]);
    }
    backends
}

async fn over_redis(url: &str, prefix: &str) -> Arc<dyn PubSub> {
    let options = Options { prefix: prefix.to_owned(), ..Options::default() };
    let redis = Redis::open(url, options).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    Arc::new(RedisPubSub::new(redis))
}

/// The next delivery; a `Missed` at the start is allowed where a connection is new.
async fn next(subscription: &mut Subscription) -> Delivery {
    timeout(Duration::from_secs(5), subscription.next()).await.expect("a delivery")
}

async fn message(subscription: &mut Subscription) -> Bytes {
    loop {
        if let Delivery::Message(bytes) = next(subscription).await {
            return bytes;
        }
    }
}

fn topic(name: &str) -> Topic {
    Topic::of_test(name)
}

#[tokio::test]
async fn a_message_reaches_all_nodes_in_order_this_one_included() {
    for [here, there] in both().await {
        let topic = topic("order");
        let mut own = here.subscribe(&topic).await;
        let mut other = there.subscribe(&topic).await;
        for number in 0_u8..100 {
            here.publish(&topic, &[number]).await.unwrap();
        }
        for number in 0_u8..100 {
            assert_eq!(message(&mut own).await, [number][..]);
            assert_eq!(message(&mut other).await, [number][..]);
        }
    }
}

#[tokio::test]
async fn topics_do_not_mix_and_a_dropped_subscription_ends_alone() {
    for [here, there] in both().await {
        let mut left = there.subscribe(&topic("left")).await;
        let gone = there.subscribe(&topic("left")).await;
        drop(there.subscribe(&topic("right")).await);
        drop(gone);
        here.publish(&topic("right"), b"no").await.unwrap();
        here.publish(&topic("left"), b"yes").await.unwrap();
        assert_eq!(message(&mut left).await, &b"yes"[..]);
        // A topic that was left can be entered again.
        let mut right = there.subscribe(&topic("right")).await;
        here.publish(&topic("right"), b"now").await.unwrap();
        assert_eq!(message(&mut right).await, &b"now"[..]);
    }
}

#[tokio::test]
async fn a_reader_that_lags_far_behind_is_told_so() {
    for [here, _] in both().await {
        let topic = topic("lag");
        let mut slow = here.subscribe(&topic).await;
        let mut quick = here.subscribe(&topic).await;
        for _ in 0..=BACKLOG {
            here.publish(&topic, b"x").await.unwrap();
            message(&mut quick).await;
        }
        assert_eq!(next(&mut slow).await, Delivery::Missed);
        assert_eq!(message(&mut slow).await, &b"x"[..]);
    }
}

async fn cut_and_back(mode: Mode) {
    let Some((proxy, url, prefix)) = redis_proxy().await else { return };
    let (far, _) = crate::tests::redis().unwrap();
    let (near, far) = (over_redis(&url, &prefix).await, over_redis(&far, &prefix).await);
    let topic = topic("cut");
    let mut subscription = near.subscribe(&topic).await;
    far.publish(&topic, b"before").await.unwrap();
    assert_eq!(message(&mut subscription).await, &b"before"[..]);
    proxy.set(mode);
    far.publish(&topic, b"lost").await.unwrap();
    if mode == Mode::Silent {
        // Until the listener has given the old connection up, nothing may come through it.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
    proxy.set(Mode::Open);
    assert_eq!(next(&mut subscription).await, Delivery::Missed);
    far.publish(&topic, b"after").await.unwrap();
    assert_eq!(message(&mut subscription).await, &b"after"[..]);
}

#[tokio::test]
async fn a_cut_connection_subscribes_again_and_says_that_something_may_be_missing() {
    cut_and_back(Mode::Cut).await;
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_and_replaced() {
    cut_and_back(Mode::Silent).await;
}

#[tokio::test]
async fn a_subscription_made_while_redis_is_away_works_when_it_is_back() {
    let Some((proxy, url, prefix)) = redis_proxy().await else { return };
    let near = over_redis(&url, &prefix).await;
    proxy.set(Mode::Cut);
    let topic = topic("late");
    let mut subscription = timeout(Duration::from_secs(1), near.subscribe(&topic)).await.unwrap();
    proxy.set(Mode::Open);
    assert_eq!(next(&mut subscription).await, Delivery::Missed);
    let (far, _) = crate::tests::redis().unwrap();
    over_redis(&far, &prefix).await.publish(&topic, b"here").await.unwrap();
    assert_eq!(message(&mut subscription).await, &b"here"[..]);
}
