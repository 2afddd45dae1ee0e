//! What a call will take of its limits, before anybody knows.
//!
//! The prompt is counted where tokens are limited; the answer is the caller's own limit, or what
//! nine of ten answers of that key and alias stayed below; the cost is the hold's worst case.
//! Invariant: what is learned is bounded in size, and only ever an estimate that the settlement
//! corrects. Source: `reliability` 2.2.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use anima_core::config::QueueMode;
use anima_core::quota::rule::Take;

use super::super::{Relay, booking, hold};
use crate::http::reply::Refusal;
use crate::relay::call::Call;

/// The least that an answer is taken for, tokens (`reliability` 2.2).
const FLOOR: u64 = 256;
/// What an answer is taken for when there was none yet, tokens.
const FIRST: u64 = 1_024;
/// Parts, so that calls of different keys do not wait for each other.
const PARTS: usize = 16;
/// Entries of one part. Beyond it everything is forgotten, which costs a few bad estimates.
const MOST: usize = 8_192;
/// What a call is taken to last when none has ended yet.
const SERVICE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Part {
    /// By key and alias: the tokens that nine of ten answers stayed below.
    outputs: HashMap<(Arc<str>, Arc<str>), u64>,
    /// By key: how long a call lasts, microseconds.
    services: HashMap<Arc<str>, u64>,
}

/// What earlier calls tell about the next.
#[derive(Debug)]
pub(super) struct Learned {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
}

impl Default for Learned {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: RandomState::new() }
    }
}

impl Learned {
    fn part(&self, kid: &str) -> Option<&Mutex<Part>> {
        let hash = self.hasher.hash_one(kid);
        self.parts.get(usize::try_from(hash % PARTS as u64).unwrap_or(0))
    }

    /// Tokens that an answer is taken for.
    fn output(&self, kid: &Arc<str>, alias: &Arc<str>) -> u64 {
        let known = self.part(kid).and_then(|part| {
            part.lock().outputs.get(&(Arc::clone(kid), Arc::clone(alias))).copied()
        });
        known.unwrap_or(FIRST).max(FLOOR)
    }

    /// Takes in a call that is over.
    pub(super) fn note(
        &self,
        (kid, alias): (&Arc<str>, &Arc<str>),
        output_tokens: Option<u64>,
        lasted: Duration,
    ) {
        let Some(part) = self.part(kid) else { return };
        let mut part = part.lock();
        if let Some(tokens) = output_tokens {
            let key = (Arc::clone(kid), Arc::clone(alias));
            let known = part.outputs.entry(key).or_insert(FIRST);
            *known = percentile(*known, tokens);
        }
        let lasted = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        let known = part.services.entry(Arc::clone(kid)).or_insert(lasted);
        *known = (known.saturating_mul(7).saturating_add(lasted)) / 8;
    }

    /// How long a call of a key lasts. `None` when none has ended yet.
    pub(super) fn service(&self, kid: &str) -> Option<Duration> {
        let known = self.part(kid).and_then(|part| part.lock().services.get(kid).copied());
        known.map(Duration::from_micros)
    }

    /// The same, or a guess.
    pub(super) fn service_or_guess(&self, kid: &str) -> Duration {
        self.service(kid).unwrap_or(SERVICE)
    }

    /// When one of `slots` of a key is free again, milliseconds.
    pub(super) fn slot_free_ms(&self, kid: &str, slots: i64) -> u64 {
        let slots = u128::try_from(slots.max(1)).unwrap_or(1);
        let ms = self.service_or_guess(kid).as_millis() / slots;
        u64::try_from(ms).unwrap_or(u64::MAX).clamp(50, 60_000)
    }

    /// Forgets everything of a part that has grown too large.
    pub(super) fn sweep(&self) {
        for part in &self.parts {
            let mut part = part.lock();
            if part.outputs.len() > MOST {
                part.outputs.clear();
            }
            if part.services.len() > MOST {
                part.services.clear();
            }
        }
    }
}

/// Moves an estimate of the 90th percentile by one sample: up by nine parts when it was too low,
/// down by one when not, so that it rests where one of ten is above.
fn percentile(known: u64, sample: u64) -> u64 {
    let step = known.max(FLOOR) / 40 + 1;
    if sample > known {
        known.saturating_add(step.saturating_mul(9)).min(sample.max(known))
    } else {
        known.saturating_sub(step).max(sample).min(known)
    }
}

/// What a call will take.
///
/// # Errors
/// When it cannot be priced.
pub(super) async fn take(
    relay: &Relay,
    learned: &Learned,
    call: &Arc<Call>,
) -> Result<Take, Refusal> {
    let request = &call.request;
    let wanted = hold::wanted_output(call, &relay.limits);
    let (mut input, mut output) = (0, 0);
    if call.caller.terms.counts_tokens() {
        input = booking::count_input(call).await;
        let learned = learned.output(&call.caller.kid, &call.alias.code);
        let each = request.output_tokens_max.map_or(learned, |most| most.min(learned));
        output = each.saturating_mul(request.choices);
    }
    // A budget may be set while the call waits for its turn.
    let terms = &call.caller.terms;
    let may_cost = terms.counts_cost() || terms.mode == QueueMode::Wait;
    let cost = if may_cost { hold::amount(call, wanted)? } else { 0 };
    let number = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    Ok(Take { requests: 1, input_tokens: number(input), output_tokens: number(output), cost })
}

#[cfg(test)]
mod tests {
    use anima_core::clock::{Rng as _, SeededRng};

    use super::*;

    #[test]
    fn the_estimate_rests_where_nine_of_ten_are_below() {
        let rng = SeededRng::new(1);
        let mut known = FIRST;
        let samples: Vec<u64> = (0..4_000).map(|_| rng.next_u64() % 2_000).collect();
        for sample in &samples {
            known = percentile(known, *sample);
        }
        let above = samples.iter().filter(|sample| **sample > known).count();
        assert!((100..=900).contains(&above), "{known}: {above} of 4000");
    }

    #[test]
    fn a_slot_is_free_after_a_share_of_a_call() {
        let learned = Learned::default();
        let (kid, alias): (Arc<str>, Arc<str>) = ("k".into(), "a".into());
        learned.note((&kid, &alias), Some(10), Duration::from_secs(8));
        assert_eq!(learned.slot_free_ms("k", 4), 2_000);
        assert_eq!(learned.slot_free_ms("unknown", 1), 1_000);
    }
}
