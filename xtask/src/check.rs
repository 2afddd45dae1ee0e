//! `cargo xtask check`: everything short of the tests, cheapest first.
//!
//! Not the tests: those need servers and are `cargo xtask test`. CI runs both, in that order.
//! Invariant: a step that is skipped says so and why; nothing is skipped in silence.

use anyhow::Result;

use crate::{cargo, openapi, tidy};

/// # Errors
/// At the first step that fails.
pub(crate) fn run() -> Result<()> {
    cargo::step(&["fmt", "--all", "--check"])?;
    tidy::run()?;
    licences()?;
    let lint = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    cargo::step(&lint)?;
    let mut documentation = cargo::command(&["doc", "--workspace", "--no-deps", "--locked"]);
    cargo::finish(documentation.env("RUSTDOCFLAGS", "-D warnings"))?;
    openapi::refuse_stale()?;
    println!("xtask: check passed");
    Ok(())
}

/// Offline: advisories need a fresh database and are checked where the repository is published.
fn licences() -> Result<()> {
    if !cargo::has_tool("deny") {
        println!("xtask: skipped `cargo deny`: not installed (cargo install --locked cargo-deny)");
        return Ok(());
    }
    cargo::step(&["deny", "--offline", "check", "licenses", "bans", "sources"])
}
