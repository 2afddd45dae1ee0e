//! The contract of counters, run against every backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::{Rng as _, SeededRng, Timestamp};
use anima_core::config::{LimitKind, OnOutage, Window};
use anima_core::quota::book::{LATE_US, RIPENS_US};
use anima_core::quota::{
    Ask, Book, Bound, Check, Counter, Pass, Rate, RuleName, Scope, Span, Tag, Verdict,
};

use super::memory::MemoryQuotas;
use super::outage::SharedQuotas;
use super::redis::RedisQuotas;
use super::{QuotaStore, Ticket};
use crate::redis::{Options, Redis};

mod lines; // who waits
mod losses; // a Redis that forgets
mod outages; // a Redis that was away

const LEASE: i64 = 30_000_000;
/// When the tests happen.
const NOW: i64 = 4_000_000_000_000_000;

/// Names that no other test uses: the shared server is shared by all.
pub(super) struct Place {
    pub(super) store: Arc<dyn QuotaStore>,
    pub(super) app: Arc<str>,
}

fn at(us: i64) -> Timestamp {
    Timestamp::from_micros(NOW + us)
}

fn bound(app: &Arc<str>, scope: Scope, kind: LimitKind, check: Check) -> Bound {
    let window = (kind != LimitKind::Concurrency).then_some(Window::Minute);
    let rule = RuleName { kind, count: None, window, currency: None, rate: None, shadow: false };
    let tag = match scope {
        Scope::TokenGroup => Tag::TokenGroup(Arc::clone(app)),
        Scope::Key | Scope::App | Scope::Channel => Tag::App(Arc::clone(app)),
    };
    let counter = Counter { scope, code: Arc::clone(app), rule };
    Bound { counter, tag, check, units: 1, on_outage: OnOutage::Share }
}

fn slots(app: &Arc<str>, scope: Scope, limit: i64) -> Bound {
    bound(app, scope, LimitKind::Concurrency, Check::Slots { limit })
}

fn rate(app: &Arc<str>, scope: Scope, limit: i64, burst: i64) -> Bound {
    let rate = Rate { limit, period_us: 60_000_000, burst };
    bound(app, scope, LimitKind::Requests, Check::Rate(rate))
}

fn purse(app: &Arc<str>, scope: Scope, limit: i64, units: i64) -> Bound {
    let span = Span { from: at(0), to: at(3_600_000_000) };
    let check = Check::Purse { limit, span };
    Bound { units, ..bound(app, scope, LimitKind::Cost, check) }
}

async fn admit(place: &Place, id: u128, bounds: &[Bound], us: i64) -> Verdict {
    let ask = Ask { id: Uuid::from_u128(id), bounds, now: at(us), lease_us: LEASE };
    place.store.admit(ask).await.unwrap()
}

async fn close(place: &Place, id: u128, bounds: &[Bound], us: i64) -> bool {
    let ticket = Ticket { id: Uuid::from_u128(id), bounds: bounds.into() };
    place.store.close(&ticket, at(us)).await.unwrap()
}

async fn used(place: &Place, bound: &Bound, us: i64) -> i64 {
    let levels = place.store.levels(std::slice::from_ref(bound), at(us)).await.unwrap();
    levels[0].map_or(-1, |level| level.used)
}

/// Seeds a purse of a key of which no call is under way.
async fn seeded(store: &dyn QuotaStore, purse: &Bound, spent: i64) {
    if let Some(birth) = store.birth(purse, at(0)).await.unwrap() {
        assert!(store.seed(purse, (birth.name, spent)).await.unwrap());
    }
}

fn admitted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Admitted(_))
}

/// Everything that a backend promises.
pub(super) async fn conforms(place: impl AsyncFn() -> Place) {
    a_refusal_leaves_no_trace_under_any_tag(&place().await).await;
    the_same_call_again_takes_nothing_more(&place().await).await;
    a_ticket_is_closed_once_with_what_was_used(&place().await).await;
    a_purse_is_seeded_once(&place().await).await;
    a_purse_ripens_before_the_ledger_is_read_for_it(&place().await).await;
    leases_end_and_are_renewed(&place().await).await;
    more_is_held_of_all_purses_or_of_none(&place().await).await;
    what_is_spent_elsewhere_is_charged_once(&place().await).await;
    a_repair_is_of_what_was_seen(&place().await).await;
    a_random_sequence_is_judged_as_by_the_book(&place().await, 1).await;
    a_random_sequence_is_judged_as_by_the_book(&place().await, 2).await;
    exactly_a_hundred_of_many_pass(&place().await).await;
}

