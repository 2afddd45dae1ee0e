//! The contract of idempotency records, run against both databases.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{
    Account, Close, Component, Entry, EntryKind, Hold, Leg, PriceRef, Settlement,
};
use anima_core::money::Currency;

use super::{Claim, Ending, Gone, UsedKey, Verdict};
use crate::database::{Location, Opener, Stores, open};
use crate::ledger::{BatchObserver, Registration};

/// When the tests happen, and when holds are closed.
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

/// Call `n` under the key `1`, asking for `1`, whose deadline is a minute away.
fn claim(n: u128) -> Claim {
    at(n, NOW)
}

fn at(n: u128, at: Timestamp) -> Claim {
    Claim {
        kid: "kid1".into(),
        key_hash: [1; 32],
        content_hash: [1; 32],
        call: Uuid::from_u128(n),
        node: Uuid::from_u128(0xA),
        at,
        stale_at: at.plus_millis(60_000),
        expires_at: at.plus_millis(86_400_000),
    }
}

fn kept(n: u128) -> Verdict {
    Verdict::Kept { call: Uuid::from_u128(n), sealed: b"answer".to_vec() }
}

fn gone(n: u128, why: Gone) -> Verdict {
    Verdict::Gone { call: Uuid::from_u128(n), why }
}

fn answer() -> Ending {
    Ending::Kept(b"answer".to_vec())
}

/// Whether call `n` still had the key `of`, which is nobody else's then.
async fn retired(stores: &Stores, of: u8, n: u128) -> bool {
    let key = UsedKey { kid: "kid1".into(), hash: [of; 32] };
    stores.idempotency.retire(&key, Uuid::from_u128(n)).await.unwrap()
}

async fn claimed(stores: &Stores, claim: &Claim) -> Verdict {
    stores.idempotency.claim(claim).await.unwrap()
}

/// Places the hold of call `n`, on a wallet with money.
async fn hold(stores: &Stores, n: u128) {
    let wallet = Account::Wallet("acme".into());
    let leg = Leg {
        debit: Account::PspClearing,
        credit: wallet,
        amount: 1_000,
        currency: Currency::USD,
        component: Component::Topup,
        attempt: None,
        price: None,
        estimate: false,
    };
    let topup = Entry {
        subject: Uuid::from_u128(n + 1_000),
        kind: EntryKind::Topup,
        seq: 0,
        legs: vec![leg],
        reference: "cash".to_owned(),
        at: NOW,
        floor: 0,
    };
    stores.ledger.post(topup).await.unwrap();
    let hold = Hold {
        id: Uuid::from_u128(n),
        app: "acme".into(),
        kid: "kid1".into(),
        alias: "chat".into(),
        currency: Currency::USD,
        amount: 100,
        floor: 0,
        sale_price: price(),
        fx: None,
        multiplier: anima_core::money::Multiplier::ONE,
        exposure: None,
        created_at: NOW,
        expires_at: later(60_000),
    };
    stores.ledger.hold(hold).await.unwrap();
}

fn price() -> PriceRef {
    PriceRef { code: "sale".into(), version_no: 1 }
}

/// Closes the hold of call `n`.
async fn close(stores: &Stores, n: u128, close: Close) {
    let settlement = Settlement {
        hold: Uuid::from_u128(n),
        app: "acme".into(),
        currency: Currency::USD,
        close,
        sale_price: price(),
        conversion: None,
        attempts: Vec::new(),
        at: NOW,
    };
    stores.ledger.settle(settlement).await.unwrap();
}

const SOLD: Close = Close::Settle { sale: 7, estimate: false };

/// Takes a lease for the node of every claim, which lasts for `ttl`.
async fn lives(stores: &Stores, ttl: Duration) {
    let node = Registration { node: Uuid::from_u128(0xA), host: String::new(), ttl };
    stores.ledger.register(node).await.unwrap();
}

/// The same database, as another node opened it.
async fn other_node(location: &Location) -> Stores {
    let opener = Opener { node: Uuid::from_u128(0xB), observer: Arc::new(Deaf) };
    open(location, &opener).await.unwrap()
}

const HOUR: Duration = Duration::from_hours(1);

/// The rules, under a name that the tests can have.
mod rules {
    use super::*;

    pub(super) async fn a_key_is_claimed_once_and_its_answer_kept(stores: Stores) {
        let first = claim(1);
        assert_eq!(claimed(&stores, &first).await, Verdict::Fresh);
        assert_eq!(claimed(&stores, &claim(2)).await, Verdict::Running);
        assert!(stores.idempotency.end(&first, answer()).await.unwrap());
        assert_eq!(claimed(&stores, &claim(3)).await, kept(1));
        // A second ending changes nothing, nor does giving up what has ended.
        assert!(!stores.idempotency.end(&first, Ending::TooLarge).await.unwrap());
        stores.idempotency.abandon(&first).await.unwrap();
        assert_eq!(claimed(&stores, &claim(4)).await, kept(1));
    }

