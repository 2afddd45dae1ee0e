//! Decides. Pure values and functions: no tokio, no database, no HTTP, no ambient clock.
//!
//! Everything that money or trust depends on is decided here and tested here; the other crates
//! fetch the inputs and act on the outputs. Time, randomness and ids come in as parameters.

pub mod breaker; // is a channel fit to be called: the circuit and what counts for it
pub mod clock; // time and randomness as parameters; ids made from both
pub mod config; // versioned rows as values, as the admin API writes them
pub mod failure; // what can go wrong, and the one table about it
pub mod ledger; // holds, settlements, postings: balanced or refused
pub mod money; // amounts in integer units, prices as exact rationals, the only rounding
pub mod pricing; // usage × price → charge
pub mod queue; // whose turn it is: start-time fair
pub mod quota; // limits: what a call asks of its counters
pub mod routing; // alias + routes → plan
pub mod snapshot; // the configuration in force at one instant
pub mod task; // work that its caller does not wait for: its states
pub mod usage; // what a call consumed, by meter
