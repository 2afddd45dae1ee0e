//! The contract of shared state, run against both backends.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::redis_keys::{Key, of_test};
use crate::tests::redis_proxy;

/// Both backends, as far as there is a server.
async fn both() -> Vec<Shared> {
    let mut backends = vec![Shared::in_process()];
    if let Some((url, prefix)) = crate::tests::redis() {
        let shared = Shared::over_redis(&url, Options { prefix, ..Options::default() }).unwrap();
        let redis = shared.redis.as_ref().unwrap();
        assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
        backends.push(shared);
    }
    backends
}

const LONG: Duration = Duration::from_mins(1);

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn clean(state: &dyn SharedState, keys: &[&Key]) {
    for key in keys {
        state.remove(key).await.unwrap();
    }
}

#[tokio::test]
async fn a_value_is_read_as_it_was_put_until_it_is_removed() {
    for Shared { state, .. } in both().await {
        let key = of_test("value");
        assert_eq!(state.value(&key).await.unwrap(), None);
        state.put(&key, bytes("one"), LONG).await.unwrap();
        state.put(&key, Bytes::from_static(&[0, 255, 10]), LONG).await.unwrap();
        assert_eq!(state.value(&key).await.unwrap().unwrap(), [0, 255, 10][..]);
        state.remove(&key).await.unwrap();
        state.remove(&key).await.unwrap();
        assert_eq!(state.value(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_value_is_gone_when_its_time_is_over() {
    for Shared { state, .. } in both().await {
        let key = of_test("short");
        state.put(&key, bytes("one"), Duration::from_millis(20)).await.unwrap();
        let began = Instant::now();
        while state.value(&key).await.unwrap().is_some() {
            assert!(began.elapsed() < Duration::from_secs(5));
            tokio::task::yield_now().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(10), "not before");
    }
}

#[tokio::test]
async fn a_hash_holds_what_each_node_put() {
    for Shared { state, .. } in both().await {
        let hash = of_test("hash");
        assert!(state.fields(&hash).await.unwrap().is_empty());
        state.set_field(&hash, "a", bytes("1")).await.unwrap();
        state.set_field(&hash, "b", bytes("2")).await.unwrap();
        state.set_field(&hash, "a", bytes("3")).await.unwrap();
        let mut fields = state.fields(&hash).await.unwrap();
        fields.sort();
        assert_eq!(fields, [("a".to_owned(), bytes("3")), ("b".to_owned(), bytes("2"))]);
        state.remove_field(&hash, "b").await.unwrap();
        state.remove_field(&hash, "unknown").await.unwrap();
        assert_eq!(state.fields(&hash).await.unwrap().len(), 1);
        clean(&*state, &[&hash]).await;
        assert!(state.fields(&hash).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn values_that_are_over_do_not_pile_up_in_memory() {
    let state = memory::MemoryState::default();
    for number in 0..10_000 {
        let key = of_test(&number.to_string());
        state.put(&key, bytes("x"), Duration::from_secs(1)).await.unwrap();
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert!(state.len() < 2_000, "{}", state.len());
}

#[tokio::test]
async fn shared_state_that_is_away_says_so_at_once_and_comes_back() {
    let Some((proxy, url, prefix)) = redis_proxy().await else { return };
    let shared = Shared::over_redis(&url, Options { prefix, ..Options::default() }).unwrap();
    let redis = shared.redis.clone().unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    proxy.set(anima_simulator::proxy::Mode::Cut);
    let mut health = redis.health();
    health.wait_for(|up| !up).await.unwrap();
    assert!(shared.is_down());
    assert_eq!(shared.state.value(&of_test("x")).await, Err(Error::Down));
    proxy.set(anima_simulator::proxy::Mode::Open);
    health.wait_for(|up| *up).await.unwrap();
    assert_eq!(shared.state.value(&of_test("x")).await, Ok(None));
}
