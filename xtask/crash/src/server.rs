//! The PostgreSQL server as processes: restarted at once, or paused.
//!
//! The verb started it and will stop it; here it is found through itself, by its folder and its
//! `postmaster.pid`. It may run as another user, who then also restarts it.
//! Invariant: a paused server is let go again, whatever happens to the pause.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::process::{family, signal};

/// A running server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    folder: PathBuf,
    programs: PathBuf,
    /// User and group of the folder.
    owner: (u32, u32),
}

/// Processes that are stopped as long as this lives.
struct Paused(Vec<u32>);

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = signal("CONT", &self.0) {
            eprintln!("anima-crash: failed to let PostgreSQL go on: {error:#}");
        }
    }
}

impl Server {
    /// Finds the one behind a connection.
    ///
    /// # Errors
    /// When it does not run on this machine.
    pub(crate) async fn find(client: &Client) -> Result<Self> {
        let row = client.query_one("SHOW data_directory", &[]).await?;
        let folder = PathBuf::from(row.try_get::<_, String>(0)?);
        let meta = fs::metadata(&folder).context("PostgreSQL's folder is not on this machine")?;
        let program = fs::read_link(format!("/proc/{}/exe", postmaster(&folder)?))
            .context("failed to find PostgreSQL's program")?;
        let programs = program.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { folder, programs, owner: (meta.uid(), meta.gid()) })
    }

    /// `pg_ctl -m immediate restart`: what a crash of the server is to its clients and its log.
    /// Blocks until it answers again.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn restart(&self) -> Result<()> {
        let mut command = self.as_owner(&self.programs.join("pg_ctl"))?;
        let log = self.folder.with_file_name("log");
        command.arg("-D").arg(&self.folder).arg("-l").arg(log);
        command.args(["-m", "immediate", "-w", "-t", "60", "restart"]);
        command.current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().context("failed to start pg_ctl")?;
        ensure!(status.success(), "pg_ctl restart ended with {status}");
        Ok(())
    }

    /// Stops every process of it for a while.
    ///
    /// # Errors
    /// When they cannot be signalled.
    pub(crate) async fn pause(&self, length: Duration) -> Result<()> {
        let paused = Paused(family(postmaster(&self.folder)?));
        signal("STOP", &paused.0)?;
        sleep(length).await;
        Ok(())
    }

    /// Root becomes the owner; anybody else is the owner.
    fn as_owner(&self, program: &Path) -> Result<Command> {
        let us = fs::metadata("/proc/self").context("failed to learn who we are")?.uid();
        let (user, group) = self.owner;
        if us == user {
            return Ok(Command::new(program));
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user.to_string(), "--regid", &group.to_string()]);
        command.args(["--clear-groups", "--"]).arg(program);
        Ok(command)
    }
}

/// The first line of `postmaster.pid`.
fn postmaster(folder: &Path) -> Result<u32> {
    let text = fs::read_to_string(folder.join("postmaster.pid"));
    let text = text.context("PostgreSQL does not run")?;
    text.lines().next().unwrap_or_default().trim().parse().context("postmaster.pid has no id")
}
