//! Thin traffic over many nodes: what all windows of one circuit hold together.
//!
//! Each second a node writes down what its windows hold of the models that some node has trouble
//! with, and adds up what all wrote. Where the sum says that a circuit must open, a node that has
//! trouble itself opens it and tells the others. Invariant: a sum counts only when every node had
//! the time to add its successes to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use anima_core::breaker::{Action, Cause, Counts, Effect, Report, Verdict};
use anima_core::clock::Timestamp;
use anima_core::config::Breaker;
use anima_core::snapshot::Snapshot;
use anima_store::redis::Error;
use anima_store::redis_keys;
use anima_store::shared::SharedState;

use super::super::Circuits;
use super::super::health::ModelHealth;
use super::Place;

/// What was written longer ago says nothing: its node writes each second.
const FRESH_MS: i64 = 5_000;
/// Times that a circuit is seen in trouble before its sum counts.
const ROUNDS: u32 = 2;

/// A circuit on one node.
type Field = (Place, u64);

/// What a node's window holds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Told {
    at: Timestamp,
    calls: u32,
    failed_halves: u32,
    slow: u32,
}

/// Circuits that some node has trouble with, and how often in a row that was seen.
pub(in crate::circuits) type Troubled = BTreeMap<Place, u32>;

/// Tells what this node's windows hold, and opens what all windows together say.
pub(in crate::circuits) async fn exchange(
    circuits: &Circuits,
    (snapshot, state): (Option<&Snapshot>, &dyn SharedState),
    troubled: &mut Troubled,
) -> Result<(), Error> {
    let now = circuits.clock.now();
    let hash = redis_keys::circuit_counts();
    let mut own = BTreeMap::new();
    for (place, health, settings) in models(circuits, snapshot) {
        let counts = health.unit.circuit.lock().counts(now, &settings);
        let suffers = counts.failed_halves > 0 || counts.slow > 0;
        if counts.calls == 0 || !(suffers || troubled.contains_key(&place)) {
            continue;
        }
        let Counts { calls, failed_halves, slow } = counts;
        let told = Told { at: now, calls, failed_halves, slow };
        let field = serde_json::to_string(&(&place, circuits.node)).unwrap_or_default();
        let value = Bytes::from(serde_json::to_vec(&told).unwrap_or_default());
        state.set_field(&hash, &field, value).await?;
        own.insert(place, (health, settings, counts));
    }
    let mut sums: BTreeMap<Place, Counts> = BTreeMap::new();
    for (name, value) in state.fields(&hash).await? {
        let field = serde_json::from_str::<Field>(&name).ok();
        let told = serde_json::from_slice::<Told>(&value).ok();
        match field.zip(told) {
            Some(((place, _), told)) if now < told.at.plus_millis(FRESH_MS) => {
                let Told { calls, failed_halves, slow, .. } = told;
                sums.entry(place).or_default().add(Counts { calls, failed_halves, slow });
            }
            _ => state.remove_field(&hash, &name).await?,
        }
    }
    let suffer = |sum: &Counts| sum.failed_halves > 0 || sum.slow > 0;
    sums.retain(|_, sum| suffer(sum));
    troubled.retain(|place, _| sums.contains_key(place));
    for (place, sum) in sums {
        let rounds = troubled.entry(place.clone()).or_default();
        *rounds = rounds.saturating_add(1);
        if let (true, Some(own)) = (*rounds >= ROUNDS, own.get(&place)) {
            judge(circuits, &place, own, sum);
        }
    }
    Ok(())
}

/// Opens a circuit of which all windows together say that it must. Those of this node alone are
/// judged call by call.
fn judge(
    circuits: &Circuits,
    (channel, model): &Place,
    (health, settings, own): &(Arc<ModelHealth>, Breaker, Counts),
    sum: Counts,
) {
    let failing = sum.failure_percent() >= settings.failure_rate.into() && own.failed_halves > 0;
    let slow = sum.slow_percent() >= settings.slow_rate.into() && own.slow > 0;
    let enough = sum.calls >= settings.minimum_calls && sum.calls > own.calls;
    if !enough || !(failing || slow) {
        return;
    }
    let cause = if failing { Cause::FailureRate } else { Cause::SlowRate };
    let verdict = Verdict { effect: Effect::Neutral, action: Action::None, slow: false };
    let (at, bits) = (circuits.clock.now(), circuits.rng.next_u64());
    let report = Report { verdict, asked_ms: None, at, bits };
    let change = health.unit.change(|circuit| {
        let closed = circuit.opening().is_none();
        closed.then(|| circuit.trip_on(cause, sum.calls, report, settings))
    });
    if let Some(change) = change {
        circuits.announce((channel, model.as_deref()), change);
    }
}

/// Every model that is known here, with its channel's settings.
fn models(
    circuits: &Circuits,
    snapshot: Option<&Snapshot>,
) -> Vec<(Place, Arc<ModelHealth>, Breaker)> {
    let channels = circuits.channels.load_full();
    let mut all = Vec::new();
    for (code, health) in &*channels {
        let entry = snapshot.and_then(|snapshot| snapshot.channel(code));
        let settings = entry.map_or_else(Breaker::default, |entry| entry.body.breaker);
        let models = health.models.lock();
        let place = |model: &Arc<str>| (Arc::clone(code), Some(Arc::clone(model)));
        all.extend(models.values().map(|m| (place(&m.model), Arc::clone(m), settings)));
    }
    all
}
