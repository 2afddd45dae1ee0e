//! Sales in one currency, paid from a wallet in another.
//!
//! A rate is a version of a row like a price, pinned at admission: how many units of the wallet's
//! currency one unit of the price's currency is, as an exact rational, and a spread on top. The
//! sale is rounded once in the price's currency, and its conversion once in the wallet's. Four
//! accounts share one journal: the wallet gives to our position in its currency, and our position
//! in the price's currency gives to revenue; the spread is a leg of its own. Invariant: the legs of
//! each currency balance, and a customer never pays more than half a unit above the exact
//! conversion. Source: `reliability` 1.3.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use super::promo::{pair, sources};
use super::{Account, Close, Component, Leg, PriceRef, Settlement};
use crate::money::{Currency, Error};

/// One version of a conversion rate, ready to compute with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FxRate {
    /// The rate's name and version.
    pub reference: PriceRef,
    /// Of prices.
    pub from: Currency,
    /// Of wallets.
    pub to: Currency,
    /// `digits / 10^decimals` of `to` for one of `from`.
    pub digits: i64,
    /// See `digits`.
    pub decimals: u8,
    /// On top, in parts per million.
    pub spread_ppm: u32,
}

/// A sale and what it is in the wallet's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// At the rate alone, in the wallet's units.
    pub plain: i64,
    /// With the spread, in the wallet's units: what the customer owes.
    pub owed: i64,
}

/// How a sale that is owed in the wallet's currency was made in another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// The pinned rate.
    pub rate: PriceRef,
    /// Of the price.
    pub currency: Currency,
    /// The sale in that currency, in units; not negative.
    pub sale: i64,
    /// The sale in the wallet's currency without the spread, in units; at most what is owed.
    pub plain: i64,
}

impl FxRate {
    /// Converts a sale. Half a unit goes to the even side.
    ///
    /// # Errors
    /// [`Error::Overflow`].
    pub fn convert(&self, sale: i64) -> Result<Converted, Error> {
        const WHOLE: i128 = 1_000_000;
        let plain = self.scaled(sale, WHOLE)?;
        let spread = i128::from(self.spread_ppm);
        let owed = self.scaled(sale, WHOLE.checked_add(spread).ok_or(Error::Overflow)?)?;
        Ok(Converted { plain, owed })
    }

    /// The sale at the rate times `ppm` parts per million, rounded once.
    fn scaled(&self, sale: i64, ppm: i128) -> Result<i64, Error> {
        let exact = i128::from(sale).checked_mul(self.digits.into()).ok_or(Error::Overflow)?;
        let exact = exact.checked_mul(ppm).ok_or(Error::Overflow)?;
        let up = u32::from(self.to.scale());
        let down = u32::from(self.from.scale())
            .checked_add(self.decimals.into())
            .and_then(|down| down.checked_add(6))
            .ok_or(Error::Overflow)?;
        let ten = |power| 10_i128.checked_pow(power).ok_or(Error::Overflow);
        if up >= down {
            let raised = exact.checked_mul(ten(up.saturating_sub(down))?);
            return i64::try_from(raised.ok_or(Error::Overflow)?).ok().ok_or(Error::Overflow);
        }
        let divisor = ten(down.saturating_sub(up))?;
        let (quotient, rest) = (exact.div_euclid(divisor), exact.rem_euclid(divisor));
        let half = divisor.div_euclid(2);
        let is_odd = quotient.rem_euclid(2) == 1;
        let up = i128::from(rest > half || (rest == half && is_odd));
        let rounded = quotient.checked_add(up).ok_or(Error::Overflow)?;
        i64::try_from(rounded).ok().ok_or(Error::Overflow)
    }

    /// The conversion of a sale, for its settlement.
    pub fn conversion(&self, sale: i64, converted: Converted) -> Conversion {
        let (rate, currency) = (self.reference.clone(), self.from);
        Conversion { rate, currency, sale, plain: converted.plain }
    }
}

impl Conversion {
    /// Whether it can be the conversion of what a settlement says is owed.
    pub fn fits(&self, settlement: &Settlement) -> bool {
        let owed = match settlement.close {
            Close::Settle { sale, .. } => sale,
            Close::Release => i64::MAX,
        };
        self.currency != settlement.currency && self.sale >= 0 && (0..=owed).contains(&self.plain)
    }

    /// The part of the conversion of which `charged` units of `owed` could be collected. What does
    /// not divide stays with the position, in our favour by less than a unit.
    fn part(&self, charged: i64, owed: i64) -> (i64, i64) {
        if charged >= owed {
            return (self.sale, self.plain.min(charged));
        }
        let share = |of: i64| {
            let product = i128::from(of).saturating_mul(charged.max(0).into());
            let part = product.checked_div(owed.into()).unwrap_or(0);
            i64::try_from(part).unwrap_or(0)
        };
        (share(self.sale), share(self.plain))
    }
}

