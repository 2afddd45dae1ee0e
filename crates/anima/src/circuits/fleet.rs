//! What nodes tell one another about circuits, and what operators say about them.
//!
//! Each change that this node finds out is written to one hash at once; every second each node
//! reads all of it and takes over what is later than what it knows. While nothing is shared each
//! node goes by its own evidence. Not here: probe permits (`super::probes`).
//! Invariant: what was taken over is not told again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use anima_core::breaker::{Manual, Mode, Shared};
use anima_core::clock::Timestamp;
use anima_core::config::Breaker;
use anima_core::snapshot::Snapshot;
use anima_store::config::publish::{Forced, ManualCircuit};
use anima_store::redis::Error;
use anima_store::redis_keys;
use anima_store::shared::SharedState;

pub(super) mod counts; // thin traffic over many nodes
pub(super) mod credentials; // which rest, which are out

use super::Circuits;
use crate::live::Live;

/// How often everything is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// A circuit that closed is told of for so long: every node has read it by then.
const CLOSED_KEPT_MS: i64 = 60_000;
/// One that nobody has tried for so long after its time is no news any more.
const OPEN_KEPT_MS: i64 = 3_600_000;

/// A circuit's name: its channel, and the model unless it is the channel as a whole.
pub(super) type Place = (Arc<str>, Option<Arc<str>>);

/// Keeps this node's circuits in step with the other nodes', with the operators' words and with the
/// time, until the node stops.
pub async fn run(circuits: Arc<Circuits>, live: Arc<Live>, state: Arc<dyn SharedState>) {
    let mut every = tokio::time::interval(READ_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = BTreeMap::new();
    let mut troubled = counts::Troubled::new();
    loop {
        let on_time = tokio::select! {
            _ = every.tick() => true,
            () = circuits.changed.notified() => false,
        };
        let now = circuits.clock.now();
        obey(&circuits, &live.hatches().circuits, (&mut said, now));
        let snapshot = live.pin(now).map(|pinned| pinned.snapshot);
        let mut exchanged = exchange(&circuits, snapshot.as_deref(), &*state).await;
        if exchanged.is_ok() && on_time {
            let with = (snapshot.as_deref(), &*state);
            exchanged = counts::exchange(&circuits, with, &mut troubled).await;
        }
        if let Err(error) = exchanged {
            tracing::debug!(%error, "circuits are not shared at the moment");
        }
        circuits.refresh();
    }
}

/// Shows what operators said about whole channels. Calls obey the hatches themselves; here it is
/// for whoever looks.
fn obey(
    circuits: &Circuits,
    words: &[ManualCircuit],
    (said, now): (&mut BTreeMap<String, Manual>, Timestamp),
) {
    let mut current = BTreeMap::new();
    for word in words.iter().filter(|word| word.model.is_none() && word.is_live(now)) {
        let mode = match word.state {
            Forced::Open => Mode::ForcedOpen,
            Forced::Closed => Mode::ForcedClosed,
        };
        let manual = Manual {
            mode,
            reason: word.reason.clone(),
            actor: word.actor.clone(),
            since: word.set_at,
            until: word.expires_at,
        };
        current.insert(word.channel.clone(), manual);
    }
    for (channel, manual) in &current {
        if said.get(channel) != Some(manual) {
            circuits.set_manual(channel, Some(manual.clone()));
        }
    }
    for channel in said.keys().filter(|channel| !current.contains_key(*channel)) {
        circuits.set_manual(channel, None);
    }
    *said = current;
}

/// Tells what changed here, and takes over what others told.
pub(super) async fn exchange(
    circuits: &Circuits,
    snapshot: Option<&Snapshot>,
    state: &dyn SharedState,
) -> Result<(), Error> {
    let hash = redis_keys::circuits();
    let changes = std::mem::take(&mut *circuits.changes.lock());
    for (n, place) in changes.iter().enumerate() {
        let value = serde_json::to_vec(&circuits.shared_of(place)).unwrap_or_default();
        if let Err(error) = state.set_field(&hash, &field(place), Bytes::from(value)).await {
            // Told later.
            circuits.changes.lock().extend(changes.into_iter().skip(n));
            return Err(error);
        }
    }
    let now = circuits.clock.now();
    let mut found = BTreeSet::new();
    for (name, value) in state.fields(&hash).await? {
        let known = serde_json::from_str::<Place>(&name).ok();
        let told = serde_json::from_slice::<Shared>(&value).ok();
        let (Some(place), Some(told)) = (known, told) else {
            state.remove_field(&hash, &name).await?;
            continue;
        };
        if is_stale(told, now) {
            state.remove_field(&hash, &name).await?;
        } else {
            let channel = snapshot.and_then(|snapshot| snapshot.channel(&place.0));
            let settings = channel.map_or_else(Breaker::default, |entry| entry.body.breaker);
            circuits.adopt(&place, told, &settings);
            found.insert(place);
        }
    }
    tell_again(circuits, &found, now);
    credentials::exchange(circuits, state).await
}

/// Has told once more what is open here and is not to be found: what is shared came back empty, and
/// is made anew of what each node knows (`reliability` 2.3).
fn tell_again(circuits: &Circuits, found: &BTreeSet<Place>, now: Timestamp) {
    let mut lost = Vec::new();
    for (code, health) in &**circuits.channels.load() {
        let models = health.models.lock();
        let units = models.values().map(|model| (Some(Arc::clone(&model.model)), &model.unit));
        for (model, unit) in units.chain([(None, &health.whole)]) {
            let place = (Arc::clone(code), model);
            if unit.open.load(Ordering::Acquire) && !found.contains(&place) {
                let own = unit.circuit.lock().share();
                lost.extend((own.open.is_some() && !is_stale(own, now)).then_some(place));
            }
        }
    }
    circuits.changes.lock().extend(lost);
}

fn field(place: &Place) -> String {
    serde_json::to_string(place).unwrap_or_default()
}

/// What all nodes call a circuit.
pub(super) fn name(channel: &str, model: Option<&str>) -> String {
    serde_json::to_string(&(channel, model)).unwrap_or_default()
}

fn is_stale(told: Shared, now: Timestamp) -> bool {
    let since = Timestamp::from_micros(i64::try_from(told.epoch).unwrap_or(0));
    match told.open {
        None => now > since.plus_millis(CLOSED_KEPT_MS),
        Some(opening) => now > opening.until.plus_millis(OPEN_KEPT_MS),
    }
}
