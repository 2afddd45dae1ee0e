//! The shared parts of one running node, as probes and scrapers see them.
//!
//! Not a bag for everybody: stages of the relay and endpoints get what they need, never this.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anima_core::clock::Clock;
use anima_store::database::Stores;
use anima_store::shared::Shared;

use crate::circuits::Circuits;
use crate::dependencies::Dependencies;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::watch::Watch;

pub mod actuator; // health, info, metrics

/// What probes and scrapers see of a node.
#[derive(Debug)]
pub struct App {
    /// The database.
    pub stores: Stores,
    /// Which of what the node needs is down.
    pub dependencies: Arc<Dependencies>,
    /// What nodes share.
    pub shared: Shared,
    /// The configuration in force.
    pub live: Arc<Live>,
    /// The health of where calls can go.
    pub circuits: Arc<Circuits>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The books.
    pub watch: Arc<Watch>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Set when the node shuts down: readiness goes first.
    pub draining: AtomicBool,
    /// `sqlite` or `postgresql`.
    pub database: &'static str,
}
