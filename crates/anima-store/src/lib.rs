//! Remembers. One capability is one trait file with its two backends beside it.
//!
//! SQL stands here and nowhere else. Every trait's contract is in words in its file, and one
//! conformance suite holds both backends to it.

pub mod config; // versioned rows, switches, history, audit
pub mod database; // open either database and bring its schema up to date
pub mod decisions; // how calls were routed
pub mod idempotency; // answers kept for requests that are sent again
pub mod keys; // hashes of keys and admin tokens
pub mod ledger; // holds, settlements, entries: durable when the call returns
pub mod nodes; // what nodes say of themselves, where there is no Redis
mod postgres; // pool, TLS, migrations
mod probe; // a sign of life of a database
pub mod probes; // permits of circuits that are half open
pub mod pubsub; // messages to every node
pub mod quota; // counters of limits: shared, or of one process
pub mod redis; // one connection layer: single, Sentinel, Cluster
pub mod redis_keys; // every key and topic that exists
pub mod shared; // what nodes share: values, hashes, messages
mod sqlite; // connections, pragmas, migrations
pub mod tasks; // work that its caller does not wait for
#[cfg(test)]
mod tests; // databases for tests: `crate::tests::postgres()`
