//! Child processes that end when we do.
//!
//! Each is stopped by its own id: asked first (SIGTERM, so that a master takes its workers along),
//! made to after five seconds.
//! Invariant: dropping a `Process` leaves nothing running and nothing to reap.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, bail};

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    words: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `command`; what it says on standard error goes to the file `log`.
    ///
    /// # Errors
    /// When it cannot start.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let log = fs::File::create(log).context("failed to create a log")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("failed to start {shown}"))?;
        let words = child.stdout.take().map(BufReader::new);
        Ok(Self { child, words })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line that it prints; the rest is read and dropped, so that it never blocks.
    ///
    /// # Errors
    /// When it ends first, or was asked before.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let Some(mut words) = self.words.take() else {
            bail!("the first line was read before");
        };
        let mut line = String::new();
        words.read_line(&mut line).context("failed to read the first line")?;
        if line.is_empty() {
            bail!("ended without a word");
        }
        thread::spawn(move || io::copy(&mut words, &mut io::sink()));
        Ok(line)
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn stop(&mut self) -> io::Result<()> {
        let ask = format!("kill -s TERM {}", self.child.id());
        Command::new("sh").arg("-c").arg(ask).status()?;
        for _ in 0..100 {
            if !self.runs() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs()
            && let Err(error) = self.stop()
        {
            eprintln!("anima-bench: failed to stop process {}: {error}", self.child.id());
        }
    }
}
