//! Budgets are compared with the ledger while they live, and what has drifted is set right.
//!
//! A counter drifts when it was lost while calls ran, when an answer of the shared counters was
//! lost, or when a node spent alone. What calls still hold is left out on both sides. Invariant:
//! only what two looks in a row agree on is corrected, and by one node, so that what is on its way
//! between the two is never taken for drift. Source: `reliability` 1.12 (I11).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use anima_core::clock::Timestamp;
use anima_core::quota::{Bound, Check, Counter};

use super::super::Relay;
use super::Admission;

/// Parts, so that calls do not wait for each other.
const PARTS: usize = 16;

/// How long a budget is looked at after its end, for calls that end after it, microseconds.
const KEPT_US: i64 = 3_600_000_000;

/// A budget in a span: its counter, and when the span began.
type Name = (Counter, Timestamp);

#[derive(Debug, Clone)]
struct Known {
    purse: Bound,
    /// What the last look found too much, or too little.
    drift: i64,
}

/// The budgets that calls of this node are under.
#[derive(Debug)]
pub(super) struct Purses {
    parts: Vec<RwLock<HashMap<Name, Known>>>,
    hasher: RandomState,
}

impl Default for Purses {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| RwLock::default()).collect();
        Self { parts, hasher: RandomState::new() }
    }
}

impl Purses {
    fn part(&self, name: &Name) -> Option<&RwLock<HashMap<Name, Known>>> {
        let hash = self.hasher.hash_one(name);
        self.parts.get(usize::try_from(hash % PARTS as u64).unwrap_or(0))
    }

    /// A call is under these. Shadows count what they would let pass, which no ledger knows.
    pub(super) fn note(&self, bounds: &[Bound]) {
        for bound in bounds.iter().filter(|bound| !bound.counter.rule.shadow) {
            let Check::Purse { span, .. } = bound.check else { continue };
            let name = (bound.counter.clone(), span.from);
            let Some(part) = self.part(&name) else { continue };
            if !part.read().contains_key(&name) {
                let purse = Bound { units: 0, ..bound.clone() };
                part.write().entry(name).or_insert(Known { purse, drift: 0 });
            }
        }
    }

    fn all(&self) -> Vec<(Name, Known)> {
        let all = |part: &RwLock<HashMap<Name, Known>>| {
            let part = part.read();
            part.iter().map(|(name, known)| (name.clone(), known.clone())).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(all).collect()
    }

    fn found(&self, name: &Name, drift: Option<i64>) {
        let Some(part) = self.part(name) else { return };
        let mut part = part.write();
        match (drift, part.get_mut(name)) {
            (Some(drift), Some(known)) => known.drift = drift,
            (None, Some(_)) => {
                part.remove(name);
            }
            (_, None) => {}
        }
    }
}

/// What two looks in a row agree on.
fn agreed(before: i64, now: i64) -> i64 {
    if before.signum() == now.signum() && before.unsigned_abs() < now.unsigned_abs() {
        before
    } else if before.signum() == now.signum() {
        now
    } else {
        0
    }
}

/// Looks at every budget once.
async fn round(admission: &Admission) {
    for (name, known) in admission.purses.all() {
        let drift = compare(admission, &known).await;
        admission.purses.found(&name, drift);
    }
}

/// What is wrong with a budget after this look; `None` when there is nothing to look at.
async fn compare(admission: &Admission, known: &Known) -> Option<i64> {
    let (purse, now) = (&known.purse, admission.clock.now());
    let Check::Purse { span, .. } = purse.check else { return None };
    if !span.is_ever() && span.to.micros().saturating_add(KEPT_US) < now.micros() {
        return None;
    }
    // What cannot be looked at now is looked at from the beginning.
    let Ok(seen) = admission.store.look(purse, now).await else { return Some(0) };
    let seen = seen?;
    let place = (&purse.counter, &purse.tag, span);
    let spent = admission.spend.spent_besides(place, &seen.holds).await;
    let Ok(spent) = spent else { return Some(0) };
    let drift = seen.spent.saturating_sub(spent);
    let by = agreed(known.drift, drift);
    if by == 0 {
        return Some(drift);
    }
    match admission.store.repair(purse, (seen.mended, by.saturating_neg())).await {
        Ok(true) => {
            admission.metrics.quotas.repaired(by < 0);
            tracing::warn!(
                scope = purse.counter.scope.word(),
                code = &*purse.counter.code,
                limit = %purse.counter.rule,
                too_much = by,
                "a budget differed from the ledger and was set right"
            );
            Some(drift.saturating_sub(by))
        }
        Ok(false) | Err(_) => Some(0),
    }
}

/// Looks at the budgets every so often, until the task is aborted.
pub async fn run(relay: Arc<Relay>) {
    let Some(every) = relay.limits.budget_repair else { return };
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        round(&relay.admission).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_two_looks_agree_on_is_corrected() {
        for (before, now, by) in [
            (0, 7, 0),
            (7, 7, 7),
            (7, 3, 3),
            (3, 7, 3),
            (7, 0, 0),
            (7, -3, 0),
            (-7, -3, -3),
            (-3, -7, -3),
            (i64::MIN, i64::MIN, i64::MIN),
        ] {
            assert_eq!(agreed(before, now), by, "{before} {now}");
        }
    }
}
