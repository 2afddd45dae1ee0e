//! `cargo xtask sim`: the ledger's protocol under a seeded simulation.
//!
//! Not the simulation: that is a test of `anima-store`, because it drives the store's own judge and
//! writer. Here its seeds are chosen: `--seeds N` from the first one on, `--seed S` for one alone,
//! both for N from S on. Invariant: the command that a failed seed prints runs exactly that seed.

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

const TEST: &str = "ledger::tests::sim::seeds";

/// # Errors
/// When an argument is wrong, or a seed fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut test = cargo::command(&["test", "--locked", "-p", "anima-store", "--lib", TEST, "--"]);
    test.args(["--exact", "--ignored", "--nocapture"]);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let variable = match word.as_str() {
            "--seeds" => "ANIMA_SIM_SEEDS",
            "--seed" => "ANIMA_SIM_SEED",
            other => bail!("expected --seeds N or --seed S, not `{other}`"),
        };
        let number = words.next().with_context(|| format!("{word} needs a number"))?;
        ensure!(number.parse::<u64>().is_ok(), "{word} needs a number, not `{number}`");
        test.env(variable, number);
    }
    cargo::finish(&mut test)
}
