//! The pipeline of a call. `chat.rs` tells the story; every other file is one stage of it.
//!
//! Stages do not import one another; values flow through them and only grow. Invariant: nothing
//! that may cost money leaves this process before its hold is durable, and every hold is settled or
//! released by code that a leaving client cannot cancel.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use anima_core::clock::{Clock, Rng};
use anima_store::ledger::LedgerStore;

use self::admission::Admission;
use self::decision::Decision;
use self::keeper::Keeper;
use self::records::Records;
use self::stream::unread::Unread;
use crate::circuits::Circuits;
use crate::dependencies::Dependencies;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::outbound::Outbound;
use crate::reporting::Reporting;
use crate::settings::{HoldExhausted, Partial};
use crate::shortfall::Shortfalls;
use crate::watch::Watch;

pub mod admission; // what its limits count is taken, or the call is refused
pub mod admit; // may this caller call this alias, and at which price
pub mod attempt; // plan → answer: the one loop over candidates
mod booking; // usage × pinned prices → records
pub mod call; // what is known about a call, stage by stage
pub mod chat; // the story
pub mod decision; // what happened, written once: log line and metrics
pub mod hold; // money reserved before the first attempt
pub mod keeper; // checkpoints and larger holds for what runs
pub mod lease; // this process is alive
pub mod plan; // which channels, in which order
mod progress; // how far a running call has come
pub mod records; // decisions on their way to the database
pub mod recovery; // what processes left behind that are gone
pub mod settle; // usage → postings, durable before the last byte
pub mod steer; // what callers say about the way of their call
pub mod stream; // chunks → client bytes, the final event kept back
pub mod trace; // how a call was routed
mod trial; // one upstream call

/// What the stages act with.
#[derive(Debug)]
pub struct Relay {
    /// The configuration in force.
    pub live: Arc<Live>,
    /// Money.
    pub ledger: Arc<dyn LedgerStore>,
    /// The health of where calls can go.
    pub circuits: Arc<Circuits>,
    /// The way out.
    pub outbound: Outbound,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Until when what is held here is surely ours.
    pub term: lease::Term,
    /// Bounds.
    pub limits: Limits,
    /// The books, and whether holds may be placed.
    pub watch: Arc<Watch>,
    /// Calls that no wallet covers.
    pub shortfalls: Arc<Shortfalls>,
    /// Channels whose answers lack usage.
    pub reporting: Reporting,
    /// Limits.
    pub admission: Arc<Admission>,
    /// What runs, for checkpoints and larger holds.
    pub keeper: Keeper,
    /// Every task that owns money; shutdown waits for it.
    pub tasks: TaskTracker,
    /// Cancelled when a node that shuts down may wait no longer: what still streams ends here.
    pub cut: CancellationToken,
    /// Which of what the node needs is down.
    pub dependencies: Arc<Dependencies>,
    /// What streams, for those that nobody reads.
    pub unread: Unread,
    /// How calls were routed, on its way to the database.
    pub records: Arc<Records>,
}

impl Relay {
    /// A call is over: its log line, its metrics, its record.
    pub fn conclude(&self, decision: Decision) {
        decision.write(&self.metrics);
        self.records.offer(decision);
    }

    /// Something that needs the database has failed: it is looked at now.
    pub fn note_database(&self, failed: bool) {
        if failed {
            self.dependencies.suspect_database();
        }
    }
}

/// Bounds on one call, from the settings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest answer that is not streamed, bytes.
    pub answer_bytes_max: usize,
    /// Generated tokens that a hold covers when the caller names no limit.
    pub hold_output_tokens: u64,
    /// The output limit of a whole answer under a budget when the caller names none.
    pub budget_output_tokens: u64,
    /// Between two comparisons of budgets with the ledger, if there are any.
    pub budget_repair: Option<std::time::Duration>,
    /// Generated tokens below which an answer that the wallet cannot cover is not worth starting.
    pub min_output_tokens: u64,
    /// The longest wait that a provider may ask for and that a call waits, when there is no other
    /// way.
    pub retry_wait: std::time::Duration,
    /// What callers may say about the way of their calls.
    pub allowed: steer::Allowed,
    /// How long a call goes on after its client left.
    pub drain: std::time::Duration,
    /// What a customer pays for a stream that its provider broke off.
    pub partial: Partial,
    /// What happens to a stream that has used up its hold.
    pub hold_exhausted: HoldExhausted,
}
