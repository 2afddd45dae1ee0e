//! `cargo xtask fix`: what a machine can repair, repaired.
//!
//! Not a substitute for `check`: it never fails on what it cannot repair.
//! Invariant: works on a dirty checkout, since that is when one wants it.

use anyhow::Result;

use crate::cargo;

/// # Errors
/// When a step fails, for example because the code does not compile.
pub(crate) fn run() -> Result<()> {
    let repair = ["clippy", "--fix", "--workspace", "--all-targets", "--allow-dirty"];
    cargo::step(&[&repair[..], &["--allow-staged"]].concat())?;
    cargo::step(&["fmt", "--all"])
}
