//! The worked example of `docs/ledger.md`, and the document's own queries on it.
//!
//! Invariant: every query in the document runs on both databases and gives the figures it claims.

use anima_core::ledger::{Account, AttemptCost, Close, Component, Leg, Settlement};
use anima_core::money::Currency;
use anima_core::usage::{Meter, Usage, UsageSource};

use super::damage::Place;
use super::fixtures::*;
use crate::ledger::session::{Failed, Mode, Session, Work};

const DOCUMENT: &str = include_str!("../../../../../docs/ledger.md");

/// Runs one of the document's queries; each row as it shows.
#[derive(Debug, Clone)]
struct Query(&'static str);

impl Work for Query {
    type Output = Vec<String>;

    const MODE: Mode = Mode::Read;

    async fn run(&self, session: &mut Session<'_>) -> Result<Vec<String>, Failed> {
        let rows = session.query(self.0, &[]).await?;
        Ok(rows.iter().map(|row| format!("{row:?}")).collect())
    }
}

fn queries() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```sql\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

/// The example, step by step.
async fn example(place: &impl Place) {
    let ledger = place.ledger();
    let mut paid = topup(9, "acme", 10_000_000_000);
    paid.legs.push(Leg {
        debit: Account::PaymentFees,
        credit: Account::PspClearing,
        amount: 590_000_000,
        component: Component::Fee,
        ..paid.legs[0].clone()
    });
    ledger.post(paid).await.unwrap();
    let held = hold(1, "acme", 13_000_000);
    ledger.hold(held.clone()).await.unwrap();
    assert_eq!(wallet(&*ledger, "acme").await, (10_000_000_000, 13_000_000, 0));
    let cost = |amount, estimate| {
        Some(AttemptCost { amount, currency: Currency::USD, price: price("cost"), estimate })
    };
    let mut north = attempt(1, false, 0);
    north.channel = "north".into();
    north.usage = Usage::default().with(Meter::InputTokens, 1_200);
    north.usage_source = UsageSource::Counted;
    north.cost = cost(3_600_000, true);
    let mut south = attempt(2, true, 0);
    south.channel = "south".into();
    south.usage = north.usage.with(Meter::OutputTokens, 350);
    south.cost = cost(5_200_000, false);
    let settlement = Settlement {
        close: Close::Settle { sale: 6_500_000, estimate: false },
        attempts: vec![north, south],
        ..settle(&held, 0)
    };
    ledger.settle(settlement).await.unwrap();
    assert_eq!(wallet(&*ledger, "acme").await, (9_993_500_000, 0, 0));
}

pub(super) async fn each_query_gives_what_the_document_says(place: &impl Place) {
    example(place).await;
    let mut answers = Vec::new();
    for query in queries() {
        answers.push(place.books().run(Query(query)).await.unwrap());
    }
    let wanted: [(usize, &[&str]); 6] = [
        (1, &["9993500000"]),
        (1, &["9993500000"]),
        (8, &["590000000", "10000000000", "6500000", "5200000", "3600000"]),
        (3, &["payable_estimated:north", "payable:south", "wallet:acme"]),
        (4, &["6500000", "-5200000", "-3600000", "-590000000"]),
        (2, &["5200000", "3600000"]),
    ];
    assert_eq!(answers.len(), wanted.len());
    for (answer, (rows, figures)) in answers.iter().zip(wanted) {
        assert_eq!(answer.len(), rows, "{answer:#?}");
        let shown = answer.join("\n");
        for figure in figures {
            assert!(shown.contains(&format!("\"{figure}\"")), "{figure} is not in {shown}");
        }
    }
}
