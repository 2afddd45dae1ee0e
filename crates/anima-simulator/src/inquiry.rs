//! A request as far as the provider cares, read without building it.
//!
//! Bodies are read once by `serde_json` into a thin struct; texts are counted where they lie
//! (`inquiry/tally.rs`), so that a prompt of 128 KiB is never copied. What a real provider would
//! refuse with 400 and a gateway could get wrong is refused here too; unknown members are ignored,
//! as OpenAI ignores most of them. It does not look at the script.

mod cloud;
mod foreign;
mod pictures;
mod sound;
mod tally;
mod tools;
mod vectors;

use std::borrow::Cow;
use std::num::NonZeroU32;

use http::Method;
use serde::Deserialize;

use crate::refusal::ErrorBody;
use crate::script::Endpoint;
use tally::{Inputs, Messages};
use tools::{Names, ToolBody, Wish};

use cloud::Place;
pub(crate) use sound::Sound;
pub(crate) use tally::Input;
pub(crate) use tools::{Tool, Wanted};

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Path without the query.
    pub path: &'a str,
    /// What follows the `?`, or nothing.
    pub query: &'a str,
    /// The key, from whichever header or parameter carries it.
    pub key: Option<&'a str>,
    /// What the body is said to be, or nothing.
    pub content_type: &'a str,
    /// The whole body.
    pub body: &'a [u8],
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Inquiry<'a> {
    Completion(Completion<'a>),
    Embedding(Embedding<'a>),
    Models,
    Model(String),
    /// Moderations, images or a rerank.
    Units(Units<'a>),
    Sound(Sound<'a>),
}

impl Inquiry<'_> {
    /// The same for the model that the path names, if it does.
    fn of_model(mut self, model: Option<String>) -> Self {
        let Some(model) = model else { return self };
        match &mut self {
            Inquiry::Completion(completion) => completion.model = Cow::Owned(model),
            Inquiry::Embedding(embedding) => embedding.model = Cow::Owned(model),
            Inquiry::Units(units) => units.model = Cow::Owned(model),
            Inquiry::Sound(sound) => sound.model = Cow::Owned(model),
            Inquiry::Models | Inquiry::Model(_) => {}
        }
        self
    }
}

/// A request whose answer is counted in units.
#[derive(Debug)]
pub(crate) struct Units<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: Cow<'a, str>,
    /// Images, or documents.
    pub(crate) count: u64,
}

/// The formats of generated text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Text,
    /// Anthropic's Messages.
    Messages,
    /// `OpenAI`'s Responses.
    Responses,
    /// Gemini's generateContent.
    Gemini {
        /// Whether a stream is one JSON array and not events.
        array: bool,
    },
    /// Anthropic's Messages by Bedrock's `InvokeModel`.
    Invoke,
    /// Bedrock's Converse.
    Converse,
}

/// A request for generated text.
#[derive(Debug)]
pub(crate) struct Completion<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) model: Cow<'a, str>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// The most completion tokens per choice; `None` is no cap.
    pub(crate) cap: Option<u64>,
    /// Choices in the answer: prompts times `n`.
    pub(crate) choices: u32,
    /// Choices generated and billed: prompts times `best_of`.
    pub(crate) generated: u32,
    pub(crate) prompt_tokens: u64,
    /// The pictures that are shown: their base64 or their address.
    pub(crate) pictures: Vec<String>,
    /// What the answer is to be, other than prose.
    pub(crate) wanted: Wanted,
}

/// How vectors are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vectors {
    /// `OpenAI`'s list of numbers.
    Numbers,
    /// The same in base64.
    Packed,
    /// Gemini's one vector.
    One,
    /// Gemini's list of vectors.
    Many,
    /// Vertex's `predict`.
    Predict,
    /// Titan's one vector.
    Titan,
    /// Cohere's at Bedrock, which tell no tokens.
    Floats,
    /// Cohere's own.
    ByType,
}

/// A request for vectors.
#[derive(Debug)]
pub(crate) struct Embedding<'a> {
    pub(crate) model: Cow<'a, str>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) form: Vectors,
    pub(crate) dimensions: Option<NonZeroU32>,
}

