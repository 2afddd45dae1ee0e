//! The story of a run: start everything, measure in rounds, stop everything, write the table.
//!
//! Within a round every target gets the same phase right after the other, so that what else the
//! machine does meanwhile hits them alike; of the rounds, the median is reported.
//! Invariant: a target serves alone; the others idle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;
use std::{env, fs, process};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::load::{self, Job, Shape, Tally};
use crate::plan::Plan;
use crate::process::Process;
use crate::target::{Kind, Target, split_url};
use crate::upstream::PACED;
use crate::{disk, gateway, machine, nginx, report};

/// The model's name upstream and the alias's name in the gateway.
pub(crate) const MODEL: &str = "bench-chat";

/// Bytes of the long prompt.
const PROMPT_BYTES: usize = 128 * 1024;

/// Connections where targets are compared per core.
const PINNED_CONCURRENCY: usize = 16;

/// Connections with paced streams: 16,000 chunks per second with a pace of 2 ms.
pub(crate) const PACED_CONCURRENCY: usize = 32;

/// One kind of phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Closed loop, all cores.
    Closed(usize),
    /// Open loop at a rate, all cores.
    Open(u32),
    /// Streams on this many connections, all cores.
    Streams(usize),
    /// Closed loop, the proxy on a core of its own.
    PinnedJson,
    /// The same with long prompts.
    PinnedPrompt,
    /// The same with streams that come at once.
    PinnedStream,
    /// The same with streams that come chunk by chunk, on more connections.
    PinnedPaced,
}

const PINNED: [Phase; 4] =
    [Phase::PinnedJson, Phase::PinnedPrompt, Phase::PinnedStream, Phase::PinnedPaced];

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// One tally per round.
    pub(crate) phases: BTreeMap<(Phase, Kind), Vec<Tally>>,
    /// Resident memory before any load, in MiB.
    pub(crate) rest_mib: BTreeMap<Kind, f64>,
    /// One durable append, in ms.
    pub(crate) append_ms: f64,
    /// Cores of the machine.
    pub(crate) cores: usize,
    /// Whether processes could be bound to cores.
    pub(crate) pinned: bool,
}

