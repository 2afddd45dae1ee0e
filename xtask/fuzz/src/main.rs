//! Fuzzes every decoder of `anima-wire`: what clients, providers and their streams may send.
//!
//! Started by `cargo xtask fuzz`. Runs on stable Rust: inputs are mutations of the golden
//! conversations, by bytes and by structure, and an input whose outcome is new joins the pool;
//! nothing is instrumented. Not a proof. Invariants: the same seed gives the same inputs in the
//! same order, and an input alone decides all that happens to it, so that a finding is one file.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

mod corpus;
mod finding;
mod hunt;
mod mutate;
mod options;
mod rng;
mod targets;
mod tree;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("anima-fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was found.
fn run() -> Result<bool> {
    let options = options::Options::read(std::env::args().skip(1))?;
    finding::quiet_panics();
    if let Some(file) = &options.input {
        return hunt::replay(&options, file);
    }
    let mut is_clean = true;
    for target in options.targets()? {
        is_clean &= hunt::run(target, &options)?;
    }
    Ok(is_clean)
}
