//! Promotional credit.

use std::sync::Arc;

use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;
use crate::ledger::money::GrantState;
use crate::ledger::tests::fixtures::{hold, release, settle, shown, topup};
use crate::ledger::{Correction, Error, SaleCorrection};

/// What is left of each grant, by expiry.
async fn lefts(desk: &Desk) -> Vec<i64> {
    let grants = desk.money.grants("acme", Currency::USD).await.unwrap();
    grants.iter().map(GrantState::left).collect()
}

fn at_hour(hours: i64) -> Timestamp {
    NOON.plus_millis(hours * 3_600_000)
}

pub(super) async fn credit_is_used_before_money_and_the_first_to_expire_first(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 100)).await.unwrap();
    desk.money.grant(grant(51, "acme", 30, 48)).await.unwrap();
    desk.money.grant(grant(52, "acme", 20, 24)).await.unwrap();
    assert_eq!(wallet(&desk, "acme").await, (100, 50, 0));
    settled(&desk, 1, "acme", 25).await;
    assert_eq!(lefts(&desk).await, [0, 25]);
    assert_eq!(
        shown(&*desk.ledger, Uuid::from_u128(1)).await,
        ["promo:acme revenue 25 USD", "cost_of_sales payable:openai 7 USD"]
    );
    settled(&desk, 2, "acme", 40).await;
    assert_eq!(
        shown(&*desk.ledger, Uuid::from_u128(2)).await[..2],
        ["promo:acme revenue 25 USD", "wallet:acme revenue 15 USD"]
    );
    assert_eq!(wallet(&desk, "acme").await, (85, 0, 0));
    settled(&desk, 3, "acme", 5).await;
    assert_eq!(wallet(&desk, "acme").await, (80, 0, 0));
    assert_eq!(shown(&*desk.ledger, Uuid::from_u128(51)).await, ["promo_cost promo:acme 30 USD"]);
}

pub(super) async fn a_hold_may_use_credit_and_money_together_and_never_more(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 10)).await.unwrap();
    desk.money.grant(grant(51, "acme", 10, 24)).await.unwrap();
    let refused = desk.ledger.hold(hold(1, "acme", 21)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 20 }));
    let both = hold(2, "acme", 20);
    desk.ledger.hold(both.clone()).await.unwrap();
    let refused = desk.ledger.hold(hold(3, "acme", 1)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 0 }));
    let settled = desk.ledger.settle(settle(&both, 33)).await.unwrap();
    assert_eq!((settled.charged, settled.uncollected), (20, 13));
    let again = desk.ledger.settle(settle(&both, 33)).await.unwrap();
    assert!(again.replayed && again.charged == 20);
    assert_eq!(wallet(&desk, "acme").await, (0, 0, 0));
}

pub(super) async fn parallel_holds_never_pass_on_more_than_money_and_credit(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 400)).await.unwrap();
    desk.money.grant(grant(51, "acme", 300, 24)).await.unwrap();
    desk.money.grant(grant(52, "acme", 300, 25)).await.unwrap();
    let mut calls = JoinSet::new();
    for n in 0..300_u128 {
        let desk = Arc::clone(&desk);
        calls.spawn(async move {
            let hold = hold(100 + n, "acme", 10);
            if desk.ledger.hold(hold.clone()).await.is_err() {
                return 0;
            }
            let end = if n % 7 == 0 { release(&hold) } else { settle(&hold, 10) };
            desk.ledger.settle(end).await.unwrap().charged
        });
    }
    let charged: i64 = calls.join_all().await.into_iter().sum();
    let (money, credit, held) = wallet(&desk, "acme").await;
    assert_eq!((money + credit + charged, held), (1_000, 0));
    assert!(money >= 0 && credit >= 0);
}

pub(super) async fn a_grant_happens_once(desk: Arc<Desk>) {
    let first = desk.money.grant(grant(51, "acme", 30, 48)).await.unwrap();
    let again = desk.money.grant(grant(51, "acme", 30, 48)).await.unwrap();
    assert!(again.replayed && again.journal == first.journal);
    for other in [
        grant(51, "acme", 31, 48),
        grant(51, "acme", 30, 49),
        Grant { sold: true, ..grant(51, "acme", 30, 48) },
    ] {
        assert_eq!(desk.money.grant(other).await, Err(Error::Conflict));
    }
    let late = Grant { at: at_hour(48), ..grant(52, "acme", 30, 48) };
    assert!(matches!(desk.money.grant(late).await, Err(Error::Refused(_))));
    assert_eq!(wallet(&desk, "acme").await, (0, 30, 0));
}

