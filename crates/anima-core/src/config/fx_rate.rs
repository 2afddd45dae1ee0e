//! A conversion rate as written: from which currency to which, and the spread on top.
//!
//! Not here: the arithmetic (`ledger::fx`). Invariant: the rate stays decimal text until it becomes
//! an exact rational, so nothing is rounded on the way.

use serde::{Deserialize, Serialize};

use crate::ledger::PriceRef;
use crate::ledger::fx;
use crate::money::{Currency, Error, Multiplier, decimal};

/// A conversion rate's body. Sale prices in `from` can be paid from wallets in `to` while it is in
/// force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FxRate {
    /// Of prices.
    pub from: Currency,
    /// Of wallets.
    pub to: Currency,
    /// How much of `to` one of `from` is, a decimal in a string.
    pub rate: String,
    /// On top of the rate: `0.01` is one percent. A decimal in a string.
    #[serde(default = "nothing")]
    pub spread: String,
}

fn nothing() -> String {
    "0".to_owned()
}

/// The highest spread: as much again as the rate itself.
const SPREAD_PPM_MAX: u32 = 1_000_000;

/// Tells rates from prices where both are named.
const PREFIX: &str = "fx:";

impl FxRate {
    /// What the rate is for, as one text: two rates of one scope may not be in force together.
    pub fn scope(&self) -> String {
        format!("fx|{}|{}", self.from, self.to)
    }

    /// The rate as digits and a count of decimals.
    ///
    /// # Errors
    /// What is wrong with `rate`; one of 0 or with more than 12 decimals is, too.
    pub fn ratio(&self) -> Result<(i64, u8), Error> {
        match decimal(&self.rate)? {
            (digits, _) if digits <= 0 => Err(Error::NotDecimal),
            (_, decimals) if decimals > 12 => Err(Error::TooFine),
            ratio => Ok(ratio),
        }
    }

    /// The spread in parts per million.
    ///
    /// # Errors
    /// What is wrong with `spread`; one above 1 is, too.
    pub fn spread_ppm(&self) -> Result<u32, Error> {
        let ppm = u32::try_from(Multiplier::parse(&self.spread)?.ppm());
        ppm.ok().filter(|ppm| *ppm <= SPREAD_PPM_MAX).ok_or(Error::Overflow)
    }

    /// The row's code of a rate that postings name so. `None` when it is no rate's name.
    pub fn code_of(reference: &PriceRef) -> Option<&str> {
        reference.code.strip_prefix(PREFIX)
    }

    /// The rate, ready to compute with.
    ///
    /// # Errors
    /// Those of [`Self::ratio`] and [`Self::spread_ppm`].
    pub fn compile(&self, code: &str, version_no: i64) -> Result<fx::FxRate, Error> {
        let (digits, decimals) = self.ratio()?;
        Ok(fx::FxRate {
            reference: PriceRef { code: format!("{PREFIX}{code}").into(), version_no },
            from: self.from,
            to: self.to,
            digits,
            decimals,
            spread_ppm: self.spread_ppm()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Check as _;

    fn rate(rate: &str, spread: &str) -> FxRate {
        FxRate {
            from: Currency::USD,
            to: Currency::parse("EUR").unwrap(),
            rate: rate.to_owned(),
            spread: spread.to_owned(),
        }
    }

    #[test]
    fn a_rate_is_an_exact_rational() {
        let compiled = rate("0.9215", "0.01").compile("usd-eur", 3).unwrap();
        assert_eq!((compiled.digits, compiled.decimals, compiled.spread_ppm), (9_215, 4, 10_000));
        assert_eq!((&*compiled.reference.code, compiled.reference.version_no), ("fx:usd-eur", 3));
        assert_eq!(FxRate::code_of(&compiled.reference), Some("usd-eur"));
        for (bad, spread, member) in [
            ("0", "0", "rate"),
            ("-1", "0", "rate"),
            ("x", "0", "rate"),
            ("0.1234567890123", "0", "rate"),
            ("1", "1.1", "spread"),
            ("1", "-0.1", "spread"),
        ] {
            assert_eq!(rate(bad, spread).check().unwrap_err().member, member);
        }
        let same = FxRate { to: Currency::USD, ..rate("1", "0") };
        assert_eq!(same.check().unwrap_err().member, "to");
    }
}
