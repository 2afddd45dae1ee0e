//! How a call is let through circuits, and how the permits of probes come back.
//!
//! Permits are counted over all nodes (`anima_store::probes`), so that a circuit that is half open
//! costs a round trip; one that is closed costs none. Invariant: a permit that was taken here is
//! given back on every outcome, or its lease ends.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;

use anima_core::breaker::{Admitted, Mode, State, Transition};
use anima_core::clock::Timestamp;
use anima_core::config::Breaker;
use anima_core::routing::SkipReason;
use anima_store::probes::{Asked, Returned};

use super::health::{Gate, ModelHealth, Unit};
use super::{Change, Circuits, Ticket, Way, roll_up};

/// Calls let through at once to the least bad route when every one is open (`reliability` 3.2).
const TRICKLE: u32 = 3;

/// A call that asks to be let through: its token, and until when it may keep a permit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) token: u64,
    pub(super) now: Timestamp,
    pub(super) until: Timestamp,
}

impl Asking {
    fn of(self, epoch: u64, settings: &Breaker) -> Asked {
        let Self { token, now, until } = self;
        Asked { epoch, token, now, until, limit: settings.half_open_permits.max(1) }
    }
}

/// Which circuit of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The channel as a whole.
    Whole,
    /// Its model.
    Model,
}

impl Side {
    fn unit(self, health: &ModelHealth) -> &Unit {
        match self {
            Self::Whole => &health.channel.whole,
            Self::Model => &health.unit,
        }
    }
}

/// Lets a call through whatever the circuits say; what it reports counts for no probe.
fn anyway(health: &ModelHealth) -> (Admitted, Admitted) {
    (health.channel.whole.admit_anyway(), health.unit.admit_anyway())
}

/// Whether no probe of a place may run yet. Once they may, nothing runs beside them.
fn is_open(health: &ModelHealth, now: Timestamp) -> bool {
    [&health.channel.whole, &health.unit].iter().any(|unit| unit.state(now).0 == State::Open)
}

impl Circuits {
    /// Lets a call through in its way, and says whether it is one of few that trickle.
    pub(super) async fn let_in(
        &self,
        health: &ModelHealth,
        (asking, way): (Asking, Way),
        settings: &Breaker,
    ) -> Result<((Admitted, Admitted), bool), SkipReason> {
        let mode = health.channel.mode(asking.now).map(|(mode, _)| mode);
        match (mode, way) {
            // What was said about the model goes before what was said about its channel.
            (_, Way::Forced) | (Some(Mode::ForcedClosed | Mode::MetricsOnly), _) => {
                Ok((anyway(health), false))
            }
            (Some(Mode::ForcedOpen), _) => Err(SkipReason::ForcedOpen),
            (None, Way::LastResort) if is_open(health, asking.now) => {
                Ok((self.trickle(health)?, true))
            }
            (None, Way::Proper | Way::Readmitted | Way::LastResort) => {
                Ok((self.proper(health, (asking, way), settings).await?, false))
            }
        }
    }

    /// Lets a call through as one of few.
    fn trickle(&self, health: &ModelHealth) -> Result<(Admitted, Admitted), SkipReason> {
        let most = |n| (n < TRICKLE).then_some(n + 1);
        let taken = health.trickling.fetch_update(Ordering::AcqRel, Ordering::Acquire, most);
        taken.map_err(|_most| SkipReason::ProbesTaken)?;
        self.metrics.routing.last_resort(&health.channel.code);
        Ok(anyway(health))
    }

    /// Lets a call through as the circuits allow, and where they only judge anyway.
    async fn proper(
        &self,
        health: &ModelHealth,
        (asking, way): (Asking, Way),
        settings: &Breaker,
    ) -> Result<(Admitted, Admitted), SkipReason> {
        let allowed = self.allowed(health, (asking, way), settings).await;
        if settings.only_measures(asking.now) {
            return Ok(allowed.unwrap_or_else(|_refused| anyway(health)));
        }
        allowed
    }

