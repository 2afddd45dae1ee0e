//! The simulated provider: an OpenAI-compatible HTTP server whose faults are scripted.
//!
//! It is used by `anima quickstart`, by `anima simulate`, by the integration tests and as the
//! upstream of the benchmarks. It is not a model and has no tokenizer: one word is one token.
//!
//! The one invariant: what a call is answered with is a pure function of the request, the script
//! and the rules' call counters ([`decide::decide`]); everything that touches a socket or a clock
//! only plays that plan ([`simulator::Simulator`]). The user document is `docs/simulator.md`.

/// What the provider does to a call, and the mini-syntax in which it is written.
pub mod behaviour;
/// The pure function from a request to the plan of its answer.
pub mod decide;
/// A TCP proxy that cuts, delays and loses, to stand before a database or Redis.
pub mod proxy;
/// The plan of an answer: head, steps, and the truth about it.
pub mod reply;
/// The script: seed, keys, models, defaults and rules.
pub mod script;
/// The server that plays the plans.
pub mod simulator;
/// The truth log: what every call really cost.
pub mod truth;

mod control;
mod gate;
mod inquiry;
mod lookup;
mod player;
mod prose;
mod refusal;
mod socket;
mod usage;

pub use behaviour::Behaviour;
pub use script::Script;
pub use simulator::Simulator;
pub use truth::{Call, LogSettings, Outcome};
pub use usage::{Reported, Usage};
