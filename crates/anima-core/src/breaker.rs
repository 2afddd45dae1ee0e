//! The circuit breaker: is a channel (and finer, a model of it) fit to be called?
//!
//! A pure state machine. Two states are kept, closed and open; a circuit whose open time is over is
//! half open, and then so many probes decide. Not here: where circuits live and who shares them
//! (`anima::circuits`). Invariants: while a circuit is open the time at which it may be tried never
//! moves back; what began before a change of state says nothing about the state after it. Source:
//! SPEC 7, `reliability` 3.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::Breaker;

mod manual;
mod permits;
mod verdict;
mod window;

pub use manual::{Manual, Mode};
pub use permits::Permits;
pub use verdict::{Action, Effect, Verdict};
pub use window::Counts;

use window::Window;

/// How far apart open times are spread around their value, in percent (`reliability` 3.2).
const JITTER_PERCENT: u64 = 20;
/// A circuit that stays closed this long forgets one of its openings (`reliability` 3.2).
const DECAY_MS: i64 = 600_000;
/// The longest wait that an upstream may ask for: what it says is believed up to here (3.3).
pub const ASKED_MS_MAX: u64 = 600_000;
/// Calls that an opening must rest on for other nodes to follow it, unless the channel's own
/// settings ask for fewer (`reliability` 3.2).
const EVIDENCE: u32 = 5;

/// Whether a circuit lets calls through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All calls go through.
    Closed,
    /// None do.
    Open,
    /// So many probes do.
    HalfOpen,
}

impl State {
    /// The word for metrics and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Why a circuit changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Too many calls of the window failed.
    FailureRate,
    /// Too many failed in a row.
    ConsecutiveFailures,
    /// Too many were slow.
    SlowRate,
    /// A probe failed.
    ProbeFailed,
    /// All probes passed.
    ProbesPassed,
    /// Several models of the channel are open.
    ModelsOpen,
    /// The provider does not know the model.
    ModelUnknown,
    /// An operator reset it.
    Reset,
}

impl Cause {
    /// The word for metrics and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SlowRate => "slow_rate",
            Self::ProbeFailed => "probe_failed",
            Self::ProbesPassed => "probes_passed",
            Self::ModelsOpen => "models_open",
            Self::ModelUnknown => "model_unknown",
            Self::Reset => "reset",
        }
    }
}

/// An open circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Since when.
    pub since: Timestamp,
    /// No call before here; from here on probes.
    pub until: Timestamp,
    /// Why.
    pub cause: Cause,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// What the circuit is now.
    pub to: State,
    /// Why.
    pub cause: Cause,
    /// Until when it is open.
    pub until: Option<Timestamp>,
}

/// A circuit as nodes tell one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Number of the state: the later one counts.
    pub epoch: u64,
    /// Openings so far that are not forgotten.
    pub level: u32,
    /// `None` when it is closed.
    pub open: Option<Opening>,
    /// Calls that the state rests on.
    pub evidence: u32,
}

/// A call that was let through: under which state, and whether as a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// [`Circuit::epoch`] when it was let through.
    pub epoch: u64,
    /// It holds a permit.
    pub probe: bool,
}

/// What an attempt told us, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The judgement.
    pub verdict: Verdict,
    /// How long the upstream asks to be left alone, in milliseconds.
    pub asked_ms: Option<u64>,
    /// Now.
    pub at: Timestamp,
    /// Random bits for the jitter.
    pub bits: u64,
}

/// The breaker of one channel or of one model of it.
#[derive(Debug, Clone, Default)]
pub struct Circuit {
    window: Window,
    epoch: u64,
    level: u32,
    open: Option<Opening>,
    closed_at: Timestamp,
    evidence: u32,
}

impl Circuit {
    /// Number of the state: grows with each change, also over restarts.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The state at `now`.
    pub fn state(&self, now: Timestamp) -> State {
        match self.open {
            None => State::Closed,
            Some(opening) if now < opening.until => State::Open,
            Some(_) => State::HalfOpen,
        }
    }

    /// How it is open, if it is, also when its time is over.
    pub const fn opening(&self) -> Option<Opening> {
        self.open
    }

    /// What the window holds at `now`.
    pub fn counts(&self, now: Timestamp, settings: &Breaker) -> Counts {
        self.window.counts(now, settings)
    }

    /// Takes in what became of a call. A probe that passed changes nothing here: see
    /// [`Circuit::passed`].
    pub fn record(
        &mut self,
        admitted: Admitted,
        report: Report,
        settings: &Breaker,
    ) -> Option<Transition> {
        let Report { verdict, asked_ms, at, .. } = report;
        let failed = matches!(verdict.effect, Effect::Failure { .. });
        if let (true, Some(asked), Some(opening)) = (failed, asked_ms, &mut self.open) {
            opening.until = opening.until.max(asked_until(asked, at));
        }
        if admitted.epoch != self.epoch {
            return None;
        }
        match self.open {
            None => {
                self.window.add(verdict.counts()?, at, settings);
                let (cause, evidence) = self.verdict(at, settings)?;
                Some(self.trip_on(cause, evidence, report, settings))
            }
            Some(opening) if admitted.probe => {
                let slow_again = opening.cause == Cause::SlowRate && verdict.slow;
                let reopens = failed || slow_again;
                let cause = if slow_again { Cause::SlowRate } else { Cause::ProbeFailed };
                reopens.then(|| self.open(cause, report, settings))
            }
            Some(_) => None,
        }
    }

    /// Whether a report is that of a probe that passed.
    pub fn is_passed(&self, verdict: Verdict) -> bool {
        let slow_again = self.open.is_some_and(|o| o.cause == Cause::SlowRate) && verdict.slow;
        verdict.effect == Effect::Success && !slow_again
    }

