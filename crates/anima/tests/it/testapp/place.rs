//! Where a test's database is: a SQLite file of the node's own, or a PostgreSQL database that is
//! made for the test and dropped with it.
//!
//! PostgreSQL is the server of `ANIMA_TEST_POSTGRES_URL`, whose user may create databases. Without
//! it those tests say so and pass, unless `ANIMA_TEST_REQUIRE_POSTGRES=1`. Databases are copies of
//! a template with the schema, one per state of the migrations, which stays for further runs.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anima_simulator::proxy::Proxy;
use anima_store::database::{self, Location};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// The two databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// A database for one test.
#[derive(Debug)]
pub(crate) enum Place {
    Sqlite,
    Postgres(Scratch),
}

/// A PostgreSQL database, dropped with the value, whatever still uses it.
#[derive(Debug)]
pub(crate) struct Scratch {
    server: String,
    name: String,
    /// Where nodes find it, if not at the server itself.
    through: Option<SocketAddr>,
}

impl Backend {
    /// A fresh database, or `None` where there is no server to make it on.
    pub(crate) async fn place(self) -> Option<Place> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if self == Self::Sqlite {
            return Some(Place::Sqlite);
        }
        let Some(server) = variable("ANIMA_TEST_POSTGRES_URL") else {
            let required = variable("ANIMA_TEST_REQUIRE_POSTGRES").as_deref() == Some("1");
            assert!(!required, "ANIMA_TEST_POSTGRES_URL is not set");
            eprintln!("skipped: ANIMA_TEST_POSTGRES_URL is not set");
            return None;
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("anima_it_{}_{count}", std::process::id());
        let left_over = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        let copy = format!("CREATE DATABASE {name} TEMPLATE {}", template(&server).await);
        execute(&server, &[left_over, copy]).await;
        LIVE.fetch_add(1, Ordering::AcqRel);
        Some(Place::Postgres(Scratch { server, name, through: None }))
    }
}

