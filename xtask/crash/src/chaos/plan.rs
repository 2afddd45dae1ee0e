//! What is run: the command line.
//!
//! Not how. Invariant: `command` with the seed in it does the same again, as far as a machine with
//! its own timing can.

use std::env;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::scenario::{self, Group};
use crate::plan::{command, from_environment, number};

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The command that makes this run again.
    pub(crate) command: String,
    pub(crate) group: Group,
    /// Names of scenarios; empty for all of the group.
    pub(crate) only: Vec<String>,
    pub(crate) calls_per_second: u64,
    pub(crate) nodes: usize,
    /// Kills of a channel and of a key, each; the variants without messages are a fifth of it.
    pub(crate) kills: u64,
    /// Changes whose message is dropped.
    pub(crate) changes: u64,
    /// Calls around the instant at which a price changes.
    pub(crate) price_calls: u64,
    /// Calls of one race for a limit of 100, and how often each race is run.
    pub(crate) race_calls: usize,
    pub(crate) rounds: usize,
    /// Calls that wait in one line.
    pub(crate) waiters: usize,
    /// Calls that nobody waits for.
    pub(crate) tasks: usize,
    pub(crate) seed: u64,
    /// Where the table goes beside the terminal.
    pub(crate) out: Option<PathBuf>,
    /// Whether to print JSON instead of a table.
    pub(crate) json: bool,
    /// Whether the scratch folder stays.
    pub(crate) keep: bool,
    /// The gateway's program.
    pub(crate) program: PathBuf,
    /// The Redis server's program.
    pub(crate) redis: PathBuf,
    /// Where scratch folders are made.
    pub(crate) scratch: PathBuf,
    /// A PostgreSQL that may be filled, restarted and stopped.
    pub(crate) postgres: String,
}

impl Plan {
    /// Reads the options of `cargo xtask chaos`.
    ///
    /// # Errors
    /// For an option that does not exist, or a value that it does not take.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut plan = Self::usual();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "routing" => plan.group = Group::Routing,
                "limits" => (plan.group, plan.kills) = (Group::Limits, 50),
                "embedded" => (plan.group, plan.nodes) = (plan.group.embedded(), 1),
                "--quick" => plan.quicken(),
                "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
                "--calls-per-second" => plan.calls_per_second = number(word, value()?)?,
                "--nodes" => plan.nodes = usize::try_from(number(word, value()?)?)?,
                "--kills" => plan.kills = number(word, value()?)?,
                "--changes" => plan.changes = number(word, value()?)?,
                "--price-calls" => plan.price_calls = number(word, value()?)?,
                "--race-calls" => plan.race_calls = usize::try_from(number(word, value()?)?)?,
                "--rounds" => plan.rounds = usize::try_from(number(word, value()?)?)?,
                "--waiters" => plan.waiters = usize::try_from(number(word, value()?)?)?,
                "--tasks" => plan.tasks = usize::try_from(number(word, value()?)?)?,
                "--seed" => plan.seed = number(word, value()?)?,
                "--out" => plan.out = Some(value()?.into()),
                "--json" => plan.json = true,
                "--keep" => plan.keep = true,
                other => bail!("unknown option {other}"),
            }
        }
        ensure!(plan.calls_per_second > 0, "--calls-per-second must be more than 0");
        ensure!(plan.nodes > 0, "--nodes must be more than 0");
        let is_shared = !plan.group.is_embedded() || plan.nodes == 1;
        ensure!(is_shared, "one process at a time serves the embedded database");
        scenario::chosen(&plan)?;
        plan.command = command("chaos", arguments, plan.seed);
        Ok(plan)
    }

    /// What the table of this run is marked with in a document.
    pub(crate) fn verb(&self) -> &'static str {
        match self.group {
            Group::Configuration => "chaos",
            Group::Routing => "chaos routing",
            Group::Embedded => "chaos embedded",
            Group::Limits => "chaos limits",
            Group::LimitsEmbedded => "chaos limits embedded",
        }
    }

    fn usual() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            command: String::new(),
            group: Group::Configuration,
            only: Vec::new(),
            calls_per_second: 300,
            nodes: 3,
            kills: 100,
            changes: 100,
            price_calls: 2_000,
            race_calls: 10_000,
            rounds: 100,
            waiters: 1_000,
            tasks: 2_000,
            seed: clock.as_secs(),
            out: None,
            json: false,
            keep: false,
            program: from_environment("ANIMA_CRASH_PROGRAM", Path::new("target/release/anima")),
            redis: from_environment("ANIMA_CRASH_REDIS", Path::new("redis-server")),
            scratch: from_environment("ANIMA_CRASH_SCRATCH", &env::temp_dir()),
            postgres: env::var("ANIMA_TEST_POSTGRES_URL").unwrap_or_default(),
        }
    }

    /// Everything, with a tenth of the repetitions.
    fn quicken(&mut self) {
        self.kills = self.kills.div_ceil(10);
        self.changes = self.changes.div_ceil(10);
        self.price_calls = self.price_calls.div_ceil(4);
        (self.race_calls, self.rounds) = (2_000, 3);
        (self.waiters, self.tasks) = (300, 200);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Plan> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Plan::parse(&words)
    }

    #[test]
    fn the_command_repeats_the_run() {
        let plan = parse("--quick --seed 4 --only kills").unwrap();
        assert_eq!(plan.command, "cargo xtask chaos --quick --seed 4 --only kills");
        assert_eq!((plan.kills, plan.changes, plan.price_calls), (10, 10, 500));
        assert_eq!(parse("routing --seed 4").unwrap().verb(), "chaos routing");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(parse("embedded").unwrap().nodes, 1);
        let plan = parse("limits embedded --quick --only races").unwrap();
        assert_eq!((plan.verb(), plan.nodes, plan.kills), ("chaos limits embedded", 1, 5));
        for line in [
            "embedded --nodes 2",
            "embedded --only both-down",
            "--kill 3",
            "--kills many",
            "--only flood",
            "--nodes 0",
            "--out",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
