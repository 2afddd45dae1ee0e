//! The contract of [`LedgerStore`], sentence by sentence.

use std::sync::Arc;

use tokio::task::JoinSet;
use uuid::Uuid;

use anima_core::ledger::{Account, Close, Component, Entry, EntryKind, Leg};
use anima_core::money::Currency;

use super::fixtures::*;
use crate::ledger::{Error, LedgerStore, Settled};

type Ledger = Arc<dyn LedgerStore>;

pub(super) async fn a_settlement_books_both_sides(ledger: &Ledger) {
    let hold = hold(1, "acme", 100);
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    ledger.hold(hold.clone()).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (1_000, 100, 0));
    let settled = ledger.settle(settle(&hold, 90)).await.unwrap();
    assert_eq!(settled, Settled { charged: 90, uncollected: 0, replayed: false });
    assert_eq!(wallet(&**ledger, "acme").await, (910, 0, 0));
    let trial = ledger.trial_balance().await.unwrap();
    let lines: Vec<_> = trial
        .iter()
        .map(|l| format!("{} {} {} {} {}", l.account, l.class, l.currency, l.debits, l.credits))
        .collect();
    assert_eq!(
        lines,
        [
            "cost_of_sales 5010 USD 7 0",
            "payable:openai 2030 USD 0 7",
            "psp_clearing 1010 USD 1000 0",
            "revenue 4010 USD 0 90",
            "wallet:acme 2010 USD 90 1000",
        ]
    );
}

pub(super) async fn postings_are_in_order_and_name_what_they_rest_on(ledger: &Ledger) {
    let hold = hold(1, "acme", 100);
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    ledger.hold(hold.clone()).await.unwrap();
    let mut settlement = settle(&hold, 90);
    settlement.attempts = vec![attempt(1, false, 3), attempt(2, true, 40)];
    ledger.settle(settlement).await.unwrap();
    let postings = ledger.postings(hold.id).await.unwrap();
    let numbers: Vec<_> = postings.iter().map(|p| (p.n, p.component, p.attempt)).collect();
    assert_eq!(
        numbers,
        [(1, Component::Sale, None), (2, Component::Waste, Some(1)), (3, Component::Cost, Some(2))]
    );
    assert!(postings.iter().all(|p| p.kind == EntryKind::Settle && p.subject == hold.id));
    assert!(postings.iter().all(|p| p.journal == postings[0].journal));
    assert_eq!(postings[0].price, Some(("sale".to_owned(), 3)));
    assert_eq!(postings[2].price, Some(("cost".to_owned(), 3)));
    assert!(postings[1].estimate && !postings[2].estimate);
    assert_eq!(postings[1].credit, "payable_estimated:openai");
    assert!(ledger.postings(Uuid::from_u128(77)).await.unwrap().is_empty());
    let top = ledger.postings(Uuid::from_u128(9)).await.unwrap();
    assert_eq!((top[0].reference.as_str(), top[0].kind), ("invoice 1", EntryKind::Topup));
    assert!(top[0].posted_at.micros() > 1_700_000_000_000_000);
}

pub(super) async fn a_hold_beyond_the_balance_is_refused(ledger: &Ledger) {
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(hold(1, "acme", 60)).await.unwrap();
    let refused = ledger.hold(hold(2, "acme", 41)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 40 }));
    ledger.hold(hold(3, "acme", 40)).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (100, 100, 0));
    assert_eq!(ledger.settle(settle(&hold(2, "acme", 41), 1)).await, Err(Error::HoldUnknown));
}

pub(super) async fn an_unknown_app_has_nothing_to_hold(ledger: &Ledger) {
    assert_eq!(wallet(&**ledger, "nobody").await, (0, 0, 0));
    let refused = ledger.hold(hold(1, "nobody", 1)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 0 }));
    ledger.hold(hold(2, "nobody", 0)).await.unwrap();
    assert!(ledger.trial_balance().await.unwrap().is_empty());
}

pub(super) async fn a_thousand_parallel_holds_pass_a_hundred_times_on_money_for_a_hundred(
    ledger: &Ledger,
) {
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let mut calls = JoinSet::new();
    for n in 0..1_000_u128 {
        let ledger = Arc::clone(ledger);
        calls.spawn(async move { ledger.hold(hold(100 + n, "acme", 10)).await });
    }
    let results = calls.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 100);
    let broke = |r: &&Result<(), Error>| **r == Err(Error::InsufficientFunds { available: 0 });
    assert_eq!(results.iter().filter(broke).count(), 900);
    assert_eq!(wallet(&**ledger, "acme").await, (1_000, 1_000, 0));
}

