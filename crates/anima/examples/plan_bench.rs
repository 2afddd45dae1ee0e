//! Measures what choosing a channel costs, and judges it by what this project promises: the plan of
//! an alias with 50 routes on as many channels, with the check of every circuit, in less than 2 µs.
//! `cargo xtask bench plan` runs it in release. Best of many rounds, so that what else the machine
//! does is not in it; then the same on several threads at once, to show that requests do not wait
//! for one another. Exit code 1 when a figure is missed.

#![expect(clippy::print_stdout, reason = "a program whose product is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anima::circuits::{Circuits, End, Way};
use anima::clock::{SystemClock, SystemRng};
use anima::metrics::Metrics;
use anima_core::breaker::State;
use anima_core::clock::{Clock as _, Timestamp};
use anima_core::config::{Tables, Version};
use anima_core::failure::Failure;
use anima_core::routing;
use anima_core::snapshot::{AliasEntry, Snapshot};
use anima_store::probes::Probes;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

/// Candidates of the alias.
const ROUTES: usize = 50;

/// Plans of one round, and rounds: the best of them is undisturbed.
const PLANS: u32 = 200;
const ROUNDS: u32 = 2_000;

/// Microseconds that a request may spend.
const MOST: f64 = 2.0;

/// What stands in the way says so in words.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Everything that a plan is made of.
struct Bench {
    circuits: Arc<Circuits>,
    alias: Arc<AliasEntry>,
}

fn main() -> Result<ExitCode> {
    println!("| plan of {ROUTES} routes and the check of their circuits | us |\n|---|---|");
    let healthy = report("all circuits closed", 0)?;
    let some = report("five open", 5)?;
    let half = report("half of them open", ROUTES / 2)?;
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let beside = beside(threads)?;
    println!("| all closed, on {threads} threads at once, each | {beside:.2} |");
    let missed = [healthy, some, half].iter().filter(|found| **found > MOST).count();
    println!("\nat most {MOST} us on one thread: {missed} missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures with so many circuits open, and prints the line.
fn report(what: &str, open: usize) -> Result<f64> {
    let found = Bench::new(open)?.best()?;
    println!("| {what} | {found:.2} |");
    Ok(found)
}

/// The slowest of several threads that plan for the same alias at the same time.
fn beside(threads: usize) -> Result<f64> {
    let bench = Bench::new(0)?;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(|| bench.best())).collect();
        let mut slowest = 0.0_f64;
        for one in all {
            slowest = slowest.max(one.join().ok().ok_or("a thread panicked")??);
        }
        Ok(slowest)
    })
}

impl Bench {
    fn new(open: usize) -> Result<Self> {
        let mut tables = Tables::default();
        let mut routes = Vec::new();
        for n in 0..ROUTES {
            let code = format!("c{n}");
            let channel = json!({"provider": "openai_compatible", "base_url": "http://x/v1",
                "credentials": [{"code": "a", "sealed": ""}, {"code": "b", "sealed": ""}]});
            tables.channels.push(version(&code, channel)?);
            routes.push(json!({"channel": code, "model": "m", "priority": n % 5}));
        }
        tables.aliases.push(version("chat", json!({"kind": "chat", "routes": routes}))?);
        let snapshot = Snapshot::compile(&tables, Timestamp::default());
        let alias = Arc::clone(snapshot.alias("chat").ok_or("the alias is not there")?);
        let metrics = Arc::new(Metrics::new()?);
        let parts = (Arc::new(SystemClock) as _, Arc::new(SystemRng) as _, metrics);
        let circuits = Arc::new(Circuits::new(parts, Probes::in_process()));
        let bench = Self { circuits, alias };
        (0..open).try_for_each(|n| bench.trip(n))?;
        Ok(bench)
    }

    /// Opens the circuit of a route.
    fn trip(&self, n: usize) -> Result<()> {
        let route = self.alias.routes.get(n).ok_or("there is no such route")?;
        while self.circuits.state_of(route) == State::Closed {
            let credential = "a".into();
            let way = (Way::Proper, Duration::from_secs(1));
            let entered = self.circuits.enter(route, &credential, way).now_or_never();
            let ticket = entered.ok_or("it waits")?.ok().ok_or("it is refused")?;
            let failure = Some(Failure::ServerError);
            ticket.end(End { failure, streams: true, first_byte: Duration::ZERO, asked_ms: None });
        }
        Ok(())
    }

    /// One request's plan, and the credentials of its first candidate.
    fn plan(&self, bits: u64) -> Option<()> {
        let now = SystemClock.now();
        let plan = routing::plan(&self.alias, bits, |_, route| self.circuits.see(route, now));
        let route = self.alias.routes.get(*plan.candidates.first()?)?;
        let order = self.circuits.credentials(route, &["a", "b"]);
        black_box((order, plan));
        Some(())
    }

    /// Microseconds of one plan, of the best round.
    fn best(&self) -> Result<f64> {
        let mut best = f64::INFINITY;
        for round in 0..ROUNDS {
            let begin = Instant::now();
            for n in 0..PLANS {
                self.plan(u64::from(round * PLANS + n)).ok_or("there is no candidate")?;
            }
            best = best.min(begin.elapsed().as_secs_f64() * 1e6 / f64::from(PLANS));
        }
        Ok(best)
    }
}

fn version<B: serde::de::DeserializeOwned>(code: &str, body: Value) -> Result<Version<B>> {
    Ok(Version {
        code: code.into(),
        app: None,
        version_no: 1,
        effective_from: Timestamp::default(),
        effective_to: None,
        enabled: true,
        body: serde_json::from_value(body)?,
    })
}
