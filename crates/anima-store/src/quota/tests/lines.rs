//! The contract of lines, run against every backend.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anima_core::queue::line::{CLAIM_US, Joined, Joining, NODE_US};
use anima_core::queue::{Line, Waiting};

use super::super::line::{InTurn, call_of};
use super::*;
use crate::pubsub::redis::RedisPubSub;
use crate::pubsub::{Delivery, PubSub};

mod cost; // what a turn costs when many wait
mod fleet; // three nodes and a thousand waiters

/// Everything that a backend promises of its lines.
pub(super) async fn conforms(place: impl AsyncFn() -> Place) {
    what_is_given_back_goes_to_the_next_in_line(&place().await).await;
    a_claim_that_nobody_keeps_goes_to_the_next(&place().await).await;
    who_comes_does_not_overtake(&place().await).await;
    who_does_not_wait_takes_nothing_that_others_wait_for(&place().await).await;
    who_comes_back_has_its_old_place(&place().await).await;
    the_ninth_key_of_an_app_is_served_although_eight_wait_for_their_own(&place().await).await;
    who_comes_back_is_not_too_many(&place().await).await;
    a_turn_does_not_shorten_the_lease_of_a_call_that_runs(&place().await).await;
    for seed in 1..=6 {
        a_random_sequence_is_as_in_the_line(&place().await, (seed, FEW)).await;
        a_random_sequence_is_as_in_the_line(&place().await, (seed, MANY)).await;
    }
}

fn tag(place: &Place) -> Tag {
    Tag::App(Arc::clone(&place.app))
}

fn joining<'a>((id, tenant): (u128, &'a Arc<str>), bounds: &'a [Bound]) -> Joining<'a> {
    Joining {
        id: Uuid::from_u128(id),
        tenant,
        since_us: 0,
        within_us: 60_000_000,
        weight: 1,
        most: 1_000,
        ahead_max: i64::MAX,
        bounds,
    }
}

async fn join(place: &Place, id: u128, (bounds, us): (&[Bound], i64)) -> Joined {
    let tenant = "k1".into();
    place.store.join(&tag(place), joining((id, &tenant), bounds), at(us)).await.unwrap()
}

/// Which of these are not in line.
async fn absent(place: &Place, ids: &[u128], us: i64) -> Vec<u128> {
    let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from_u128(*id)).collect();
    let attended = place.store.attend(&tag(place), &ids, at(us)).await.unwrap();
    attended.absent.iter().map(Uuid::as_u128).collect()
}

async fn what_is_given_back_goes_to_the_next_in_line(place: &Place) {
    let one = [slots(&place.app, Scope::App, 1)];
    assert!(admitted(&admit(place, 1, &one, 0).await));
    for id in 2..=4 {
        let us = i64::try_from(id).unwrap();
        assert_eq!(join(place, id, (&one, us)).await, Joined::Waits(at(us).micros(), None));
    }
    assert!(absent(place, &[2, 3, 4], 5).await.is_empty());
    assert!(close(place, 1, &one, 6).await);
    assert_eq!(absent(place, &[2, 3, 4], 6).await, [2]);
    assert_eq!(used(place, &one[0], 6).await, 1, "it was taken in the same step");
    assert!(admitted(&admit(place, 2, &one, 7).await), "it is the caller's own");
    assert!(!admitted(&admit(place, 9, &one, 7).await));
    assert!(place.store.leave(&tag(place), Uuid::from_u128(3), at(8)).await.unwrap());
    assert!(!place.store.leave(&tag(place), Uuid::from_u128(3), at(8)).await.unwrap(), "once");
    assert!(close(place, 2, &one, 9).await);
    assert_eq!(absent(place, &[3, 4], 9).await, [3, 4]);
    assert!(close(place, 4, &one, 9).await, "what was taken for one that left is given back");
    assert_eq!(used(place, &one[0], 9).await, 0);
}

async fn a_claim_that_nobody_keeps_goes_to_the_next(place: &Place) {
    let one = [slots(&place.app, Scope::App, 1)];
    assert_eq!(join(place, 1, (&one, 0)).await, Joined::Called);
    join(place, 2, (&one, 1)).await;
    assert!(absent(place, &[2], CLAIM_US - 1).await.is_empty());
    assert_eq!(absent(place, &[2], CLAIM_US).await, [2]);
    assert!(admitted(&admit(place, 2, &one, CLAIM_US + 1).await));
    assert!(!admitted(&admit(place, 1, &one, CLAIM_US + 1).await), "it is another's now");
    assert_eq!(used(place, &one[0], CLAIM_US * 3).await, 1, "and kept for a whole lease");
}

