//! The provider side: what an adapter can do, and which exist.
//!
//! An adapter translates and classifies; it never decides what follows from a failure and does no
//! I/O. Vendors who speak a known dialect are rows of [`presets`], not files. Invariant: a
//! provider's name is resolved here and nowhere else.

mod answer;
mod anthropic;
mod azure_openai;
mod bedrock;
mod cohere;
mod embedding; // between the two dialects that have it
mod gemini;
pub mod look_up; // what became of a call, asked afterwards
mod openai_compatible;
mod openai_responses;
mod passed; // in the client's own dialect
pub mod presets; // vendors that need no adapter of their own
mod ranking; // documents in order, in the forms that vendors have
mod retry_after;
mod sound; // what speaking and hearing come to
mod stream;
mod vertex;

use std::borrow::Cow;
use std::fmt::Debug;

use anima_core::failure::{Failure, Source};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Uri};
use memchr::memmem;
use serde_json::{Map, Value};

pub use answer::{Answer, Told};
pub use sound::sound_usage;
pub use stream::StreamDecoder;

use crate::canonical::{Carried, Dropped, Refusal, Request, ToolNames};
use crate::dialect::openai::fault::Fault;
use crate::json::{Node, Outline};
use crate::request::{CallRequest, Endpoint};

/// Bytes of a provider's message that are shown. Real ones have some hundred.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The header in which a client of Anthropic's dialect asks for what is not released yet.
pub const BETA: &str = "anthropic-beta";

/// A request as it goes to a provider.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The path below the channel's base URL, with its slash.
    pub path: Cow<'static, str>,
    /// The body in order, to be sent without joining. Not empty.
    pub body: Vec<Bytes>,
    /// Bytes of the whole body.
    pub content_length: usize,
    /// What the provider's dialect could not carry, for `x-anima-dropped`.
    pub dropped: Dropped,
    /// What the body is; `None` is JSON.
    pub content_type: Option<HeaderValue>,
    /// The region that is signed for, where the channel names one.
    pub region: Option<Box<str>>,
    /// What goes on of `anthropic-beta`.
    pub beta: Option<HeaderValue>,
}

impl Encoded {
    fn new(path: impl Into<Cow<'static, str>>, body: Vec<Bytes>) -> Self {
        let content_length = body.iter().map(Bytes::len).sum();
        Self {
            path: path.into(),
            body,
            content_length,
            dropped: Dropped::default(),
            content_type: None,
            region: None,
            beta: None,
        }
    }

    fn carried(path: impl Into<Cow<'static, str>>, carried: Carried) -> Self {
        Self { dropped: carried.dropped, ..Self::new(path, vec![carried.body]) }
    }
}

/// What a provider's error is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    /// Which failure.
    pub failure: Failure,
    /// A text that may be shown to the caller: the provider's own, shortened, where the caller is
    /// at fault; a fixed one otherwise.
    pub message: String,
    /// How long the provider asks us to wait.
    pub retry_after_ms: Option<u64>,
    /// The provider's own code, for logs.
    pub upstream_code: Option<String>,
}

impl From<Refusal> for Classified {
    /// The caller's own request is at fault, and the text says which member.
    fn from(refusal: Refusal) -> Self {
        Self {
            failure: Failure::RequestRefused,
            message: refusal.to_string(),
            retry_after_ms: None,
            upstream_code: None,
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The model, as the provider names it.
    pub model: &'a str,
    /// The channel's own settings.
    pub settings: Option<&'a Map<String, Value>>,
    /// The channel's address, by which vendors with a dialect of OpenAI's are known.
    pub base_url: &'a str,
}

impl<'a> Destination<'a> {
    /// A model at a channel without settings.
    pub const fn bare(model: &'a str) -> Self {
        Self { model, settings: None, base_url: "" }
    }

    /// A setting that is a text.
    fn setting(&self, name: &str) -> Option<&'a str> {
        self.settings?.get(name)?.as_str().filter(|text| !text.is_empty())
    }
}

/// What is sent, for providers whose secret signs it.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// Where to.
    pub uri: &'a Uri,
    /// The body.
    pub body: &'a [Bytes],
    /// When, seconds since 1970.
    pub at_s: i64,
    /// The region that is signed for, where it is known.
    pub region: Option<&'a str>,
}

impl Sent<'_> {
    /// For providers whose secret signs nothing.
    #[cfg(test)]
    fn nothing() -> Self {
        static NOWHERE: std::sync::LazyLock<Uri> = std::sync::LazyLock::new(Uri::default);
        Self { uri: &NOWHERE, body: &[], at_s: 0, region: None }
    }
}

/// A secret that no header can carry, for example one with a line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret holds a byte that no header can carry")]
pub struct SecretUnusable;

/// Translates between this gateway and one provider.
pub trait Adapter: Sync + Debug {
    /// The word in a channel's `provider`.
    fn name(&self) -> &'static str;

    /// Whether the provider has the endpoint.
    fn serves(&self, endpoint: Endpoint) -> bool;

