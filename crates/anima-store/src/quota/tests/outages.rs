//! What shared counters know of a node's calls after an outage.

use std::time::Duration;

use anima_core::queue::line::{Joined, Joining};
use anima_simulator::proxy::{Mode, Proxy};
use futures_util::FutureExt as _;

use super::super::line::InTurn;
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

    /// What a call holds that Redis admitted under one tag while its answers got lost, and that its
    /// node refused then: 80 of 100 are spent, as the ledger says to the node alone.
    async fn refused_alone(&self, id: u128) {
        self.seed(10).await;
        // Redis knows the scripts.
        assert!(admitted(&admit(&self.place, 99, &self.bounds(1), 0).await));
        assert!(close(&self.place, 99, &self.bounds(0), 0).await);
        self.proxy.set(Mode::Deaf);
        assert!(!admitted(&admit(&self.place, id, &self.bounds(30), 0).await), "not seeded");
        self.seed(80).await;
        let refused = admit(&self.place, id, &self.bounds(30), 0).await;
        assert!(matches!(refused, Verdict::Refused(..)), "{refused:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_refused_while_answers_get_lost_leaves_no_trace() {
    let Some(node) = Node::start().await else { return };
    node.refused_alone(1).await;
    node.is_back().await;
    assert_eq!(node.known().await, [1, 40, 10], "Redis had done it");
    node.reconciled([0, 10, 10]).await;
    // It may come again.
    assert!(admitted(&admit(&node.place, 1, &node.bounds(30), 0).await));
    node.reconciled([1, 40, 40]).await;
    assert!(close(&node.place, 1, &node.bounds(25), 0).await);
    node.reconciled([0, 35, 35]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_comes_again_when_redis_is_back_keeps_what_it_takes_then() {
    let Some(node) = Node::start().await else { return };
    node.refused_alone(1).await;
    node.is_back().await;
    assert!(admitted(&admit(&node.place, 1, &node.bounds(30), 0).await));
    node.reconciled([1, 40, 40]).await;
    assert!(close(&node.place, 1, &node.bounds(25), 0).await);
    node.reconciled([0, 35, 35]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_refused_and_then_admitted_alone_is_charged_once() {
    let Some(node) = Node::start().await else { return };
    node.refused_alone(1).await;
    assert!(admitted(&admit(&node.place, 1, &node.bounds(20), 0).await));
    node.is_back().await;
    assert_eq!(node.known().await, [1, 40, 10]);
    node.reconciled([1, 30, 30]).await;
    assert!(close(&node.place, 1, &node.bounds(15), 0).await);
    node.reconciled([0, 25, 25]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_waits_behind_others_alone_leaves_no_trace_either() {
    let Some(node) = Node::start().await else { return };
    let (place, one) = (&node.place, [slots(&node.place.app, Scope::App, 1)]);
    let in_turn = async |id| {
        let ask = Ask { id: Uuid::from_u128(id), bounds: &one, now: at(0), lease_us: LEASE };
        place.store.admit_in_turn(ask).await.unwrap()
    };
    assert!(matches!(in_turn(9).await, InTurn::Judged(Verdict::Admitted(_))));
    assert!(close(place, 9, &one, 0).await);
    node.proxy.set(Mode::Deaf);
    // The answer to 2 is lost, and it learns of that when 1 runs and 3 waits, both by the share.
    let mut second = std::pin::pin!(in_turn(2));
    assert!((&mut second).now_or_never().is_none());
    assert!(matches!(in_turn(1).await, InTurn::Judged(Verdict::Admitted(_))));
    assert!(matches!(waits(place, 3).await, Joined::Waits(..)));
    let tag = Tag::App(Arc::clone(&place.app));
    assert_eq!(second.await, InTurn::Behind(tag.clone()));
    assert!(place.store.leave(&tag, Uuid::from_u128(3), at(0)).await.unwrap());
    assert!(close(place, 1, &one, 0).await);
    node.is_back().await;
    assert_eq!(used(&node.shared, &one[0], 0).await, 1, "Redis had done it");
    for _ in 0..200 {
        place.store.reconcile(at(0), LEASE).await;
        if used(&node.shared, &one[0], 0).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a slot is held for nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_taken_back_may_be_told_of_and_what_has_ended_may_not() {
    let Some(node) = Node::start().await else { return };
    node.seed(10).await;
    let (store, bounds) = (&node.shared.store, node.bounds(30));
    let ticket = |units| Ticket { id: Uuid::from_u128(1), bounds: node.bounds(units).into() };
    let told = async || {
        store.renew(&[ticket(30)], at(0), LEASE).await.unwrap();
        let ask = Ask { id: Uuid::from_u128(1), bounds: &bounds[1..], now: at(0), lease_us: LEASE };
        assert!(admitted(&store.extend(ask).await.unwrap()));
        node.known().await
    };
    assert!(admitted(&admit(&node.shared, 1, &bounds, 0).await));
    for _ in 0..2 {
        store.undo(&ticket(0), at(0)).await.unwrap();
        assert_eq!(node.known().await, [0, 10, 10]);
    }
    assert_eq!(told().await, [1, 40, 40]);
    assert!(close(&node.shared, 1, &node.bounds(25), 0).await);
    store.undo(&ticket(0), at(0)).await.unwrap();
    assert_eq!(told().await, [0, 35, 35]);
}
