//! The data plane: one file per endpoint, or per family of endpoints that differ in little.
//!
//! Endpoints read and answer; what happens in between is the relay's, and no endpoint goes past it.

use std::sync::Arc;

use crate::http::body::Room;
use crate::relay::Relay;
use crate::secrets::Secrets;

use heartbeat::Beats;
use idempotency::Idempotency;
use tasks::Tasks;

pub mod anthropic; // messages, count_tokens
mod counting; // our own count of a prompt
pub mod gemini; // generateContent, streamGenerateContent, countTokens, embedContent, models
pub mod heartbeat; // streams that wait for their turn
pub mod idempotency; // calls that are sent again under their key
pub mod openai; // chat completions, responses, completions, embeddings, models
pub mod serve; // a call from its head to its answer
pub mod tasks; // calls that their callers do not wait for

/// What the data plane's endpoints share.
#[derive(Debug)]
pub struct Plane {
    /// The pipeline.
    pub relay: Arc<Relay>,
    /// For hashing keys.
    pub secrets: Arc<Secrets>,
    /// Largest request body, bytes.
    pub body_bytes_max: usize,
    /// How long a request's body may take.
    pub body_within: std::time::Duration,
    /// What the bodies of all requests may take together.
    pub room: Room,
    /// Answers kept for calls that are sent again.
    pub idempotency: Arc<Idempotency>,
    /// Calls that their callers do not wait for.
    pub tasks: Arc<Tasks>,
    /// When streams that wait for their turn are given signs of life; `None`: never.
    pub beats: Option<Beats>,
}
