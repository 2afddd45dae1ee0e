//! A whole answer: validated, read for usage, and passed on as it is or said in another dialect.
//!
//! Invariant: what is called an answer is one JSON object of the endpoint's form; everything else
//! is a failure before the client has seen a byte. Sources: `a-inbound` A.1.3, `reliability` 3.3.

mod heard;
mod units;

use anima_core::failure::Failure;
use anima_core::usage::Usage;
use bytes::Bytes;

use super::stream::Facts;
use crate::canonical::{ClientNames, Stop};
use crate::dialect::Dialect;
use crate::dialect::openai::choice::Tally;
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::reply::Reply;
use crate::dialect::openai::usage::{Report, with_search};
use crate::json::{Node, Outline};
use crate::request::{CallRequest, Endpoint};
use crate::tokens;

/// Which of an answer's meters are the provider's own word; what is made of others is an estimate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Told {
    /// All of them.
    #[default]
    All,
    /// Seconds or characters.
    Units,
    /// Tokens.
    Tokens,
    /// None of them.
    Nothing,
}

/// What the body of a 200 says.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Disjoint meters. `None` when the provider reported nothing usable: count for yourself.
    pub usage: Option<Usage>,
    /// Which of them are the provider's own word.
    pub told: Told,
    /// Whether the report contradicts itself or what was delivered.
    pub usage_suspect: bool,
    /// The tier that was really used.
    pub service_tier: Option<String>,
    /// The provider's id of this answer.
    pub upstream_ref: Option<String>,
    /// Bytes of generated text, as it stands escaped. Zero for embeddings.
    pub text_bytes: usize,
    /// What the client gets: the provider's own bytes where both speak one dialect.
    pub body: Bytes,
    /// What that is; `None` is JSON.
    pub content_type: Option<&'static str>,
    /// Tokens by our own count, where the text was read as parts and usage cannot be relied on.
    counted: Option<u64>,
    /// What it is where it ended because the provider failed. Nobody may be shown it then, but
    /// what was reported of it was consumed.
    pub failure: Option<Failure>,
}

impl Answer {
    /// Reads a body of the OpenAI family.
    ///
    /// # Errors
    /// [`Failure::AnswerMalformed`], or what the error inside it says.
    pub(super) fn read(request: &CallRequest, body: &Bytes) -> Result<Self, Failure> {
        let endpoint = request.endpoint;
        let mut tally = Tally::default();
        let reply = Reply::read(body, &mut tally).map_err(|_malformed| Failure::AnswerMalformed)?;
        if reply.is_fault {
            return Err(Fault::read(body).in_answer());
        }
        let complete = match endpoint {
            Endpoint::Moderations | Endpoint::Images | Endpoint::ImageEdits | Endpoint::Rerank => {
                return units::read(request, body, &reply);
            }
            Endpoint::Transcriptions | Endpoint::Translations => {
                return heard::read(request, body, &reply);
            }
            // A sound is no JSON: what is has an error, or makes no sense.
            Endpoint::Speech => false,
            Endpoint::ChatCompletions | Endpoint::Completions => reply.choices.is_some(),
            Endpoint::Embeddings => reply.has_embeddings,
        };
        if !complete {
            return Err(Failure::AnswerMalformed);
        }
        let usage = reply.report.usage.filter(|usage| !usage.is_empty());
        let searched = tally.cites || request.searches > 0;
        let usage = usage.map(|usage| with_search(usage, searched));
        let silent = usage.is_some_and(|usage| usage.output_tokens() == 0);
        let zeros = reply.report.usage.is_some() && usage.is_none();
        Ok(Self {
            usage,
            told: Told::All,
            usage_suspect: reply.report.suspect || zeros || (tally.content && silent),
            service_tier: reply.service_tier.map(|tier| tier.decode().into_owned()),
            upstream_ref: reply.id.map(|id| id.decode().into_owned()),
            text_bytes: tally.bytes,
            body: body.clone(),
            content_type: None,
            counted: None,
            failure: reply.has_failed().then_some(Failure::ErrorInAnswer),
        })
    }

    /// This answer of OpenAI's chat, said in the client's dialect. The facts stay as they are.
    ///
    /// # Errors
    /// [`Failure::AnswerMalformed`].
    pub(super) fn said_in(self, request: &CallRequest) -> Result<Self, Failure> {
        if self.failure.is_some() {
            return Ok(self);
        }
        let is_doubtful = self.usage.is_none() || self.usage_suspect;
        let counted = is_doubtful.then(|| self.count_output_tokens());
        let body = {
            let outline = outline(&self.body)?;
            let mut answer = Dialect::OpenAiChat.read_answer(&outline)?;
            ClientNames::of(request).restore(&mut answer);
            answer.report.usage = self.usage;
            request.dialect.write_answer(&answer, &request.echo())
        };
        Ok(Self { body, counted, ..self })
    }