    /// With a permit of each circuit that is half open.
    async fn allowed(
        &self,
        health: &ModelHealth,
        (asking, way): (Asking, Way),
        settings: &Breaker,
    ) -> Result<(Admitted, Admitted), SkipReason> {
        let whole = &health.channel.whole;
        let outer = self.admit(whole, asking, settings).await.map_err(|reason| {
            let opened = reason == SkipReason::CircuitOpen;
            if opened { SkipReason::ChannelCircuitOpen } else { reason }
        })?;
        match self.admit(&health.unit, asking, settings).await {
            Ok(inner) => Ok((outer, inner)),
            Err(_shut) if way == Way::Readmitted && health.unit.is_slow() => {
                Ok((outer, health.unit.admit_anyway()))
            }
            Err(reason) => {
                if outer.probe {
                    whole.probing.fetch_sub(1, Ordering::Relaxed);
                    let asked = asking.of(outer.epoch, settings);
                    let Asked { epoch, token, .. } = asked;
                    let unused = Returned { epoch, token, passed: false, ends: false };
                    self.probes.give_back(&whole.name, asked, unused).await;
                }
                Err(reason)
            }
        }
    }

    async fn admit(
        &self,
        unit: &Unit,
        asking: Asking,
        settings: &Breaker,
    ) -> Result<Admitted, SkipReason> {
        let epoch = match unit.gate(asking.now) {
            Gate::Closed(epoch) => return Ok(Admitted { epoch, probe: false }),
            Gate::Open => return Err(SkipReason::CircuitOpen),
            Gate::HalfOpen(epoch) => epoch,
        };
        if !self.probes.take(&unit.name, asking.of(epoch, settings)).await {
            return Err(SkipReason::ProbesTaken);
        }
        unit.probing.fetch_add(1, Ordering::Relaxed);
        Ok(Admitted { epoch, probe: true })
    }
}

impl Ticket {
    /// Gives the permit of one circuit back, if there is one, and closes the circuit when enough
    /// probes have passed. What changed may come later: other nodes' counters take a moment, and
    /// nobody waits for them.
    pub(super) fn give_back(&self, side: Side, passed: bool, ends: bool) -> Change {
        let admitted = match side {
            Side::Whole => self.whole,
            Side::Model => self.model,
        };
        if !admitted.probe {
            return Change::default();
        }
        side.unit(&self.health).probing.fetch_sub(1, Ordering::Relaxed);
        let settings = match side {
            Side::Whole => roll_up(&self.settings),
            Side::Model => self.settings,
        };
        let asked = self.asking.of(admitted.epoch, &settings);
        let returned = Returned { epoch: admitted.epoch, token: asked.token, passed, ends };
        let of = (Arc::clone(&self.circuits), Arc::clone(&self.health), side);
        let mut closing = Box::pin(return_permit(of, asked, returned, settings));
        if let Some(done) = (&mut closing).now_or_never() {
            return done.into();
        }
        let later = Arc::new(OnceLock::new());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let told = Arc::clone(&later);
            runtime.spawn(async move {
                if let Some(change) = closing.await {
                    told.get_or_init(|| change);
                }
            });
        }
        Change { at_once: None, later: Some(later) }
    }
}

async fn return_permit(
    (circuits, health, side): (Arc<Circuits>, Arc<ModelHealth>, Side),
    asked: Asked,
    returned: Returned,
    settings: Breaker,
) -> Option<Transition> {
    let unit = side.unit(&health);
    let passed = circuits.probes.give_back(&unit.name, asked, returned).await;
    let now = circuits.clock.now();
    let change = unit.change(|c| c.passed(returned.epoch, passed, now, &settings))?;
    let model = (side == Side::Model).then_some(&*health.model);
    circuits.announce((&health.channel.code, model), change);
    Some(change)
}
