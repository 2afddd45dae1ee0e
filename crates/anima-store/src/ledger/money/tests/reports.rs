//! Statements, payables, margins, and the trial balance of an earlier instant.

use std::sync::Arc;

use anima_core::ledger::{EntryKind, Settlement};
use uuid::Uuid;

use super::*;
use crate::ledger::money::{
    Age, EstimatedDay, EstimatesOf, Invoice, InvoicedDay, LineKind, MarginOf, Sums,
};
use crate::ledger::tests::fixtures::{attempt, correction, eur, hold, release, settle, topup};
use crate::ledger::{Correction, Error, SaleCorrection};

pub(super) async fn a_statement_adds_up_and_months_follow_one_another(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    desk.ledger.post(topup(7, "other", 1_000)).await.unwrap();
    desk.money.grant(grant(51, "acme", 30, 48)).await.unwrap();
    settled(&desk, 1, "acme", 50).await;
    settled(&desk, 2, "acme", 10).await;
    settled(&desk, 3, "other", 10).await;
    let mut other_model = hold(4, "acme", 10);
    other_model.alias = "claude".into();
    desk.ledger.hold(other_model.clone()).await.unwrap();
    desk.ledger.settle(settle(&other_model, 10)).await.unwrap();
    desk.money.refund(refund(1, "acme", Some(20), 1)).await.unwrap();
    desk.ledger.post(topup(8, "acme", -5)).await.unwrap();
    let period = around_now();
    let statement = desk.money.statement(period.clone()).await.unwrap();
    assert_eq!(statement.opening, Sums::default());
    assert_eq!(statement.closing, Sums { money: 975, promo: 0 });
    let lines: Vec<_> = statement
        .lines
        .iter()
        .map(|l| (l.kind, l.model.as_deref(), l.count, l.amount.money, l.amount.promo))
        .collect();
    let entry = LineKind::Entry;
    assert_eq!(
        lines,
        [
            (LineKind::Sales, Some("claude"), 1, -10, 0),
            (LineKind::Sales, Some("gpt"), 2, -30, -30),
            (entry(EntryKind::Topup), None, 1, 1_000, 0),
            (entry(EntryKind::PromoGrant), None, 1, 0, 30),
            (entry(EntryKind::Refund), Some("gpt"), 1, 20, 0),
            (entry(EntryKind::Adjust), None, 1, -5, 0),
        ]
    );
    let next = Period { from: period.to, to: period.to.plus_millis(1_000), ..period.clone() };
    let next = desk.money.statement(next).await.unwrap();
    assert_eq!((next.opening, next.closing), (statement.closing, statement.closing));
    assert!(next.lines.is_empty());
    let before = Period { from: period.from.plus_millis(-9), to: period.from, ..period };
    assert_eq!(desk.money.statement(before).await.unwrap().closing, Sums::default());
}

pub(super) async fn a_statement_of_nobody_is_empty(desk: Arc<Desk>) {
    let statement = desk.money.statement(around_now()).await.unwrap();
    assert_eq!((statement.opening, statement.closing), (Sums::default(), Sums::default()));
    assert!(statement.lines.is_empty());
}

pub(super) async fn payables_are_apart_by_confirmation_and_currency(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let open = hold(1, "acme", 50);
    desk.ledger.hold(open.clone()).await.unwrap();
    let mut foreign = attempt(2, true, 33);
    foreign.cost.as_mut().unwrap().currency = eur();
    let mut settlement = settle(&open, 50);
    settlement.attempts = vec![attempt(1, false, 3), foreign];
    desk.ledger.settle(settlement).await.unwrap();
    let payables = desk.money.payables(around_now().to).await.unwrap();
    let shown: Vec<_> = payables
        .iter()
        .map(|p| (p.channel.as_str(), p.currency, p.confirmed, p.estimated))
        .collect();
    let age = |new| Age { new, ..Age::default() };
    assert_eq!(
        shown,
        [("openai", eur(), age(33), age(0)), ("openai", Currency::USD, age(0), age(3))]
    );
    let later = around_now().to.plus_millis(40 * 86_400_000);
    let old = desk.money.payables(later).await.unwrap();
    assert_eq!(old[0].confirmed, Age { older: 33, ..Age::default() });
}