async fn a_refusal_leaves_no_trace_under_any_tag(place: &Place) {
    let app = &place.app;
    let bounds = [
        rate(app, Scope::Key, 10, 10),
        rate(app, Scope::App, 10, 10),
        slots(app, Scope::TokenGroup, 1),
    ];
    assert!(admitted(&admit(place, 1, &bounds, 0).await));
    let Verdict::Refused(n, standings) = admit(place, 2, &bounds, 0).await else { panic!() };
    assert_eq!((n, standings[2].pass), (2, Pass::WhenFree));
    assert_eq!(used(place, &bounds[0], 0).await, 1);
    assert_eq!(used(place, &bounds[1], 0).await, 1);
    assert!(close(place, 1, &bounds, 0).await);
    assert_eq!(used(place, &bounds[2], 0).await, 0);
    assert!(admitted(&admit(place, 2, &bounds, 0).await));
}

async fn the_same_call_again_takes_nothing_more(place: &Place) {
    let bounds = [rate(&place.app, Scope::Key, 10, 10), slots(&place.app, Scope::Key, 1)];
    for _ in 0..3 {
        assert!(admitted(&admit(place, 1, &bounds, 0).await));
    }
    assert_eq!(used(place, &bounds[0], 0).await, 1);
    assert_eq!(used(place, &bounds[1], 0).await, 1);
}

async fn a_ticket_is_closed_once_with_what_was_used(place: &Place) {
    let app = &place.app;
    let bounds = [purse(app, Scope::App, 100, 60), rate(app, Scope::App, 60, 60)];
    seeded(&*place.store, &bounds[0], 0).await;
    assert!(admitted(&admit(place, 1, &bounds, 0).await));
    let actual = [purse(app, Scope::App, 100, 7), Bound { units: 5, ..bounds[1].clone() }];
    assert!(close(place, 1, &actual, 0).await);
    assert!(!close(place, 1, &actual, 0).await);
    assert_eq!(used(place, &bounds[0], 0).await, 7);
    assert_eq!(used(place, &bounds[1], 0).await, 5);
}

async fn a_purse_is_seeded_once(place: &Place) {
    let bounds = [purse(&place.app, Scope::App, 100, 10)];
    assert_eq!(admit(place, 1, &bounds, 0).await, Verdict::Unseeded(vec![0]));
    seeded(&*place.store, &bounds[0], 95).await;
    seeded(&*place.store, &bounds[0], 0).await;
    assert_eq!(used(place, &bounds[0], 0).await, 95);
    assert!(matches!(admit(place, 1, &bounds, 0).await, Verdict::Refused(0, _)));
}

async fn a_purse_ripens_before_the_ledger_is_read_for_it(place: &Place) {
    let (store, money) = (&place.store, purse(&place.app, Scope::App, 100, 10));
    let birth = async |us| store.birth(&money, at(us)).await.unwrap();
    let first = birth(0).await.unwrap();
    assert_eq!(first.wait_us, RIPENS_US);
    let later = birth(LATE_US).await.unwrap();
    assert_eq!((later.name, later.wait_us), (first.name, RIPENS_US - LATE_US));
    assert!(store.put_off(&money).await.unwrap());
    assert!(!store.seed(&money, (first.name, 0)).await.unwrap(), "of its life before");
    let second = birth(LATE_US).await.unwrap();
    assert_eq!(second.wait_us, RIPENS_US);
    assert!(!store.seed(&money, (first.name, 0)).await.unwrap(), "of its life before");
    assert!(!admitted(&admit(place, 1, std::slice::from_ref(&money), LATE_US).await));
    assert_eq!(birth(LATE_US + RIPENS_US).await.unwrap().wait_us, 0);
    assert!(store.seed(&money, (second.name, 60)).await.unwrap());
    assert!(!store.put_off(&money).await.unwrap());
    assert_eq!((birth(LATE_US).await, used(place, &money, 0).await), (None, 60), "it is seeded");
    let span = Span { from: at(3_600_000_000), to: at(7_200_000_000) };
    let next = Bound { check: Check::Purse { limit: 100, span }, ..money.clone() };
    let waits = store.birth(&next, at(3_600_000_000)).await.unwrap().unwrap().wait_us;
    assert_eq!(waits, 0, "its calls have asked for it from the first");
}

