//! Money as integers, prices as exact rationals, and the only rounding there is.
//!
//! An amount is an `i64` count of units; a unit is `10^-scale` of its currency, the scale fixed for
//! ever per currency (USD 9: nano-dollars). Products are made in `i128`. Invariant: nothing here
//! wraps, saturates or touches a float; what does not fit is [`Error::Overflow`] and the caller
//! refuses. Source: SPEC 8; the scales are those of `docs/decisions/0002-money.md`.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why an amount could not be read or computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The result does not fit 64 bits of units.
    #[error("the amount is out of range")]
    Overflow,
    /// The text is not a plain decimal number.
    #[error("expected a decimal number in a string, such as \"2.50\"")]
    NotDecimal,
    /// The text has more decimals than the currency's unit can hold.
    #[error("too many decimals for this currency")]
    TooFine,
    /// Not a currency code in three capital letters.
    #[error("expected a currency code of three capital letters, such as \"USD\"")]
    NotCurrency,
    /// `per` is not a power of ten between 1 and 10^9.
    #[error("expected a power of ten from 1 to 1000000000")]
    NotPowerOfTen,
    /// Two amounts of different currencies met.
    #[error("the currencies differ")]
    CurrencyMismatch,
}

/// An ISO 4217 code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// United States dollar.
    pub const USD: Self = Self(*b"USD");

    /// Reads a code of three capital letters.
    ///
    /// # Errors
    /// [`Error::NotCurrency`] for anything else.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(Error::NotCurrency),
        }
    }

    /// The three letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Decimal places of one unit. Fixed for ever: changing one would change every stored amount.
    pub const fn scale(self) -> u8 {
        match &self.0 {
            b"JPY" | b"INR" | b"TWD" => 7,
            b"KRW" => 6,
            b"IDR" | b"VND" => 5,
            _ => 9,
        }
    }

    /// Decimal places of the smallest coin, to which bills are rounded (ISO 4217).
    const fn coin_decimals(self) -> u8 {
        match &self.0 {
            b"BIF" | b"CLP" | b"DJF" | b"GNF" | b"ISK" | b"JPY" | b"KMF" | b"KRW" | b"PYG"
            | b"RWF" | b"UGX" | b"VND" | b"VUV" | b"XAF" | b"XOF" | b"XPF" => 0,
            b"BHD" | b"IQD" | b"JOD" | b"KWD" | b"LYD" | b"OMR" | b"TND" => 3,
            _ => 2,
        }
    }

    /// Half of the smallest coin, in units: what rounding to coins can take or add.
    pub fn half_coin(self) -> i64 {
        let finer = self.scale().saturating_sub(self.coin_decimals());
        10_i64.checked_pow(finer.into()).and_then(|coin| coin.checked_div(2)).unwrap_or(0)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// An amount of one currency, in units of `10^-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    /// Signed count of units.
    pub units: i64,
    /// What the units are of.
    pub currency: Currency,
}

impl Money {
    /// An amount from its units.
    pub const fn new(units: i64, currency: Currency) -> Self {
        Self { units, currency }
    }

    /// Reads a decimal such as `10.00` or `-0.000000001`, exactly.
    ///
    /// # Errors
    /// [`Error::NotDecimal`], [`Error::TooFine`] or [`Error::Overflow`].
    pub fn parse(text: &str, currency: Currency) -> Result<Self, Error> {
        let decimal = Decimal::parse(text)?;
        let units = decimal.at_scale(currency.scale())?;
        Ok(Self { units, currency })
    }

    /// The sum of two amounts of one currency.
    ///
    /// # Errors
    /// [`Error::CurrencyMismatch`] or [`Error::Overflow`].
    pub fn plus(self, other: Self) -> Result<Self, Error> {
        if self.currency != other.currency {
            return Err(Error::CurrencyMismatch);
        }
        let units = self.units.checked_add(other.units).ok_or(Error::Overflow)?;
        Ok(Self { units, currency: self.currency })
    }
}

impl fmt::Display for Money {
    /// The exact decimal, without the code, with at least two decimals: `10.00`, `0.0000025`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = u32::from(self.currency.scale());
        let one = 10_u64.checked_pow(scale).unwrap_or(u64::MAX);
        let units = self.units.unsigned_abs();
        let (whole, rest) = (units.checked_div(one), units.checked_rem(one));
        let width = usize::from(self.currency.scale());
        let digits = format!("{:0width$}", rest.unwrap_or(0));
        let kept = digits.trim_end_matches('0').len().max(2).min(width);
        let sign = if self.units < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{}", whole.unwrap_or(0), digits.get(..kept).unwrap_or(&digits))
    }
}

/// A decimal number as digits and a count of decimals. The way in for every amount and multiplier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    digits: i64,
    decimals: u8,
}

