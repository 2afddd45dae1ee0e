//! What nodes share: short-lived values, and hashes to which each node adds its part.
//!
//! Contract: a value is gone when its time is over, and may be gone before; nobody may rely on
//! what is kept here. Each operation is atomic on its own. Every operation ends within the
//! backend's bound; [`Error::Down`] says that nothing was done. Scripts, which only Redis has, are
//! run over [`Shared::redis`] by the capabilities that bring an in-process twin of their own.
//! Backends: [`memory`] within a process, [`redis`] between nodes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::pubsub::PubSub;
use crate::pubsub::memory::MemoryPubSub;
use crate::pubsub::redis::RedisPubSub;
use crate::redis::{Error, Options, Redis, WrongUrl};
use crate::redis_keys::Key;

pub mod memory;
pub mod redis;
#[cfg(test)]
mod tests;

/// Keeps values and hashes. See the module for the contract.
#[async_trait]
pub trait SharedState: Send + Sync + fmt::Debug {
    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// When the backend does not answer.
    async fn value(&self, key: &Key) -> Result<Option<Bytes>, Error>;

    /// Sets a value for as long as `ttl`.
    ///
    /// # Errors
    /// When it is not known that it was set.
    async fn put(&self, key: &Key, value: Bytes, ttl: Duration) -> Result<(), Error>;

    /// Removes a value or a whole hash.
    ///
    /// # Errors
    /// When it is not known that it is gone.
    async fn remove(&self, key: &Key) -> Result<(), Error>;

    /// All fields of a hash, in no order; empty when there is none.
    ///
    /// # Errors
    /// When the backend does not answer.
    async fn fields(&self, hash: &Key) -> Result<Vec<(String, Bytes)>, Error>;

    /// Sets a field of a hash. Hashes have no end: whoever reads decides what is too old.
    ///
    /// # Errors
    /// When it is not known that it was set.
    async fn set_field(&self, hash: &Key, field: &str, value: Bytes) -> Result<(), Error>;

    /// Removes a field of a hash, if it is there.
    ///
    /// # Errors
    /// When it is not known that it is gone.
    async fn remove_field(&self, hash: &Key, field: &str) -> Result<(), Error>;
}

/// Everything that nodes share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Values and hashes.
    pub state: Arc<dyn SharedState>,
    /// Messages.
    pub pubsub: Arc<dyn PubSub>,
    /// Redis, where there is one.
    pub redis: Option<Redis>,
}

impl Shared {
    /// Within this process.
    pub fn in_process() -> Self {
        Self {
            state: Arc::new(memory::MemoryState::default()),
            pubsub: Arc::new(MemoryPubSub::default()),
            redis: None,
        }
    }

    /// Over Redis. Returns at once; connecting goes on in the background.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn over_redis(url: &str, options: Options) -> Result<Self, WrongUrl> {
        let redis = Redis::open(url, options)?;
        Ok(Self {
            state: Arc::new(redis::RedisState(redis.clone())),
            pubsub: Arc::new(RedisPubSub::new(redis.clone())),
            redis: Some(redis),
        })
    }

    /// Whether there is shared state and it is away.
    pub fn is_down(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| !redis.is_up())
    }

    /// `in_process`, `single`, `sentinel` or `cluster`.
    pub fn kind(&self) -> &'static str {
        self.redis.as_ref().map_or("in_process", Redis::kind)
    }
}
