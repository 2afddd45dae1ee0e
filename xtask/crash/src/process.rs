//! Child processes and the signals that are sent to them.
//!
//! Signals go through the shell's own `kill`, since this workspace has no unsafe code. Every
//! process is signalled by its own id. Not a supervisor: who restarts what is said elsewhere.
//! Invariant: dropping a `Process` leaves nothing running, not even stopped, and nothing to reap.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`; both of its outputs are appended to the file `log`.
    ///
    /// # Errors
    /// When it cannot start.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let log = OpenOptions::new().create(true).append(true).open(log);
        let log = log.context("failed to create a log")?;
        let both = log.try_clone().context("failed to share a log")?;
        command.stdin(Stdio::null()).stdout(both).stderr(log);
        let child = command.spawn().with_context(|| format!("failed to start {shown}"))?;
        Ok(Self { child })
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("failed to kill a child")?;
        self.child.wait().map(drop).context("failed to wait for a child")
    }

    /// Sends a signal by its name, without `SIG`.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        signal(name, &[self.child.id()])
    }

    /// Asks it to end, and makes it after `within`. Says whether it ended by itself.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub(crate) async fn stop(&mut self, within: Duration) -> Result<bool> {
        self.signal("TERM")?;
        let pause = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        while waited < within {
            if !self.runs() {
                return Ok(true);
            }
            sleep(pause).await;
            waited += pause;
        }
        self.kill()?;
        Ok(false)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too.
        if self.runs()
            && let Err(error) = self.kill()
        {
            eprintln!("anima-crash: failed to end process {}: {error:#}", self.child.id());
        }
    }
}

/// Sends one signal to several processes.
///
/// # Errors
/// When none of them got it.
pub(crate) fn signal(name: &str, processes: &[u32]) -> Result<()> {
    let ids: Vec<String> = processes.iter().map(u32::to_string).collect();
    let line = format!("kill -s {name} {} 2>/dev/null", ids.join(" "));
    let status = Command::new("sh").arg("-c").arg(line).status().context("failed to start sh")?;
    ensure!(status.success(), "failed to send SIG{name} to {}", ids.join(", "));
    Ok(())
}

/// A process and all below it, from `/proc`.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, parent(id)?)))
        .collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(of) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(id, _)| *id));
        at += 1;
    }
    family
}

/// The fourth field of `/proc/ID/stat`; the second is a name in brackets that may hold blanks.
fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// Now, in microseconds since 1970: the unit of the books.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_a_process_and_its_children() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let us = std::process::id();
        let family = family(us);
        assert!(family.contains(&us) && family.contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
