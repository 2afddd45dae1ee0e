//! Corrections: what was booked, what is known now, and the legs between.

#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::clock::Timestamp;
use crate::ledger::fx::FxRate;
use crate::ledger::{Attempt, AttemptCost, PriceRef, legs, recovery};
use crate::usage::{Usage, UsageSource};

/// With what a wallet without promotional credit gives.
fn true_up(booked: &[Leg], settlement: &Settlement, may_take: i64) -> Result<Vec<Leg>, Error> {
    super::true_up(booked, settlement, Room { all: may_take, promo: 0 })
}

fn price(code: &str) -> PriceRef {
    PriceRef { code: code.into(), version_no: 1 }
}

fn attempt(
    n: i16,
    outcome: &'static str,
    served: bool,
    (amount, estimate): (i64, bool),
) -> Attempt {
    Attempt {
        n,
        channel: "up".into(),
        credential: "main".into(),
        model: "m".into(),
        outcome,
        served,
        usage: Usage::default(),
        usage_source: UsageSource::Provider,
        cost: Some(AttemptCost { amount, currency: Currency::USD, price: price("cost"), estimate }),
        upstream_ref: None,
        started_at: Timestamp::default(),
        first_byte_at: None,
        ended_at: Timestamp::default(),
    }
}

fn settlement(sale: Option<i64>, attempts: Vec<Attempt>) -> Settlement {
    Settlement {
        hold: Uuid::nil(),
        app: "acme".into(),
        currency: Currency::USD,
        close: sale.map_or(Close::Release, |sale| Close::Settle { sale, estimate: false }),
        sale_price: price("sale"),
        conversion: None,
        attempts,
        at: Timestamp::default(),
    }
}

fn booked(settlement: &Settlement) -> Vec<Leg> {
    let charged = match settlement.close {
        Close::Settle { sale, .. } => sale,
        Close::Release => 0,
    };
    legs(settlement, charged)
}

fn shown(legs: &[Leg]) -> Vec<String> {
    legs.iter().map(|l| format!("{} {} {}", l.debit, l.credit, l.amount)).collect()
}

#[test]
fn a_customer_gets_back_what_was_too_much_and_an_estimate_is_cleared() {
    let first = settlement(Some(90), vec![attempt(1, "ok", true, (40, true))]);
    let now = settlement(Some(70), vec![attempt(1, "ok", true, (30, false))]);
    let legs = true_up(&booked(&first), &now, 0).unwrap();
    assert_eq!(
        shown(&legs),
        [
            "revenue wallet:acme 20",
            "payable_estimated:up payable:up 30",
            "payable_estimated:up cost_of_sales 10",
        ]
    );
}

#[test]
fn a_cost_that_was_estimated_too_low_grows_and_the_sale_does_not() {
    let first = settlement(Some(70), vec![attempt(1, "ok", true, (30, true))]);
    let now = settlement(Some(90), vec![attempt(1, "ok", true, (40, false))]);
    let legs = true_up(&booked(&first), &now, 0).unwrap();
    assert_eq!(shown(&legs), ["payable_estimated:up payable:up 30", "cost_of_sales payable:up 10"]);
    let allowed = true_up(&booked(&first), &now, 15).unwrap();
    assert_eq!(shown(&allowed)[0], "wallet:acme revenue 15");
}

#[test]
fn what_is_charged_later_is_taken_of_promotional_credit_first() {
    let first = settlement(Some(70), Vec::new());
    let now = settlement(Some(100), Vec::new());
    let legs = |room| shown(&super::true_up(&booked(&first), &now, room).unwrap());
    let both = legs(Room { all: 500, promo: 20 });
    assert_eq!(both, ["promo:acme revenue 20", "wallet:acme revenue 10"]);
    assert_eq!(legs(Room { all: 500, promo: 200 }), ["promo:acme revenue 30"]);
    assert_eq!(legs(Room { all: 5, promo: 200 }), ["promo:acme revenue 5"]);
}

