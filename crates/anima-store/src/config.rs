//! The configuration's store: versioned rows, live switches, history and audit.
//!
//! Contract, for every backend:
//! - A row is a chain of versions; at most one is in force at any instant, and the database itself
//!   refuses overlap. History stays. Prices of one scope do not overlap, whatever their code.
//! - A write names the `version_no` that it read, which must be the row's latest; else
//!   [`Error::VersionConflict`] with the latest version, and nothing changes.
//! - A new version closes what is in force at its start, or takes the place of a scheduled version
//!   of the same start. Without an end of its own it ends where the next scheduled version begins;
//!   with one that reaches beyond that, it is refused.
//! - History is not rewritten: a version starts at the time of the write or later, and no sooner
//!   than the last change of its row, also when the clocks of two nodes differ.
//! - `enabled` belongs to the row, not to a version: switching it needs no `version_no`, and no
//!   scheduled version turns it back on.
//! - A batch is one transaction with its audit, a gap-free revision and an event (`publish`).

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use anima_core::clock::Timestamp;
use anima_core::config::{Resource, Tables, Version};

mod decide;
pub(crate) mod postgres;
pub mod publish;
mod rows;
mod sql;
pub(crate) mod sqlite;

use publish::Notice;
pub(crate) use rows::{damaged, typed};

/// A row whose body has not been given a type.
pub type Row = Version<Value>;

/// Why a read or write failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such row.
    #[error("no such {}", .0.name())]
    NotFound(Resource),
    /// A row of that code exists already.
    #[error("a {} of that code exists already", .0.name())]
    Exists(Resource),
    /// The write was made from an outdated version.
    #[error("the row was changed in the meantime")]
    VersionConflict(Box<Row>),
    /// The window is empty, or overlaps another version of the row or another price of its scope.
    #[error("the window does not fit: {0}")]
    Overlap(String),
    /// The database does not answer.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A stored row cannot be read.
    #[error("a stored row cannot be read: {0}")]
    Damaged(String),
}

/// Who changes something, and why.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The admin token's name.
    pub name: String,
    /// The reason that was given; may be empty.
    pub reason: String,
}

/// A version to be written.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Which table.
    pub resource: Resource,
    /// The row's code; for a key its `kid`.
    pub code: String,
    /// For a key, its app.
    pub app: Option<String>,
    /// What the row will say. Secrets are sealed already.
    pub body: Value,
    /// For a price, what it is for.
    pub scope: Option<String>,
    /// In force from here; `None` is now. Never in the past.
    pub effective_from: Option<Timestamp>,
    /// In force until here; `None` is open, or until the next scheduled version.
    pub effective_to: Option<Timestamp>,
    /// For a new key, the hash of its secret.
    pub secret_hash: Option<[u8; 32]>,
}

/// One audit record.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Counts up.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What: `create`, `change`, `switch`, `delete`, `restore`, `topup`, ….
    pub action: String,
    /// Which kind of thing.
    pub resource: String,
    /// Which one.
    pub code: String,
    /// Why.
    pub reason: String,
    /// As it was. Without secrets.
    pub before: Option<Value>,
    /// As it is. Without secrets.
    pub after: Option<Value>,
}

/// Reads and writes the configuration. See the module's contract.
#[async_trait]
pub trait ConfigStore: Send + Sync + fmt::Debug {
    /// Everything but apps and keys: versions in force at `now` or later, and the revision.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn tables(&self, now: Timestamp) -> Result<Tables, Error>;

    /// The number of the last change.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn rev(&self) -> Result<i64, Error>;

    /// Rows as of `now` (the version in force, else the next, else the last), by code. `app`
    /// narrows keys to one app; `after` is the last code of the page before.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn list(&self, page: Page<'_>, now: Timestamp) -> Result<Vec<Row>, Error>;

    /// All versions of one row, newest first, also after it was deleted. Empty when there never was
    /// such a row. A scheduled version that was cancelled or replaced has an empty window.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn versions(&self, resource: Resource, code: &str) -> Result<Vec<Row>, Error>;

