//! A Sentinel makes another Redis the primary in the middle of a load on budgets and slots.
//!
//! In turn by its own command, where little is lost, and by the death of the primary, where what
//! the replica had not got is gone. The claims are those of the other storms (`storm`). Invariant:
//! when a strike is over the other server is a replica again, so that the next one can follow.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use super::storm;
use crate::chaos::redis::ask;
use crate::chaos::table::Line;
use crate::chaos::world::World;
use crate::process::Process;
use crate::provider::free_address;

/// The name under which the Sentinel knows the primary.
const NAME: &str = "primary";

/// Longer than servers take to find each other.
const PATIENCE: Duration = Duration::from_mins(1);

/// One server, which may be dead.
struct Server {
    address: SocketAddr,
    folder: PathBuf,
    lines: Vec<String>,
    process: Option<Process>,
}

/// A primary and a replica under one Sentinel.
struct Watched {
    program: PathBuf,
    servers: [Server; 2],
    sentinel: Server,
}

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn fails_over(world: &mut World) -> Result<Vec<Line>> {
    let mut watched = Watched::start(&world.plan.redis, &world.scratch).await?;
    let url = format!("redis+sentinel://{}/{NAME}", watched.sentinel.address);
    world.restart(&[("ANIMA_REDIS_URL", &url)]).await?;
    let lines = storm::play(world, "failover", async |_world: &mut World, n| {
        watched.strike(n % 2 == 1).await
    })
    .await;
    world.restart(&[]).await?;
    lines
}

impl Server {
    fn plan(scratch: &Path, lines: Vec<String>) -> Result<Self> {
        let address = free_address()?;
        let folder = scratch.join(format!("redis-{}", address.port()));
        fs::create_dir_all(&folder).context("failed to make a folder")?;
        Ok(Self { address, folder, lines, process: None })
    }

    async fn begin(&mut self, program: &Path) -> Result<()> {
        let file = self.folder.join("redis.conf");
        fs::write(&file, self.lines.join("\n")).context("failed to write a configuration")?;
        let mut command = Command::new(program);
        command.arg(&file).args(["--port", &self.address.port().to_string()]);
        command.args(["--bind", "127.0.0.1", "--dir"]).arg(&self.folder);
        if self.lines.iter().any(|line| line.starts_with("sentinel")) {
            command.arg("--sentinel");
        }
        self.process = Some(Process::start(&mut command, &self.folder.join("log"))?);
        self.until("PING", |said| said.starts_with("+PONG")).await.map(drop)
    }

    /// Asks until the answer is as wanted, and gives it.
    async fn until(&self, line: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = ask(self.address, line).await.unwrap_or_default();
            if is_so(&said) {
                return Ok(said);
            }
            if Instant::now() > until {
                bail!("redis on {} answers {line}: {said}", self.address);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Watched {
    async fn start(program: &Path, scratch: &Path) -> Result<Self> {
        let plain = ["save \"\"", "appendonly no", "repl-diskless-sync-delay 0"].map(str::to_owned);
        let mut first = Server::plan(scratch, plain.to_vec())?;
        first.begin(program).await?;
        let port = first.address.port();
        let mut lines = plain.to_vec();
        lines.push(format!("replicaof 127.0.0.1 {port}"));
        let mut second = Server::plan(scratch, lines)?;
        second.begin(program).await?;
        second.until("INFO replication", |said| said.contains("master_link_status:up")).await?;
        let lines = vec![
            format!("sentinel monitor {NAME} 127.0.0.1 {port} 1"),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 3000"),
        ];
        let mut sentinel = Server::plan(scratch, lines)?;
        sentinel.begin(program).await?;
        let watched = Self { program: program.to_path_buf(), servers: [first, second], sentinel };
        watched.sentinel.until(&format!("SENTINEL REPLICAS {NAME}"), is_listed).await?;
        Ok(watched)
    }

    /// Makes the replica the primary, and waits until the other is its replica.
    async fn strike(&mut self, kill: bool) -> Result<()> {
        let asked = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {NAME}");
        let ports = self.servers.each_ref().map(|server| said_port(server.address));
        let names_one = |said: &str| ports.iter().any(|port| said.contains(port));
        let said = self.sentinel.until(&asked, names_one).await?;
        let primary = ports.iter().position(|port| said.contains(port)).context("no primary")?;
        let [one, other] = &mut self.servers;
        let (old, fresh) = if primary == 0 { (one, other) } else { (other, one) };
        if kill {
            old.process.take().map_or(Ok(()), |mut process| process.kill())?;
        }
        let until = Instant::now() + PATIENCE;
        let port = said_port(fresh.address);
        // What counts is whom the Sentinel names: it may give up a fail-over that takes too long
        // also when the replica is the primary already, and makes it a replica again.
        while !ask(self.sentinel.address, &asked).await.is_ok_and(|said| said.contains(&port)) {
            ensure!(Instant::now() < until, "the replica does not become the primary");
            if !kill {
                // It is refused until the replica has shown for a while that it is well, and while
                // one is under way.
                drop(ask(self.sentinel.address, &format!("SENTINEL FAILOVER {NAME}")).await);
            }
            sleep(Duration::from_millis(100)).await;
        }
        if old.process.is_none() {
            // It comes back as what it was not told that it is no more, until the Sentinel says so.
            old.lines.retain(|line| !line.starts_with("replicaof"));
            old.lines.push(format!("replicaof 127.0.0.1 {}", fresh.address.port()));
            old.begin(&self.program).await?;
        }
        old.until("INFO replication", |said| said.contains("master_link_status:up")).await?;
        fresh.until("INFO replication", |said| said.contains("role:master")).await.map(drop)
    }
}

/// A port as a Sentinel's answer has it.
fn said_port(address: SocketAddr) -> String {
    format!("\r\n{}\r\n", address.port())
}

/// Whether a list of one replica was answered.
fn is_listed(said: &str) -> bool {
    said.starts_with("*1")
}