#[test]
fn a_report_of_one_attempt_leaves_the_others_and_the_sale_alone() {
    let about = |n, amount| attempt(n, "upstream_error", n == 2, (amount, true));
    let books = booked(&settlement(Some(90), vec![about(1, 7), about(2, 40)]));
    let report = settlement(None, vec![attempt(1, "ok", false, (5, false))]);
    assert_eq!(
        shown(&true_up_named(&books, &report, None).unwrap()),
        ["payable_estimated:up payable:up 5", "payable_estimated:up wasted_cost 2"]
    );
    let sold = settlement(Some(70), vec![attempt(2, "ok", true, (40, false))]);
    assert_eq!(
        shown(&true_up_named(&books, &sold, Some(Room::default())).unwrap()),
        ["revenue wallet:acme 20", "payable_estimated:up payable:up 40"]
    );
}

#[test]
fn what_was_not_collected_shrinks_with_the_sale_and_never_grows() {
    let sold = |sale| settlement(Some(sale), Vec::new());
    let mut books = legs(&sold(100), 60);
    assert_eq!(shown(&books), ["wallet:acme revenue 60", "exposure revenue 40"]);
    assert_eq!(true_up(&books, &sold(130), 0).unwrap(), []);
    let less = true_up(&books, &sold(80), 0).unwrap();
    assert_eq!(shown(&less), ["revenue exposure 20"]);
    books.extend(less);
    assert_eq!(true_up(&books, &sold(80), 0).unwrap(), []);
    // What may be taken later is taken off the loss, not sold again.
    let more = true_up(&books, &sold(90), 25).unwrap();
    assert_eq!(shown(&more), ["wallet:acme revenue 25", "revenue exposure 15"]);
    books.extend(more);
    let none = true_up(&books, &settlement(None, Vec::new()), 0).unwrap();
    assert_eq!(shown(&none), ["revenue wallet:acme 85", "revenue exposure 5"]);
}

#[test]
fn what_was_not_collected_of_a_conversion_shrinks_in_the_prices_currency() {
    // 200 euros are owed as 110 dollars, of which 55 could be taken.
    let books = legs(&converted(200), 55);
    assert_eq!(shown(&books)[3], "exposure revenue 100");
    let less = true_up(&books, &converted(150), 0).unwrap();
    assert_eq!(shown(&less), ["revenue exposure 50"]);
    assert_eq!(less[0].currency, Currency::parse("EUR").unwrap());
    // Without a rate nobody can say what of it is owed no more.
    assert_eq!(true_up(&books, &settlement(Some(70), Vec::new()), 0).unwrap(), []);
}

/// A sale of so many euro units, paid from a wallet of dollars at a half with a tenth on top.
fn converted(sale: i64) -> Settlement {
    let rate = FxRate {
        reference: price("fx:eur-usd"),
        from: Currency::parse("EUR").unwrap(),
        to: Currency::USD,
        digits: 5,
        decimals: 1,
        spread_ppm: 100_000,
    };
    let owed = rate.convert(sale).unwrap();
    let conversion = Some(rate.conversion(sale, owed));
    Settlement { conversion, ..settlement(Some(owed.owed), Vec::new()) }
}

#[test]
fn a_correction_that_takes_nothing_posts_nothing_in_the_other_currency_either() {
    for (first, later) in [(1, 2_001), (1_000_003, 2_000_001), (7, 8), (999, 1_000)] {
        let books = booked(&converted(first));
        assert_eq!(true_up(&books, &converted(later), 0).unwrap(), [], "{first}, {later}");
    }
    // Where no rate was known, the whole sale would look unconverted.
    let plain = booked(&settlement(Some(100), Vec::new()));
    assert_eq!(true_up(&plain, &converted(300), 0).unwrap(), []);
}

