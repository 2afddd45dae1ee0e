//! Shared state between nodes, in Redis.
//!
//! Not here: what the values mean. Invariant: every value has an end, so that what nobody
//! refreshes does not stay; hashes are small, one field per node or circuit.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::SharedState;
use crate::redis::{Error, Redis};
use crate::redis_keys::Key;

/// Shared state in Redis.
#[derive(Debug, Clone)]
pub struct RedisState(pub Redis);

impl RedisState {
    fn command(&self, name: &str, key: &Key) -> ::redis::Cmd {
        let mut command = ::redis::cmd(name);
        command.arg(self.0.key(key));
        command
    }
}

#[async_trait]
impl SharedState for RedisState {
    async fn value(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let found: Option<Vec<u8>> = self.0.command(&self.command("GET", key)).await?;
        Ok(found.map(Bytes::from))
    }

    async fn put(&self, key: &Key, value: Bytes, ttl: Duration) -> Result<(), Error> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut command = self.command("SET", key);
        command.arg(&value[..]).arg("PX").arg(ttl_ms);
        self.0.command(&command).await
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        self.0.command(&self.command("DEL", key)).await
    }

    async fn fields(&self, hash: &Key) -> Result<Vec<(String, Bytes)>, Error> {
        let found: Vec<(String, Vec<u8>)> = self.0.command(&self.command("HGETALL", hash)).await?;
        Ok(found.into_iter().map(|(field, value)| (field, Bytes::from(value))).collect())
    }

    async fn set_field(&self, hash: &Key, field: &str, value: Bytes) -> Result<(), Error> {
        let mut command = self.command("HSET", hash);
        command.arg(field).arg(&value[..]);
        self.0.command(&command).await
    }

    async fn remove_field(&self, hash: &Key, field: &str) -> Result<(), Error> {
        let mut command = self.command("HDEL", hash);
        command.arg(field);
        self.0.command(&command).await
    }
}
