//! Connections to PostgreSQL, and its schema.
//!
//! Not here: what is read and written. Invariant: a connection that does not answer is given up
//! after a known time, and with all others when the server is found down (`link`), so that a caller
//! is told "unavailable" and never waits for ever.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio_postgres::Config;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};
use tokio_postgres_rustls::MakeRustlsConnect;

use anima_core::clock::Timestamp;

use crate::database::OpenError;

mod link;
mod probe;
mod tls;

pub(crate) use link::Link;
pub(crate) use probe::ServerProbe;

/// What the driver's conversions fail with.
type Failure = Box<dyn std::error::Error + Sync + Send>;

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// Until a connection stands: TCP, TLS and the login.
const CONNECT: Duration = Duration::from_secs(5);

/// Until the pool has a free connection. Longer would only move the wait from here to the client.
const WAIT: Duration = Duration::from_secs(5);

/// Until unacknowledged bytes end a connection, and the pause before a silent one is probed.
const SILENCE: Duration = Duration::from_secs(10);

/// The bounds that the server keeps for us: longer statements and forgotten transactions end.
const SESSION: &str = "
    SET statement_timeout = '30s';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s';
    SET timezone = 'UTC'";

/// What a connection of the ledger's writers has besides. Commits must be on disk, whatever the
/// server's default; a stronger setting stays. Everything that a batch does is a look-up by
/// key: a plan made while a table was small must not scan it later, when it is large, and
/// planning each statement again for each batch costs more than running it. The server gives up
/// waiting for a lock before the writer gives up the batch, so that hardly any is committed
/// after that. No such bound on statements: it would end a commit's wait for its standby, and
/// call it done.
const WRITER_SESSION: &str = "
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') = 'off';
    SET enable_seqscan = off;
    SET lock_timeout = '2s';
    SET plan_cache_mode = force_generic_plan";

/// Migrations may take long, and so may the wait for the node that is at it.
const PATIENCE: &str = "SET statement_timeout = '30min'; SET lock_timeout = '30min'";

/// "anima" in ASCII: the advisory lock that migrations hold.
pub(crate) const LOCK: &str = "SELECT pg_advisory_lock(418447026529)";

/// Makes a pool. It connects when it is first used.
///
/// # Errors
/// [`OpenError::Unreachable`] when the URL is wrong.
pub(crate) fn pool(url: &str, size: usize, link: &Link) -> Result<Pool, OpenError> {
    pool_of(url, size, link, "")
}

/// A pool for the ledger's writers, whose sessions are set up for group commit.
///
/// # Errors
/// As [`pool`].
pub(crate) fn writer_pool(url: &str, size: usize, link: &Link) -> Result<Pool, OpenError> {
    pool_of(url, size, link, WRITER_SESSION)
}

/// How to connect: what the URL says, with this program's bounds.
///
/// # Errors
/// [`OpenError::Unreachable`] when the URL is wrong.
pub(crate) fn connection(url: &str) -> Result<(Config, MakeRustlsConnect), OpenError> {
    let unreachable = |e: &dyn std::fmt::Display| OpenError::Unreachable(e.to_string());
    let (plain, trust) = tls::split(url);
    let mut config: Config = plain.parse().map_err(|e| unreachable(&Chain(&e)))?;
    config
        .connect_timeout(CONNECT)
        .keepalives(true)
        .keepalives_idle(SILENCE)
        .tcp_user_timeout(SILENCE);
    if config.get_application_name().is_none() {
        config.application_name("anima");
    }
    let connector = tls::connector(&config, &trust)?;
    Ok((config, connector))
}

fn pool_of(url: &str, size: usize, link: &Link, more: &'static str) -> Result<Pool, OpenError> {
    let unreachable = |e: &dyn std::fmt::Display| OpenError::Unreachable(e.to_string());
    let (config, connector) = connection(url)?;
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let connect = link::Linked { connector, link: link.clone() };
    Pool::builder(Manager::from_connect(config, connect, recycling))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT))
        .create_timeout(Some(CONNECT))
        .recycle_timeout(Some(WAIT))
        .post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                let preparing = async {
                    client.batch_execute(SESSION).await?;
                    client.batch_execute(more).await
                };
                match tokio::time::timeout(CONNECT, preparing).await {
                    Ok(prepared) => prepared.map_err(HookError::Backend),
                    Err(_elapsed) => Err(HookError::message("no answer after the login")),
                }
            })
        }))
        .build()
        .map_err(|e| unreachable(&e))
}