pub(super) async fn the_same_hold_again_has_no_effect(ledger: &Ledger) {
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    let twice = hold(1, "acme", 60);
    ledger.hold(twice.clone()).await.unwrap();
    let later = crate::ledger::Hold { expires_at: NOON.plus_millis(900_000), ..twice.clone() };
    ledger.hold(later).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (100, 60, 0));
    ledger.settle(settle(&twice, 60)).await.unwrap();
    ledger.hold(twice).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (40, 0, 0));
}

pub(super) async fn other_content_under_a_used_id_conflicts(ledger: &Ledger) {
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.post(topup(8, "other", 100)).await.unwrap();
    ledger.hold(hold(1, "acme", 60)).await.unwrap();
    assert_eq!(ledger.hold(hold(1, "acme", 59)).await, Err(Error::Conflict));
    assert_eq!(ledger.hold(hold(1, "other", 60)).await, Err(Error::Conflict));
    let mut other_alias = hold(1, "acme", 60);
    other_alias.alias = "claude".into();
    assert_eq!(ledger.hold(other_alias).await, Err(Error::Conflict));
    let mut foreign = settle(&hold(1, "acme", 60), 60);
    foreign.app = "other".into();
    assert_eq!(ledger.settle(foreign).await, Err(Error::Conflict));
    assert_eq!(wallet(&**ledger, "acme").await, (100, 60, 0));
    assert_eq!(wallet(&**ledger, "other").await, (100, 0, 0));
}

pub(super) async fn a_settlement_again_is_a_replay(ledger: &Ledger) {
    let hold = hold(1, "acme", 60);
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(hold.clone()).await.unwrap();
    let first = settle(&hold, 50);
    ledger.settle(first.clone()).await.unwrap();
    let again = crate::ledger::Settlement { at: NOON.plus_millis(5_000), ..first };
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let (ledger, again) = (Arc::clone(ledger), again.clone());
        calls.spawn(async move { ledger.settle(again).await.unwrap() });
    }
    let replay = Settled { charged: 50, uncollected: 0, replayed: true };
    assert!(calls.join_all().await.into_iter().all(|settled| settled == replay));
    assert_eq!(wallet(&**ledger, "acme").await, (50, 0, 0));
    assert_eq!(ledger.postings(hold.id).await.unwrap().len(), 2);
}

pub(super) async fn another_settlement_of_a_closed_hold_conflicts(ledger: &Ledger) {
    let hold = hold(1, "acme", 60);
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(hold.clone()).await.unwrap();
    let mut calls = JoinSet::new();
    for sale in 0..20 {
        let (ledger, settlement) = (Arc::clone(ledger), settle(&hold, sale));
        calls.spawn(async move { (sale, ledger.settle(settlement).await) });
    }
    let results = calls.join_all().await;
    let won: Vec<_> = results.iter().filter(|(_, r)| r.is_ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(results.iter().filter(|(_, r)| *r == Err(Error::Conflict)).count(), 19);
    assert_eq!(wallet(&**ledger, "acme").await, (100 - won[0].0, 0, 0));
    assert_eq!(ledger.settle(release(&hold)).await, Err(Error::Conflict));
}

pub(super) async fn a_settlement_without_a_hold_is_refused(ledger: &Ledger) {
    let missing = settle(&hold(1, "acme", 60), 50);
    assert_eq!(ledger.settle(missing).await, Err(Error::HoldUnknown));
    assert!(ledger.postings(Uuid::from_u128(1)).await.unwrap().is_empty());
}

pub(super) async fn a_release_gives_everything_back_and_posts_nothing(ledger: &Ledger) {
    let hold = hold(1, "acme", 60);
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(hold.clone()).await.unwrap();
    let released = ledger.settle(release(&hold)).await.unwrap();
    assert_eq!(released, Settled { charged: 0, uncollected: 0, replayed: false });
    assert!(ledger.settle(release(&hold)).await.unwrap().replayed);
    assert_eq!(wallet(&**ledger, "acme").await, (100, 0, 0));
    assert!(ledger.postings(hold.id).await.unwrap().is_empty());
}

pub(super) async fn a_release_still_posts_what_was_wasted(ledger: &Ledger) {
    let hold = hold(1, "acme", 60);
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(hold.clone()).await.unwrap();
    let mut wasted = release(&hold);
    wasted.attempts = vec![attempt(1, false, 4)];
    ledger.settle(wasted).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (100, 0, 0));
    assert_eq!(shown(&**ledger, hold.id).await, ["wasted_cost payable_estimated:openai 4 USD"]);
    assert_eq!(ledger.postings(hold.id).await.unwrap()[0].kind, EntryKind::ReleaseCost);
}

