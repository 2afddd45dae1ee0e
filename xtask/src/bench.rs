//! `cargo xtask bench`: builds the gateway and the load generator for release, and runs them.
//!
//! Not the measurement: that is the package `anima-bench`. Here only what it needs is brought up:
//! a PostgreSQL of its own, with its default durability.
//! Invariant: both databases lie on the same disk, under `/var/tmp` where that exists, since
//! `/tmp` may be memory and would make durable writes look free.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::cargo;
use crate::keeper::Services;
use crate::servers::Kind;

/// # Errors
/// When something does not build or start, or when the benchmark counts a failed request.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments.split_first() {
        Some((part, rest)) if part == "ledger" => ledger(rest),
        Some((part, [])) if part == "admission" => admission(),
        Some((part, [])) if part == "wire" => judged("anima-wire", "wire_bench"),
        Some((part, [])) if part == "plan" => judged("anima", "plan_bench"),
        _ => gateway(arguments),
    }
}

/// The ledger alone: an example of its own crate, so that nothing else has to be built.
fn ledger(arguments: &[String]) -> Result<()> {
    let example = "ledger_bench";
    let build = ["build", "--release", "--locked", "-p", "anima-store", "--example", example];
    cargo::step(&build)?;
    let scratch = scratch_parent();
    let mut services = Services::start(&[Kind::Postgres], &scratch)?;
    let mut bench =
        std::process::Command::new(cargo::target_folder("release").join("examples").join(example));
    bench.arg("--scratch").arg(&scratch).current_dir(cargo::root());
    if let Some(url) = services.address("ANIMA_TEST_POSTGRES_URL") {
        bench.args(["--postgres", url]);
    }
    bench.args(arguments);
    let status = services.run(&mut bench);
    services.stop()?;
    let status = status?;
    ensure!(status.success(), "the benchmark ended with {status}");
    Ok(())
}

/// The counters of limits alone, in process and on a Redis of their own.
fn admission() -> Result<()> {
    let example = "admission_bench";
    let build = ["build", "--release", "--locked", "-p", "anima-store", "--example", example];
    cargo::step(&build)?;
    let mut services = Services::start(&[Kind::Redis], &std::env::temp_dir())?;
    let program = cargo::target_folder("release").join("examples").join(example);
    let mut bench = std::process::Command::new(program);
    if let Some(url) = services.address("ANIMA_TEST_REDIS_URL") {
        bench.args(["--redis", url]);
    }
    let status = services.run(&mut bench);
    services.stop()?;
    let status = status?;
    ensure!(status.success(), "a figure is missed, or the benchmark ended with {status}");
    Ok(())
}

/// The wire alone, or the choice of a channel: no servers, and it judges itself.
fn judged(package: &str, example: &str) -> Result<()> {
    let build = ["build", "--release", "--locked", "-p", package, "--example", example];
    cargo::step(&build)?;
    let program = cargo::target_folder("release").join("examples").join(example);
    let status = std::process::Command::new(program).status()?;
    ensure!(status.success(), "a figure is missed, or the benchmark ended with {status}");
    Ok(())
}

fn gateway(arguments: &[String]) -> Result<()> {
    cargo::step(&["build", "--release", "--locked", "-p", "anima", "-p", "anima-bench"])?;
    let scratch = scratch_parent();
    let mut services = Services::start(&[Kind::Postgres], &scratch)?;
    let release = cargo::target_folder("release");
    let mut bench = std::process::Command::new(release.join("anima-bench"));
    bench.args(arguments).current_dir(cargo::root());
    bench.env("ANIMA_BENCH_PROGRAM", release.join("anima"));
    bench.env("ANIMA_BENCH_SCRATCH", &scratch);
    let status = services.run(&mut bench);
    services.stop()?;
    let status = status?;
    ensure!(status.success(), "the benchmark ended with {status}");
    Ok(())
}

/// Where databases are made: not on a file system in memory, if that can be helped.
pub(crate) fn scratch_parent() -> PathBuf {
    let disk = Path::new("/var/tmp");
    if disk.is_dir() { disk.to_path_buf() } else { std::env::temp_dir() }
}
