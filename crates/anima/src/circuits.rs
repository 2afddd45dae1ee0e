//! The health of every place that calls can go, on this node.
//!
//! The pure breaker decides (`anima_core::breaker`); this keeps one circuit per channel and one per
//! model of it, with the channel's credentials, the operator's word and what is under way. Read
//! when a call is planned, fed when an attempt ends. Invariant: nothing here is shared by all
//! requests but an immutable map; each circuit has its own small lock. Source: SPEC 7,
//! `reliability` 3.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use anima_core::breaker::{
    Action, Cause, Manual, Mode, Report, Shared, State, Transition, Verdict,
};
use anima_core::clock::{Clock, Rng, Timestamp};
use anima_core::config::Breaker;
use anima_core::routing::{Allowance, Seen, SkipReason};
use anima_core::snapshot::{AliasEntry, RouteEntry, Snapshot};
use anima_store::probes::Probes;
use anima_store::quota::{self, QuotaStore};

use crate::metrics::Metrics;

mod fleet;
mod health;
mod look;
mod probes;
mod seats;
mod show;
mod ticket;

pub use fleet::run;
pub use show::{ShownChannel, ShownCircuit, ShownCredential};
pub use ticket::{Change, End, Ticket};

use fleet::credentials::{Named, Told};
use health::{ChannelHealth, ModelHealth, Unit};
use look::{look, state_of};
use probes::{Asking, Side};
use seats::{Seat, Seats};

/// Models of a channel that must be open for all of it to be (`reliability` 3.2).
const MODELS_OPEN: usize = 3;
/// A route whose model is unknown to its provider is tried again after this long.
const UNKNOWN_MODEL_MS: u64 = 600_000;
/// A permit is kept this much longer than its call may take, for what comes after its end.
const PERMIT_GRACE: Duration = Duration::from_secs(10);

/// A model's health as a snapshot's route keeps it.
#[derive(Debug)]
struct Known(Arc<ModelHealth>);

/// How a call asks to be let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As circuits allow.
    Proper,
    /// The same, but a model that is only slow lets it through.
    Readmitted,
    /// As one of few where a circuit is open, else as circuits allow.
    LastResort,
    /// Whatever the circuits say: an operator wants it so.
    Forced,
}

/// Every circuit of this node.
#[derive(Debug)]
pub struct Circuits {
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    metrics: Arc<Metrics>,
    /// Permits of circuits that are half open.
    probes: Probes,
    /// Those of channels, where all nodes count them together.
    seats: Option<Arc<Seats>>,
    /// Random: this process start.
    node: u64,
    channels: ArcSwap<BTreeMap<Arc<str>, Arc<ChannelHealth>>>,
    /// One writer of the map at a time.
    growing: Mutex<()>,
    /// Circuits that changed and that other nodes do not know of yet.
    changes: Mutex<BTreeSet<fleet::Place>>,
    /// The same of credentials.
    credential_changes: Mutex<BTreeMap<Named, Told>>,
    changed: Notify,
}