pub(super) async fn expired_credit_is_for_no_new_call_and_is_posted_back_once(desk: Arc<Desk>) {
    desk.money.grant(grant(51, "acme", 30, 1)).await.unwrap();
    desk.money.grant(grant(52, "acme", 10, 9)).await.unwrap();
    settled(&desk, 1, "acme", 5).await;
    let mut late = hold(2, "acme", 11);
    late.created_at = at_hour(1);
    let refused = desk.ledger.hold(late).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 10 }));
    assert!(desk.money.expire_promo(at_hour(0)).await.unwrap().is_empty());
    let (one, two) =
        tokio::join!(desk.money.expire_promo(at_hour(2)), desk.money.expire_promo(at_hour(2)));
    let expired: Vec<_> = one.unwrap().into_iter().chain(two.unwrap()).collect();
    assert_eq!(expired.iter().map(|e| e.amount.units).collect::<Vec<_>>(), [25]);
    assert_eq!(
        shown(&*desk.ledger, Uuid::from_u128(51)).await,
        ["promo_cost promo:acme 30 USD", "promo:acme promo_cost 25 USD"]
    );
    assert!(desk.money.expire_promo(at_hour(3)).await.unwrap().is_empty());
    assert_eq!(lefts(&desk).await, [0, 10]);
}

pub(super) async fn what_open_calls_reserved_expires_after_them(desk: Arc<Desk>) {
    desk.money.grant(grant(51, "acme", 30, 1)).await.unwrap();
    let open = hold(1, "acme", 20);
    desk.ledger.hold(open.clone()).await.unwrap();
    let expired = desk.money.expire_promo(at_hour(2)).await.unwrap();
    assert_eq!(expired.iter().map(|e| e.amount.units).collect::<Vec<_>>(), [10]);
    assert_eq!(desk.ledger.settle(settle(&open, 15)).await.unwrap().charged, 15);
    let expired = desk.money.expire_promo(at_hour(2)).await.unwrap();
    assert_eq!(expired.iter().map(|e| e.amount.units).collect::<Vec<_>>(), [5]);
    assert_eq!(wallet(&desk, "acme").await, (0, 0, 0));
}

pub(super) async fn sold_credit_that_expires_is_income(desk: Arc<Desk>) {
    let sold = Grant { sold: true, ..grant(51, "acme", 30, 1) };
    desk.money.grant(sold).await.unwrap();
    desk.money.expire_promo(at_hour(2)).await.unwrap();
    assert_eq!(
        shown(&*desk.ledger, Uuid::from_u128(51)).await,
        ["psp_clearing promo:acme 30 USD", "promo:acme breakage 30 USD"]
    );
}

pub(super) async fn a_refund_gives_credit_back_to_its_grant(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 100)).await.unwrap();
    desk.money.grant(grant(51, "acme", 10, 1)).await.unwrap();
    desk.money.grant(grant(52, "acme", 10, 2)).await.unwrap();
    settled(&desk, 1, "acme", 25).await;
    let first = desk.money.refund(refund(1, "acme", Some(7), 1)).await.unwrap();
    assert_eq!((first.to_money, first.to_promo, first.left), (5, 2, 18));
    assert_eq!(lefts(&desk).await, [0, 2]);
    let rest = desk.money.refund(refund(1, "acme", None, 2)).await.unwrap();
    assert_eq!((rest.to_money, rest.to_promo, rest.left), (0, 18, 0));
    assert_eq!(wallet(&desk, "acme").await, (100, 20, 0));
    let expired = desk.money.expire_promo(at_hour(1)).await.unwrap();
    assert_eq!(expired.iter().map(|e| e.amount.units).collect::<Vec<_>>(), [10]);
}