/// `OpenAI`'s own limit on `n` and on `best_of`, generously for text completions.
const CHOICES_MAX: u32 = 128;
/// `OpenAI`'s own limit on the inputs of one embeddings request.
const INPUTS_MAX: usize = 2048;
/// Above every published embedding size, and small enough to be generated per request.
const DIMENSIONS_MAX: u32 = 8192;
/// `OpenAI`'s default `max_tokens` of `/v1/completions`.
const TEXT_CAP: u64 = 16;

#[derive(Deserialize)]
struct ChatBody<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    messages: Messages,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u32>,
    tools: Option<Vec<ToolBody>>,
    tool_choice: Option<serde_json::Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct TextBody<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    prompt: Inputs,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    n: Option<u32>,
    best_of: Option<u32>,
}

#[derive(Deserialize)]
struct EmbeddingBody<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    input: Inputs,
    encoding_format: Option<Encoding>,
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
struct UnitsBody<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    n: Option<u32>,
    /// Of those who copy `OpenAI`.
    batch_size: Option<u32>,
    metadata: Option<serde_json::Value>,
    #[serde(default)]
    documents: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    Float,
    Base64,
}

/// The endpoint of a path, whatever the method.
pub(crate) fn endpoint(path: &str) -> Endpoint {
    match cloud::place(path) {
        Some(Place::Openai(path, _)) => return endpoint(path),
        Some(Place::Claude(..)) => return Endpoint::Messages,
        Some(Place::Invoke(..)) => return Endpoint::Invoke,
        Some(Place::Converse(..)) => return Endpoint::Converse,
        None => {}
    }
    match path {
        "/v1/chat/completions" | "/compatibility/v1/chat/completions" => Endpoint::Chat,
        "/v1/completions" => Endpoint::Completions,
        "/v1/embeddings" => Endpoint::Embeddings,
        "/v2/embed" => Endpoint::Embed,
        "/v1/messages" => Endpoint::Messages,
        "/v1/responses" => Endpoint::Responses,
        "/v1/moderations" => Endpoint::Moderations,
        "/v1/images/generations" => Endpoint::Images,
        "/v1/images/edits" => Endpoint::ImageEdits,
        "/v1/rerank" | "/v2/rerank" => Endpoint::Rerank,
        "/v1/audio/speech" => Endpoint::Speech,
        "/v1/audio/transcriptions" => Endpoint::Transcriptions,
        "/v1/audio/translations" => Endpoint::Translations,
        "/v1/models" => Endpoint::Models,
        _ if foreign::gemini_call(path).is_some() => Endpoint::GenerateContent,
        _ if foreign::gemini_vectors(path).is_some() => Endpoint::EmbedContent,
        _ if vectors::predicts(path).is_some() => Endpoint::Predict,
        _ if path.starts_with("/v1/models/") => Endpoint::Models,
        _ => Endpoint::Unknown,
    }
}