pub(super) async fn more_than_the_hold_is_collected_down_to_the_floor(ledger: &Ledger) {
    let (first, second) = (hold(1, "acme", 30), hold(2, "acme", 50));
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(first.clone()).await.unwrap();
    ledger.hold(second.clone()).await.unwrap();
    // 20 are free beside both holds.
    let settled = ledger.settle(settle(&first, 75)).await.unwrap();
    assert_eq!(settled, Settled { charged: 50, uncollected: 25, replayed: false });
    assert_eq!(wallet(&**ledger, "acme").await, (50, 50, 0));
    let again = ledger.settle(settle(&first, 75)).await.unwrap();
    assert_eq!(again, Settled { charged: 50, uncollected: 25, replayed: true });
    assert_eq!(
        shown(&**ledger, first.id).await,
        [
            "wallet:acme revenue 50 USD",
            "exposure revenue 25 USD",
            "cost_of_sales payable:openai 7 USD"
        ]
    );
    let settled = ledger.settle(settle(&second, 51)).await.unwrap();
    assert_eq!((settled.charged, settled.uncollected), (50, 1));
}

pub(super) async fn what_was_not_collected_is_taken_back_before_anything_is_given(ledger: &Ledger) {
    let first = hold(1, "acme", 30);
    ledger.post(topup(9, "acme", 50)).await.unwrap();
    ledger.hold(first.clone()).await.unwrap();
    ledger.settle(settle(&first, 75)).await.unwrap();
    // 50 are paid, 25 are not.
    let down = |sale| correction(settle(&first, sale));
    let done = ledger.true_up(down(60)).await.unwrap();
    assert_eq!(done.given_back, 0);
    assert_eq!(shown(&**ledger, first.id).await[3..], ["revenue exposure 15 USD"]);
    assert_eq!(ledger.true_up(down(40)).await.unwrap().given_back, 10);
    assert_eq!(
        shown(&**ledger, first.id).await[4..],
        ["revenue wallet:acme 10 USD", "revenue exposure 10 USD"]
    );
    assert_eq!(wallet(&**ledger, "acme").await, (10, 0, 0));
    assert_clean(&**ledger).await;
}

pub(super) async fn a_report_of_more_takes_what_the_wallet_has_again_off_the_loss(ledger: &Ledger) {
    let first = hold(1, "acme", 30);
    ledger.post(topup(9, "acme", 50)).await.unwrap();
    ledger.hold(first.clone()).await.unwrap();
    ledger.settle(settle(&first, 75)).await.unwrap();
    ledger.post(topup(10, "acme", 20)).await.unwrap();
    let sale = crate::ledger::SaleCorrection::BothWays;
    let up = crate::ledger::Correction { sale, ..correction(settle(&first, 80)) };
    // 20 more are paid, 5 of the 25 are still lacking; what was reported beyond is not claimed.
    assert_eq!(ledger.true_up(up).await.unwrap().given_back, -20);
    assert_eq!(
        shown(&**ledger, first.id).await[3..],
        ["wallet:acme revenue 20 USD", "revenue exposure 15 USD"]
    );
    assert_eq!(wallet(&**ledger, "acme").await, (0, 0, 0));
    assert_clean(&**ledger).await;
}

pub(super) async fn a_credit_limit_lets_the_wallet_go_below_zero(ledger: &Ledger) {
    let mut on_credit = hold(1, "acme", 60);
    on_credit.floor = -50;
    assert_eq!(
        ledger.hold(on_credit.clone()).await,
        Err(Error::InsufficientFunds { available: 50 })
    );
    on_credit.amount = 40;
    ledger.hold(on_credit.clone()).await.unwrap();
    let settled = ledger.settle(settle(&on_credit, 45)).await.unwrap();
    assert_eq!((settled.charged, settled.uncollected), (45, 0));
    assert_eq!(wallet(&**ledger, "acme").await, (-45, 0, -50));
}