    pub(super) async fn another_request_under_a_used_key_conflicts(stores: Stores) {
        let other = |n| Claim { content_hash: [2; 32], ..claim(n) };
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        assert_eq!(claimed(&stores, &other(2)).await, Verdict::Conflict);
        stores.idempotency.end(&claim(1), answer()).await.unwrap();
        assert_eq!(claimed(&stores, &other(3)).await, Verdict::Conflict);
        // Another key, and the same one of another caller.
        let key = Claim { key_hash: [3; 32], ..other(4) };
        assert_eq!(claimed(&stores, &key).await, Verdict::Fresh);
        let caller = Claim { kid: "kid2".into(), ..other(5) };
        assert_eq!(claimed(&stores, &caller).await, Verdict::Fresh);
    }

    pub(super) async fn of_a_thousand_claims_one_is_fresh(stores: Stores) {
        let tasks: Vec<_> = (1..=1_000_u128)
            .map(|n| {
                let stores = stores.clone();
                tokio::spawn(async move { claimed(&stores, &claim(n)).await })
            })
            .collect();
        let mut fresh = 0;
        for task in tasks {
            let verdict = task.await.unwrap();
            let is_fresh = verdict == Verdict::Fresh;
            fresh += u32::from(is_fresh);
            assert!(is_fresh || verdict == Verdict::Running, "{verdict:?}");
        }
        assert_eq!(fresh, 1);
    }

    pub(super) async fn an_abandoned_key_is_free(stores: Stores) {
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        // Not by somebody else.
        stores.idempotency.abandon(&claim(2)).await.unwrap();
        assert_eq!(claimed(&stores, &claim(2)).await, Verdict::Running);
        stores.idempotency.abandon(&claim(1)).await.unwrap();
        assert_eq!(claimed(&stores, &claim(2)).await, Verdict::Fresh);
        assert!(!stores.idempotency.end(&claim(1), answer()).await.unwrap());
        assert!(stores.idempotency.end(&claim(2), answer()).await.unwrap());
    }

    pub(super) async fn an_answer_that_is_too_large_is_named(stores: Stores) {
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        assert!(stores.idempotency.end(&claim(1), Ending::TooLarge).await.unwrap());
        assert_eq!(claimed(&stores, &claim(2)).await, gone(1, Gone::TooLarge));
    }

    pub(super) async fn what_has_expired_is_not_there_and_is_swept(stores: Stores) {
        let end = 86_400_000;
        for n in 1..=5_u8 {
            let one = Claim { key_hash: [n; 32], ..claim(n.into()) };
            assert_eq!(claimed(&stores, &one).await, Verdict::Fresh);
            stores.idempotency.end(&one, answer()).await.unwrap();
        }
        assert_eq!(claimed(&stores, &at(6, later(end - 1))).await, kept(1));
        // Taken over before any sweep, by another request even, and so kept by it.
        let again = Claim { content_hash: [9; 32], ..at(7, later(end)) };
        assert_eq!(claimed(&stores, &again).await, Verdict::Fresh);
        assert_eq!(stores.idempotency.sweep(later(end - 1), 10).await.unwrap(), 0);
        assert_eq!(stores.idempotency.sweep(later(end), 3).await.unwrap(), 3);
        assert_eq!(stores.idempotency.sweep(later(end), 3).await.unwrap(), 1);
        assert_eq!(stores.idempotency.sweep(later(end), 3).await.unwrap(), 0);
        assert!(stores.idempotency.end(&again, answer()).await.unwrap());
    }

    pub(super) async fn a_call_that_died_before_its_hold_is_made_again_in_time(stores: Stores) {
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        assert_eq!(claimed(&stores, &at(2, later(59_999))).await, Verdict::Running);
        let next = Claim { node: Uuid::from_u128(0xB), ..at(2, later(60_000)) };
        assert_eq!(claimed(&stores, &next).await, Verdict::Fresh);
        // The dead come back, and change nothing.
        assert!(!stores.idempotency.end(&claim(1), answer()).await.unwrap());
        stores.idempotency.abandon(&claim(1)).await.unwrap();
        assert_eq!(claimed(&stores, &at(3, later(60_001))).await, Verdict::Running);
    }

