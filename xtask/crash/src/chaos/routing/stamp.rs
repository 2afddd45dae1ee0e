//! Times of the admin API as numbers.
//!
//! Only the one form that the gateway writes: RFC 3339 in UTC. Invariant: microseconds since 1970,
//! exact.

use anyhow::{Context, Result};

/// `2026-11-23T07:21:00.5Z` as microseconds since 1970.
///
/// # Errors
/// For any other form.
pub(super) fn micros(text: &str) -> Result<i64> {
    read(text).with_context(|| format!("{text} is no time"))
}

fn read(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, part) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let part: i64 = format!("{part:0<6}").get(..6)?.parse().ok()?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + part)
}

/// Days since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_microsecond() {
        assert_eq!(micros("1970-01-01T00:00:00Z").unwrap(), 0);
        assert_eq!(micros("2000-02-29T23:59:59.5Z").unwrap(), 951_868_799_500_000);
        assert_eq!(micros("2026-11-23T07:21:00.123456Z").unwrap(), 1_795_418_460_123_456);
        assert!(micros("2026-11-23").is_err());
    }
}
