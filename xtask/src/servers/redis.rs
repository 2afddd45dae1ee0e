//! A Redis of our own, which forgets everything when it stops.
//!
//! Persistence is off: tests that need Redis to lose its memory stop it, and nothing of ours
//! is kept there for good.
//! Invariant: stopped when dropped, and reaped.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{free_port, install};

/// A running server.
pub(crate) struct Running {
    child: Child,
    port: u16,
}

impl Running {
    /// Of its first database.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Whether it answers within ten seconds; `false` as soon as it has ended.
    fn comes_up(&mut self) -> bool {
        for _ in 0..200 {
            if answers(self.port) {
                return true;
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("xtask: failed to stop Redis: {error}");
        }
    }
}

/// Where it is, after installing it if need be.
pub(super) fn program() -> Result<PathBuf> {
    Ok(install::folder_of(&["redis-server"], "redis-server")?.join("redis-server"))
}

pub(super) fn start(scratch: &Path) -> Result<Running> {
    let program = program()?;
    for _ in 0..3 {
        let port = free_port()?;
        let log = File::create(scratch.join("redis.log")).context("failed to create a log")?;
        let mut command = Command::new(&program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(scratch);
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::inherit());
        let child = command.spawn().context("failed to start redis-server")?;
        let mut running = Running { child, port };
        if running.comes_up() {
            return Ok(running);
        }
    }
    let log = std::fs::read_to_string(scratch.join("redis.log")).unwrap_or_default();
    bail!("Redis does not start:\n{log}")
}

fn answers(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let limit = Duration::from_secs(1);
    let exchange = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"+PONG\r\n")
    };
    exchange().unwrap_or(false)
}
