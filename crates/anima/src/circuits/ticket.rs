//! A call that was let through to a channel, and what it reports when it ends.
//!
//! Invariant: whatever becomes of the call, also when it is dropped, its permits come back and it
//! is no longer counted as under way.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anima_core::breaker::{Action, Admitted, Effect, Report, Transition, Verdict};
use anima_core::config::Breaker;
use anima_core::failure::Failure;

use super::Circuits;
use super::fleet::credentials::Told;
use super::health::ModelHealth;
use super::probes::{Asking, Side};
use super::seats::Seat;

/// See the module.
#[derive(Debug)]
pub struct Ticket {
    /// Comes back with it.
    pub(super) _seat: Seat,
    pub(super) circuits: Arc<Circuits>,
    pub(super) health: Arc<ModelHealth>,
    pub(super) credential: Arc<str>,
    pub(super) settings: Breaker,
    pub(super) whole: Admitted,
    pub(super) model: Admitted,
    pub(super) asking: Asking,
    /// Let through although everything is open.
    pub(super) trickles: bool,
    pub(super) reported: bool,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// It streams: its first byte says how fast the provider is, and not how long the answer is.
    pub streams: bool,
    /// How long its first byte took, or how long one was waited for.
    pub first_byte: Duration,
    /// How long the provider asks to be left alone, milliseconds.
    pub asked_ms: Option<u64>,
}

/// What an attempt did to a circuit: known at once, or when the permits of all nodes are counted.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub(super) at_once: Option<Transition>,
    /// Of a probe that passed: whether it was the one that closes.
    pub(super) later: Option<Arc<OnceLock<Transition>>>,
}

impl Change {
    /// The change, as far as it is known by now.
    pub fn get(&self) -> Option<Transition> {
        self.at_once.or_else(|| self.later.as_ref()?.get().copied())
    }

    /// The first of both.
    pub(super) fn or(self, other: Self) -> Self {
        Self { at_once: self.at_once.or(other.at_once), later: self.later.or(other.later) }
    }
}

impl From<Option<Transition>> for Change {
    fn from(at_once: Option<Transition>) -> Self {
        Self { at_once, later: None }
    }
}

#[expect(clippy::multiple_inherent_impl, reason = "permits of probes are a file of their own")]
impl Ticket {
    /// Whether the call is a probe of a circuit that is half open.
    pub const fn is_probe(&self) -> bool {
        self.model.probe || self.whole.probe
    }

    /// Reports how the call ended, and says which circuit changed by it.
    pub fn end(mut self, end: End) -> Change {
        self.reported = true;
        let judged = if end.streams { end.first_byte } else { Duration::ZERO };
        let first_byte_ms = u64::try_from(judged.as_millis()).unwrap_or(u64::MAX);
        let verdict = Verdict::of(end.failure, first_byte_ms, &self.settings);
        let circuits = &self.circuits;
        let at = circuits.clock.now();
        let bits = circuits.rng.next_u64();
        let report = Report { verdict, asked_ms: end.asked_ms, at, bits };
        let changed = circuits.record(&self, report);
        let key = (&self.credential, &self.health.model);
        if end.failure.is_none() {
            self.health.note_latency(end.streams, end.first_byte);
        }
        if verdict.effect == Effect::Success {
            let channel = &self.health.channel;
            if channel.forgive(&self.credential) {
                circuits.tell((&channel.code, &self.credential, None), Told::well(at));
            }
        }
        if verdict.action == Action::None {
            return changed;
        }
        Change::from(circuits.note_action(&self.health, key, (verdict.action, report))).or(changed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let health = &self.health;
        health.inflight.fetch_sub(1, Ordering::Relaxed);
        if self.trickles {
            health.trickling.fetch_sub(1, Ordering::Relaxed);
        }
        if !self.reported {
            self.give_back(Side::Model, false, false);
            self.give_back(Side::Whole, false, false);
        }
    }
}
