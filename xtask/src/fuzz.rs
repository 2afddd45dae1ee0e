//! `cargo xtask fuzz`: builds the fuzzer of `anima-wire`'s decoders, and runs it.
//!
//! Not the fuzzer: that is the package `anima-fuzz`, whose test is a short run of it. Built without
//! optimisation unless `--profile` says otherwise, so that overflows are panics.
//! Invariant: findings are written below `target/fuzz` and nowhere else.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::cargo;
use crate::crash::split_profile;

/// # Errors
/// When it does not build, an argument is wrong, or something was found.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (profile, rest) = split_profile(arguments, "dev")?;
    cargo::step(&["build", "--profile", &profile, "--locked", "-p", "anima-fuzz"])?;
    let folder = cargo::target_folder(if profile == "dev" { "debug" } else { &profile });
    let mut fuzzer = Command::new(folder.join("anima-fuzz"));
    fuzzer.arg("--findings").arg(cargo::target_folder("fuzz"));
    let status = fuzzer.args(rest).current_dir(cargo::root()).status()?;
    ensure!(status.success(), "the fuzzer ended with {status}");
    Ok(())
}
