//! The data plane: one file per endpoint, or per family of endpoints that differ in little.
//!
//! Endpoints read and answer; what happens in between is the relay's, and no endpoint goes past it.

use std::sync::Arc;

use crate::relay::Relay;
use crate::secrets::Secrets;

pub mod openai; // chat completions, completions, embeddings, models

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
}
