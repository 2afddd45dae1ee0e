//! A whole answer of the OpenAI family: validated, read for usage, and passed on as it is.
//!
//! Invariant: what is called an answer is one JSON object of the endpoint's form; everything else
//! is a failure before the client has seen a byte. Sources: `a-inbound` A.1.3, `reliability` 3.3.

use anima_core::failure::Failure;
use anima_core::usage::Usage;
use bytes::Bytes;

use crate::dialect::openai::choice::Tally;
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::reply::Reply;
use crate::request::Endpoint;
use crate::tokens;

/// What the body of a 200 says.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Disjoint meters. `None` when the provider reported nothing usable: count for yourself.
    pub usage: Option<Usage>,
    /// Whether the report contradicts itself or what was delivered.
    pub usage_suspect: bool,
    /// The tier that was really used.
    pub service_tier: Option<String>,
    /// The provider's id of this answer.
    pub upstream_ref: Option<String>,
    /// Bytes of generated text, as it stands escaped. Zero for embeddings.
    pub text_bytes: usize,
    body: Bytes,
}

impl Answer {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Failure::AnswerMalformed`], or what the error inside it says.
    pub(super) fn read(endpoint: Endpoint, body: &Bytes) -> Result<Self, Failure> {
        let mut tally = Tally::default();
        let reply = Reply::read(body, &mut tally).map_err(|_malformed| Failure::AnswerMalformed)?;
        if reply.is_fault {
            return Err(Fault::read(body).in_answer());
        }
        let complete = match endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => reply.choices.is_some(),
            Endpoint::Embeddings => reply.has_embeddings,
        };
        if !complete {
            return Err(Failure::AnswerMalformed);
        }
        let usage = reply.report.usage.filter(|usage| !usage.is_empty());
        let silent = usage.is_some_and(|usage| usage.output_tokens() == 0);
        let zeros = reply.report.usage.is_some() && usage.is_none();
        Ok(Self {
            usage,
            usage_suspect: reply.report.suspect || zeros || (tally.content && silent),
            service_tier: reply.service_tier.map(|tier| tier.decode().into_owned()),
            upstream_ref: reply.id.map(|id| id.decode().into_owned()),
            text_bytes: tally.bytes,
            body: body.clone(),
        })
    }

    /// Counts the generated text with our own tokenizer. Up to some 25 ms of work; for answers
    /// without usage.
    pub fn count_output_tokens(&self) -> u64 {
        let mut tally = Tally::keeping(tokens::COUNTED_BYTES_MAX);
        // The body was read before, so it can be read again.
        let readable = Reply::read(&self.body, &mut tally).is_ok();
        debug_assert!(readable, "an answer is read only if it can be");
        tokens::count(&tally.text) + (tally.dropped_bytes as u64).div_ceil(4)
    }
}