#[test]
fn what_is_taken_later_is_converted_like_what_was_taken_first() {
    let mut books = booked(&converted(200));
    assert_eq!(true_up(&books, &converted(300), 0).unwrap(), []);
    // As far as may be taken, then all of it.
    let legs = true_up(&books, &converted(300), 11).unwrap();
    assert_eq!(
        shown(&legs),
        ["wallet:acme fx_position 10", "wallet:acme fx_result 1", "fx_position revenue 20"]
    );
    books.extend(legs);
    let legs = true_up(&books, &converted(300), 1_000).unwrap();
    assert_eq!(
        shown(&legs),
        ["wallet:acme fx_position 40", "wallet:acme fx_result 4", "fx_position revenue 80"]
    );
    assert!(legs.iter().all(|leg| leg.price.is_some()));
    books.extend(legs);
    assert_eq!(true_up(&books, &converted(300), 1_000).unwrap(), []);
    // What was released at first.
    let legs = true_up(&[], &converted(200), 1_000).unwrap();
    assert_eq!(shown(&legs), shown(&booked(&converted(200))));
}

#[test]
fn an_exposure_becomes_the_cost_of_a_sale_that_is_not_made_up_for() {
    let orphan = attempt(1, recovery::OUTCOME, false, (100, true));
    let first = settlement(None, vec![orphan]);
    assert_eq!(shown(&booked(&first)), ["exposure payable_estimated:up 100"]);
    let now = settlement(Some(90), vec![attempt(1, "ok", true, (40, false))]);
    let legs = true_up(&booked(&first), &now, 0).unwrap();
    assert_eq!(
        shown(&legs),
        [
            "payable_estimated:up payable:up 40",
            "cost_of_sales exposure 40",
            "payable_estimated:up exposure 60",
        ]
    );
}

#[test]
fn what_was_refunded_is_not_given_back_again() {
    let first = settlement(Some(90), Vec::new());
    let mut legs = booked(&first);
    legs.push(Leg {
        debit: Account::Refunds,
        credit: Account::Wallet("acme".into()),
        amount: 50,
        component: Component::Refund,
        ..legs[0].clone()
    });
    let back = |sale| shown(&true_up(&legs, &settlement(Some(sale), Vec::new()), 0).unwrap());
    assert_eq!(back(40), [""; 0]);
    assert_eq!(back(10), ["revenue wallet:acme 30"]);
    assert_eq!(back(60), [""; 0]);
}

#[test]
fn what_was_refunded_is_not_taken_back_when_more_is_owed() {
    let mut legs = booked(&settlement(Some(90), Vec::new()));
    legs.push(Leg {
        debit: Account::Refunds,
        credit: Account::Wallet("acme".into()),
        amount: 90,
        component: Component::Refund,
        ..legs[0].clone()
    });
    let more = |sale| shown(&true_up(&legs, &settlement(Some(sale), Vec::new()), 1_000).unwrap());
    assert_eq!(more(90), [""; 0], "a report that confirms it takes nothing");
    assert_eq!(more(60), [""; 0]);
    assert_eq!(more(95), ["wallet:acme revenue 5"]);
}

#[test]
fn paid_money_comes_back_before_promotional() {
    let first = settlement(Some(60), Vec::new());
    let paid = booked(&first).remove(0);
    let promo = Leg { debit: Account::Promo("acme".into()), amount: 30, ..paid.clone() };
    let legs = true_up(&[promo, paid], &settlement(Some(20), Vec::new()), 0).unwrap();
    assert_eq!(shown(&legs), ["revenue wallet:acme 60", "revenue promo:acme 10"]);
}

#[test]
fn promotional_credit_never_comes_back_as_money() {
    let paid = booked(&settlement(Some(60), Vec::new())).remove(0);
    let promo = Leg { debit: Account::Promo("acme".into()), amount: 40, ..paid.clone() };
    let refund = Leg {
        debit: Account::Refunds,
        credit: Account::Wallet("acme".into()),
        component: Component::Refund,
        ..paid.clone()
    };
    let legs = [promo, paid, refund];
    let back = |sale| shown(&true_up(&legs, &settlement(Some(sale), Vec::new()), 0).unwrap());
    assert_eq!(back(0), ["revenue promo:acme 40"]);
    assert_eq!(back(15), ["revenue promo:acme 25"]);
}