pub(super) async fn a_margin_is_what_is_left_of_the_sale(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    desk.money.grant(grant(51, "acme", 20, 48)).await.unwrap();
    let open = hold(1, "acme", 90);
    desk.ledger.hold(open.clone()).await.unwrap();
    let mut failed = attempt(1, false, 3);
    failed.channel = "azure".into();
    let mut settlement = settle(&open, 90);
    settlement.attempts = vec![failed, attempt(2, true, 40)];
    desk.ledger.settle(settlement).await.unwrap();
    desk.money.refund(refund(1, "acme", Some(10), 1)).await.unwrap();
    settled(&desk, 2, "acme", 5).await;
    let lines = desk.money.margin(MarginOf::Request(Uuid::from_u128(1))).await.unwrap();
    let shown: Vec<_> = lines
        .iter()
        .map(|l| (l.channel.as_str(), l.revenue, l.refunds, l.cost, l.waste, l.margin(), l.sales))
        .collect();
    assert_eq!(shown, [("azure", 0, 0, 0, 3, -3, 0), ("openai", 90, 10, 40, 0, 40, 1)]);
    let period = around_now();
    let all = desk.money.margin(MarginOf::Posted(period.from, period.to)).await.unwrap();
    let openai = all.iter().find(|l| l.channel == "openai").unwrap();
    assert_eq!((openai.revenue, openai.cost, openai.sales), (95, 47, 2));
    assert_eq!((openai.alias.as_str(), openai.app.as_str()), ("gpt", "acme"));
    let none = desk.money.margin(MarginOf::Posted(period.to, period.to)).await.unwrap();
    assert!(none.is_empty());
}

pub(super) async fn the_trial_balance_of_an_earlier_instant_leaves_out_what_came_later(
    desk: Arc<Desk>,
) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    settled(&desk, 1, "acme", 90).await;
    let period = around_now();
    assert!(desk.money.trial_balance_at(period.from).await.unwrap().is_empty());
    let now = desk.money.trial_balance_at(period.to).await.unwrap();
    assert_eq!(now, desk.ledger.trial_balance().await.unwrap());
    assert_eq!(now.iter().find(|l| l.account == "wallet:acme").unwrap().debits, 90);
}

