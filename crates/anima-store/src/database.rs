//! Opens either database, brings its schema up to date, and hands out the capability traits.
//!
//! The only place that knows which backend is in use. Invariant: what is handed out has a schema
//! of exactly this binary's version.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config::ConfigStore;
use crate::config::postgres::PostgresConfig;
use crate::config::publish::{self, PublishStore};
use crate::config::sqlite::SqliteConfig;
use crate::decisions::{DecisionStore, PostgresDecisions, SqliteDecisions};
use crate::idempotency::IdempotencyStore;
use crate::idempotency::postgres::PostgresIdempotency;
use crate::idempotency::sqlite::SqliteIdempotency;
use crate::keys::KeyStore;
use crate::keys::postgres::PostgresKeys;
use crate::keys::sqlite::SqliteKeys;
use crate::ledger::money::{self, Money};
use crate::ledger::{self, Auditor, BatchObserver, LedgerStore};
use crate::nodes::{NodeStore, PostgresNodes, SqliteNodes};
use crate::postgres::Link;
use crate::probe::FileProbe;
use crate::quota::Spend;
use crate::quota::spend::{PostgresSpend, SqliteSpend};
use crate::sqlite::connections::Connections;
use crate::tasks::{TaskBooks, TaskHooks, TaskQueue, TaskUpkeep, Tasks};
use crate::{postgres, sqlite};

/// Connections of a node for configuration and keys. Their statements take about a millisecond, so
/// this many serve thousands of look-ups a second.
const POOL: usize = 8;

/// Connections of a node for tasks, whose rows may be megabytes: they do not keep keys waiting.
const TASK_POOL: usize = 4;

/// How long a database that is well may take to answer one small read.
const HEALTHY: Duration = Duration::from_secs(2);

pub use crate::probe::Probe;

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file, made when absent.
    Sqlite(std::path::PathBuf),
    /// A PostgreSQL URL.
    Postgres(String),
}

impl fmt::Debug for Location {
    /// Leaves the URL out: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.debug_tuple("Postgres").finish_non_exhaustive(),
        }
    }
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is neither `sqlite://PATH` nor `postgres://…`.
    #[error("expected sqlite://PATH or postgres://USER@HOST/DATABASE")]
    NotUrl,
    /// The database cannot be opened, and will not open by itself: a wrong URL, a refused login.
    #[error("failed to open the database: {0}")]
    Unreachable(String),
    /// The database does not answer now, and may later.
    #[error("the database does not answer: {0}")]
    Away(String),
    /// The schema cannot be brought up to date.
    #[error("failed to migrate the database: {0}")]
    Migration(String),
}

impl Location {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`OpenError::NotUrl`].
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        if let Some(path) = url.strip_prefix("sqlite://")
            && !path.is_empty()
        {
            return Ok(Self::Sqlite(path.into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        Err(OpenError::NotUrl)
    }
}

/// The capabilities of one open database.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Configuration.
    pub config: Arc<dyn ConfigStore>,
    /// What tells nodes about changes, and the escape hatches.
    pub publish: Arc<dyn PublishStore>,
    /// Hashes of keys and tokens.
    pub keys: Arc<dyn KeyStore>,
    /// Money.
    pub ledger: Arc<dyn LedgerStore>,
    /// Money that people move, and reports.
    pub money: Arc<dyn Money>,
    /// The invariants of the books.
    pub auditor: Arc<dyn Auditor>,
    /// Answers kept for requests that are sent again.
    pub idempotency: Arc<dyn IdempotencyStore>,
    /// How calls were routed.
    pub decisions: Arc<dyn DecisionStore>,
    /// What nodes say of themselves.
    pub nodes: Arc<dyn NodeStore>,
    /// Signs of life.
    pub probe: Arc<dyn Probe>,
    /// What was spent, for the counters of limits.
    pub spend: Arc<dyn Spend>,
    /// Work that its caller does not wait for.
    pub tasks: TaskStores,
    /// What all of it stands in.
    pub schema: Schema,
}

/// The schema of a database, on the link of its stores: who waits for it is told with everybody
/// else when the database is found down.
#[derive(Debug, Clone)]
pub struct Schema {
    location: Location,
    link: Link,
}

/// The task table, as each of those who work with it sees it.
#[derive(Debug, Clone)]
pub struct TaskStores {
    /// For callers and operators.
    pub tasks: Arc<dyn Tasks>,
    /// For workers.
    pub queue: Arc<dyn TaskQueue>,
    /// For whoever keeps house.
    pub upkeep: Arc<dyn TaskUpkeep>,
    /// For whoever delivers webhooks.
    pub hooks: Arc<dyn TaskHooks>,
}

impl TaskStores {
    fn of(books: TaskBooks) -> Self {
        let books = Arc::new(books);
        Self {
            tasks: Arc::clone(&books) as Arc<dyn Tasks>,
            queue: Arc::clone(&books) as Arc<dyn TaskQueue>,
            upkeep: Arc::clone(&books) as Arc<dyn TaskUpkeep>,
            hooks: books,
        }
    }
}

