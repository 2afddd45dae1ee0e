//! The circuits as an operator reads them.
//!
//! Invariant: nothing here changes anything.

use serde::Serialize;

use anima_core::breaker::{Cause, Counts, Manual, State};
use anima_core::clock::Timestamp;
use anima_core::config::Breaker;

use super::health::{ChannelHealth, Unit};

/// One circuit.
#[derive(Debug, Clone, Serialize)]
pub struct ShownCircuit {
    /// The channel's model; `None` for the channel as a whole.
    pub model: Option<String>,
    /// What it does now.
    pub state: State,
    /// Why it is not closed.
    pub cause: Option<Cause>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it is tried again.
    pub until: Option<Timestamp>,
    /// Calls of the window.
    pub calls: u32,
    /// How many of them failed, in percent.
    pub failure_rate: u32,
    /// How many of them were slow, in percent.
    pub slow_rate: u32,
    /// Probes of this node that run now.
    pub probes: u32,
    /// Calls under way on this node.
    pub in_flight: u32,
}

/// A credential that is not used now.
#[derive(Debug, Clone, Serialize)]
pub struct ShownCredential {
    /// Its code.
    pub code: String,
    /// The model that it rests for; `None` when it is out for all.
    pub model: Option<String>,
    /// `refused`, `exhausted` or `cooling_down`.
    pub state: &'static str,
    /// When it is used again; `None` when an operator has to reset it.
    pub until: Option<Timestamp>,
}

/// A channel's circuits.
#[derive(Debug, Clone, Serialize)]
pub struct ShownChannel {
    /// The channel's code.
    pub channel: String,
    /// What callers meet: the operator's word, else the state of the channel as a whole.
    pub state: &'static str,
    /// The operator's word.
    pub manual: Option<Manual>,
    /// The channel as a whole, then its models.
    pub circuits: Vec<ShownCircuit>,
    /// Credentials that are not used now.
    pub credentials: Vec<ShownCredential>,
}

pub(super) fn channel(health: &ChannelHealth, settings: &Breaker, now: Timestamp) -> ShownChannel {
    let manual = health.manual.lock().clone().filter(|m| m.is_in_force(now));
    let whole = circuit(&health.whole, None, (settings, now));
    let state = manual.as_ref().map_or_else(|| whole.state.name(), |manual| manual.mode.name());
    let mut circuits = vec![whole];
    for (model, known) in &*health.models.lock() {
        let in_flight = known.inflight.load(std::sync::atomic::Ordering::Relaxed);
        let shown = circuit(&known.unit, Some(model), (settings, now));
        circuits.push(ShownCircuit { in_flight, ..shown });
    }
    let channel = health.code.to_string();
    ShownChannel { channel, state, manual, circuits, credentials: credentials(health, now) }
}

fn circuit(unit: &Unit, model: Option<&str>, at: (&Breaker, Timestamp)) -> ShownCircuit {
    let (settings, now) = at;
    let circuit = unit.circuit.lock();
    let opening = circuit.opening();
    let counts: Counts = circuit.counts(now, settings);
    ShownCircuit {
        model: model.map(str::to_owned),
        state: circuit.state(now),
        cause: opening.map(|o| o.cause),
        since: opening.map(|o| o.since),
        until: opening.map(|o| o.until),
        calls: counts.calls,
        failure_rate: counts.failure_percent(),
        slow_rate: counts.slow_percent(),
        probes: unit.probing.load(std::sync::atomic::Ordering::Relaxed),
        in_flight: 0,
    }
}

fn credentials(health: &ChannelHealth, now: Timestamp) -> Vec<ShownCredential> {
    let credentials = health.credentials.lock();
    let out = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
    let faults = credentials.faults.iter().filter(|(_, fault)| out(fault.until));
    let faults = faults.map(|(code, fault)| ShownCredential {
        code: code.to_string(),
        model: None,
        state: if fault.exhausted { "exhausted" } else { "refused" },
        until: fault.until,
    });
    let rests = credentials.rests.iter().filter(|(_, rest)| now < rest.until);
    let rests = rests.map(|((code, model), rest)| ShownCredential {
        code: code.to_string(),
        model: Some(model.to_string()),
        state: "cooling_down",
        until: Some(rest.until),
    });
    faults.chain(rests).collect()
}