pub(super) async fn a_correction_gives_credit_back_to_its_grant(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 100)).await.unwrap();
    desk.money.grant(grant(51, "acme", 10, 1)).await.unwrap();
    desk.money.grant(grant(52, "acme", 10, 2)).await.unwrap();
    settled(&desk, 1, "acme", 25).await;
    let correction = Correction {
        settlement: settle(&hold(1, "acme", 25), 4),
        sale: SaleCorrection::DownOnly,
        report: None,
        reference: "late usage".to_owned(),
    };
    assert_eq!(desk.ledger.true_up(correction.clone()).await.unwrap().given_back, 21);
    assert_eq!(wallet(&desk, "acme").await, (100, 16, 0));
    assert_eq!(lefts(&desk).await, [6, 10]);
    assert!(desk.ledger.true_up(correction).await.unwrap().replayed);
    let rest = desk.money.refund(refund(1, "acme", None, 2)).await.unwrap();
    assert_eq!((rest.to_money, rest.to_promo), (0, 4));
    assert_eq!(wallet(&desk, "acme").await, (100, 20, 0));
}

pub(super) async fn what_is_charged_later_is_taken_of_credit_first(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 100)).await.unwrap();
    desk.money.grant(grant(51, "acme", 10, 1)).await.unwrap();
    desk.money.grant(grant(52, "acme", 10, 2)).await.unwrap();
    settled(&desk, 1, "acme", 5).await;
    let told = |sale| Correction {
        settlement: settle(&hold(1, "acme", 5), sale),
        sale: SaleCorrection::BothWays,
        report: None,
        reference: "late usage".to_owned(),
    };
    // Of the grant that the settlement used, then of the other, then of the money.
    assert_eq!(desk.ledger.true_up(told(12)).await.unwrap().given_back, -7);
    assert_eq!((lefts(&desk).await, wallet(&desk, "acme").await), (vec![0, 8], (100, 8, 0)));
    assert_eq!(desk.ledger.true_up(told(30)).await.unwrap().given_back, -18);
    assert_eq!((lefts(&desk).await, wallet(&desk, "acme").await), (vec![0, 0], (90, 0, 0)));
    assert_eq!(
        shown(&*desk.ledger, Uuid::from_u128(1)).await,
        [
            "promo:acme revenue 5 USD",
            "cost_of_sales payable:openai 7 USD",
            "promo:acme revenue 7 USD",
            "promo:acme revenue 8 USD",
            "wallet:acme revenue 10 USD",
        ]
    );
    // And it all goes back to where it came from, the money first.
    assert_eq!(desk.ledger.true_up(told(11)).await.unwrap().given_back, 19);
    assert_eq!((lefts(&desk).await, wallet(&desk, "acme").await), (vec![0, 9], (100, 9, 0)));
    // Credit that had expired when the call was made is not for it; what others hold is theirs.
    desk.money.grant(Grant { expires_at: NOON, ..grant(53, "acme", 40, 1) }).await.unwrap();
    desk.ledger.hold(hold(2, "acme", 60)).await.unwrap();
    assert_eq!(desk.ledger.true_up(told(500)).await.unwrap().given_back, -49);
    assert_eq!(wallet(&desk, "acme").await, (60, 40, 60));
    desk.ledger.settle(release(&hold(2, "acme", 60))).await.unwrap();
}

pub(super) async fn credit_cannot_be_withdrawn(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 10)).await.unwrap();
    desk.money.grant(grant(51, "acme", 100, 1)).await.unwrap();
    let refused = desk.ledger.post(topup(8, "acme", -11)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 10 }));
    desk.ledger.hold(hold(1, "acme", 105)).await.unwrap();
    let refused = desk.ledger.post(topup(8, "acme", -6)).await;
    assert_eq!(refused, Err(Error::InsufficientFunds { available: 5 }));
    desk.ledger.post(topup(8, "acme", -5)).await.unwrap();
    assert_eq!(wallet(&desk, "acme").await, (5, 100, 105));
}

pub(super) async fn an_extension_may_use_credit(desk: Arc<Desk>) {
    use anima_core::ledger::Extension;
    desk.money.grant(grant(51, "acme", 50, 1)).await.unwrap();
    let open = hold(1, "acme", 20);
    desk.ledger.hold(open.clone()).await.unwrap();
    let to = |amount| Extension {
        hold: open.id,
        app: "acme".into(),
        currency: Currency::USD,
        amount,
        floor: 0,
    };
    assert_eq!(desk.ledger.extend(to(51)).await, Err(Error::InsufficientFunds { available: 30 }));
    desk.ledger.extend(to(50)).await.unwrap();
    assert_eq!(desk.ledger.settle(settle(&open, 50)).await.unwrap().charged, 50);
    assert_eq!(wallet(&desk, "acme").await, (0, 0, 0));
}
