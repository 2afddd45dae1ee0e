//! What a call must come to, computed apart from the program, and the legs that it posted.
//!
//! Deliberately shares no arithmetic with `anima-core`: decimals are scaled integers here, one
//! rounding half to even at the end.

use anima_simulator::Usage;
use serde_json::Value;

/// Prices per million tokens, in dollars.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) input: &'static str,
    pub(crate) cached: &'static str,
    pub(crate) output: &'static str,
}

/// One leg of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leg {
    pub(crate) journal: String,
    pub(crate) kind: String,
    pub(crate) debit: String,
    pub(crate) credit: String,
    /// In nano-dollars.
    pub(crate) amount: i64,
    pub(crate) component: String,
    pub(crate) attempt: Option<i64>,
    /// Code and version.
    pub(crate) price: Option<(String, i64)>,
    pub(crate) estimate: bool,
}

impl Leg {
    pub(crate) fn read(item: &Value) -> Self {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let price = &item["price"];
        Self {
            journal: item["journal"].to_string(),
            kind: text("kind"),
            debit: text("debit"),
            credit: text("credit"),
            amount: nano(item["amount"].as_str().unwrap()),
            component: text("component"),
            attempt: item["attempt"].as_i64(),
            price: price["code"]
                .as_str()
                .map(|c| (c.to_owned(), price["version_no"].as_i64().unwrap())),
            estimate: item["estimate"].as_bool().unwrap(),
        }
    }

    /// The accounts and the amount, for comparing.
    pub(crate) fn line(&self) -> (&str, &str, i64, bool) {
        (&self.debit, &self.credit, self.amount, self.estimate)
    }
}

/// What the tokens come to, in nano-dollars. The multiplier is in thousandths.
pub(crate) fn owed(rates: &Rates, used: &Usage, multiplier_milli: i128) -> i64 {
    let line = |quantity: u64, amount: &str| i128::from(quantity) * i128::from(nano(amount));
    let sum = line(used.prompt_tokens - used.cached_tokens, rates.input)
        + line(used.cached_tokens, rates.cached)
        + line(used.completion_tokens, rates.output);
    let (number, divisor) = (sum * multiplier_milli, 1_000_000 * 1_000);
    let (whole, rest) = (number / divisor, number % divisor);
    let up = rest * 2 > divisor || (rest * 2 == divisor && whole % 2 == 1);
    i64::try_from(whole + i128::from(up)).unwrap()
}

/// A decimal of dollars in nano-dollars.
pub(crate) fn nano(text: &str) -> i64 {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    assert!(part.len() <= 9, "{text}");
    let part: i64 = format!("{part:0<9}").parse().unwrap();
    sign * (whole.parse::<i64>().unwrap() * 1_000_000_000 + part)
}

#[test]
fn amounts_are_rounded_once_and_half_to_even() {
    let rates = Rates { input: "0.0005", cached: "0", output: "0.001" };
    let used = |prompt_tokens, completion_tokens| Usage {
        prompt_tokens,
        completion_tokens,
        ..Usage::default()
    };
    assert_eq!(owed(&rates, &used(1, 0), 1_000), 0);
    assert_eq!(owed(&rates, &used(3, 0), 1_000), 2);
    assert_eq!(owed(&rates, &used(1, 1), 1_000), 2);
    assert_eq!((nano("-1.5"), nano("0.000000001"), nano("7")), (-1_500_000_000, 1, 7_000_000_000));
}
