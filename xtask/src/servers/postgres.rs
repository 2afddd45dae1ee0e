//! A PostgreSQL of our own: `initdb`, `pg_ctl start`, `pg_ctl stop`.
//!
//! PostgreSQL refuses to run as root, so there it runs as `postgres` (or `nobody`), who then owns
//! its folder. Settings stay at their defaults (durability too) but for address, socket folder
//! and number of connections.
//! Invariant: stopped, at once and without a checkpoint, when dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use super::{free_port, install};

/// A running server.
pub(crate) struct Running {
    place: Place,
    port: u16,
}

/// Where the programs and the files are, and who runs them.
struct Place {
    programs: PathBuf,
    folder: PathBuf,
    /// `None`: we are not root, and run as ourselves.
    owner: Option<&'static str>,
}

impl Running {
    /// Of the superuser, on the maintenance database.
    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.place.run("pg_ctl", &["-m", "immediate", "-w", "stop"]) {
            eprintln!("xtask: failed to stop PostgreSQL: {error:#}");
        }
    }
}

pub(super) fn start(scratch: &Path) -> Result<Running> {
    let programs = install::folder_of(&["pg_ctl", "initdb", "postgres"], "postgresql")?;
    let folder = scratch.join("postgres");
    fs::create_dir(&folder).context("failed to create PostgreSQL's folder")?;
    let owner = if install::is_root() { Some(give_away(&folder)?) } else { None };
    let place = Place { programs, folder, owner };
    let options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"];
    place.run("initdb", &options).context("failed to set up PostgreSQL")?;
    for _ in 0..3 {
        let port = free_port()?;
        if place.start_on(port).is_ok() {
            return Ok(Running { place, port });
        }
    }
    let log = fs::read_to_string(place.folder.join("log")).unwrap_or_default();
    bail!("PostgreSQL does not start:\n{log}")
}

impl Place {
    fn start_on(&self, port: u16) -> Result<()> {
        let sockets = self.folder.display();
        let options =
            format!("-p {port} -k {sockets} -c listen_addresses=127.0.0.1 -c max_connections=200");
        let log = self.folder.join("log").display().to_string();
        self.run("pg_ctl", &["-o", &options, "-l", &log, "-w", "-t", "60", "start"])
    }

    /// Runs one of PostgreSQL's programs on our cluster, silently unless it fails.
    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.as_owner(&self.programs.join(program))?;
        command.arg("-D").arg(self.folder.join("cluster")).args(arguments);
        command.current_dir(&self.folder).stdin(Stdio::null());
        // Not through pipes: the server that pg_ctl leaves behind would keep them open.
        let words = self.folder.join(format!("{program}.out"));
        let file = fs::File::create(&words).context("failed to create a log")?;
        command.stdout(file.try_clone().context("failed to share a log")?).stderr(file);
        let status = command.status().with_context(|| format!("failed to start {program}"))?;
        let said = fs::read_to_string(&words).unwrap_or_default();
        ensure!(status.success(), "{program} ended with {status}: {}", said.trim());
        Ok(())
    }

    fn as_owner(&self, program: &Path) -> Result<Command> {
        let Some(owner) = self.owner else {
            return Ok(Command::new(program));
        };
        let mut command;
        if install::find(&["setpriv"]).is_some() {
            command = Command::new("setpriv");
            command.args(["--reuid", owner, "--regid", group_of(owner)?.as_str()]);
            command.args(["--clear-groups", "--"]).arg(program);
        } else if install::find(&["runuser"]).is_some() {
            command = Command::new("runuser");
            command.args(["-u", owner, "--"]).arg(program);
        } else {
            bail!("PostgreSQL does not run as root, and neither setpriv nor runuser is there");
        }
        command.env("HOME", &self.folder).env("PATH", env::var_os("PATH").unwrap_or_default());
        Ok(command)
    }
}

/// Makes an unprivileged user the owner of `folder`, and names it.
fn give_away(folder: &Path) -> Result<&'static str> {
    let owner = ["postgres", "nobody"].into_iter().find(|user| group_of(user).is_ok());
    let owner = owner.context("there is neither a user `postgres` nor a user `nobody`")?;
    let chown = Command::new("chown").arg(format!("{owner}:")).arg(folder).status();
    let status = chown.context("failed to start chown")?;
    ensure!(status.success(), "chown ended with {status}");
    Ok(owner)
}

/// The id of the user's own group.
fn group_of(user: &str) -> Result<String> {
    let output = Command::new("id").args(["-g", user]).stderr(Stdio::null()).output();
    let output = output.context("failed to start id")?;
    ensure!(output.status.success(), "there is no user `{user}`");
    Ok(String::from_utf8_lossy(output.stdout.trim_ascii()).into_owned())
}
