//! The books' part of hard cases that no call of this gateway can meet yet: hedges (row 11),
//! settlements that come again (13), tasks of a provider (17 and 19), answers of our own (23).
//!
//! Holds and settlements are made as the relay would, by a second opening of the node's database.
//! Invariant: whatever the case, a customer pays for one answer at most.

use anima_core::ledger::{Attempt, Hold, Settlement};
use anima_store::ledger::{Correction, Error, SaleCorrection};
use http::Method;
use serde_json::json;

use super::{BOUGHT, SOLD, accounts, another_process, lines, of_tokens, open_hold, settlement};
use crate::testapp::{ADMIN_TOKEN, COST, Reply, SALE, TestApp, on_both};

on_both! {
    row_11_the_loser_of_a_hedge_is_our_waste;
    row_13_a_settlement_again_changes_nothing;
    row_17_a_failure_after_the_settlement_is_refunded_once;
    row_19_a_success_after_the_refund_is_not_charged_again;
    row_23_an_answer_without_an_upstream_is_a_sale_alone;
}

async fn row_11_the_loser_of_a_hedge_is_our_waste(app: &TestApp) {
    let before = app.balance().await;
    let ledger = another_process(app).await.ledger;
    let hold = open_hold(1);
    ledger.hold(hold.clone()).await.unwrap();
    let mut hedged = settlement(&hold, 900, false);
    let winner = hedged.attempts.remove(0);
    let loser = Attempt { n: 1, served: false, outcome: "cancelled", ..winner.clone() };
    hedged.attempts = vec![loser, Attempt { n: 2, ..winner }];
    ledger.settle(hedged).await.unwrap();
    let booked = accounts(app, &hold.id.to_string()).await;
    assert_eq!(booked, [SOLD, "wasted_cost payable:main", BOUGHT]);
    assert_eq!(app.balance().await, before - of_tokens(&SALE, 900), "sold once");
}

async fn row_13_a_settlement_again_changes_nothing(app: &TestApp) {
    let before = app.balance().await;
    let ledger = another_process(app).await.ledger;
    let hold = open_hold(1);
    ledger.hold(hold.clone()).await.unwrap();
    let first = settlement(&hold, 900, false);
    assert!(!ledger.settle(first.clone()).await.unwrap().replayed);
    assert!(ledger.settle(first).await.unwrap().replayed);
    assert_eq!(ledger.settle(settlement(&hold, 901, false)).await, Err(Error::Conflict));
    assert_eq!(app.balance().await, before - of_tokens(&SALE, 900));
    assert_eq!(lines(app, &hold.id.to_string()).await.len(), 2);
}

/// A settled call of a process that is gone, and what it was sold for.
async fn sold_elsewhere(app: &TestApp) -> (Hold, i64) {
    let ledger = another_process(app).await.ledger;
    let hold = open_hold(1);
    ledger.hold(hold.clone()).await.unwrap();
    ledger.settle(settlement(&hold, 1_000, true)).await.unwrap();
    (hold, of_tokens(&SALE, 1_000))
}

async fn refund(app: &TestApp, hold: &Hold, once: &str) -> Reply {
    let token = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", token.as_str()), ("idempotency-key", once)];
    let body = json!({"request_id": hold.id, "reason": "it failed after all"}).to_string();
    app.raw(Method::POST, "/api/admin/v1/apps/acme/refunds", &headers, body).await
}

async fn row_17_a_failure_after_the_settlement_is_refunded_once(app: &TestApp) {
    let before = app.balance().await;
    let (hold, sold) = sold_elsewhere(app).await;
    assert_eq!(app.balance().await, before - sold);
    let (first, second) = tokio::join!(refund(app, &hold, "task"), refund(app, &hold, "task"));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{first:?} {second:?}");
    assert_eq!(app.balance().await, before);
    let other = refund(app, &hold, "another poller").await;
    assert_eq!(other.status, 409, "{other:?}");
    assert_eq!(app.balance().await, before, "nothing is left to give back");
}

async fn row_19_a_success_after_the_refund_is_not_charged_again(app: &TestApp) {
    let before = app.balance().await;
    let (hold, _) = sold_elsewhere(app).await;
    assert_eq!(refund(app, &hold, "task").await.status, 201);
    let mut late = settlement(&hold, 1_200, false);
    late.attempts[0].served = false;
    let ledger = another_process(app).await.ledger;
    let (sale, reference) = (SaleCorrection::DownOnly, "it was made after all".to_owned());
    let correction = Correction { settlement: late, sale, report: None, reference };
    assert_eq!(ledger.true_up(correction).await.unwrap().given_back, 0);
    assert_eq!(app.balance().await, before, "what is delivered late is not charged");
    let books = app.trial_balance().await;
    let balance =
        |account: &str| books.get(account).map_or(0, |(debits, credits)| debits - credits);
    let cost = of_tokens(&COST, 1_200);
    assert_eq!((balance("wasted_cost"), balance("payable:main")), (cost, -cost), "{books:?}");
    assert_eq!((balance("cost_of_sales"), balance("payable_estimated:main")), (0, 0), "{books:?}");
}

async fn row_23_an_answer_without_an_upstream_is_a_sale_alone(app: &TestApp) {
    let before = app.balance().await;
    let ledger = another_process(app).await.ledger;
    let (priced, free) = (open_hold(1), open_hold(2));
    for (hold, tokens) in [(&priced, 900), (&free, 0)] {
        ledger.hold(hold.clone()).await.unwrap();
        let cached = Settlement { attempts: Vec::new(), ..settlement(hold, tokens, false) };
        ledger.settle(cached).await.unwrap();
    }
    assert_eq!(accounts(app, &priced.id.to_string()).await, [SOLD]);
    assert_eq!(accounts(app, &free.id.to_string()).await, [""; 0]);
    assert_eq!(app.wallet("acme").await.1, 0);
    assert_eq!(app.balance().await, before - of_tokens(&SALE, 900));
}
