//! A client's call in OpenAI's form, or in that of another dialect: read once, kept as bytes.
//!
//! Not a model of the request. What the gateway decides by is a field; everything else stays in
//! `body` and reaches the provider byte for byte, unknown members included. Invariant: no member
//! that decides about money or routing can stand twice, also not disguised by an escape or by
//! letter case. Sources: `a-inbound` A.1.2, `f-tokens` F.5, SPEC 4.

mod dearer; // what would cost another sum than the one it is sold at
mod draft;
mod foreign;
mod form; // multipart bodies: where their parts stand
mod pictures; // how many are asked for
mod prompt;
pub(crate) mod rewrite;
mod sound; // how long a recording lasts

use anima_core::failure::Failure;
use bytes::Bytes;
use http::HeaderValue;

pub(crate) use form::Transcript;

use crate::dialect::{Dialect, Echo};
use crate::{json, tokens};
use form::Form;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Chat completions.
    ChatCompletions,
    /// Legacy text completions.
    Completions,
    /// Embeddings.
    Embeddings,
    /// Whether content may be shown.
    Moderations,
    /// Pictures from words.
    Images,
    /// Pictures from pictures and words.
    ImageEdits,
    /// Documents in the order in which they answer a query.
    Rerank,
    /// Sound from words.
    Speech,
    /// Words from sound.
    Transcriptions,
    /// English words from sound.
    Translations,
}

impl Endpoint {
    /// The path below a base URL of the OpenAI family.
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Moderations => "/moderations",
            Self::Images => "/images/generations",
            Self::ImageEdits => "/images/edits",
            Self::Rerank => "/rerank",
            Self::Speech => "/audio/speech",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
        }
    }

    /// Whether a body may be a form with files.
    pub const fn takes_forms(self) -> bool {
        matches!(self, Self::ImageEdits | Self::Transcriptions | Self::Translations)
    }

    /// Whether sound is turned into words.
    pub const fn hears(self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }

    /// Whether tokens are generated, and may be streamed.
    pub const fn generates(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// The member that holds the prompt.
    const fn prompt(self) -> &'static str {
        match self {
            Self::ChatCompletions => "messages",
            Self::Completions | Self::Images | Self::ImageEdits => "prompt",
            Self::Embeddings | Self::Moderations | Self::Speech => "input",
            Self::Transcriptions | Self::Translations => "file",
            Self::Rerank => "query",
        }
    }
}

/// In which form a client asks for a rerank and reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ranking {
    /// Jina's (`/v1/rerank`), with what was billed as Cohere tells it.
    #[default]
    Jina,
    /// Cohere's (`/v2/rerank`).
    Cohere,
}