/// Who opens the database.
#[derive(Debug, Clone)]
pub struct Opener {
    /// This process start; holds carry it.
    pub node: Uuid,
    /// Told about each ledger batch.
    pub observer: Arc<dyn BatchObserver>,
}

/// Opens a database with a schema of this binary's version. A SQLite file is made when absent, with
/// the folders on its way.
///
/// # Errors
/// [`OpenError`].
pub async fn open(location: &Location, opener: &Opener) -> Result<Stores, OpenError> {
    match location {
        Location::Sqlite(path) => {
            let (path, opener) = (path.clone(), opener.clone());
            blocking(move || open_sqlite(&path, &opener)).await
        }
        Location::Postgres(url) => {
            let schema = Schema::of(location);
            schema.migrate().await?;
            open_postgres(url, opener, schema)
        }
    }
}

/// The same for a node, which must not wait: a PostgreSQL that is not open by then is away, also
/// when that is because another node migrates it.
///
/// # Errors
/// [`OpenError`].
pub async fn open_within(
    location: &Location,
    opener: &Opener,
    within: Duration,
) -> Result<Stores, OpenError> {
    let opening = open(location, opener);
    match location {
        Location::Sqlite(_) => opening.await,
        Location::Postgres(_) => tokio::time::timeout(within, opening)
            .await
            .unwrap_or_else(|_| Err(OpenError::Away(format!("it was not open within {within:?}")))),
    }
}

/// The same for a node that starts while its database is away: nothing is asked of a PostgreSQL
/// yet. Whoever writes waits until [`Schema::migrate`] has succeeded.
///
/// # Errors
/// [`OpenError`].
pub async fn open_unseen(location: &Location, opener: &Opener) -> Result<Stores, OpenError> {
    match location {
        Location::Sqlite(_) => open(location, opener).await,
        Location::Postgres(url) => open_postgres(url, opener, Schema::of(location)),
    }
}

fn open_postgres(url: &str, opener: &Opener, schema: Schema) -> Result<Stores, OpenError> {
    let link = &schema.link;
    let pool = postgres::pool(url, POOL, link)?;
    let ledger = ledger::postgres::open(url, pool.clone(), opener, link)?;
    Ok(Stores {
        config: Arc::new(PostgresConfig(pool.clone())),
        publish: Arc::new(PostgresConfig(pool.clone())),
        keys: Arc::new(PostgresKeys(pool.clone())),
        money: Arc::new(money::Books::Postgres(pool.clone())),
        auditor: Arc::new(money::Books::Postgres(pool.clone())),
        spend: Arc::new(PostgresSpend(pool.clone())),
        nodes: Arc::new(PostgresNodes(pool.clone())),
        decisions: Arc::new(PostgresDecisions(pool.clone())),
        tasks: TaskStores::of(TaskBooks::on_postgres(postgres::pool(url, TASK_POOL, link)?)),
        idempotency: Arc::new(PostgresIdempotency(pool)),
        ledger: Arc::new(ledger),
        probe: Arc::new(postgres::ServerProbe::new(url, link)?),
        schema,
    })
}

/// Brings a database's schema up to date, and nothing else.
///
/// # Errors
/// [`OpenError`].
pub async fn migrate(location: &Location) -> Result<(), OpenError> {
    Schema::of(location).migrate().await
}

impl Schema {
    fn of(location: &Location) -> Self {
        Self { location: location.clone(), link: Link::default() }
    }

    /// Brings it up to date. May take long, and so may the wait for another node that does.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn migrate(&self) -> Result<(), OpenError> {
        match &self.location {
            Location::Sqlite(path) => {
                let path = path.clone();
                blocking(move || sqlite::migrate(&mut sqlite::open(&path)?)).await
            }
            Location::Postgres(url) => {
                postgres::migrate(&postgres::pool(url, 1, &self.link)?).await
            }
        }
    }
}

/// Rings for each change of the configuration that the database itself announces, for ever. SQLite
/// announces nothing. A word may be lost: then changes are found by looking.
pub async fn listen(location: &Location, ring: &(dyn Fn() + Send + Sync)) {
    match location {
        Location::Sqlite(_) => std::future::pending().await,
        Location::Postgres(url) => publish::listen::listen(url, ring).await,
    }
}

