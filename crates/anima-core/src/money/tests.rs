//! Amounts read exactly, print exactly and round once, half to even.

use proptest::prelude::*;

use super::*;

fn usd(text: &str) -> i64 {
    Money::parse(text, Currency::USD).unwrap().units
}

#[test]
fn decimals_read_exactly() {
    assert_eq!(usd("10.00"), 10_000_000_000);
    assert_eq!(usd("0.000000001"), 1);
    assert_eq!(usd("-2.5"), -2_500_000_000);
    assert_eq!(usd("1.0000000000000"), 1_000_000_000);
}

#[test]
fn bad_decimals_are_named() {
    for text in ["", ".", "1.", ".5", "1e3", " 1", "+1", "1,000", "--1", "NaN"] {
        assert_eq!(Money::parse(text, Currency::USD), Err(Error::NotDecimal), "{text}");
    }
    assert_eq!(Money::parse("0.0000000001", Currency::USD), Err(Error::TooFine));
    assert_eq!(Money::parse("9999999999999", Currency::USD), Err(Error::Overflow));
}

#[test]
fn amounts_print_what_was_read() {
    for (text, shown) in [("10", "10.00"), ("0.0000025", "0.0000025"), ("-0.1", "-0.10")] {
        assert_eq!(Money::parse(text, Currency::USD).unwrap().to_string(), shown);
    }
}

#[test]
fn a_price_finer_than_the_unit_keeps_its_decimals() {
    let rate = Rate::parse("0.00000000028", 1, Currency::USD).unwrap();
    assert_eq!(rate.pow10, 2);
    let sum = ExactSum::default().add(100_000_000_000, rate).unwrap();
    assert_eq!(sum.round(Multiplier::ONE), Ok(28_000_000_000));
}

#[test]
fn a_typical_call_costs_what_the_price_list_says() {
    let input = Rate::parse("2.50", 1_000_000, Currency::USD).unwrap();
    let output = Rate::parse("10", 1_000_000, Currency::USD).unwrap();
    let sum = ExactSum::default().add(1_000, input).unwrap().add(500, output).unwrap();
    assert_eq!(sum.round(Multiplier::ONE), Ok(usd("0.0075")));
    assert_eq!(sum.round(Multiplier::parse("1.2").unwrap()), Ok(usd("0.009")));
}

#[test]
fn halves_round_to_even() {
    for (quantity, rounded) in [(1, 0), (3, 2), (5, 2), (7, 4)] {
        let sum = ExactSum::default().add(quantity, Rate { units: 5, pow10: 1 }).unwrap();
        assert_eq!(sum.round(Multiplier::ONE), Ok(rounded), "{quantity} halves");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let huge = Rate { units: i64::MAX, pow10: 0 };
    let sum = ExactSum::default().add(u64::MAX, huge).unwrap().add(u64::MAX, huge);
    assert_eq!(sum, Err(Error::Overflow));
    let sum = ExactSum::default().add(10, huge).unwrap();
    assert_eq!(sum.round(Multiplier::ONE), Err(Error::Overflow));
}

proptest! {
    #[test]
    fn a_split_of_the_quantity_loses_nothing(
        a in 0_u64..1_000_000, b in 0_u64..1_000_000,
        units in 0_i64..10_000_000_000, pow10 in 0_u8..=9,
    ) {
        let rate = Rate { units, pow10 };
        let whole = ExactSum::default().add(a + b, rate).unwrap();
        let parts = ExactSum::default().add(a, rate).unwrap().add(b, rate).unwrap();
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn rounding_is_off_by_at_most_half_a_unit(
        quantity in 0_u64..10_000_000, units in 0_i64..10_000_000_000, pow10 in 0_u8..=9,
    ) {
        let sum = ExactSum::default().add(quantity, Rate { units, pow10 }).unwrap();
        let rounded = sum.round(Multiplier::ONE).unwrap();
        let exact = i128::from(quantity) * i128::from(units);
        let one = 10_i128.pow(u32::from(pow10));
        prop_assert!((exact - i128::from(rounded) * one).abs() * 2 <= one);
    }

    #[test]
    fn printing_and_reading_is_the_identity(units in i64::MIN + 1..i64::MAX) {
        let money = Money::new(units, Currency::USD);
        prop_assert_eq!(Money::parse(&money.to_string(), Currency::USD), Ok(money));
    }
}
