//! What shared counters know of a node's calls after an outage.

use std::time::Duration;

use anima_core::queue::line::{Joined, Joining};
use anima_simulator::proxy::{Mode, Proxy};

use super::*;

/// A node whose way to Redis can be cut.
struct Node {
    place: Place,
    /// The counters that it shares.
    shared: Place,
    redis: Redis,
    proxy: Proxy,
}

impl Node {
    async fn start() -> Option<Self> {
        let (proxy, url, prefix) = crate::tests::redis_proxy().await?;
        let options = Options { prefix, failures_max: 1, ..Options::default() };
        let redis = Redis::open(&url, options).unwrap();
        assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
        let node = Uuid::from_u128(1);
        let all = Arc::new(RedisQuotas::new(redis.clone(), node, Arc::default()));
        let store = Arc::new(SharedQuotas::new(Arc::clone(&all) as _, node, Arc::default()));
        let place = Place { store, app: "acme".into() };
        let shared = Place { store: all, app: "acme".into() };
        Some(Self { place, shared, redis, proxy })
    }

    /// Slots, a budget beside them, and one under another tag.
    fn bounds(&self, units: i64) -> [Bound; 3] {
        let app = &self.place.app;
        let group = purse(app, Scope::TokenGroup, 100, units);
        [slots(app, Scope::Key, 5), purse(app, Scope::App, 100, units), group]
    }

    async fn seed(&self, spent: i64) {
        for budget in &self.bounds(0)[1..] {
            seeded(&*self.place.store, budget, spent).await;
        }
    }

    async fn is_back(&self) {
        self.proxy.set(Mode::Open);
        assert!(self.redis.ready(Duration::from_secs(5)).await.unwrap());
    }

    /// What the shared counters know.
    async fn known(&self) -> [i64; 3] {
        let [slots, app, group] = self.bounds(0);
        let used = async |bound| used(&self.shared, bound, 0).await;
        [used(&slots).await, used(&app).await, used(&group).await]
    }

    async fn reconciled(&self, to: [i64; 3]) {
        for _ in 0..200 {
            self.place.store.reconcile(at(0), LEASE).await;
            if self.known().await == to {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // And it stays so.
        self.place.store.reconcile(at(0), LEASE).await;
        assert_eq!(self.known().await, to);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_ends_while_redis_is_told_of_it_is_charged_once() {
    let Some(node) = Node::start().await else { return };
    node.seed(10).await;
    node.proxy.set(Mode::Cut);
    assert!(!admitted(&admit(&node.place, 1, &node.bounds(30), 0).await));
    node.seed(10).await;
    for id in [1, 2] {
        assert!(admitted(&admit(&node.place, id, &node.bounds(30), 0).await));
    }
    node.is_back().await;
    // Their slots are told of, and of the second one budget, when they end.
    let tickets = [1, 2].map(Uuid::from_u128);
    let tickets = tickets.map(|id| Ticket { id, bounds: node.bounds(30).into() });
    node.place.store.renew(&tickets, at(0), LEASE).await.unwrap();
    let ask =
        Ask { id: tickets[1].id, bounds: &node.bounds(30)[1..2], now: at(0), lease_us: LEASE };
    assert!(admitted(&node.shared.store.extend(ask).await.unwrap()));
    assert_eq!(node.known().await, [2, 40, 10]);
    assert!(close(&node.place, 1, &node.bounds(25), 0).await);
    assert!(close(&node.place, 2, &node.bounds(7), 0).await);
    node.reconciled([0, 42, 42]).await;
}

/// Lets a call wait for the only slot.
async fn waits(place: &Place, id: u128) -> Joined {
    let one = [slots(&place.app, Scope::App, 1)];
    let joining = Joining {
        id: Uuid::from_u128(id),
        tenant: &"k1".into(),
        since_us: 0,
        within_us: 60_000_000,
        weight: 1,
        most: 1_000,
        ahead_max: i64::MAX,
        bounds: &one,
    };
    place.store.join(&Tag::App(Arc::clone(&place.app)), joining, at(0)).await.unwrap()
}

async fn in_line(place: &Place) -> usize {
    place.store.waiting().await.unwrap().iter().map(|one| one.of.calls).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_left_or_was_served_while_redis_was_away_has_no_turn_there() {
    let Some(node) = Node::start().await else { return };
    let (place, tag) = (&node.place, Tag::App(Arc::clone(&node.place.app)));
    let another = RedisQuotas::new(node.redis.clone(), Uuid::from_u128(2), Arc::default());
    let another = Place { store: Arc::new(another), app: Arc::clone(&place.app) };
    let one = [slots(&place.app, Scope::App, 1)];
    assert!(admitted(&admit(&another, 1, &one, 0).await));
    for (at, id) in [(place, 2), (place, 3), (place, 4), (&another, 5)] {
        assert!(matches!(waits(at, id).await, Joined::Waits(..)), "{id}");
    }
    let [two, three, four, five] = [2, 3, 4, 5].map(Uuid::from_u128);
    place.store.attend(&tag, &[two, three, four], at(0)).await.unwrap();
    assert_eq!(in_line(&another).await, 4);
    node.proxy.set(Mode::Cut);
    assert!(!place.store.leave(&tag, two, at(0)).await.unwrap(), "it was not in the node's own");
    assert!(admitted(&admit(place, 3, &one, 0).await), "alone");
    place.store.served(&tag, three);
    node.is_back().await;
    for _ in 0..200 {
        place.store.reconcile(at(0), LEASE).await;
        if in_line(&another).await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(in_line(&another).await, 2, "who waits still does");
    assert_eq!(used(&another, &one[0], 0).await, 2, "what was admitted alone runs");
    // 4 is the next, and then 5, and nobody has a turn in between.
    assert!(close(place, 3, &one, 0).await);
    assert!(close(&another, 1, &one, 0).await);
    let absent = async |place: &Place, id| {
        place.store.attend(&tag, &[id], at(0)).await.unwrap().absent == [id]
    };
    assert!(absent(place, four).await && !absent(&another, five).await);
    assert!(admitted(&admit(place, 4, &one, 0).await));
    assert!(close(place, 4, &one, 0).await);
    assert!(absent(&another, five).await);
    assert_eq!(used(&another, &one[0], 0).await, 1);
}
