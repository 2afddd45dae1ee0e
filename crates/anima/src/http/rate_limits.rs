//! Where a caller's limits stand, in the headers that each format's clients know.
//!
//! Invariant: what is told is the tightest limit of its kind; a limit that nobody set is not told.
//! Sources: `wire-conventions` 4.3, `a-inbound` A.0.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use anima_core::clock::Timestamp;
use anima_core::config::{LimitKind, TokenCount};
use anima_core::quota::{Bound, Standing, tightest};

use super::reply::Format;

/// One limit as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    limit: i64,
    remaining: i64,
    reset_us: i64,
}

/// The tightest limits of a call, by what they count. Requests also stand for calls at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    at: Timestamp,
    requests: Option<Told>,
    tokens: Option<Told>,
    input: Option<Told>,
    output: Option<Told>,
}

impl RateLimits {
    /// Picks what is told of bounds that were judged at `at`.
    pub fn of(bounds: &[Bound], standings: &[Standing], at: Timestamp) -> Self {
        let told = |which: &dyn Fn(&Bound) -> bool| {
            tightest(bounds, standings, which).map(|(_, standing)| Told {
                limit: standing.limit,
                remaining: standing.remaining,
                reset_us: standing.reset_us,
            })
        };
        let calls = |bound: &Bound| {
            matches!(bound.counter.rule.kind, LimitKind::Requests | LimitKind::Concurrency)
        };
        let counts =
            |count: TokenCount| move |bound: &Bound| bound.counter.rule.count == Some(count);
        Self {
            at,
            requests: told(&calls),
            tokens: told(&counts(TokenCount::Total)),
            input: told(&counts(TokenCount::Input)),
            output: told(&counts(TokenCount::Output)),
        }
    }

    /// Writes the headers that clients of a format know. Google's know none.
    pub fn write(&self, format: Format, headers: &mut HeaderMap) {
        match format {
            Format::OpenAi => {
                let least = [self.tokens, self.input, self.output].into_iter().flatten();
                let tokens = least.min_by_key(|told| i128::from(told.remaining));
                openai(self.requests, &OPENAI_REQUESTS, headers);
                openai(tokens, &OPENAI_TOKENS, headers);
            }
            Format::Anthropic => {
                for (told, names) in [
                    (self.requests, &ANTHROPIC_REQUESTS),
                    (self.tokens, &ANTHROPIC_TOKENS),
                    (self.input, &ANTHROPIC_INPUT),
                    (self.output, &ANTHROPIC_OUTPUT),
                ] {
                    anthropic(told, names, self.at, headers);
                }
            }
            Format::Gemini => {}
        }
    }
}

/// Limit, remaining, reset.
type Names = [HeaderName; 3];

const OPENAI_REQUESTS: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const OPENAI_TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];
const ANTHROPIC_REQUESTS: Names = [
    HeaderName::from_static("anthropic-ratelimit-requests-limit"),
    HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
    HeaderName::from_static("anthropic-ratelimit-requests-reset"),
];
const ANTHROPIC_TOKENS: Names = [
    HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
];
const ANTHROPIC_INPUT: Names = [
    HeaderName::from_static("anthropic-ratelimit-input-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-input-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-input-tokens-reset"),
];
const ANTHROPIC_OUTPUT: Names = [
    HeaderName::from_static("anthropic-ratelimit-output-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-output-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-output-tokens-reset"),
];

fn openai(told: Option<Told>, [limit, remaining, reset]: &Names, headers: &mut HeaderMap) {
    let Some(told) = told else { return };
    headers.insert(limit, HeaderValue::from(told.limit));
    headers.insert(remaining, HeaderValue::from(told.remaining));
    if let Ok(text) = HeaderValue::try_from(duration(told.reset_us)) {
        headers.insert(reset, text);
    }
}

fn anthropic(
    told: Option<Told>,
    [limit, remaining, reset]: &Names,
    at: Timestamp,
    headers: &mut HeaderMap,
) {
    let Some(told) = told else { return };
    headers.insert(limit, HeaderValue::from(told.limit));
    headers.insert(remaining, HeaderValue::from(told.remaining));
    // To the second, rounded up, as Anthropic writes it.
    let seconds = at.micros().saturating_add(told.reset_us).saturating_add(999_999) / 1_000_000;
    let instant = Timestamp::from_micros(seconds.saturating_mul(1_000_000));
    if let Ok(text) = HeaderValue::try_from(instant.to_string()) {
        headers.insert(reset, text);
    }
}

/// As `OpenAI` writes a duration: `120ms`, `1s`, `6m0s`, `1h0m0s`. Rounded up.
fn duration(us: i64) -> String {
    let ms = us.max(0).saturating_add(999) / 1_000;
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    let (seconds, rest) = (ms / 1_000, ms % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let seconds = match rest {
        0 => format!("{seconds}s"),
        rest => format!("{seconds}.{rest:03}s"),
    };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        let cases = [
            (0, "0ms"),
            (1, "1ms"),
            (120_000, "120ms"),
            (1_000_000, "1s"),
            (1_500_000, "1.500s"),
            (360_000_000, "6m0s"),
            (3_600_000_000, "1h0m0s"),
        ];
        for (us, text) in cases {
            assert_eq!(duration(us), text);
        }
    }

    #[test]
    fn each_format_has_its_own_headers() {
        let told = Some(Told { limit: 60, remaining: 59, reset_us: 1_000_000 });
        let at = Timestamp::parse("2026-11-23T01:00:00Z").unwrap();
        let limits = RateLimits { at, requests: told, tokens: told, ..RateLimits::default() };
        let mut headers = HeaderMap::new();
        limits.write(Format::OpenAi, &mut headers);
        assert_eq!(headers["x-ratelimit-limit-requests"], "60");
        assert_eq!(headers["x-ratelimit-remaining-tokens"], "59");
        assert_eq!(headers["x-ratelimit-reset-tokens"], "1s");
        let mut headers = HeaderMap::new();
        limits.write(Format::Anthropic, &mut headers);
        assert_eq!(headers["anthropic-ratelimit-requests-limit"], "60");
        assert_eq!(headers["anthropic-ratelimit-tokens-reset"], "2026-11-23T01:00:01Z");
        assert!(!headers.contains_key("anthropic-ratelimit-input-tokens-limit"));
        let mut headers = HeaderMap::new();
        limits.write(Format::Gemini, &mut headers);
        assert!(headers.is_empty());
    }
}