impl Stores {
    /// Whether the database answers and the ledger can write to it.
    ///
    /// # Errors
    /// Why it does not, in words for an operator.
    pub async fn ping(&self) -> Result<(), String> {
        match tokio::time::timeout(HEALTHY, self.config.rev()).await {
            Ok(Ok(_)) if self.ledger.healthy() => Ok(()),
            Ok(Ok(_)) => Err("the ledger cannot write to the database".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the database did not answer within {HEALTHY:?}")),
        }
    }
}

fn open_sqlite(path: &Path, opener: &Opener) -> Result<Stores, OpenError> {
    let connections = Arc::new(Connections::open(path)?);
    let config: Arc<dyn ConfigStore> = Arc::new(SqliteConfig(Arc::clone(&connections)));
    Ok(Stores {
        publish: Arc::new(SqliteConfig(Arc::clone(&connections))),
        probe: Arc::new(FileProbe(Arc::clone(&config))),
        config,
        keys: Arc::new(SqliteKeys(Arc::clone(&connections))),
        spend: Arc::new(SqliteSpend(Arc::clone(&connections))),
        nodes: Arc::new(SqliteNodes(Arc::clone(&connections))),
        decisions: Arc::new(SqliteDecisions(Arc::clone(&connections))),
        tasks: TaskStores::of(TaskBooks::Sqlite(Arc::clone(&connections))),
        idempotency: Arc::new(SqliteIdempotency::new(connections)),
        money: Arc::new(money::Books::Sqlite(path.to_owned())),
        auditor: Arc::new(money::Books::Sqlite(path.to_owned())),
        ledger: Arc::new(ledger::sqlite::open(path, opener)?),
        schema: Schema::of(&Location::Sqlite(path.to_owned())),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let working = tokio::task::spawn_blocking(work).await;
    working.map_err(|e| OpenError::Unreachable(e.to_string()))?
}

#[cfg(test)]
mod tests {
    use anima_core::clock::Timestamp;

    use super::*;
    use crate::keys::{AdminToken, Role};

    #[derive(Debug)]
    struct Deaf;

    impl BatchObserver for Deaf {
        fn committed(&self, _holds: usize, _settlements: usize, _seconds: f64) {}
        fn failed(&self) {}
    }

    fn opener() -> Opener {
        Opener { node: Uuid::from_u128(7), observer: Arc::new(Deaf) }
    }

    #[test]
    fn urls_name_the_database() {
        let sqlite = Location::parse("sqlite://a/b.db").unwrap();
        assert_eq!(sqlite, Location::Sqlite("a/b.db".into()));
        let url = "postgres://u:secret@h/d";
        assert_eq!(Location::parse(url).unwrap(), Location::Postgres(url.to_owned()));
        for wrong in ["sqlite://", "mysql://h/d", "a.db", ""] {
            assert!(matches!(Location::parse(wrong), Err(OpenError::NotUrl)), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let location = Location::parse("postgres://u:secret@h/d").unwrap();
        assert!(!format!("{location:?}").contains("secret"));
    }

    #[tokio::test]
    async fn a_sqlite_file_is_made_and_opens_again() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("new/a.db"));
        migrate(&location).await.unwrap();
        open(&location, &opener()).await.unwrap().ping().await.unwrap();
        open(&location, &opener()).await.unwrap().ping().await.unwrap();
    }

    #[tokio::test]
    async fn several_nodes_start_at_once_on_an_empty_database() {
        let Some(scratch) = crate::tests::postgres().await else {
            return;
        };
        let location = Location::Postgres(scratch.url());
        let nodes: Vec<_> = (0..4)
            .map(|_| {
                let location = location.clone();
                tokio::spawn(async move {
                    let stores = open(&location, &opener()).await?;
                    let (name, now) = ("settings".to_owned(), Timestamp::from_micros(1));
                    let token = AdminToken { name, role: Role::Admin, hash: [1; 32] };
                    stores.keys.store_admin_token(token, now).await.unwrap();
                    Ok::<_, OpenError>(stores)
                })
            })
            .collect();
        for node in nodes {
            node.await.unwrap().unwrap().ping().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_away_and_its_stores_open_all_the_same() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let url = format!("postgres://u:secret@127.0.0.1:{port}/d");
        let location = Location::Postgres(url);
        let error = migrate(&location).await.unwrap_err();
        assert!(matches!(error, OpenError::Away(_)), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
        let stores = open_unseen(&location, &opener()).await.unwrap();
        assert!(stores.ping().await.is_err());
    }

    #[tokio::test]
    async fn a_start_that_waits_for_a_migration_goes_on_and_hears_of_an_outage() {
        const WAITS: &str =
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
            WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted";
        let Some(scratch) = crate::tests::postgres().await else {
            return;
        };
        let pool = postgres::pool(&scratch.url(), 1, &Link::default()).unwrap();
        let another = pool.get().await.unwrap();
        another.batch_execute(postgres::LOCK).await.unwrap();
        let location = Location::Postgres(scratch.url());
        let stores = open_unseen(&location, &opener()).await.unwrap();
        let told = tokio::time::timeout(HEALTHY * 2, stores.schema.migrate());
        let (told, ()) = tokio::join!(told, async {
            while another.query_one(WAITS, &[]).await.unwrap().get::<_, i64>(0) == 0 {}
            stores.probe.give_up();
        });
        assert!(matches!(told, Ok(Err(OpenError::Away(_)))), "{told:?}");
        let opened = open_within(&location, &opener(), Duration::from_millis(100)).await;
        assert!(matches!(opened, Err(OpenError::Away(_))));
    }

    #[tokio::test]
    async fn a_database_that_does_not_exist_will_not_come_by_waiting() {
        let Some(scratch) = crate::tests::postgres().await else {
            return;
        };
        let error = migrate(&Location::Postgres(format!("{}_not", scratch.url()))).await;
        assert!(matches!(error, Err(OpenError::Unreachable(_))), "{error:?}");
    }
}
