//! Opens either database, brings its schema up to date, and hands out the capability traits.
//!
//! The only place that knows which backend is in use. Invariant: what is handed out has a schema
//! of exactly this binary's version.

use std::sync::Arc;

use uuid::Uuid;

use crate::config::ConfigStore;
use crate::keys::KeyStore;
use crate::ledger::{BatchObserver, LedgerStore};

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file, made when absent.
    Sqlite(std::path::PathBuf),
    /// A PostgreSQL URL.
    Postgres(String),
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is neither `sqlite://PATH` nor `postgres://…`.
    #[error("expected sqlite://PATH or postgres://USER@HOST/DATABASE")]
    NotUrl,
    /// The database cannot be reached or opened.
    #[error("failed to open the database: {0}")]
    Unreachable(String),
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
    /// Hashes of keys and tokens.
    pub keys: Arc<dyn KeyStore>,
    /// Money.
    pub ledger: Arc<dyn LedgerStore>,
}

/// Who opens the database.
#[derive(Debug, Clone)]
pub struct Opener {
    /// This process start; holds carry it.
    pub node: Uuid,
    /// Told about each ledger batch.
    pub observer: Arc<dyn BatchObserver>,
}
