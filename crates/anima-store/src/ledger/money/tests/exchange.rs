//! Sales in another currency than the wallet's.

use std::sync::Arc;

use anima_core::ledger::fx::FxRate;
use anima_core::ledger::{Close, PriceRef, Settlement};

use super::*;
use crate::ledger::money::{MarginLine, MarginOf};
use crate::ledger::tests::fixtures::{correction, eur, hold, settle, shown, topup};
use crate::ledger::{Correction, Error, SaleCorrection};

/// 0.5 dollars for a euro, and a tenth on top.
fn rate() -> FxRate {
    FxRate {
        reference: PriceRef { code: "eur-usd".into(), version_no: 4 },
        from: eur(),
        to: Currency::USD,
        digits: 5,
        decimals: 1,
        spread_ppm: 100_000,
    }
}

/// The settlement of a sale of so many euro units.
pub(super) fn converted(hold: &anima_core::ledger::Hold, sale: i64) -> Settlement {
    let owed = rate().convert(sale).unwrap();
    Settlement {
        close: Close::Settle { sale: owed.owed, estimate: false },
        conversion: Some(rate().conversion(sale, owed)),
        ..settle(hold, 0)
    }
}

pub(super) async fn a_sale_is_converted_through_the_position_in_one_journal(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let open = hold(1, "acme", 200);
    desk.ledger.hold(open.clone()).await.unwrap();
    let done = desk.ledger.settle(converted(&open, 200)).await.unwrap();
    assert_eq!((done.charged, done.uncollected), (110, 0));
    assert_eq!(
        shown(&*desk.ledger, open.id).await,
        [
            "wallet:acme fx_position 100 USD",
            "wallet:acme fx_result 10 USD",
            "fx_position revenue 200 EUR",
            "cost_of_sales payable:openai 7 USD"
        ]
    );
    let postings = desk.ledger.postings(open.id).await.unwrap();
    assert_eq!(postings[0].price, Some(("eur-usd".to_owned(), 4)));
    assert_eq!(postings[2].price, Some(("sale".to_owned(), 3)));
    assert!(postings.iter().all(|p| p.journal == postings[0].journal));
    assert!(desk.ledger.settle(converted(&open, 200)).await.unwrap().replayed);
    assert_eq!(desk.ledger.settle(settle(&open, 110)).await, Err(Error::Conflict));
    assert_eq!(wallet(&desk, "acme").await, (890, 0, 0));
}

pub(super) async fn what_cannot_be_collected_is_converted_in_proportion(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 55)).await.unwrap();
    let open = hold(1, "acme", 55);
    desk.ledger.hold(open.clone()).await.unwrap();
    let done = desk.ledger.settle(converted(&open, 200)).await.unwrap();
    assert_eq!((done.charged, done.uncollected), (55, 55));
    assert_eq!(
        shown(&*desk.ledger, open.id).await[..4],
        [
            "wallet:acme fx_position 50 USD",
            "wallet:acme fx_result 5 USD",
            "fx_position revenue 100 EUR",
            "exposure revenue 100 EUR"
        ]
    );
    let margin = desk.money.margin(MarginOf::Request(open.id)).await.unwrap();
    let sold = |line: &MarginLine| (line.revenue, line.uncollected, line.waste);
    let euros = margin.iter().find(|line| line.currency == eur()).unwrap();
    assert_eq!(sold(euros), (200, 100, 0));
    // Worth 160 and not 200: what is paid covers 100 of them, so 60 are lacking.
    let less = desk.ledger.true_up(correction(converted(&open, 160))).await.unwrap();
    assert_eq!(less.given_back, 0);
    assert_eq!(shown(&*desk.ledger, open.id).await[5..], ["revenue exposure 40 EUR"]);
}

pub(super) async fn a_conversion_with_credit_is_settled_once(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    desk.money.grant(grant(51, "acme", 60, 1)).await.unwrap();
    let open = hold(1, "acme", 200);
    desk.ledger.hold(open.clone()).await.unwrap();
    desk.ledger.settle(converted(&open, 200)).await.unwrap();
    assert_eq!(
        shown(&*desk.ledger, open.id).await[..4],
        [
            "promo:acme fx_position 60 USD",
            "wallet:acme fx_position 40 USD",
            "wallet:acme fx_result 10 USD",
            "fx_position revenue 200 EUR"
        ]
    );
    let all = desk.money.refund(refund(1, "acme", None, 1)).await.unwrap();
    assert_eq!((all.to_money, all.to_promo), (50, 60));
    assert_eq!(wallet(&desk, "acme").await, (1_000, 60, 0));
    let mut wrong = converted(&hold(2, "acme", 1), 200);
    wrong.close = Close::Settle { sale: 99, estimate: false };
    assert!(matches!(desk.ledger.settle(wrong).await, Err(Error::Refused(_))));
}

pub(super) async fn a_correction_upward_is_converted_too(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let open = hold(2, "acme", 200);
    desk.ledger.hold(open.clone()).await.unwrap();
    desk.ledger.settle(converted(&open, 200)).await.unwrap();
    let sale = SaleCorrection::BothWays;
    let more = Correction { sale, ..correction(converted(&open, 300)) };
    assert_eq!(desk.ledger.true_up(more.clone()).await.unwrap().given_back, -55);
    assert!(desk.ledger.true_up(more).await.unwrap().replayed);
    assert_eq!(
        shown(&*desk.ledger, open.id).await[4..],
        [
            "wallet:acme fx_position 50 USD",
            "wallet:acme fx_result 5 USD",
            "fx_position revenue 100 EUR"
        ]
    );
    let less = Correction { sale, ..correction(converted(&open, 100)) };
    assert_eq!(desk.ledger.true_up(less).await.unwrap().given_back, 110);
    assert_eq!(wallet(&desk, "acme").await, (945, 0, 0));
}
