//! A seeded simulation of the ledger's protocol: several processes, one database, providers.
//!
//! The judge, the writer's loop, its queue and the recovery ladder are the product's own; the
//! database is the in-memory one, and everything else is drawn from the seed: what is asked for,
//! what providers do, how long each step takes, which message is lost, who dies where, who sleeps
//! past its lease. `cargo xtask sim` runs it; a seed that fails says the command that replays it.
//! Invariant: one seed is one run, on any machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::memory;
use crate::tests::variable;

mod call; // the story of a call
mod checks; // what must hold
mod points; // where a process may die
mod process; // a writer, a heartbeat, calls
mod recover; // what takes over the holds of the dead
mod upstream; // providers and their log
mod world; // time, chance, death, the trace

use points::POINTS;
use world::{Bugs, World};

/// Places in the cluster.
const NODES: usize = 3;

/// Requests of one run, and within how long they come, milliseconds.
const REQUESTS: u64 = 24;
const SPREAD_MS: u64 = 60_000;

/// From here on nothing goes wrong any more, and this much later everything must be at rest: leases
/// run out, then providers are asked until they are given up.
const CALM: Duration = Duration::from_secs(90);
const REST: Duration = Duration::from_secs(250);

/// What one run was.
#[derive(Debug)]
struct Run {
    failure: Option<String>,
    /// Of processes, by the point at which they died.
    crashes: BTreeMap<&'static str, u64>,
    passed: BTreeMap<&'static str, u64>,
    /// Upstream calls in the providers' log.
    calls: usize,
}

/// Runs one seed.
fn run(seed: u64, bugs: Bugs) -> Run {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live(seed, bugs))
}

async fn live(seed: u64, bugs: Bugs) -> Run {
    let world = World::new(seed, bugs);
    let places: Vec<_> = (0..NODES)
        .map(|_| tokio::spawn(process::place(Arc::clone(&world), requests(&world))))
        .collect();
    sleep(CALM, || world.is_over()).await;
    world.calm_down();
    sleep(REST, || world.is_over() || world.is_at_rest()).await;
    let now = world.now();
    if world.failure().is_none() {
        let rest = checks::at_rest(&world.state.lock(), now);
        if let Err(why) = rest {
            world.fail(why);
        }
    }
    world.end();
    for place in places {
        place.abort();
    }
    let state = world.state.lock();
    let (crashes, passed) = (state.crashes.clone(), state.passed.clone());
    let calls = state.upstream.log.len();
    drop(state);
    Run { failure: world.failure(), crashes, passed, calls }
}

async fn sleep(most: Duration, enough: impl Fn() -> bool) {
    let until = tokio::time::Instant::now() + most;
    while tokio::time::Instant::now() < until && !enough() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What is asked of one place, the latest first.
fn requests(world: &World) -> Vec<call::Request> {
    let start = world.now();
    let mut all = Vec::new();
    for app in ["acme", "zeta"] {
        let most = if world.state.lock().faults.is_poor { 3_000 } else { 20_000 };
        let amount = 2_000 + i64::try_from(world.below(most)).unwrap();
        let id = world.mint().as_u128();
        world.state.lock().paid_in.insert(id, (amount, false));
        all.push(call::Request { at: start, app: app.into(), paid: Some((id, amount)) });
    }
    for _ in 0..=REQUESTS / NODES as u64 {
        let at = start.plus_millis(i64::try_from(world.below(SPREAD_MS)).unwrap());
        let app = if world.below(2) == 0 { "acme" } else { "zeta" };
        all.push(call::Request { at, app: app.into(), paid: None });
    }
    all.sort_by_key(|request| std::cmp::Reverse(request.at));
    all
}

/// What many seeds were.
#[derive(Debug, Default)]
struct Runs {
    /// By seed: the smallest is the one to look at.
    failures: BTreeMap<u64, String>,
    /// Of processes, by the point at which they died.
    crashes: BTreeMap<&'static str, u64>,
    passed: BTreeMap<&'static str, u64>,
    calls: usize,
    seeds: u64,
}

impl Runs {
    fn add(&mut self, seed: u64, run: Run) {
        self.failures.extend(run.failure.map(|why| (seed, why)));
        for (into, from) in [(&mut self.crashes, run.crashes), (&mut self.passed, run.passed)] {
            for (point, count) in from {
                *into.entry(point).or_default() += count;
            }
        }
        self.calls += run.calls;
        self.seeds += 1;
    }

    fn assert_clean(&self) {
        if let Some((seed, why)) = self.failures.iter().next() {
            panic!("{why}\n\nseed {seed} failed; replay it with: cargo xtask sim --seed {seed}");
        }
    }
}

/// Runs seeds on all cores, until one fails.
fn run_all(seeds: std::ops::Range<u64>, bugs: Bugs) -> Runs {
    let next = AtomicU64::new(seeds.start);
    let runs = Mutex::new(Runs::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || !runs.lock().failures.is_empty() {
                    return;
                }
                let run = run(seed, bugs);
                runs.lock().add(seed, run);
            }
        };
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    runs.into_inner()
}

