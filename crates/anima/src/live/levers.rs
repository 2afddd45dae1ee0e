//! Hands the operator's word about circuits to the circuits of this node.
//!
//! What was said about a whole channel goes there; about one model of it, the plan asks. Invariant:
//! the same words given twice change nothing.

use std::collections::BTreeMap;

use anima_core::breaker::{Manual, Mode};
use anima_core::clock::Timestamp;
use anima_store::config::publish::{Forced, Hatches, ManualCircuit, Notice};

use crate::circuits::Circuits;

/// Sets the word about every channel that has one, and takes back the others.
pub(super) fn set(circuits: &Circuits, hatches: &Hatches, now: Timestamp) {
    let whole = hatches.circuits.iter().filter(|c| c.model.is_none() && c.is_live(now));
    let wanted: BTreeMap<&str, Manual> = whole.map(|c| (&*c.channel, word(c))).collect();
    let known = circuits.manuals();
    for channel in known.keys().filter(|channel| !wanted.contains_key(channel.as_str())) {
        circuits.set_manual(channel, None);
    }
    for (channel, manual) in wanted {
        if known.get(channel) != Some(&manual) {
            circuits.set_manual(channel, Some(manual));
        }
    }
}

/// Forgets what was found out about a channel, or one model, that was given back to its breaker.
pub(super) fn reset(circuits: &Circuits, hatches: &Hatches, notice: &Notice) {
    if let Some((channel, model)) = given_back(hatches, notice) {
        circuits.reset(channel, model);
    }
}

/// The circuit that a notice is about, when there is no word about it any more.
fn given_back<'a>(hatches: &Hatches, notice: &'a Notice) -> Option<(&'a str, Option<&'a str>)> {
    let Notice::Circuit { channel, model } = notice else { return None };
    let has_word = hatches.circuits.iter().any(|c| c.channel == *channel && c.model == *model);
    (!has_word).then_some((&**channel, model.as_deref()))
}

fn word(circuit: &ManualCircuit) -> Manual {
    Manual {
        mode: match circuit.state {
            Forced::Open => Mode::ForcedOpen,
            Forced::Closed => Mode::ForcedClosed,
        },
        reason: circuit.reason.clone(),
        actor: circuit.actor.clone(),
        since: circuit.set_at,
        until: circuit.expires_at,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anima_core::clock::{ManualClock, SeededRng};

    use super::*;

    fn circuit(model: Option<&str>, state: Forced, now: Timestamp) -> ManualCircuit {
        ManualCircuit {
            channel: "main".to_owned(),
            model: model.map(str::to_owned),
            state,
            reason: "r".to_owned(),
            actor: "ada".to_owned(),
            set_at: now,
            expires_at: None,
        }
    }

    #[test]
    fn what_has_no_word_any_more_is_given_back_and_nothing_else() {
        let kept = circuit(Some("m"), Forced::Closed, Timestamp::default());
        let hatches = Hatches { circuits: vec![kept], ..Hatches::default() };
        let notice = |model: Option<&str>| Notice::Circuit {
            channel: "main".to_owned(),
            model: model.map(str::to_owned),
        };
        assert_eq!(given_back(&hatches, &notice(None)), Some(("main", None)));
        assert_eq!(given_back(&hatches, &notice(Some("n"))), Some(("main", Some("n"))));
        assert_eq!(given_back(&hatches, &notice(Some("m"))), None);
    }

    #[test]
    fn a_word_is_set_once_and_taken_back() {
        let now = Timestamp::from_micros(1_000_000);
        let clock = Arc::new(ManualClock::new(now));
        let metrics = Arc::new(crate::metrics::Metrics::new().unwrap());
        let circuits = Circuits::new(
            (clock, Arc::new(SeededRng::new(1)), metrics),
            anima_store::probes::Probes::in_process(),
        );
        let words = vec![circuit(None, Forced::Open, now), circuit(Some("m"), Forced::Open, now)];
        let mut hatches = Hatches { circuits: words, ..Hatches::default() };
        set(&circuits, &hatches, now);
        assert_eq!(circuits.manuals()["main"].mode, Mode::ForcedOpen);
        hatches.circuits[0].state = Forced::Closed;
        set(&circuits, &hatches, now);
        assert_eq!(circuits.manuals()["main"].mode, Mode::ForcedClosed);
        hatches.circuits.clear();
        set(&circuits, &hatches, now);
        assert!(circuits.manuals().is_empty());
    }
}
