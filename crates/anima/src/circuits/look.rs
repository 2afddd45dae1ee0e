//! What a plan sees of a route whose channel is not calm.
//!
//! Invariant: nothing here changes anything.

use anima_core::breaker::{Cause, Mode, State};
use anima_core::clock::Timestamp;
use anima_core::routing::{Seen, SkipReason};
use anima_core::snapshot::RouteEntry;

use super::health::{ModelHealth, Usable};

/// The state that callers meet: that of the channel as a whole, then the model's.
pub(super) fn state_of(health: &ModelHealth, now: Timestamp) -> State {
    let whole = health.channel.whole.state(now).0;
    if whole == State::Closed { health.unit.state(now).0 } else { whole }
}

/// What a route that may be hindered looks like.
pub(super) fn look(route: &RouteEntry, health: &ModelHealth, now: Timestamp) -> Seen {
    let channel = &health.channel;
    let skip = |reason, until| Seen { skip: Some(reason), until, ..Seen::default() };
    let mode = channel.mode(now);
    if let Some((Mode::ForcedOpen, until)) = mode {
        return skip(SkipReason::ForcedOpen, until);
    }
    if mode.is_some() {
        return Seen::default();
    }
    let measures = route.channel.body.breaker.only_measures(now);
    let (whole, opening) = channel.whole.state(now);
    if whole == State::Open && !measures {
        let seen = skip(SkipReason::ChannelCircuitOpen, opening.map(|(until, _)| until));
        return Seen { circuit: whole, ..seen };
    }
    let (state, opening) = health.unit.state(now);
    let circuit = if whole == State::Closed { state } else { whole };
    let slow = !measures && opening.is_some_and(|(_, cause)| cause == Cause::SlowRate);
    if state == State::Open && !measures {
        let seen = skip(SkipReason::CircuitOpen, opening.map(|(until, _)| until));
        return Seen { slow, circuit: state, ..seen };
    }
    let codes = route.channel.body.credentials.iter().map(|c| c.code.as_str());
    match channel.credentials.lock().usable(codes, &health.model, now) {
        Usable::Yes | Usable::No(SkipReason::NoCredential, _) => {
            Seen { slow, circuit, ..Seen::default() }
        }
        Usable::Yielding => Seen { yields: true, slow, circuit, ..Seen::default() },
        Usable::No(reason, until) => Seen { circuit, ..skip(reason, until) },
    }
}