    /// The request for the provider. Only what must change is changed.
    ///
    /// # Errors
    /// When the client speaks another dialect and asks for what this provider's cannot say. Only
    /// then; between two of one dialect everything passes.
    fn encode(&self, request: &CallRequest, to: Destination<'_>) -> Result<Encoded, Refusal>;

    /// Puts the channel's secret into the headers, marked as sensitive, or signs with it.
    ///
    /// # Errors
    /// When the secret cannot stand in a header. The headers are as they were.
    fn authorize(
        &self,
        headers: &mut HeaderMap,
        secret: &str,
        sent: &Sent<'_>,
    ) -> Result<(), SecretUnusable>;

    /// Says what an answer with a status other than 200 is.
    fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Classified;

    /// Reads the body of a 200, and says it in the client's dialect.
    ///
    /// # Errors
    /// When it is not an answer of this endpoint, or an error in spite of the status.
    fn answer(&self, request: &CallRequest, body: &Bytes) -> Result<Answer, Failure>;

    /// A decoder for the stream that answers this request.
    fn stream(&self, request: &CallRequest) -> StreamDecoder;
}

/// Every adapter, one line each.
static ADAPTERS: &[&dyn Adapter] = &[
    &openai_compatible::OPENAI,
    &openai_compatible::OPENAI_COMPATIBLE,
    &anthropic::Anthropic,
    &gemini::Gemini,
    &openai_responses::OpenAiResponses,
    &azure_openai::AzureOpenAi,
    &vertex::Google,
    &bedrock::Invoke,
    &cohere::Cohere,
];

/// The adapter for the word in a channel's `provider`.
pub fn lookup(provider: &str) -> Option<&'static dyn Adapter> {
    ADAPTERS.iter().find(|adapter| adapter.name() == provider).copied()
}

/// The adapter for a model, where a provider has models of several dialects.
pub fn of_model(adapter: &'static dyn Adapter, model: &str) -> &'static dyn Adapter {
    if adapter.name() == vertex::NAME && model.contains("claude") {
        return &vertex::Claude;
    }
    if adapter.name() == bedrock::NAME
        && let Some(vectors) = bedrock::of_vectors(model)
    {
        return vectors;
    }
    if adapter.name() == bedrock::NAME && !model.contains("claude") {
        return &bedrock::Converse;
    }
    adapter
}

/// The first setting that a provider needs and a channel lacks.
pub fn missing_setting(provider: &str, settings: &Map<String, Value>) -> Option<&'static str> {
    let needed: &[&str] = if provider == vertex::NAME { &["project", "location"] } else { &[] };
    let has =
        |name: &str| settings.get(name).and_then(Value::as_str).is_some_and(|v| !v.is_empty());
    needed.iter().find(|name| !has(name)).copied()
}

/// A name in a path, whatever stands in it.
fn in_path(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format_byte(byte));
        }
    }
    path
}

fn format_byte(byte: u8) -> String {
    format!("%{byte:02X}")
}

/// What a client of Anthropic's asks for by a name in `anthropic-beta`; clouds that are not told of
/// that name refuse it as unknown.
const BETA_MEMBER: &str = "context_management";

