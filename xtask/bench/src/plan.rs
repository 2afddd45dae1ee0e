//! What is run, and for how long: the command line.
//!
//! Two sizes: the whole run, whose table is kept, and `--quick`, to see whether something moved.
//! Invariant: every phase is bounded in time, so the whole run is too.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::target::Kind;

/// Where the table of the whole run is kept.
const TABLE: &str = "docs/benchmarks.md";

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The command that makes this run again.
    pub(crate) command: String,
    /// What is measured; `Direct` is always first.
    pub(crate) kinds: Vec<Kind>,
    /// Length of one measurement.
    pub(crate) phase: Duration,
    /// How often each measurement is made; the median is reported.
    pub(crate) rounds: usize,
    /// Connections of the closed loops, ascending.
    pub(crate) concurrency: Vec<usize>,
    /// Requests per second of the open loops, ascending.
    pub(crate) rates: Vec<u32>,
    /// Where the table goes; `None` prints it.
    pub(crate) table: Option<PathBuf>,
    /// The gateway's program.
    pub(crate) program: PathBuf,
    /// Where scratch folders are made.
    pub(crate) scratch: PathBuf,
    /// A PostgreSQL that may be filled.
    pub(crate) postgres: Option<String>,
}

impl Plan {
    /// Reads `--quick`, `--out FILE`, `--only a,b`, `--rounds N` and `--seconds N`.
    ///
    /// # Errors
    /// For anything else.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut plan = if arguments.iter().any(|word| word == "--quick") {
            Self::quick()
        } else {
            Self::whole()
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => {}
                "--out" => plan.table = Some(value()?.into()),
                "--rounds" => plan.rounds = value()?.parse().context("--rounds is a number")?,
                "--seconds" => {
                    let seconds = value()?.parse().context("--seconds is a number")?;
                    plan.phase = Duration::from_secs_f64(seconds);
                }
                "--only" => plan.kinds = Kind::parse_list(value()?)?,
                other => bail!("unknown option {other}"),
            }
        }
        for word in arguments {
            plan.command.push(' ');
            plan.command.push_str(word);
        }
        Ok(plan)
    }

    fn whole() -> Self {
        Self {
            command: "cargo xtask bench".to_owned(),
            kinds: Kind::ALL.to_vec(),
            phase: Duration::from_secs(4),
            rounds: 3,
            concurrency: vec![1, 16, 64, 256],
            rates: vec![250, 1000, 2000],
            table: Some(TABLE.into()),
            program: from_environment("ANIMA_BENCH_PROGRAM", Path::new("target/release/anima")),
            scratch: from_environment("ANIMA_BENCH_SCRATCH", &env::temp_dir()),
            postgres: env::var("ANIMA_TEST_POSTGRES_URL").ok(),
        }
    }

    fn quick() -> Self {
        Self {
            phase: Duration::from_secs(1),
            rounds: 1,
            concurrency: vec![16, 256],
            rates: vec![1000],
            table: None,
            ..Self::whole()
        }
    }
}

fn from_environment(name: &str, otherwise: &Path) -> PathBuf {
    env::var_os(name).map_or_else(|| otherwise.to_path_buf(), PathBuf::from)
}
