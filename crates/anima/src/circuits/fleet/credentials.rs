//! What nodes tell one another about credentials: which rest for a model, which are out.
//!
//! The later word counts, and a rest is never made shorter by another. Invariant: what no node
//! needs any more is removed by whoever reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use anima_core::clock::Timestamp;
use anima_store::redis::Error;
use anima_store::redis_keys;
use anima_store::shared::SharedState;

use super::super::Circuits;
use super::super::health::{Fault, Rest};

/// A word that nobody needs is kept this much longer: every node has read it by then.
const KEPT_MS: i64 = 60_000;
/// An account that is used up is out until somebody resets it; the word of it ends some day.
const EXHAUSTED_KEPT_MS: i64 = 7 * 86_400_000;

/// A credential of a channel, and the model that it rests for.
pub(in crate::circuits) type Named = (Arc<str>, Arc<str>, Option<Arc<str>>);

/// How a credential does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::circuits) enum Kind {
    /// It rests for the model.
    Rests,
    /// Its provider refuses it.
    Refused,
    /// Its account is used up.
    Exhausted,
    /// It is used again.
    Well,
}

/// What one node found out about a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::circuits) struct Told {
    /// When it was found out.
    pub(in crate::circuits) at: Timestamp,
    /// Until when; `None` until an operator says so.
    pub(in crate::circuits) until: Option<Timestamp>,
    pub(in crate::circuits) kind: Kind,
    /// Refused so many times in a row.
    pub(in crate::circuits) times: u32,
}

impl Told {
    pub(in crate::circuits) const fn rest(rest: Rest) -> Self {
        Self { at: rest.at, until: Some(rest.until), kind: Kind::Rests, times: 0 }
    }

    pub(in crate::circuits) const fn fault(fault: Fault) -> Self {
        let Fault { until, exhausted, times, at } = fault;
        let kind = if exhausted { Kind::Exhausted } else { Kind::Refused };
        Self { at, until, kind, times }
    }

    pub(in crate::circuits) const fn well(at: Timestamp) -> Self {
        Self { at, until: None, kind: Kind::Well, times: 0 }
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        let kept_ms = if self.kind == Kind::Exhausted { EXHAUSTED_KEPT_MS } else { KEPT_MS };
        now > self.until.unwrap_or(self.at).plus_millis(kept_ms)
    }
}

/// Tells what changed here, and takes over what others told.
pub(super) async fn exchange(circuits: &Circuits, state: &dyn SharedState) -> Result<(), Error> {
    let hash = redis_keys::credentials();
    let changes = std::mem::take(&mut *circuits.credential_changes.lock());
    for (n, (named, told)) in changes.iter().enumerate() {
        let field = serde_json::to_string(named).unwrap_or_default();
        let value = Bytes::from(serde_json::to_vec(told).unwrap_or_default());
        if let Err(error) = state.set_field(&hash, &field, value).await {
            // Told later, unless something newer is by then.
            let mut waiting = circuits.credential_changes.lock();
            for (named, told) in changes.into_iter().skip(n) {
                waiting.entry(named).or_insert(told);
            }
            return Err(error);
        }
    }
    let now = circuits.clock.now();
    let mut found = BTreeSet::new();
    for (field, value) in state.fields(&hash).await? {
        let named = serde_json::from_str::<Named>(&field).ok();
        let told = serde_json::from_slice::<Told>(&value).ok();
        match named.zip(told) {
            Some((named, told)) if !told.is_stale(now) => {
                found.insert(named.clone());
                adopt(circuits, named, told);
            }
            _ => state.remove_field(&hash, &field).await?,
        }
    }
    tell_again(circuits, &found, now);
    Ok(())
}

/// Has told once more which rest and which are out that are not to be found: see the same of
/// circuits.
fn tell_again(circuits: &Circuits, found: &BTreeSet<Named>, now: Timestamp) {
    let mut lost = Vec::new();
    for (code, health) in &**circuits.channels.load() {
        let known = health.known_of_credentials(now).into_iter();
        let named =
            known.map(|(credential, model, told)| ((Arc::clone(code), credential, model), told));
        lost.extend(named.filter(|(named, told)| !found.contains(named) && !told.is_stale(now)));
    }
    let mut changes = circuits.credential_changes.lock();
    for (named, told) in lost {
        changes.entry(named).or_insert(told);
    }
}

/// Takes over what another node found out, or has it told what this node knows that is later.
fn adopt(circuits: &Circuits, (channel, credential, model): Named, told: Told) {
    let health = circuits.channel(&channel);
    let now = circuits.clock.now();
    if let Some(own) = health.adopt_credential((&credential, model.as_ref()), told, now) {
        circuits.credential_changes.lock().insert((channel, credential, model), own);
    }
}
