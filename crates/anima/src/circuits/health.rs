//! What this node knows about one channel: its circuits, credentials and waits.
//!
//! Each circuit has a small lock of its own. Two flags are read first, so that a healthy route
//! costs two loads and no lock. Invariant: a flag is never off while what it stands for is on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use anima_core::breaker::{
    Action, Admitted, Cause, Circuit, Manual, Mode, Report, State, Transition,
};
use anima_core::clock::Timestamp;
use anima_core::config::Breaker;
use anima_core::routing::SkipReason;

use super::fleet;
use super::fleet::credentials::{Kind, Told};

/// How long a credential that was refused is left alone at first, and at most.
const QUARANTINE_MS: (i64, i64) = (60_000, 3_600_000);
/// How long a credential rests for a model when the provider throttled it and named no time.
const REST_MS: u64 = 1_000;
/// The longest and the shortest rest (`reliability` 3.3).
const REST_BOUNDS_MS: (u64, u64) = (1_000, 600_000);
/// Weight of what is known in the running mean of latencies, of 8.
const LATENCY_KEEP: u64 = 7;

/// One circuit.
#[derive(Debug)]
pub(super) struct Unit {
    /// What all nodes call it.
    pub(super) name: String,
    pub(super) circuit: Mutex<Circuit>,
    /// Set while the circuit is not closed.
    pub(super) open: AtomicBool,
    /// Probes of this node that run.
    pub(super) probing: AtomicU32,
}

/// What a call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It goes through, under this state.
    Closed(u64),
    /// It does not.
    Open,
    /// It needs a permit of this opening.
    HalfOpen(u64),
}

impl Unit {
    fn new(name: String) -> Self {
        let (circuit, open, probing) =
            (Mutex::default(), AtomicBool::new(false), AtomicU32::new(0));
        Self { name, circuit, open, probing }
    }

    /// The state and, when it is open, until when and why.
    pub(super) fn state(&self, now: Timestamp) -> (State, Option<(Timestamp, Cause)>) {
        if !self.open.load(Ordering::Acquire) {
            return (State::Closed, None);
        }
        let circuit = self.circuit.lock();
        let opening = circuit.opening().map(|o| (o.until, o.cause));
        (circuit.state(now), opening)
    }

    /// Whether it is open for failures. A model that is not there, or that nobody has asked for
    /// since its wait was over, says nothing about its channel.
    pub(super) fn is_failing(&self, now: Timestamp) -> bool {
        let (state, opening) = self.state(now);
        state == State::Open && opening.is_some_and(|(_, cause)| cause != Cause::ModelUnknown)
    }

    /// What a call meets now.
    pub(super) fn gate(&self, now: Timestamp) -> Gate {
        let circuit = self.circuit.lock();
        match circuit.state(now) {
            State::Closed => Gate::Closed(circuit.epoch()),
            State::Open => Gate::Open,
            State::HalfOpen => Gate::HalfOpen(circuit.epoch()),
        }
    }

    /// Whether it is not closed for slowness alone.
    pub(super) fn is_slow(&self) -> bool {
        let opening = self.circuit.lock().opening();
        opening.is_some_and(|opening| opening.cause == Cause::SlowRate)
    }

    /// What a call is let through as whatever the state is.
    pub(super) fn admit_anyway(&self) -> Admitted {
        Admitted { epoch: self.circuit.lock().epoch(), probe: false }
    }

    /// Takes in what became of a call: what changed by it, and whether it was a probe that passed.
    pub(super) fn record(
        &self,
        admitted: Admitted,
        report: Report,
        settings: &Breaker,
    ) -> (Option<Transition>, bool) {
        self.change(|circuit| {
            let passed = admitted.probe && circuit.is_passed(report.verdict);
            (circuit.record(admitted, report, settings), passed)
        })
    }

    /// Changes the circuit and keeps the flag in step.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuit = self.circuit.lock();
        let result = change(&mut circuit);
        self.open.store(circuit.opening().is_some(), Ordering::Release);
        result
    }
}