#[expect(clippy::multiple_inherent_impl, reason = "permits of probes are a file of their own")]
impl Circuits {
    /// No channel is known yet, so all are closed.
    pub fn new(
        (clock, rng, metrics): (Arc<dyn Clock>, Arc<dyn Rng>, Arc<Metrics>),
        probes: Probes,
    ) -> Self {
        let channels = ArcSwap::default();
        let node = rng.next_u64();
        Self {
            clock,
            rng,
            metrics,
            probes,
            seats: None,
            node,
            channels,
            growing: Mutex::default(),
            changes: Mutex::default(),
            credential_changes: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Takes the seats of channels from these counters, which all nodes share.
    #[must_use]
    pub fn seating(self, store: Option<Arc<dyn QuotaStore>>) -> Self {
        let seats = store.map(|store| Seats::of(store, &self.clock));
        Self { seats, ..self }
    }

    /// The seats that attempts of this node have among those of all nodes, to be renewed.
    pub fn open_seats(&self) -> Vec<quota::Ticket> {
        self.seats.as_ref().map_or_else(Vec::new, |seats| seats.taken())
    }

    /// Sets the operator's word about a channel, or takes it back. Automatic states are left as
    /// they are; see [`Circuits::reset`].
    pub fn set_manual(&self, channel: &str, manual: Option<Manual>) {
        let health = self.channel(channel);
        let shown = manual.as_ref().map(|manual| manual.mode);
        *health.manual.lock() = manual;
        health.look_again(self.clock.now());
        self.metrics.routing.manual(channel, shown);
        let word = shown.map_or("automatic", Mode::name);
        tracing::warn!(channel, word, "an operator set a circuit");
    }

    /// The operator's words that hold now, by channel.
    pub fn manuals(&self) -> BTreeMap<String, Manual> {
        let now = self.clock.now();
        let channels = self.channels.load();
        let words = channels.iter().filter_map(|(code, health)| {
            let manual = health.manual.lock().clone().filter(|m| m.is_in_force(now))?;
            Some((code.to_string(), manual))
        });
        words.collect()
    }

    /// Forgets all that was found out about a channel, or about one model of it: circuits close,
    /// credentials are used again. The operator's word stays; see [`Circuits::set_manual`].
    pub fn reset(&self, channel: &str, only: Option<&str>) {
        let health = self.channel(channel);
        let now = self.clock.now();
        for (credential, model) in health.forget_credentials(only) {
            self.tell((&health.code, &credential, model.as_ref()), Told::well(now));
        }
        if only.is_none() {
            self.reset_unit(&health.whole, (channel, None), now);
        }
        let models: Vec<_> = health.models.lock().values().cloned().collect();
        for model in models.iter().filter(|model| only.is_none_or(|only| *model.model == *only)) {
            self.reset_unit(&model.unit, (channel, Some(&model.model)), now);
        }
        health.look_again(now);
    }

    /// Resets every channel that is known here.
    pub fn reset_all(&self) {
        let channels = self.channels.load_full();
        for code in channels.keys() {
            self.reset(code, None);
        }
    }

    fn reset_unit(&self, unit: &Unit, place: (&str, Option<&str>), now: Timestamp) {
        let change = unit.change(|circuit| {
            let was_open = circuit.opening().is_some();
            let change = circuit.close(Cause::Reset, now);
            was_open.then_some(change)
        });
        if let Some(change) = change {
            self.announce(place, change);
        }
    }

    /// What is known about a route, for a plan.
    pub fn see(&self, route: &RouteEntry, now: Timestamp) -> Seen {
        let Some(Known(health)) = self.known(route) else {
            return Seen::default();
        };
        let load = health.load();
        let channel = &health.channel;
        if seats::is_full(channel, route.channel.body.max_concurrency) {
            let circuit = state_of(health, now);
            return Seen { skip: Some(SkipReason::Full), load, circuit, ..Seen::default() };
        }
        let calm =
            !channel.watchful.load(Ordering::Acquire) && !health.unit.open.load(Ordering::Acquire);
        if calm {
            return Seen { load, ..Seen::default() };
        }
        Seen { load, ..look(route, health, now) }
    }

    /// Whether every circuit of a route may be overruled as a last resort: it is open of itself.
    /// One that is half open has its probes for that.
    pub fn is_tripped(skip: SkipReason) -> bool {
        matches!(skip, SkipReason::CircuitOpen | SkipReason::ChannelCircuitOpen)
    }

    /// The places of a route's usable credentials among `codes`, best first.
    pub fn credentials(&self, route: &RouteEntry, codes: &[&str]) -> Vec<usize> {
        let now = self.clock.now();
        let spread = usize::try_from(self.rng.next_u64() >> 33).unwrap_or(0);
        let Some(Known(health)) = self.known(route) else { return vec![] };
        let calm = !health.channel.watchful.load(Ordering::Acquire);
        if calm || health.channel.mode(now).is_some() {
            let count = codes.len().max(1);
            return (0..codes.len()).map(|n| (n + spread) % count).collect();
        }
        let credentials = health.channel.credentials.lock();
        credentials.order(codes, &health.model, (now, spread))
    }

    /// The usual time to the first byte of a route's streams; `None` when none was seen yet.
    pub fn latency(&self, route: &RouteEntry) -> Option<Duration> {
        self.known(route)?.0.latency()
    }

    /// How often an alias's calls may be tried again.
    pub fn allowance<'a>(&self, alias: &'a AliasEntry) -> Option<&'a Allowance> {
        alias.beside.kept(|| Arc::new(Allowance::default()))
    }

