//! Starts and stops a PostgreSQL and a Redis in a scratch folder.
//!
//! Taken from the `PATH` or from where Debian keeps PostgreSQL's programs; what is missing is
//! installed with `apt-get` when we are root, else one line says what to install.
//! Not a fixture: databases per test are the tests' own business.
//! Invariant: everything listens on 127.0.0.1 only, on a port that was free, with the durability
//! that the server has by default.

mod install;
mod postgres;
mod redis;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The servers that we know how to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
}

impl Kind {
    /// The word for it on the keeper's command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// The inverse of [`Kind::name`].
    ///
    /// # Errors
    /// For any other word.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        match name {
            "postgres" => Ok(Self::Postgres),
            "redis" => Ok(Self::Redis),
            other => bail!("there is no server `{other}`"),
        }
    }
}

/// A running server; stopped when dropped.
pub(crate) enum Server {
    /// PostgreSQL.
    Postgres(postgres::Running),
    /// Redis.
    Redis(redis::Running),
}

impl Server {
    /// The variable in which tests look for it.
    pub(crate) fn variable(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "ANIMA_TEST_POSTGRES_URL",
            Self::Redis(_) => "ANIMA_TEST_REDIS_URL",
        }
    }

    /// The variable's value.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.url(),
            Self::Redis(server) => server.url(),
        }
    }
}

/// Starts one and waits until it answers.
///
/// # Errors
/// When it is not installed and cannot be, or does not come up.
pub(crate) fn start(kind: Kind, scratch: &Path) -> Result<Server> {
    match kind {
        Kind::Postgres => postgres::start(scratch).map(Server::Postgres),
        Kind::Redis => redis::start(scratch).map(Server::Redis),
    }
}

/// The program of a Redis, for who starts it by himself.
///
/// # Errors
/// When it is not installed and cannot be.
pub(crate) fn redis_program() -> Result<PathBuf> {
    redis::program()
}

/// A port that is free now. Another program may take it before we do, so callers try again.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free port")?;
    Ok(listener.local_addr().context("failed to read the port")?.port())
}