pub(super) async fn a_report_confirms_the_attempts_that_it_names(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let open = hold(2, "acme", 50);
    desk.ledger.hold(open.clone()).await.unwrap();
    assert_eq!(desk.money.request(open.id).await.unwrap(), None);
    let mut settlement = settle(&open, 50);
    settlement.attempts = vec![attempt(1, false, 3), attempt(2, false, 5), attempt(3, true, 33)];
    desk.ledger.settle(settlement).await.unwrap();
    let all = EstimatesOf { limit: 10, ..EstimatesOf::default() };
    let of = |channel: &str| EstimatesOf { channel: Some(channel.to_owned()), ..all.clone() };
    let estimates = desk.money.estimates(of("openai")).await.unwrap();
    let shown: Vec<_> = estimates.iter().map(|e| (e.request, e.attempt, e.amount)).collect();
    assert_eq!(shown, [(open.id, Some(1), 3), (open.id, Some(2), 5)]);
    assert_eq!(desk.money.estimates(of("azure")).await.unwrap(), []);
    let first = EstimatesOf { limit: 1, ..all.clone() };
    assert_eq!(desk.money.estimates(first).await.unwrap().len(), 1);
    // By when the calls began, and not by when they were booked.
    let from = |from| EstimatesOf { from: Some(from), ..all.clone() };
    let until = |to| EstimatesOf { to: Some(to), ..all.clone() };
    for (wanted, count) in [(from(NOON), 2), (until(NOON), 0), (until(NOON.plus_millis(1)), 2)] {
        assert_eq!(desk.money.estimates(wanted).await.unwrap().len(), count);
    }
    let euros = EstimatesOf { currency: Some(eur()), ..all.clone() };
    assert_eq!(desk.money.estimates(euros).await.unwrap(), []);
    let days = desk.money.estimated_days(all.clone()).await.unwrap();
    let (channel, day) = ("openai".to_owned(), NOON.seconds() / 86_400);
    let whole = EstimatedDay { channel, currency: Currency::USD, day, calls: 2, amount: 8 };
    assert_eq!(days, [whole]);
    let request = desk.money.request(open.id).await.unwrap().unwrap();
    assert_eq!((&*request.app, request.is_sold, &request.fx), ("acme", true, &open.fx));
    assert_eq!((&request.sale_price, request.multiplier), (&open.sale_price, open.multiplier));
    let costs: Vec<_> = request.attempts.iter().map(|a| (a.n, a.served, a.cost.clone())).collect();
    let wanted = [attempt(1, false, 3), attempt(2, false, 5), attempt(3, true, 33)];
    assert_eq!(costs, wanted.map(|a| (a.n, a.served, a.cost)));
    let report = |key: u128, amount| {
        let mut told = request.attempts[0].clone();
        let cost = told.cost.as_mut().unwrap();
        (cost.amount, cost.estimate) = (amount, false);
        Correction {
            sale: SaleCorrection::Keep,
            report: Some(Uuid::from_u128(key)),
            ..correction(Settlement { attempts: vec![told], ..release(&open) })
        }
    };
    let done = desk.ledger.true_up(report(7, 4)).await.unwrap();
    assert_eq!((done.journal.is_some(), done.given_back, done.replayed), (true, 0, false));
    assert!(desk.ledger.true_up(report(7, 4)).await.unwrap().replayed);
    assert_eq!(desk.ledger.true_up(report(7, 5)).await, Err(Error::Conflict));
    let estimates = desk.money.estimates(all).await.unwrap();
    assert_eq!((estimates.len(), estimates[0].attempt), (1, Some(2)));
    // Up, and down again to what was said before: each report counts.
    for (key, amount) in [(8, 6), (9, 4)] {
        let done = desk.ledger.true_up(report(key, amount)).await.unwrap();
        assert!(done.journal.is_some() && !done.replayed);
    }
    let payables = desk.money.payables(around_now().to).await.unwrap();
    assert_eq!((payables[0].confirmed.all(), payables[0].estimated.all()), (33 + 4, 5));
    assert_eq!(wallet(&desk, "acme").await, (950, 0, 0));
    let unnamed = Correction { report: None, ..report(1, 1) };
    assert!(matches!(desk.ledger.true_up(unnamed).await, Err(Error::Refused(_))));
}

/// A tenth of a cent.
const MILL: i64 = 1_000_000;

/// Billed, confirmed, estimated, in mills, and whether that is off.
fn compared(days: &[InvoicedDay]) -> Vec<(i64, i64, i64, bool)> {
    let mills = |d: &InvoicedDay| (d.billed / MILL, d.confirmed / MILL, d.estimated / MILL);
    let compared = |d| (mills(d), d.is_off());
    days.iter().map(compared).map(|((b, c, e), off)| (b, c, e, off)).collect()
}