impl Decimal {
    fn parse(text: &str) -> Result<Self, Error> {
        let (negative, body) = match text.strip_prefix('-') {
            Some(body) => (true, body),
            None => (false, text),
        };
        let (whole, fraction) = body.split_once('.').unwrap_or((body, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(fraction) || body.len() > 40 {
            return Err(Error::NotDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        let mut digits: i64 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            let digit = i64::from(byte.saturating_sub(b'0'));
            digits =
                digits.checked_mul(10).and_then(|d| d.checked_add(digit)).ok_or(Error::Overflow)?;
        }
        let decimals = u8::try_from(fraction.len()).ok().ok_or(Error::TooFine)?;
        let digits = if negative { digits.checked_neg().ok_or(Error::Overflow)? } else { digits };
        Ok(Self { digits, decimals })
    }

    fn at_scale(self, scale: u8) -> Result<i64, Error> {
        let missing = scale.checked_sub(self.decimals).ok_or(Error::TooFine)?;
        let factor = 10_i64.checked_pow(u32::from(missing)).ok_or(Error::Overflow)?;
        self.digits.checked_mul(factor).ok_or(Error::Overflow)
    }
}

/// Reads a decimal number as digits and a count of decimals, exactly.
///
/// # Errors
/// [`Error::NotDecimal`], [`Error::TooFine`] or [`Error::Overflow`].
pub fn decimal(text: &str) -> Result<(i64, u8), Error> {
    let decimal = Decimal::parse(text)?;
    Ok((decimal.digits, decimal.decimals))
}

/// What one unit of a meter costs: `units / 10^pow10` currency units, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Currency units for `10^pow10` of the meter. Never negative.
    pub units: i64,
    /// Power of ten of the meter's quantity, 0 to 18.
    pub pow10: u8,
}

impl Rate {
    /// `amount` (decimal text) for each `per` units of the meter.
    ///
    /// Decimals beyond the currency's scale go into the power of ten, so no price is rounded.
    ///
    /// # Errors
    /// [`Error::NotPowerOfTen`] for `per`; [`Error::NotDecimal`], [`Error::TooFine`] or
    /// [`Error::Overflow`] for `amount`, a negative one included.
    pub fn parse(amount: &str, per: u64, currency: Currency) -> Result<Self, Error> {
        let mut pow10 = per.checked_ilog10().ok_or(Error::NotPowerOfTen)?;
        if 10_u64.checked_pow(pow10) != Some(per) || pow10 > 9 {
            return Err(Error::NotPowerOfTen);
        }
        let mut decimal = Decimal::parse(amount)?;
        if decimal.digits < 0 {
            return Err(Error::NotDecimal);
        }
        let scale = currency.scale();
        let extra = decimal.decimals.saturating_sub(scale);
        decimal.decimals = decimal.decimals.saturating_sub(extra);
        pow10 = pow10.saturating_add(u32::from(extra));
        let pow10 = u8::try_from(pow10).ok().filter(|p| *p <= 18).ok_or(Error::TooFine)?;
        Ok(Self { units: decimal.at_scale(scale)?, pow10 })
    }
}

/// A factor on a price, in parts per million. 1.0 is 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplier(u64);

impl Multiplier {
    /// Times one.
    pub const ONE: Self = Self(1_000_000);

    /// Reads a decimal with up to six decimals, not negative.
    ///
    /// # Errors
    /// [`Error::NotDecimal`], [`Error::TooFine`] or [`Error::Overflow`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let ppm = Decimal::parse(text)?.at_scale(6)?;
        u64::try_from(ppm).ok().map(Self).ok_or(Error::NotDecimal)
    }

    /// Parts per million.
    pub const fn ppm(self) -> u64 {
        self.0
    }

    /// The inverse of [`Multiplier::ppm`].
    pub const fn from_ppm(ppm: u64) -> Self {
        Self(ppm)
    }
}

/// An exact sum of rated quantities, waiting for its one rounding.
///
/// Kept at the largest power of ten met so far: 6 for a price list per million tokens, which leaves
/// room for 10^26 currency units before anything overflows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExactSum {
    value: i128,
    pow10: u8,
}

impl ExactSum {
    /// Adds `quantity × rate`.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the exact sum leaves 128 bits.
    pub fn add(self, quantity: u64, rate: Rate) -> Result<Self, Error> {
        let pow10 = self.pow10.max(rate.pow10);
        let raise = |value: i128, from: u8| {
            let factor = 10_i128.checked_pow(u32::from(pow10.saturating_sub(from)));
            factor.and_then(|f| value.checked_mul(f)).ok_or(Error::Overflow)
        };
        let product = i128::from(quantity)
            .checked_mul(i128::from(rate.units))
            .ok_or(Error::Overflow)
            .and_then(|product| raise(product, rate.pow10))?;
        let value = raise(self.value, self.pow10)?.checked_add(product).ok_or(Error::Overflow)?;
        Ok(Self { value, pow10 })
    }

    /// Multiplies and rounds once, half to even, to whole currency units.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the result leaves 64 bits.
    pub fn round(self, multiplier: Multiplier) -> Result<i64, Error> {
        // The multiplier goes in before the division: dividing twice would round twice.
        let scaled = self.value.checked_mul(i128::from(multiplier.0)).ok_or(Error::Overflow)?;
        let power = u32::from(self.pow10).checked_add(6).ok_or(Error::Overflow)?;
        let divisor = 10_i128.checked_pow(power).ok_or(Error::Overflow)?;
        let (quotient, rest) = (scaled.div_euclid(divisor), scaled.rem_euclid(divisor));
        let half = divisor.div_euclid(2);
        let odd = quotient.rem_euclid(2) == 1;
        let up = rest > half || (rest == half && odd);
        let rounded = if up { quotient.checked_add(1).ok_or(Error::Overflow)? } else { quotient };
        i64::try_from(rounded).ok().ok_or(Error::Overflow)
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]
mod tests;
