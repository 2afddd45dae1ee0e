//! Redis servers of a test's own: one alone, one with a replica under a Sentinel, and a Cluster of
//! three.
//!
//! Real processes on free ports, without persistence, stopped with the value that stands for them.
//! Not the one server that tests share (`crate::tests::redis`). Invariant: what is handed out
//! serves: the Sentinel knows the replica, and every slot of the Cluster is somebody's.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ::redis::{Client, FromRedisValue, RedisResult, Value, cmd};
use tokio::time::{Instant, sleep};

use super::variable;

/// Longer than servers take to find each other on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The name under which the Sentinel knows the primary.
const NAME: &str = "primary";

/// A server.
struct Server {
    port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            eprintln!("redis-server on {} could not be stopped: {error}", self.port);
        }
    }
}

impl Server {
    /// Runs one command there.
    async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let client = Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let (name, arguments) = words.split_first().unwrap();
        cmd(name).arg(arguments).query_async(&mut connection).await
    }

    /// Asks until the reply is as wanted.
    async fn until<T: FromRedisValue>(&self, words: &[&str], is_so: impl Fn(&T) -> bool) {
        let began = Instant::now();
        while !self.ask(words).await.is_ok_and(|reply| is_so(&reply)) {
            assert!(began.elapsed() < PATIENCE, "{words:?} on {}", self.port);
            sleep(PAUSE).await;
        }
    }

    async fn contains(&self, words: &[&str], what: &str) {
        self.until(words, |reply: &String| reply.contains(what)).await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// The program, where there is one.
fn program() -> Option<String> {
    let program = variable("ANIMA_TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".to_owned());
    let asked = Command::new(&program).arg("--version").stdout(Stdio::null()).status();
    if asked.is_ok_and(|status| status.success()) {
        return Some(program);
    }
    eprintln!("skipped: there is no {program}; ANIMA_TEST_REDIS_SERVER may say where it is");
    None
}

/// Starts one that answers. A port may be taken by somebody else meanwhile: then another is tried.
async fn start(program: &str, folder: &Path, options: &dyn Fn(u16) -> Vec<String>) -> Server {
    for _ in 0..5 {
        let port = free_port();
        let folder = folder.join(port.to_string());
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(program);
        // A file that the server may write: the Sentinel insists.
        let file = folder.join("redis.conf");
        fs::write(&file, options(port).join("\n")).unwrap();
        command.arg(&file).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]);
        command.arg(&folder);
        if options(port).iter().any(|line| line.starts_with("sentinel")) {
            command.arg("--sentinel");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Server { port, child: command.spawn().unwrap() };
        let began = Instant::now();
        while server.child.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE {
            if server.ask::<Value>(&["PING"]).await.is_ok() {
                return server;
            }
            sleep(PAUSE).await;
        }
    }
    panic!("redis-server does not start");
}

fn plain(_port: u16) -> Vec<String> {
    ["save \"\"", "appendonly no", "repl-diskless-sync-delay 0"].map(str::to_owned).to_vec()
}

/// One that nobody else asks anything.
pub(crate) struct Alone {
    server: Server,
    _folder: tempfile::TempDir,
}

impl Alone {
    /// `None` where no server is installed.
    pub(crate) async fn start() -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        let server = start(&program, folder.path(), &plain).await;
        Some(Self { server, _folder: folder })
    }

    /// As a setting.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.server.port)
    }

    /// How often it ran each command so far, those of scripts among them, and the microseconds that
    /// all took.
    pub(crate) async fn ran(&self) -> BTreeMap<String, (u64, u64)> {
        let said: String = self.server.ask(&["INFO", "commandstats"]).await.unwrap();
        let one = |line: &str| {
            let (name, counts) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let count = |word: &str| {
                let part = counts.split(',').find_map(|part| part.strip_prefix(word))?;
                part.parse().ok()
            };
            Some((name.to_owned(), (count("calls=")?, count("usec=")?)))
        };
        said.lines().filter_map(one).collect()
    }
}

