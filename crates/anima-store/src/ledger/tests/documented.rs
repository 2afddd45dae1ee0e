//! The worked example of `docs/ledger.md`, and the document's own queries on it.
//!
//! Invariant: every query in the document runs on both databases and gives the figures it claims.

use std::collections::BTreeSet;

use anima_core::ledger::{
    Account, AttemptCost, Close, Component, EntryKind, Leg, Normal, Settlement,
};
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

/// The cells of a section's table, without its head.
fn table(section: &str) -> Vec<Vec<&'static str>> {
    let text = DOCUMENT.split(&format!("## {section}\n")).nth(1).unwrap();
    let rows = text.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with('|'));
    rows.skip(2).map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The numbers in a text.
fn numbers(text: &str) -> BTreeSet<i16> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn the_documents_chart_is_the_programs() {
    let rows = table("Chart of accounts");
    let codes: BTreeSet<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!((rows.len(), codes.len()), (16, 16), "accounts are missing or twice");
    for row in rows {
        let account = Account::parse(row[0].trim_matches('`')).expect(row[0]);
        let normal = if account.normal() == Normal::Debit { "debit" } else { "credit" };
        assert_eq!((row[1], row[2]), (account.class().to_string().as_str(), normal), "{account}");
    }
}

#[test]
fn the_documents_events_are_all_kinds_with_all_components() {
    let rows = table("What each event posts");
    let of = |column: usize| -> BTreeSet<i16> {
        rows.iter().flat_map(|row| numbers(row[column])).collect()
    };
    assert_eq!(of(1), EntryKind::ALL.iter().map(|kind| kind.number()).collect());
    assert_eq!(of(4), Component::ALL.iter().map(|component| component.number()).collect());
    let sides = rows.iter().flat_map(|row| [row[2], row[3]]);
    let codes = sides.flat_map(|side| side.split('`').skip(1).step_by(2));
    codes.for_each(|code| assert!(Account::parse(code).is_some(), "{code}"));
}
