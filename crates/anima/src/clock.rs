//! The system's clock and random source. The only place that reads either.

use anima_core::clock::{Clock, Rng, Timestamp};

/// Reads the system clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the system clock"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
        Timestamp::from_micros(micros)
    }
}

/// Cryptographically strong random bits from the TLS library's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0_u8; 8];
        fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

/// Fills a buffer with random bytes fit for keys.
///
/// # Panics
/// When the system has no randomness: a secret must never be guessable, so nothing may go on.
#[expect(
    clippy::expect_used,
    reason = "going on without randomness would mint guessable keys"
)]
pub fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system has no randomness");
}
