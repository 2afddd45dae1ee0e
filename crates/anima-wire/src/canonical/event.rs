//! A streamed answer as a sequence of events, borrowed from the chunk at hand.
//!
//! Grammar: `Start`, then parts (`Open`, its `Piece`s, `Close`), `Stop` per choice, `Usage` any
//! number of times, `End` last; an error ends it anywhere and is not an event but an `Err`. Parts
//! of different numbers may interleave; a dialect that cannot show that must buffer. Invariant: a
//! part's number is never used twice in a stream. Source: `c-conversion` C.8.

use std::borrow::Cow;

use super::answer::Stop;
use super::request::Signature;
use crate::dialect::openai::usage::Report;

/// One step of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The answer begins.
    Start {
        /// The provider's own id.
        id: Cow<'a, str>,
        /// The model, as the provider names it.
        model: Cow<'a, str>,
    },
    /// A part begins.
    Open {
        /// Its number, from 0.
        part: usize,
        /// The choice that it belongs to.
        choice: u64,
        /// What it is.
        opening: Opening<'a>,
    },
    /// More of a part.
    Piece(usize, Delta<'a>),
    /// A part is whole.
    Close(usize),
    /// A choice has ended, with the stop text that was met.
    Stop(u64, Stop, Option<Cow<'a, str>>),
    /// Log probabilities of what a choice says next, as JSON text in the form of OpenAI's chat.
    Logprobs(u64, Cow<'a, str>),
    /// What the prompt came to, before anything is known of the output.
    Input(Report),
    /// What was consumed so far, while the answer goes on; replaces what was said before.
    Running(Report),
    /// What was consumed; replaces what was said before.
    Usage(Report),
    /// The tier that is really used.
    Tier(Cow<'a, str>),
    /// Something was generated that only its own dialect has a form for, such as sound, or a tool
    /// at the provider is at work: the answer goes on, and no other one may begin.
    Unsaid,
    /// Nothing follows.
    End,
}

/// How a part begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Opening<'a> {
    /// Text.
    Text,
    /// Words of refusal.
    Refusal,
    /// Thoughts.
    Reasoning,
    /// Thoughts that only their issuer reads, whole.
    Redacted(Signature<'a>),
    /// A call: id, name, and what its issuer wants to see again with it.
    ToolUse(Cow<'a, str>, Cow<'a, str>, Option<Signature<'a>>),
    /// A picture, whole: MIME type and base64.
    Image(Cow<'a, str>, Cow<'a, str>),
}

/// More of a part.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta<'a> {
    /// Text, words of refusal, thoughts, or a piece of a call's JSON.
    Text(Cow<'a, str>),
    /// The signature of the part.
    Signature(Signature<'a>),
}

/// What takes events. It may change its mind about the stream, but not about the events.
pub trait Sink {
    /// Takes the next event.
    fn take(&mut self, event: Event<'_>);
}

impl<F: FnMut(Event<'_>)> Sink for F {
    fn take(&mut self, event: Event<'_>) {
        self(event);
    }
}
