//! A stream on its way from a provider to a client, whatever the two speak.
//!
//! Where both speak OpenAI's dialect the bytes pass (`openai`); otherwise events are read and
//! written anew, or passed where client and provider agree (`converting`). Invariant: the
//! terminator is never among what `push` gives, since it is sent only when the stream is billed.

mod converting;
mod elements;
mod facts;
mod openai;
mod sound;

pub(super) use facts::Facts;

use anima_core::failure::Failure;
use anima_core::usage::Usage;
use bytes::Bytes;
use serde_json::json;

use super::Told;
use super::bedrock::Frames;
use crate::dialect::Dialect;
use crate::request::{CallRequest, Endpoint};
use crate::surface;
use converting::Converting;
use openai::Passing;
use sound::{Sound, Telling};

/// Decodes one upstream stream.
#[derive(Debug)]
pub struct StreamDecoder {
    kind: Kind,
    /// Of a body of binary frames: what reads them.
    frames: Option<Frames>,
}

#[derive(Debug)]
enum Kind {
    Passing(Box<Passing>),
    Converting(Box<Converting>),
    Sound(Box<Sound>),
    Telling(Box<Telling>),
}

impl StreamDecoder {
    /// A decoder for a stream in OpenAI's dialect that passes.
    fn passing(request: &CallRequest) -> Self {
        let kind = Kind::Passing(Box::new(Passing::new(
            request.include_usage,
            (request.searches, request.choices),
        )));
        Self { kind, frames: None }
    }

    /// A decoder for a stream of this dialect, for the client of the request: it passes where both
    /// speak OpenAI's.
    pub(crate) fn of(from: Dialect, request: &CallRequest) -> Self {
        if request.endpoint.hears() || request.endpoint == Endpoint::Speech && request.stream {
            return Self { kind: Kind::Telling(Box::new(Telling::new(request))), frames: None };
        }
        if request.endpoint == Endpoint::Speech {
            return Self { kind: Kind::Sound(Box::new(Sound::new(request))), frames: None };
        }
        if from == Dialect::OpenAiChat && request.dialect == Dialect::OpenAiChat {
            return Self::passing(request);
        }
        Self::converting(from, request)
    }

    /// A decoder that passes only where both speak one dialect other than OpenAI's.
    fn converting(from: Dialect, request: &CallRequest) -> Self {
        Self { kind: Kind::Converting(Box::new(Converting::new(from, request))), frames: None }
    }

    /// The same, written anew also for a client of that dialect.
    pub(super) fn said_anew(from: Dialect, request: &CallRequest) -> Self {
        let stream = Converting::anew(from, request);
        Self { kind: Kind::Converting(Box::new(stream)), frames: None }
    }

    /// The same for a body that comes in the frames of AWS.
    pub(super) fn framed(self, frames: Frames) -> Self {
        Self { frames: Some(frames), ..self }
    }

    /// Whether the stream may also come as one JSON array, which is called `application/json`.
    pub fn takes_arrays(&self) -> bool {
        matches!(&self.kind, Kind::Converting(stream) if stream.takes_arrays())
    }

    /// Takes the next bytes and appends what may go to the client now: complete events, in order,
    /// without the terminator. Bytes after the terminator are ignored.
    ///
    /// # Errors
    /// When the stream is malformed or tells of an error. What came before is in `out`; nothing
    /// more may be pushed.
    pub fn push(&mut self, mut chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), Failure> {
        if self.is_done() {
            return Ok(());
        }
        let mut outcome = Ok(());
        if let Some(frames) = &mut self.frames {
            let mut events = Vec::new();
            outcome = frames.push(&chunk, &mut events);
            chunk = events.into();
        }
        match &mut self.kind {
            Kind::Passing(stream) => stream.push(chunk, out),
            Kind::Converting(stream) => stream.push(&chunk, out),
            Kind::Sound(stream) => {
                stream.push(chunk, out);
                Ok(())
            }
            Kind::Telling(stream) => stream.push(&chunk, out),
        }?;
        // What follows the terminator is never read, however it is cut.
        if self.is_done() { Ok(()) } else { outcome }
    }

