//! Decimal numbers as text: moved by powers of ten and multiplied, exactly.
//!
//! Published files write `1.25e-06`; prices are written `1.25` per million. Invariant: digits are
//! never rounded, and no float is made of them.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

/// More digits than this before or behind the point are no price.
const PLACES_MAX: i32 = 60;

/// A number as JSON writes it, times `10^power`, in plain digits. `None` when it is no number.
pub(crate) fn shifted(text: &str, power: i32) -> Option<String> {
    let text = text.trim();
    let (sign, body) = text.strip_prefix('-').map_or(("", text), |body| ("-", body));
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (body, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_plain(whole) || !is_plain(fraction) {
        return None;
    }
    let decimals = i32::try_from(fraction.len()).ok()?;
    let point = decimals.checked_sub(exponent)?.checked_sub(power)?;
    let digits = format!("{whole}{fraction}");
    pointed(&digits, point).map(|plain| format!("{sign}{plain}"))
}

/// Digits with `decimals` of them behind the point, without zeros that say nothing.
fn pointed(digits: &str, decimals: i32) -> Option<String> {
    if decimals.abs() > PLACES_MAX {
        return None;
    }
    let places = usize::try_from(decimals.unsigned_abs()).ok()?;
    if decimals <= 0 {
        let number = format!("{digits}{}", "0".repeat(places));
        let number = number.trim_start_matches('0');
        return Some(if number.is_empty() { "0" } else { number }.to_owned());
    }
    let width = places.checked_add(1)?;
    let padded = format!("{digits:0>width$}");
    let (whole, fraction) = padded.split_at_checked(padded.len().checked_sub(places)?)?;
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
}

/// The exact product of two plain decimals. `None` when one is none, or the product is too long.
pub(crate) fn product(one: &str, other: &str) -> Option<String> {
    let (one, other) =
        (anima_core::money::decimal(one).ok()?, anima_core::money::decimal(other).ok()?);
    let digits = i128::from(one.0).checked_mul(i128::from(other.0))?;
    if digits < 0 {
        return None;
    }
    pointed(&digits.to_string(), i32::from(one.1).checked_add(i32::from(other.1))?)
}

/// Whether a number is zero, however it is written.
pub(crate) fn is_zero(text: &str) -> bool {
    !text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_moved_digit_by_digit() {
        for (text, power, plain) in [
            ("1.25e-06", 6, "1.25"),
            ("2.8E-9", 6, "0.0028"),
            ("5e-7", 6, "0.5"),
            ("0.0000025", 6, "2.5"),
            ("4.9999999999999996e-06", 6, "4.9999999999999996"),
            ("0.040", 0, "0.04"),
            ("3", 0, "3"),
            ("1e2", 0, "100"),
            ("0.0", 6, "0"),
            ("0e-6", 6, "0"),
            ("-1e-6", 6, "-1"),
        ] {
            assert_eq!(shifted(text, power).as_deref(), Some(plain), "{text}");
        }
        for wrong in ["", "-", ".5", "1,5", "null", "\"1\"", "1e", "1e999", "NaN", "1.2.3"] {
            assert_eq!(shifted(wrong, 6), None, "{wrong}");
        }
    }

    #[test]
    fn a_product_is_exact() {
        assert_eq!(product("2.50", "1.2").as_deref(), Some("3"));
        assert_eq!(product("0.0028", "1.15").as_deref(), Some("0.00322"));
        assert_eq!(product("10", "0").as_deref(), Some("0"));
        assert_eq!(product("10", "-1"), None);
        assert_eq!(product("a", "1"), None);
    }
}