impl Place {
    /// The setting for it, unless it is the default.
    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(Scratch { server, name, through }) => {
                let url = url(server, name);
                Some(through.map_or(url.clone(), |there| moved(&url, there)))
            }
        }
    }

    /// Has nodes come through a proxy that the test can break.
    pub(crate) async fn behind_proxy(&mut self) -> Proxy {
        let Self::Postgres(scratch) = self else { panic!("only for PostgreSQL") };
        let proxy = proxy_before(&scratch.server).await;
        scratch.through = Some(proxy.address());
        proxy
    }

    /// Whether the database can be made unreachable for a while.
    pub(crate) fn can_be_closed(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Runs a statement in the database, beside the node.
    pub(crate) async fn run(&self, statement: &str) {
        let Self::Postgres(Scratch { server, name, .. }) = self else {
            panic!("only for PostgreSQL")
        };
        execute(&url(server, name), &[statement.to_owned()]).await;
    }

    /// Makes the database unreachable.
    pub(crate) async fn close(&self) {
        let Self::Postgres(Scratch { server, name, .. }) = self else {
            panic!("only for PostgreSQL")
        };
        let ends = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        execute(server, &[format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"), ends]).await;
    }

    /// Makes it reachable again.
    pub(crate) async fn open(&self) {
        let Self::Postgres(Scratch { server, name, .. }) = self else {
            panic!("only for PostgreSQL")
        };
        execute(server, &[format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")]).await;
    }

    /// Takes the database away from under the node. Not possible for an open file.
    pub(crate) async fn destroy(&self) {
        let Self::Postgres(Scratch { server, name, .. }) = self else {
            panic!("only for PostgreSQL")
        };
        execute(server, &[format!("DROP DATABASE {name} WITH (FORCE)")]).await;
    }
}

/// PostgreSQL databases in use.
static LIVE: AtomicU32 = AtomicU32::new(0);
/// Those to be dropped.
static LEFT: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Drop for Scratch {
    /// Dropping a database takes a checkpoint, so only the last one waits for it: all others are
    /// gone by then too.
    fn drop(&mut self) {
        LEFT.lock().unwrap().push(self.name.clone());
        let server = self.server.clone();
        let dropping = std::thread::spawn(move || drop_left(&server));
        if LIVE.fetch_sub(1, Ordering::AcqRel) == 1 && dropping.join().is_err() {
            eprintln!("a scratch database could not be dropped");
        }
    }
}

fn drop_left(server: &str) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap();
    let names = std::mem::take(&mut *LEFT.lock().unwrap());
    let statement = |name| format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    let statements: Vec<String> = names.into_iter().map(statement).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(execute(server, &statements));
}

/// A proxy before the server of a URL.
async fn proxy_before(url: &str) -> Proxy {
    let server = tokio::net::lookup_host(host(url)).await.unwrap().next().unwrap();
    Proxy::start(server).await.unwrap()
}

/// A Redis behind a proxy, as the URL that leads through it; `None` where there is none.
pub(crate) async fn redis_behind_proxy() -> Option<(Proxy, String)> {
    let Some(url) = variable("ANIMA_TEST_REDIS_URL") else {
        eprintln!("skipped: ANIMA_TEST_REDIS_URL is not set");
        return None;
    };
    let proxy = proxy_before(&url).await;
    let through = moved(&url, proxy.address());
    Some((proxy, through))
}

/// `HOST:PORT` of a URL.
fn host(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap();
    let authority = rest.split('/').next().unwrap();
    authority.rsplit('@').next().unwrap()
}

/// A URL with another host.
fn moved(url: &str, there: SocketAddr) -> String {
    url.replacen(host(url), &there.to_string(), 1)
}

/// The URL of another database of the server.
fn url(server: &str, name: &str) -> String {
    let (head, _) = server.rsplit_once('/').unwrap();
    format!("{head}/{name}")
}

/// The template's name, made when it is not there.
async fn template(server: &str) -> &'static str {
    static NAME: OnceCell<String> = OnceCell::const_new();
    NAME.get_or_init(async || {
        let name = format!("anima_it_template_{:016x}", schema_hash());
        connected(server, async |client| make_template(client, server, &name).await).await;
        name
    })
    .await
}

async fn make_template(client: &Client, server: &str, name: &str) {
    // Another process may be making it. The lock ends with the connection.
    client.batch_execute("SELECT pg_advisory_lock(20260101)").await.unwrap();
    let there = "SELECT 1 FROM pg_database WHERE datname = $1";
    if client.query_opt(there, &[&name]).await.unwrap().is_some() {
        return;
    }
    let making = format!("{name}_making");
    let statement = format!("DROP DATABASE IF EXISTS {making} WITH (FORCE)");
    client.batch_execute(&statement).await.unwrap();
    client.batch_execute(&format!("CREATE DATABASE {making}")).await.unwrap();
    database::migrate(&Location::Postgres(url(server, &making))).await.unwrap();
    let free = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
    client.query(free, &[&making]).await.unwrap();
    client.batch_execute(&format!("ALTER DATABASE {making} RENAME TO {name}")).await.unwrap();
}

/// Tells the states of the migrations apart.
fn schema_hash() -> u64 {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../anima-store/migrations/postgres");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).unwrap().hash(&mut hasher);
    }
    hasher.finish()
}

async fn execute(server: &str, statements: &[String]) {
    connected(server, async |client| {
        for statement in statements {
            client.batch_execute(statement).await.unwrap();
        }
    })
    .await;
}

async fn connected(server: &str, work: impl AsyncFnOnce(&Client)) {
    let (client, connection) = tokio_postgres::connect(server, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    work(&client).await;
    drop(client);
    driver.await.unwrap().unwrap();
}

/// A variable of the test's own environment.
#[expect(clippy::disallowed_methods, reason = "tests take their servers from outside")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