    pub(super) async fn a_claim_without_a_hold_is_free_when_its_lease_was_given_back(
        stores: Stores,
    ) {
        lives(&stores, HOUR).await;
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        assert_eq!(claimed(&stores, &claim(2)).await, Verdict::Running);
        stores.ledger.release().await.unwrap();
        // By any request: nothing came of the one before.
        let next = |n| Claim { content_hash: [9; 32], node: Uuid::from_u128(0xB), ..claim(n) };
        assert_eq!(claimed(&stores, &next(2)).await, Verdict::Fresh);
        // The one before ends and frees nothing any more, and what nobody's lease vouches for
        // waits for its time.
        assert!(!stores.idempotency.end(&claim(1), answer()).await.unwrap());
        stores.idempotency.abandon(&claim(1)).await.unwrap();
        assert_eq!(claimed(&stores, &next(3)).await, Verdict::Running);
    }

    pub(super) async fn a_call_whose_lease_is_gone_is_judged_by_its_hold(stores: Stores) {
        lives(&stores, HOUR).await;
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        hold(&stores, 1).await;
        stores.ledger.release().await.unwrap();
        // Open: whether it was charged is not known yet.
        assert_eq!(claimed(&stores, &claim(2)).await, Verdict::Running);
        close(&stores, 1, SOLD).await;
        assert_eq!(claimed(&stores, &at(2, later(10_000))).await, gone(1, Gone::Lost));
    }

    pub(super) async fn a_call_that_died_is_running_until_its_hold_is_resolved(stores: Stores) {
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        hold(&stores, 1).await;
        // Long after its deadline: whether it was charged is not known yet.
        assert_eq!(claimed(&stores, &at(2, later(600_000))).await, Verdict::Running);
        close(&stores, 1, Close::Release).await;
        let other = Claim { content_hash: [2; 32], ..at(2, later(600_000)) };
        assert_eq!(claimed(&stores, &other).await, Verdict::Fresh);
    }

    pub(super) async fn a_call_that_died_charged_is_never_made_again(stores: Stores) {
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        hold(&stores, 1).await;
        close(&stores, 1, SOLD).await;
        // While its process lives it has a moment to keep the answer.
        assert_eq!(claimed(&stores, &at(2, later(9_999))).await, Verdict::Running);
        assert_eq!(claimed(&stores, &at(2, later(10_000))).await, gone(1, Gone::Lost));
        assert_eq!(claimed(&stores, &at(2, later(86_399_999))).await, gone(1, Gone::Lost));
        let other = Claim { content_hash: [2; 32], ..at(2, later(10_000)) };
        assert_eq!(claimed(&stores, &other).await, Verdict::Conflict);
        // Late is better than never.
        assert!(stores.idempotency.end(&claim(1), answer()).await.unwrap());
        assert_eq!(claimed(&stores, &claim(2)).await, kept(1));
    }

    pub(super) async fn a_retired_key_is_never_taken_over_also_when_its_hold_is_released(
        stores: Stores,
    ) {
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        hold(&stores, 1).await;
        close(&stores, 1, Close::Release).await;
        for _ in 0..2 {
            assert!(retired(&stores, 1, 1).await);
            assert_eq!(claimed(&stores, &at(2, later(600_000))).await, gone(1, Gone::Lost));
        }
        let other = Claim { content_hash: [2; 32], ..claim(2) };
        assert_eq!(claimed(&stores, &other).await, Verdict::Conflict);
        stores.idempotency.abandon(&claim(1)).await.unwrap();
        assert_eq!(claimed(&stores, &claim(2)).await, gone(1, Gone::Lost));
        // Late is better than never, and what is kept stays.
        assert!(stores.idempotency.end(&claim(1), answer()).await.unwrap());
        assert!(retired(&stores, 1, 1).await);
        assert_eq!(claimed(&stores, &claim(2)).await, kept(1));
        assert!(!stores.idempotency.end(&claim(1), Ending::TooLarge).await.unwrap());
        // It goes with its time, like any other.
        assert_eq!(claimed(&stores, &at(3, later(86_400_000))).await, Verdict::Fresh);
        assert!(!retired(&stores, 1, 1).await);
    }

    pub(super) async fn a_key_that_another_call_has_or_had_is_not_retired(stores: Stores) {
        assert!(!retired(&stores, 1, 1).await, "never claimed");
        assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
        hold(&stores, 1).await;
        close(&stores, 1, Close::Release).await;
        assert_eq!(claimed(&stores, &claim(2)).await, Verdict::Fresh);
        assert!(!retired(&stores, 1, 1).await);
        assert_eq!(claimed(&stores, &claim(3)).await, Verdict::Running);
        // It may have been charged before it was swept.
        stores.idempotency.abandon(&claim(2)).await.unwrap();
        assert!(!retired(&stores, 1, 1).await);
        assert_eq!(claimed(&stores, &claim(3)).await, Verdict::Fresh);
        assert!(stores.idempotency.end(&claim(3), Ending::TooLarge).await.unwrap());
        assert!(!retired(&stores, 1, 1).await);
        assert!(retired(&stores, 1, 3).await);
        assert_eq!(claimed(&stores, &claim(4)).await, gone(3, Gone::TooLarge));
    }