    /// Closes the circuit when enough probes of this opening have passed.
    pub fn passed(
        &mut self,
        epoch: u64,
        passed: u32,
        now: Timestamp,
        settings: &Breaker,
    ) -> Option<Transition> {
        let enough = passed >= settings.half_open_permits.max(1);
        let closes = self.open.is_some() && epoch == self.epoch && enough;
        closes.then(|| self.close(Cause::ProbesPassed, now))
    }

    /// Opens the circuit for a reason outside its window, which is all the evidence that there is
    /// to be had: other nodes follow.
    pub fn trip(&mut self, cause: Cause, report: Report, settings: &Breaker) -> Transition {
        self.trip_on(cause, EVIDENCE, report, settings)
    }

    fn open(&mut self, cause: Cause, report: Report, settings: &Breaker) -> Transition {
        let Report { asked_ms, at, bits, .. } = report;
        if self.open.is_none() {
            let forgotten = at.since(self.closed_at).max(0) / (DECAY_MS * 1_000);
            self.level = self.level.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        }
        let own = at.plus_millis(open_ms(self.level, bits, settings));
        let asked = asked_ms.map_or(own, |asked| asked_until(asked, at));
        let before = self.open.map_or(own, |opening| opening.until);
        let until = own.max(asked).max(before);
        self.level = self.level.saturating_add(1);
        self.open = Some(Opening { since: at, until, cause });
        self.change(at);
        Transition { to: State::Open, cause, until: Some(until) }
    }

    /// Opens the circuit on what so many calls say.
    pub fn trip_on(
        &mut self,
        cause: Cause,
        evidence: u32,
        report: Report,
        settings: &Breaker,
    ) -> Transition {
        self.evidence = evidence;
        self.open(cause, report, settings)
    }

    /// Closes the circuit and forgets the calls that opened it.
    pub fn close(&mut self, cause: Cause, now: Timestamp) -> Transition {
        self.open = None;
        self.closed_at = now;
        self.change(now);
        if cause == Cause::Reset {
            self.level = 0;
        }
        Transition { to: State::Closed, cause, until: None }
    }

    /// As other nodes should see it.
    pub const fn share(&self) -> Shared {
        let Self { epoch, level, open, evidence, .. } = self;
        Shared { epoch: *epoch, level: *level, open: *open, evidence: *evidence }
    }

    /// Takes over what another node found out, if it is later than what is known here.
    pub fn adopt(
        &mut self,
        shared: Shared,
        now: Timestamp,
        settings: &Breaker,
    ) -> Option<Transition> {
        let before = self.open;
        let enough = EVIDENCE.min(settings.minimum_calls).min(settings.consecutive_failures.max(1));
        let weak = before.is_none() && shared.open.is_some() && shared.evidence < enough;
        if shared.epoch <= self.epoch || weak {
            if let (Some(opening), Some(other)) = (&mut self.open, shared.open) {
                opening.until = opening.until.max(other.until);
            }
            return None;
        }
        (self.epoch, self.level, self.evidence) = (shared.epoch, shared.level, shared.evidence);
        self.window = Window::default();
        self.open = shared.open.map(|opening| {
            let until = before.map_or(opening.until, |own| own.until.max(opening.until));
            Opening { until, ..opening }
        });
        match (before, self.open) {
            (Some(_), None) => {
                self.closed_at = now;
                Some(Transition { to: State::Closed, cause: Cause::ProbesPassed, until: None })
            }
            (_, Some(Opening { cause, until, .. })) => {
                Some(Transition { to: State::Open, cause, until: Some(until) })
            }
            (None, None) => None,
        }
    }

    /// Whether the window says that the circuit must open, why, and from how many calls.
    fn verdict(&self, now: Timestamp, settings: &Breaker) -> Option<(Cause, u32)> {
        let (halves, in_a_row) = self.window.streak();
        let most = settings.consecutive_failures;
        if most > 0 && halves >= most.saturating_mul(2) {
            return Some((Cause::ConsecutiveFailures, in_a_row));
        }
        let counts = self.window.counts(now, settings);
        if counts.calls < settings.minimum_calls {
            return None;
        }
        if counts.failure_percent() >= settings.failure_rate.into() {
            return Some((Cause::FailureRate, counts.calls));
        }
        let slow = counts.slow_percent() >= settings.slow_rate.into();
        slow.then_some((Cause::SlowRate, counts.calls))
    }

    /// A new state: what was admitted before it does not count any more. The number comes from the
    /// clock, so that it is later than any that was given out before a restart.
    fn change(&mut self, now: Timestamp) {
        let clock = u64::try_from(now.micros()).unwrap_or(0);
        self.epoch = clock.max(self.epoch.saturating_add(1));
        self.window = Window::default();
    }
}

fn asked_until(asked_ms: u64, now: Timestamp) -> Timestamp {
    now.plus_millis(i64::try_from(asked_ms.min(ASKED_MS_MAX)).unwrap_or(i64::MAX))
}

/// `open_ms` doubled `level` times, spread by the jitter, up to the channel's bound.
fn open_ms(level: u32, bits: u64, settings: &Breaker) -> i64 {
    let most = u64::from(settings.max_open_ms.max(settings.open_ms));
    let doubled = u64::from(settings.open_ms).saturating_mul(1_u64 << level.min(32)).min(most);
    let spread = doubled * JITTER_PERCENT / 100;
    let jittered = doubled - spread + bits % (2 * spread + 1);
    i64::try_from(jittered.min(most)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