    /// Applies all changes of a batch, or none; of a rehearsal none, whatever it would have given.
    ///
    /// # Errors
    /// Which change was refused, and why.
    async fn commit(
        &self,
        batch: Batch,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Committed, Rejected>;

    /// Records what was done beside the configuration.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn record(&self, record: AuditRecord) -> Result<(), Error>;

    /// Audit records, newest first, before the given id.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn audit(&self, before: Option<i64>, limit: u32) -> Result<Vec<AuditRecord>, Error>;
}

impl dyn ConfigStore {
    /// Applies one change and gives the row as it then is: the version that was written.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub async fn change(
        &self,
        change: Change,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Row, Error> {
        let batch = Batch { changes: vec![change], rehearsal: false };
        let committed = self.commit(batch, actor, now).await.map_err(|refused| refused.error)?;
        let row = committed.steps.into_iter().next().map(|step| step.after);
        row.ok_or_else(|| Error::Damaged("a batch of one change gave no row".to_owned()))
    }
}

/// Changes that are made together or not at all.
#[derive(Debug, Clone)]
pub struct Batch {
    /// In the order in which they are made; a later one sees the ones before it.
    pub changes: Vec<Change>,
    /// Decide and check everything, then write nothing.
    pub rehearsal: bool,
}

/// What a batch did, or would have done.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// The number of the change: all of the batch has one.
    pub rev: i64,
    /// One per change.
    pub steps: Vec<Step>,
}

/// What one change of a batch did.
#[derive(Debug, Clone)]
pub struct Step {
    /// The row as of then; `None` when there was none.
    pub before: Option<Row>,
    /// The row as it then is: the version that was written.
    pub after: Row,
}

/// Why a batch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change {index} of the batch: {error}")]
pub struct Rejected {
    /// Position of the change that was refused; the last one when it was the commit.
    pub index: usize,
    /// Why.
    pub error: Error,
}

/// Which rows to list.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// Which table.
    pub resource: Resource,
    /// For keys, of which app.
    pub app: Option<&'a str>,
    /// Start after this code.
    pub after: Option<&'a str>,
    /// At most this many.
    pub limit: u32,
}

/// A change of the configuration.
#[derive(Debug, Clone)]
pub enum Change {
    /// A row that does not exist, or was deleted.
    Create(NewVersion),
    /// A further version of a row.
    Add {
        /// What it will say.
        version: NewVersion,
        /// The latest `version_no`, as the writer read it.
        read: i64,
        /// The word for the audit record: `change` or `restore`.
        action: &'static str,
    },
    /// The live switch.
    Switch {
        /// Which table.
        resource: Resource,
        /// Which row.
        code: String,
        /// On or off.
        enabled: bool,
        /// Whether nodes end what streams through the row, rather than let it finish.
        cut: bool,
    },
    /// Takes back a version that has not begun. What it would have ended goes on in its place.
    Cancel {
        /// Which table.
        resource: Resource,
        /// Which row.
        code: String,
        /// Which version.
        version_no: i64,
        /// The latest `version_no`, if the writer stated it.
        read: Option<i64>,
    },
    /// Ends a row now and cancels what was scheduled. Its history stays.
    Delete {
        /// Which table.
        resource: Resource,
        /// Which row.
        code: String,
        /// The latest `version_no`, if the writer stated it.
        read: Option<i64>,
    },
}

impl Change {
    /// Which row it is about.
    fn target(&self) -> (Resource, &str) {
        match self {
            Self::Create(version) | Self::Add { version, .. } => (version.resource, &version.code),
            Self::Switch { resource, code, .. }
            | Self::Cancel { resource, code, .. }
            | Self::Delete { resource, code, .. } => (*resource, code),
        }
    }

    /// The version it writes, if it writes one.
    pub const fn version(&self) -> Option<&NewVersion> {
        match self {
            Self::Create(version) | Self::Add { version, .. } => Some(version),
            Self::Switch { .. } | Self::Cancel { .. } | Self::Delete { .. } => None,
        }
    }

    /// What other nodes are told.
    fn notice(&self) -> Notice {
        let (resource, code) = self.target();
        let cut = matches!(self, Self::Switch { enabled: false, cut: true, .. });
        Notice::Row { resource, code: code.to_owned(), cut }
    }
}

#[cfg(test)]
pub(crate) mod tests;
