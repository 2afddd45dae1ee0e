//! What vendors document about their formats: one file per dialect, both sides use it.
//!
//! A dialect says what bytes mean. What follows from it is the adapter's or the surface's matter.
//! Here is also the one list of the chat dialects, by which any client meets any provider.
//! Invariant: a dialect reads what it writes, as far as it can carry it.

pub mod anthropic; // Anthropic's Messages
pub mod gemini; // Gemini's generateContent
pub mod openai; // OpenAI's chat completions, completions, embeddings, and those who copy them
mod strays; // members that nobody reads

use anima_core::failure::Failure;
use bytes::Bytes;

use crate::canonical::{Answer, Event, Refusal, Request, Sink};
use crate::json::Outline;
use openai::{chat, responses};

/// A dialect of chat, whoever speaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions.
    OpenAiChat,
    /// Anthropic's Messages.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
    /// OpenAI's Responses.
    Responses,
}

/// What an answer repeats of the request that it answers.
#[derive(Debug, Clone, Copy)]
pub struct Echo<'a> {
    /// The model, as the client named it.
    pub model: &'a str,
    /// When the request came, seconds since 1970.
    pub created_s: u64,
    /// What the prompt comes to by our own estimate, for dialects that tell it first.
    pub input_tokens: u64,
    /// Whether the client wants usage in a stream, where the dialect leaves the choice.
    pub include_usage: bool,
    /// Whether a stream is one JSON array and not events, as Gemini's is without `alt=sse`.
    pub as_array: bool,
}

impl Dialect {
    /// Reads a request.
    ///
    /// # Errors
    /// When a member is of the wrong form, or cannot be said in any other dialect.
    pub fn read_request<'a>(self, outline: &Outline<'a>) -> Result<Request<'a>, Refusal> {
        match self {
            Self::OpenAiChat => chat::read_request(outline),
            Self::Anthropic => anthropic::read_request(outline),
            Self::Gemini => gemini::read_request(outline),
            Self::Responses => responses::read_request(outline),
        }
    }

    /// Reads a whole answer in which no error was found.
    ///
    /// # Errors
    /// [`Failure::AnswerMalformed`] when it is none, or what it refuses by.
    pub fn read_answer<'a>(self, outline: &Outline<'a>) -> Result<Answer<'a>, Failure> {
        match self {
            Self::OpenAiChat => chat::read_answer(outline),
            Self::Anthropic => anthropic::read_answer(outline),
            Self::Gemini => gemini::read_answer(outline),
            Self::Responses => responses::read_answer(outline),
        }
    }

    /// Writes a whole answer for a client.
    pub fn write_answer(self, answer: &Answer<'_>, echo: &Echo<'_>) -> Bytes {
        match self {
            Self::OpenAiChat => chat::write_answer(answer, echo),
            Self::Anthropic => anthropic::write_answer(answer, echo),
            Self::Gemini => gemini::write_answer(answer, echo),
            Self::Responses => responses::write_answer(answer, echo),
        }
    }

    /// A reader of one stream.
    pub fn stream_reader(self) -> StreamReader {
        match self {
            Self::OpenAiChat => StreamReader::OpenAiChat(chat::Reader::default()),
            Self::Anthropic => StreamReader::Anthropic(anthropic::Reader::default()),
            Self::Gemini => StreamReader::Gemini(gemini::Reader::default()),
            Self::Responses => StreamReader::Responses(responses::Reader::default()),
        }
    }

    /// A writer of one stream.
    pub fn stream_writer(self, echo: &Echo<'_>) -> StreamWriter {
        match self {
            Self::OpenAiChat => StreamWriter::OpenAiChat(chat::Writer::new(echo)),
            Self::Anthropic => StreamWriter::Anthropic(anthropic::Writer::new(echo)),
            Self::Gemini => StreamWriter::Gemini(gemini::Writer::new(echo)),
            Self::Responses => StreamWriter::Responses(Box::new(responses::Writer::new(echo))),
        }
    }
}

/// Reads a stream of payloads into events.
#[derive(Debug)]
#[expect(private_interfaces, reason = "the readers are made and driven through this type alone")]
pub enum StreamReader {
    /// Of chat completions.
    OpenAiChat(chat::Reader),
    /// Of Messages.
    Anthropic(anthropic::Reader),
    /// Of generateContent.
    Gemini(gemini::Reader),
    /// Of Responses.
    Responses(responses::Reader),
}

impl StreamReader {
    /// Takes one payload. `true` when the stream is over.
    ///
    /// # Errors
    /// When it is malformed, or tells of an error.
    pub fn read(&mut self, payload: &[u8], sink: &mut dyn Sink) -> Result<bool, Failure> {
        match self {
            Self::OpenAiChat(reader) => reader.read(payload, sink),
            Self::Anthropic(reader) => reader.read(payload, sink),
            Self::Gemini(reader) => reader.read(payload, sink),
            Self::Responses(reader) => reader.read(payload, sink),
        }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// [`Failure::StreamCut`] when more should have come.
    pub fn end(&mut self, sink: &mut dyn Sink) -> Result<(), Failure> {
        match self {
            Self::Gemini(reader) => reader.end(sink),
            Self::OpenAiChat(_) | Self::Anthropic(_) | Self::Responses(_) => {
                Err(Failure::StreamCut)
            }
        }
    }
}

/// Writes events as a stream.
#[derive(Debug)]
#[expect(private_interfaces, reason = "the writers are made and driven through this type alone")]
pub enum StreamWriter {
    /// Of chat completions.
    OpenAiChat(chat::Writer),
    /// Of Messages.
    Anthropic(anthropic::Writer),
    /// Of generateContent.
    Gemini(gemini::Writer),
    /// Of Responses.
    Responses(Box<responses::Writer>),
}

impl StreamWriter {
    /// What may go to the client now.
    pub fn take_bytes(&mut self) -> Bytes {
        match self {
            Self::OpenAiChat(writer) => writer.take_bytes(),
            Self::Anthropic(writer) => writer.take_bytes(),
            Self::Gemini(writer) => writer.take_bytes(),
            Self::Responses(writer) => writer.take_bytes(),
        }
    }

    /// What the client gets last.
    pub fn terminator(&self) -> Bytes {
        match self {
            Self::OpenAiChat(_) => chat::Writer::terminator(),
            Self::Anthropic(_) => anthropic::Writer::terminator(),
            Self::Gemini(writer) => writer.terminator(),
            Self::Responses(writer) => writer.terminator(),
        }
    }
}

impl Sink for StreamWriter {
    fn take(&mut self, event: Event<'_>) {
        match self {
            Self::OpenAiChat(writer) => writer.take(event),
            Self::Anthropic(writer) => writer.take(event),
            Self::Gemini(writer) => writer.take(event),
            Self::Responses(writer) => writer.take(event),
        }
    }
}

/// An id as its dialect writes it: its own ids stay, foreign ones get the prefix.
pub(crate) fn prefixed<'a>(prefix: &'a str, id: &'a str) -> [&'a str; 2] {
    if id.starts_with(prefix) { ["", id] } else { [prefix, id] }
}

#[cfg(test)]
mod tests;
