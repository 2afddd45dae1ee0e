//! The gateways: `anima serve` as processes that are killed, stopped and started again.
//!
//! Each has a fixed place (address, folder, log) and many lives. Whoever sends calls sees which are
//! up, as a load balancer with health checks would.
//! Invariant: every life that ended by a kill is on record with its begin and its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use tokio::time::{Instant, sleep};

use crate::http_client::{Ask, whole};
use crate::operator::ADMIN_TOKEN;
use crate::process::{Process, now_us};
use crate::provider::{free_address, until_it_listens};

/// 32 bytes that all nodes of a run share; sealed with it are credentials of a simulated provider.
const MASTER_KEY: &str = "6372617368206861726e6573732c206e6f742061207365637265742061742121";

/// How long a node may take to end by itself when the run is over.
const END_WITHIN: Duration = Duration::from_secs(20);

/// How often a node that gives up is started again: longer than any outage of ours lasts.
const START_TRIES: u32 = 50;
const START_PAUSE: Duration = Duration::from_millis(400);

/// How long a node that listens may take until it serves: longer than any outage of ours lasts.
const SERVE_WITHIN: Duration = Duration::from_mins(1);

/// What every command of a run needs.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    pub(crate) program: PathBuf,
    pub(crate) scratch: PathBuf,
    pub(crate) database_url: String,
    /// What else the nodes are told, by the names of their variables.
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// A killed process: microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) node: usize,
    pub(crate) born_us: i64,
    pub(crate) killed_us: i64,
}

/// One gateway.
#[derive(Debug)]
struct Node {
    address: SocketAddr,
    process: Option<Process>,
    born_us: i64,
    stopped: bool,
}

/// All gateways of a run.
#[derive(Debug)]
pub(crate) struct Fleet {
    kit: Kit,
    nodes: Vec<Node>,
    up: Arc<[AtomicBool]>,
    pub(crate) killed: Vec<Life>,
    /// From each start until that node served, in milliseconds.
    pub(crate) starts_ms: Vec<i64>,
}