/// A primary with a replica, under one Sentinel.
pub(crate) struct Watched {
    sentinel: Server,
    /// Held, so that they run.
    _servers: [Server; 2],
    _folder: tempfile::TempDir,
}

impl Watched {
    /// `None` where no server is installed.
    pub(crate) async fn start() -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        let first = start(&program, folder.path(), &plain).await;
        let replica_of = format!("replicaof 127.0.0.1 {}", first.port);
        let replica = move |port| [plain(port), vec![replica_of.clone()]].concat();
        let second = start(&program, folder.path(), &replica).await;
        second.contains(&["INFO", "replication"], "master_link_status:up").await;
        let lines = vec![
            format!("sentinel monitor {NAME} 127.0.0.1 {} 1", first.port),
            format!("sentinel down-after-milliseconds {NAME} 2000"),
            format!("sentinel failover-timeout {NAME} 3000"),
        ];
        let sentinel = start(&program, folder.path(), &|_| lines.clone()).await;
        let known = |replicas: &Vec<Value>| replicas.len() == 1;
        sentinel.until(&["SENTINEL", "REPLICAS", NAME], known).await;
        Some(Self { sentinel, _servers: [first, second], _folder: folder })
    }

    /// As a setting.
    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{NAME}", self.sentinel.port)
    }

    async fn primary(&self) -> Vec<String> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        self.sentinel.ask(&words).await.unwrap()
    }

    /// Makes the replica the primary, and waits until it is.
    pub(crate) async fn fail_over(&self) {
        let before = self.primary().await;
        // It is refused until the replica has shown for a while that it is well.
        self.sentinel.until(&["SENTINEL", "FAILOVER", NAME], |_: &Value| true).await;
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        self.sentinel.until(&words, |now: &Vec<String>| *now != before).await;
    }
}

/// Three nodes that share the slots.
pub(crate) struct Cluster {
    nodes: Vec<Server>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// `None` where no server is installed.
    pub(crate) async fn start() -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let clustered = |port| {
                let bus = format!("cluster-port {}", free_port());
                let more = ["cluster-enabled yes", "cluster-require-full-coverage no", &bus];
                [plain(port), more.map(str::to_owned).to_vec()].concat()
            };
            nodes.push(start(&program, folder.path(), &clustered).await);
        }
        Self::join(&nodes).await;
        Some(Self { nodes, _folder: folder })
    }

    /// Gives each its slots, and makes them known to each other.
    async fn join(nodes: &[Server]) {
        let ranges = [["0", "5460"], ["5461", "10922"], ["10923", "16383"]];
        for ((n, node), [from, to]) in nodes.iter().enumerate().zip(ranges) {
            let epoch = (n + 1).to_string();
            node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await.unwrap();
            node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await.unwrap();
        }
        for node in &nodes[1..] {
            let port = node.port.to_string();
            let said: String = node.ask(&["CLUSTER", "INFO"]).await.unwrap();
            assert!(said.contains("cluster_slots_assigned"), "{said}");
            let bus = bus_port(node).await;
            let words = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
            nodes[0].ask::<()>(&words).await.unwrap();
        }
        for node in nodes {
            node.contains(&["CLUSTER", "INFO"], "cluster_slots_ok:16384").await;
            node.contains(&["CLUSTER", "INFO"], "cluster_known_nodes:3").await;
            node.contains(&["CLUSTER", "INFO"], "cluster_state:ok").await;
        }
    }

    /// As a setting.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|n| format!("127.0.0.1:{}", n.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Ends the node that is asked first.
    pub(crate) fn lose_one(&mut self) {
        drop(self.nodes.remove(0));
    }
}

async fn bus_port(node: &Server) -> String {
    let [_, port]: [String; 2] = node.ask(&["CONFIG", "GET", "cluster-port"]).await.unwrap();
    port
}
