//! Permits in Redis: one sorted set of probes by the end of their lease, one hash with the opening
//! and its passed probes, for each circuit.
//!
//! Invariant: both keys end by themselves once nobody probes any more.

use std::sync::LazyLock;

use ::redis::Script;
use async_trait::async_trait;

use super::{Asked, ProbeStore, Returned};
use crate::redis::{Error, Redis};
use crate::redis_keys;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/take.lua")));
static GIVE_BACK: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/give_back.lua")));

/// An opening that nobody has probed for so long is forgotten: openings last minutes.
const KEPT_MS: u64 = 3_600_000;

/// Permits in Redis.
#[derive(Debug, Clone)]
pub struct RedisProbes(pub Redis);

#[async_trait]
impl ProbeStore for RedisProbes {
    async fn take(&self, circuit: &str, asked: Asked) -> Result<bool, Error> {
        let Asked { epoch, token, now, until, limit } = asked;
        let arguments = (epoch, token, now.millis(), until.millis(), limit, KEPT_MS);
        let keys = redis_keys::probes(circuit);
        let granted: i64 = self.0.script(&TAKE, &keys, arguments).await?;
        Ok(granted == 1)
    }

    async fn give_back(&self, circuit: &str, returned: Returned) -> Result<u32, Error> {
        let Returned { epoch, token, passed, ends } = returned;
        let arguments = (epoch, token, u8::from(passed), u8::from(ends), KEPT_MS);
        let keys = redis_keys::probes(circuit);
        self.0.script(&GIVE_BACK, &keys, arguments).await
    }
}
