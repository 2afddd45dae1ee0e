//! The plan of an answer: what is sent in which order, and the truth about it.
//!
//! A plain value without sockets or clocks. `player.rs` plays it; tests compare it. The invariant:
//! the tokens of the pieces of a plan add up to the completion that its truth bills, less the
//! reasoning, unless the plan stops early.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::script::Endpoint;
use crate::truth::Outcome;
use crate::usage::{Reported, Usage};

/// How a call is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Milliseconds to wait before anything else.
    pub latency_ms: u64,
    /// The head, or its absence.
    pub head: Head,
    /// The body, in order. Empty without a head.
    pub steps: Vec<Step>,
    /// What really happened, for the log.
    pub truth: Truth,
}

/// What comes first over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A status line with headers; the server adds `date` and the body's framing.
    Status {
        /// HTTP status.
        status: u16,
        /// Headers, in order.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// Nothing, on an open connection.
    Silent,
    /// A reset of the connection.
    Reset,
}

/// One step of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait so many milliseconds.
    Wait(u64),
    /// Wait until the gate is opened.
    Gate,
    /// Send bytes.
    Send(Piece),
    /// Close the connection without ending the body.
    Cut,
    /// Send nothing more and keep the connection open.
    Silence,
}

/// Bytes that are sent together, and what they mean for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// What goes over the wire: a whole body, or one event of a stream.
    pub bytes: Bytes,
    /// Completion tokens that these bytes carry.
    pub tokens: u64,
    /// Whether this is a content chunk of a stream.
    pub content: bool,
    /// Whether the caller finds the usage in here.
    pub reports_usage: bool,
}

/// The truth about a planned answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// What was called.
    pub endpoint: Endpoint,
    /// The model as the caller named it; empty when the body was not understood.
    pub model: String,
    /// Whether the caller asked for a stream.
    pub stream: bool,
    /// The index of the rule that took the call.
    pub rule: Option<usize>,
    /// How the bill is made from `usage`.
    pub billing: Billing,
    /// Honest usage of the whole answer.
    pub usage: Usage,
    /// The pictures that the request shows.
    pub pictures: Vec<String>,
    /// What the caller is told, once it is sent.
    pub reported: Option<Reported>,
    /// The outcome when the plan is played to its end.
    pub outcome: Outcome,
}

/// When tokens are billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// Never: the call was refused or not begun.
    Nothing,
    /// All of it as soon as the call is accepted, also when the caller leaves.
    Whole,
    /// Prompt and reasoning at once, the rest with each piece that is sent.
    Streamed,
}

impl Truth {
    /// The bill once pieces with so many completion tokens are sent.
    pub fn billed(&self, tokens_sent: u64) -> Usage {
        match self.billing {
            Billing::Nothing => Usage::default(),
            Billing::Whole => self.usage,
            Billing::Streamed => Usage {
                completion_tokens: self.usage.reasoning_tokens.saturating_add(tokens_sent),
                ..self.usage
            },
        }
    }
}
