//! Measures the gateway beside nginx, beside no proxy at all, and beside itself without billing.
//!
//! Started by `cargo xtask bench`, which builds the gateway and brings up a PostgreSQL. Load
//! comes from this process, the upstream (the simulated provider) is a second one, each proxy is
//! its own: CPU is read per process, so what is reported of the gateway is the gateway's alone.
//! Not a test: it fails only when a request fails. Not for the network: loopback only.
//! Invariant: all figures of a table come from one run on one machine, and say which.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod connection;
mod disk;
mod gateway;
mod load;
mod machine;
mod nginx;
mod plan;
mod process;
mod report;
mod scenario;
mod target;
mod upstream;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("anima-bench: {failed} requests failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("anima-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives the number of requests that failed.
fn run(arguments: &[String]) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.first().is_some_and(|word| word == "upstream") {
        runtime.block_on(upstream::serve())?;
        return Ok(0);
    }
    let plan = plan::Plan::parse(arguments)?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(scenario::run_all(&plan)))
}
