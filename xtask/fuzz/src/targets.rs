//! Everything that reads bytes of others, each with what must hold of it for any bytes.
//!
//! Beside "no panic and no endless loop" a target says what is wrong as text. Invariant: what a
//! target does with an input is decided by the input alone, also which client and provider it is
//! tried with.

mod bodies; // requests, answers, errors, look-ups
mod forms; // bodies with files
mod others; // what is neither chat nor vectors
mod streams; // events, streams, binary frames

use anima_wire::adapter::{self, Adapter};
use anima_wire::dialect::Dialect;
use anima_wire::request::CallRequest;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::rng::{self, Rng};

/// One decoder.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// The files of the golden conversations to start from.
    pub(crate) files: &'static [&'static str],
    /// The outcome's shape, or what is wrong.
    pub(crate) run: fn(&[u8]) -> Result<u64, String>,
}

const REQUESTS: &[&str] = &["request.json", "upstream_request.json"];
const ANSWERS: &[&str] = &["upstream_response.json"];
const STREAMS: &[&str] = &["upstream_response.sse"];

/// All of them.
pub(crate) static ALL: &[Target] = &[
    Target {
        name: "json",
        files: &["request.json", "upstream_response.json", "response.json"],
        run: bodies::document,
    },
    Target { name: "request", files: REQUESTS, run: bodies::request },
    Target { name: "answer", files: ANSWERS, run: bodies::answer },
    Target { name: "error", files: ANSWERS, run: bodies::error },
    Target { name: "look_up", files: ANSWERS, run: bodies::look_up },
    Target { name: "sse", files: STREAMS, run: streams::sse },
    Target { name: "stream", files: STREAMS, run: streams::stream },
    Target { name: "frames", files: STREAMS, run: streams::frames },
    Target { name: "converse", files: STREAMS, run: streams::converse },
    Target { name: "other_answer", files: ANSWERS, run: others::answer },
    Target { name: "other_stream", files: STREAMS, run: others::stream },
    Target { name: "form", files: REQUESTS, run: forms::form },
    Target {
        name: "vectors",
        files: &["request.json", "upstream_response.json"],
        run: bodies::vectors,
    },
];

const CLIENTS: [Dialect; 4] =
    [Dialect::OpenAiChat, Dialect::Anthropic, Dialect::Gemini, Dialect::Responses];

/// A provider, a model of its, and what it speaks, unless no client does.
const PROVIDERS: [(&str, &str, Option<Dialect>); 11] = [
    ("openai", "gpt-x", Some(Dialect::OpenAiChat)),
    ("openai_compatible", "x", Some(Dialect::OpenAiChat)),
    ("azure_openai", "x", Some(Dialect::OpenAiChat)),
    ("cohere", "command-x", Some(Dialect::OpenAiChat)),
    ("anthropic", "claude-x", Some(Dialect::Anthropic)),
    ("bedrock", "anthropic.claude-x", Some(Dialect::Anthropic)),
    CONVERSE,
    ("vertex", "claude-x", Some(Dialect::Anthropic)),
    ("vertex", "gemini-x", Some(Dialect::Gemini)),
    ("gemini", "gemini-x", Some(Dialect::Gemini)),
    ("openai_responses", "gpt-x", Some(Dialect::Responses)),
];

/// Any model at Bedrock but Claude.
const CONVERSE: (&str, &str, Option<Dialect>) = ("bedrock", "amazon.nova-x", None);

/// Who answers.
struct Provider {
    name: &'static str,
    model: &'static str,
    speaks: Option<Dialect>,
    adapter: &'static dyn Adapter,
}

fn provider(rng: &mut Rng) -> Result<Provider, String> {
    named(*rng.pick(&PROVIDERS).ok_or("no providers")?)
}

type Known = (&'static str, &'static str, Option<Dialect>);

fn named((name, model, speaks): Known) -> Result<Provider, String> {
    let adapter = adapter::lookup(name).ok_or_else(|| format!("no provider {name}"))?;
    Ok(Provider { name, model, speaks, adapter: adapter::of_model(adapter, model) })
}

/// A channel's settings, with what any provider needs.
fn settings() -> Map<String, Value> {
    let settings = json!({"project": "p", "location": "l", "api_version": "v1"});
    settings.as_object().cloned().unwrap_or_default()
}

/// A client's plain request, whose answer is to be read.
fn plain_request(rng: &mut Rng, stream: bool) -> Result<CallRequest, String> {
    let client = rng.pick(&CLIENTS).copied().ok_or("no clients")?;
    let turns = json!([{"role": "user", "content": "hi"}]);
    let body = match client {
        Dialect::Gemini => json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
        Dialect::Responses => json!({"model": "m", "input": "hi", "stream": stream}),
        Dialect::Anthropic => {
            json!({"model": "m", "max_tokens": 9, "messages": turns, "stream": stream})
        }
        Dialect::OpenAiChat => {
            let asked = rng.once_in(2);
            json!({"model": "m", "messages": turns, "stream": stream,
                "stream_options": stream.then(|| json!({"include_usage": asked}))})
        }
    };
    let in_path = (client == Dialect::Gemini).then_some(("m", stream));
    let parsed = CallRequest::parse_as(client, Bytes::from(body.to_string()), in_path);
    let mut request = parsed.map_err(|error| format!("a plain request: {}", error.message))?;
    request.as_array = client == Dialect::Gemini && stream && rng.once_in(2);
    Ok(request)
}

/// What a document has, as far as it is new: the names in it.
fn shape(parts: &[&str], document: &[u8]) -> u64 {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut pieces = document.split(|byte| *byte == b'"').peekable();
    while let Some(piece) = pieces.next() {
        let is_name = pieces.peek().is_some_and(|next| next.starts_with(b":"));
        if is_name && !names.contains(&piece) && names.len() < 64 {
            names.push(piece);
        }
    }
    names.sort_unstable();
    rng::hash(&[parts.concat().as_bytes(), &names.concat()].concat())
}

/// That what we wrote is JSON.
fn must_be_json(what: &str, bytes: &[u8]) -> Result<(), String> {
    let valid = serde_json::from_slice::<&serde_json::value::RawValue>(bytes);
    valid
        .map(|_| ())
        .map_err(|error| format!("{what} is no JSON: {error}: {}", String::from_utf8_lossy(bytes)))
}
