//! A node's database that is away for a while.
//!
//! A PostgreSQL database lets nobody in any more. A SQLite file cannot be taken away from under its
//! process; somebody else begins to write in it and does not end. Invariant: what is not given back
//! is back when the value is dropped, on SQLite.

use std::time::Duration;

use anima_store::database::Location;
use rusqlite::Connection;

use super::TestApp;

/// Gives it back.
#[derive(Debug)]
pub(crate) enum Away {
    Sqlite(Connection),
    Postgres,
}

impl TestApp {
    /// Nothing can be written in the database from now on.
    pub(crate) async fn take_database_away(&self) -> Away {
        let Location::Sqlite(file) = self.location() else {
            self.place.close().await;
            return Away::Postgres;
        };
        let writer = Connection::open(file).unwrap();
        writer.busy_timeout(Duration::from_secs(10)).unwrap();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        Away::Sqlite(writer)
    }
}

impl Away {
    pub(crate) async fn give_back(self, app: &TestApp) {
        match self {
            Self::Sqlite(writer) => writer.execute_batch("ROLLBACK").unwrap(),
            Self::Postgres => app.place.open().await,
        }
    }
}
