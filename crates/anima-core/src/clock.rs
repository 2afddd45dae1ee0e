//! Time and randomness as parameters, and the ids made from both.
//!
//! Nothing in this crate reads a clock: callers pass a [`Timestamp`]. The system clock lives in the
//! program crate, a settable one in its tests. Invariant: ids minted later sort later, to the
//! millisecond (`UUIDv7`, RFC 9562 section 5.7).

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// An instant in UTC, in microseconds since 1970. Written as RFC 3339 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Far enough ahead to stand for "open" in comparisons (the year 9999).
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// Wraps microseconds since 1970 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970 UTC.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole milliseconds since 1970 UTC, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Whole seconds since 1970 UTC, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This instant plus a number of milliseconds, saturating.
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Microseconds from `earlier` to this instant; negative when `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads an RFC 3339 instant. `None` when the text is not one or lies outside years 1..9999.
    pub fn parse(text: &str) -> Option<Self> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        Some(Self(instant.as_microsecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => write!(f, "{instant}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom("expected an RFC 3339 time such as 2026-01-31T00:00:00Z")
        })
    }
}

/// Tells the time. One implementation reads the system, one is set by tests.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current instant.
    fn now(&self) -> Timestamp;
}

/// Gives random bits. Implementations for secrets must be cryptographically strong.
pub trait Rng: Send + Sync + fmt::Debug {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// A clock that only moves when told to.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock standing at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.micros()))
    }

    /// Moves the clock forward.
    pub fn advance_millis(&self, millis: i64) {
        self.0.fetch_add(millis * 1_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A repeatable random source (`SplitMix64`). Not for secrets.
#[derive(Debug)]
pub struct SeededRng(AtomicU64);

impl SeededRng {
    /// A source whose whole sequence is a function of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Mints a time-ordered id (`UUIDv7`).
pub fn mint_id(now: Timestamp, rng: &dyn Rng) -> Uuid {
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    let mut random = [0_u8; 10];
    let (head, tail) = random.split_at_mut(8);
    head.copy_from_slice(&rng.next_u64().to_be_bytes());
    let second = rng.next_u64().to_be_bytes();
    for (to, from) in tail.iter_mut().zip(second) {
        *to = from;
    }
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_and_write_rfc_3339() {
        let at = Timestamp::parse("2026-11-22T10:00:00.25Z").unwrap();
        assert_eq!(at.to_string(), "2026-11-22T10:00:00.25Z");
        assert_eq!(Timestamp::parse("yesterday"), None);
        let offset = Timestamp::parse("2026-11-22T12:00:00+02:00").unwrap();
        assert_eq!(offset.seconds(), at.seconds());
    }

    #[test]
    fn ids_sort_by_the_time_they_were_minted() {
        let rng = SeededRng::new(7);
        let first = mint_id(Timestamp::from_micros(1_000_000), &rng);
        let second = mint_id(Timestamp::from_micros(1_002_000), &rng);
        assert!(first < second);
        assert_eq!(first.get_version_num(), 7);
    }
}