/// Reads a request.
pub(crate) fn read<'a>(ask: &Ask<'a>) -> Result<Inquiry<'a>, ErrorBody> {
    let endpoint = endpoint(ask.path);
    let wanted = match endpoint {
        Endpoint::Chat
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Messages
        | Endpoint::Responses
        | Endpoint::GenerateContent
        | Endpoint::EmbedContent
        | Endpoint::Predict
        | Endpoint::Embed
        | Endpoint::Invoke
        | Endpoint::Converse
        | Endpoint::Moderations
        | Endpoint::Images
        | Endpoint::ImageEdits
        | Endpoint::Rerank
        | Endpoint::Speech
        | Endpoint::Transcriptions
        | Endpoint::Translations => Method::POST,
        Endpoint::Models => Method::GET,
        Endpoint::Unknown => {
            let message = format!("Unknown request URL: {} {}.", ask.method, ask.path);
            return Err(ErrorBody::no_path(404, message));
        }
    };
    if *ask.method != wanted {
        let message = format!("Not allowed to {} on {}.", ask.method, ask.path);
        return Err(ErrorBody::no_path(405, message));
    }
    if let Some(place) = cloud::place(ask.path) {
        return at_a_cloud(ask, &place);
    }
    match endpoint {
        Endpoint::Chat => chat(parse(ask.body)?).map(Inquiry::Completion),
        Endpoint::Completions => text(parse(ask.body)?).map(Inquiry::Completion),
        Endpoint::Embeddings => embedding(parse(ask.body)?).map(Inquiry::Embedding),
        Endpoint::Messages => foreign::messages(&parse(ask.body)?).map(Inquiry::Completion),
        Endpoint::Responses => foreign::responses(&parse(ask.body)?).map(Inquiry::Completion),
        Endpoint::GenerateContent => {
            foreign::gemini(ask, &parse(ask.body)?).map(Inquiry::Completion)
        }
        Endpoint::EmbedContent => {
            foreign::embed_content(ask, &parse(ask.body)?).map(Inquiry::Embedding)
        }
        Endpoint::Predict => vectors::predict(ask).map(Inquiry::Embedding),
        Endpoint::Embed => vectors::embed(ask).map(Inquiry::Embedding),
        Endpoint::Speech => sound::speech(ask).map(Inquiry::Sound),
        Endpoint::Transcriptions | Endpoint::Translations => {
            sound::recording(endpoint, ask).map(Inquiry::Sound)
        }
        Endpoint::ImageEdits if sound::is_form(ask) => {
            let (model, n) = sound::edit(ask)?;
            let (model, count) = (Cow::Owned(model), choices(n, "n")?.into());
            Ok(Inquiry::Units(Units { endpoint, model, count }))
        }
        Endpoint::Moderations | Endpoint::Images | Endpoint::ImageEdits | Endpoint::Rerank => {
            units(endpoint, parse(ask.body)?).map(Inquiry::Units)
        }
        Endpoint::Models | Endpoint::Unknown | Endpoint::Invoke | Endpoint::Converse => {
            Ok(match ask.path.strip_prefix("/v1/models/") {
                Some(model) => Inquiry::Model(percent_decoded(model)),
                None => Inquiry::Models,
            })
        }
    }
}

