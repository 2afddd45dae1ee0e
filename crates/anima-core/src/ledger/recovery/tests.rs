//! The ladder, rung by rung: what is posted for each thing that may be known of a call.

use super::*;
use crate::ledger::{Component, legs};
use crate::money::Rate;
use crate::pricing::{MeterRate, When};
use crate::usage::Meter;

const NOW: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const LATER: Timestamp = NOW.plus_millis(600_000);

fn list(code: &str, input: &str, output: &str) -> PriceList {
    let rate = |meter, amount| MeterRate {
        meter,
        rate: Rate::parse(amount, 1_000_000, Currency::USD).unwrap(),
        when: When::default(),
    };
    let rates = vec![rate(Meter::InputTokens, input), rate(Meter::OutputTokens, output)];
    PriceList { code: code.into(), version_no: 3, currency: Currency::USD, rates }
}

fn used(input: u64, output: u64) -> Usage {
    Usage::default().with(Meter::InputTokens, input).with(Meter::OutputTokens, output)
}

fn call(
    n: i16,
    cost: &PriceList,
    progress: Option<(Usage, bool)>,
    look_up: LookUp,
) -> OpenCall<'_> {
    OpenCall {
        n,
        channel: format!("up{n}").into(),
        credential: "main".into(),
        model: "m".into(),
        cost,
        started_at: NOW,
        upstream_ref: None,
        progress: progress.map(|(usage, delivered)| Progress { usage, delivered }),
        look_up,
    }
}

fn over(usage: Usage) -> LookUp {
    LookUp::Over { usage, tier: None }
}

/// What is posted, and on which rung.
fn resolved(open: &[(Option<(Usage, bool)>, LookUp)]) -> (Vec<String>, Rung) {
    let (sale, cost) = (list("sale", "2", "10"), list("cost", "1", "5"));
    let calls =
        (1..).zip(open).map(|(n, (progress, look_up))| call(n, &cost, *progress, look_up.clone()));
    let orphan = Orphan {
        hold: Uuid::from_u128(1),
        app: "acme".into(),
        currency: Currency::USD,
        amount: 777,
        exposure: None,
        sale_price: PriceRef { code: "sale".into(), version_no: 3 },
        sale: Some(&sale),
        fx: None,
        multiplier: Multiplier::ONE,
        ended: Vec::new(),
        open: calls.collect(),
    };
    let Resolution::Close { settlement, rung } = resolve(orphan, LATER, LATER) else {
        panic!("it waits after the time to give up");
    };
    let charged = match settlement.close {
        Close::Settle { sale, .. } => sale,
        Close::Release => 0,
    };
    let shown = legs(&settlement, charged);
    let shown = shown.iter().map(|leg| {
        let mark = if leg.estimate { " about" } else { "" };
        format!("{} {}{mark} {}", leg.debit, leg.credit, leg.amount)
    });
    (shown.collect(), rung)
}

#[test]
fn a_hold_for_which_nothing_was_sent_is_released() {
    assert_eq!(resolved(&[]), (vec![], Rung::NothingSent));
    assert_eq!(resolved(&[(None, LookUp::NeverMade)]), (vec![], Rung::LookUp));
    let dispatched = Some((Usage::default(), false));
    assert_eq!(resolved(&[(dispatched, LookUp::NeverMade)]), (vec![], Rung::LookUp));
}

#[test]
fn what_was_delivered_is_sold_as_the_provider_says() {
    let seen = Some((used(10, 20), true));
    assert_eq!(
        resolved(&[(seen, over(used(10, 50)))]),
        (
            vec!["wallet:acme revenue 520000".into(), "cost_of_sales payable:up1 260000".into()],
            Rung::LookUp
        )
    );
}

#[test]
fn what_nobody_received_is_not_sold_and_its_cost_is_booked() {
    let waste = |rung| (vec!["wasted_cost payable:up1 260000".to_owned()], rung);
    assert_eq!(resolved(&[(None, over(used(10, 50)))]), waste(Rung::LookUp));
    let unseen = Some((used(10, 0), false));
    assert_eq!(resolved(&[(unseen, over(used(10, 50)))]), waste(Rung::LookUp));
}

