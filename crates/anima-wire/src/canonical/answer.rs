//! A whole answer, borrowed from the provider's body.
//!
//! Not what a call costs: usage is read into meters right away, and what the meters mean is not
//! known here. Invariant: a stop reason of a tool call is given wherever a call was made, whatever
//! the provider said. Sources: `c-conversion` C.6 and C.7.

use std::borrow::Cow;

use super::request::{Body, Part};
use crate::dialect::openai::usage::Report;

/// What a provider said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer<'a> {
    /// The provider's own id.
    pub id: Cow<'a, str>,
    /// The model, as the provider names it.
    pub model: Cow<'a, str>,
    /// The alternatives, one as a rule.
    pub choices: Vec<Choice<'a>>,
    /// What was consumed.
    pub report: Report,
    /// The tier that was really used.
    pub service_tier: Option<Cow<'a, str>>,
}

/// One alternative.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice<'a> {
    /// What was generated, in order.
    pub parts: Vec<Part<'a>>,
    /// Why it ended.
    pub stop: Stop,
    /// The stop text that was met.
    pub stop_text: Option<Cow<'a, str>>,
    /// Log probabilities, as JSON text in the form of OpenAI's chat.
    pub logprobs: Option<Cow<'a, str>>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stop {
    /// It was said.
    #[default]
    End,
    /// A stop text was met.
    StopText,
    /// As long as it was allowed to be.
    Length,
    /// The context was full.
    ContextFull,
    /// Tools are to be called.
    ToolUse,
    /// A server's tool wants to go on.
    Paused,
    /// The provider held back the rest.
    Filtered,
    /// The model made a call that nobody can read.
    MalformedCall,
    /// It failed.
    Error,
}

impl Stop {
    /// The reason, corrected by whether a call was made: some providers say `stop` all the same.
    pub const fn given_calls(self, has_calls: bool) -> Self {
        if matches!(self, Self::End) && has_calls { Self::ToolUse } else { self }
    }
}

impl Choice<'_> {
    /// Whether a tool was called.
    pub fn has_calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.body, Body::ToolUse(_)))
    }
}
