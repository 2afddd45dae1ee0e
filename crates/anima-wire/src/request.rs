//! A client's call in OpenAI's form: read once, kept as bytes.
//!
//! Not a model of the request. What the gateway decides by is a field; everything else stays in
//! `body` and reaches the provider byte for byte, unknown members included. Invariant: no member
//! that decides about money or routing can stand twice, also not disguised by an escape or by
//! letter case. Sources: `a-inbound` A.1.2, `f-tokens` F.5, SPEC 4.

mod draft;
mod prompt;
mod rewrite;

use anima_core::failure::Failure;
use bytes::Bytes;

use crate::{json, tokens};

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Chat completions.
    ChatCompletions,
    /// Legacy text completions.
    Completions,
    /// Embeddings.
    Embeddings,
}

impl Endpoint {
    /// The path below a base URL of the OpenAI family.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
        }
    }

    /// The member that holds the prompt.
    const fn prompt(self) -> &'static str {
        match self {
            Self::ChatCompletions => "messages",
            Self::Completions => "prompt",
            Self::Embeddings => "input",
        }
    }
}

/// A call that was read and found in order.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// The alias. Not empty.
    pub model: String,
    /// Whether the answer is to be streamed. Never for embeddings.
    pub stream: bool,
    /// Whether the client itself asked for the usage chunk of a stream.
    pub include_usage: bool,
    /// The most tokens that one choice may have: `max_completion_tokens` or `max_tokens`, and the
    /// larger where both are given, since providers differ in which they obey. 16 for completions
    /// without either, as OpenAI's documentation says.
    pub output_tokens_max: Option<u64>,
    /// How many texts are generated: `n`, for completions the larger of `n` and `best_of` times
    /// the number of prompts. At least 1.
    pub choices: u64,
    /// Bytes of the members that become prompt, as they stand. Of inline media only a sixteenth
    /// is in here (see [`prompt`]); images are not at all.
    pub input_bytes: usize,
    /// Images, sounds and files among the messages.
    pub media_parts: u64,
    /// The tier asked for.
    pub service_tier: Option<String>,
    /// The whole body as it came.
    pub body: Bytes,
    places: rewrite::Places,
}

/// Why a body is refused: written for the caller, naming the member and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Always [`Failure::BodyInvalid`].
    pub failure: Failure,
    /// What to change.
    pub message: String,
    /// The member at fault, when one is.
    pub param: Option<&'static str>,
}

impl Error {
    fn new(param: Option<&'static str>, message: String) -> Self {
        Self { failure: Failure::BodyInvalid, message, param }
    }
}

impl From<json::Error> for Error {
    fn from(error: json::Error) -> Self {
        Self::new(None, format!("the request body cannot be read: {error}"))
    }
}

impl CallRequest {
    /// Reads a body. One pass, a handful of small allocations, no copy of the prompt.
    ///
    /// # Errors
    /// When the body is not one JSON object, or a member that the gateway reads is missing, twice
    /// or of the wrong form. `null` counts as absent.
    pub fn parse(endpoint: Endpoint, body: Bytes) -> Result<Self, Error> {
        let read = draft::Draft::read(endpoint, &body)?.check(endpoint)?;
        Ok(Self {
            endpoint,
            model: read.model,
            stream: read.stream,
            include_usage: read.places.asks_for_usage(),
            output_tokens_max: read.output_tokens_max,
            choices: read.choices,
            input_bytes: read.prompt.bytes,
            media_parts: read.prompt.media_parts,
            service_tier: read.service_tier,
            places: read.places,
            body,
        })
    }

    /// A quick guess at the prompt's tokens that is seldom too low: 2 bytes per token, and a flat
    /// rate per image, sound or file. For holds and limits.
    pub fn estimate_input_tokens(&self) -> u64 {
        self.input_bytes.div_ceil(2) as u64 + self.media_parts * tokens::MEDIA_PART
    }

    /// Counts the prompt with our own tokenizer. Bounded work (see [`tokens::COUNTED_BYTES_MAX`]),
    /// but up to some 25 ms of it.
    pub fn count_input_tokens(&self) -> u64 {
        prompt::count(self.endpoint, &self.body)
    }

    /// The body for a provider, as segments of the original and what replaces the rest.
    pub(crate) fn rewrite(&self, upstream_model: &str) -> Vec<Bytes> {
        let model = (self.model != upstream_model).then_some(upstream_model);
        self.places.rewrite(&self.body, model, self.stream)
    }
}

#[cfg(test)]
mod tests;
