//! Refunds.

use std::sync::Arc;

use tokio::task::JoinSet;
use uuid::Uuid;

use anima_core::ledger::EntryKind;

use super::*;
use crate::ledger::money::MoveError;
use crate::ledger::tests::fixtures::{hold, release, settle, shown, topup};
use crate::ledger::{Correction, Error, SaleCorrection};

pub(super) async fn a_refund_gives_back_in_parts_and_never_more_than_was_charged(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    settled(&desk, 1, "acme", 90).await;
    let first = desk.money.refund(refund(1, "acme", Some(40), 1)).await.unwrap();
    assert_eq!((first.to_money, first.to_promo, first.left), (40, 0, 50));
    let more = desk.money.refund(refund(1, "acme", Some(51), 2)).await;
    assert_eq!(more, Err(MoveError::TooMuch { left: 50 }));
    let rest = desk.money.refund(refund(1, "acme", None, 3)).await.unwrap();
    assert_eq!((rest.to_money, rest.left), (50, 0));
    let none = desk.money.refund(refund(1, "acme", None, 4)).await;
    assert_eq!(none, Err(MoveError::TooMuch { left: 0 }));
    assert_eq!(wallet(&desk, "acme").await, (1_000, 0, 0));
    let postings = desk.ledger.postings(Uuid::from_u128(1)).await.unwrap();
    let refunds: Vec<_> = postings.iter().filter(|p| p.kind == EntryKind::Refund).collect();
    assert_eq!(refunds.len(), 2);
    assert!(refunds.iter().all(|p| p.debit == "refunds" && p.reference == "case 12"));
}

pub(super) async fn a_refund_happens_once_per_key(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    settled(&desk, 1, "acme", 90).await;
    let first = desk.money.refund(refund(1, "acme", Some(40), 1)).await.unwrap();
    let mut later = refund(1, "acme", Some(40), 1);
    later.at = NOON.plus_millis(5_000);
    let again = desk.money.refund(later).await.unwrap();
    assert!(again.replayed && again.journal == first.journal);
    let other = desk.money.refund(refund(1, "acme", Some(41), 1)).await;
    assert_eq!(other, Err(MoveError::Ledger(Error::Conflict)));
    assert_eq!(wallet(&desk, "acme").await, (950, 0, 0));
}

pub(super) async fn many_refunds_at_once_never_give_back_more_than_all(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    settled(&desk, 1, "acme", 90).await;
    let mut calls = JoinSet::new();
    for key in 0..8 {
        let (giving, taking) = (Arc::clone(&desk), Arc::clone(&desk));
        calls.spawn(async move { giving.money.refund(refund(1, "acme", Some(30), key)).await });
        calls.spawn(async move {
            settled(&taking, 100 + key, "acme", 1).await;
            Err(MoveError::TooMuch { left: -1 })
        });
    }
    let results = calls.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 3);
    assert_eq!(wallet(&desk, "acme").await, (1_000 - 8, 0, 0));
}

pub(super) async fn only_a_settled_request_of_the_app_is_refunded(desk: Arc<Desk>) {
    let unknown = Err(MoveError::Ledger(Error::HoldUnknown));
    assert_eq!(desk.money.refund(refund(1, "acme", None, 1)).await, unknown);
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    desk.ledger.post(topup(8, "other", 1_000)).await.unwrap();
    assert_eq!(desk.money.refund(refund(1, "acme", None, 1)).await, unknown);
    desk.ledger.hold(hold(1, "acme", 90)).await.unwrap();
    assert_eq!(desk.money.refund(refund(1, "acme", None, 1)).await, unknown);
    desk.ledger.settle(settle(&hold(1, "acme", 90), 90)).await.unwrap();
    assert_eq!(desk.money.refund(refund(1, "other", None, 1)).await, unknown);
    let free = hold(2, "acme", 10);
    desk.ledger.hold(free.clone()).await.unwrap();
    desk.ledger.settle(settle(&free, 0)).await.unwrap();
    let nothing = desk.money.refund(refund(2, "acme", None, 1)).await;
    assert_eq!(nothing, Err(MoveError::TooMuch { left: 0 }));
}

pub(super) async fn a_correction_counts_against_what_is_left_to_refund(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    settled(&desk, 1, "acme", 90).await;
    let lower = settle(&hold(1, "acme", 90), 60);
    let correction = Correction {
        settlement: lower,
        sale: SaleCorrection::DownOnly,
        report: None,
        reference: "late usage".to_owned(),
    };
    assert_eq!(desk.ledger.true_up(correction).await.unwrap().given_back, 30);
    let all = desk.money.refund(refund(1, "acme", None, 1)).await.unwrap();
    assert_eq!((all.to_money, all.left), (60, 0));
    assert_eq!(wallet(&desk, "acme").await, (1_000, 0, 0));
    let shown = shown(&*desk.ledger, Uuid::from_u128(1)).await;
    assert!(shown.contains(&"revenue wallet:acme 30 USD".to_owned()), "{shown:?}");
}

/// As of a call whose answer was given while the database was away, and whose hold another node has
/// released by then.
pub(super) async fn what_a_correction_sold_of_a_released_hold_can_be_refunded(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let open = hold(1, "acme", 90);
    desk.ledger.hold(open.clone()).await.unwrap();
    desk.ledger.settle(release(&open)).await.unwrap();
    let unknown = Err(MoveError::Ledger(Error::HoldUnknown));
    assert_eq!(desk.money.refund(refund(1, "acme", None, 1)).await, unknown);
    let late = Correction {
        settlement: settle(&open, 90),
        sale: SaleCorrection::Delivered,
        report: None,
        reference: "settled late".to_owned(),
    };
    assert_eq!(desk.ledger.true_up(late).await.unwrap().given_back, -90);
    let all = desk.money.refund(refund(1, "acme", None, 1)).await.unwrap();
    assert_eq!((all.to_money, all.left), (90, 0));
    let again = desk.money.refund(refund(1, "acme", None, 1)).await.unwrap();
    assert_eq!((again.to_money, again.replayed), (90, true));
    assert_eq!(wallet(&desk, "acme").await, (1_000, 0, 0));
}

/// What a late report charged more is part of what can be refunded, and a report that only says it
/// again takes nothing of the refund back.
pub(super) async fn a_late_charge_can_be_refunded_and_is_not_taken_back(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    settled(&desk, 1, "acme", 90).await;
    let report = |sale, key| Correction {
        settlement: settle(&hold(1, "acme", 90), sale),
        sale: SaleCorrection::BothWays,
        report: Some(Uuid::from_u128(key)),
        reference: "late usage".to_owned(),
    };
    assert_eq!(desk.ledger.true_up(report(95, 1)).await.unwrap().given_back, -5);
    let all = desk.money.refund(refund(1, "acme", None, 1)).await.unwrap();
    assert_eq!((all.to_money, all.left), (95, 0));
    assert_eq!(desk.ledger.true_up(report(95, 2)).await.unwrap().given_back, 0);
    assert_eq!(wallet(&desk, "acme").await, (1_000, 0, 0));
    let again = desk.ledger.true_up(report(95, 1)).await.unwrap();
    assert_eq!((again.given_back, again.replayed), (-5, true), "the first answer again");
}