async fn leases_end_and_are_renewed(place: &Place) {
    let app = &place.app;
    let bounds = [slots(app, Scope::App, 1), purse(app, Scope::App, 100, 60)];
    seeded(&*place.store, &bounds[1], 0).await;
    assert!(admitted(&admit(place, 1, &bounds, 0).await));
    let ticket = Ticket { id: Uuid::from_u128(1), bounds: bounds.as_slice().into() };
    place.store.renew(&[ticket], at(LEASE - 1), LEASE).await.unwrap();
    let small = [slots(app, Scope::App, 1), purse(app, Scope::App, 100, 30)];
    assert!(!admitted(&admit(place, 2, &small, LEASE + 1).await));
    assert!(admitted(&admit(place, 2, &small, LEASE * 2).await), "the slot came back");
    assert_eq!(used(place, &bounds[1], LEASE * 2).await, 90, "the money did not");
    assert!(close(place, 1, &[bounds[0].clone(), purse(app, Scope::App, 100, 5)], LEASE * 2).await);
    assert_eq!(used(place, &bounds[1], LEASE * 2).await, 35);
}

async fn extend(place: &Place, id: u128, bounds: &[Bound], us: i64) -> Verdict {
    let ask = Ask { id: Uuid::from_u128(id), bounds, now: at(us), lease_us: LEASE };
    place.store.extend(ask).await.unwrap()
}

async fn more_is_held_of_all_purses_or_of_none(place: &Place) {
    let app = &place.app;
    let bounds =
        |units| [purse(app, Scope::App, 100, units), purse(app, Scope::TokenGroup, 60, units)];
    assert!(matches!(extend(place, 1, &bounds(5), 0).await, Verdict::Unseeded(_)));
    for purse in &bounds(0) {
        seeded(&*place.store, purse, 0).await;
    }
    assert!(admitted(&admit(place, 1, &bounds(20), 0).await));
    for _ in 0..2 {
        assert!(admitted(&extend(place, 1, &bounds(50), 0).await));
    }
    // The app's purse would give it, the group's does not.
    let Verdict::Refused(n, standings) = extend(place, 1, &bounds(61), 0).await else { panic!() };
    assert_eq!((n, standings[1].remaining), (1, 10));
    assert_eq!(
        (used(place, &bounds(0)[0], 0).await, used(place, &bounds(0)[1], 0).await),
        (50, 50)
    );
    assert!(admitted(&extend(place, 1, &bounds(30), 0).await), "less is always allowed");
    // One that nobody knows takes all of it anew.
    assert!(admitted(&extend(place, 2, &bounds(30), 0).await));
    assert!(close(place, 1, &bounds(7), 0).await);
    assert!(close(place, 2, &bounds(1), 0).await);
    assert_eq!((used(place, &bounds(0)[0], 0).await, used(place, &bounds(0)[1], 0).await), (8, 8));
}

async fn what_is_spent_elsewhere_is_charged_once(place: &Place) {
    let money = purse(&place.app, Scope::App, 100, 30);
    let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert!(!place.store.charge(&money, first).await.unwrap(), "its seed will know");
    seeded(&*place.store, &money, 10).await;
    assert!(place.store.charge(&money, first).await.unwrap());
    assert!(!place.store.charge(&money, first).await.unwrap(), "once");
    assert!(place.store.charge(&money, second).await.unwrap());
    assert_eq!(used(place, &money, 0).await, 70);
}

async fn a_repair_is_of_what_was_seen(place: &Place) {
    let money = purse(&place.app, Scope::App, 100, 10);
    assert_eq!(place.store.look(&money, at(0)).await.unwrap(), None);
    seeded(&*place.store, &money, 50).await;
    let bounds = [money.clone()];
    assert!(admitted(&admit(place, 1, &bounds, 0).await));
    let seen = place.store.look(&money, at(0)).await.unwrap().unwrap();
    assert_eq!((seen.spent, seen.holds.as_slice()), (50, &[Uuid::from_u128(1)][..]));
    assert!(place.store.repair(&money, (seen.mended, -30)).await.unwrap());
    assert!(!place.store.repair(&money, (seen.mended, -30)).await.unwrap(), "once");
    assert_eq!(used(place, &money, 0).await, 30);
    let seen = place.store.look(&money, at(0)).await.unwrap().unwrap();
    assert!(place.store.charge(&money, Uuid::from_u128(9)).await.unwrap());
    assert!(!place.store.repair(&money, (seen.mended, 5)).await.unwrap(), "charged since");
    // A hold that has expired is spent.
    let seen = place.store.look(&money, at(LEASE)).await.unwrap().unwrap();
    assert_eq!((seen.spent, seen.holds.len()), (40, 0));
}

