//! The simulated world: one clock, one source of chance, processes that die and sleep, a trace.
//!
//! Time is tokio's paused clock, which jumps to the next timer when nothing can run: a pause of an
//! hour costs nothing, and a seed decides everything. Whatever a process does to something outside
//! itself it does right after [`World::step`], where it may die, fall asleep or be held up.
//! Invariant: a process that is dead does nothing more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::clock::{Rng as _, SeededRng, Timestamp, mint_id};

use super::checks;
use super::points::{POINTS, RARE};
use super::upstream::Upstream;
use crate::ledger::batch::Failure;
use crate::ledger::digest::Digest;
use crate::ledger::operation::{Item, Operation, Verdict};
use crate::ledger::plan::State as HoldState;
use crate::ledger::tests::fixtures::NOON;
use crate::ledger::tests::memory::unlocked::{self, Reading};
use crate::ledger::tests::memory::{HoldRow, Memory};

/// Lines of the trace that a failure shows.
const TRACE: usize = 60;

/// How long a process is believed alive after its last heartbeat, milliseconds.
pub(super) const LEASE_MS: i64 = 15_000;

/// Bugs that the self-test plants outside the store. All `false`: none.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is planted alone")]
pub(super) struct Bugs {
    /// What the store does wrong.
    pub(super) store: crate::ledger::tests::memory::Bugs,
    /// A hold whose commit is unknown counts as placed.
    pub(super) trusts_unknown_holds: bool,
    /// The last bytes go out before the settlement is on disk.
    pub(super) answers_before_settling: bool,
    /// What a failed attempt cost is forgotten when another one serves.
    pub(super) forgets_failed_attempts: bool,
    /// A fallback is sent before it is on disk that it will be.
    pub(super) notes_fallbacks_late: bool,
    /// A process begins calls although it may be believed dead.
    pub(super) ignores_its_lease: bool,
    /// Recovery gives holds back without asking what became of their calls.
    pub(super) recovers_by_releasing: bool,
    /// A settlement whose commit is unknown is made again as something new.
    pub(super) repeats_under_new_ids: bool,
}

/// How often things go wrong in one seed, per million steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    pub(super) crash: u64,
    pub(super) pause: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) upstream: u64,
    /// Settlements that the database refuses, per million.
    refused: u64,
    /// The point at which this seed likes to crash.
    pub(super) target: &'static str,
    /// How much, per million times that it comes by.
    likes: u64,
    /// How long a process sleeps at least, and how much more at most.
    nap_ms: (u64, u64),
    /// Wallets have little in them.
    pub(super) is_poor: bool,
    /// From when to when the database is away, milliseconds after the start.
    outage: (u64, u64),
}

/// A process, dead or alive.
#[derive(Debug, Clone, Copy)]
struct Process {
    alive: bool,
    asleep_until: Instant,
}

/// Everything that processes share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) store: Memory,
    pub(super) upstream: Upstream,
    pub(super) faults: Faults,
    pub(super) bugs: Bugs,
    /// Calls that are being made.
    pub(super) calls: usize,
    /// Faults are over: what is left must come to rest.
    pub(super) calm: bool,
    pub(super) failure: Option<String>,
    /// Top-ups that were asked for, and whether somebody was told that they are in the books.
    pub(super) paid_in: BTreeMap<u128, (i64, bool)>,
    /// Requests whose client saw the end of its answer, and what it should have cost.
    pub(super) answered: BTreeMap<Uuid, i64>,
    /// Settlements that the database refuses, by their hold.
    refused: BTreeMap<Uuid, Digest>,
    /// How often a process died at each point.
    pub(super) crashes: BTreeMap<&'static str, u64>,
    /// How often each point was passed.
    pub(super) passed: BTreeMap<&'static str, u64>,
    processes: BTreeMap<Uuid, Process>,
    trace: VecDeque<String>,
    over: bool,
}

/// The world.
#[derive(Debug)]
pub(super) struct World {
    rng: SeededRng,
    started: Instant,
    pub(super) state: Mutex<State>,
}

impl World {
    pub(super) fn new(seed: u64, bugs: Bugs) -> Arc<Self> {
        let rng = SeededRng::new(seed);
        let faults = faults(seed, &rng);
        let mut store = Memory::default();
        store.bugs = bugs.store;
        let state = State {
            store,
            upstream: Upstream::default(),
            faults,
            bugs,
            calls: 0,
            calm: false,
            failure: None,
            paid_in: BTreeMap::new(),
            answered: BTreeMap::new(),
            refused: BTreeMap::new(),
            crashes: BTreeMap::new(),
            passed: BTreeMap::new(),
            processes: BTreeMap::new(),
            trace: VecDeque::new(),
            over: false,
        };
        Arc::new(Self { rng, started: Instant::now(), state: Mutex::new(state) })
    }

    pub(super) fn now(&self) -> Timestamp {
        let elapsed = self.started.elapsed().as_micros();
        Timestamp::from_micros(NOON.micros() + i64::try_from(elapsed).unwrap())
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.next_u64() % bound.max(1)
    }