/// The legs of a sale of which `charged` units are taken, `promo` of them from promotional credit.
/// The rest of it is sold all the same: revenue that is our loss, in the price's currency, for what
/// was not taken was not converted (`reliability` 1.6, row 20).
pub(super) fn sale_legs(
    settlement: &Settlement,
    (owed, estimate): (i64, bool),
    charged: i64,
    promo: i64,
) -> Vec<Leg> {
    let sources = sources(&settlement.app, charged, promo);
    let price = Some(&settlement.sale_price);
    let mut legs = if let Some(conversion) = &settlement.conversion {
        let sides = conversion.part(charged, owed);
        converted_legs(settlement, conversion, (&sources, charged, estimate), sides)
    } else {
        let currency = (settlement.currency, Component::Sale);
        pair(&sources, &[(Account::Revenue, charged)], currency, price, estimate)
    };
    let (lacking, currency) = lacking(settlement, owed, charged);
    let (source, sink) = ([(Account::Exposure, lacking)], [(Account::Revenue, lacking)]);
    legs.extend(pair(&source, &sink, (currency, Component::Uncollected), price, estimate));
    legs
}

/// What a sale is above what is paid of it, in units of the price's currency.
pub(super) fn lacking(settlement: &Settlement, owed: i64, paid: i64) -> (i64, Currency) {
    let (lacking, currency) = match &settlement.conversion {
        None => (owed.saturating_sub(paid), settlement.currency),
        Some(conversion) => {
            let (sold, _) = conversion.part(paid, owed);
            (conversion.sale.saturating_sub(sold), conversion.currency)
        }
    };
    (lacking.max(0), currency)
}

/// The legs that take `more` units for a sale of which `total` units are then paid, at most `promo`
/// of them of promotional credit, where the conversions of what is booked come to these two sides.
pub(super) fn further_legs(
    settlement: &Settlement,
    (owed, estimate): (i64, bool),
    (total, more, promo): (i64, i64, i64),
    (sold, at_rate): (i64, i64),
) -> Vec<Leg> {
    let sources = sources(&settlement.app, more, promo);
    let Some(conversion) = &settlement.conversion else {
        let (currency, price) = (settlement.currency, &settlement.sale_price);
        let revenue = [(Account::Revenue, more)];
        return pair(&sources, &revenue, (currency, Component::Sale), Some(price), estimate);
    };
    let (sale, plain) = conversion.part(total, owed);
    let sides = (sale.saturating_sub(sold).max(0), plain.saturating_sub(at_rate).clamp(0, more));
    converted_legs(settlement, conversion, (&sources, more, estimate), sides)
}