async fn who_comes_does_not_overtake(place: &Place) {
    let one = [slots(&place.app, Scope::Key, 1)];
    assert!(admitted(&admit(place, 1, &one, 0).await));
    join(place, 2, (&one, 1)).await;
    let other = [slots(&place.app, Scope::App, 10)];
    let ask = Ask { id: Uuid::from_u128(3), bounds: &other, now: at(2), lease_us: LEASE };
    let said = place.store.admit_in_turn(ask).await.unwrap();
    assert_eq!(said, InTurn::Behind(tag(place)));
    assert_eq!(used(place, &other[0], 2).await, 0);
    // Of another key, it need not wait for what is in the way of the first.
    let tenant = "k2".into();
    let joined = place.store.join(&tag(place), joining((3, &tenant), &other), at(3)).await;
    assert_eq!(joined.unwrap(), Joined::Called);
    assert!(place.store.leave(&tag(place), Uuid::from_u128(2), at(4)).await.unwrap());
    let ask = Ask { id: Uuid::from_u128(4), ..ask };
    let said = place.store.admit_in_turn(ask).await.unwrap();
    assert!(matches!(said, InTurn::Judged(Verdict::Admitted(_))));
}

async fn who_does_not_wait_takes_nothing_that_others_wait_for(place: &Place) {
    let rate = |units| Bound { units, ..rate(&place.app, Scope::App, 60, 3) };
    let own = own(place, slots(&"k9".into(), Scope::Key, 1));
    let ask = async |id, units, us| {
        let bounds = [rate(units), own.clone()];
        let ask = Ask { id: Uuid::from_u128(id), bounds: &bounds, now: at(us), lease_us: LEASE };
        place.store.admit_at_once(ask).await.unwrap()
    };
    assert!(admitted(&ask(1, 2, 0).await));
    assert!(close(place, 1, &[rate(2), own.clone()], 0).await);
    // One of three is left: too little for who waits, enough for who comes.
    assert!(matches!(join(place, 2, (&[rate(3)], 0)).await, Joined::Waits(_, Some(2_000_000))));
    let Verdict::Refused(0, standings) = ask(3, 1, 0).await else { panic!() };
    assert_eq!(standings[0].pass, Pass::After(3_000_000), "after who waits");
    assert_eq!(standings[0].remaining, 1);
    assert!(absent(place, &[2], 1_500_000).await.is_empty());
    let Verdict::Refused(0, _) = ask(3, 1, 1_900_000).await else { panic!() };
    assert_eq!(absent(place, &[2], 2_000_000).await, [2]);
    // What nobody waits for is there for anybody, and so is what comes back when nobody waits.
    assert!(admitted(&admit(place, 2, &[rate(3)], 2_000_000).await));
    assert!(matches!(ask(3, 1, 2_500_000).await, Verdict::Refused(0, _)), "nothing is left");
    assert!(admitted(&ask(3, 1, 3_000_000).await));
    // Nobody has looked for a second: the node of who waits is gone.
    assert!(close(place, 3, &[rate(1), own.clone()], 19_000_000).await);
    assert!(admitted(&ask(4, 2, 20_000_000).await));
    assert!(close(place, 4, &[rate(2), own.clone()], 20_000_000).await);
    assert!(matches!(join(place, 5, (&[rate(3)], 20_000_000)).await, Joined::Waits(..)));
    assert!(matches!(ask(6, 1, 20_900_000).await, Verdict::Refused(0, _)));
    assert!(admitted(&ask(6, 1, 22_200_000).await));
}

async fn who_comes_back_has_its_old_place(place: &Place) {
    let one = [slots(&place.app, Scope::App, 1)];
    assert!(admitted(&admit(place, 1, &one, 0).await));
    join(place, 2, (&one, 1)).await;
    // The node was silent for too long, and somebody else looked.
    assert!(!place.store.leave(&tag(place), Uuid::from_u128(9), at(NODE_US + 1)).await.unwrap());
    assert_eq!(absent(place, &[2], NODE_US + 1).await, [2]);
    join(place, 3, (&one, NODE_US + 2)).await;
    let tenant = "k1".into();
    let back = Joining { since_us: at(1).micros(), ..joining((2, &tenant), &one) };
    let joined = place.store.join(&tag(place), back, at(NODE_US + 3)).await.unwrap();
    assert_eq!(joined, Joined::Waits(at(1).micros(), None));
    assert!(close(place, 1, &one, NODE_US + 4).await);
    assert_eq!(absent(place, &[2, 3], NODE_US + 4).await, [2]);
}

