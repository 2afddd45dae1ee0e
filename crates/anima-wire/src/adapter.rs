//! stub
use std::fmt::Debug;

use anima_core::failure::Failure;
use anima_core::usage::Usage;
use bytes::Bytes;
use http::HeaderMap;

use crate::request::{CallRequest, Endpoint};

pub mod presets;
mod stream;

pub use stream::StreamDecoder;

#[derive(Debug, Clone)]
pub struct Encoded {
    pub path: &'static str,
    pub body: Vec<Bytes>,
    pub content_length: usize,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    pub failure: Failure,
    pub message: String,
    pub retry_after_ms: Option<u64>,
    pub upstream_code: Option<String>,
}
#[derive(Debug, Clone)]
pub struct Answer {
    pub usage: Option<Usage>,
    pub usage_suspect: bool,
    pub service_tier: Option<String>,
    pub upstream_ref: Option<String>,
    pub text_bytes: usize,
}
impl Answer {
    pub fn count_output_tokens(&self) -> u64 {
        todo!()
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret holds a byte that no header can carry")]
pub struct SecretUnusable;

pub trait Adapter: Sync + Debug {
    fn name(&self) -> &'static str;
    fn serves(&self, endpoint: Endpoint) -> bool;
    fn encode(&self, request: &CallRequest, upstream_model: &str) -> Encoded;
    fn authorize(&self, headers: &mut HeaderMap, secret: &str) -> Result<(), SecretUnusable>;
    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified;
    fn answer(&self, endpoint: Endpoint, body: &Bytes) -> Result<Answer, Failure>;
    fn stream(&self, request: &CallRequest) -> StreamDecoder;
}

pub fn lookup(_provider: &str) -> Option<&'static dyn Adapter> {
    todo!()
}
/// Fixed text for a failure whose upstream message is not for the caller.
pub const fn neutral_message(_failure: Failure) -> &'static str {
    ""
}
