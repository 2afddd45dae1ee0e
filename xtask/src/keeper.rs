//! Keeps servers alive exactly as long as the verb that asked for them.
//!
//! A second process (`xtask keeper`, in a process group of its own) starts the servers and waits
//! for its standard input to close. The kernel closes it when the verb ends, in whatever way:
//! well, by a panic, by Ctrl-C, by SIGTERM or by SIGKILL. So no signal handler is needed.
//! Not a supervisor: nothing is restarted.
//! Invariant: when the keeper ends, its servers, the verb's child and the scratch folder are gone.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs, process};

use anyhow::{Context, Result, bail};

use crate::servers::{self, Kind, Server};

/// Running servers, as the verb sees them.
pub(crate) struct Services {
    keeper: Child,
    lifeline: ChildStdin,
    environment: Vec<(String, String)>,
}

impl Services {
    /// Returns when every server answers. `parent` is where the scratch folder is made.
    ///
    /// # Errors
    /// When a server is missing or does not start; what went wrong is on standard error.
    pub(crate) fn start(kinds: &[Kind], parent: &Path) -> Result<Self> {
        let program = env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(program);
        command.arg("keeper").arg(parent).args(kinds.iter().map(|kind| kind.name()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut keeper = command.spawn().context("failed to start the keeper")?;
        let (Some(lifeline), Some(words)) = (keeper.stdin.take(), keeper.stdout.take()) else {
            bail!("the keeper has no pipes");
        };
        let mut environment = Vec::new();
        for line in BufReader::new(words).lines() {
            let line = line.context("failed to read from the keeper")?;
            match line.split_once('=') {
                Some((name, value)) => environment.push((name.to_owned(), value.to_owned())),
                None if line == "ready" => {
                    return Ok(Self { keeper, lifeline, environment });
                }
                None => println!("xtask: {line}"),
            }
        }
        keeper.wait().context("failed to wait for the keeper")?;
        bail!("the servers did not start")
    }

    /// The address of a server, by the variable in which tests look for it.
    pub(crate) fn address(&self, variable: &str) -> Option<&str> {
        let named = self.environment.iter().find(|(name, _)| name == variable);
        named.map(|(_, value)| value.as_str())
    }

    /// Runs `command` with the servers' addresses in its environment, to its end.
    ///
    /// # Errors
    /// When it cannot start. How it ended is the caller's to judge.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<ExitStatus> {
        command.envs(self.environment.iter().cloned()).process_group(0);
        let mut child = command.spawn().context("failed to start the command")?;
        writeln!(self.lifeline, "group {}", child.id()).context("failed to tell the keeper")?;
        let status = child.wait().context("failed to wait for the command")?;
        writeln!(self.lifeline, "ended").context("failed to tell the keeper")?;
        Ok(status)
    }

    /// Takes everything down and waits until it is.
    ///
    /// # Errors
    /// When the keeper cannot be waited for.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.lifeline);
        self.keeper.wait().context("failed to wait for the keeper")?;
        Ok(())
    }
}

/// The hidden verb: `keeper PARENT KIND…`.
///
/// # Errors
/// When a server does not start; those that did are stopped first.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let Some((parent, names)) = arguments.split_first() else {
        bail!("the keeper is started by other verbs");
    };
    let scratch = Scratch::make(Path::new(parent))?;
    let mut running: Vec<Server> = Vec::new();
    let mut environment = Vec::new();
    for name in names {
        let server = servers::start(Kind::parse(name)?, &scratch.folder)?;
        environment.push(format!("{}={}", server.variable(), server.url()));
        running.push(server);
    }
    environment.push("ready".to_owned());
    let mut out = stdout();
    writeln!(out, "{}", environment.join("\n")).context("nobody listens")?;
    let group = read_until_closed();
    if let Some(group) = group {
        end_group(&group);
    }
    drop(running);
    Ok(())
}

/// Gives the process group that was still running when the lifeline closed.
fn read_until_closed() -> Option<String> {
    let mut group = None;
    for line in stdin().lines().map_while(Result::ok) {
        group = line.strip_prefix("group ").map(str::to_owned);
    }
    group
}

fn end_group(group: &str) {
    for signal in ["TERM", "KILL"] {
        if !signal_group(signal, group) {
            return;
        }
        for _ in 0..30 {
            sleep(Duration::from_millis(100));
            if !signal_group("0", group) {
                return;
            }
        }
    }
}

/// Whether the group still had a member. The shell's own `kill`: a small image may have no other.
fn signal_group(signal: &str, group: &str) -> bool {
    let mut kill = Command::new("sh");
    kill.arg("-c").arg(format!("kill -s {signal} -- -{group} 2>/dev/null"));
    kill.status().is_ok_and(|status| status.success())
}

/// A folder that is removed with its content when this is dropped.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn make(parent: &Path) -> Result<Self> {
        let folder = parent.join(format!("anima-xtask-{}", process::id()));
        fs::create_dir(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        Ok(Self { folder })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("xtask: failed to remove {}: {error}", self.folder.display());
        }
    }
}
