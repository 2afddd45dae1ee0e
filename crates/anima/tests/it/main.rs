//! The integration tests: a whole node over HTTP, one module per capability.
//!
//! One binary, so that the program is linked once. Each test has a node, a simulated provider and a
//! database of its own, runs on SQLite and on PostgreSQL, and ends with the ledger's invariants
//! checked. Not here: what one file decides (unit tests) or what a store promises (conformance).
#![cfg(test)]

mod bad_input; // bodies and heads that no client should send
mod billing_facts; // what is most likely to cause a billing bug
mod conversion; // prices in other currencies, and promotional credit
mod eyes; // metrics, health, a database that is gone
mod fleet; // several nodes: kills, acknowledgements, a price at its instant
mod hard_cases; // who pays when something goes wrong, row by row
mod hatches; // what an operator switches off
mod idempotency; // calls that are sent again
mod keys; // who may call what
mod leaving; // clients that leave
mod limits; // what a key, an app and a group may use
mod live_config; // changes are in force at once, scheduled ones at their instant
mod mixed; // many calls with faults against the truth log
mod money; // both sides of each call, to the last unit
mod outages; // SPEC 12, row by row
mod providers; // each client with each provider
mod records;
mod routing; // which way calls go when upstreams fail
mod serving; // the endpoints as clients see them
mod sound; // what is spoken and heard, and edited pictures
mod surfaces; // clients of other dialects
mod tasks; // calls that nobody waits for
mod testapp; // a node with everything it needs
mod units; // moderations, pictures, reranks
mod upstream_faults; // what an upstream can do to a call
mod usage; // reports of what calls used, against the books
mod waiting; // calls over a limit that wait for their turn