/// Runs the plan until its end, or until a signal. Gives the number of failed requests.
///
/// # Errors
/// When something does not start, or a signal came.
pub(crate) async fn run_all(plan: &Plan) -> Result<u64> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for signals")?;
    tokio::select! {
        results = measure(plan) => {
            let results = results?;
            report::write(plan, &results)?;
            Ok(results.phases.values().flatten().map(Tally::failed).sum())
        }
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn measure(plan: &Plan) -> Result<Results> {
    let scratch = Scratch::make(&plan.scratch)?;
    let append = disk::durable_append(&scratch.folder)?;
    let mut results = Results {
        append_ms: append.as_secs_f64() * 1000.0,
        cores: machine::cores(),
        ..Results::default()
    };
    let stage = Stage::set(plan, &scratch.folder).await?;
    sleep(Duration::from_secs(1)).await;
    for target in &stage.targets {
        if let Some(process) = target.process {
            results.rest_mib.insert(target.kind, machine::resident_mib(process));
        }
    }
    for round in 1..=plan.rounds {
        println!("round {round} of {}", plan.rounds);
        for phase in shared_phases(plan) {
            stage.play(phase, plan.phase, &mut results).await?;
        }
        results.pinned = stage.bind(true);
        for phase in PINNED {
            stage.play(phase, plan.phase, &mut results).await?;
        }
        stage.bind(false);
    }
    Ok(results)
}

fn shared_phases(plan: &Plan) -> Vec<Phase> {
    let closed = plan.concurrency.iter().map(|count| Phase::Closed(*count));
    let open = plan.rates.iter().map(|rate| Phase::Open(*rate));
    closed.chain(open).chain([Phase::Streams(1), Phase::Streams(PINNED_CONCURRENCY)]).collect()
}

/// Everything that runs during a measurement.
struct Stage {
    targets: Vec<Target>,
    upstream: u32,
    /// Counted before anything was bound to some of them.
    cores: usize,
    /// Stopped in this order: proxies before their upstream.
    _processes: Vec<Process>,
}

impl Stage {
    async fn set(plan: &Plan, scratch: &Path) -> Result<Self> {
        let mut command = Command::new(env::current_exe().context("failed to find this program")?);
        let mut provider = Process::start(command.arg("upstream"), &scratch.join("upstream.log"))?;
        let line = provider.first_line().context("failed to start the upstream")?;
        let (address, _) = split_url(&format!("http://{}", line.trim()))?;
        let upstream = provider.id();
        let mut processes = Vec::new();
        let mut targets = Vec::new();
        for kind in &plan.kinds {
            let started = match kind {
                Kind::Direct => {
                    targets.push(Target::new(*kind, address, "/v1", "unused"));
                    continue;
                }
                Kind::Nginx => nginx::start(address, scratch),
                Kind::Unbilled | Kind::Sqlite | Kind::Postgres => {
                    let postgres = plan.postgres.as_deref();
                    gateway::start(*kind, &plan.program, address, scratch, postgres).await
                }
            };
            let (process, target) =
                started.with_context(|| format!("failed to start {}", kind.title()))?;
            processes.push(process);
            targets.push(target);
        }
        processes.push(provider);
        let cores = machine::cores();
        Ok(Self { targets, upstream, cores, _processes: processes })
    }

    /// Gives each proxy the first core and everything else of ours the others, or takes that back.
    fn bind(&self, apart: bool) -> bool {
        let last = self.cores - 1;
        if last == 0 {
            return false;
        }
        let all = format!("0-{last}");
        let (proxies, others) =
            if apart { ("0".to_owned(), format!("1-{last}")) } else { (all.clone(), all) };
        let ours = [process::id(), self.upstream].into_iter().map(|id| (id, &others));
        let theirs = self.targets.iter().filter_map(|target| Some((target.process?, &proxies)));
        // Ours first: the proxies are our children, and would be moved along.
        ours.chain(theirs).fold(true, |done, (id, cores)| machine::pin(id, cores) && done)
    }

    /// One phase on every target.
    async fn play(&self, phase: Phase, length: Duration, results: &mut Results) -> Result<()> {
        for target in &self.targets {
            let job = job(phase, target);
            // Connections, caches and pools are warm when it counts.
            load::closed(&job, 4, Duration::from_millis(200)).await?;
            let before = target.process.map(machine::cpu_seconds);
            let sampled = async {
                sleep(length.mul_f64(0.8)).await;
                target.process.map_or(0.0, machine::resident_mib)
            };
            let (tally, resident_mib) = tokio::join!(load_of(phase, &job, length), sampled);
            let mut tally = tally?;
            tally.resident_mib = resident_mib;
            if let (Some(process), Some(before)) = (target.process, before) {
                tally.cpu_seconds = machine::cpu_seconds(process) - before;
            }
            say(phase, target.kind, &tally);
            results.phases.entry((phase, target.kind)).or_default().push(tally);
        }
        Ok(())
    }
}

async fn load_of(phase: Phase, job: &Job, length: Duration) -> Result<Tally> {
    match phase {
        Phase::Open(rate) => load::open(job, rate, length).await,
        Phase::Closed(count) | Phase::Streams(count) => load::closed(job, count, length).await,
        Phase::PinnedJson | Phase::PinnedPrompt | Phase::PinnedStream => {
            load::closed(job, PINNED_CONCURRENCY, length).await
        }
        Phase::PinnedPaced => load::closed(job, PACED_CONCURRENCY, length).await,
    }
}

fn job(phase: Phase, target: &Target) -> Job {
    let short = "Say something about fifty words long.".to_owned();
    let (model, prompt, shape) = match phase {
        Phase::Closed(_) | Phase::Open(_) | Phase::PinnedJson => (MODEL, short, Shape::Json),
        Phase::PinnedPrompt => (MODEL, prompt(PROMPT_BYTES), Shape::Json),
        Phase::Streams(_) | Phase::PinnedStream => (MODEL, short, Shape::Stream),
        Phase::PinnedPaced => (PACED, short, Shape::Stream),
    };
    let streamed = shape == Shape::Stream;
    let message = json!({"role": "user", "content": prompt});
    let body = json!({"messages": [message], "model": model, "stream": streamed}).to_string();
    Job { address: target.address, request: Rc::from(target.chat(&body, streamed)), shape }
}

/// Words in no order that a cache could know, always the same.
fn prompt(bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "ledger", "of", "the", "quiet", "harbour", "and", "seven", "lamps", "was", "written",
        "before", "morning,", "while", "rivers", "carried", "stones.",
    ];
    let mut text = String::with_capacity(bytes + 16);
    let mut state = 1_u32;
    while text.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = usize::try_from(state >> 28).ok().and_then(|at| WORDS.get(at));
        text.push_str(word.unwrap_or(&"lamp"));
        text.push(' ');
    }
    text
}

fn say(phase: Phase, kind: Kind, tally: &Tally) {
    let (rate, p50, p99) = (tally.rate(), tally.latency_ms(50.0), tally.latency_ms(99.0));
    let cpu = tally.cpu_us_per_request();
    let title = kind.title();
    println!("{phase:?} {title}: {rate:.0}/s, p50 {p50:.3} ms, p99 {p99:.3} ms, {cpu:.1} µs CPU");
    for (why, count) in &tally.failures {
        println!("  {count} failed: {why}");
    }
}

/// A folder that is removed with its content when this is dropped.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn make(parent: &Path) -> Result<Self> {
        let folder = parent.join(format!("anima-bench-{}", process::id()));
        fs::create_dir(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        Ok(Self { folder })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("anima-bench: failed to remove {}: {error}", self.folder.display());
        }
    }
}
