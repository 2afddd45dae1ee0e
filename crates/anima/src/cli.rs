//! The command line: one file per command.
//!
//! Exit codes: 0 done, 1 failed (a breach found, a dependency gone), 2 wrong usage or setting, and
//! of `apply` and `prices import` 3 when something changed.
//! Invariant: a wrong setting is one line on standard error.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::settings::{Flags, Settings};
use crate::{admin, log};

mod files; // anima apply, anima export
mod ledger; // anima ledger verify
mod migrate; // anima migrate
mod prices; // anima prices import
mod process; // runtime, signals
mod quickstart; // anima quickstart
mod serve; // anima serve
mod simulate; // anima simulate

/// A production AI gateway: routing, quotas and double-entry billing in one binary.
#[derive(Debug, Parser)]
#[command(name = "anima", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything with nothing configured, and prints a call that works.
    Quickstart(quickstart::Args),
    /// Serves with the settings given.
    Serve(Flags),
    /// Brings the configuration to what a YAML or TOML file says. Exit codes: 0 nothing had to
    /// change, 3 changed (or would), 2 refused, 1 failed.
    Apply(files::Apply),
    /// Writes the configuration as a file that `apply` takes, without secrets.
    Export(files::Export),
    /// Brings the database's schema up to date and ends.
    Migrate(Flags),
    /// Serves the simulated provider on its own.
    Simulate(simulate::Args),
    /// Looks at the books.
    #[command(subcommand)]
    Ledger(ledger::Command),
    /// Takes over prices that others publish.
    #[command(subcommand)]
    Prices(prices::Command),
    /// Prints the admin API's OpenAPI document.
    Openapi,
}

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Something failed: exit code 1.
    Failed(String),
    /// Wrong usage or setting: exit code 2.
    Usage(String),
    /// Done, and it was not so before: exit code 3.
    Changed,
}

impl From<crate::settings::Error> for Exit {
    fn from(error: crate::settings::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Runs the command that was given.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Serve(flags) => serve::run(&flags),
        Command::Apply(args) => files::apply(&args),
        Command::Export(args) => files::export(&args),
        Command::Migrate(flags) => migrate::run(&flags),
        Command::Simulate(args) => simulate::run(&args),
        Command::Ledger(command) => ledger::run(&command),
        Command::Prices(command) => prices::run(&command),
        Command::Openapi => say(&admin::openapi()),
    };
    let (message, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Exit::Failed(message)) => (message, 1),
        Err(Exit::Usage(message)) => (message, 2),
        Err(Exit::Changed) => (String::new(), 3),
    };
    if !message.is_empty() {
        // Nothing can be said about a broken standard error.
        drop(writeln!(io::stderr(), "anima: {}", message.replace('\n', " ")));
    }
    ExitCode::from(code)
}

/// Prints a line, or several. `println!` would panic when nobody reads any more.
fn say(text: &impl fmt::Display) -> Result<(), Exit> {
    say_to(&mut io::stdout().lock(), text)
}

/// A reader that has left (`| head -1`) has what it wanted: that is no failure.
fn say_to(out: &mut impl Write, text: &impl fmt::Display) -> Result<(), Exit> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Exit::Failed(format!("standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reads the settings and starts the log.
fn prepare(flags: &Flags) -> Result<(Settings, log::Guard), Exit> {
    let settings = Settings::load(flags)?;
    let guard = log::start(&settings.log).map_err(Exit::Usage)?;
    Ok((settings, guard))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that fails in one way.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is_one() {
        assert!(say_to(&mut Failing(io::ErrorKind::BrokenPipe), &"text").is_ok());
        let full = say_to(&mut Failing(io::ErrorKind::StorageFull), &"text");
        assert!(matches!(full, Err(Exit::Failed(_))), "{full:?}");
        let mut out = Vec::new();
        assert!(say_to(&mut out, &"text").is_ok());
        assert_eq!(out, b"text\n");
    }
}