/// A credential that is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// When it is tried again; `None` when an operator has to say so.
    pub(super) until: Option<Timestamp>,
    /// Its account is used up.
    pub(super) exhausted: bool,
    /// Times in a row.
    pub(super) times: u32,
    /// When it was found out.
    pub(super) at: Timestamp,
}

/// A credential that rests for one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    pub(super) until: Timestamp,
    /// It is used when there is nothing else.
    pub(super) soft: bool,
    /// When it was found out.
    pub(super) at: Timestamp,
}

/// What a channel's credentials are good for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usable {
    /// At least one is.
    Yes,
    /// Only ones that better rest a moment longer.
    Yielding,
    /// None, and when one will be.
    No(SkipReason, Option<Timestamp>),
}

/// Credentials by code, and their rests by model.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) faults: BTreeMap<Arc<str>, Fault>,
    pub(super) rests: BTreeMap<(Arc<str>, Arc<str>), Rest>,
}

impl Credentials {
    fn one(&self, code: &str, model: &Arc<str>, now: Timestamp) -> Usable {
        if let Some(fault) = self.faults.get(code)
            && fault.until.is_none_or(|until| now < until)
        {
            return Usable::No(SkipReason::CredentialsFaulted, fault.until);
        }
        let key = (Arc::from(code), Arc::clone(model));
        match self.rests.get(&key).filter(|rest| now < rest.until) {
            Some(Rest { soft: true, .. }) => Usable::Yielding,
            Some(rest) => Usable::No(SkipReason::CoolingDown, Some(rest.until)),
            None => Usable::Yes,
        }
    }

    /// Whether any of the codes can be used for a model.
    pub(super) fn usable<'a>(
        &self,
        codes: impl Iterator<Item = &'a str>,
        model: &Arc<str>,
        now: Timestamp,
    ) -> Usable {
        let mut sum = Usable::No(SkipReason::NoCredential, None);
        for code in codes {
            sum = match (sum, self.one(code, model, now)) {
                (_, Usable::Yes) => return Usable::Yes,
                (_, Usable::Yielding) | (Usable::Yielding, Usable::No(..)) => Usable::Yielding,
                (Usable::No(before, soonest), Usable::No(reason, until)) => {
                    let cooling = SkipReason::CoolingDown;
                    let reason = if before == cooling { cooling } else { reason };
                    let soonest = soonest.into_iter().chain(until).min();
                    Usable::No(reason, soonest)
                }
                (Usable::Yes, Usable::No(..)) => Usable::Yes,
            };
        }
        sum
    }

    /// Places of the usable codes, best first; those with equal standing start at `spread`.
    pub(super) fn order(
        &self,
        codes: &[&str],
        model: &Arc<str>,
        (now, spread): (Timestamp, usize),
    ) -> Vec<usize> {
        let count = codes.len().max(1);
        let turn = (0..codes.len()).map(|n| (n + spread) % count);
        let standing = |n: &usize| codes.get(*n).map(|code| self.one(code, model, now));
        let yes = turn.clone().filter(|n| standing(n) == Some(Usable::Yes));
        yes.chain(turn.filter(|n| standing(n) == Some(Usable::Yielding))).collect()
    }

    fn is_empty(&self) -> bool {
        self.faults.is_empty() && self.rests.is_empty()
    }
}

/// What is known about a channel.
#[derive(Debug)]
pub(super) struct ChannelHealth {
    pub(super) code: Arc<str>,
    /// Set while anything but a model's own circuit may hinder calls.
    pub(super) watchful: AtomicBool,
    pub(super) manual: Mutex<Option<Manual>>,
    /// The circuit of the channel as a whole.
    pub(super) whole: Unit,
    pub(super) credentials: Mutex<Credentials>,
    pub(super) models: Mutex<BTreeMap<Arc<str>, Arc<ModelHealth>>>,
    pub(super) inflight: AtomicU32,
}

impl ChannelHealth {
    pub(super) fn new(code: &str) -> Self {
        Self {
            code: code.into(),
            watchful: AtomicBool::new(false),
            manual: Mutex::default(),
            whole: Unit::new(fleet::name(code, None)),
            credentials: Mutex::default(),
            models: Mutex::default(),
            inflight: AtomicU32::new(0),
        }
    }

