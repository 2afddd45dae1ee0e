//! Shared state of a single process: the embedded twin of Redis.
//!
//! Time is tokio's, which tests can move. Invariant: what is over is never handed out, and the
//! number of values that are over and still in memory is bounded by that of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::SharedState;
use crate::redis::Error;
use crate::redis_keys::Key;

/// Values below this number are not swept.
const SWEEP_FROM: usize = 1_024;

/// Shared state within this process.
#[derive(Debug, Default)]
pub struct MemoryState {
    values: Mutex<Values>,
    hashes: Mutex<BTreeMap<Key, BTreeMap<String, Bytes>>>,
}

#[derive(Debug, Default)]
struct Values {
    by_key: BTreeMap<Key, (Bytes, Instant)>,
    /// Number of values at which the next sweep is due.
    sweep_at: usize,
}

impl Values {
    fn put(&mut self, key: Key, value: Bytes, (now, ends): (Instant, Instant)) {
        self.by_key.insert(key, (value, ends));
        if self.by_key.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.by_key.retain(|_, (_, ends)| *ends > now);
            self.sweep_at = self.by_key.len().saturating_mul(2);
        }
    }
}

#[cfg(test)]
impl MemoryState {
    pub(super) fn len(&self) -> usize {
        self.values.lock().by_key.len()
    }
}

#[async_trait]
impl SharedState for MemoryState {
    async fn value(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let now = Instant::now();
        let values = self.values.lock();
        let found = values.by_key.get(key).filter(|(_, ends)| *ends > now);
        Ok(found.map(|(value, _)| value.clone()))
    }

    async fn put(&self, key: &Key, value: Bytes, ttl: Duration) -> Result<(), Error> {
        let now = Instant::now();
        self.values.lock().put(key.clone(), value, (now, now + ttl));
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        self.values.lock().by_key.remove(key);
        self.hashes.lock().remove(key);
        Ok(())
    }

    async fn fields(&self, hash: &Key) -> Result<Vec<(String, Bytes)>, Error> {
        let hashes = self.hashes.lock();
        let fields = hashes.get(hash).into_iter().flatten();
        Ok(fields.map(|(field, value)| (field.clone(), value.clone())).collect())
    }

    async fn set_field(&self, hash: &Key, field: &str, value: Bytes) -> Result<(), Error> {
        self.hashes.lock().entry(hash.clone()).or_default().insert(field.to_owned(), value);
        Ok(())
    }

    async fn remove_field(&self, hash: &Key, field: &str) -> Result<(), Error> {
        if let Some(fields) = self.hashes.lock().get_mut(hash) {
            fields.remove(field);
        }
        Ok(())
    }
}