/// A limit of a key's own, under its app's tag.
fn own(place: &Place, bound: Bound) -> Bound {
    Bound { tag: tag(place), ..bound }
}

async fn the_ninth_key_of_an_app_is_served_although_eight_wait_for_their_own(place: &Place) {
    let keys: Vec<Arc<str>> = (1..=40).map(|n| format!("k{n}").into()).collect();
    let (ninth, others) = keys.split_last().unwrap();
    let one = |key| [own(place, slots(key, Scope::Key, 1)), slots(&place.app, Scope::App, 100)];
    for (n, key) in (1..).zip(others) {
        assert!(admitted(&admit(place, n, &one(key), 0).await));
        let joined = place.store.join(&tag(place), joining((100 + n, key), &one(key)), at(1)).await;
        assert_eq!(joined.unwrap(), Joined::Waits(at(1).micros(), None), "for its own");
    }
    let joined = place.store.join(&tag(place), joining((99, ninth), &one(ninth)), at(2)).await;
    assert_eq!(joined.unwrap(), Joined::Called);
    // Whoever comes to wait for its own stands behind them, and is served all the same.
    let joined = place.store.join(&tag(place), joining((199, ninth), &one(ninth)), at(3)).await;
    assert_eq!(joined.unwrap(), Joined::Waits(at(3).micros(), None));
    assert!(close(place, 99, &one(ninth), 4).await);
    assert_eq!(absent(place, &[101, 108, 199], 4).await, [199]);
}

async fn who_comes_back_is_not_too_many(place: &Place) {
    let (one, tenant) = ([slots(&place.app, Scope::App, 1)], "k1".into());
    assert!(admitted(&admit(place, 1, &one, 0).await));
    let narrow = |id| Joining { most: 1, ahead_max: 0, ..joining((id, &tenant), &one) };
    let come = async |asked| place.store.join(&tag(place), asked, at(5)).await.unwrap();
    assert_eq!(come(narrow(2)).await, Joined::Waits(at(5).micros(), None));
    assert_eq!(come(narrow(3)).await, Joined::Full(1));
    let back = Joining { since_us: at(4).micros(), ..narrow(4) };
    assert_eq!(come(back).await, Joined::Waits(at(4).micros(), None));
    assert!(close(place, 1, &one, 6).await);
    assert_eq!(absent(place, &[2, 4], 6).await, [4], "at its old place");
}

/// A call that was admitted while its line could not be asked is in it still.
async fn a_turn_does_not_shorten_the_lease_of_a_call_that_runs(place: &Place) {
    let one = [slots(&place.app, Scope::App, 1)];
    assert!(admitted(&admit(place, 1, &one, 0).await));
    assert_eq!(join(place, 1, (&one, 1)).await, Joined::Called);
    assert_eq!(used(place, &one[0], LEASE - 1).await, 1);
    assert_eq!(used(place, &one[0], LEASE).await, 0);
}

/// Whose calls a random sequence is of: how many keys, the slots of each and those of the app.
#[derive(Clone, Copy)]
struct Crowd {
    keys: u64,
    own_slots: i64,
    slots: i64,
}

/// They wait for what they share.
const FEW: Crowd = Crowd { keys: 4, own_slots: 2, slots: 3 };
/// They wait for their own, more of them than are tried.
const MANY: Crowd = Crowd { keys: 12, own_slots: 1, slots: 11 };

impl Crowd {
    /// What calls of a key ask for: slots of the app and of their own, a rate of their own and one
    /// of the app.
    fn asks(self, place: &Place, (key, units): (&Arc<str>, i64)) -> [Bound; 4] {
        let app = &place.app;
        let own_slots = own(place, slots(key, Scope::Key, self.own_slots));
        let own_rate = own(place, Bound { units, ..rate(key, Scope::Key, 600, 9) });
        let shared = rate(app, Scope::App, 300 * self.slots, 30 * self.slots);
        [slots(app, Scope::App, self.slots), own_slots, own_rate, shared]
    }
}

