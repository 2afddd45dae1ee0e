//! `cargo xtask clients`: the official SDKs against every provider's dialect.
//!
//! Not the matrix: that is `tests/clients/matrix.py`. Here only what it needs is brought up: the
//! program, a Python environment and Node packages of fixed versions, below `target/clients`. It
//! needs the network the first time, so it is not part of `cargo xtask test`.
//! Invariant: what a machine lacks is said before anything is built, and nothing outside
//! `target` is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::keeper::Services;
use crate::servers::Kind;

/// # Errors
/// When a tool is missing, something does not install or build, or a cell of the matrix failed.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let tests = cargo::root().join("tests/clients");
    refuse_without(&TOOLS)?;
    let scratch = cargo::target_folder("clients");
    fs::create_dir_all(&scratch)
        .with_context(|| format!("failed to create {}", scratch.display()))?;
    let python = python_environment(&tests, &scratch)?;
    let packages = node_packages(&tests, &scratch)?;
    cargo::step(&["build", "--locked", "-p", "anima"])?;
    let mut matrix = Command::new(python);
    matrix.arg(tests.join("matrix.py")).args(arguments);
    matrix.arg("--program").arg(cargo::target_folder("debug").join("anima"));
    matrix.arg("--packages").arg(packages).current_dir(cargo::root());
    matrix.env("PYTHONDONTWRITEBYTECODE", "1");
    // Also without servers: the matrix's processes end when this one does.
    let mut services = Services::start(kinds(arguments), &std::env::temp_dir())?;
    let status = services.run(&mut matrix);
    services.stop()?;
    let status = status?;
    ensure!(status.success(), "the matrix of clients ended with {status}");
    Ok(())
}

/// The servers that the storage needs; a storage that there is not is refused by the matrix.
fn kinds(arguments: &[String]) -> &'static [Kind] {
    let is_asked = arguments.iter().any(|a| a == "postgres" || a == "--storage=postgres");
    if is_asked { &[Kind::Postgres, Kind::Redis] } else { &[] }
}

/// A program that the machine must have, and what it is for.
type Tool = (&'static str, &'static [&'static str], &'static str);

const TOOLS: [Tool; 3] = [
    ("python3", &["-c", "import sys, venv; sys.exit(sys.version_info < (3, 10))"], PYTHON),
    ("node", &["-e", "process.exit(Number(process.versions.node.split('.')[0] < 20))"], NODE),
    ("npm", &["--version"], NODE),
];
const PYTHON: &str = "Python 3.10 or later with its `venv` module";
const NODE: &str = "Node.js 20 or later with npm";

fn refuse_without(tools: &[Tool]) -> Result<()> {
    let lacks = |(program, probe, _): &&Tool| {
        let mut command = Command::new(program);
        command.args(*probe).stdout(Stdio::null()).stderr(Stdio::null());
        !command.status().is_ok_and(|status| status.success())
    };
    let missing: Vec<String> = tools
        .iter()
        .filter(lacks)
        .map(|(program, _, needed)| format!("`{program}` (needs {needed})"))
        .collect();
    ensure!(missing.is_empty(), "missing or too old: {}", missing.join(", "));
    Ok(())
}

/// A virtual environment with the SDKs; gives its interpreter.
fn python_environment(tests: &Path, scratch: &Path) -> Result<PathBuf> {
    let requirements = tests.join("requirements.txt");
    let environment = scratch.join("python");
    let python = environment.join("bin").join("python");
    let stamp = environment.join("requirements.txt");
    if !is_same(&requirements, &stamp)? {
        step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        let mut install = Command::new(&python);
        step(install.args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements))?;
        copy(&requirements, &stamp)?;
    }
    Ok(python)
}

/// The Node packages; gives the folder in which they are found.
fn node_packages(tests: &Path, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.join("node");
    let stamp = folder.join("installed.json");
    let lock = "package-lock.json";
    if !is_same(&tests.join("node").join(lock), &stamp)? {
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        for name in ["package.json", lock] {
            copy(&tests.join("node").join(name), &folder.join(name))?;
        }
        let mut install = Command::new("npm");
        install.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        step(install.current_dir(&folder))?;
        copy(&folder.join(lock), &stamp)?;
    }
    // A module finds packages beside itself, and nowhere else.
    for entry in fs::read_dir(tests.join("node")).context("failed to list tests/clients/node")? {
        let script = entry.context("failed to list tests/clients/node")?;
        if script.path().extension().is_some_and(|ending| ending == "mjs") {
            copy(&script.path(), &folder.join(script.file_name()))?;
        }
    }
    Ok(folder)
}

/// Whether what was asked for is what is there.
fn is_same(asked: &Path, stamp: &Path) -> Result<bool> {
    let asked = fs::read(asked).with_context(|| format!("failed to read {}", asked.display()))?;
    Ok(fs::read(stamp).is_ok_and(|there| there == asked))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("failed to write {}", to.display()))?;
    Ok(())
}

fn step(command: &mut Command) -> Result<()> {
    println!("xtask: {}", shown(command));
    let status = command.status().with_context(|| format!("failed to start {}", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_with_what_is_needed() {
        let tools: [Tool; 3] = [
            ("no-such-program", &[], PYTHON),
            ("cargo", &["--version"], "Cargo"),
            ("cargo", &["--no-such-option"], NODE),
        ];
        let error = refuse_without(&tools).unwrap_err().to_string();
        assert!(error.contains(PYTHON) && error.contains(NODE), "{error}");
        assert!(!error.contains("(needs Cargo)"), "{error}");
    }
}