    /// The upstream's body has ended. A terminator without its blank line still counts.
    ///
    /// # Errors
    /// [`Failure::StreamCut`] when no terminator was seen; something more exact when the body was
    /// no stream at all but an error.
    pub fn end(&mut self, out: &mut Vec<Bytes>) -> Result<(), Failure> {
        match &mut self.kind {
            Kind::Passing(stream) => stream.end(out),
            Kind::Converting(stream) => stream.end(out),
            Kind::Sound(stream) => {
                stream.end();
                Ok(())
            }
            Kind::Telling(stream) => stream.end(),
        }
    }

    /// Whether content has been seen: from then on no other channel may answer.
    pub fn has_content(&self) -> bool {
        match &self.kind {
            Kind::Passing(stream) => stream.has_content(),
            Kind::Converting(stream) => stream.facts.has_content(),
            Kind::Sound(stream) => stream.has_content(),
            Kind::Telling(stream) => stream.has_content(),
        }
    }

    /// Whether the terminator has been seen.
    pub fn is_done(&self) -> bool {
        match &self.kind {
            Kind::Passing(stream) => stream.is_done(),
            Kind::Converting(stream) => stream.is_done(),
            Kind::Sound(stream) => stream.is_done(),
            Kind::Telling(stream) => stream.is_done(),
        }
    }

    /// What the client gets last, once the stream is billed.
    pub fn terminator(&self) -> Bytes {
        match &self.kind {
            Kind::Passing(_) => Passing::terminator(),
            Kind::Converting(stream) => stream.terminator(),
            Kind::Sound(stream) => stream.terminator(),
            Kind::Telling(stream) => stream.terminator(),
        }
    }

    /// What the provider says was consumed. `None` when it said nothing usable; zeros next to
    /// content are not usable.
    pub fn usage(&self) -> Option<Usage> {
        match &self.kind {
            Kind::Passing(stream) => stream.usage(),
            Kind::Converting(stream) => stream.facts.usage(),
            Kind::Sound(stream) => stream.usage(),
            Kind::Telling(stream) => stream.has_content().then(|| stream.known().usage),
        }
    }

    /// Whether [`Self::usage`] was told while the answer went on: of a stream that is cut, it is
    /// no more than a running count.
    pub fn usage_is_running(&self) -> bool {
        match &self.kind {
            Kind::Passing(stream) => stream.usage_is_running(),
            Kind::Converting(stream) => stream.facts.is_running(),
            Kind::Sound(_) | Kind::Telling(_) => false,
        }
    }

    /// Whether the provider has said that it failed, and only its report is still wanted.
    pub fn is_failing(&self) -> bool {
        matches!(&self.kind, Kind::Passing(stream) if stream.is_failing())
    }

    /// Which of the meters of [`Self::usage`] are the provider's own word.
    pub fn told(&self) -> Told {
        match &self.kind {
            Kind::Passing(_) | Kind::Converting(_) => Told::All,
            Kind::Sound(stream) => stream.told(),
            Kind::Telling(stream) => stream.known().told,
        }
    }

    /// What the prompt came to, where the provider said so at the start and the stream was cut
    /// before it said the rest: better than our own count of the prompt. Its output meters are a
    /// first guess and mean nothing.
    pub fn input_usage(&self) -> Option<Usage> {
        match &self.kind {
            Kind::Passing(_) | Kind::Sound(_) | Kind::Telling(_) => None,
            Kind::Converting(stream) => stream.facts.input_usage(),
        }
    }

    /// Whether the report contradicts itself, another one, or what was delivered.
    pub fn usage_suspect(&self) -> bool {
        match &self.kind {
            Kind::Passing(stream) => stream.usage_suspect(),
            Kind::Converting(stream) => stream.facts.usage_suspect(),
            Kind::Sound(_) | Kind::Telling(_) => false,
        }
    }

