//! Connections to one SQLite file, used off the async threads.
//!
//! One writes, a few read; the ledger's writer has its own. Every piece of work is one transaction.
//! Invariant: a transaction that failed is rolled back before the connection serves another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::config::Error;
use crate::database::OpenError;

/// Readers kept open. More may read at once; what is above this is closed afterwards.
const KEPT_READERS: usize = 4;

/// The connections to one file.
pub(crate) struct Connections {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Connections {
    /// Opens the file and brings its schema up to date. Blocks.
    ///
    /// # Errors
    /// Any of [`OpenError`] that is about opening.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut writer = super::open(path)?;
        super::migrate(&mut writer)?;
        let readers = Mutex::new(vec![super::open_reader(path)?]);
        Ok(Self { path: path.to_owned(), writer: Mutex::new(writer), readers })
    }

    /// Reads in one transaction, so from one state of the database.
    ///
    /// # Errors
    /// Those of `work`, or [`Error::Unavailable`].
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let connections = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || connections.read_now(work));
        reading.await.map_err(|e| Error::Unavailable(e.to_string()))?
    }

    /// Writes in one transaction, which is on disk when this returns `Ok`.
    ///
    /// # Errors
    /// Those of `work`, after which nothing is written; or [`Error::Unavailable`].
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let connections = Arc::clone(self);
        let writing = tokio::task::spawn_blocking(move || {
            let mut writer = connections.writer.lock();
            // The lock is taken at the start: taken later, the other writer's commit would fail us.
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        writing.await.map_err(|e| Error::Unavailable(e.to_string()))?
    }

    fn read_now<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let kept = self.readers.lock().pop();
        let mut reader = match kept {
            Some(reader) => reader,
            None => {
                super::open_reader(&self.path).map_err(|e| Error::Unavailable(e.to_string()))?
            }
        };
        let transaction = reader.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        let mut readers = self.readers.lock();
        if readers.len() < KEPT_READERS {
            readers.push(reader);
        }
        Ok(done)
    }
}
