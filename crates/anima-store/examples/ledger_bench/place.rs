//! Databases that are made, opened as by several nodes, measured and removed.
//!
//! Not a fixture of tests: its errors end the program. Invariant: both kinds keep their default
//! durability, and a size is of everything but the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::NoTls;

use anima_store::database::{Location, Opener, open};
use anima_store::ledger::{BatchObserver, LedgerStore};

use super::{Failure, sample};

/// Tables and indexes by their size.
const SQLITE_PARTS: &str = "
    SELECT name, sum(pgsize) FROM dbstat WHERE aggregate = 0
    GROUP BY name ORDER BY 2 DESC LIMIT 12";

/// The same; a table with its free space map and what lies beside it, without its indexes.
const POSTGRES_PARTS: &str = "
    SELECT c.relname::text,
           CASE c.relkind WHEN 'r' THEN pg_table_size(c.oid) ELSE pg_relation_size(c.oid) END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'i')
    ORDER BY 2 DESC LIMIT 12";

/// A database.
#[derive(Debug)]
pub(super) enum Place {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database: its server's URL, its name.
    Postgres(String, String),
}

/// An open ledger.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) ledger: Arc<dyn LedgerStore>,
    pub(super) batches: Arc<Batches>,
}

/// Counts transactions and what is in them.
#[derive(Debug, Default)]
pub(super) struct Batches {
    count: AtomicU32,
    operations: AtomicU32,
}

impl Batches {
    /// Transactions, operations.
    pub(super) fn read(&self) -> (u32, u32) {
        (self.count.load(Ordering::Relaxed), self.operations.load(Ordering::Relaxed))
    }
}

impl BatchObserver for Batches {
    fn committed(&self, holds: usize, settlements: usize, _seconds: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let operations = u32::try_from(holds + settlements).unwrap_or(0);
        self.operations.fetch_add(operations, Ordering::Relaxed);
    }

    fn failed(&self) {}
}

impl Place {
    /// Makes an empty database: a file in `folder`, or on the server.
    pub(super) async fn make(
        folder: &Path,
        server: Option<&str>,
        purpose: &str,
    ) -> Result<Self, Failure> {
        let Some(server) = server else {
            return Ok(Self::Sqlite(folder.join(purpose).join("ledger.db")));
        };
        let name = format!("anima_bench_{purpose}_{}", std::process::id());
        execute(server, &format!("CREATE DATABASE {name}")).await?;
        Ok(Self::Postgres(server.to_owned(), name))
    }

    /// For tables.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "SQLite FULL",
            Self::Postgres(..) => "PostgreSQL",
        }
    }

    /// How many can have a transaction of their own at once without only waiting for each other.
    pub(super) const fn writers_at_once(&self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(..) => 16,
        }
    }

    /// Opens the ledger as another node.
    pub(super) async fn open(&self) -> Result<Opened, Failure> {
        let batches = Arc::new(Batches::default());
        let opener = Opener { node: sample::id(), observer: Arc::<Batches>::clone(&batches) };
        let location = match self {
            Self::Sqlite(path) => Location::Sqlite(path.clone()),
            Self::Postgres(server, name) => Location::Postgres(url(server, name)),
        };
        let ledger = open(&location, &opener).await?.ledger;
        Ok(Opened { ledger, batches })
    }

    /// Bytes on disk: tables, indexes and what is free in them, without the log.
    pub(super) async fn size(&self) -> Result<u64, Failure> {
        match self {
            Self::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path)?;
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                Ok(std::fs::metadata(path)?.len())
            }
            Self::Postgres(server, name) => {
                let (client, driver) = tokio_postgres::connect(&url(server, name), NoTls).await?;
                let driver = tokio::spawn(driver);
                client.batch_execute("CHECKPOINT").await?;
                let row = client.query_one("SELECT pg_database_size(current_database())", &[]);
                let size: i64 = row.await?.try_get(0)?;
                drop(client);
                driver.await??;
                Ok(size.unsigned_abs())
            }
        }
    }

    /// Bytes of each table and index that has a page per hundred requests, the largest first.
    pub(super) async fn parts(&self) -> Result<Vec<(String, u64)>, Failure> {
        match self {
            Self::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path)?;
                let mut parts = connection.prepare(SQLITE_PARTS)?;
                let rows = parts
                    .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
                Ok(rows.collect::<Result<_, _>>()?)
            }
            Self::Postgres(server, name) => {
                let (client, driver) = tokio_postgres::connect(&url(server, name), NoTls).await?;
                let driver = tokio::spawn(driver);
                let rows = client.query(POSTGRES_PARTS, &[]).await?;
                drop(client);
                driver.await??;
                let part = |row: &tokio_postgres::Row| {
                    Ok::<_, Failure>((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()))
                };
                rows.iter().map(part).collect()
            }
        }
    }

    /// Removes it, whatever still uses it.
    pub(super) async fn remove(self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(path) => {
                let folder = path.parent().ok_or("a file has a folder")?;
                Ok(std::fs::remove_dir_all(folder)?)
            }
            Self::Postgres(server, name) => {
                execute(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await
            }
        }
    }
}

/// The URL of another database of the server.
fn url(server: &str, name: &str) -> String {
    let head = server.rsplit_once('/').map_or(server, |(head, _)| head);
    format!("{head}/{name}")
}

async fn execute(server: &str, statement: &str) -> Result<(), Failure> {
    let (client, driver) = tokio_postgres::connect(server, NoTls).await?;
    let driver = tokio::spawn(driver);
    client.batch_execute(statement).await?;
    drop(client);
    driver.await??;
    Ok(())
}