/// The legs of `charged` units of the wallet's currency that pay for `sale` units of the price's,
/// `plain` of them at the rate alone.
fn converted_legs(
    settlement: &Settlement,
    conversion: &Conversion,
    (sources, charged, estimate): (&[(Account, i64)], i64, bool),
    (sale, plain): (i64, i64),
) -> Vec<Leg> {
    let (currency, rate) = ((settlement.currency, Component::Sale), Some(&conversion.rate));
    let sinks = [(Account::FxPosition, plain), (Account::FxResult, charged.saturating_sub(plain))];
    let mut legs = pair(sources, &sinks, currency, rate, estimate);
    let (currency, price) = ((conversion.currency, Component::Fx), Some(&settlement.sale_price));
    let position = [(Account::FxPosition, sale)];
    legs.extend(pair(&position, &[(Account::Revenue, sale)], currency, price, estimate));
    legs
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::clock::Timestamp;
    use crate::ledger::legs_with_promo;

    fn rate(from: &str, to: &str, digits: i64, decimals: u8, spread_ppm: u32) -> FxRate {
        FxRate {
            reference: PriceRef { code: "fx".into(), version_no: 4 },
            from: Currency::parse(from).unwrap(),
            to: Currency::parse(to).unwrap(),
            digits,
            decimals,
            spread_ppm,
        }
    }

    fn settlement(rate: &FxRate, sale: i64) -> Settlement {
        let converted = rate.convert(sale).unwrap();
        Settlement {
            hold: Uuid::nil(),
            app: "acme".into(),
            currency: rate.to,
            close: Close::Settle { sale: converted.owed, estimate: false },
            sale_price: PriceRef { code: "sale".into(), version_no: 1 },
            conversion: Some(rate.conversion(sale, converted)),
            attempts: Vec::new(),
            at: Timestamp::default(),
        }
    }

    fn sides(legs: &[Leg]) -> BTreeMap<(String, Currency), i128> {
        let mut sides = BTreeMap::new();
        for leg in legs {
            *sides.entry((leg.debit.to_string(), leg.currency)).or_default() -=
                i128::from(leg.amount);
            *sides.entry((leg.credit.to_string(), leg.currency)).or_default() +=
                i128::from(leg.amount);
        }
        sides
    }

    #[test]
    fn a_worked_example() {
        // 2 dollars at 0.92 with 1 %: 1.84 and 0.0184 euros.
        let legs = legs_with_promo(
            &settlement(&rate("USD", "EUR", 92, 2, 10_000), 2_000_000_000),
            1_858_400_000,
            1_000_000_000,
        );
        let shown: Vec<String> = legs
            .iter()
            .map(|l| format!("{} {} {} {}", l.debit, l.credit, l.amount, l.currency))
            .collect();
        assert_eq!(
            shown,
            [
                "promo:acme fx_position 1000000000 EUR",
                "wallet:acme fx_position 840000000 EUR",
                "wallet:acme fx_result 18400000 EUR",
                "fx_position revenue 2000000000 USD",
            ]
        );
    }

    #[test]
    fn currencies_of_other_scales_convert() {
        // 1 dollar is 150.25 yen of seven decimals.
        let converted = rate("USD", "JPY", 15_025, 2, 0).convert(1_000_000_000).unwrap();
        assert_eq!(converted, Converted { plain: 1_502_500_000, owed: 1_502_500_000 });
        let back = rate("JPY", "USD", 66, 4, 0).convert(10_000_000).unwrap();
        assert_eq!(back.plain, 6_600_000);
        assert_eq!(
            rate("USD", "EUR", 1, 0, 0).convert(i64::MAX),
            Ok(Converted { plain: i64::MAX, owed: i64::MAX })
        );
        assert_eq!(rate("USD", "EUR", 2, 0, 0).convert(i64::MAX), Err(Error::Overflow));
    }

    proptest! {
        #[test]
        fn a_customer_pays_at_most_half_a_unit_above_the_exact_amount(
            sale in 0_i64..1_000_000_000_000_000, digits in 1_i64..1_000_000_000,
            decimals in 0_u8..10, spread in 0_u32..200_000,
        ) {
            let rate = rate("USD", "EUR", digits, decimals, spread);
            if let Ok(converted) = rate.convert(sale) {
                let factor = i128::from(digits) * (1_000_000 + i128::from(spread));
                let exact = i128::from(sale) * factor;
                let unit = 10_i128.pow(u32::from(decimals) + 6);
                prop_assert!(2 * (i128::from(converted.owed) * unit - exact).abs() <= unit);
                prop_assert!(converted.owed >= converted.plain);
            }
        }

        #[test]
        fn every_currency_balances_and_nothing_is_lost(
            sale in 0_i64..1_000_000_000_000, digits in 1_i64..1_000_000,
            decimals in 0_u8..6, spread in 0_u32..200_000,
            share in 0_i64..=1_000, promo in 0_i64..1_000_000_000,
        ) {
            let settlement = settlement(&rate("USD", "EUR", digits, decimals, spread), sale);
            let owed = rate("USD", "EUR", digits, decimals, spread).convert(sale).unwrap().owed;
            let charged = i64::try_from(i128::from(owed) * i128::from(share) / 1_000).unwrap();
            let promo = promo.min(charged);
            let legs = legs_with_promo(&settlement, charged, promo);
            prop_assert!(legs.iter().all(|leg| leg.amount > 0 && leg.debit != leg.credit));
            let sides = sides(&legs);
            let of = |code: &str, currency: Currency| {
                sides.get(&(code.to_owned(), currency)).copied().unwrap_or(0)
            };
            let (eur, usd) = (settlement.currency, Currency::USD);
            for currency in [eur, usd] {
                let sum: i128 = sides.iter().filter(|(k, _)| k.1 == currency).map(|(_, v)| v).sum();
                prop_assert_eq!(sum, 0);
            }
            prop_assert_eq!(of("wallet:acme", eur), -i128::from(charged - promo));
            prop_assert_eq!(of("promo:acme", eur), -i128::from(promo));
            prop_assert_eq!(of("fx_position", eur) + of("fx_result", eur), i128::from(charged));
            prop_assert_eq!(of("revenue", usd), -of("fx_position", usd) - of("exposure", usd));
            // What is not collected is sold all the same.
            prop_assert_eq!(of("revenue", usd), i128::from(sale));
            prop_assert_eq!(of("exposure", eur), 0);
            if charged == owed {
                prop_assert_eq!(of("exposure", usd), 0);
            }
            let of_sale: i64 = legs.iter().filter(|l| l.component == Component::Sale)
                .map(|l| l.amount).sum();
            prop_assert_eq!(of_sale, charged);
        }
    }
}
