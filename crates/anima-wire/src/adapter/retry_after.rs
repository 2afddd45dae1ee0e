//! How long a provider asks to wait, from any of the headers that say so.
//!
//! Dates are taken relative to the answer's own `date` header: no clock is needed, and the
//! provider's may be wrong. Invariant: what cannot be read says nothing; nothing is longer than a
//! day. Sources: RFC 9110 10.2.3, `wire-conventions` 4.1 and 4.3, `b-outbound-chat` B.9.

use http::header::{DATE, HeaderMap, RETRY_AFTER};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// The longest wait that is believed.
const WAIT_MS_MAX: u64 = 86_400_000;

/// Numbers from here on are seconds since 1970 (2001), and a thousand times that milliseconds.
const EPOCH_S_FROM: f64 = 1e9;

/// Pairs of what is left and when it is full again.
const WINDOWS: [(&str, &str); 4] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
];

/// Reads the wait: `retry-after-ms`, then `retry-after`, then the reset of a window that is used
/// up, then a bare `x-ratelimit-reset`.
pub(super) fn read(headers: &HeaderMap) -> Option<u64> {
    let now = text(headers, DATE.as_str()).and_then(date);
    let wait = |name: &str| text(headers, name).and_then(|value| wait_ms(value, now));
    let used_up = |(left, reset): &(&str, &str)| {
        if text(headers, left) == Some("0") { wait(reset) } else { None }
    };
    text(headers, "retry-after-ms")
        .and_then(|value| number(value, 1.0))
        .or_else(|| wait(RETRY_AFTER.as_str()))
        .or_else(|| WINDOWS.iter().filter_map(used_up).max())
        .or_else(|| wait("x-ratelimit-reset"))
        .map(|wait_ms| wait_ms.min(WAIT_MS_MAX))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Reads a wait in any of its forms: seconds, an instant as a number, a duration, a date.
fn wait_ms(value: &str, now: Option<Timestamp>) -> Option<u64> {
    let Ok(seconds) = value.parse::<f64>() else {
        return duration_ms(value).or_else(|| until_ms(date(value)?, now?));
    };
    if seconds < EPOCH_S_FROM {
        return number(value, 1000.0);
    }
    let epoch_ms = if seconds < EPOCH_S_FROM * 1000.0 { seconds * 1000.0 } else { seconds };
    #[expect(clippy::cast_possible_truncation, reason = "what saturates is no instant")]
    until_ms(Timestamp::from_millisecond(epoch_ms as i64).ok()?, now?)
}

/// Milliseconds between two instants; none when the first is past.
fn until_ms(then: Timestamp, now: Timestamp) -> Option<u64> {
    u64::try_from(then.as_millisecond().saturating_sub(now.as_millisecond())).ok()
}

/// A date of HTTP or of RFC 3339.
fn date(value: &str) -> Option<Timestamp> {
    let http = DateTimeParser::new().parse_timestamp(value);
    http.ok().or_else(|| value.parse().ok())
}

/// A number that is not negative, in units of so many milliseconds.
fn number(value: &str, unit_ms: f64) -> Option<u64> {
    let wait_ms = value.parse::<f64>().ok()? * unit_ms;
    if !wait_ms.is_finite() || wait_ms < 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is finite, not negative, and saturates"
    )]
    let whole = wait_ms.ceil() as u64;
    Some(whole)
}

/// A wait as providers write it into bodies: `34s`, `1.5s`.
pub(super) fn duration(value: &str) -> Option<u64> {
    duration_ms(value).map(|wait_ms| wait_ms.min(WAIT_MS_MAX))
}

/// A duration as OpenAI writes it: `6m0s`, `1s`, `120ms`, `1h2m3.5s`.
fn duration_ms(value: &str) -> Option<u64> {
    let mut rest = value;
    let mut total_ms = 0_u64;
    while !rest.is_empty() {
        let unit_at = rest.find(|sign: char| !sign.is_ascii_digit() && sign != '.')?;
        let (count, tail) = rest.split_at_checked(unit_at)?;
        let tail_at = tail.find(|sign: char| sign.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at_checked(tail_at)?;
        let unit_ms = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        total_ms = total_ms.saturating_add(number(count, unit_ms)?);
        rest = next;
    }
    (!value.is_empty()).then_some(total_ms)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn wait(headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        read(&headers.iter().map(pair).collect())
    }

    const NOW: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(wait(&[("retry-after", "0.25")]), Some(250));
        assert_eq!(wait(&[NOW, ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), Some(30_000));
        assert_eq!(wait(&[NOW, ("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")]), None);
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), None);
    }

    #[test]
    fn the_most_exact_header_wins() {
        assert_eq!(wait(&[("retry-after", "7"), ("retry-after-ms", "6500")]), Some(6_500));
        assert_eq!(wait(&[("retry-after", "7"), ("x-ratelimit-reset", "1")]), Some(7_000));
    }

    #[test]
    fn only_a_window_that_is_used_up_is_waited_for() {
        let requests = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "1m0.5s"),
            ("x-ratelimit-remaining-tokens", "12"),
            ("x-ratelimit-reset-tokens", "6h"),
        ];
        assert_eq!(wait(&requests), Some(60_500));
        let anthropic = [
            NOW,
            ("anthropic-ratelimit-tokens-remaining", "0"),
            ("anthropic-ratelimit-tokens-reset", "1994-11-06T08:49:42Z"),
        ];
        assert_eq!(wait(&anthropic), Some(5_000));
    }

    #[test]
    fn instants_as_numbers_are_read_in_seconds_and_milliseconds() {
        let now = ("date", "Tue, 14 Nov 2023 22:13:20 GMT");
        assert_eq!(wait(&[now, ("x-ratelimit-reset", "1700000009")]), Some(9_000));
        assert_eq!(wait(&[now, ("x-ratelimit-reset", "1700000009500")]), Some(9_500));
    }

    #[test]
    fn garbage_says_nothing_and_nothing_is_longer_than_a_day() {
        for garbage in ["", "-5", "soon", "NaN", "inf", "1x", "5s5", "1.2.3s"] {
            assert_eq!(wait(&[("retry-after", garbage)]), None, "{garbage}");
        }
        assert_eq!(wait(&[("retry-after", "999999999")]), Some(86_400_000));
        assert_eq!(wait(&[("retry-after-ms", "1e30")]), Some(86_400_000));
    }
}