/// Reads a request below a path of a cloud's.
fn at_a_cloud<'a>(ask: &Ask<'a>, place: &Place<'a>) -> Result<Inquiry<'a>, ErrorBody> {
    let completion = match *place {
        Place::Openai(path, deployment) => {
            let model = deployment.map(percent_decoded);
            return read(&Ask { path, ..*ask }).map(|inquiry| inquiry.of_model(model));
        }
        Place::Claude(model, stream) => cloud::claude(ask, (model, stream), "vertex-2023-10-16")?,
        Place::Invoke(model, stream) => {
            if let Some(embedding) = vectors::invoked(ask, model) {
                return embedding.map(Inquiry::Embedding);
            }
            let found = cloud::claude(ask, (model, stream), "bedrock-2023-05-31")?;
            Completion { dialect: Dialect::Invoke, ..found }
        }
        Place::Converse(model, stream) => cloud::converse(ask, (model, stream))?,
    };
    Ok(Inquiry::Completion(completion))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ErrorBody> {
    serde_json::from_slice(body).map_err(|error| {
        let message = match error.classify() {
            serde_json::error::Category::Data => format!("Invalid request body: {error}."),
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => {
                format!("We could not parse the JSON body of your request: {error}.")
            }
        };
        ErrorBody::invalid(message)
    })
}

fn chat(body: ChatBody<'_>) -> Result<Completion<'_>, ErrorBody> {
    if body.messages.count == 0 {
        return Err(ErrorBody::invalid("[] is too short - 'messages'"));
    }
    let stream = body.stream.unwrap_or(false);
    let choices = choices(body.n, "n")?;
    let wish = Wish {
        tools: tools::of_bodies(body.tools.unwrap_or_default()),
        choice: body.tool_choice.as_ref().map(tools::openai_choice),
        serial: body.parallel_tool_calls == Some(false),
        answered: body.messages.ends_in_result,
        format: body.response_format.as_ref().and_then(tools::openai_format),
    };
    Ok(Completion {
        dialect: Dialect::Chat,
        include_usage: include_usage(stream, body.stream_options.as_ref())?,
        model: body.model,
        stream,
        cap: body.max_completion_tokens.or(body.max_tokens),
        choices,
        generated: choices,
        prompt_tokens: body.messages.tokens,
        pictures: body.messages.pictures,
        wanted: Wanted::named(wish, Names::Plain)?,
    })
}

fn text(body: TextBody<'_>) -> Result<Completion<'_>, ErrorBody> {
    let prompts = inputs(&body.prompt.0, "prompt")?;
    let stream = body.stream.unwrap_or(false);
    let (n, best_of) = (choices(body.n, "n")?, choices(body.best_of.or(body.n), "best_of")?);
    if best_of < n {
        return Err(ErrorBody::invalid("best_of must be at least n"));
    }
    if stream && best_of > n {
        return Err(ErrorBody::invalid("best_of greater than n cannot be streamed"));
    }
    Ok(Completion {
        dialect: Dialect::Text,
        include_usage: include_usage(stream, body.stream_options.as_ref())?,
        model: body.model,
        stream,
        cap: Some(body.max_tokens.unwrap_or(TEXT_CAP)),
        choices: prompts.saturating_mul(n),
        generated: prompts.saturating_mul(best_of),
        prompt_tokens: body.prompt.0.iter().map(|input| input.tokens).sum(),
        pictures: Vec::new(),
        wanted: Wanted::Prose,
    })
}

fn embedding(body: EmbeddingBody<'_>) -> Result<Embedding<'_>, ErrorBody> {
    inputs(&body.input.0, "input")?;
    Ok(Embedding {
        model: body.model,
        inputs: body.input.0,
        form: match body.encoding_format {
            Some(Encoding::Base64) => Vectors::Packed,
            Some(Encoding::Float) | None => Vectors::Numbers,
        },
        dimensions: body.dimensions.map(dimensions).transpose()?,
    })
}

fn dimensions(asked: u32) -> Result<NonZeroU32, ErrorBody> {
    let members = NonZeroU32::new(asked).filter(|n| n.get() <= DIMENSIONS_MAX);
    let message = || format!("dimensions must be from 1 to {DIMENSIONS_MAX}");
    members.ok_or_else(|| ErrorBody::invalid(message()))
}

fn units(endpoint: Endpoint, body: UnitsBody<'_>) -> Result<Units<'_>, ErrorBody> {
    let count = if endpoint == Endpoint::Rerank {
        body.documents.len().try_into().unwrap_or(u64::MAX)
    } else {
        // Some vendors take the number in a second place, and obey the larger one.
        let second = body.metadata.as_ref().and_then(|extras| extras.get("n"));
        let second = second.and_then(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok()));
        let second = second.and_then(|n| u32::try_from(n).ok());
        choices(body.n.max(body.batch_size).max(second), "n")?.into()
    };
    Ok(Units { endpoint, model: body.model, count })
}

fn choices(asked: Option<u32>, member: &str) -> Result<u32, ErrorBody> {
    let choices = asked.unwrap_or(1);
    if (1..=CHOICES_MAX).contains(&choices) {
        Ok(choices)
    } else {
        Err(ErrorBody::invalid(format!("{member} must be from 1 to {CHOICES_MAX}")))
    }
}

/// The number of inputs, when there are some and not too many.
fn inputs(inputs: &[Input], member: &str) -> Result<u32, ErrorBody> {
    u32::try_from(inputs.len())
        .ok()
        .filter(|_| (1..=INPUTS_MAX).contains(&inputs.len()))
        .ok_or_else(|| {
            ErrorBody::invalid(format!("{member} must have from 1 to {INPUTS_MAX} entries"))
        })
}

fn include_usage(stream: bool, options: Option<&StreamOptions>) -> Result<bool, ErrorBody> {
    match options {
        Some(_) if !stream => Err(ErrorBody::invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        )),
        Some(options) => Ok(options.include_usage.unwrap_or(false)),
        None => Ok(false),
    }
}

/// Undoes `%XX` in a model's name; what is not valid stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let decoded = match (byte, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = decoded {
            bytes.push(high << 4 | low);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;
