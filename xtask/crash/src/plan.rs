//! What is run: the command line.
//!
//! Not how. Invariant: `command` with the seed in it makes the same calls and the same faults
//! again, as far as a machine with its own timing can.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

/// Where the books are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// One node with a file.
    Sqlite,
    /// Several nodes with one server.
    Postgres,
}

/// What is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9` of a gateway, and its restart at once.
    Kill,
    /// SIGSTOP of a gateway for longer than its lease, then SIGCONT.
    Stop,
    /// An immediate restart of PostgreSQL, which loses every connection and replays its log.
    PgRestart,
    /// SIGSTOP of every process of PostgreSQL, then SIGCONT.
    PgPause,
    /// The same for so long that settlements go to the disk of their node, which is killed then,
    /// and comes back at once or after others have taken its holds over.
    PgPauseKill,
    /// The connections to PostgreSQL are cut, half of the times after its answers got lost.
    PgCut,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Kill, Self::Stop, Self::PgRestart, Self::PgPause, Self::PgPauseKill, Self::PgCut];

    /// For the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::PgRestart => "pg-restart",
            Self::PgPause => "pg-pause",
            Self::PgPauseKill => "pg-pause-kill",
            Self::PgCut => "pg-cut",
        }
    }

    /// Whether it means something there.
    pub(crate) fn concerns(self, storage: Storage) -> bool {
        match self {
            Self::Kill | Self::Stop => true,
            Self::PgRestart | Self::PgPause | Self::PgPauseKill | Self::PgCut => {
                storage == Storage::Postgres
            }
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The command that makes this run again.
    pub(crate) command: String,
    pub(crate) storages: Vec<Storage>,
    pub(crate) kills: u64,
    pub(crate) calls_per_second: u64,
    pub(crate) seed: u64,
    /// Gateways beside one another on PostgreSQL.
    pub(crate) nodes: usize,
    pub(crate) faults: Vec<Fault>,
    /// How long after the last fault every hold must be closed.
    pub(crate) patience: Duration,
    /// How long a zombie is stopped.
    pub(crate) stopped: Duration,
    /// Where the table goes beside the terminal.
    pub(crate) out: Option<PathBuf>,
    /// Whether to print JSON instead of a table.
    pub(crate) json: bool,
    /// Whether the scratch folders stay.
    pub(crate) keep: bool,
    /// The gateway's program.
    pub(crate) program: PathBuf,
    /// Where scratch folders are made.
    pub(crate) scratch: PathBuf,
    /// A PostgreSQL that may be filled, restarted and stopped.
    pub(crate) postgres: Option<String>,
}

impl Plan {
    /// Reads the options of `cargo xtask crash`.
    ///
    /// # Errors
    /// For an option that does not exist, or a value that it does not take.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut plan = Self::usual();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--storage" => plan.storages = storages(value()?)?,
                "--kills" => plan.kills = number(word, value()?)?,
                "--calls-per-second" => plan.calls_per_second = number(word, value()?)?,
                "--seed" => plan.seed = number(word, value()?)?,
                "--nodes" => plan.nodes = usize::try_from(number(word, value()?)?)?,
                "--faults" => plan.faults = faults(value()?)?,
                "--patience" => plan.patience = Duration::from_secs(number(word, value()?)?),
                "--stopped" => plan.stopped = Duration::from_secs(number(word, value()?)?),
                "--out" => plan.out = Some(value()?.into()),
                "--json" => plan.json = true,
                "--keep" => plan.keep = true,
                other => bail!("unknown option {other}"),
            }
        }
        ensure!(plan.calls_per_second > 0, "--calls-per-second must be more than 0");
        ensure!(plan.nodes > 0, "--nodes must be more than 0");
        plan.command = command("crash", arguments, plan.seed);
        Ok(plan)
    }

    fn usual() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            command: String::new(),
            storages: vec![Storage::Sqlite, Storage::Postgres],
            kills: 200,
            calls_per_second: 80,
            seed: clock.as_secs(),
            nodes: 3,
            faults: Fault::ALL.to_vec(),
            patience: Duration::from_secs(90),
            stopped: Duration::from_secs(30),
            out: None,
            json: false,
            keep: false,
            program: from_environment("ANIMA_CRASH_PROGRAM", Path::new("target/release/anima")),
            scratch: from_environment("ANIMA_CRASH_SCRATCH", &env::temp_dir()),
            postgres: env::var("ANIMA_TEST_POSTGRES_URL").ok(),
        }
    }

    /// The faults that mean something on a storage.
    pub(crate) fn faults_on(&self, storage: Storage) -> Vec<Fault> {
        self.faults.iter().copied().filter(|fault| fault.concerns(storage)).collect()
    }
}

/// The command that makes a run again.
pub(crate) fn command(verb: &str, arguments: &[String], seed: u64) -> String {
    let mut command = format!("cargo xtask {verb}");
    for word in arguments {
        command.push(' ');
        command.push_str(word);
    }
    if !arguments.iter().any(|word| word == "--seed") {
        command.push_str(" --seed ");
        command.push_str(&seed.to_string());
    }
    command
}

/// Reads the value of an option.
///
/// # Errors
/// When it is no whole number.
pub(crate) fn number(word: &str, value: &str) -> Result<u64> {
    value.parse().with_context(|| format!("{word} takes a whole number, not {value}"))
}

fn storages(word: &str) -> Result<Vec<Storage>> {
    match word {
        "sqlite" => Ok(vec![Storage::Sqlite]),
        "postgres" => Ok(vec![Storage::Postgres]),
        "both" => Ok(vec![Storage::Sqlite, Storage::Postgres]),
        other => bail!("--storage is sqlite, postgres or both, not {other}"),
    }
}

fn faults(list: &str) -> Result<Vec<Fault>> {
    let read = |word: &str| {
        let known = Fault::ALL.into_iter().find(|fault| fault.word() == word);
        known.with_context(|| {
            let words: Vec<_> = Fault::ALL.iter().map(|fault| fault.word()).collect();
            format!("there is no fault {word}; known: {}", words.join(", "))
        })
    };
    list.split(',').filter(|word| !word.is_empty()).map(read).collect()
}

/// A path that the verb gives.
pub(crate) fn from_environment(name: &str, otherwise: &Path) -> PathBuf {
    env::var_os(name).map_or_else(|| otherwise.to_path_buf(), PathBuf::from)
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
        let plan = parse("--storage sqlite --kills 9 --seed 4 --faults kill,pg-cut").unwrap();
        assert_eq!(
            plan.command,
            "cargo xtask crash --storage sqlite --kills 9 --seed 4 --faults kill,pg-cut"
        );
        assert_eq!((plan.kills, plan.seed, plan.storages.len()), (9, 4, 1));
        assert_eq!(plan.faults_on(Storage::Sqlite), [Fault::Kill]);
        let plan = parse("--kills 3").unwrap();
        assert_eq!(plan.command, format!("cargo xtask crash --kills 3 --seed {}", plan.seed));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for line in ["--kill 3", "--kills many", "--faults kill,flood", "--storage x", "--nodes 0"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