/// The same steps by the backend and by the book, which must say the same of each.
async fn a_random_sequence_is_judged_as_by_the_book(place: &Place, seed: u64) {
    let (rng, app) = (SeededRng::new(seed), &place.app);
    let pick = |most: u64| i64::try_from(rng.next_u64() % most).unwrap();
    let mut book = Book::default();
    let (mut now, mut open) = (0, BTreeMap::new());
    let money = purse(app, Scope::App, 500, 0);
    seeded(&*place.store, &money, 20).await;
    let Check::Purse { span, .. } = money.check else { panic!() };
    book.seed(&money.counter, span, 20);
    for step in 0..300_u128 {
        now += pick(3_000_000);
        let bounds = [
            rate(app, Scope::Key, 30, 5),
            Bound { units: pick(70), ..rate(app, Scope::App, 100, 90) },
            slots(app, Scope::App, 4),
            purse(app, Scope::App, 500, pick(40)),
        ];
        if pick(3) > 0 {
            let ask =
                Ask { id: Uuid::from_u128(step), bounds: &bounds, now: at(now), lease_us: LEASE };
            let expected = book.admit(ask);
            assert_eq!(admit(place, step, &bounds, now).await, expected, "step {step}");
            if admitted(&expected) {
                open.insert(step, bounds.clone());
            }
        } else if pick(2) > 0
            && let Some((id, bounds)) = open.first_key_value()
        {
            let more = [Bound { units: pick(60), ..bounds[3].clone() }];
            let ask =
                Ask { id: Uuid::from_u128(*id), bounds: &more, now: at(now), lease_us: LEASE };
            let expected = book.extend(ask);
            assert_eq!(extend(place, *id, &more, now).await, expected, "step {step}");
        } else if pick(4) == 0
            && let Some((id, mut bounds)) = open.pop_first()
        {
            for bound in &mut bounds {
                bound.units = 0;
            }
            let ticket = Ticket { id: Uuid::from_u128(id), bounds: bounds.as_slice().into() };
            book.close(ticket.id, &ticket.bounds, at(now).micros());
            place.store.undo(&ticket, at(now)).await.unwrap();
        } else if let Some((id, mut bounds)) = open.pop_first() {
            bounds[1].units = pick(90);
            bounds[3].units = pick(40);
            let expected = book.close(Uuid::from_u128(id), &bounds, at(now).micros());
            assert_eq!(close(place, id, &bounds, now).await, expected, "step {step}");
        }
        for bound in [&bounds[0], &bounds[1], &bounds[2], &bounds[3]] {
            let expected = book.level(bound, at(now).micros());
            let levels = place.store.levels(std::slice::from_ref(bound), at(now)).await.unwrap();
            assert_eq!(levels[0], expected, "step {step}: {:?}", bound.counter.rule);
        }
    }
}

/// How many calls race. The whole number by `ANIMA_TEST_RACE`, as the issue has it: 10000.
fn racers() -> u128 {
    crate::tests::variable("ANIMA_TEST_RACE").and_then(|n| n.parse().ok()).unwrap_or(1_000)
}

/// How often they race. The whole number by `ANIMA_TEST_RACE_ROUNDS`, as the issue has it: 100.
fn rounds() -> u32 {
    crate::tests::variable("ANIMA_TEST_RACE_ROUNDS").and_then(|n| n.parse().ok()).unwrap_or(1)
}

