//! `cargo xtask chaos`: builds the gateway and the harness, and runs the harness with `chaos`.
//!
//! Not the harness: that is in the package `anima-crash`. Here only what it needs is brought up: a
//! PostgreSQL, and the program of a Redis, which the harness starts and stops by itself.
//! Invariant: databases lie on a real disk, so that a commit costs what it costs.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::bench::scratch_parent;
use crate::cargo;
use crate::crash::split_profile;
use crate::keeper::Services;
use crate::servers::{Kind, redis_program};

/// # Errors
/// When something does not build or start, or when a number is missed.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (profile, rest) = split_profile(arguments, "release")?;
    cargo::step(&["build", "--profile", &profile, "--locked", "-p", "anima", "-p", "anima-crash"])?;
    let redis = redis_program()?;
    let scratch = scratch_parent();
    let is_embedded = rest.iter().any(|word| word == "embedded");
    let servers: &[Kind] = if is_embedded { &[] } else { &[Kind::Postgres] };
    let mut services = Services::start(servers, &scratch)?;
    // Cargo calls the folder of its profile `dev` so.
    let folder = cargo::target_folder(if profile == "dev" { "debug" } else { &profile });
    let mut harness = Command::new(folder.join("anima-crash"));
    harness.arg("chaos").args(&rest).current_dir(cargo::root());
    harness.env("ANIMA_CRASH_PROGRAM", folder.join("anima"));
    harness.env("ANIMA_CRASH_REDIS", redis);
    harness.env("ANIMA_CRASH_SCRATCH", &scratch);
    let status = services.run(&mut harness);
    services.stop()?;
    let status = status?;
    ensure!(status.success(), "the chaos harness ended with {status}");
    Ok(())
}