    /// Reads a body of another dialect and says it in the client's.
    ///
    /// # Errors
    /// [`Failure::AnswerMalformed`], or what the error inside it says.
    pub(super) fn converted(
        from: Dialect,
        request: &CallRequest,
        body: &Bytes,
    ) -> Result<Self, Failure> {
        Self::read_as(from, request, (body, from == request.dialect))
    }

    /// The same, written anew also for a client of that dialect.
    ///
    /// # Errors
    /// As [`Self::converted`].
    pub(super) fn said_anew(
        from: Dialect,
        request: &CallRequest,
        body: &Bytes,
    ) -> Result<Self, Failure> {
        Self::read_as(from, request, (body, false))
    }

    fn read_as(
        from: Dialect,
        request: &CallRequest,
        (body, passes): (&Bytes, bool),
    ) -> Result<Self, Failure> {
        let outline = outline(body)?;
        if is_fault(outline.root()) {
            return Err(Fault::read(body).in_answer());
        }
        let mut answer = from.read_answer(&outline)?;
        if !passes {
            ClientNames::of(request).restore(&mut answer);
        }
        let has_failed = answer.choices.iter().any(|choice| choice.stop == Stop::Error);
        let parts = || answer.choices.iter().flat_map(|choice| &choice.parts);
        let mut facts = Facts::default();
        parts().for_each(|part| facts.note_length(part));
        facts.note_report(answer.report);
        let usage = facts.usage().filter(|usage| !usage.is_empty());
        let is_doubtful = usage.is_none() || facts.usage_suspect();
        // Only then is the text copied, to be counted.
        let counted = is_doubtful.then(|| {
            let mut facts = Facts::default();
            parts().for_each(|part| facts.note_part(part));
            facts.count_output_tokens()
        });
        Ok(Self {
            usage,
            told: Told::All,
            usage_suspect: facts.usage_suspect(),
            service_tier: answer.service_tier.as_ref().map(ToString::to_string),
            upstream_ref: (!answer.id.is_empty()).then(|| answer.id.to_string()),
            text_bytes: facts.text_bytes(),
            body: if passes || has_failed {
                body.clone()
            } else {
                request.dialect.write_answer(&answer, &request.echo())
            },
            content_type: None,
            counted,
            failure: has_failed.then_some(Failure::ErrorInAnswer),
        })
    }

    /// Vectors, and what was reported of their texts. Nothing is generated.
    pub(super) fn of_vectors(report: Report, body: Bytes) -> Self {
        let usage = report.usage.filter(|usage| !usage.is_empty());
        let zeros = report.usage.is_some() && usage.is_none();
        Self {
            usage,
            told: Told::All,
            usage_suspect: report.suspect || zeros,
            service_tier: None,
            upstream_ref: None,
            text_bytes: 0,
            body,
            content_type: None,
            counted: Some(0),
            failure: None,
        }
    }

    /// The same facts with another body, of an answer without text.
    pub(super) fn with_body(self, body: Bytes) -> Self {
        Self { body, counted: Some(0), ..self }
    }

    /// Counts the generated text with our own tokenizer. Up to some 25 ms of work; for answers
    /// without usage.
    pub fn count_output_tokens(&self) -> u64 {
        if let Some(counted) = self.counted {
            return counted;
        }
        let mut tally = Tally::keeping(tokens::COUNTED_BYTES_MAX);
        // Of the OpenAI family the body was read before and can be read again; of a converted
        // answer that reported usage nobody asks.
        let readable = Reply::read(&self.body, &mut tally).is_ok();
        debug_assert!(readable, "an answer is read only if it can be");
        tokens::count(&tally.text) + (tally.dropped_bytes as u64).div_ceil(4)
    }
}

fn outline(body: &Bytes) -> Result<Outline<'_>, Failure> {
    Outline::read(body).map_err(|_malformed| Failure::AnswerMalformed)
}

/// Whether a body is an error, in the ways of every dialect.
pub(super) fn is_fault(root: Node<'_, '_>) -> bool {
    let first = root.elements().next().unwrap_or(root);
    first.get("error").is_some()
        || first.get("type").is_some_and(|kind| kind.is("error"))
        || first.get("status").is_some_and(|status| status.is("failed"))
}