/// A request of Anthropic's as clouds take it: without some of its members and with one more, all
/// others byte for byte.
///
/// # Errors
/// When a picture or a document stands elsewhere: clouds fetch nothing (`URL sources are not
/// supported`, `github.com/anthropics/anthropic-sdk-typescript/issues/1038`).
fn without(
    body: &[u8],
    gone: &[&str],
    (more, dropped): (&str, &mut Dropped),
) -> Result<Bytes, Refusal> {
    let Ok(outline) = Outline::read(body) else {
        return Ok(Bytes::copy_from_slice(body));
    };
    if memmem::find(body, b"\"url\"").is_some() && has_address(outline.root()) {
        return Err(Refusal::unsupported("messages.content.source.url"));
    }
    let mut out = vec![b'{'];
    out.extend_from_slice(more.as_bytes());
    for (name, value) in outline.root().members().filter(|(name, _)| !gone.contains(&&**name)) {
        if name == BETA_MEMBER {
            dropped.note(BETA_MEMBER);
            continue;
        }
        out.push(b',');
        out.extend_from_slice(Value::from(&*name).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(value.raw().as_bytes());
    }
    out.push(b'}');
    Ok(out.into())
}

/// Whether a block, or one within the result of a tool, is an address.
fn has_address(root: Node<'_, '_>) -> bool {
    let is_address = |block: Node<'_, '_>| {
        block.get("source").and_then(|source| source.get("type")).is_some_and(|kind| kind.is("url"))
    };
    let messages = root.get("messages");
    let contents = messages.iter().flat_map(Node::elements).filter_map(|one| one.get("content"));
    contents.flat_map(|content| content.elements().collect::<Vec<_>>()).any(|block| {
        let inner = block.get("content");
        is_address(block) || inner.iter().flat_map(Node::elements).any(is_address)
    })
}

/// Says a request in another dialect, once it is read into the canonical form.
fn convert(
    request: &CallRequest,
    names: ToolNames,
    write: impl FnOnce(&Request<'_>) -> Result<Carried, Refusal>,
) -> Result<Carried, Refusal> {
    let outline = Outline::of_request(&request.body)?;
    let mut wanted = request.dialect.read_request(&outline)?;
    // Where the path says it, the body does not.
    wanted.stream = request.stream;
    // What the gateway has lowered, it has lowered for every dialect.
    wanted.output_tokens_max = request.limited_to.or(wanted.output_tokens_max);
    names.apply(&mut wanted);
    let mut carried = write(&wanted)?;
    carried.dropped.note_if(!request.betas.is_empty(), BETA);
    Ok(carried)
}

/// Puts a secret into a header, marked as sensitive.
fn secure(headers: &mut HeaderMap, name: HeaderName, secret: &str) -> Result<(), SecretUnusable> {
    let mut value = HeaderValue::from_str(secret).map_err(|_shows_the_secret| SecretUnusable)?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// What an error body says, with the text that callers may see.
fn classified(fault: Fault, status: u16, retry_after_ms: Option<u64>) -> Classified {
    let failure = fault.with_status(status);
    let own = failure.row().source == Source::Client && !fault.message.is_empty();
    let message = if own { shown(&fault.message) } else { neutral_message(failure).to_owned() };
    let upstream_code = fault.code.map(|code| shown(&code));
    Classified { failure, message, retry_after_ms, upstream_code }
}

/// A provider's text on one line and not too long.
fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    let text = text.get(..end).unwrap_or_default();
    text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect()
}

/// A fixed text for a failure, safe to show: it names no provider, channel or credential.
pub const fn neutral_message(failure: Failure) -> &'static str {
    match failure {
        Failure::ConnectFailed | Failure::AddressForbidden => "the provider could not be reached",
        Failure::ConnectionLost => "the connection to the provider was lost",
        Failure::ServerError | Failure::ErrorInAnswer => "the provider failed to answer",
        Failure::Overloaded => "the provider is overloaded: try again shortly",
        Failure::RateLimited => "the provider's rate limit was reached: try again later",
        Failure::AccountExhausted | Failure::CredentialRefused => {
            "the provider refused this gateway's account: its operator must act"
        }
        Failure::UpstreamModelUnknown => "the provider does not have the model",
        Failure::RequestRefused => "the provider refused the request: check its members",
        Failure::ContextTooLong => "the prompt is too long for the model: shorten it",
        Failure::ContentRefused => "the provider refused the content",
        Failure::FirstByteTimeout
        | Failure::IdleTimeout
        | Failure::TotalTimeout
        | Failure::DeadlineExceeded => "the provider did not answer in time",
        Failure::StreamCut => "the provider broke off its answer",
        Failure::AnswerMalformed => "the provider's answer could not be read",
        Failure::AnswerTooLarge => "the provider's answer is too large",
        Failure::KeyMissing
        | Failure::KeyUnknown
        | Failure::KeyDisabled
        | Failure::KeyExpired
        | Failure::AddressRefused => "the key was refused",
        Failure::RouteUnknown | Failure::MethodRefused => "there is no such path or method",
        Failure::BodyInvalid | Failure::BodyTooLarge | Failure::BodyTimeout => {
            "the request body could not be read"
        }
        Failure::ModelUnknown | Failure::ModelMismatch | Failure::ModelUnpriced => {
            "the model cannot be used with this key and path"
        }
        Failure::IdempotencyConflict => "the idempotency key was used for another request",
        Failure::IdempotencyInProgress => "the request of this idempotency key is still running",
        Failure::TaskUnknown => "there is no such task",
        Failure::TaskGone => "what the task ended with is not kept any more",
        Failure::TaskUnfinished => "the task has not ended",
        Failure::TaskStarted => "the task cannot be cancelled any more",
        Failure::TaskFailed => "the task failed",
        Failure::IdempotencyAnswerGone => "the request was served, and its answer is not kept",
        Failure::InsufficientFunds => "the balance does not cover the request",
        Failure::ConcurrencyLimited | Failure::RequestsLimited | Failure::TokensLimited => {
            "a limit of the key was reached: try again later"
        }
        Failure::BudgetExceeded => "the budget is used up",
        Failure::QueueTimeout | Failure::QueueFull | Failure::DeadlineUnreachable => {
            "too many requests wait for their turn: try again later"
        }
        Failure::ClientGone => "the client closed the request",
        Failure::AuthUnavailable
        | Failure::ServiceSuspended
        | Failure::ServiceUnavailable
        | Failure::NoHealthyChannel => "the service is not available: try again shortly",
        Failure::Unbooked => "the answer could not be booked and is withheld",
        Failure::AnswerEmpty => "the provider answered with nothing",
        Failure::CutOff => "the operator of this gateway ended the call",
        Failure::ShuttingDown => "this gateway is being restarted: try again",
        Failure::Internal => "this gateway failed: report the request id",
    }
}

#[cfg(test)]
mod tests;