pub(super) async fn a_lowered_credit_limit_refuses_new_holds_and_keeps_old_ones(ledger: &Ledger) {
    let mut old = hold(1, "acme", 40);
    old.floor = -50;
    ledger.hold(old.clone()).await.unwrap();
    let refused = ledger.hold(hold(2, "acme", 0)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: -40 }));
    assert_eq!(wallet(&**ledger, "acme").await, (0, 40, -50));
    ledger.settle(settle(&old, 40)).await.unwrap();
    // A top-up that leaves the wallet in debt is still money.
    ledger.post(topup(9, "acme", 10)).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (-30, 0, -50));
    ledger.post(topup(8, "acme", 50)).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (20, 0, 0));
}

pub(super) async fn costs_may_be_in_other_currencies(ledger: &Ledger) {
    let hold = hold(1, "acme", 60);
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(hold.clone()).await.unwrap();
    let mut settlement = settle(&hold, 50);
    let mut foreign = attempt(2, true, 33);
    foreign.cost.as_mut().unwrap().currency = eur();
    settlement.attempts = vec![attempt(1, false, 3), foreign];
    ledger.settle(settlement).await.unwrap();
    assert_eq!(
        shown(&**ledger, hold.id).await,
        [
            "wallet:acme revenue 50 USD",
            "wasted_cost payable_estimated:openai 3 USD",
            "cost_of_sales payable:openai 33 EUR"
        ]
    );
}

pub(super) async fn wallets_of_one_app_are_apart_by_currency(ledger: &Ledger) {
    let mut euros = topup(9, "acme", 100);
    euros.legs[0].currency = eur();
    ledger.post(euros).await.unwrap();
    ledger.post(topup(8, "acme", 5)).await.unwrap();
    assert_eq!(ledger.balance("acme", eur()).await.unwrap().posted, 100);
    assert_eq!(ledger.balance("acme", Currency::USD).await.unwrap().posted, 5);
    let refused = ledger.hold(hold(1, "acme", 6)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 5 }));
}

pub(super) async fn a_topup_happens_once(ledger: &Ledger) {
    let first = ledger.post(topup(9, "acme", 100)).await.unwrap();
    assert!(!first.replayed);
    let mut again = topup(9, "acme", 100);
    again.at = NOON.plus_millis(70_000);
    let second = ledger.post(again).await.unwrap();
    assert!(second.replayed);
    assert_eq!(second.journal, first.journal);
    assert_eq!(ledger.post(topup(9, "acme", 101)).await, Err(Error::Conflict));
    let mut next = topup(9, "acme", 1);
    next.seq = 1;
    assert!(!ledger.post(next).await.unwrap().replayed);
    assert_eq!(wallet(&**ledger, "acme").await, (101, 0, 0));
    assert_eq!(shown(&**ledger, Uuid::from_u128(9)).await.len(), 2);
}

pub(super) async fn a_withdrawal_below_the_floor_is_refused(ledger: &Ledger) {
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    ledger.hold(hold(1, "acme", 30)).await.unwrap();
    let refused = ledger.post(topup(8, "acme", -71)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 70 }));
    ledger.post(topup(8, "acme", -70)).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (30, 30, 0));
}

pub(super) async fn an_entry_that_says_nothing_is_refused(ledger: &Ledger) {
    let refused = |entry: Entry| async move {
        assert!(matches!(ledger.post(entry).await, Err(Error::Refused(_))));
    };
    refused(Entry { legs: Vec::new(), ..topup(9, "acme", 1) }).await;
    refused(Entry { kind: EntryKind::Settle, ..topup(9, "acme", 1) }).await;
    refused(Entry { floor: 1, ..topup(9, "acme", 1) }).await;
    let mut zero = topup(9, "acme", 1);
    zero.legs[0].amount = 0;
    refused(zero).await;
    let mut circle = topup(9, "acme", 1);
    circle.legs[0].debit = Account::Wallet("acme".into());
    refused(circle).await;
    let refused = ledger.hold(hold(1, "acme", -1)).await;
    assert!(matches!(refused, Err(Error::Refused(_))));
    assert!(ledger.trial_balance().await.unwrap().is_empty());
}

