//! `cargo xtask openapi`: writes `docs/openapi.json` from the program's own description.
//!
//! Not a second source: the document is what `anima openapi` prints, byte for byte.
//! Invariant: `refuse_stale` compares with the file on disk, so it works on a dirty checkout too,
//! and it leaves the new text behind for a commit.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// # Errors
/// When the program does not build, or cannot describe itself.
pub(crate) fn run() -> Result<()> {
    let document = document()?;
    fs::write(path(), document).context("failed to write docs/openapi.json")
}

/// Writes the document anew and fails if that changed it.
///
/// # Errors
/// As [`run`], and when the file was out of date.
pub(crate) fn refuse_stale() -> Result<()> {
    let before = fs::read(path()).unwrap_or_default();
    run()?;
    let after = fs::read(path()).context("failed to read docs/openapi.json")?;
    if before != after {
        bail!("docs/openapi.json was out of date; it is written anew now, commit it");
    }
    Ok(())
}

fn path() -> PathBuf {
    cargo::root().join("docs/openapi.json")
}

fn document() -> Result<Vec<u8>> {
    let mut program =
        cargo::command(&["run", "--quiet", "--locked", "-p", "anima", "--", "openapi"]);
    println!("xtask: cargo run -p anima -- openapi");
    let output = program.stderr(Stdio::inherit()).output().context("failed to start cargo")?;
    ensure!(output.status.success(), "`anima openapi` ended with {}", output.status);
    ensure!(output.stdout.starts_with(b"{"), "`anima openapi` did not print a JSON object");
    Ok(output.stdout)
}
