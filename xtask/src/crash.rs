//! `cargo xtask crash`: builds the gateway and the crash harness, and runs them.
//!
//! Not the harness: that is the package `anima-crash`. Here only what it needs is brought up: the
//! program, and a PostgreSQL of its own when the books are to be in one.
//! Invariant: databases lie on a real disk, as for `bench`, so that a commit costs what it costs.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::bench::scratch_parent;
use crate::cargo;
use crate::keeper::Services;
use crate::servers::Kind;

/// # Errors
/// When something does not build or start, or when the harness finds something wrong.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (profile, rest) = split_profile(arguments, "release")?;
    cargo::step(&["build", "--profile", &profile, "--locked", "-p", "anima", "-p", "anima-crash"])?;
    let kinds: &[Kind] = if needs_postgres(&rest) { &[Kind::Postgres] } else { &[] };
    let scratch = scratch_parent();
    let mut services = Services::start(kinds, &scratch)?;
    // Cargo calls the folder of its profile `dev` so.
    let folder = cargo::target_folder(if profile == "dev" { "debug" } else { &profile });
    let mut harness = Command::new(folder.join("anima-crash"));
    harness.args(&rest).current_dir(cargo::root());
    harness.env("ANIMA_CRASH_PROGRAM", folder.join("anima"));
    harness.env("ANIMA_CRASH_SCRATCH", &scratch);
    let status = services.run(&mut harness);
    services.stop()?;
    let status = status?;
    ensure!(status.success(), "the crash harness ended with {status}");
    Ok(())
}

/// Takes `--profile NAME` out; the rest is the program's.
///
/// # Errors
/// When it names none.
pub(crate) fn split_profile(
    arguments: &[String],
    unless_said: &str,
) -> Result<(String, Vec<String>)> {
    let mut rest = arguments.to_vec();
    let Some(at) = rest.iter().position(|word| word == "--profile") else {
        return Ok((unless_said.to_owned(), rest));
    };
    ensure!(at + 1 < rest.len(), "--profile needs a value");
    let profile: Vec<String> = rest.drain(at..at + 2).collect();
    Ok((profile.last().cloned().unwrap_or_default(), rest))
}

fn needs_postgres(arguments: &[String]) -> bool {
    let words = arguments.iter().zip(arguments.iter().skip(1));
    !words.into_iter().any(|(option, value)| option == "--storage" && value == "sqlite")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_profile_is_taken_out_and_release_unless_said() {
        let (profile, rest) =
            split_profile(&words("--kills 3 --profile dev --json"), "release").unwrap();
        assert_eq!((profile.as_str(), rest), ("dev", words("--kills 3 --json")));
        assert_eq!(split_profile(&words("--json"), "release").unwrap().0, "release");
        assert!(split_profile(&words("--profile"), "release").is_err());
    }

    #[test]
    fn postgres_is_brought_up_unless_only_sqlite_is_run() {
        assert!(needs_postgres(&words("--kills 3")));
        assert!(needs_postgres(&words("--storage both")));
        assert!(!needs_postgres(&words("--kills 3 --storage sqlite")));
    }
}
