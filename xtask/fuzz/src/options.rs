//! What is asked for on the command line.
//!
//! Invariant: what cannot be understood is refused by name, with what is possible.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::targets::{self, Target};

/// A run.
#[derive(Debug)]
pub(crate) struct Options {
    /// How long each target is fuzzed.
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    /// Where findings are written.
    pub(crate) findings: PathBuf,
    /// A finding to be replayed.
    pub(crate) input: Option<PathBuf>,
    target: Option<String>,
}

impl Options {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            time: Duration::from_secs(10),
            seed: 1,
            findings: std::env::temp_dir(),
            input: None,
            target: None,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            let number = || {
                value.parse::<u64>().with_context(|| format!("{word} needs a number, not {value}"))
            };
            match word.as_str() {
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--seed" => options.seed = number()?,
                "--target" => options.target = Some(value),
                "--input" => options.input = Some(value.into()),
                "--findings" => options.findings = value.into(),
                _ => bail!(
                    "expected --seconds N, --seed S, --target T or --input FILE, not `{word}`"
                ),
            }
        }
        ensure!(
            options.input.is_none() || options.target.is_some(),
            "--input needs the --target that it was found by"
        );
        Ok(options)
    }

    /// The one that was named, or all.
    pub(crate) fn targets(&self) -> Result<Vec<&'static Target>> {
        let is_chosen =
            |target: &&Target| self.target.as_ref().is_none_or(|name| target.name == name);
        let chosen: Vec<_> = targets::ALL.iter().filter(is_chosen).collect();
        let names: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
        ensure!(!chosen.is_empty(), "there is no such target; there are: {}", names.join(", "));
        Ok(chosen)
    }
}