    /// Lets a call through to a route, or says why not.
    ///
    /// # Errors
    /// The reason.
    pub async fn enter(
        self: &Arc<Self>,
        route: &RouteEntry,
        credential: &Arc<str>,
        (way, within): (Way, Duration),
    ) -> Result<Ticket, SkipReason> {
        let Some(Known(health)) = self.known(route) else {
            return Err(SkipReason::EndpointUnserved);
        };
        let now = self.clock.now();
        let keep_ms = (within + PERMIT_GRACE).as_millis();
        let until = now.plus_millis(i64::try_from(keep_ms).unwrap_or(i64::MAX));
        let asking = Asking { token: self.rng.next_u64(), now, until };
        let settings = route.channel.body.breaker;
        // First, and whatever an operator says of the circuits: that is not what a provider takes.
        let seat = Seat::take(self, health, route.channel.body.max_concurrency).await?;
        let ((whole, model), trickles) = self.let_in(health, (asking, way), &settings).await?;
        health.inflight.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket {
            _seat: seat,
            circuits: Arc::clone(self),
            health: Arc::clone(health),
            credential: Arc::clone(credential),
            settings,
            whole,
            model,
            asking,
            trickles,
            reported: false,
        })
    }

    /// Every channel of the configuration, and those that are known for longer.
    pub fn show(&self, snapshot: &Snapshot) -> Vec<ShownChannel> {
        let now = self.clock.now();
        for entry in snapshot.channels() {
            self.channel(&entry.code);
        }
        let default = Breaker::default();
        let channels = self.channels.load_full();
        let shown = channels.iter().map(|(code, health)| {
            let settings = snapshot.channel(code).map_or(default, |entry| entry.body.breaker);
            show::channel(health, &settings, now)
        });
        shown.collect()
    }

    /// The state that callers of a route meet, for records.
    pub fn state_of(&self, route: &RouteEntry) -> State {
        let now = self.clock.now();
        self.known(route).map_or(State::Closed, |Known(health)| state_of(health, now))
    }

    /// Brings what depends on the time alone up to date: rests that are over, and the gauges.
    pub fn refresh(&self) {
        let now = self.clock.now();
        for (code, health) in &**self.channels.load() {
            if health.watchful.load(Ordering::Acquire) {
                health.look_again(now);
            }
            let manual = health.mode(now).map(|(mode, _)| mode);
            self.metrics.routing.manual(code, manual);
            self.metrics.routing.state((code, None), health.whole.state(now).0);
            for (model, known) in &*health.models.lock() {
                self.metrics.routing.state((code, Some(model)), known.unit.state(now).0);
            }
            let out = health.credentials.lock().faults.len();
            self.metrics.routing.credentials_out(code, out);
        }
    }

    fn known<'a>(&self, route: &'a RouteEntry) -> Option<&'a Known> {
        route.beside.kept(|| Arc::new(Known(self.model(&route.channel.code, &route.model))))
    }

    fn channel(&self, code: &str) -> Arc<ChannelHealth> {
        if let Some(health) = self.channels.load().get(code) {
            return Arc::clone(health);
        }
        let _one = self.growing.lock();
        let known = self.channels.load_full();
        if let Some(health) = known.get(code) {
            return Arc::clone(health);
        }
        let health = Arc::new(ChannelHealth::new(code));
        let mut more = BTreeMap::clone(&known);
        more.insert(Arc::clone(&health.code), Arc::clone(&health));
        self.channels.store(Arc::new(more));
        health
    }

    fn model(&self, channel: &str, model: &str) -> Arc<ModelHealth> {
        let channel = self.channel(channel);
        let mut models = channel.models.lock();
        let known = models.get(model).cloned();
        known.unwrap_or_else(|| {
            let health = Arc::new(ModelHealth::new(&channel, model));
            models.insert(Arc::clone(&health.model), Arc::clone(&health));
            health
        })
    }

    /// Feeds the circuits of a call that ended. What changed by it, the channel as a whole first.
    fn record(&self, ticket: &Ticket, report: Report) -> Change {
        let (health, settings) = (&ticket.health, &ticket.settings);
        let channel = &health.channel;
        let (changed, passed) = health.unit.record(ticket.model, report, settings);
        if let Some(change) = changed {
            self.announce((&channel.code, Some(&health.model)), change);
        }
        // On every outcome, whatever changed.
        let closed = ticket.give_back(Side::Model, passed, changed.is_some());
        let tripped = changed.is_some_and(|change| change.to == State::Open);
        let own = Change::from(changed).or(closed);
        let models = channel.models.lock();
        let is_failing = |model: &&Arc<ModelHealth>| model.unit.is_failing(report.at);
        let open = models.values().filter(is_failing).count();
        let several = models.len() > 1;
        drop(models);
        let mut whole = Change::default();
        // Of a channel with one model the model's circuit says it all.
        if several || ticket.whole.probe {
            let rolled = roll_up(settings);
            let verdict = Verdict { slow: false, ..report.verdict };
            let report = Report { verdict, ..report };
            let (changed, passed) = channel.whole.record(ticket.whole, report, &rolled);
            if let Some(change) = changed {
                self.announce((&channel.code, None), change);
            }
            let closed = ticket.give_back(Side::Whole, passed, changed.is_some());
            whole = Change::from(changed).or(closed);
        }
        if tripped && open >= MODELS_OPEN && !channel.whole.open.load(Ordering::Acquire) {
            let change =
                channel.whole.change(|circuit| circuit.trip(Cause::ModelsOpen, report, settings));
            self.announce((&channel.code, None), change);
            whole = Some(change).into();
        }
        whole.or(own)
    }

    /// Does what an outcome asks for beside its circuit.
    fn note_action(
        &self,
        health: &ModelHealth,
        (credential, model): (&Arc<str>, &Arc<str>),
        (action, report): (Action, Report),
    ) -> Option<Transition> {
        let mut changed = None;
        let channel = &health.channel;
        match action {
            Action::DisableModel => {
                let report = Report { asked_ms: Some(UNKNOWN_MODEL_MS), ..report };
                let change = health.unit.change(|circuit| {
                    let open = circuit.state(report.at) == State::Open;
                    (!open).then(|| circuit.trip(Cause::ModelUnknown, report, &Breaker::default()))
                });
                if let Some(change) = change {
                    self.announce((&channel.code, Some(model)), change);
                    changed = Some(change);
                }
            }
            Action::Quarantine | Action::Exhaust => {
                let (credential_code, code) = (&**credential, &*channel.code);
                let exhausted = action == Action::Exhaust;
                tracing::error!(
                    channel = code,
                    credential = credential_code,
                    exhausted,
                    "a provider refuses a credential: it is out"
                );
            }
            Action::None | Action::CoolDown | Action::GiveWay => {}
        }
        let noted = (action, report.asked_ms);
        if let Some((of, told)) = channel.note_credential((credential, model), noted, report.at) {
            self.tell((&channel.code, credential, of.as_ref()), told);
        }
        changed
    }

    /// A circuit as other nodes should see it.
    fn shared_of(&self, (channel, model): &fleet::Place) -> Shared {
        match model {
            None => self.channel(channel).whole.circuit.lock().share(),
            Some(model) => self.model(channel, model).unit.circuit.lock().share(),
        }
    }

    /// Takes over what another node found out, if it is later than what is known here.
    fn adopt(&self, (channel, model): &fleet::Place, told: Shared, settings: &Breaker) {
        let now = self.clock.now();
        let mut newer = false;
        let mut take = |unit: &Unit| {
            unit.change(|circuit| {
                let change = circuit.adopt(told, now, settings);
                let own = circuit.share();
                newer = own.epoch > told.epoch;
                newer |= own.open.map(|o| o.until) > told.open.map(|o| o.until);
                change
            })
        };
        let change = match model {
            None => take(&self.channel(channel).whole),
            Some(model) => take(&self.model(channel, model).unit),
        };
        if let Some(change) = change {
            self.note((channel, model.as_deref()), change);
        }
        if newer {
            // Somebody wrote over what is later: once more, so that all agree.
            self.changes.lock().insert((Arc::clone(channel), model.clone()));
        }
    }

    /// Has what this node found out about a credential told to the others.
    fn tell(
        &self,
        (channel, credential, model): (&Arc<str>, &Arc<str>, Option<&Arc<str>>),
        told: Told,
    ) {
        let named = (Arc::clone(channel), Arc::clone(credential), model.cloned());
        self.credential_changes.lock().insert(named, told);
        self.changed.notify_one();
    }

    /// Notes a change that this node found out, and has it told to the others.
    fn announce(&self, place: (&str, Option<&str>), change: Transition) {
        self.note(place, change);
        self.changes.lock().insert((place.0.into(), place.1.map(Into::into)));
        self.changed.notify_one();
    }

    fn note(&self, (channel, model): (&str, Option<&str>), change: Transition) {
        if model.is_none() {
            self.channel(channel).watchful.store(true, Ordering::Release);
        }
        self.metrics.routing.changed((channel, model), change.to, change.cause);
        tracing::warn!(
            channel,
            model = model.unwrap_or("*"),
            state = change.to.name(),
            cause = change.cause.name(),
            until = change.until.map(|until| until.to_string()),
            "a circuit changed its state"
        );
    }
}

/// A channel's settings for the channel as a whole: rates over all its models. A row of failures
/// says more about one model than about all.
const fn roll_up(settings: &Breaker) -> Breaker {
    Breaker { consecutive_failures: 0, ..*settings }
}

#[cfg(test)]
mod tests;