async fn exactly_a_hundred_of_many_pass(place: &Place) {
    let bounds =
        [purse(&place.app, Scope::App, 1_000, 10), slots(&place.app, Scope::App, 1_000_000)];
    seeded(&*place.store, &bounds[0], 0).await;
    let bounds: Arc<[Bound]> = bounds.as_slice().into();
    let calls = (0..racers()).map(|id| {
        let (store, bounds) = (Arc::clone(&place.store), Arc::clone(&bounds));
        tokio::spawn(async move {
            let (id, now) = (Uuid::from_u128(id), at(0));
            let ask = Ask { id, bounds: &bounds, now, lease_us: LEASE };
            admitted(&store.admit(ask).await.unwrap())
        })
    });
    let calls: Vec<_> = calls.collect();
    let mut passed = 0;
    for call in calls {
        passed += u32::from(call.await.unwrap());
    }
    assert_eq!(passed, 100);
    assert_eq!(used(place, &bounds[0], 0).await, 1_000);
    assert_eq!(used(place, &bounds[1], 0).await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_of_one_process_keep_the_contract() {
    conforms(async || Place { store: Arc::new(MemoryQuotas::default()), app: "acme".into() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_in_redis_keep_the_contract() {
    let Some((url, prefix)) = crate::tests::redis() else { return };
    // A thousand at once on a busy machine wait for longer than a node may.
    let timeout = std::time::Duration::from_mins(1);
    let redis = Redis::open(&url, Options { timeout, prefix, ..Options::default() }).unwrap();
    assert!(redis.ready(std::time::Duration::from_secs(5)).await.unwrap());
    let count = std::sync::atomic::AtomicU32::new(0);
    conforms(async || {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let store = Arc::new(RedisQuotas::with_callers_time(redis.clone()));
        Place { store, app: format!("app{n}").into() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_nodes_pass_exactly_a_hundred_together() {
    let Some((url, prefix)) = crate::tests::redis() else { return };
    let mut nodes: Vec<Arc<dyn QuotaStore>> = vec![];
    for node in 1..=3 {
        let timeout = std::time::Duration::from_mins(1);
        let options = Options { timeout, prefix: prefix.clone(), ..Options::default() };
        let redis = Redis::open(&url, options).unwrap();
        assert!(redis.ready(std::time::Duration::from_secs(5)).await.unwrap());
        let all = Arc::new(RedisQuotas::new(redis, Uuid::from_u128(node), Arc::default()));
        nodes.push(Arc::new(SharedQuotas::new(all, Uuid::from_u128(node), Arc::default())));
    }
    for round in 0..rounds() {
        let app: Arc<str> = format!("app{round}").into();
        let bounds: Arc<[Bound]> = [purse(&app, Scope::App, 1_000, 10)].into();
        seeded(&*nodes[0], &bounds[0], 0).await;
        let calls = (0..racers()).map(|id| {
            let node = usize::try_from(id % 3).unwrap();
            let (store, bounds) = (Arc::clone(&nodes[node]), Arc::clone(&bounds));
            tokio::spawn(async move {
                let ask =
                    Ask { id: Uuid::from_u128(id), bounds: &bounds, now: at(0), lease_us: LEASE };
                admitted(&store.admit(ask).await.unwrap())
            })
        });
        let calls: Vec<_> = calls.collect();
        let mut passed = 0;
        for call in calls {
            passed += u32::from(call.await.unwrap());
        }
        assert_eq!(passed, 100, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_is_alone_enforces_its_share() {
    let Some((proxy, url, prefix)) = crate::tests::redis_proxy().await else { return };
    let options = Options { prefix, failures_max: 1, ..Options::default() };
    let redis = Redis::open(&url, options).unwrap();
    assert!(redis.ready(std::time::Duration::from_secs(5)).await.unwrap());
    let nodes = Arc::new(std::sync::atomic::AtomicI64::new(1));
    for node in [1, 2] {
        let other = RedisQuotas::new(redis.clone(), Uuid::from_u128(node), Arc::default());
        other.renew(&[], at(0), LEASE).await.unwrap();
    }
    let own = RedisQuotas::new(redis, Uuid::from_u128(3), Arc::clone(&nodes));
    own.renew(&[], at(0), LEASE).await.unwrap();
    assert_eq!(nodes.load(std::sync::atomic::Ordering::Relaxed), 3);
    let store = SharedQuotas::new(Arc::new(own), Uuid::from_u128(3), nodes);
    let place = Place { store: Arc::new(store), app: "acme".into() };
    let app = &place.app;
    let bounds = |n: i64| [slots(app, Scope::App, 6), purse(app, Scope::App, 100, n)];
    seeded(&*place.store, &bounds(0)[1], 40).await;
    assert!(admitted(&admit(&place, 1, &bounds(1), 0).await));
    proxy.set(anima_simulator::proxy::Mode::Cut);
    // The ledger says that 41 are spent: of the 59 that are left, 19 are this node's.
    assert_eq!(admit(&place, 2, &bounds(10), 0).await, Verdict::Unseeded(vec![1]));
    seeded(&*place.store, &bounds(0)[1], 41).await;
    assert!(admitted(&admit(&place, 2, &bounds(10), 0).await));
    assert!(!admitted(&admit(&place, 3, &bounds(10), 0).await), "the budget's share is used up");
    assert!(admitted(&admit(&place, 3, &bounds(9), 0).await));
    assert!(!admitted(&admit(&place, 4, &bounds(0), 0).await), "two of six at a time");
    let free = Bound { on_outage: OnOutage::Open, ..slots(app, Scope::Key, 0) };
    assert!(admitted(&admit(&place, 5, &[free], 0).await));
    let closed = Bound { on_outage: OnOutage::Closed, ..slots(app, Scope::Key, 9) };
    assert!(!admitted(&admit(&place, 6, &[closed], 0).await));
}

/// A Redis that was flushed knows only of the nodes that have said since that they live.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_share_is_by_the_nodes_that_the_database_knows() {
    let Some((proxy, url, prefix)) = crate::tests::redis_proxy().await else { return };
    let options = Options { prefix, failures_max: 1, ..Options::default() };
    let redis = Redis::open(&url, options).unwrap();
    assert!(redis.ready(std::time::Duration::from_secs(5)).await.unwrap());
    let nodes = Arc::new(std::sync::atomic::AtomicI64::new(1));
    let all = Arc::new(RedisQuotas::new(redis, Uuid::from_u128(1), Arc::clone(&nodes)));
    let store = SharedQuotas::new(all, Uuid::from_u128(1), nodes);
    let place = Place { store: Arc::new(store), app: "acme".into() };
    proxy.set(anima_simulator::proxy::Mode::Cut);
    place.store.shared_by(3);
    let bounds = |n: i64| [slots(&place.app, Scope::App, 6), purse(&place.app, Scope::App, 100, n)];
    seeded(&*place.store, &bounds(0)[1], 40).await;
    assert!(admitted(&admit(&place, 1, &bounds(20), 0).await), "a third of the 60 that are left");
    assert!(!admitted(&admit(&place, 2, &bounds(1), 0).await));
    assert!(admitted(&admit(&place, 2, &bounds(0), 0).await));
    assert!(!admitted(&admit(&place, 3, &bounds(0), 0).await), "two of six at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_node_spends_alone_is_charged_when_redis_is_back() {
    let Some((proxy, url, prefix)) = crate::tests::redis_proxy().await else { return };
    let options = Options { prefix, failures_max: 1, ..Options::default() };
    let redis = Redis::open(&url, options).unwrap();
    assert!(redis.ready(std::time::Duration::from_secs(5)).await.unwrap());
    let all = Arc::new(RedisQuotas::new(redis.clone(), Uuid::from_u128(1), Arc::default()));
    let store =
        Arc::new(SharedQuotas::new(Arc::clone(&all) as _, Uuid::from_u128(1), Arc::default()));
    let place = Place { store, app: "acme".into() };
    let money = |units| [purse(&place.app, Scope::App, 100, units)];
    seeded(&*place.store, &money(0)[0], 10).await;
    proxy.set(anima_simulator::proxy::Mode::Cut);
    assert_eq!(admit(&place, 1, &money(30), 0).await, Verdict::Unseeded(vec![0]));
    seeded(&*place.store, &money(0)[0], 10).await;
    // One call ends while Redis is away, another after it came back.
    assert!(admitted(&admit(&place, 1, &money(30), 0).await));
    assert!(admitted(&admit(&place, 2, &money(20), 0).await));
    assert!(close(&place, 1, &money(25), 0).await);
    proxy.set(anima_simulator::proxy::Mode::Open);
    assert!(redis.ready(std::time::Duration::from_secs(5)).await.unwrap());
    let shared = Place { store: all, app: Arc::clone(&place.app) };
    for _ in 0..200 {
        place.store.reconcile(at(0), LEASE).await;
        if used(&shared, &money(0)[0], 0).await == 55 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(used(&shared, &money(0)[0], 0).await, 55, "25 spent and 20 held, beside the 10");
    assert!(close(&place, 2, &money(5), 0).await);
    assert_eq!(used(&shared, &money(0)[0], 0).await, 40);
}
