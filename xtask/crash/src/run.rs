//! One run on one storage, from an empty database to a verdict.
//!
//! Provider, gateways, rows, load, faults; then quiet, recovery, the end of all gateways, and only
//! then the books. Not the judgement (`audit`).
//! Invariant: what is judged does not change any more: no gateway runs, and every upstream call has
//! ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::audit::audit;
use crate::books::{self, Books};
use crate::faults;
use crate::fleet::{self, Fleet, Kit};
use crate::load::{Load, Target};
use crate::once;
use crate::operator;
use crate::place::Place;
use crate::plan::{Plan, Storage};
use crate::provider::Provider;
use crate::recovery;
use crate::report::Verdict;
use crate::seed::Seed;

/// How long a call may run when nobody waits for it any more.
const TRUTH_WITHIN: Duration = Duration::from_secs(30);

/// Runs everything.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn run(plan: &Plan, storage: Storage, scratch: &Path) -> Result<Verdict> {
    let begin = Instant::now();
    let mut provider = Provider::start(&plan.program, scratch).await?;
    let place = Place::make(plan, storage, scratch).await?;
    let nodes = if storage == Storage::Sqlite { 1 } else { plan.nodes };
    let kit = Kit {
        program: plan.program.clone(),
        scratch: scratch.to_path_buf(),
        database_url: place.database_url(),
        environment: Vec::new(),
    };
    let mut fleet = Fleet::plan(kit, nodes)?;
    fleet.launch(0)?;
    fleet.ready(0).await?;
    let first = fleet.addresses().first().copied().context("there is no node")?;
    let keys = operator::set_up(first, provider.address, nodes).await?;
    for n in 1..nodes {
        fleet.launch(n)?;
        fleet.ready(n).await?;
    }
    let pool = operator::pool(first, once::pool(plan.calls_per_second)).await?;
    let (addresses, up) = (fleet.addresses(), fleet.up());
    let target = Target { addresses, up, keys: keys.clone(), pool };
    let load = Load::start(target, plan.calls_per_second, Seed::fork(plan.seed, "calls"));
    let played = faults::play(plan, (&mut fleet, &place), &plan.faults_on(storage)).await;
    let phase = |what: &str| eprintln!("anima-crash: {what} at {} s", begin.elapsed().as_secs());
    phase("the faults are over");
    let saw = load.stop().await?;
    let (events, aimed) = played?;
    phase("the calls are over");
    quiet(&place, plan.patience).await?;
    phase("the holds are closed");
    let killed = fleet.killed.clone();
    let forced = fleet.end().await?;
    if forced > 0 {
        eprintln!("anima-crash: {forced} nodes did not end when asked");
    }
    phase("the nodes have ended");
    let truth = provider.truth(TRUTH_WITHIN).await?;
    let books = Books::read(&place).await?;
    let (kit, folder) = (fleet.kit().clone(), scratch.join("node-0"));
    // Elsewhere, since the proxy that it goes through lives here.
    let breaches = tokio::task::spawn_blocking(move || verify(&kit, &folder)).await??;
    let mut counts = BTreeMap::new();
    for event in &events {
        *counts.entry(event.fault).or_insert(0_usize) += 1;
    }
    Ok(Verdict {
        storage,
        recoveries: recovery::of_kills(&books, &keys, &killed),
        zombies: recovery::of_stops(&books, &keys, &events),
        audit: audit(&books, &truth, &saw.calls)?,
        starts_ms: fleet.starts_ms.clone(),
        events: counts.into_iter().collect(),
        aimed,
        saw,
        breaches,
        seconds: begin.elapsed().as_secs(),
    })
}

/// Waits until no hold is open, or the patience is over: what is open then is unresolved.
async fn quiet(place: &Place, patience: Duration) -> Result<()> {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        // PostgreSQL may just be replaying its log.
        if matches!(books::open_holds(place).await, Ok(0)) {
            return Ok(());
        }
        sleep(Duration::from_millis(500)).await;
    }
    let open = books::open_holds(place).await?;
    eprintln!("anima-crash: {open} holds are open after {} s", patience.as_secs());
    Ok(())
}

/// `anima ledger verify --json`, as a list of breaches.
///
/// # Errors
/// When the verifier does not start, or says nothing that can be read.
pub(crate) fn verify(kit: &Kit, folder: &Path) -> Result<Vec<String>> {
    let mut command = Command::new(&kit.program);
    command.args(["ledger", "verify", "--json", "--data-dir"]).arg(folder);
    fleet::settings(&mut command, kit);
    let output = command.output().context("failed to start the verifier")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&said).with_context(|| {
        format!("the verifier said: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    let findings = report.get("findings").and_then(Value::as_array).into_iter().flatten();
    let mut breaches = Vec::new();
    for finding in findings {
        let name = finding.get("invariant").and_then(Value::as_str).unwrap_or_default();
        let texts = finding.get("breaches").and_then(Value::as_array).into_iter().flatten();
        breaches.extend(texts.filter_map(Value::as_str).map(|text| format!("{name}: {text}")));
    }
    if breaches.is_empty() && !output.status.success() {
        breaches.push(format!("the verifier ended with {}", output.status));
    }
    Ok(breaches)
}