/// A call that was read and found in order.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// The dialect of the body, and of the answer that the client expects.
    pub dialect: Dialect,
    /// When the request came, seconds since 1970, for answers that say so. Zero until it is set.
    pub created_s: u64,
    /// Whether the answer is a list: a stream that is to be one JSON array, as for Gemini without
    /// `alt=sse`, or the vectors of `batchEmbedContents`.
    pub as_array: bool,
    /// Of a rerank: the form of the answer. Jina's until it is set.
    pub ranking: Ranking,
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
    /// the number of prompts. Of images the most that any member asks for (see [`pictures`]), of a
    /// rerank how many hundreds of documents. At least 1.
    pub choices: u64,
    /// Bytes of the members that become prompt, as they stand. Of inline media only a sixteenth
    /// is in here (see [`prompt`]); images are not at all.
    pub input_bytes: usize,
    /// Images, sounds and files among the messages.
    pub media_parts: u64,
    /// Characters to speak.
    pub characters: u64,
    /// Seconds of sound to hear: measured where the file tells, else no less than it can have.
    pub audio_seconds: u64,
    /// The tier asked for.
    pub service_tier: Option<String>,
    /// The names in `anthropic-beta`, with commas, of a client that speaks Anthropic's dialect.
    pub betas: String,
    /// Searches of the web that a chat completion is asked for, which are paid beside its tokens.
    pub searches: u64,
    /// The whole body as it came.
    pub body: Bytes,
    /// What the gateway lowered the output limit to, if it did.
    pub limited_to: Option<u64>,
    /// What is known of a body that is a form.
    form: Option<Form>,
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
            dialect: Dialect::OpenAiChat,
            created_s: 0,
            as_array: false,
            ranking: Ranking::Jina,
            model: read.model,
            stream: read.stream,
            include_usage: read.places.asks_for_usage(),
            output_tokens_max: read.output_tokens_max,
            choices: read.choices,
            input_bytes: read.prompt.bytes,
            media_parts: read.prompt.media_parts,
            characters: read.characters,
            audio_seconds: 0,
            service_tier: read.service_tier,
            searches: read.searches,
            betas: String::new(),
            places: read.places,
            limited_to: None,
            form: None,
            body,
        })
    }

    /// Reads a body that is a form (`multipart/form-data`), as its content type says. Nothing of
    /// its files is copied.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_form(
        endpoint: Endpoint,
        content_type: &HeaderValue,
        body: Bytes,
    ) -> Result<Self, Error> {
        form::read(endpoint, content_type, body)
    }

    /// Reads a body of any dialect of chat. `named` is the model and whether to stream, where the
    /// path says so and not the body.
    ///
    /// # Errors
    /// As [`Self::parse`]. What other dialects cannot say is refused only when it must be said in
    /// one of them.
    pub fn parse_as(
        dialect: Dialect,
        body: Bytes,
        named: Option<(&str, bool)>,
    ) -> Result<Self, Error> {
        if dialect == Dialect::OpenAiChat {
            return Self::parse(Endpoint::ChatCompletions, body);
        }
        let read = foreign::read(dialect, &body, named)?;
        Ok(Self {
            endpoint: Endpoint::ChatCompletions,
            dialect,
            created_s: 0,
            as_array: false,
            ranking: Ranking::Jina,
            model: read.model,
            stream: read.stream,
            include_usage: true,
            output_tokens_max: read.output_tokens_max,
            choices: read.choices,
            input_bytes: read.input_bytes,
            media_parts: read.media_parts,
            characters: 0,
            audio_seconds: 0,
            service_tier: read.service_tier,
            searches: 0,
            betas: String::new(),
            places: read.places,
            limited_to: None,
            form: None,
            body,
        })
    }

    /// Reads a body of Gemini's `embedContent`, or with `is_list` of `batchEmbedContents`. The
    /// path names the model.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_embedding(body: Bytes, model: &str, is_list: bool) -> Result<Self, Error> {
        let read = foreign::read_embedding(&body, model, is_list)?;
        Ok(Self {
            endpoint: Endpoint::Embeddings,
            dialect: Dialect::Gemini,
            created_s: 0,
            as_array: is_list,
            ranking: Ranking::Jina,
            model: read.model,
            stream: false,
            include_usage: true,
            output_tokens_max: None,
            choices: 1,
            input_bytes: read.input_bytes,
            media_parts: read.media_parts,
            characters: 0,
            audio_seconds: 0,
            service_tier: None,
            searches: 0,
            betas: String::new(),
            places: read.places,
            limited_to: None,
            form: None,
            body,
        })
    }

    /// What the answer repeats of this request.
    pub(crate) fn echo(&self) -> Echo<'_> {
        Echo {
            model: &self.model,
            created_s: self.created_s,
            input_tokens: self.estimate_input_tokens() / 2,
            include_usage: self.include_usage,
            as_array: self.as_array,
        }
    }

    /// A quick guess at the prompt's tokens that is seldom too low: 2 bytes per token, and a flat
    /// rate per image, sound or file. For holds and limits.
    pub fn estimate_input_tokens(&self) -> u64 {
        self.input_bytes.div_ceil(2) as u64 + self.media_parts * tokens::MEDIA_PART
    }

    /// Counts the prompt with our own tokenizer. Bounded work (see [`tokens::COUNTED_BYTES_MAX`]),
    /// but up to some 25 ms of it.
    pub fn count_input_tokens(&self) -> u64 {
        if self.form.is_some() {
            // Words among files are few.
            return self.estimate_input_tokens() / 2;
        }
        if self.dialect == Dialect::OpenAiChat {
            prompt::count(self.endpoint, &self.body)
        } else {
            foreign::count(&self.body)
        }
    }

    /// Lowers the output limit of each choice. What goes to a provider says so, whether or not the
    /// client set one. Never raises it.
    pub fn limit_output(&mut self, tokens: u64) {
        if self.output_tokens_max.is_none_or(|asked| tokens < asked) {
            self.output_tokens_max = Some(tokens);
            self.limited_to = Some(tokens);
        }
    }

    /// What makes two bodies the same request, in order: all of it but the sign between the parts
    /// of a form, which clients choose anew each time.
    pub fn substance(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.form.as_ref().map(|form| form.substance(&self.body));
        let whole = self.form.is_none().then_some(&self.body[..]);
        whole.into_iter().chain(parts.into_iter().flatten())
    }

    /// The content type of what goes to a provider; `None` is JSON.
    pub(crate) fn content_type(&self) -> Option<&HeaderValue> {
        self.form.as_ref().map(|form| &form.content_type)
    }

    /// The form in which a client wants what was heard.
    pub(crate) fn transcript(&self) -> Transcript {
        self.form.as_ref().map_or(Transcript::Json, |form| form.transcript)
    }

    /// The body of a client of Gemini's for Gemini: as it came, but for a lowered output limit.
    pub(crate) fn with_limit(&self) -> Vec<Bytes> {
        foreign::limited(&self.body, &self.places, self.limited_to)
    }

    /// The body for a provider, as segments of the original and what replaces the rest. `member` is
    /// the one that limits the output of a chat where the client named none.
    pub(crate) fn rewrite(&self, upstream_model: &str, member: &'static str) -> Vec<Bytes> {
        let asks = self.stream && self.endpoint.generates();
        self.rewritten(upstream_model, (member, asks))
    }

    /// The same for a provider that reports the usage of a stream unasked.
    pub(crate) fn rewrite_unasked(&self, upstream_model: &str, member: &'static str) -> Vec<Bytes> {
        self.rewritten(upstream_model, (member, false))
    }

    fn rewritten(&self, upstream_model: &str, (member, asks): (&'static str, bool)) -> Vec<Bytes> {
        if let Some(form) = &self.form {
            return form.rewrite(&self.body, upstream_model);
        }
        let is_chat = self.endpoint == Endpoint::ChatCompletions;
        let member = if is_chat { member } else { rewrite::OLDER };
        let changes = rewrite::Changes {
            model: (self.model != upstream_model).then_some(upstream_model),
            stream: asks,
            output: self.limited_to.map(|tokens| (tokens, member)),
        };
        self.places.rewrite(&self.body, changes)
    }
}

#[cfg(test)]
mod tests;