/// Whether operators are shown those that wait in a line, and a call is told what is ahead of it.
async fn shows(place: &Place, line: &Line, call: (&str, Uuid)) -> bool {
    let all = place.store.waiting().await.unwrap();
    let own = all.into_iter().filter(|one| one.tag == tag(place)).map(|one| one.of);
    let ahead = place.store.ahead(&tag(place), call).await.unwrap();
    own.collect::<Vec<Waiting>>() == line.queue().waiting().collect::<Vec<Waiting>>()
        && ahead == line.queue().ahead(call.0, call.1)
}

/// Whether a call that does not wait is admitted, by the backend as by the line.
async fn passes(place: &Place, (line, book): (&Line, &mut Book), ask: Ask<'_>) -> bool {
    let expected = line.admit(book, ask);
    let said = place.store.admit_at_once(ask).await.unwrap();
    assert_eq!(said, expected, "{}", ask.id);
    admitted(&said)
}

/// Closes a ticket, of the backend as of the line.
async fn ends(
    place: &Place,
    (line, book): (&mut Line, &mut Book),
    (ticket, now): (&Ticket, Timestamp),
) {
    let expected = book.close(ticket.id, &ticket.bounds, now.micros());
    if expected {
        line.hand_off(book, now);
    }
    assert_eq!(place.store.close(ticket, now).await.unwrap(), expected, "{}", ticket.id);
}

/// The same steps by the backend and by the line, which must say the same of each.
async fn a_random_sequence_is_as_in_the_line(place: &Place, (seed, crowd): (u64, Crowd)) {
    let (rng, tag) = (SeededRng::new(seed), tag(place));
    let pick = |most: u64| i64::try_from(rng.next_u64() % most).unwrap();
    let (mut book, mut line, node) = (Book::default(), Line::default(), Uuid::nil());
    let tenants: Vec<Arc<str>> = (0..crowd.keys).map(|n| format!("k{n}").into()).collect();
    let few = |most: u64| usize::try_from(pick(most)).unwrap();
    let (mut now, mut of) = (0, BTreeMap::new());
    let (mut waiting, mut open) = (BTreeSet::new(), BTreeSet::new());
    let all = |tenant: usize, units| crowd.asks(place, (&tenants[tenant], units));
    for step in 1..400_u128 {
        now += pick(if pick(40) == 0 { 6_000_000 } else { 200_000 });
        let (id, tenant) = (Uuid::from_u128(step), few(crowd.keys));
        let bounds = all(tenant, pick(9) + 1);
        of.insert(id, tenant);
        match pick(10) {
            8.. => {
                let ask = Ask { id, bounds: &bounds, now: at(now), lease_us: LEASE };
                if passes(place, (&line, &mut book), ask).await {
                    open.insert(id);
                }
            }
            0..4 => {
                let from = few(3);
                let asked = Joining {
                    since_us: if pick(6) == 0 { at(now - 300_000).micros() } else { 0 },
                    within_us: 500_000 + pick(4_000_000),
                    weight: u32::try_from(pick(3)).unwrap(),
                    most: 6,
                    ahead_max: 4 + pick(3),
                    ..joining((step, &tenants[tenant]), &bounds[from..])
                };
                let (expected, _) = line.join(&mut book, (node, asked), at(now));
                let said = place.store.join(&tag, asked, at(now)).await.unwrap();
                assert_eq!(said, expected, "seed {seed} step {step}");
                match said {
                    Joined::Called => drop(open.insert(id)),
                    Joined::Waits(..) => drop(waiting.insert(id)),
                    Joined::Full(_) | Joined::Vain(_) => {}
                }
            }
            4 => {
                let Some(id) = waiting.iter().nth(few(3)).copied() else { continue };
                let (expected, _) = line.leave(&mut book, id, at(now));
                let said = place.store.leave(&tag, id, at(now)).await.unwrap();
                assert_eq!(said, expected, "seed {seed} step {step}");
                waiting.remove(&id);
            }
            _ => {
                if let Some(id) = open.pop_first() {
                    let ticket = Ticket { id, bounds: all(of[&id], 1)[..2].into() };
                    ends(place, (&mut line, &mut book), (&ticket, at(now))).await;
                }
            }
        }
        let ids: Vec<Uuid> = waiting.iter().copied().collect();
        let (expected, _) = line.attend(&mut book, (node, &ids), at(now));
        let said = place.store.attend(&tag, &ids, at(now)).await.unwrap();
        assert_eq!(said, expected, "seed {seed} step {step}");
        for id in said.absent {
            waiting.remove(&id);
            open.insert(id);
        }
        let asks = (&*tenants[tenant], id);
        assert!(waiting.is_empty() || shows(place, &line, asks).await, "seed {seed} step {step}");
        let running = book.level(&all(0, 1)[0], at(now).micros()).unwrap().used;
        assert!((0..=crowd.slots).contains(&running), "{running} of {}", crowd.slots);
        assert_eq!(used(place, &all(0, 1)[0], now).await, running, "seed {seed} step {step}");
    }
}