    /// Whether something happens that happens `per_million` times in a million.
    pub(super) fn chance(&self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million
    }

    pub(super) fn mint(&self) -> Uuid {
        mint_id(self.now(), &self.rng)
    }

    pub(super) fn bugs(&self) -> Bugs {
        self.state.lock().bugs
    }

    /// Waits up to `most_ms`.
    pub(super) async fn dawdle(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(most_ms + 1))).await;
    }

    /// A process begins.
    pub(super) fn born(&self, id: Uuid) {
        let process = Process { alive: true, asleep_until: Instant::now() };
        let until = self.now().plus_millis(LEASE_MS);
        let mut state = self.state.lock();
        state.processes.insert(id, process);
        state.store.register(id, until);
        drop(state);
        self.note(id, "start", "");
    }

    pub(super) fn is_alive(&self, id: Uuid) -> bool {
        self.state.lock().processes.get(&id).is_some_and(|process| process.alive)
    }

    /// A process dies, in whatever state it is.
    fn die(&self, id: Uuid, point: &'static str) {
        let now = self.now();
        let mut state = self.state.lock();
        if let Some(process) = state.processes.get_mut(&id) {
            process.alive = false;
        }
        *state.crashes.entry(point).or_default() += 1;
        state.upstream.caller_died(id, now);
        drop(state);
        self.note(id, point, "DIES");
    }

    /// A named point between two steps of a process: anything may happen here.
    pub(super) async fn step(&self, id: Uuid, point: &'static str) {
        debug_assert!(POINTS.contains(&point), "{point}");
        loop {
            self.dawdle(3).await;
            let Some(until) = self.go_on(id) else {
                return std::future::pending().await;
            };
            if until <= Instant::now() {
                break;
            }
            tokio::time::sleep_until(until).await;
        }
        self.note(id, point, "");
        *self.state.lock().passed.entry(point).or_default() += 1;
        let faults = self.state.lock().faults;
        if self.state.lock().calm {
            return;
        }
        let crash = if point == faults.target { faults.likes } else { faults.crash };
        if self.chance(crash) {
            self.die(id, point);
            return std::future::pending().await;
        }
        if self.chance(faults.pause) {
            let (least, more) = faults.nap_ms;
            let pause = Duration::from_millis(least + self.below(more));
            self.note(id, point, &format!("sleeps {pause:?}"));
            let until = Instant::now() + pause;
            if let Some(process) = self.state.lock().processes.get_mut(&id) {
                process.asleep_until = until;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Until when a process sleeps; `None` when it is dead or the run is over.
    fn go_on(&self, id: Uuid) -> Option<Instant> {
        let state = self.state.lock();
        let process = state.processes.get(&id).filter(|process| process.alive)?;
        state.failure.is_none().then_some(process.asleep_until)
    }

    /// A process ends because it is told that it is believed dead.
    pub(super) fn give_up(&self, id: Uuid, point: &'static str) {
        self.die(id, point);
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, id: Uuid, point: &str, what: &str) {
        // What every process does all the time would push out what matters.
        let idle =
            ["lease.before", "lease.sent", "lease.after", "recovery.begin", "recovery.claimed"];
        if what.is_empty() && idle.contains(&point) {
            return;
        }
        let at = self.started.elapsed().as_millis();
        let name = id.as_u128() & 0xFF_FFFF;
        let line = format!("{at:>8} ms  {name:06x}  {point} {what}");
        let mut state = self.state.lock();
        if state.trace.len() == TRACE {
            state.trace.pop_front();
        }
        state.trace.push_back(line);
    }

    /// The run has failed.
    pub(super) fn fail(&self, why: String) {
        self.state.lock().failure.get_or_insert(why);
    }

    /// Why the run failed, with the trace's tail.
    pub(super) fn failure(&self) -> Option<String> {
        let state = self.state.lock();
        let why = state.failure.as_ref()?;
        let trace: Vec<_> = state.trace.iter().map(String::as_str).collect();
        Some(format!("{}\n\n{why}", trace.join("\n")))
    }

    /// A client saw the end of its answer. From here on it counts as billed.
    pub(super) fn answered(&self, request: Uuid, charged: i64) {
        let mut state = self.state.lock();
        state.answered.insert(request, charged);
        let settled = state.store.holds.get(&request).and_then(|row| row.settled);
        if settled != Some(charged) {
            let why = format!("{request} was answered for {charged}; the books say {settled:?}");
            state.failure.get_or_insert(why);
        }
    }

    /// No more faults: what is left must come to rest.
    pub(super) fn calm_down(&self) {
        self.state.lock().calm = true;
    }

    /// Whether the database does not answer now.
    pub(super) fn is_cut_off(&self) -> bool {
        let (from, to) = self.state.lock().faults.outage;
        let now = self.started.elapsed().as_millis();
        u128::from(from) <= now && now < u128::from(to)
    }

    /// A call is being made, until the value is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        self.state.lock().calls += 1;
        Entered(Arc::clone(self))
    }

    /// Nothing runs and nothing is held.
    pub(super) fn is_at_rest(&self) -> bool {
        let state = self.state.lock();
        let open = |row: &HoldRow| matches!(row.stored.state, HoldState::Open { .. });
        state.calls == 0 && !state.store.holds.values().any(open)
    }

    pub(super) fn end(&self) {
        self.state.lock().over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.over || state.failure.is_some()
    }

    /// Whether the database refuses a batch for what is in it: one content of a settlement, for
    /// good. Whoever closes that hold otherwise is not refused.
    pub(super) fn refuses(&self, items: &[Item]) -> bool {
        let mut state = self.state.lock();
        let (rate, calm) = (state.faults.refused, state.calm);
        let mut refused = false;
        for item in items {
            let Operation::Settle(settle) = &item.operation else { continue };
            let hold = settle.settlement.hold;
            let is_chosen = hold.as_u128() % 1_000_000 < u128::from(rate);
            if is_chosen && !calm && !settle.settlement.attempts.is_empty() {
                state.refused.entry(hold).or_insert(settle.digest);
            }
            refused |= state.refused.get(&hold) == Some(&settle.digest);
        }
        refused
    }

    /// Reads what a batch names, without locks.
    pub(super) fn read_unlocked(&self, id: Uuid, items: &[Item]) -> Option<Reading> {
        let now = self.now();
        unlocked::read(&mut self.state.lock().store, id, now, items)
    }

    /// Writes it, as far as it fits, and checks what must always hold.
    pub(super) fn write_unlocked(&self, reading: Reading, items: &[Item]) -> Option<Vec<Verdict>> {
        let mut state = self.state.lock();
        let verdicts = unlocked::write(&mut state.store, reading, items);
        let wrong = checks::always(&state);
        drop(state);
        if let Err(why) = wrong {
            self.fail(why);
        }
        verdicts
    }

    /// Makes a transaction for a process, and checks what must always hold.
    pub(super) fn transact(&self, id: Uuid, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        let now = self.now();
        let mut state = self.state.lock();
        let verdicts = state.store.transact(id, now, items).map_err(Failure::Refused);
        let wrong = checks::always(&state);
        drop(state);
        if let Err(why) = wrong {
            self.fail(why);
        }
        verdicts
    }
}

/// A call that is being made.
#[derive(Debug)]
pub(super) struct Entered(Arc<World>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.state.lock().calls -= 1;
    }
}

