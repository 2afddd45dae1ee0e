//! Where a test's database is: a SQLite file of the node's own, or a PostgreSQL database that is
//! made for the test and dropped with it.
//!
//! PostgreSQL is the server of `ANIMA_TEST_POSTGRES_URL`, whose user may create databases. Without
//! it those tests say so and pass, unless `ANIMA_TEST_REQUIRE_POSTGRES=1`.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_postgres::NoTls;

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
        execute(&server, &[&left_over, &format!("CREATE DATABASE {name}")]).await;
        Some(Place::Postgres(Scratch { server, name }))
    }
}

impl Place {
    /// The setting for it, unless it is the default.
    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(scratch) => {
                let (head, _) = scratch.server.rsplit_once('/').unwrap();
                Some(format!("{head}/{}", scratch.name))
            }
        }
    }

    /// Takes the database away from under the node. Not possible for an open file.
    pub(crate) async fn destroy(&self) {
        let Self::Postgres(Scratch { server, name }) = self else { panic!("only for PostgreSQL") };
        execute(server, &[&format!("DROP DATABASE {name} WITH (FORCE)")]).await;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            runtime.unwrap().block_on(execute(&server, &[&statement]));
        });
        if dropped.join().is_err() {
            eprintln!("the scratch database {} could not be dropped", self.name);
        }
    }
}

async fn execute(server: &str, statements: &[&str]) {
    let (client, connection) = tokio_postgres::connect(server, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
    drop(client);
    driver.await.unwrap().unwrap();
}

/// A variable of the test's own environment.
#[expect(clippy::disallowed_methods, reason = "tests take their servers from outside")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