pub(super) async fn an_invoice_is_compared_with_all_that_its_day_cost(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    // As requests are numbered: by the millisecond in which they came.
    let open = hold((u128::try_from(NOON.millis()).unwrap() << 80) | 1, "acme", 50);
    desk.ledger.hold(open.clone()).await.unwrap();
    let mut foreign = attempt(3, false, 33);
    foreign.cost.as_mut().unwrap().currency = eur();
    let mut settlement = settle(&open, 50);
    settlement.attempts =
        vec![attempt(1, false, 400 * MILL), attempt(2, true, 1_600 * MILL), foreign];
    desk.ledger.settle(settlement.clone()).await.unwrap();
    let day = NOON.seconds() / 86_400;
    let bill = |days: &[(i64, i64)]| Invoice {
        channel: "openai".into(),
        currency: Currency::USD,
        reference: "bill 7".to_owned(),
        days: days.iter().map(|(day, mills)| (*day, mills * MILL)).collect(),
        at: NOON,
    };
    for _ in 0..2 {
        let days = desk.money.note_invoice(bill(&[(day, 2_010), (day + 1, 0)])).await.unwrap();
        assert_eq!(compared(&days), [(2_010, 1_600, 400, false), (0, 0, 0, false)]);
        assert_eq!(days[0].difference(), 10 * MILL);
    }
    // A corrected figure counts, and only that.
    let days = desk.money.note_invoice(bill(&[(day, 2_100)])).await.unwrap();
    assert_eq!(compared(&days), [(2_100, 1_600, 400, true)]);
    // Also when the first is sent again, late.
    let days = desk.money.note_invoice(bill(&[(day, 2_010)])).await.unwrap();
    assert_eq!(compared(&days), [(2_100, 1_600, 400, true)]);
    let all = desk.money.invoices(Some("openai"), 10).await.unwrap();
    assert_eq!(compared(&all), [(0, 0, 0, false), (2_100, 1_600, 400, true)]);
    assert_eq!((all[1].day, all[1].reference.as_str(), all[1].noted_at), (day, "bill 7", NOON));
    assert_eq!(desk.money.invoices(Some("azure"), 10).await.unwrap(), []);
    assert_eq!(desk.money.invoices(None, 1).await.unwrap().len(), 1);
    let breaches = async || {
        let findings = desk.ledger.verify(NOON).await.unwrap();
        findings.into_iter().find(|f| f.invariant == "I12").unwrap().breaches
    };
    let said = "openai bills 2100000000 USD for day 20717 (bill 7), and the books say 2000000000";
    assert_eq!(breaches().await, [said.replace("20717", &day.to_string())]);
    // What is learnt of the call puts it right.
    let mut told = settlement.attempts[0].clone();
    let cost = told.cost.as_mut().unwrap();
    (cost.amount, cost.estimate) = (500 * MILL, false);
    let report = Correction {
        sale: SaleCorrection::Keep,
        report: Some(Uuid::from_u128(7)),
        ..correction(Settlement { attempts: vec![told], ..release(&open) })
    };
    desk.ledger.true_up(report).await.unwrap();
    let all = desk.money.invoices(None, 10).await.unwrap();
    assert_eq!(compared(&all[1..]), [(2_100, 2_100, 0, false)]);
    assert_eq!(breaches().await, [""; 0]);
}

pub(super) async fn a_bill_may_be_rounded_to_the_smallest_coin(desk: Arc<Desk>) {
    desk.ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let open = hold((u128::try_from(NOON.millis()).unwrap() << 80) | 1, "acme", 50);
    desk.ledger.hold(open.clone()).await.unwrap();
    let yen = Currency::parse("JPY").unwrap();
    let costs = |n, amount, currency| {
        let mut told = attempt(n, n == 1, amount);
        told.cost.as_mut().unwrap().currency = currency;
        told
    };
    let attempts = vec![costs(1, 14_999_999, Currency::USD), costs(2, 14_999_999, yen)];
    desk.ledger.settle(Settlement { attempts, ..settle(&open, 50) }).await.unwrap();
    let day = NOON.seconds() / 86_400;
    let mut off = Vec::new();
    // A cent and half a cent, a yen and half a yen; and a unit more than that.
    for (currency, billed) in [
        (Currency::USD, 10_000_000),
        (Currency::USD, 9_999_998),
        (yen, 10_000_000),
        (yen, 20_000_000),
        (eur(), 5_000_000),
        (eur(), 5_000_001),
    ] {
        let invoice = Invoice {
            channel: "openai".into(),
            currency,
            reference: billed.to_string(),
            days: vec![(day, billed)],
            at: NOON,
        };
        off.push(desk.money.note_invoice(invoice).await.unwrap()[0].is_off());
        let findings = desk.ledger.verify(NOON).await.unwrap();
        let breaches = findings.into_iter().find(|f| f.invariant == "I12").unwrap().breaches;
        let said = breaches.iter().any(|b| b.contains(&format!("bills {billed} {currency} ")));
        assert_eq!(said, *off.last().unwrap(), "{breaches:?}");
    }
    assert_eq!(off, [false, true, false, true, false, true]);
    // The last figure of a day counts.
    for (currency, billed) in [(Currency::USD, 15_000_000), (yen, 15_000_000), (eur(), 0)] {
        let invoice = Invoice {
            channel: "openai".into(),
            currency,
            reference: "put right".to_owned(),
            days: vec![(day, billed)],
            at: NOON,
        };
        assert!(!desk.money.note_invoice(invoice).await.unwrap()[0].is_off());
    }
}