    /// The operator's word that holds now.
    pub(super) fn mode(&self, now: Timestamp) -> Option<(Mode, Option<Timestamp>)> {
        if !self.watchful.load(Ordering::Acquire) {
            return None;
        }
        let manual = self.manual.lock();
        manual.as_ref().filter(|m| m.is_in_force(now)).map(|m| (m.mode, m.until))
    }

    /// Sets the flag, or takes it back when there is nothing to watch any more.
    pub(super) fn look_again(&self, now: Timestamp) {
        self.watchful.store(true, Ordering::Release);
        let mut manual = self.manual.lock();
        if manual.as_ref().is_some_and(|m| !m.is_in_force(now)) {
            *manual = None;
        }
        let mut credentials = self.credentials.lock();
        credentials.rests.retain(|_, rest| now < rest.until);
        let calm =
            manual.is_none() && credentials.is_empty() && !self.whole.open.load(Ordering::Acquire);
        if calm {
            self.watchful.store(false, Ordering::SeqCst);
            // It may have opened since.
            if self.whole.open.load(Ordering::SeqCst) {
                self.watchful.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Notes what an attempt said about a credential. What other nodes should know of it, with the
    /// model that it is about, if it is about one.
    pub(super) fn note_credential(
        &self,
        (credential, model): (&Arc<str>, &Arc<str>),
        (action, asked_ms): (Action, Option<u64>),
        now: Timestamp,
    ) -> Option<(Option<Arc<str>>, Told)> {
        let mut credentials = self.credentials.lock();
        let told;
        match action {
            Action::CoolDown | Action::GiveWay => {
                let (least, most) = REST_BOUNDS_MS;
                let rest_ms = asked_ms.unwrap_or(REST_MS).clamp(least, most);
                let until = now.plus_millis(i64::try_from(rest_ms).unwrap_or(i64::MAX));
                let soft = action == Action::GiveWay && asked_ms.is_none();
                let key = (Arc::clone(credential), Arc::clone(model));
                let rest = credentials.rests.entry(key).or_insert(Rest { until, soft, at: now });
                rest.soft &= soft;
                (rest.until, rest.at) = (rest.until.max(until), now);
                told = (!rest.soft).then(|| (Some(Arc::clone(model)), Told::rest(*rest)));
            }
            Action::Quarantine | Action::Exhaust => {
                let exhausted = action == Action::Exhaust;
                let times = credentials.faults.get(credential).map_or(0, |fault| fault.times);
                let (first, most) = QUARANTINE_MS;
                let wait_ms = first.saturating_mul(1 << times.min(10)).min(most);
                let until = (!exhausted).then(|| now.plus_millis(wait_ms));
                let times = times.saturating_add(1);
                let fault = Fault { until, exhausted, times, at: now };
                credentials.faults.insert(Arc::clone(credential), fault);
                told = Some((None, Told::fault(fault)));
            }
            Action::None | Action::DisableModel => return None,
        }
        drop(credentials);
        self.watchful.store(true, Ordering::Release);
        told
    }

    /// A credential has been accepted. Whether it was out.
    pub(super) fn forgive(&self, credential: &Arc<str>) -> bool {
        self.watchful.load(Ordering::Acquire)
            && self.credentials.lock().faults.remove(credential).is_some()
    }

    /// Takes over what another node found out about a credential. What this node knows that is
    /// later, and the others should know.
    pub(super) fn adopt_credential(
        &self,
        (credential, model): (&Arc<str>, Option<&Arc<str>>),
        told: Told,
        now: Timestamp,
    ) -> Option<Told> {
        let mut credentials = self.credentials.lock();
        let Credentials { faults, rests } = &mut *credentials;
        let later = match model {
            None => {
                let known = faults.get(credential).copied();
                if let Some(known) = known.filter(|known| known.at > told.at) {
                    return Some(Told::fault(known));
                }
                match told.kind {
                    Kind::Well => drop(faults.remove(credential)),
                    Kind::Rests => {}
                    Kind::Refused | Kind::Exhausted => {
                        let exhausted = told.kind == Kind::Exhausted;
                        let Told { until, times, at, .. } = told;
                        let fault = Fault { until, exhausted, times, at };
                        faults.insert(Arc::clone(credential), fault);
                    }
                }
                None
            }
            Some(model) => {
                let key = (Arc::clone(credential), Arc::clone(model));
                let known = rests.get(&key).copied().filter(|rest| now < rest.until);
                let until = told.until.unwrap_or(told.at);
                if told.kind == Kind::Well && known.is_some_and(|known| known.at <= told.at) {
                    rests.remove(&key);
                }
                let longer = known.filter(|known| !known.soft && known.until > until);
                if told.kind == Kind::Rests && longer.is_none() && now < until {
                    rests.insert(key, Rest { until, soft: false, at: told.at });
                }
                longer
                    .filter(|known| known.at > told.at || told.kind == Kind::Rests)
                    .map(Told::rest)
            }
        };
        let calm = credentials.is_empty();
        drop(credentials);
        if !calm {
            self.watchful.store(true, Ordering::Release);
        }
        later
    }

    /// What other nodes should know of credentials, with the models of rests.
    pub(super) fn known_of_credentials(
        &self,
        now: Timestamp,
    ) -> Vec<(Arc<str>, Option<Arc<str>>, Told)> {
        if !self.watchful.load(Ordering::Acquire) {
            return vec![];
        }
        let credentials = self.credentials.lock();
        let out = credentials.faults.iter();
        let out = out.map(|(code, fault)| (Arc::clone(code), None, Told::fault(*fault)));
        let rests = credentials.rests.iter().filter(|(_, rest)| !rest.soft && now < rest.until);
        let rests = rests.map(|((code, model), rest)| {
            (Arc::clone(code), Some(Arc::clone(model)), Told::rest(*rest))
        });
        out.chain(rests).collect()
    }

    /// Forgets what is known of all credentials, or only their rests for one model. Which there
    /// were, with the models of rests.
    pub(super) fn forget_credentials(
        &self,
        only: Option<&str>,
    ) -> Vec<(Arc<str>, Option<Arc<str>>)> {
        let mut credentials = self.credentials.lock();
        let Credentials { faults, rests } = &mut *credentials;
        let faults = faults.extract_if(.., |_, _| only.is_none());
        let meant = |model: &str| only.is_none_or(|only| model == only);
        let rests = rests.extract_if(.., |(_, model), _| meant(model));
        let faults = faults.map(|(code, _)| (code, None));
        faults.chain(rests.map(|((code, model), _)| (code, Some(model)))).collect()
    }
}

/// What is known about a model of a channel.
#[derive(Debug)]
pub(super) struct ModelHealth {
    pub(super) channel: Arc<ChannelHealth>,
    pub(super) model: Arc<str>,
    pub(super) unit: Unit,
    pub(super) inflight: AtomicU32,
    /// Calls let through although everything is open.
    pub(super) trickling: AtomicU32,
    /// Running means of the time to the first byte of successes, microseconds: of answers in one
    /// piece, whose first byte comes when all is made, and of streams.
    latency_us: [AtomicU64; 2],
}

impl ModelHealth {
    pub(super) fn new(channel: &Arc<ChannelHealth>, model: &str) -> Self {
        Self {
            channel: Arc::clone(channel),
            model: model.into(),
            unit: Unit::new(fleet::name(&channel.code, Some(model))),
            inflight: AtomicU32::new(0),
            trickling: AtomicU32::new(0),
            latency_us: [const { AtomicU64::new(0) }; 2],
        }
    }

    /// How long the work takes that is under way, as far as is known.
    pub(super) fn load(&self) -> u64 {
        let running = u64::from(self.inflight.load(Ordering::Relaxed)) + 1;
        let [whole, first] = &self.latency_us;
        let usual_us = whole.load(Ordering::Relaxed).saturating_add(first.load(Ordering::Relaxed));
        running.saturating_mul(usual_us.max(1))
    }

    /// The usual time to the first byte of a stream; `None` when there was none yet.
    pub(super) fn latency(&self) -> Option<Duration> {
        let [_, first] = &self.latency_us;
        let latency_us = first.load(Ordering::Relaxed);
        (latency_us > 0).then(|| Duration::from_micros(latency_us))
    }

    /// Notes how long a success took to its first byte.
    pub(super) fn note_latency(&self, streams: bool, took: Duration) {
        let new_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 8);
        let [whole, first] = &self.latency_us;
        let kept = if streams { first } else { whole };
        let known_us = kept.load(Ordering::Relaxed);
        let mean_us = match known_us {
            0 => new_us,
            known_us => known_us.saturating_mul(LATENCY_KEEP).saturating_add(new_us) / 8,
        };
        kept.store(mean_us.max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::default().plus_millis(ms)
    }

    fn usable(channel: &ChannelHealth, ms: i64) -> Usable {
        let codes = ["a", "b"].into_iter();
        channel.credentials.lock().usable(codes, &"m".into(), at(ms))
    }

    #[test]
    fn a_credential_rests_for_its_model_as_long_as_was_asked() {
        let channel = ChannelHealth::new("c");
        let rest = |credential: &str, asked| {
            let key = (&Arc::from(credential), &Arc::from("m"));
            channel.note_credential(key, (Action::CoolDown, asked), at(0));
        };
        rest("a", Some(30_000));
        assert_eq!(usable(&channel, 1), Usable::Yes, "the other one is there");
        rest("b", Some(5_000));
        rest("a", Some(5_000));
        let soonest = Usable::No(SkipReason::CoolingDown, Some(at(5_000)));
        assert_eq!(usable(&channel, 1), soonest);
        assert_eq!(usable(&channel, 5_000), Usable::Yes);
        rest("b", Some(u64::MAX));
        let clamped = Usable::No(SkipReason::CoolingDown, Some(at(30_000)));
        assert_eq!(
            usable(&channel, 1),
            clamped,
            "and a longer wait is not shortened by a later one"
        );
    }

    #[test]
    fn an_overloaded_one_only_lets_others_go_first() {
        let channel = ChannelHealth::new("c");
        for credential in ["a", "b"] {
            let key = (&Arc::from(credential), &Arc::from("m"));
            channel.note_credential(key, (Action::GiveWay, None), at(0));
        }
        assert_eq!(usable(&channel, 1), Usable::Yielding);
        channel.look_again(at(2_000));
        assert!(!channel.watchful.load(Ordering::Acquire), "and nothing is left of it");
    }

    #[test]
    fn a_refused_credential_is_tried_again_and_a_used_up_one_is_not() {
        let channel = ChannelHealth::new("c");
        let fault = |code: &str, action| {
            channel.note_credential((&Arc::from(code), &Arc::from("m")), (action, None), at(0));
        };
        fault("a", Action::Quarantine);
        fault("b", Action::Exhaust);
        let soonest = Usable::No(SkipReason::CredentialsFaulted, Some(at(60_000)));
        assert_eq!(usable(&channel, 0), soonest);
        let order = |ms| channel.credentials.lock().order(&["a", "b"], &"m".into(), (at(ms), 1));
        assert_eq!(order(60_000), [0]);
        fault("a", Action::Quarantine);
        let longer = Usable::No(SkipReason::CredentialsFaulted, Some(at(120_000)));
        assert_eq!(usable(&channel, 0), longer);
    }

    #[test]
    fn latencies_are_a_running_mean() {
        let model = ModelHealth::new(&Arc::new(ChannelHealth::new("c")), "m");
        assert_eq!(model.latency(), None);
        model.note_latency(true, Duration::from_millis(80));
        model.note_latency(true, Duration::from_millis(160));
        assert_eq!(model.latency(), Some(Duration::from_millis(90)));
        model.note_latency(false, Duration::from_millis(500));
        assert_eq!(model.latency(), Some(Duration::from_millis(90)), "each by itself");
        assert_eq!(model.load(), 590_000);
    }
}