/// Brings the schema up to date. Several nodes may start at once: one migrates, the others wait.
/// All missing migrations are one transaction.
///
/// # Errors
/// [`OpenError::Away`], [`OpenError::Unreachable`] or [`OpenError::Migration`].
pub(crate) async fn migrate(pool: &Pool) -> Result<(), OpenError> {
    let client = pool.get().await.map_err(|error| {
        let words = Chain(&error).to_string();
        if may_come(&error) { OpenError::Away(words) } else { OpenError::Unreachable(words) }
    })?;
    // The lock lives as long as its connection, which therefore does not go back to the pool.
    let mut client = Object::take(client);
    let failed = |e: tokio_postgres::Error| {
        let words = Chain(&e).to_string();
        if e.is_closed() { OpenError::Away(words) } else { OpenError::Migration(words) }
    };
    client.batch_execute(PATIENCE).await.map_err(failed)?;
    client.batch_execute(LOCK).await.map_err(failed)?;
    let migrated = embedded::migrations::runner().set_grouped(true).run_async(&mut *client).await;
    migrated.map(|_| ()).map_err(|e| {
        let words = Chain(&e).to_string();
        if client.is_closed() { OpenError::Away(words) } else { OpenError::Migration(words) }
    })
}

/// Brings the schema to an older version.
#[cfg(test)]
pub(crate) async fn migrate_to(pool: &Pool, version: i32) {
    let mut client = Object::take(pool.get().await.unwrap());
    let runner = embedded::migrations::runner().set_target(refinery::Target::Version(version));
    runner.run_async(&mut *client).await.unwrap();
}

/// Whether a server that could not be reached may be reached later: nothing answered, or it said
/// that it starts, stops or is full. A login or a certificate that is refused stays refused.
fn may_come(error: &PoolError) -> bool {
    const FOR_NOW: [&SqlState; 4] = [
        &SqlState::CANNOT_CONNECT_NOW,
        &SqlState::ADMIN_SHUTDOWN,
        &SqlState::CRASH_SHUTDOWN,
        &SqlState::TOO_MANY_CONNECTIONS,
    ];
    let error = match error {
        // Our own hook's only words: that it waited.
        PoolError::Timeout(_) | PoolError::PostCreateHook(HookError::Message(_)) => return true,
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => error,
        PoolError::Closed | PoolError::NoRuntimeSpecified => return false,
    };
    if let Some(code) = error.code() {
        return FOR_NOW.contains(&code);
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            // What TLS refuses is invalid.
            return io.kind() != std::io::ErrorKind::InvalidData;
        }
        cause = inner.source();
    }
    error.is_closed()
}

/// An error with its causes. The driver's own text is "db error" and says nothing.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A [`Timestamp`] as `timestamptz`, which holds microseconds as well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At(pub(crate) Timestamp);

impl ToSql for At {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        let micros = self.0.micros();
        let distance = Duration::from_micros(micros.unsigned_abs());
        let instant = if micros < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        };
        instant.ok_or("the time is out of range")?.to_sql(kind, out)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl FromSql<'_> for At {
    fn from_sql(kind: &Type, raw: &[u8]) -> Result<Self, Failure> {
        let micros = match SystemTime::from_sql(kind, raw)?.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros())?,
            Err(before) => -i64::try_from(before.duration().as_micros())?,
        };
        Ok(Self(Timestamp::from_micros(micros)))
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_server_that_is_silent_after_the_login_is_away() {
        const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = [0; 1_024];
            assert_ne!(stream.read(&mut said).await.unwrap(), 0);
            stream.write_all(LET_IN).await.unwrap();
            assert_ne!(stream.read(&mut said).await.unwrap(), 0);
            // The first statement is never answered: time passes.
            tokio::time::pause();
            std::future::pending::<()>().await;
        };
        let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
        let pool = pool(&url, 1, &Link::default()).unwrap();
        let migrated = tokio::select! {
            migrated = timeout(CONNECT * 2, migrate(&pool)) => migrated,
            () = server => panic!("it never ends"),
        };
        assert!(matches!(migrated, Ok(Err(OpenError::Away(_)))), "{migrated:?}");
    }
}
