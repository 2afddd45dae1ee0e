//! What tokens come to, computed apart from the program.
//!
//! Shares no arithmetic with `anima-core`: decimals are scaled integers here, with one rounding
//! half to even at the end. Not a price engine: the three meters of a chat, per million tokens.
//! Invariant: an amount is in nano-dollars and exact.

use anima_simulator::Usage;
use anyhow::{Context, Result, ensure};

/// Dollars per million tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) input: &'static str,
    pub(crate) cached: &'static str,
    pub(crate) output: &'static str,
}

/// What customers pay. Odd on purpose, so that every amount is rounded.
pub(crate) const SALE: Rates =
    Rates { input: "1.2345678", cached: "0.1234567", output: "6.7891234" };

/// What the provider charges.
pub(crate) const COST: Rates =
    Rates { input: "0.9876543", cached: "0.0987654", output: "4.3210987" };

/// Tokens that a rate is for.
pub(crate) const PER: i128 = 1_000_000;

/// What the provider's own count comes to.
///
/// # Errors
/// When an amount does not fit, which no call of ours comes near.
pub(crate) fn owed(rates: &Rates, used: &Usage) -> Result<i64> {
    let line =
        |tokens: u64, rate| Ok::<_, anyhow::Error>(i128::from(tokens) * i128::from(nano(rate)?));
    let plain = used.prompt_tokens.saturating_sub(used.cached_tokens);
    let sum = line(plain, rates.input)?
        + line(used.cached_tokens, rates.cached)?
        + line(used.completion_tokens, rates.output)?;
    let (whole, rest) = (sum / PER, sum % PER);
    let up = rest * 2 > PER || (rest * 2 == PER && whole % 2 == 1);
    i64::try_from(whole + i128::from(up)).context("an amount does not fit")
}

/// A decimal of dollars in nano-dollars.
///
/// # Errors
/// When it is no decimal with at most nine places.
pub(crate) fn nano(text: &str) -> Result<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    ensure!(part.len() <= 9, "{text} has more than nine places");
    let part: i64 = format!("{part:0<9}").parse().context("no decimal")?;
    let whole: i64 = whole.parse().context("no decimal")?;
    Ok(whole * 1_000_000_000 + part)
}

/// Nano-dollars as dollars.
pub(crate) fn dollars(nano: i64) -> String {
    let sign = if nano < 0 { "-" } else { "" };
    let nano = nano.unsigned_abs();
    format!("{sign}{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_once_and_half_to_even() {
        let rates = Rates { input: "0.0005", cached: "0", output: "0.001" };
        let used = |prompt_tokens, completion_tokens| Usage {
            prompt_tokens,
            completion_tokens,
            ..Usage::default()
        };
        assert_eq!(owed(&rates, &used(1, 0)).unwrap(), 0);
        assert_eq!(owed(&rates, &used(3, 0)).unwrap(), 2);
        assert_eq!(owed(&rates, &used(1, 1)).unwrap(), 2);
    }

    #[test]
    fn dollars_are_written_and_read_to_the_last_place() {
        assert_eq!(nano("0.000000001").unwrap(), 1);
        assert_eq!(nano("7").unwrap(), 7_000_000_000);
        assert!(nano("0.0000000001").is_err());
        assert_eq!(dollars(-1_500_000_000), "-1.500000000");
    }
}
