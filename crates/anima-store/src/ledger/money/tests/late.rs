//! What is sold after its hold was released: an answer that was given while the database was away.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::config::{LimitKind, Window};
use anima_core::money::Currency;
use anima_core::quota::{Counter, RuleName, Scope, Span, Tag};

use super::*;
use crate::ledger::tests::fixtures::{hold, release, settle, topup};
use crate::ledger::{Correction, SaleCorrection};

/// What the budgets of the app and of the key of its calls are seeded with.
async fn spent(desk: &Desk, besides: &[Uuid]) -> [i64; 2] {
    let of = |scope, code: &str| Counter {
        scope,
        code: code.into(),
        rule: RuleName {
            kind: LimitKind::Cost,
            count: None,
            window: Some(Window::Total),
            currency: Some(Currency::USD),
            rate: None,
            shadow: false,
        },
    };
    let kid = hold(1, "acme", 1).kid;
    let (app, key) = (of(Scope::App, "acme"), of(Scope::Key, &kid));
    let span = Span { from: Timestamp::from_micros(0), to: Timestamp::from_micros(i64::MAX) };
    let tag = Tag::App("acme".into());
    let mut all = [0; 2];
    for (counter, units) in [app, key].iter().zip(&mut all) {
        *units = desk.spend.spent_besides((counter, &tag, span), besides).await.unwrap();
    }
    all
}

fn late(n: u128, sale: i64, correction: SaleCorrection) -> Correction {
    Correction {
        settlement: settle(&hold(n, "acme", 90), sale),
        sale: correction,
        report: None,
        reference: "settled late".to_owned(),
    }
}

pub(super) async fn what_was_sold_late_is_sold_and_spent(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    desk.money.grant(grant(51, "acme", 30, 48)).await.unwrap();
    let opens = [1, 2].map(|n| hold(n, "acme", 90));
    for open in &opens {
        desk.ledger.hold(open.clone()).await.unwrap();
    }
    assert_eq!(spent(&desk, &[]).await, [180; 2], "with all that is held");
    for open in &opens {
        desk.ledger.settle(release(open)).await.unwrap();
    }
    assert_eq!(spent(&desk, &[]).await, [0; 2]);
    let is_sold = async |n| desk.money.request(Uuid::from_u128(n)).await.unwrap().unwrap().is_sold;
    assert!(!is_sold(1).await);
    desk.ledger.true_up(late(1, 80, SaleCorrection::Delivered)).await.unwrap();
    // Nobody asked for this one to be sold: only its cost is booked.
    desk.ledger.true_up(late(2, 80, SaleCorrection::BothWays)).await.unwrap();
    assert_eq!((is_sold(1).await, is_sold(2).await), (true, false));
    assert_eq!(wallet(&desk, "acme").await, (950, 0, 0));
    assert_eq!(spent(&desk, &[]).await, [80; 2], "money and credit");
    assert_eq!(spent(&desk, &[Uuid::from_u128(1)]).await, [0; 2]);
    // Later knowledge gives some back, then all.
    desk.ledger.true_up(late(1, 70, SaleCorrection::DownOnly)).await.unwrap();
    assert_eq!((spent(&desk, &[]).await, is_sold(1).await), ([70; 2], true));
    desk.ledger.true_up(late(1, 0, SaleCorrection::DownOnly)).await.unwrap();
    assert_eq!((spent(&desk, &[]).await, is_sold(1).await), ([0; 2], false));
}

pub(super) async fn a_conversion_that_was_sold_late_is_spent_once(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let open = hold(1, "acme", 200);
    desk.ledger.hold(open.clone()).await.unwrap();
    desk.ledger.settle(release(&open)).await.unwrap();
    let settlement = exchange::converted(&open, 200);
    let sale = SaleCorrection::Delivered;
    desk.ledger.true_up(Correction { settlement, ..late(1, 0, sale) }).await.unwrap();
    assert_eq!(wallet(&desk, "acme").await, (890, 0, 0));
    assert_eq!(spent(&desk, &[]).await, [110; 2]);
}
