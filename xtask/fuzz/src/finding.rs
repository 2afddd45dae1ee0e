//! One input against one target: what came of it, also when that was a panic.
//!
//! And a finding made smaller. Invariant: a smaller finding is wrong in the same way.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::targets::Target;

/// No input of these sizes may take longer, in any build, when it is tried again: the first one
/// loads the tables of tokens, and a machine may be busy.
const SLOW: Duration = Duration::from_secs(5);
/// How often a finding is tried to be made smaller.
const TRIES_MAX: usize = 3000;
/// Findings whose texts begin alike are one.
const ALIKE_BYTES: usize = 60;

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps what a panic says instead of printing it.
pub(crate) fn quiet_panics() {
    panic::set_hook(Box::new(|panicked| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = panicked.to_string();
        }
    }));
}

/// The shape of the outcome, or what was wrong.
pub(crate) fn judge(target: &Target, input: &[u8]) -> Result<u64, String> {
    let (mut outcome, mut spent) = timed(target, input);
    if spent > SLOW {
        (outcome, spent) = timed(target, input);
    }
    if spent > SLOW {
        return Err(format!("took {spent:?}"));
    }
    outcome.unwrap_or_else(|_| {
        let said = LAST_PANIC.lock().map(|last| last.clone()).unwrap_or_default();
        Err(format!("panicked: {said}"))
    })
}

fn timed(target: &Target, input: &[u8]) -> (thread::Result<Result<u64, String>>, Duration) {
    let start = Instant::now();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    (outcome, start.elapsed())
}

/// A smaller input that is wrong in the same way.
pub(crate) fn smaller(target: &Target, input: &[u8], wrong: &str) -> Vec<u8> {
    let mut least = input.to_vec();
    let mut size = least.len() / 2;
    let mut tries = 0;
    while size > 0 && tries < TRIES_MAX {
        let mut at = 0;
        while at < least.len() && tries < TRIES_MAX {
            tries += 1;
            let mut part = least.clone();
            drop(part.drain(at..(at + size).min(least.len())));
            match judge(target, &part) {
                Err(other) if is_alike(&other, wrong) => least = part,
                _ => at += size,
            }
        }
        size /= 2;
    }
    least
}

/// Whether two findings are one.
pub(crate) fn is_alike(one: &str, other: &str) -> bool {
    let start = |text: &str| text.bytes().take(ALIKE_BYTES).collect::<Vec<_>>();
    start(one) == start(other)
}
