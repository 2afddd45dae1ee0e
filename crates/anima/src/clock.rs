//! The system's clock and random source. The only place that reads either.
//!
//! Everything else takes a `Clock` or an `Rng`, so that tests can set them. Invariant: random bits
//! are fit for secrets, and none are given twice.

use anima_core::clock::{Clock, Rng, Timestamp};

/// Reads the system clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the system clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
        Timestamp::from_micros(micros)
    }
}

/// Cryptographically strong random bits from the TLS library's generator, drawn in blocks: a call
/// of the generator costs about as much for 512 bytes as for 8, and a request needs several.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

/// Numbers in one block.
const BLOCK: usize = 64;

thread_local! {
    /// What is left of this thread's block. Numbers are taken out, so none is given twice.
    static LEFT: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        LEFT.with_borrow_mut(|left| {
            if left.is_empty() {
                let mut bytes = [0_u8; BLOCK * 8];
                fill(&mut bytes);
                let (numbers, _) = bytes.as_chunks::<8>();
                left.extend(numbers.iter().map(|n| u64::from_ne_bytes(*n)));
            }
            left.pop().unwrap_or_default()
        })
    }
}

/// Fills a buffer with random bytes fit for keys.
///
/// # Panics
/// When the system has no randomness: a secret must never be guessable, so nothing may go on.
#[expect(clippy::expect_used, reason = "going on without randomness would mint guessable keys")]
pub fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system has no randomness");
}