impl Fleet {
    /// Gateways that do not run yet.
    ///
    /// # Errors
    /// When there are no ports.
    pub(crate) fn plan(kit: Kit, count: usize) -> Result<Self> {
        let node = |_| {
            let address = free_address()?;
            Ok(Node { address, process: None, born_us: 0, stopped: false })
        };
        let nodes = (0..count).map(node).collect::<Result<Vec<_>>>()?;
        let up = (0..count).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { kit, nodes, up, killed: Vec::new(), starts_ms: Vec::new() })
    }

    /// What commands beside the nodes need, too.
    pub(crate) fn kit(&self) -> &Kit {
        &self.kit
    }

    /// Where each listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Which are up, as it changes.
    pub(crate) fn up(&self) -> Arc<[AtomicBool]> {
        Arc::clone(&self.up)
    }

    /// Nodes that may be killed or stopped.
    pub(crate) fn standing(&self) -> Vec<usize> {
        let stands = |node: &Node| node.process.is_some() && !node.stopped;
        self.nodes.iter().enumerate().filter(|(_, node)| stands(node)).map(|(n, _)| n).collect()
    }

    /// Starts a node's process; it does not serve yet.
    ///
    /// # Errors
    /// When it cannot start.
    pub(crate) fn launch(&mut self, n: usize) -> Result<()> {
        let node = self.nodes.get_mut(n).context("there is no such node")?;
        let mut command = command(&self.kit, n, node.address);
        node.born_us = now_us();
        let log = log_file(&self.kit.scratch, n);
        node.process = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// Waits until a node serves. One that gives up, since its database is away, is started again.
    ///
    /// # Errors
    /// When it never serves.
    pub(crate) async fn ready(&mut self, n: usize) -> Result<()> {
        let (mut tries, begin) = (0, Instant::now());
        loop {
            let node = self.nodes.get_mut(n).context("there is no such node")?;
            let process = node.process.as_mut().context("the node was not started")?;
            match until_it_listens(node.address, process).await {
                Ok(()) => break,
                Err(error) if tries == START_TRIES => return Err(error.context(self.last_words(n))),
                Err(_gave_up) => {
                    tries += 1;
                    sleep(START_PAUSE).await;
                    self.launch(n)?;
                }
            }
        }
        self.serves(n, SERVE_WITHIN).await?;
        self.starts_ms.push(i64::try_from(begin.elapsed().as_millis()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Waits until a node that runs says that it can serve: one whose database is away listens and
    /// does not serve yet.
    ///
    /// # Errors
    /// When it does not within `within`.
    pub(crate) async fn serves(&mut self, n: usize, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while probe(self.address(n)?, "/actuator/health/readiness").await != Some(200) {
            if Instant::now() > until {
                bail!("node {n} does not serve: {}", self.last_words(n));
            }
            sleep(Duration::from_millis(20)).await;
        }
        self.mark(n, true);
        Ok(())
    }

    /// Where a node listens.
    ///
    /// # Errors
    /// When there is no such node.
    pub(crate) fn address(&self, n: usize) -> Result<SocketAddr> {
        Ok(self.nodes.get(n).context("there is no such node")?.address)
    }

    /// What nodes are told when they are started from here on.
    pub(crate) fn tell(&mut self, environment: Vec<(&'static str, String)>) {
        self.kit.environment = environment;
    }

    /// Asks a node to end, and does not wait for it.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) fn terminate(&mut self, n: usize) -> Result<()> {
        self.mark(n, false);
        let node = self.nodes.get(n).context("there is no such node")?;
        node.process.as_ref().context("the node does not run")?.signal("TERM")
    }

    /// How the process of a node ended; `None` while it runs.
    pub(crate) fn ended(&mut self, n: usize) -> Option<std::process::ExitStatus> {
        self.nodes.get_mut(n)?.process.as_mut()?.ended()
    }

    fn last_words(&self, n: usize) -> String {
        let said = std::fs::read_to_string(log_file(&self.kit.scratch, n)).unwrap_or_default();
        let last: Vec<_> = said.lines().rev().take(5).collect();
        format!("node {n} said, last line first: {}", last.join(" | "))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub(crate) fn kill(&mut self, n: usize) -> Result<()> {
        let node = self.nodes.get_mut(n).context("there is no such node")?;
        if let Some(mut process) = node.process.take() {
            process.kill()?;
            let life = Life { node: n, born_us: node.born_us, killed_us: now_us() };
            self.killed.push(life);
        }
        self.mark(n, false);
        Ok(())
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Errors
    /// When the process cannot be signalled.
    pub(crate) fn freeze(&mut self, n: usize, stopped: bool) -> Result<()> {
        let node = self.nodes.get_mut(n).context("there is no such node")?;
        let process = node.process.as_ref().context("the node does not run")?;
        process.signal(if stopped { "STOP" } else { "CONT" })?;
        node.stopped = stopped;
        self.mark(n, !stopped);
        Ok(())
    }

    /// Starts every node that ended by itself: a gateway that gave up is a gateway that crashed.
    /// Gives their number.
    ///
    /// # Errors
    /// When one cannot start.
    pub(crate) async fn revive(&mut self) -> Result<usize> {
        let mut revived = 0;
        for n in 0..self.nodes.len() {
            let runs = self.nodes.get_mut(n).and_then(|node| node.process.as_mut());
            if !runs.is_some_and(Process::runs) {
                self.kill(n)?;
                self.launch(n)?;
                self.ready(n).await?;
                revived += 1;
            }
        }
        Ok(revived)
    }

    /// Ends all in order. Says how many had to be made to.
    ///
    /// # Errors
    /// When one cannot be signalled.
    pub(crate) async fn end(&mut self) -> Result<usize> {
        let mut forced = 0;
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            forced += usize::from(!process.stop(END_WITHIN).await?);
        }
        self.nodes.iter_mut().for_each(|node| node.process = None);
        Ok(forced)
    }

    fn mark(&self, n: usize, up: bool) {
        if let Some(flag) = self.up.get(n) {
            flag.store(up, Ordering::Relaxed);
        }
    }
}

/// The status with which a node answers a probe; `None` when it does not.
pub(crate) async fn probe(address: SocketAddr, path: &str) -> Option<u16> {
    let ask = Ask {
        address,
        method: Method::GET,
        path: path.to_owned(),
        token: String::new(),
        body: String::new(),
        idempotency_key: None,
    };
    let answered = tokio::time::timeout(Duration::from_secs(5), whole(&ask)).await;
    answered.ok()?.ok().map(|answer| answer.status)
}

fn log_file(scratch: &Path, n: usize) -> PathBuf {
    scratch.join(format!("node-{n}.log"))
}

fn command(kit: &Kit, n: usize, address: SocketAddr) -> Command {
    let mut command = Command::new(&kit.program);
    command.args(["serve", "--listen", &address.to_string(), "--data-dir"]);
    command.arg(kit.scratch.join(format!("node-{n}")));
    settings(&mut command, kit);
    command
}

/// What the gateway's commands are told through the environment, and nothing else.
pub(crate) fn settings(command: &mut Command, kit: &Kit) {
    command.env_clear();
    command.env("ANIMA_DATABASE_URL", &kit.database_url);
    command.env("ANIMA_ADMIN_TOKEN", ADMIN_TOKEN);
    command.env("ANIMA_MASTER_KEY", MASTER_KEY);
    command.env("ANIMA_SHUTDOWN_TIMEOUT_MS", "10000");
    command.env("ANIMA_LOG", "warn");
    command.envs(kit.environment.iter().map(|(name, value)| (name, value)));
}