#[test]
fn without_an_answer_the_checkpoint_decides_on_both_sides() {
    for silent in [LookUp::Impossible, LookUp::Silent, LookUp::Running] {
        assert_eq!(
            resolved(&[(Some((used(10, 20), true)), silent)]),
            (
                vec![
                    "wallet:acme revenue about 220000".into(),
                    "cost_of_sales payable_estimated:up1 about 110000".into()
                ],
                Rung::Checkpoint
            )
        );
    }
}

#[test]
fn without_anything_the_hold_stands_in_for_the_cost_and_nothing_is_sold() {
    let worst = vec!["exposure payable_estimated:up1 about 777".to_owned()];
    assert_eq!(resolved(&[(None, LookUp::Impossible)]), (worst.clone(), Rung::Estimate));
    let dispatched = Some((Usage::default(), false));
    assert_eq!(resolved(&[(dispatched, LookUp::Silent)]), (worst, Rung::Estimate));
}

#[test]
fn the_most_that_a_call_can_cost_is_what_its_hold_says() {
    let cost = list("cost", "1", "5");
    let price = PriceRef { code: "other".into(), version_no: 9 };
    let currency = Currency::parse("EUR").unwrap();
    let orphan = Orphan {
        hold: Uuid::from_u128(1),
        app: "acme".into(),
        currency: Currency::USD,
        amount: 777,
        exposure: Some(Exposure { channel: "up1".into(), amount: 55, currency, price }),
        sale_price: PriceRef { code: "sale".into(), version_no: 3 },
        sale: None,
        fx: None,
        multiplier: Multiplier::ONE,
        ended: Vec::new(),
        open: vec![call(1, &cost, None, LookUp::Impossible)],
    };
    let Resolution::Close { settlement, .. } = resolve(orphan, NOW, LATER) else { panic!() };
    let worst = settlement.attempts[0].cost.clone().unwrap();
    assert_eq!((worst.amount, worst.currency, &*worst.price.code), (55, currency, "other"));
}

#[test]
fn of_calls_that_may_have_been_made_one_stands_for_all() {
    let (posted, rung) = resolved(&[(None, LookUp::Impossible), (None, LookUp::Silent)]);
    assert_eq!(posted.len(), 1);
    assert_eq!(rung, Rung::Estimate);
    // One that is known to have been made makes the others unlikely.
    let (posted, rung) = resolved(&[(None, LookUp::Impossible), (None, over(used(10, 50)))]);
    assert_eq!(posted, ["wasted_cost payable:up2 260000"]);
    assert_eq!(rung, Rung::LookUp);
}

#[test]
fn providers_that_may_still_answer_are_waited_for_until_the_bound() {
    let cost = list("cost", "1", "5");
    for (look_up, waits) in [
        (LookUp::Silent, true),
        (LookUp::Running, true),
        (LookUp::Impossible, false),
        (LookUp::NeverMade, false),
        (over(used(1, 1)), false),
    ] {
        let orphan = Orphan {
            hold: Uuid::from_u128(1),
            app: "acme".into(),
            currency: Currency::USD,
            amount: 777,
            exposure: None,
            sale_price: PriceRef { code: "sale".into(), version_no: 3 },
            sale: None,
            fx: None,
            multiplier: Multiplier::ONE,
            ended: Vec::new(),
            open: vec![call(1, &cost, None, look_up)],
        };
        assert_eq!(resolve(orphan.clone(), NOW, LATER) == Resolution::Wait, waits);
        assert_ne!(resolve(orphan, LATER, LATER), Resolution::Wait);
    }
}

