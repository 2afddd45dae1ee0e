//! Where the books of one run are, for the gateways and for us.
//!
//! SQLite: a file in the scratch folder. PostgreSQL: a database of its own on the server that the
//! verb started; gateways reach it through a proxy that can cut them off, we do not.
//! Invariant: a run never sees rows of another.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio_postgres::NoTls;

use crate::plan::{Plan, Storage};
use crate::server::Server;
use anima_simulator::proxy::Proxy;

/// The place of the books.
#[derive(Debug)]
pub(crate) enum Place {
    /// The file, once a gateway has made it.
    Sqlite(PathBuf),
    /// A database behind a proxy.
    Postgres(Box<Behind>),
}

/// PostgreSQL as a run sees it.
#[derive(Debug)]
pub(crate) struct Behind {
    /// The way around the proxy.
    pub(crate) url: String,
    pub(crate) proxy: Proxy,
    pub(crate) server: Server,
    /// The way through it.
    pub(crate) through: String,
}

impl Place {
    /// Makes it.
    ///
    /// # Errors
    /// When the database cannot be made.
    pub(crate) async fn make(plan: &Plan, storage: Storage, scratch: &Path) -> Result<Self> {
        match storage {
            Storage::Sqlite => Ok(Self::Sqlite(scratch.join("anima.db"))),
            Storage::Postgres => {
                let url = plan.postgres.as_deref();
                let url =
                    url.context("ANIMA_TEST_POSTGRES_URL is not set: use cargo xtask crash")?;
                Ok(Self::Postgres(Box::new(Behind::make(url, plan.seed).await?)))
            }
        }
    }

    /// What a gateway is told.
    pub(crate) fn database_url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite://{}", file.display()),
            Self::Postgres(behind) => behind.through.clone(),
        }
    }

    /// PostgreSQL, if it is that.
    pub(crate) fn postgres(&self) -> Option<&Behind> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(behind) => Some(behind),
        }
    }
}

impl Behind {
    /// Makes an empty database.
    ///
    /// # Errors
    /// When the server is not there, or does not run on this machine.
    pub(crate) async fn make(maintenance: &str, seed: u64) -> Result<Self> {
        let (client, connection) =
            tokio_postgres::connect(maintenance, NoTls).await.context("PostgreSQL is not there")?;
        tokio::spawn(async move { drop(connection.await) });
        let name = format!("anima_crash_{seed}");
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name}")).await?;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let server = Server::find(&client).await?;
        let (start, rest) = maintenance.rsplit_once('@').context("the URL names no user")?;
        let (host, _) = rest.split_once('/').context("the URL names no database")?;
        let proxy = Proxy::start(host.parse().context("the URL's host is no address")?).await?;
        let through = format!("{start}@{}/{name}", proxy.address());
        Ok(Self { url: format!("{start}@{host}/{name}"), proxy, server, through })
    }
}