    pub(super) async fn of_a_take_over_and_a_retirement_one_comes_first(stores: Stores) {
        for n in 1..=30_u8 {
            let under = |call| Claim { key_hash: [n; 32], ..claim(call) };
            let (first, second) = (u128::from(n), u128::from(n) + 100);
            assert_eq!(claimed(&stores, &under(first)).await, Verdict::Fresh);
            hold(&stores, first).await;
            close(&stores, first, Close::Release).await;
            let claim = under(second);
            let (is_retired, verdict) =
                tokio::join!(retired(&stores, n, first), claimed(&stores, &claim));
            let one = if is_retired { gone(first, Gone::Lost) } else { Verdict::Fresh };
            assert_eq!(verdict, one);
            assert_eq!(retired(&stores, n, first).await, is_retired);
        }
    }
}

async fn on_sqlite<F: Future<Output = ()>>(rule: impl FnOnce(Stores) -> F) {
    let folder = tempfile::tempdir().unwrap();
    rule(opened(&Location::Sqlite(folder.path().join("a.db"))).await).await;
}

async fn on_postgres<F: Future<Output = ()>>(rule: impl FnOnce(Stores) -> F) {
    let Some(scratch) = crate::tests::postgres().await else {
        return;
    };
    rule(opened(&Location::Postgres(scratch.url())).await).await;
}

async fn opened(location: &Location) -> Stores {
    let opener = Opener { node: Uuid::from_u128(0xA), observer: Arc::new(Deaf) };
    open(location, &opener).await.unwrap()
}

/// A lease that has run out may be renewed until another node takes it away.
async fn a_lease_must_be_taken_away(location: &Location) {
    let stores = opened(location).await;
    lives(&stores, Duration::ZERO).await;
    assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
    let other = other_node(location).await;
    assert_eq!(claimed(&other, &claim(2)).await, Verdict::Running);
    stores.ledger.renew(HOUR).await.unwrap();
    assert_eq!(other.ledger.claim_orphans(10, HOUR).await.unwrap(), Vec::new());
    assert_eq!(claimed(&other, &claim(2)).await, Verdict::Running);
    // Over by the database's clock, which shows milliseconds on SQLite.
    stores.ledger.renew(Duration::ZERO).await.unwrap();
    while claimed(&other, &claim(2)).await == Verdict::Running {
        assert_eq!(other.ledger.claim_orphans(10, HOUR).await.unwrap(), Vec::new());
    }
    assert!(stores.ledger.renew(HOUR).await.is_err());
    assert!(!stores.idempotency.end(&claim(1), answer()).await.unwrap());
    assert!(other.idempotency.end(&claim(2), answer()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_must_be_taken_away_before_its_keys_are_free_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    a_lease_must_be_taken_away(&Location::Sqlite(folder.path().join("a.db"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_must_be_taken_away_before_its_keys_are_free_on_postgres() {
    let Some(scratch) = crate::tests::postgres().await else {
        return;
    };
    a_lease_must_be_taken_away(&Location::Postgres(scratch.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_a_hold_is_free_at_once_after_a_restart_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::Sqlite(folder.path().join("a.db"));
    let stores = opened(&location).await;
    lives(&stores, HOUR).await;
    assert_eq!(claimed(&stores, &claim(1)).await, Verdict::Fresh);
    // As when the process ends, however it does.
    drop(stores);
    let next = other_node(&location).await;
    let node = Uuid::from_u128(0xB);
    assert_eq!(claimed(&next, &claim(2)).await, Verdict::Running);
    let registration = Registration { node, host: String::new(), ttl: HOUR };
    next.ledger.register(registration).await.unwrap();
    assert_eq!(claimed(&next, &Claim { node, ..claim(2) }).await, Verdict::Fresh);
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
    a_key_is_claimed_once_and_its_answer_kept,
    another_request_under_a_used_key_conflicts,
    of_a_thousand_claims_one_is_fresh,
    an_abandoned_key_is_free,
    an_answer_that_is_too_large_is_named,
    what_has_expired_is_not_there_and_is_swept,
    a_call_that_died_before_its_hold_is_made_again_in_time,
    a_claim_without_a_hold_is_free_when_its_lease_was_given_back,
    a_call_whose_lease_is_gone_is_judged_by_its_hold,
    a_call_that_died_is_running_until_its_hold_is_resolved,
    a_call_that_died_charged_is_never_made_again,
    a_retired_key_is_never_taken_over_also_when_its_hold_is_released,
    a_key_that_another_call_has_or_had_is_not_retired,
    of_a_take_over_and_a_retirement_one_comes_first,
}