/// Each seed has a weather of its own, and a point at which it likes to crash.
fn faults(seed: u64, rng: &SeededRng) -> Faults {
    let pick =
        |choices: &[u64]| choices[usize::try_from(rng.next_u64() % choices.len() as u64).unwrap()];
    let (points, likes) =
        if seed.is_multiple_of(2) { (POINTS, 200_000) } else { (RARE, 1_000_000) };
    let count = points.len() as u64;
    let target = points[usize::try_from((seed / 2) % count).unwrap()];
    let mut faults = Faults {
        crash: pick(&[0, 500, 2_000, 8_000]),
        pause: pick(&[0, 500, 2_000, 6_000]),
        lost: pick(&[0, 20_000, 100_000, 300_000]),
        doubled: pick(&[0, 50_000, 200_000]),
        upstream: pick(&[0, 100_000, 400_000]),
        refused: pick(&[0, 0, 50_000]),
        target,
        likes,
        is_poor: false,
        nap_ms: (1_000, 90_000),
        outage: outage(rng),
    };
    suit(&mut faults, rng);
    faults
}

/// What it takes to come by the point that a seed likes.
fn suit(faults: &mut Faults, rng: &SeededRng) {
    let target = faults.target;
    if target.starts_with("trueup.") || target.ends_with(".fenced") {
        // Zombies, which wake while there are still faults.
        (faults.pause, faults.crash) = (20_000, 0);
        faults.nap_ms = (16_000, 15_000);
    }
    if target.ends_with(".unknown") {
        let from = if target == "topup.unknown" { 0 } else { rng.next_u64() % 20_000 };
        (faults.outage, faults.crash) = ((from, 45_000), 0);
    }
    let odd = ["stream.cut", "stream.usage_missing", "recovery.silent", "recovery.waits"];
    let fails = target.starts_with("attempt.") || target.starts_with("release.");
    if fails || odd.contains(&target) {
        faults.upstream = 600_000;
    }
    if ["writer.given_up", "writer.met"].contains(&target) {
        faults.lost = 300_000;
    }
    if ["settle.refused", "recovery.overdue"].contains(&target) {
        (faults.refused, faults.crash, faults.pause) = (400_000, 0, 0);
    }
    faults.is_poor = ["stream.exhausted", "hold.refused"].contains(&target);
}

fn outage(rng: &SeededRng) -> (u64, u64) {
    let from = rng.next_u64() % 60_000;
    let most = [0, 3_000, 25_000];
    let most = most[usize::try_from(rng.next_u64() % 3).unwrap()];
    (from, from + rng.next_u64() % (most + 1))
}