#[test]
fn calls_that_had_ended_are_booked_as_they_were_recorded() {
    let cost_list = list("cost", "1", "5");
    let mut first = record(&call(1, &cost_list, None, LookUp::Impossible), NOW);
    first.outcome = "upstream_error";
    first.cost = Some(cost(&cost_list, 7, true));
    let orphan = Orphan {
        hold: Uuid::from_u128(1),
        app: "acme".into(),
        currency: Currency::USD,
        amount: 777,
        exposure: None,
        sale_price: PriceRef { code: "sale".into(), version_no: 3 },
        sale: None,
        fx: None,
        multiplier: Multiplier::ONE,
        ended: vec![first],
        open: vec![call(2, &cost_list, None, over(used(10, 50)))],
    };
    let Resolution::Close { settlement, .. } = resolve(orphan, NOW, LATER) else { panic!() };
    let components: Vec<_> = legs(&settlement, 0).iter().map(|leg| leg.component).collect();
    assert_eq!(components, [Component::Waste, Component::Waste]);
    assert_eq!(settlement.attempts.iter().map(|a| a.n).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_list_that_cannot_be_read_sells_nothing() {
    let cost = list("cost", "1", "5");
    let orphan = Orphan {
        hold: Uuid::from_u128(1),
        app: "acme".into(),
        currency: Currency::USD,
        amount: 777,
        exposure: None,
        sale_price: PriceRef { code: "sale".into(), version_no: 3 },
        sale: None,
        fx: None,
        multiplier: Multiplier::ONE,
        ended: Vec::new(),
        open: vec![call(1, &cost, Some((used(1, 1), true)), over(used(1, 1)))],
    };
    let Resolution::Close { settlement, .. } = resolve(orphan, NOW, NOW) else { panic!() };
    assert_eq!(settlement.close, Close::Release);
}

/// What a checkpoint's delivery in a wallet of euros comes to, with this rate.
fn sold_in_euros(fx: Option<&FxRate>, per_million: &str) -> Settlement {
    let (sale, cost) = (list("sale", "2", per_million), list("cost", "1", per_million));
    let orphan = Orphan {
        hold: Uuid::from_u128(1),
        app: "acme".into(),
        currency: Currency::parse("EUR").unwrap(),
        amount: 777,
        exposure: None,
        sale_price: PriceRef { code: "sale".into(), version_no: 3 },
        sale: Some(&sale),
        fx,
        multiplier: Multiplier::ONE,
        ended: Vec::new(),
        open: vec![call(1, &cost, Some((used(0, 10_000_000), true)), LookUp::Impossible)],
    };
    let Resolution::Close { settlement, .. } = resolve(orphan, NOW, NOW) else { panic!() };
    *settlement
}

fn rate(from: &str, to: &str, digits: i64) -> FxRate {
    FxRate {
        reference: PriceRef { code: "fx:usd-eur".into(), version_no: 4 },
        from: Currency::parse(from).unwrap(),
        to: Currency::parse(to).unwrap(),
        digits,
        decimals: 1,
        spread_ppm: 10_000,
    }
}

#[test]
fn a_sale_in_another_currency_is_converted_at_the_pinned_rate() {
    let fx = rate("USD", "EUR", 8);
    let settlement = sold_in_euros(Some(&fx), "0.0001");
    assert_eq!(settlement.close, Close::Settle { sale: 808_000, estimate: true });
    let conversion = settlement.conversion.as_ref().unwrap();
    assert!(conversion.fits(&settlement));
    assert_eq!((conversion.sale, conversion.plain), (1_000_000, 800_000));
    assert_eq!(conversion.rate, fx.reference);
    // No rate, or that of other currencies: nothing is sold.
    let other = rate("EUR", "USD", 8);
    for fx in [None, Some(&other)] {
        let settlement = sold_in_euros(fx, "0.0001");
        assert_eq!((settlement.close, settlement.conversion), (Close::Release, None));
    }
}

#[test]
fn what_does_not_fit_is_what_was_held_in_the_currency_in_which_it_was_held() {
    // The sale fits, its conversion does not.
    let fx = rate("USD", "EUR", 1_000_000_000_000);
    let settlement = sold_in_euros(Some(&fx), "1");
    assert_eq!(settlement.close, Close::Settle { sale: 777, estimate: true });
    assert_eq!(settlement.conversion, None);
    // Neither the sale nor the cost fits.
    let settlement = sold_in_euros(Some(&rate("USD", "EUR", 8)), "9000000000");
    assert_eq!(settlement.close, Close::Settle { sale: 777, estimate: true });
    assert_eq!(settlement.conversion, None);
    let cost = settlement.attempts[0].cost.as_ref().unwrap();
    assert_eq!((cost.amount, cost.currency.code(), cost.estimate), (777, "EUR", true));
}
