//! Kills real gateways under load, and compares their books with the provider's truth.
//!
//! Started by `cargo xtask crash`, which builds the gateway and brings up a PostgreSQL. The load
//! comes from this process; gateways, the simulated provider and PostgreSQL are processes of their
//! own. Not a benchmark, and not for the network: loopback only.
//! Invariant: it ends with 0 only when lost, double, phantom, wrong and unresolved are 0, every
//! kill was recovered from within a minute, and the ledger's own verifier finds nothing. Source:
//! `reliability` 6.2, P1, P2, D1, D2, D6 and S1.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod audit;
mod books;
mod chaos;
mod faults;
mod fleet;
mod http_client;
mod load;
mod money;
mod once;
mod operator;
mod page;
mod place;
mod plan;
mod process;
mod provider;
mod recovery;
mod report;
mod run;
mod scenario;
mod seed;
mod server;
mod wal;

use std::process::ExitCode;

use anyhow::{Context, Result};

use plan::Plan;
use report::Verdict;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("anima-crash: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything holds. `chaos` before the options is the other harness of this package.
fn run(arguments: &[String]) -> Result<bool> {
    if let Some((verb, rest)) = arguments.split_first()
        && verb == "chaos"
    {
        return chaos::run(rest);
    }
    let plan = Plan::parse(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut verdicts = Vec::new();
    for storage in &plan.storages {
        eprintln!("anima-crash: {storage}, seed {}", plan.seed);
        let scratch = tempfile::Builder::new().prefix("anima-crash-").tempdir_in(&plan.scratch);
        let mut scratch = scratch.context("failed to make a scratch folder")?;
        if plan.keep {
            scratch.disable_cleanup(true);
            eprintln!("anima-crash: everything stays in {}", scratch.path().display());
        }
        verdicts.push(runtime.block_on(Box::pin(run::run(&plan, *storage, scratch.path())))?);
    }
    let table = report::table(&plan, &verdicts)?;
    if plan.json {
        println!("{:#}", report::json(&plan, &verdicts));
    } else {
        println!("\n{table}");
    }
    if let Some(path) = &plan.out {
        page::write(path, "crash", &table)?;
        eprintln!("anima-crash: written: {}", path.display());
    }
    Ok(verdicts.iter().all(Verdict::holds))
}
