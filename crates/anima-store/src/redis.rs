//! One connection layer for Redis and Valkey: single, Sentinel, Cluster.
//!
//! Commands share one multiplexed connection, each within a tight bound. After a few failures in a
//! row the breaker of this layer answers [`Error::Down`] at once, while a task of its own connects
//! again; nobody has to restart anything. What is built on top degrades (SPEC 12) and never waits.
//! Invariant: no call takes longer than [`Options::timeout`], whatever the network does.
//! Source: `reliability` 2.3.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, ToRedisArgs};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::address::Address;
use self::link::Link;
use self::supervisor::Supervised;
use crate::redis_keys::{Key, Topic};

mod address;
mod link; // one connection, whatever the topology
mod supervisor; // connects, probes, connects again
#[cfg(test)]
mod tests;

pub use address::WrongUrl;

/// A connection for subscriptions alone.
///
/// # Errors
/// When none can be made within `bound`.
pub(crate) async fn subscriber(
    redis: &Redis,
    bound: Duration,
) -> redis::RedisResult<redis::aio::PubSub> {
    link::subscriber(&redis.0.supervised.address, bound).await
}

/// Bounds and names, from the settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest that one command, script or pipeline may take, waiting included.
    pub timeout: Duration,
    /// Failures in a row after which nothing is sent until a probe succeeds.
    pub failures_max: u32,
    /// Put before every key and topic, with a colon, so that installations can share a server.
    pub prefix: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_millis(150), failures_max: 5, prefix: "anima".to_owned() }
    }
}

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis is known to be away. Nothing was sent.
    #[error("redis is down")]
    Down,
    /// The answer did not come: whether the command ran is not known. What is sent twice must
    /// therefore be safe to run twice.
    #[error("redis did not answer: {0}")]
    Unknown(String),
    /// Redis answered that it will not: a defect, a missing permission, or no memory.
    #[error("redis refused: {0}")]
    Refused(String),
}

/// A handle to Redis; clones share everything. The background task ends with the last of them.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    options: Options,
    supervised: Arc<Supervised>,
    task: tokio::task::JoinHandle<()>,
    kind: &'static str,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Redis {
    /// Leaves the address out: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let up = self.is_up();
        f.debug_struct("Redis").field("kind", &self.0.kind).field("up", &up).finish_non_exhaustive()
    }
}

/// Whether a URL is one that [`Redis::open`] accepts.
///
/// # Errors
/// What is wrong with it.
pub fn check(url: &str) -> Result<(), WrongUrl> {
    Address::parse(url).map(drop)
}

impl Redis {
    /// Starts to connect, and returns at once: a Redis that is away must not stop a node.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn open(url: &str, options: Options) -> Result<Self, WrongUrl> {
        let address = Address::parse(url)?;
        let kind = address.kind();
        let supervised = Arc::new(Supervised::new(address, &options));
        let task = tokio::spawn(supervisor::run(Arc::clone(&supervised)));
        Ok(Self(Arc::new(Inner { options, supervised, task, kind })))
    }

    /// Waits for the first connection, at most `within`. `false` when there is none by then.
    ///
    /// # Errors
    /// When Redis refuses the login: the setting is wrong, and waiting does not mend it.
    pub async fn ready(&self, within: Duration) -> Result<bool, Error> {
        let mut state = self.0.supervised.state.subscribe();
        let tried = state.wait_for(|state| state.line.is_up() || state.refused.is_some());
        match tokio::time::timeout(within, tried).await {
            Ok(Ok(state)) => match &state.refused {
                Some(why) => Err(Error::Refused(why.clone())),
                None => Ok(true),
            },
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    /// Whether commands are being sent.
    pub fn is_up(&self) -> bool {
        self.0.supervised.state.borrow().line.is_up()
    }

    /// Told at each change of [`Redis::is_up`]; the value is the same.
    pub fn health(&self) -> watch::Receiver<bool> {
        self.0.supervised.health.subscribe()
    }

    /// Which process of a server answers, or answered last: another number after a fail-over or a
    /// restart, both of which may have forgotten what was written last. 0 when nobody can say, as
    /// with a Cluster.
    pub(crate) fn run_of_server(&self) -> u32 {
        self.0.supervised.run()
    }

    /// `single`, `sentinel` or `cluster`.
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// The longest that one command may take.
    pub fn timeout(&self) -> Duration {
        self.0.options.timeout
    }

    /// A key as Redis knows it.
    pub(crate) fn key(&self, key: &Key) -> String {
        format!("{}:{}", self.0.options.prefix, key.as_str())
    }

    /// A topic as Redis knows it.
    pub(crate) fn topic(&self, topic: &Topic) -> String {
        format!("{}:{}", self.0.options.prefix, topic.as_str())
    }

    /// Runs one command. Its keys come from [`Redis::key`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.run(|link| link.command(command)).await
    }

    /// Runs several commands in one round trip, atomically when the pipeline says so. In a Cluster
    /// all keys must have one hash tag.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pipeline<T: FromRedisValue>(&self, pipe: &Pipeline) -> Result<T, Error> {
        self.run(|link| link.pipeline(pipe)).await
    }

    /// Runs a script by its hash, and hands it over first where Redis does not know it. All keys
    /// that it touches are declared, and have one hash tag.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn script<T: FromRedisValue>(
        &self,
        script: &redis::Script,
        keys: &[Key],
        arguments: impl ToRedisArgs + Send + Sync,
    ) -> Result<T, Error> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(self.key(key));
        }
        invocation.arg(arguments);
        self.run(|link| link.script(&invocation)).await
    }

    async fn run<T, F>(&self, work: impl FnOnce(Link) -> F) -> Result<T, Error>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let deadline = Instant::now() + self.0.options.timeout;
        let supervised = &self.0.supervised;
        let (link, number) = supervised.link(deadline).await?;
        match timeout_at(deadline, work(link)).await {
            Ok(Ok(value)) => {
                supervised.succeeded();
                Ok(value)
            }
            Ok(Err(error)) => Err(supervised.judge(number, &error)),
            Err(_) => {
                supervised.failed(number, "timeout");
                Err(Error::Unknown(format!("no answer within {:?}", self.0.options.timeout)))
            }
        }
    }
}

/// What an error says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The connection is of no use: another is needed.
    Connection,
    /// The server does not serve now. Enough of them and it is down.
    Server,
    /// The command is at fault, not the server.
    Command,
}

fn fault(error: &RedisError) -> Fault {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    let kind = error.kind();
    let is = |kinds: &[ServerErrorKind]| kinds.iter().any(|k| kind == ErrorKind::Server(*k));
    // The server's own words for "not now" that the driver has no kind for.
    let not_now = matches!(error.code(), Some("BUSY" | "OOM" | "NOREPLICAS"));
    if is(&[ReadOnly, MasterDown, BusyLoading]) {
        // A master that is one no longer, or not yet.
        Fault::Connection
    } else if is(&[ClusterDown, TryAgain]) || not_now || error.is_timeout() {
        Fault::Server
    } else if error.is_unrecoverable_error() {
        Fault::Connection
    } else if kind == ErrorKind::Io {
        Fault::Server
    } else {
        Fault::Command
    }
}
