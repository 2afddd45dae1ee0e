//! The admin API: configuration rows, money that people move, the ledger's views, the audit log.
//!
//! `endpoints` lists every route once, for the router and for the OpenAPI document alike; `rows`
//! holds the verbs that all resources share; a resource's own file says what is special about it.
//! The functions in those files are the API without HTTP, so `anima quickstart` makes its first
//! rows the way an admin would. Invariant: a change that was answered is in force on this node (or
//! the reply carries a warning), and no reply holds a secret but the one to a key's creation.

use std::collections::BTreeMap;
use std::sync::Arc;

use anima_core::clock::{Clock, Rng};
use anima_core::config::Fallbacks;
use anima_store::database::Stores;
use tokio::sync::Semaphore;

use crate::circuits::Circuits;
use crate::live::Live;
use crate::nodes::Nodes;
use crate::relay::admission::Admission;
use crate::relay::records::Records;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::watch::Watch;

pub mod aliases; // model names that clients use
pub mod apps; // customers' applications, their top-ups and balances
mod audit; // who changed what
mod books; // the ledger as an admin reads it
mod call; // one HTTP call: body, query, headers
mod caller; // bearer tokens and roles
pub mod channels; // upstream accounts
mod circuits; // the circuits as an admin reads them
mod clearing; // estimates of a period that an invoice settles
mod collection; // what sets one resource apart from another
pub mod declared; // the configuration as a file
mod endpoints; // every route, once
mod envelope; // the members that every write may carry
pub mod expiry; // promotional credit that expired
mod fx_rates; // what one currency is in another
mod hatches; // circuits by hand, the switch of everything, caches, schedules
mod invoices; // what providers bill
pub mod keys; // user API keys
mod limits; // how far limits are used, and who waits
mod nodes; // the nodes as an admin reads them
mod openapi; // the document
pub mod prices; // what meters cost
pub mod problem; // errors as problem+json
pub mod quotas; // lists of limits
mod reply; // answers as HTTP
mod reports; // what providers are owed and calls earn
mod requests; // all that is known of one request
mod rows; // the verbs that all resources share
mod spread; // how far a change has come
mod tasks; // calls that their callers do not wait for
pub mod token_groups; // sets of keys
mod trueup; // what providers report late
mod typed; // JSON to types, with the path of the first bad member
mod usage; // what calls used, cost and were charged

pub use endpoints::router;
pub use openapi::document as openapi;
pub use problem::Problem;

/// What the admin API works with.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The database.
    pub stores: Stores,
    /// Sealing and hashing.
    pub secrets: Arc<Secrets>,
    /// The configuration in force on this node, told of each change.
    pub live: Arc<Live>,
    /// The health of where calls can go, on this node.
    pub circuits: Arc<Circuits>,
    /// The nodes of the installation.
    pub nodes: Arc<Nodes>,
    /// What admits calls; nothing in commands that serve none.
    pub limits: Option<Arc<Admission>>,
    /// What it found in the books.
    pub watch: Arc<Watch>,
    /// How calls were routed.
    pub records: Arc<Records>,
    /// How long after a settlement a late report may charge its customer more. 0: never.
    pub sale_trueup_window_ms: u64,
    /// How long what a task ended with is kept.
    pub task_keep_ms: u64,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bits for ids.
    pub rng: Arc<dyn Rng>,
    /// Where the aliases of a file lead while it is judged; of others what is in force counts.
    pub declared_chains: Arc<BTreeMap<String, Fallbacks>>,
    /// Who makes a usage report: one at a time, beside what calls look up.
    pub usage_turn: Arc<Semaphore>,
}

/// What is in force: secrets, configuration, health, nodes, and what admits calls.
type AtWork = (Arc<Secrets>, Arc<Live>, Arc<Circuits>, Arc<Nodes>, Option<Arc<Admission>>);

/// What watches and records, the time and random bits.
type Beside = (Arc<Watch>, Arc<Records>, Arc<dyn Clock>, Arc<dyn Rng>);

impl Admin {
    /// One over what is open and in force, with the policies of the settings.
    pub fn new(settings: &Settings, stores: Stores, at_work: AtWork, beside: Beside) -> Self {
        let (secrets, live, circuits, nodes, limits) = at_work;
        let (watch, records, clock, rng) = beside;
        Self {
            stores,
            secrets,
            live,
            circuits,
            nodes,
            limits,
            watch,
            records,
            sale_trueup_window_ms: settings.sale_trueup_window_ms,
            task_keep_ms: settings.task_keep_ms,
            clock,
            rng,
            declared_chains: Arc::default(),
            usage_turn: Arc::new(Semaphore::new(1)),
        }
    }
}

#[cfg(test)]
mod tests;