#[test]
fn attempts_in_other_currencies_are_corrected_apart() {
    let first = settlement(None, vec![attempt(1, "timeout", false, (30, true))]);
    let mut foreign = attempt(1, "timeout", false, (25, false));
    foreign.cost.as_mut().unwrap().currency = Currency::parse("EUR").unwrap();
    let legs = true_up(&booked(&first), &settlement(None, vec![foreign]), 0).unwrap();
    let mut shown: Vec<_> = legs.iter().map(|l| format!("{} {}", l.amount, l.currency)).collect();
    shown.sort();
    assert_eq!(shown, ["25 EUR", "30 USD"]);
}

fn anything() -> impl Strategy<Value = Settlement> {
    let cost = (0_i64..100, any::<bool>(), 0..4_u8);
    (prop::option::of(0_i64..200), prop::collection::vec(cost, 0..4)).prop_map(|(sale, costs)| {
        let attempts = costs.into_iter().zip(1_i16..).map(|((amount, estimate, how), n)| {
            let (outcome, served) = match how {
                0 => ("ok", true),
                1 => (recovery::OUTCOME, false),
                2 => (recovery::OUTCOME, true),
                _ => ("timeout", false),
            };
            attempt(n, outcome, served, (amount, estimate))
        });
        settlement(sale, attempts.collect())
    })
}

fn balances(legs: &[Leg]) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for leg in legs {
        *sums.entry(leg.debit.to_string()).or_default() += leg.amount;
        *sums.entry(leg.credit.to_string()).or_default() -= leg.amount;
    }
    sums.retain(|_, sum| *sum != 0);
    sums
}

proptest! {
    #[test]
    fn the_books_end_as_if_all_had_been_known(
        first in anything(), second in anything(), third in anything(),
    ) {
        let mut all = booked(&first);
        for now in [second, third] {
            all.extend(true_up(&all, &now, i64::MAX).unwrap());
            prop_assert!(all.iter().all(|leg| leg.amount > 0 && leg.debit != leg.credit));
            prop_assert_eq!(balances(&all), balances(&booked(&now)));
            prop_assert_eq!(true_up(&all, &now, 0).unwrap(), vec![]);
        }
    }

    #[test]
    fn a_loss_is_what_is_still_owed_and_no_more_than_it_was(
        first in 0_i64..1_000, share in 0_i64..=1_000, now in 0_i64..1_000, may in 0_i64..500,
        abroad in any::<bool>(),
    ) {
        let of = |sale| if abroad { converted(sale) } else { settlement(Some(sale), Vec::new()) };
        let owed = |settlement: &Settlement| match settlement.close {
            Close::Settle { sale, .. } => sale,
            Close::Release => 0,
        };
        let (before, after) = (of(first), of(now));
        let mut all = legs(&before, owed(&before) * share / 1_000);
        let loss = |all: &[Leg]| balances(all).get("exposure").copied().unwrap_or(0);
        let was = loss(&all);
        all.extend(true_up(&all, &after, may).unwrap());
        prop_assert!(all.iter().all(|leg| leg.amount > 0 && leg.debit != leg.credit));
        prop_assert!((0..=was).contains(&loss(&all)), "{was}: {all:?}");
        if !abroad {
            let paid = balances(&all).get("wallet:acme").copied().unwrap_or(0);
            prop_assert_eq!(loss(&all), (now - paid).clamp(0, was));
        }
        prop_assert_eq!(true_up(&all, &after, 0).unwrap(), vec![]);
    }

    #[test]
    fn a_customer_never_pays_more_without_permission(first in anything(), now in anything()) {
        let mut all = booked(&first);
        all.extend(true_up(&all, &now, 0).unwrap());
        let paid = |settlement: &Settlement| match settlement.close {
            Close::Settle { sale, .. } => sale,
            Close::Release => 0,
        };
        let wallet = balances(&all).get("wallet:acme").copied().unwrap_or(0);
        prop_assert_eq!(wallet, paid(&first).min(paid(&now)));
    }
}
