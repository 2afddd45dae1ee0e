//! The contract of tasks, run against both databases.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::money::Currency;
use anima_core::task::State;

use super::{Accepted, Claim, Claimed, Created, Ending, Filter};
use crate::database::{Location, Opener, Stores, TaskStores, open};
use crate::ledger::BatchObserver;

const NOW: Timestamp = Timestamp::from_micros(4_000_000_000_000_000);

#[derive(Debug)]
struct Deaf;

impl BatchObserver for Deaf {
    fn committed(&self, _holds: usize, _settlements: usize, _seconds: f64) {}
    fn failed(&self) {}
}

fn later(ms: i64) -> Timestamp {
    NOW.plus_millis(ms)
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// Task `n` of key `kid`, which waits for an hour.
fn accepted(n: u128, kid: &str) -> Accepted {
    Accepted {
        id: id(n),
        kid: kid.into(),
        app: "acme".into(),
        endpoint: "chat_completions",
        alias: "chat".into(),
        currency: Currency::USD,
        request: vec![7; 3],
        key_hash: None,
        content_hash: [1; 32],
        webhook: None,
        at: NOW,
        expires_at: later(3_600_000),
        most: 1_000,
    }
}

fn claim(node: u128, at: Timestamp, most: u32) -> Claim {
    let lease_until = at.plus_millis(30_000);
    Claim { node: id(node), now: at, lease_until, most, skip: vec![] }
}

fn ending(state: State) -> Ending {
    Ending {
        state,
        result: Some(b"answer".to_vec()),
        error: (state != State::Succeeded).then(|| ("code".to_owned(), "why".to_owned())),
        refund: false,
        at: NOW,
        keep_until: later(86_400_000),
    }
}

async fn stored(stores: &TaskStores, task: Accepted) {
    assert_eq!(stores.tasks.create(task).await.unwrap(), Created::Fresh);
}

async fn claimed(stores: &TaskStores, claim: Claim) -> Vec<Claimed> {
    stores.queue.claim(claim).await.unwrap()
}

async fn state(stores: &TaskStores, n: u128) -> State {
    stores.tasks.task(id(n)).await.unwrap().unwrap().state
}

/// Claims and ends until nothing is open; gives what it claimed.
async fn drain(stores: TaskStores, node: u128) -> Vec<Uuid> {
    let mut all = Vec::new();
    while !stores.upkeep.open().await.unwrap().is_empty() {
        for task in claimed(&stores, claim(node, NOW, 4)).await {
            let done = ending(State::Succeeded);
            assert!(stores.queue.end(task.id, task.run, done).await.unwrap());
            all.push(task.id);
        }
    }
    all
}

/// The rules, under a name that the tests can have.
mod rules {
    use super::*;

    pub(super) async fn a_task_is_stored_claimed_begun_and_ended(stores: TaskStores) {
        stored(&stores, accepted(1, "a")).await;
        let [mine] = &claimed(&stores, claim(1, NOW, 10)).await[..] else { panic!("one") };
        assert_eq!(
            (mine.id, mine.run, &*mine.kid, &mine.request[..]),
            (id(1), 1, "a", &[7; 3][..])
        );
        assert!(claimed(&stores, claim(2, NOW, 10)).await.is_empty(), "it is somebody's");
        assert!(stores.queue.begin(id(1), 1, id(99)).await.unwrap());
        assert!(!stores.queue.begin(id(1), 1, id(98)).await.unwrap(), "once");
        assert_eq!(state(&stores, 1).await, State::Submitting);
        assert!(stores.queue.end(id(1), 1, ending(State::Succeeded)).await.unwrap());
        assert!(!stores.queue.end(id(1), 1, ending(State::Failed)).await.unwrap(), "once");
        let task = stores.tasks.task(id(1)).await.unwrap().unwrap();
        assert_eq!((task.state, task.call, task.error), (State::Succeeded, Some(id(99)), None));
        assert_eq!(stores.tasks.result(id(1)).await.unwrap().as_deref(), Some(&b"answer"[..]));
        assert_eq!(stores.tasks.task(id(2)).await.unwrap(), None);
    }

    pub(super) async fn many_workers_claim_each_task_once(stores: TaskStores) {
        for n in 1..=60 {
            stored(&stores, accepted(n, &format!("k{}", n % 3))).await;
        }
        let workers: Vec<_> =
            (1..=8_u128).map(|node| tokio::spawn(drain(stores.clone(), node))).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.await.unwrap());
        }
        assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (60, 60));
    }

    pub(super) async fn keys_take_turns_and_what_they_have_running_counts(stores: TaskStores) {
        for n in 1..=20 {
            stored(&stores, accepted(n, "flood")).await;
        }
        stored(&stores, accepted(30, "b")).await;
        stored(&stores, accepted(31, "c")).await;
        let first = claimed(&stores, claim(1, NOW, 4)).await;
        let kids: BTreeSet<_> = first.iter().map(|task| &*task.kid).collect();
        assert_eq!((first.len(), kids), (4, BTreeSet::from(["flood", "b", "c"])));
        // Two of the flood run: whoever comes now goes first.
        stored(&stores, Accepted { at: later(1), ..accepted(32, "d") }).await;
        let next = claimed(&stores, claim(1, later(2), 1)).await;
        assert_eq!(next[0].id, id(32));
        let skip = vec!["flood".to_owned()];
        let none = claimed(&stores, Claim { skip, ..claim(1, later(2), 4) }).await;
        assert!(none.is_empty());
    }

    pub(super) async fn a_dead_worker_before_the_mark_is_replaced_and_fenced(stores: TaskStores) {
        stored(&stores, accepted(1, "a")).await;
        claimed(&stores, claim(1, NOW, 1)).await;
        assert!(claimed(&stores, claim(2, later(29_999), 1)).await.is_empty());
        stores.queue.renew(id(1), later(40_000)).await.unwrap();
        assert!(claimed(&stores, claim(2, later(39_999), 1)).await.is_empty());
        assert!(stores.upkeep.orphans(later(60_000)).await.unwrap().is_empty());
        let again = claimed(&stores, claim(2, later(40_000), 1)).await;
        assert_eq!(again[0].run, 2);
        // The first one wakes up.
        assert!(!stores.queue.begin(id(1), 1, id(9)).await.unwrap());
        assert!(!stores.queue.give_back(id(1), 1, NOW).await.unwrap());
        assert!(!stores.queue.end(id(1), 1, ending(State::Failed)).await.unwrap());
        stores.queue.renew(id(1), later(900_000)).await.unwrap();
        assert!(stores.queue.begin(id(1), 2, id(10)).await.unwrap());
        assert!(stores.queue.end(id(1), 2, ending(State::Succeeded)).await.unwrap());
    }

    pub(super) async fn after_the_mark_a_task_is_an_orphan_and_never_claimed(stores: TaskStores) {
        stored(&stores, accepted(1, "a")).await;
        claimed(&stores, claim(1, NOW, 1)).await;
        stores.queue.begin(id(1), 1, id(9)).await.unwrap();
        assert!(stores.upkeep.orphans(later(29_999)).await.unwrap().is_empty());
        let [orphan] = &stores.upkeep.orphans(later(30_000)).await.unwrap()[..] else {
            panic!("one")
        };
        assert_eq!((orphan.call, orphan.run, orphan.state), (id(9), 1, State::Unknown));
        assert_eq!(orphan.hold, None);
        assert!(claimed(&stores, claim(2, later(90_000), 1)).await.is_empty());
        assert!(!stores.queue.give_back(id(1), 1, NOW).await.unwrap());
        assert!(!stores.tasks.cancel(id(1), ending(State::Cancelled)).await.unwrap());
        // Whoever knows may still say it, once.
        let lost = Ending { refund: true, ..ending(State::Failed) };
        assert!(stores.queue.end(id(1), 1, lost).await.unwrap());
        assert!(!stores.queue.end(id(1), 1, ending(State::Succeeded)).await.unwrap());
        let [due] = &stores.upkeep.refunds(None).await.unwrap()[..] else { panic!("one") };
        assert_eq!((due.id, due.call, &*due.app), (id(1), id(9), "acme"));
        stores.upkeep.refunded(id(1)).await.unwrap();
        assert!(stores.upkeep.refunds(None).await.unwrap().is_empty());
    }

    pub(super) async fn what_is_given_back_is_run_again_when_it_is_due(stores: TaskStores) {
        stored(&stores, accepted(1, "a")).await;
        claimed(&stores, claim(1, NOW, 1)).await;
        stores.queue.begin(id(1), 1, id(9)).await.unwrap();
        // The worker knows that nothing was sent after all.
        assert!(stores.queue.give_back(id(1), 1, later(5_000)).await.unwrap());
        assert!(claimed(&stores, claim(1, later(4_999), 1)).await.is_empty());
        assert_eq!(claimed(&stores, claim(1, later(5_000), 1)).await[0].run, 2);
    }

    pub(super) async fn one_idempotency_key_makes_one_task(stores: TaskStores) {
        let keyed = |n| Accepted { key_hash: Some([5; 32]), ..accepted(n, "a") };
        let tasks: Vec<_> = (1..=50_u128)
            .map(|n| {
                let stores = stores.clone();
                tokio::spawn(async move { stores.tasks.create(keyed(n)).await.unwrap() })
            })
            .collect();
        let (mut fresh, mut known) = (0, BTreeSet::new());
        for task in tasks {
            match task.await.unwrap() {
                Created::Fresh => fresh += 1,
                Created::Known { id, content_hash } => {
                    assert_eq!(content_hash, [1; 32]);
                    known.insert(id);
                }
                Created::Full => panic!("there is room"),
            }
        }
        assert_eq!((fresh, known.len()), (1, 1));
        let other = Accepted { kid: "b".into(), ..keyed(60) };
        assert_eq!(stores.tasks.create(other).await.unwrap(), Created::Fresh);
    }

    pub(super) async fn a_key_has_so_many_waiting_and_others_do_not_count(stores: TaskStores) {
        let small = |n, kid| Accepted { most: 2, ..accepted(n, kid) };
        stored(&stores, small(1, "a")).await;
        stored(&stores, small(2, "a")).await;
        assert_eq!(stores.tasks.create(small(3, "a")).await.unwrap(), Created::Full);
        stored(&stores, small(4, "b")).await;
        claimed(&stores, claim(1, NOW, 3)).await;
        stores.queue.begin(id(1), 1, id(9)).await.unwrap();
        stored(&stores, small(5, "a")).await;
    }

    pub(super) async fn no_more_of_many_at_once_are_stored_than_may(stores: TaskStores) {
        let small = |n| Accepted { most: 5, ..accepted(n, "a") };
        let create = |n| {
            let tasks = Arc::clone(&stores.tasks);
            tokio::spawn(async move { tasks.create(small(n)).await.unwrap() })
        };
        let all: Vec<_> = (1..=40).map(create).collect();
        let mut fresh = 0;
        for created in all {
            fresh += u32::from(created.await.unwrap() == Created::Fresh);
        }
        assert_eq!(fresh, 5);
    }

    pub(super) async fn what_was_not_sent_can_be_cancelled_and_expires(stores: TaskStores) {
        for n in 1..=4 {
            stored(&stores, accepted(n, if n < 4 { "a" } else { "b" })).await;
        }
        assert!(stores.tasks.cancel(id(1), ending(State::Cancelled)).await.unwrap());
        assert!(!stores.tasks.cancel(id(1), ending(State::Cancelled)).await.unwrap());
        // Of what a worker has and has not begun, the worker is told at its mark.
        let taken = claimed(&stores, claim(1, NOW, 1)).await;
        assert!(stores.tasks.cancel(taken[0].id, ending(State::Cancelled)).await.unwrap());
        assert!(!stores.queue.begin(taken[0].id, 1, id(9)).await.unwrap());
        let cancelled = ending(State::Cancelled);
        assert_eq!(stores.upkeep.cancel_of("a", cancelled.clone()).await.unwrap(), 1);
        assert_eq!(stores.upkeep.cancel_of("a", cancelled).await.unwrap(), 0);
        let expired = Ending { at: later(3_600_000), ..ending(State::Expired) };
        let early = Ending { at: later(3_599_999), ..expired.clone() };
        assert_eq!(stores.upkeep.expire(early).await.unwrap(), 0);
        assert!(claimed(&stores, claim(1, later(3_600_000), 9)).await.is_empty());
        assert_eq!(stores.upkeep.expire(expired).await.unwrap(), 1);
        assert!(stores.upkeep.open().await.unwrap().is_empty());
    }

    pub(super) async fn a_key_lists_its_own_youngest_first(stores: TaskStores) {
        for n in 1..=5 {
            stored(&stores, accepted(n, if n == 3 { "b" } else { "a" })).await;
        }
        let of = |kid: &str| Filter { kid: Some(kid.to_owned()), limit: 2, ..Filter::default() };
        let ids = async |filter: Filter| {
            let tasks = stores.tasks.list(filter).await.unwrap();
            tasks.iter().map(|task| task.id.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(ids(of("a")).await, [5, 4]);
        assert_eq!(ids(Filter { before: Some(id(4)), ..of("a") }).await, [2, 1]);
        assert_eq!(ids(Filter { state: Some(State::Failed), ..of("a") }).await, [0_u128; 0]);
        assert_eq!(ids(of("b")).await, [3]);
        let all = Filter { limit: 9, ..Filter::default() };
        assert_eq!(ids(all.clone()).await, [5, 4, 3, 2, 1]);
        assert!(ids(Filter { app: Some("other".to_owned()), ..all.clone() }).await.is_empty());
        let acme = Some("acme".to_owned());
        assert_eq!(ids(Filter { app: acme.clone(), ..of("b") }).await, [3]);
        assert!(ids(Filter { app: Some("other".to_owned()), ..of("b") }).await.is_empty());
        let waiting = Filter { state: Some(State::Accepted), before: Some(id(3)), ..all };
        assert_eq!(ids(waiting.clone()).await, [2, 1]);
        assert_eq!(ids(Filter { app: acme, ..waiting }).await, [2, 1]);
    }

    pub(super) async fn a_webhook_is_tried_until_it_is_received_or_given_up(stores: TaskStores) {
        let hooked = |n| Accepted { webhook: Some(b"url".to_vec()), ..accepted(n, "a") };
        stored(&stores, hooked(1)).await;
        stored(&stores, accepted(2, "a")).await;
        let due = async |at| stores.hooks.due(at, at.plus_millis(10_000), 9).await.unwrap();
        assert!(due(NOW).await.is_empty(), "it has not ended");
        for task in claimed(&stores, claim(1, NOW, 9)).await {
            stores.queue.end(task.id, 1, ending(State::Succeeded)).await.unwrap();
        }
        let [hook] = &due(NOW).await[..] else { panic!("one") };
        assert_eq!((hook.task.id, &hook.url[..]), (id(1), &b"url"[..]));
        assert_eq!(hook.task.hook.as_ref().unwrap().tries, 1);
        assert!(due(later(9_999)).await.is_empty(), "it is being tried");
        stores.hooks.failed(id(1), 1, "500", Some(later(20_000))).await.unwrap();
        assert!(due(later(19_999)).await.is_empty());
        assert_eq!(due(later(20_000)).await[0].task.hook.as_ref().unwrap().tries, 2);
        // The first try answers late, and changes nothing.
        stores.hooks.delivered(id(1), 1).await.unwrap();
        stores.hooks.failed(id(1), 2, "500", None).await.unwrap();
        let hook = stores.tasks.task(id(1)).await.unwrap().unwrap().hook.unwrap();
        assert_eq!((hook.word.as_str(), hook.error.as_deref()), ("DEAD", Some("500")));
        assert!(stores.tasks.replay(id(1), later(30_000)).await.unwrap());
        assert!(!stores.tasks.replay(id(2), NOW).await.unwrap());
        assert_eq!(due(later(30_000)).await.len(), 1);
        stores.hooks.delivered(id(1), 1).await.unwrap();
        let hook = stores.tasks.task(id(1)).await.unwrap().unwrap().hook.unwrap();
        assert_eq!((hook.word.as_str(), hook.error), ("DELIVERED", None));
    }

    pub(super) async fn what_is_kept_goes_when_its_time_is_over(stores: TaskStores) {
        let keyed = |n| Accepted { key_hash: Some([5; 32]), ..accepted(n, "a") };
        stored(&stores, keyed(1)).await;
        claimed(&stores, claim(1, NOW, 1)).await;
        stores.queue.end(id(1), 1, ending(State::Succeeded)).await.unwrap();
        let keep = 86_400_000;
        assert_eq!(stores.upkeep.sweep(later(keep - 1), NOW).await.unwrap(), 0);
        assert_eq!(stores.upkeep.sweep(later(keep), NOW).await.unwrap(), 1);
        assert_eq!(stores.tasks.result(id(1)).await.unwrap(), None);
        assert_eq!(state(&stores, 1).await, State::Succeeded);
        stored(&stores, keyed(2)).await;
        assert_eq!(stores.upkeep.sweep(later(keep), later(keep)).await.unwrap(), 1);
        assert_eq!(stores.tasks.task(id(1)).await.unwrap(), None);
        assert_eq!(state(&stores, 2).await, State::Accepted);
    }

    pub(super) async fn a_refund_that_is_due_is_never_forgotten(stores: TaskStores) {
        let (most, keep) = (150_u128, 86_400_000);
        for n in 1..=most {
            stored(&stores, accepted(n, "a")).await;
        }
        let lost = Ending { refund: true, ..ending(State::Failed) };
        for task in claimed(&stores, claim(1, NOW, 150)).await {
            let call = id(task.id.as_u128() + 1_000);
            assert!(stores.queue.begin(task.id, task.run, call).await.unwrap());
            assert!(stores.queue.end(task.id, task.run, lost.clone()).await.unwrap());
        }
        stores.upkeep.sweep(later(keep), later(keep)).await.unwrap();
        let first = stores.upkeep.refunds(None).await.unwrap();
        let rest = stores.upkeep.refunds(first.last().map(|due| due.id)).await.unwrap();
        assert_eq!(first.len() + rest.len(), 150, "also those behind the first hundred");
        assert!(stores.upkeep.refunds(Some(id(most))).await.unwrap().is_empty());
        for due in first.iter().chain(&rest) {
            stores.upkeep.refunded(due.id).await.unwrap();
        }
        assert_eq!(stores.upkeep.sweep(later(keep), later(keep)).await.unwrap(), 150);
    }
}

async fn on_sqlite<F: Future<Output = ()>>(rule: impl FnOnce(TaskStores) -> F) {
    let folder = tempfile::tempdir().unwrap();
    rule(opened(&Location::Sqlite(folder.path().join("a.db"))).await.tasks).await;
}

async fn on_postgres<F: Future<Output = ()>>(rule: impl FnOnce(TaskStores) -> F) {
    let Some(scratch) = crate::tests::postgres().await else {
        return;
    };
    rule(opened(&Location::Postgres(scratch.url())).await.tasks).await;
}

async fn opened(location: &Location) -> Stores {
    let opener = Opener { node: Uuid::from_u128(0xA), observer: Arc::new(Deaf) };
    open(location, &opener).await.unwrap()
}

/// One test per rule and database.
macro_rules! on_both {
    ($($rule:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                super::on_sqlite(super::rules::$rule).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                super::on_postgres(super::rules::$rule).await;
            })*
        }
    };
}

on_both! {
    a_task_is_stored_claimed_begun_and_ended,
    many_workers_claim_each_task_once,
    keys_take_turns_and_what_they_have_running_counts,
    a_dead_worker_before_the_mark_is_replaced_and_fenced,
    after_the_mark_a_task_is_an_orphan_and_never_claimed,
    what_is_given_back_is_run_again_when_it_is_due,
    one_idempotency_key_makes_one_task,
    a_key_has_so_many_waiting_and_others_do_not_count,
    no_more_of_many_at_once_are_stored_than_may,
    what_was_not_sent_can_be_cancelled_and_expires,
    a_key_lists_its_own_youngest_first,
    a_webhook_is_tried_until_it_is_received_or_given_up,
    what_is_kept_goes_when_its_time_is_over,
    a_refund_that_is_due_is_never_forgotten,
}