#[test]
fn two_hundred_seeds_lose_nothing() {
    let runs = run_all(0..200, Bugs::default());
    runs.assert_clean();
    assert!(runs.calls > 1_000, "{} calls are too few to mean anything", runs.calls);
}

#[test]
fn one_seed_is_one_run() {
    let (first, second) = (run(7, Bugs::default()), run(7, Bugs::default()));
    assert_eq!(first.passed, second.passed);
    assert_eq!((first.crashes, first.calls), (second.crashes, second.calls));
}

#[test]
fn each_planted_bug_is_found() {
    let none = Bugs::default();
    let store = |store| Bugs { store, ..none };
    let of_store = memory::Bugs::default();
    let planted = [
        ("settles without CAS", store(memory::Bugs { settles_without_cas: true, ..of_store })),
        ("recovers unfenced", store(memory::Bugs { recovers_unfenced: true, ..of_store })),
        ("judges stale wallets", store(memory::Bugs { judges_stale_wallets: true, ..of_store })),
        (
            "lets late commits pass",
            store(memory::Bugs { commits_late_unchecked: true, ..of_store }),
        ),
        ("trusts unknown holds", Bugs { trusts_unknown_holds: true, ..none }),
        ("answers before settling", Bugs { answers_before_settling: true, ..none }),
        ("forgets failed attempts", Bugs { forgets_failed_attempts: true, ..none }),
        ("notes fallbacks late", Bugs { notes_fallbacks_late: true, ..none }),
        ("ignores its lease", Bugs { ignores_its_lease: true, ..none }),
        ("recovers by releasing", Bugs { recovers_by_releasing: true, ..none }),
        ("repeats under new ids", Bugs { repeats_under_new_ids: true, ..none }),
    ];
    for (name, bugs) in planted {
        let runs = run_all(0..200, bugs);
        let found = runs.failures.iter().next();
        let (seed, why) = found.unwrap_or_else(|| panic!("a bug that {name} is not found"));
        let why = why.lines().last().unwrap_or_default();
        println!("a bug that {name} is found by seed {seed}, after {} seeds: {why}", runs.seeds);
    }
}

/// What `cargo xtask sim` runs: as many seeds as `ANIMA_SIM_SEEDS` says from `ANIMA_SIM_SEED` on.
#[test]
#[ignore = "run by `cargo xtask sim`"]
fn seeds() {
    let number = |name: &str| variable(name).map(|text| text.parse::<u64>().unwrap());
    let (first, count) = (number("ANIMA_SIM_SEED"), number("ANIMA_SIM_SEEDS"));
    let start = first.unwrap_or(0);
    let count = count.unwrap_or_else(|| if first.is_some() { 1 } else { 200 });
    let runs = run_all(start..start + count, Bugs::default());
    println!("seeds {start} to {}, {} upstream calls", start + runs.seeds - 1, runs.calls);
    println!("{:>10} {:>8}  point", "passed", "crashes");
    for point in POINTS {
        let of = |counts: &BTreeMap<&str, u64>| counts.get(point).copied().unwrap_or(0);
        println!("{:>10} {:>8}  {point}", of(&runs.passed), of(&runs.crashes));
    }
    let crashes = |point: &&&str| runs.crashes.get(**point).copied().unwrap_or(0);
    let often = POINTS.iter().filter(|point| crashes(point) >= 100).count();
    let least = POINTS.iter().min_by_key(crashes).map(|point| (point, crashes(&point)));
    println!("{} points; {often} saw 100 crashes or more; the least: {least:?}", POINTS.len());
    runs.assert_clean();
}