#[tokio::test]
async fn lines_of_one_process_keep_the_contract() {
    conforms(async || Place { store: Arc::new(MemoryQuotas::default()), app: "acme".into() }).await;
}

async fn open() -> Option<(anima_simulator::proxy::Proxy, Redis)> {
    let (proxy, url, prefix) = crate::tests::redis_proxy().await?;
    let timeout = Duration::from_secs(20);
    let redis = Redis::open(&url, Options { timeout, prefix, ..Options::default() }).unwrap();
    assert!(redis.ready(Duration::from_secs(5)).await.unwrap());
    Some((proxy, redis))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_in_redis_keep_the_contract() {
    let Some((_proxy, redis)) = open().await else { return };
    let count = std::sync::atomic::AtomicU32::new(0);
    conforms(async || {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let store = Arc::new(RedisQuotas::with_callers_time(redis.clone()));
        Place { store, app: format!("line{n}").into() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_one_node_gives_back_is_the_next_ones_wherever_it_waits() {
    let Some((_proxy, redis)) = open().await else { return };
    let pubsub: Arc<dyn PubSub> = Arc::new(RedisPubSub::new(redis.clone()));
    let node = |n: u128| {
        let own = RedisQuotas::new(redis.clone(), Uuid::from_u128(n), Arc::default());
        Place { store: Arc::new(own.hearing(&pubsub)), app: "acme".into() }
    };
    let (first, second) = (node(1), node(2));
    let mut calls = second.store.calls().await.unwrap();
    let one = [slots(&first.app, Scope::App, 1)];
    assert!(admitted(&admit(&first, 1, &one, 0).await));
    assert!(matches!(join(&second, 2, (&one, 0)).await, Joined::Waits(..)));
    assert!(close(&first, 1, &one, 0).await);
    let called = async {
        loop {
            if let Delivery::Message(id) = calls.next().await {
                return id;
            }
        }
    };
    let id = tokio::time::timeout(Duration::from_secs(5), called).await.expect("a message");
    assert_eq!(call_of(&id), Some((Uuid::from_u128(2), tag(&first))));
    assert_eq!(used(&first, &one[0], 0).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_for_one_that_is_gone_is_the_next_ones_at_once() {
    let Some((_proxy, redis)) = open().await else { return };
    let store = Arc::new(RedisQuotas::with_callers_time(redis));
    let place = &Place { store, app: "acme".into() };
    let both = [slots(&place.app, Scope::App, 1), rate(&place.app, Scope::App, 60, 60)];
    assert!(admitted(&admit(place, 1, &both, 0).await));
    join(place, 2, (&both, 1)).await;
    join(place, 3, (&both, 2)).await;
    assert!(close(place, 1, &both, 3).await);
    assert_eq!(absent(place, &[2, 3], 3).await, [2]);
    assert_eq!(used(place, &both[1], 3).await, 2, "1 and 2");
    let disown = async |id| place.store.disown(&tag(place), Uuid::from_u128(id), at(4)).await;
    disown(2).await.unwrap();
    assert_eq!(absent(place, &[3], 4).await, [3]);
    assert_eq!(used(place, &both[1], 4).await, 2, "1 and 3");
    // Whatever is believed of a call that runs, it keeps what it has; and once it has ended.
    assert!(admitted(&admit(place, 3, &both, 5).await));
    disown(3).await.unwrap();
    assert_eq!(used(place, &both[0], 5).await, 1);
    assert!(close(place, 3, &both, 6).await);
    disown(3).await.unwrap();
    assert_eq!([used(place, &both[0], 6).await, used(place, &both[1], 6).await], [0, 2]);
    // One that waits is out.
    assert!(admitted(&admit(place, 4, &both, 7).await));
    join(place, 5, (&both, 7)).await;
    disown(5).await.unwrap();
    assert_eq!(absent(place, &[5], 7).await, [5]);
    assert_eq!(used(place, &both[0], 7).await, 1);
}