    /// The tier that was used, as far as the provider said.
    pub fn service_tier(&self) -> Option<&str> {
        match &self.kind {
            Kind::Passing(stream) => stream.service_tier(),
            Kind::Converting(stream) => stream.facts.service_tier(),
            Kind::Sound(_) | Kind::Telling(_) => None,
        }
    }

    /// The provider's id of this answer.
    pub fn upstream_ref(&self) -> Option<&str> {
        match &self.kind {
            Kind::Passing(stream) => stream.upstream_ref(),
            Kind::Converting(stream) => stream.facts.upstream_ref(),
            Kind::Sound(_) | Kind::Telling(_) => None,
        }
    }

    /// Bytes of generated text so far, as they stood escaped: for a running estimate.
    pub fn output_bytes(&self) -> usize {
        match &self.kind {
            Kind::Passing(stream) => stream.output_bytes(),
            Kind::Converting(stream) => stream.facts.text_bytes(),
            Kind::Sound(_) | Kind::Telling(_) => 0,
        }
    }

    /// Counts what was delivered with our own tokenizer. Up to some 25 ms of work.
    pub fn count_output_tokens(&mut self) -> u64 {
        match &mut self.kind {
            Kind::Passing(stream) => stream.count_output_tokens(),
            Kind::Converting(stream) => stream.facts.count_output_tokens(),
            Kind::Sound(_) | Kind::Telling(_) => 0,
        }
    }

    /// The same of what was delivered since the provider's last report.
    pub fn count_since_report(&self) -> u64 {
        match &self.kind {
            Kind::Passing(stream) => stream.count_since_report(),
            Kind::Converting(stream) => stream.facts.count_since_report(),
            Kind::Sound(_) | Kind::Telling(_) => 0,
        }
    }

    /// The event that closes this stream when it failed after its first byte, in the client's own
    /// dialect. No terminator follows. `None` for bytes of a sound, which can only be broken off.
    pub fn failure_event(
        &self,
        failure: Failure,
        message: &str,
        request_id: &str,
    ) -> Option<Bytes> {
        let stream = match &self.kind {
            Kind::Converting(stream) => stream,
            Kind::Passing(_) | Kind::Telling(_) => {
                return Some(Self::error_event(failure, message, request_id));
            }
            Kind::Sound(_) => return None,
        };
        if let Some(writer) = stream.array() {
            let extra = json!({ "reason": failure.reason(), "request_id": request_id });
            let body = surface::gemini::error_body(failure, message, Some(&extra));
            return Some(writer.closed_by(&body));
        }
        Some(Self::error_event_in(stream.client(), failure, message, request_id))
    }

    /// The event that closes a stream which failed after its first byte, for a client of OpenAI's
    /// chat. No terminator follows.
    pub fn error_event(failure: Failure, message: &str, request_id: &str) -> Bytes {
        Self::error_event_in(Dialect::OpenAiChat, failure, message, request_id)
    }

    /// The event that closes a stream which failed after its first byte, in the client's dialect.
    /// No terminator follows.
    fn error_event_in(
        dialect: Dialect,
        failure: Failure,
        message: &str,
        request_id: &str,
    ) -> Bytes {
        let extra = json!({ "reason": failure.reason(), "request_id": request_id });
        let (open, body): (&[u8], Bytes) = match dialect {
            Dialect::OpenAiChat => {
                (b"data: ", surface::openai::error_body(failure, message, None, Some(&extra)))
            }
            Dialect::Anthropic => (
                b"event: error\ndata: ",
                surface::anthropic::error_body(failure, message, Some(request_id), Some(&extra)),
            ),
            Dialect::Responses => {
                (b"event: error\ndata: ", surface::openai::error_event(failure, message, &extra))
            }
            Dialect::Gemini => {
                (b"data: ", surface::gemini::error_body(failure, message, Some(&extra)))
            }
        };
        Bytes::from([open, body.as_ref(), b"\n\n"].concat())
    }
}
