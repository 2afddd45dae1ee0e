//! Runs: HTTP in, HTTP out, loops, processes. The program around the pure crates.
//!
//! A library so that tests can start whole nodes in one process. Invariant: two nodes in one
//! process share nothing but the log.

pub mod admin; // the admin API: configuration, top-ups, audit
pub mod api; // the data plane: one file per endpoint
pub mod app; // the shared parts
pub mod boot; // settings → App; the only place that wires everything
pub mod circuits; // the health of every place that calls can go
pub mod cli; // one file per command
pub mod clock; // the system's clock and random source
pub mod dependencies; // which of them are down, and what follows
pub mod http; // what every endpoint shares: caller, body, reply, server
pub mod live; // the configuration in force, and the key cache
pub mod log; // structured logs, written in batches
pub mod metrics; // every metric, declared once
pub mod nodes; // this node among the others
pub mod outbound; // the one HTTP client
mod price_file; // prices as others publish them
pub mod relay; // the pipeline of a call
pub mod reporting; // channels whose answers lack usage
pub mod router; // every route
pub mod second_level; // keys in Redis, between memory and database
pub mod secrets; // sealing, hashing and minting of secrets
pub mod settings; // the only reader of files and environment
pub mod shortfall; // calls that no wallet covers, and the pause of their key
pub mod watch; // the books, proved while they are written
