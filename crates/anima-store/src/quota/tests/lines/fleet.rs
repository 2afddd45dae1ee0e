//! A thousand calls that wait on three nodes of one Redis.
//!
//! `ANIMA_TEST_WAITERS` says how many; the figures of `docs/limits.md` are what this prints.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::quota::line::LineStore as _;

/// Three nodes, and what each hears: which call, and when.
struct Fleet {
    nodes: Vec<Place>,
    heard: mpsc::UnboundedReceiver<(usize, Uuid, Instant)>,
}

fn waiters() -> u128 {
    crate::tests::variable("ANIMA_TEST_WAITERS").and_then(|n| n.parse().ok()).unwrap_or(1_000)
}

async fn fleet(redis: &Redis) -> Fleet {
    let (sender, heard) = mpsc::unbounded_channel();
    let mut nodes = vec![];
    for n in 0..3_usize {
        let pubsub: Arc<dyn PubSub> = Arc::new(RedisPubSub::new(redis.clone()));
        let id = Uuid::from_u128(u128::try_from(n).unwrap() + 1);
        let own = RedisQuotas::new(redis.clone(), id, Arc::default()).hearing(&pubsub);
        let store = Arc::new(own.in_callers_time());
        let mut calls = store.calls().await.unwrap();
        let sender = sender.clone();
        tokio::spawn(async move {
            // The connection goes with the task.
            let _pubsub = pubsub;
            loop {
                let Delivery::Message(call) = calls.next().await else { continue };
                let (id, _) = call_of(&call).unwrap();
                if sender.send((n, id, Instant::now())).is_err() {
                    return;
                }
            }
        });
        nodes.push(Place { store, app: "acme".into() });
    }
    Fleet { nodes, heard }
}

/// Lets calls of keys wait in this order, on one node after the other: the calls of each key.
async fn arrive(fleet: &Fleet, keys: &[(&str, u128)], asks: &[Bound]) -> HashMap<Uuid, String> {
    let mut of = HashMap::new();
    let mut id = 1_000;
    for (key, count) in keys {
        let tenant: Arc<str> = (*key).into();
        for _ in 0..*count {
            id += 1;
            let node = &fleet.nodes[usize::try_from(id % 3).unwrap()];
            let joining = joining((id, &tenant), asks);
            let now = at(i64::try_from(id).unwrap());
            let joined = node.store.join(&tag(node), joining, now).await.unwrap();
            assert!(matches!(joined, Joined::Waits(..)), "{joined:?}");
            of.insert(Uuid::from_u128(id), (*key).to_owned());
        }
    }
    of
}

/// Runs everyone who waits, one after the other: the order, and how long each was on its way.
async fn served(fleet: &mut Fleet, count: usize, one: &[Bound]) -> Vec<(Uuid, Duration)> {
    let (mut order, mut running) = (vec![], Uuid::from_u128(1));
    for n in 0..count {
        // Whoever ran, on another node than the one that waits.
        let node = &fleet.nodes[n % 3];
        let began = Instant::now();
        let now = at(1_000_000);
        let ticket = Ticket { id: running, bounds: one.into() };
        assert!(node.store.close(&ticket, now).await.unwrap());
        let heard = tokio::time::timeout(Duration::from_secs(10), fleet.heard.recv()).await;
        let (own, id, when) = heard.expect("a call").unwrap();
        order.push((id, when - began));
        let node = &fleet.nodes[own];
        let ask = Ask { id, bounds: one, now, lease_us: LEASE };
        assert!(admitted(&node.store.admit(ask).await.unwrap()));
        assert_eq!(used(node, &one[0], 1_000_000).await, 1, "never more, never less");
        running = id;
    }
    order
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_on_three_nodes_are_served_in_order_and_fairly() {
    let Some((_proxy, redis)) = open().await else { return };
    let mut fleet = fleet(&redis).await;
    let one = [slots(&fleet.nodes[0].app, Scope::App, 1)];
    assert!(admitted(&admit(&fleet.nodes[0], 1, &one, 0).await));
    let flood = waiters() - 20;
    let keys = [("flood", flood), ("plain", 10), ("late", 10)];
    let of = arrive(&fleet, &keys, &one).await;
    let served = served(&mut fleet, of.len(), &one).await;
    for key in ["flood", "plain", "late"] {
        let own: Vec<Uuid> = served.iter().map(|(id, _)| *id).filter(|id| of[id] == key).collect();
        assert!(own.is_sorted(), "first come, first served inside {key}");
        let last = served.iter().rposition(|(id, _)| of[id] == key).unwrap() + 1;
        eprintln!("{key}: {} calls, the last was served as number {last}", own.len());
        assert!(key == "flood" || last <= 34, "{key} is not pushed back: {last}");
    }
    let mut times: Vec<Duration> = served.iter().map(|(_, time)| *time).collect();
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    eprintln!(
        "from the end of one call to the next one's node: p50 {:?}, p99 {:?}",
        at(50),
        at(99)
    );
    assert!(fleet.heard.try_recv().is_err(), "each is called once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_on_a_node_that_dies_is_out_within_its_lease() {
    let Some((_proxy, redis)) = open().await else { return };
    let mut fleet = fleet(&redis).await;
    let two = [slots(&fleet.nodes[0].app, Scope::App, 2)];
    // One runs on the node that dies, one on another.
    assert!(admitted(&admit(&fleet.nodes[2], 1, &two, 0).await));
    assert!(admitted(&admit(&fleet.nodes[0], 2, &two, 0).await));
    arrive(&fleet, &[("k1", 30)], &two).await;
    let alive: Vec<Uuid> =
        (1_001..=1_030_u128).filter(|id| id % 3 != 2).map(Uuid::from_u128).collect();
    let ticket = Ticket { id: Uuid::from_u128(2), bounds: two.as_slice().into() };
    let mut now = 0;
    while now < LEASE {
        now += 1_000_000;
        for node in &fleet.nodes[..2] {
            node.store.attend(&tag(node), &[], at(now)).await.unwrap();
        }
        fleet.nodes[0].store.renew(std::slice::from_ref(&ticket), at(now), LEASE).await.unwrap();
    }
    // The slot of the dead node's call went to the first of those that are left.
    let (_, first, _) = fleet.heard.recv().await.unwrap();
    assert_eq!(first, alive[0]);
    assert_eq!(used(&fleet.nodes[0], &two[0], now).await, 2);
    let mut running = vec![Uuid::from_u128(2), first];
    let mut order = vec![first];
    while order.len() < alive.len() {
        let ticket = Ticket { id: running.remove(0), bounds: two.as_slice().into() };
        fleet.nodes[0].store.close(&ticket, at(now)).await.unwrap();
        let (_, id, _) = fleet.heard.recv().await.unwrap();
        order.push(id);
        running.push(id);
        assert_eq!(used(&fleet.nodes[0], &two[0], now).await, 2);
    }
    assert_eq!(order, alive, "in order, without those of the dead node");
    for id in running {
        let ticket = Ticket { id, bounds: two.as_slice().into() };
        fleet.nodes[1].store.close(&ticket, at(now)).await.unwrap();
    }
    assert_eq!(used(&fleet.nodes[0], &two[0], now).await, 0);
}
