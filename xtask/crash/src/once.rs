//! Calls that are sent again under their `Idempotency-Key`: beside the first, after it, and after a
//! kill.
//!
//! One call in five has such a key, and most of those are sent again. What came of them is judged
//! by `audit/once.rs`. Invariant: an idempotency key has an API key of its own, which serves
//! another only when nothing that was sent under the one before can still arrive: so the books say
//! which holds are of which key, also where no client saw an answer.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::http_client::Ask;
use crate::operator::Key;
use crate::process::now_us;
use crate::scenario::Scenario;
use crate::seed::Seed;

/// Calls in a hundred that have a key, and how many of those are sent again.
const KEYED: u64 = 20;
const REPEATED: u64 = 70;

/// A call is sent again at most so often, and this long after it was sent at first.
const TIMES: u64 = 3;
const LATEST_MS: u64 = 25_000;

/// From the first call under a key until the last has long been given up.
const REST: Duration = Duration::from_secs(115);

/// API keys that a rate of calls needs.
pub(crate) fn pool(calls_per_second: u64) -> u64 {
    (calls_per_second * 15).clamp(50, 1_000)
}

/// The idempotency key of a call.
#[derive(Debug, Clone)]
pub(crate) struct Under {
    pub(crate) name: String,
    /// Of the API key.
    pub(crate) kid: String,
    /// When it was sent at first, microseconds since 1970.
    pub(crate) first_us: i64,
}

/// What a client was told of a call under a key.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) under: Under,
    /// The request whose stored answer it is: 32 hex digits.
    pub(crate) original: Option<String>,
    /// A hash of the body.
    pub(crate) answer: u64,
    /// Of an error; empty without one.
    pub(crate) code: String,
}

/// A call under a key, to be sent once more.
#[derive(Debug, Clone)]
pub(crate) struct Again {
    pub(crate) scenario: &'static Scenario,
    pub(crate) ask: Ask,
    pub(crate) under: Under,
}

/// The keys of a load.
#[derive(Debug)]
pub(crate) struct Keyed {
    free: VecDeque<Key>,
    resting: VecDeque<(Instant, Key)>,
    due: BTreeMap<(Instant, u64), Again>,
    count: u64,
}

impl Keyed {
    pub(crate) fn new(pool: Vec<Key>) -> Self {
        let (resting, due) = (VecDeque::new(), BTreeMap::new());
        Self { free: pool.into(), resting, due, count: 0 }
    }

    /// Gives a call a key, now and then, and says when it is sent again.
    pub(crate) fn mark(
        &mut self,
        (scenario, ask): (&'static Scenario, &mut Ask),
        seed: &mut Seed,
    ) -> Option<Under> {
        if !seed.percent(KEYED) {
            return None;
        }
        let now = Instant::now();
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            self.free.extend(self.resting.pop_front().map(|(_, key)| key));
        }
        let key = self.free.pop_front()?;
        self.count += 1;
        let name = format!("call-{}", self.count);
        let under = Under { name: name.clone(), kid: key.kid.clone(), first_us: now_us() };
        (ask.token, ask.idempotency_key) = (key.secret.clone(), Some(name));
        self.resting.push_back((now + REST, key));
        let times = if seed.percent(REPEATED) { seed.between(1, TIMES + 1) } else { 0 };
        for n in 0..times {
            let after_ms = match seed.below(3) {
                0 => seed.below(300),
                1 => seed.between(300, 4_000),
                _ => seed.between(4_000, LATEST_MS),
            };
            let at = (now + Duration::from_millis(after_ms), self.count * TIMES + n);
            let again = Again { scenario, ask: ask.clone(), under: under.clone() };
            self.due.insert(at, again);
        }
        Some(under)
    }

    /// What is to be sent again by now.
    pub(crate) fn due(&mut self) -> Option<Again> {
        let first = self.due.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }
}
