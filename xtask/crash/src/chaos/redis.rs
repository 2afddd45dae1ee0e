//! A Redis of the harness's own, which is stopped and started again on the same port.
//!
//! Without persistence: it forgets everything when it stops, which nodes must survive. Not behind
//! the proxy itself (`stores`). Invariant: a process that is started here is ended here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::process::Process;
use crate::provider::free_address;

/// How long it may take to answer after its start.
const START_WITHIN: Duration = Duration::from_secs(10);

/// A server.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    program: PathBuf,
    scratch: PathBuf,
    process: Option<Process>,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn start(program: &Path, scratch: &Path) -> Result<Self> {
        let address = free_address()?;
        let (program, scratch) = (program.to_path_buf(), scratch.to_path_buf());
        let mut redis = Self { address, program, scratch, process: None };
        redis.begin().await?;
        Ok(redis)
    }

    /// Starts it again, where it was. Gives the instant at which it answered.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn begin(&mut self) -> Result<Instant> {
        if self.process.is_none() {
            let mut command = Command::new(&self.program);
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--port", &self.address.port().to_string(), "--dir"]).arg(&self.scratch);
            let log = self.scratch.join("redis.log");
            self.process = Some(Process::start(&mut command, &log)?);
        }
        let until = Instant::now() + START_WITHIN;
        while !answers(self.address).await {
            if Instant::now() > until {
                bail!("redis does not answer on {}", self.address);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(Instant::now())
    }

    /// One command there.
    ///
    /// # Errors
    /// When it does not answer, or says that it did not do so.
    pub(crate) async fn command(&self, line: &str) -> Result<()> {
        let said = ask(self.address, line).await?;
        ensure!(!said.starts_with('-'), "{line} was answered {said}");
        Ok(())
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub(crate) fn freeze(&self, stopped: bool) -> Result<()> {
        let process = self.process.as_ref().context("redis does not run")?;
        process.signal(if stopped { "STOP" } else { "CONT" })
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill())
    }
}

/// What a Redis answers to one command, as it comes over the wire: the beginning of it.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn ask(address: SocketAddr, line: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.context("nobody listens")?;
        stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        let mut reply = vec![0; 8_192];
        let length = stream.read(&mut reply).await?;
        ensure!(length > 0, "the connection was closed");
        Ok(String::from_utf8_lossy(reply.get(..length).unwrap_or_default()).into_owned())
    };
    timeout(Duration::from_secs(5), exchange).await.context("no answer")?
}

/// Whether a Redis answers there.
async fn answers(address: SocketAddr) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.context("nobody listens")?;
        stream.write_all(b"PING\r\n").await?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).await?;
        anyhow::Ok(&reply == b"+PONG\r\n")
    };
    matches!(timeout(Duration::from_secs(1), exchange).await, Ok(Ok(true)))
}