pub(super) async fn one_offender_in_a_batch_is_refused_alone(ledger: &Ledger) {
    ledger.post(topup(9, "acme", 100_000)).await.unwrap();
    let holds: Vec<_> = (0..64).map(|n| hold(100 + n, "acme", 10)).collect();
    for hold in &holds {
        ledger.hold(hold.clone()).await.unwrap();
    }
    let mut calls = JoinSet::new();
    for (at, hold) in holds.iter().enumerate() {
        let mut settlement = settle(hold, 9);
        if at == 40 {
            // Two attempts of one number: only the database's key can tell.
            settlement.attempts.push(attempt(1, true, 8));
        }
        let ledger = Arc::clone(ledger);
        calls.spawn(async move { (at, ledger.settle(settlement).await) });
    }
    for (at, result) in calls.join_all().await {
        match at {
            40 => assert!(matches!(result, Err(Error::Refused(_))), "{result:?}"),
            _ => assert_eq!(result.unwrap().charged, 9),
        }
    }
    assert_eq!(wallet(&**ledger, "acme").await, (100_000 - 63 * 9, 10, 0));
    ledger.settle(settle(&holds[40], 9)).await.unwrap();
}

pub(super) async fn a_hold_whose_caller_leaves_is_given_back(ledger: &Ledger) {
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    leave(ledger.hold(hold(1, "acme", 60))).await;
    // The first ends after the hold was written, the second after what that brought was.
    ledger.hold(hold(2, "acme", 1)).await.unwrap();
    ledger.post(topup(10, "acme", 1)).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (101, 1, 0));
}

pub(super) async fn a_settlement_goes_on_without_its_caller(ledger: &Ledger) {
    ledger.post(topup(9, "acme", 100)).await.unwrap();
    let hold = hold(1, "acme", 60);
    ledger.hold(hold.clone()).await.unwrap();
    leave(ledger.settle(settle(&hold, 60))).await;
    ledger.post(topup(10, "acme", 1)).await.unwrap();
    assert_eq!(wallet(&**ledger, "acme").await, (41, 0, 0));
}

/// Polls a call once, so that it is in the queue, and drops it.
async fn leave<T>(call: impl Future<Output = T>) {
    let mut call = Box::pin(call);
    let polled = std::future::poll_fn(|context| {
        std::task::Poll::Ready(call.as_mut().poll(context).is_ready())
    });
    assert!(!polled.await);
}

pub(super) async fn many_wallets_at_once_add_up(ledger: &Ledger) {
    let mut calls = JoinSet::new();
    for n in 0..200_u128 {
        let ledger = Arc::clone(ledger);
        calls.spawn(async move {
            let app = format!("app{}", n % 20);
            ledger.post(topup(10_000 + n, &app, 100)).await.unwrap();
            let hold = hold(20_000 + n, &app, 100);
            ledger.hold(hold.clone()).await.unwrap();
            ledger.settle(settle(&hold, 30)).await.unwrap()
        });
    }
    assert!(calls.join_all().await.iter().all(|settled| settled.charged == 30));
    for n in 0..20 {
        assert_eq!(wallet(&**ledger, &format!("app{n}")).await, (700, 0, 0));
    }
    let trial = ledger.trial_balance().await.unwrap();
    let revenue = trial.iter().find(|line| line.account == "revenue").unwrap();
    assert_eq!((revenue.debits, revenue.credits), (0, 6_000));
}

pub(super) async fn a_sale_of_nothing_still_settles(ledger: &Ledger) {
    let hold = hold(1, "acme", 0);
    ledger.hold(hold.clone()).await.unwrap();
    let mut nothing = settle(&hold, 0);
    nothing.attempts = Vec::new();
    nothing.close = Close::Settle { sale: 0, estimate: true };
    assert!(!ledger.settle(nothing.clone()).await.unwrap().replayed);
    assert!(ledger.settle(nothing).await.unwrap().replayed);
    assert!(ledger.postings(hold.id).await.unwrap().is_empty());
    let transfer = Leg {
        debit: Account::PspClearing,
        credit: Account::Adjustments,
        ..topup(9, "acme", 5).legs.remove(0)
    };
    ledger.post(Entry { legs: vec![transfer], ..topup(9, "acme", 5) }).await.unwrap();
}
