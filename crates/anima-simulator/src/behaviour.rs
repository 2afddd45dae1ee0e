//! What the simulated provider does to one call: the shape of its answer and its faults.
//!
//! Every field is optional, so that the script's defaults, the model's name and a rule can be laid
//! over each other, the later one winning field by field. It does not say when a behaviour applies
//! (`script.rs` does). The invariant: any two options that can be set together can be obeyed
//! together; what cannot is refused when the text is parsed (`behaviour/syntax.rs`).

mod syntax;

pub use syntax::FaultError;

/// How a call is answered; an empty one is a healthy answer of the default shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// What happens instead of an answer's head.
    pub opening: Option<Opening>,
    /// Milliseconds between the end of the request and the head of the answer (or the reset).
    pub latency_ms: Option<u64>,
    /// Milliseconds before each content chunk of a stream but the first.
    pub pace_ms: Option<u64>,
    /// The last piece of the answer waits until the gate is opened.
    pub gate: Option<Gated>,
    /// How the answer ends, when not properly.
    pub ending: Option<Ending>,
    /// What is wrong with the answer's bytes.
    pub damage: Option<Damage>,
    /// What is wrong with the usage that the caller is told.
    pub usage: Option<UsageLie>,
    /// How much text each choice holds.
    pub answer: Option<AnswerLength>,
    /// Content chunks per choice of a stream, at most one per word.
    pub chunks: Option<u32>,
    /// Reasoning tokens per choice, billed inside the completion tokens.
    pub reasoning_tokens: Option<u32>,
    /// Prompt tokens that were served from the prompt cache, at most all of them.
    pub cached_tokens: Option<u32>,
    /// Calls of tools where the caller offers some: one when nothing is said, none for zero.
    pub calls: Option<u32>,
    /// Calls of tools have no ids.
    pub anonymous: Option<Anonymous>,
}

/// Calls without ids, as Gemini's older models and some servers of open models make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anonymous;

/// An answer that does not end by itself: `Simulator::open_gate` ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gated;

/// What happens instead of a 200 head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The head never comes and the connection stays open.
    Silent,
    /// The connection is reset before any byte of the answer.
    Reset,
    /// An error status with an OpenAI error body.
    Refuse(Refusal),
    /// 400 `context_length_exceeded`; with a maximum, only when prompt plus cap exceed it.
    ContextLength {
        /// Tokens that prompt and answer may have together; `None` refuses every call.
        maximum: Option<u64>,
    },
}

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 300 to 599.
    pub status: u16,
    /// `error.code`, when not the usual one of the status.
    pub code: Option<String>,
    /// The `retry-after` header, verbatim.
    pub retry_after: Option<String>,
    /// The `retry-after-ms` header, verbatim.
    pub retry_after_ms: Option<String>,
}

/// How an answer ends, when not properly. Counts are of content chunks, over all choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Streams only: the connection closes after so many content chunks, without `[DONE]`.
    Cut {
        /// Content chunks sent before; 0 sends the head and no event at all.
        after: u32,
    },
    /// Streams only: nothing more is sent after so many content chunks, the connection stays open.
    Silence {
        /// Content chunks sent before; 0 sends the head and no event at all.
        after: u32,
    },
    /// Streams only: everything is sent but `[DONE]`.
    NoDone,
    /// The answer is whole, but for its finish reason: that the provider failed.
    FinishError,
    /// Streams only: the same, then nothing more, also no usage; the connection stays open.
    FinishSilence,
    /// Streams: an error frame after so many content chunks, then a clean end without `[DONE]`.
    /// JSON: an error object with status 200.
    Error {
        /// Content chunks sent before the error frame.
        after: u32,
    },
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// JSON: half of the body, with the content length of that half. Streams: the first content
    /// chunk is a well-framed event whose JSON stops in the middle.
    BadJson,
    /// Streams only: a raw line break and an invalid UTF-8 byte inside a content chunk.
    BadSse {
        /// Which content chunk, from 1.
        at: u32,
    },
    /// An `obfuscation` member of so many bytes, in the body or in the first content chunk.
    HugeLine {
        /// Bytes of padding.
        bytes: u32,
    },
    /// JSON only: declares 64 bytes more than it sends, then closes the connection.
    ContentLength,
}

/// What is wrong with the usage that the caller is told. The bill stays honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageLie {
    /// No usage at all.
    Missing,
    /// JSON: the member occurs twice. Streams: the usage chunk is sent twice.
    Twice,
    /// A million million tokens.
    Absurd,
    /// Negative counts.
    Negative,
}

/// How much text each choice holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLength {
    /// So many words, one token each.
    Tokens(u32),
    /// The fewest words whose text has at least so many bytes.
    Bytes(u32),
}

/// Words of an answer when nobody says otherwise: short enough to read in a terminal.
pub(crate) const ANSWER_DEFAULT: AnswerLength = AnswerLength::Tokens(16);

impl Behaviour {
    /// Parses `option(+option)*`, the mini-syntax of `docs/simulator.md`; empty text is healthy.
    ///
    /// # Errors
    ///
    /// An unknown option, an argument that does not fit, or two options that exclude each other.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        syntax::parse(text)
    }

    /// Parses the options that a model's name carries: `fault:option(+option)*` and
    /// `sim-name(+option)*`; any other name is healthy.
    ///
    /// # Errors
    ///
    /// As [`Behaviour::parse`].
    pub fn of_model(model: &str) -> Result<Self, FaultError> {
        if let Some(options) = model.strip_prefix("fault:") {
            return Self::parse(options);
        }
        match model.strip_prefix("sim-").and_then(|rest| rest.split_once('+')) {
            Some((_, options)) => Self::parse(options),
            None => Ok(Self::default()),
        }
    }

    /// Lays `over` on top: its fields win where it has them.
    pub fn overlaid(self, over: &Self) -> Self {
        Self {
            opening: over.opening.clone().or(self.opening),
            latency_ms: over.latency_ms.or(self.latency_ms),
            pace_ms: over.pace_ms.or(self.pace_ms),
            gate: over.gate.or(self.gate),
            ending: over.ending.or(self.ending),
            damage: over.damage.or(self.damage),
            usage: over.usage.or(self.usage),
            answer: over.answer.or(self.answer),
            chunks: over.chunks.or(self.chunks),
            reasoning_tokens: over.reasoning_tokens.or(self.reasoning_tokens),
            cached_tokens: over.cached_tokens.or(self.cached_tokens),
            calls: over.calls.or(self.calls),
            anonymous: over.anonymous.or(self.anonymous),
        }
    }
}
