//! The simulated provider as a process that outlives every kill.
//!
//! `anima simulate` of the same program, with its truth log in a file. What it does to which call
//! is in the models' names (`scenario`), so it needs no script.
//! Invariant: the truth is read only when every call in it has ended.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anima_simulator::truth::read_file;
use anima_simulator::{Call, Outcome};
use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::process::Process;

/// Longer than a busy machine takes to start a small program.
const START_TRIES: u32 = 500;

/// A running provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    log: PathBuf,
    process: Process,
}

impl Provider {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn start(program: &Path, scratch: &Path) -> Result<Self> {
        let address = free_address()?;
        let log = scratch.join("truth.jsonl");
        let mut command = Command::new(program);
        command.env_clear().args(["simulate", "--listen", &address.to_string(), "--log-file"]);
        command.arg(&log);
        let mut process = Process::start(&mut command, &scratch.join("provider.log"))?;
        until_it_listens(address, &mut process).await.context("the simulated provider")?;
        Ok(Self { address, log, process })
    }

    /// Every call it received, once all have ended or `within` is over.
    ///
    /// # Errors
    /// When it died, or its log cannot be read.
    pub(crate) async fn truth(&mut self, within: Duration) -> Result<Vec<Call>> {
        let pause = Duration::from_millis(200);
        let mut waited = Duration::ZERO;
        loop {
            if !self.process.runs() {
                bail!("the simulated provider has ended; its log is {}", self.log.display());
            }
            let calls = read_file(&self.log).context("failed to read the truth log")?;
            let open = calls.iter().any(|call| call.outcome == Outcome::Open);
            if !open || waited >= within {
                return Ok(calls);
            }
            sleep(pause).await;
            waited += pause;
        }
    }
}

/// A loopback address whose port is free now.
///
/// # Errors
/// When there is none.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free port")?;
    listener.local_addr().context("failed to read the port")
}

/// Waits until somebody accepts connections there.
///
/// # Errors
/// When the process ends first, or takes far too long.
pub(crate) async fn until_it_listens(address: SocketAddr, process: &mut Process) -> Result<()> {
    for _ in 0..START_TRIES {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        if !process.runs() {
            bail!("the process ended before it listened on {address}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    bail!("the process does not listen on {address}")
}
