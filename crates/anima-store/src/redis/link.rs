//! One connection that can run commands, whatever the topology behind it.
//!
//! Not here: when to connect and when to give up, which is the supervisor's. Invariant: making a
//! connection ends within its bound, and one that is handed out has answered and has said which
//! server it is, where there is one server.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError,
    RedisResult, ScriptInvocation,
};

use super::address::Address;
use super::{Fault, fault};

/// A live connection; clones share it.
#[derive(Clone)]
pub(crate) enum Link {
    /// To one server.
    One(MultiplexedConnection),
    /// To a Cluster. It follows moved slots by itself.
    Cluster(ClusterConnection),
}

impl Link {
    /// Runs one command.
    pub(super) async fn command<T: FromRedisValue>(mut self, command: &Cmd) -> RedisResult<T> {
        match &mut self {
            Self::One(link) => command.query_async(link).await,
            Self::Cluster(link) => command.query_async(link).await,
        }
    }

    /// Runs several commands in one round trip.
    pub(super) async fn pipeline<T: FromRedisValue>(mut self, pipe: &Pipeline) -> RedisResult<T> {
        match &mut self {
            Self::One(link) => pipe.query_async(link).await,
            Self::Cluster(link) => pipe.query_async(link).await,
        }
    }

    /// Runs a script, handing it over where the server does not know it.
    pub(super) async fn script<T: FromRedisValue>(
        mut self,
        script: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        match &mut self {
            Self::One(link) => script.invoke_async(link).await,
            Self::Cluster(link) => script.invoke_async(link).await,
        }
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn ping(self) -> RedisResult<()> {
        self.command(&redis::cmd("PING")).await
    }
}

/// The state of the way to Redis.
#[derive(Clone)]
pub(super) enum Line {
    /// Commands go over this link, which is number so and so.
    Up(Link, u64),
    /// The link broke a moment ago, or there was none yet: commands wait within their bound.
    Connecting,
    /// Commands are refused at once.
    Down,
}

impl Line {
    pub(super) const fn is_up(&self) -> bool {
        matches!(self, Self::Up(..))
    }
}

/// The server at the other end of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Where a Sentinel said that it is; empty where none was asked.
    pub(super) place: String,
    /// Its process: another after a fail-over or a restart. 0 for a Cluster, and where it does not
    /// say so.
    pub(super) run: u32,
}

/// Connects and asks for a sign of life.
///
/// # Errors
/// When that does not succeed within `bound`.
pub(super) async fn connect(
    address: &Address,
    (bound, response): (Duration, Duration),
) -> RedisResult<(Link, Server)> {
    let connected = tokio::time::timeout(bound, open(address, (bound, response))).await;
    connected.unwrap_or_else(|_late| Err(late(bound)))
}

async fn open(
    address: &Address,
    (bound, response): (Duration, Duration),
) -> RedisResult<(Link, Server)> {
    let mut server = Server::default();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(bound))
        .set_response_timeout(Some(response));
    let link = match address {
        Address::Single(client) => {
            Link::One(client.get_multiplexed_async_connection_with_config(&config).await?)
        }
        Address::Sentinel(sentinels) => {
            let client = sentinels.client()?.async_get_client().await?;
            server.place = client.get_connection_info().addr().to_string();
            Link::One(client.get_multiplexed_async_connection_with_config(&config).await?)
        }
        Address::Cluster(client, _) => {
            let config = redis::cluster::ClusterConfig::new()
                .set_connection_timeout(bound)
                .set_response_timeout(response);
            Link::Cluster(client.get_async_connection_with_config(config).await?)
        }
    };
    link.clone().ping().await?;
    if matches!(link, Link::One(_)) {
        server.run = run_of(link.clone()).await?;
    }
    Ok((link, server))
}

/// Which process answers. A server that does not let itself be asked has no number; one that has
/// not answered might have one, and counters of another process must not be taken for its own.
async fn run_of(link: Link) -> RedisResult<u32> {
    let mut command = redis::cmd("INFO");
    command.arg("server");
    let said: String = match link.command(&command).await {
        Err(error) if fault(&error) != Fault::Command => return Err(error),
        said => said.unwrap_or_default(),
    };
    let run = said.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
    Ok(run.trim().bytes().fold(0, |hash: u32, byte| {
        hash.wrapping_mul(16_777_619) ^ u32::from(byte) ^ hash.rotate_left(13)
    }))
}

/// Where a Sentinel says that the primary is. `None` where none is asked, or none knows.
pub(super) async fn named(address: &Address, bound: Duration) -> Option<String> {
    let Address::Sentinel(sentinels) = address else { return None };
    let mut asked = sentinels.client().ok()?;
    let client = tokio::time::timeout(bound, asked.async_get_client()).await.ok()?.ok()?;
    Some(client.get_connection_info().addr().to_string())
}

/// A connection for subscriptions alone. In a Cluster any node will do, for it passes messages on
/// to all others.
///
/// # Errors
/// When none can be made within `bound`.
pub(crate) async fn subscriber(
    address: &Address,
    bound: Duration,
) -> RedisResult<redis::aio::PubSub> {
    let connect = async |client: &Client| client.get_async_pubsub().await;
    let opening = async {
        match address {
            Address::Single(client) => connect(client).await,
            Address::Sentinel(sentinels) => {
                connect(&sentinels.client()?.async_get_client().await?).await
            }
            Address::Cluster(_, nodes) => {
                let mut last = late(bound);
                for node in nodes {
                    let each = bound / u32::try_from(nodes.len()).unwrap_or(u32::MAX);
                    match tokio::time::timeout(each, connect(node)).await {
                        Ok(Ok(subscriber)) => return Ok(subscriber),
                        Ok(Err(error)) => last = error,
                        Err(_) => last = late(each),
                    }
                }
                Err(last)
            }
        }
    };
    tokio::time::timeout(bound, opening).await.unwrap_or_else(|_late| Err(late(bound)))
}

fn late(bound: Duration) -> RedisError {
    let words = format!("not connected within {bound:?}");
    (ErrorKind::Io, "timed out", words).into()
}
