//! Permits for probes of circuits that are half open, counted over all nodes.
//!
//! Contract: of one circuit no more permits are out than the limit, less the probes of the same
//! opening that have passed; a permit comes back on every outcome, or its lease ends; an opening
//! that is over gives none. Backends: [`MemoryProbes`] within a process, [`redis::RedisProbes`]
//! between nodes, and [`Probes`], which goes by the one while the other is away. The rules are
//! those of `anima_core::breaker::Permits`, which the in-process backend is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use anima_core::breaker::Permits;
use anima_core::clock::Timestamp;

use crate::redis::{Error, Redis};
use crate::shared::Shared;

pub mod redis;
#[cfg(test)]
mod tests;

/// A probe that asks to be let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The opening of the circuit, as `Circuit::epoch` numbers it.
    pub epoch: u64,
    /// Which probe: random.
    pub token: u64,
    /// Now. Nodes' clocks are taken to be in step to a second.
    pub now: Timestamp,
    /// The permit is another's from here on.
    pub until: Timestamp,
    /// Permits of the circuit.
    pub limit: u32,
}

/// A probe that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// As it was asked for.
    pub epoch: u64,
    /// As it was asked for.
    pub token: u64,
    /// The probe passed.
    pub passed: bool,
    /// It failed, so its opening is over.
    pub ends: bool,
}

/// Counts permits by circuit. See the module for the contract.
#[async_trait]
pub trait ProbeStore: Send + Sync + fmt::Debug {
    /// Takes a permit, if there is one.
    ///
    /// # Errors
    /// When it is not known whether there was.
    async fn take(&self, circuit: &str, asked: Asked) -> Result<bool, Error>;

    /// Gives a permit back. How many probes of its opening have passed so far.
    ///
    /// # Errors
    /// When it is not known that it is back; then its lease ends it.
    async fn give_back(&self, circuit: &str, returned: Returned) -> Result<u32, Error>;
}

/// Permits of one process.
#[derive(Debug, Default)]
pub struct MemoryProbes(Mutex<BTreeMap<String, Permits>>);

#[async_trait]
impl ProbeStore for MemoryProbes {
    async fn take(&self, circuit: &str, asked: Asked) -> Result<bool, Error> {
        let mut all = self.0.lock();
        let permits = all.entry(circuit.to_owned()).or_default();
        let Asked { epoch, token, now, until, limit } = asked;
        Ok(permits.take(epoch, (token, until), now, limit))
    }

    async fn give_back(&self, circuit: &str, returned: Returned) -> Result<u32, Error> {
        let mut all = self.0.lock();
        let Some(permits) = all.get_mut(circuit) else { return Ok(0) };
        let Returned { epoch, token, passed, ends } = returned;
        let passed = permits.give_back(epoch, token, passed);
        if ends {
            permits.end(epoch);
        }
        Ok(passed)
    }
}

/// Permits of all nodes while they share something, else of this process.
#[derive(Debug)]
pub struct Probes {
    shared: Option<Arc<dyn ProbeStore>>,
    local: MemoryProbes,
}

impl Probes {
    /// Within this process.
    pub fn in_process() -> Self {
        Self { shared: None, local: MemoryProbes::default() }
    }

    /// As far as they are shared at all.
    pub fn of(shared: &Shared) -> Self {
        let over = |redis: &Redis| Self::over(Arc::new(redis::RedisProbes(redis.clone())));
        shared.redis.as_ref().map_or_else(Self::in_process, over)
    }

    /// Between nodes, and within this process while the others cannot be reached.
    pub fn over(shared: Arc<dyn ProbeStore>) -> Self {
        Self { shared: Some(shared), local: MemoryProbes::default() }
    }

    /// Takes a permit, if there is one.
    pub async fn take(&self, circuit: &str, asked: Asked) -> bool {
        if let Some(shared) = &self.shared {
            match shared.take(circuit, asked).await {
                Ok(granted) => return granted,
                Err(error) => tracing::debug!(%error, "probes are counted by this node alone"),
            }
        }
        self.local.take(circuit, asked).await.unwrap_or(false)
    }

    /// Gives a permit back, wherever it was taken. How many probes of its opening have passed.
    pub async fn give_back(&self, circuit: &str, asked: Asked, returned: Returned) -> u32 {
        if let Some(shared) = &self.shared {
            match shared.give_back(circuit, returned).await {
                Ok(passed) => {
                    let own = self.local.give_back(circuit, returned).await;
                    return passed.max(own.unwrap_or(0));
                }
                Err(error) => tracing::debug!(%error, "a probe's permit waits for its lease"),
            }
            // Taken from all, and given back to this node alone: it counts here all the same.
            let counted = Asked { limit: u32::MAX, ..asked };
            if !self.local.take(circuit, counted).await.unwrap_or(false) {
                return 0;
            }
        }
        self.local.give_back(circuit, returned).await.unwrap_or(0)
    }
}
