//! PostgreSQL and Redis as the nodes see them: each behind a proxy that can fail.
//!
//! Not what is done to them, which is the scenarios'. Invariant: the harness itself never goes
//! through a proxy.

use std::path::Path;

use anyhow::Result;

use anima_simulator::proxy::{Mode, Proxy};

use super::plan::Plan;
use super::redis::Redis;
use crate::place::{Behind, Place};

/// Both stores.
#[derive(Debug)]
pub(crate) struct Stores {
    /// The database: a PostgreSQL behind its proxy, or the file of the embedded default.
    pub(crate) database: Place,
    pub(crate) redis: Redis,
    /// In front of Redis.
    pub(crate) redis_proxy: Proxy,
}

impl Stores {
    /// Makes an empty database and starts a Redis.
    ///
    /// # Errors
    /// When either does not answer.
    pub(crate) async fn start(plan: &Plan, scratch: &Path) -> Result<Self> {
        let database = if plan.group.is_embedded() {
            Place::Sqlite(scratch.join("anima.db"))
        } else {
            Place::Postgres(Box::new(Behind::make(&plan.postgres, plan.seed).await?))
        };
        let redis = Redis::start(&plan.redis, scratch).await?;
        let redis_proxy = Proxy::start(redis.address).await?;
        Ok(Self { database, redis, redis_proxy })
    }

    /// What nodes are told: on the embedded default of no Redis.
    pub(crate) fn redis_url(&self) -> String {
        if self.database.postgres().is_none() {
            return String::new();
        }
        format!("redis://{}/0", self.redis_proxy.address())
    }

    /// What happens to bytes on the way to Redis, and to the database.
    pub(crate) fn set(&self, redis: Mode, database: Mode) {
        self.redis_proxy.set(redis);
        if let Some(behind) = self.database.postgres() {
            behind.proxy.set(database);
        }
    }

    /// Both are there, and nothing stands in the way.
    ///
    /// # Errors
    /// When Redis does not come back.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        self.redis.begin().await?;
        self.set(Mode::Open, Mode::Open);
        Ok(())
    }
}
