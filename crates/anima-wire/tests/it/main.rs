//! Golden conversations: what a client sends, what a provider gets and says, what comes back.
//!
//! One folder of `fixtures/<adapter>/` is one case; this walks them all. The client speaks OpenAI's
//! dialect, or the one that `client.txt` names. Streams are sent whole, byte by byte and in odd
//! pieces, and must come out the same. `ANIMA_BLESS=1` writes what is found, to be read before it
//! is committed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test outside of `cfg(test)`")]

mod billing;
mod tool_ids;

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use anima_core::failure::Failure;
use anima_wire::adapter::{self, Adapter, Destination, StreamDecoder, neutral_message};
use anima_wire::dialect::Dialect;
use anima_wire::request::{CallRequest, Endpoint, Error, Ranking};
use anima_wire::surface;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

/// The model of every route in the fixtures.
const UPSTREAM_MODEL: &str = "upstream-model";

struct Case {
    folder: PathBuf,
    adapter: &'static dyn Adapter,
    model: &'static str,
}

impl Case {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.folder.join(name)).ok()
    }

    /// Compares with a golden file, or writes it.
    #[expect(clippy::disallowed_methods, reason = "a switch of the test itself")]
    fn golden(&self, name: &str, found: &[u8]) {
        let path = self.folder.join(name);
        if std::env::var_os("ANIMA_BLESS").is_some() {
            fs::write(&path, found).unwrap();
        }
        let expected = fs::read(&path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(found), text(&expected), "{}", path.display());
    }

    /// The facts, in a form that is easy to read in a diff.
    fn golden_usage(&self, facts: &Value) {
        let text = format!("{}\n", serde_json::to_string_pretty(facts).unwrap());
        self.golden("usage.json", text.as_bytes());
    }

    /// An error as the client sees it.
    fn golden_error(&self, failure: Failure, message: &str, param: Option<&str>) {
        let body = match self.client() {
            Dialect::OpenAiChat | Dialect::Responses => {
                surface::openai::error_body(failure, message, param, None)
            }
            Dialect::Anthropic => surface::anthropic::error_body(failure, message, None, None),
            Dialect::Gemini => surface::gemini::error_body(failure, message, None),
        };
        self.golden("response.json", &body);
    }

    /// What the client speaks.
    fn client(&self) -> Dialect {
        let word = self.read("client.txt").unwrap_or_default();
        match String::from_utf8(word).unwrap().trim() {
            "" | "cohere" => Dialect::OpenAiChat,
            "anthropic" => Dialect::Anthropic,
            "responses" => Dialect::Responses,
            "gemini" | "gemini stream" | "gemini array" | "gemini vector" | "gemini vectors" => {
                Dialect::Gemini
            }
            word => panic!("no client speaks {word}"),
        }
    }

    fn parse(&self, body: Bytes) -> Result<CallRequest, Error> {
        match self.client() {
            Dialect::OpenAiChat => {
                let mut request = CallRequest::parse(endpoint(&body), body)?;
                if self.read("client.txt").is_some_and(|word| word.starts_with(b"cohere")) {
                    request.ranking = Ranking::Cohere;
                }
                Ok(request)
            }
            Dialect::Gemini => {
                let word = self.read("client.txt").unwrap_or_default();
                if word.starts_with(b"gemini vector") {
                    let is_list = word.trim_ascii().ends_with(b"vectors");
                    return CallRequest::parse_embedding(body, "fast", is_list);
                }
                let stream = word.trim_ascii() != b"gemini";
                let mut request =
                    CallRequest::parse_as(Dialect::Gemini, body, Some(("fast", stream)))?;
                request.as_array = word.trim_ascii() == b"gemini array";
                Ok(request)
            }
            dialect @ (Dialect::Anthropic | Dialect::Responses) => {
                CallRequest::parse_as(dialect, body, None)
            }
        }
    }

    /// Where the request goes: `vendor.txt` names the vendor.
    fn destination<'a>(&self, settings: Option<&'a Map<String, Value>>) -> Destination<'a> {
        let vendor = self.read("vendor.txt").unwrap_or_default();
        let vendor = adapter::presets::lookup(std::str::from_utf8(&vendor).unwrap().trim());
        let named = self.read("base_url.txt").map(|url| String::from_utf8(url).unwrap());
        let named = named.map(|url| &*url.trim().to_owned().leak());
        let base_url = named.or_else(|| vendor.map(|vendor| vendor.base_url)).unwrap_or_default();
        Destination { model: self.model, settings, base_url }
    }

    /// The model of the route, which `model.txt` may name.
    fn model(&self) -> &'static str {
        let named = self.read("model.txt").map(|name| String::from_utf8(name).unwrap());
        let name = self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match named {
            Some(named) => named.trim().to_owned().leak(),
            None if name.starts_with("claude_") => "claude-upstream",
            None => UPSTREAM_MODEL,
        }
    }

    /// The settings of the channel.
    fn settings(&self) -> Option<Map<String, Value>> {
        self.read("settings.json").map(|text| serde_json::from_slice(&text).unwrap())
    }

    fn run(&self) {
        let note = String::from_utf8(self.read("note.md").unwrap_or_default()).unwrap();
        assert!(note.contains(" 20"), "{}: a note with source and year", self.folder.display());
        let body = Bytes::from(self.read("request.json").unwrap());
        let mut request = match self.parse(body) {
            Ok(request) => request,
            Err(error) => {
                self.golden_usage(&json!({ "failure": name(error.failure) }));
                return self.golden_error(error.failure, &error.message, error.param);
            }
        };
        request.created_s = 1_763_800_000;
        let settings = self.settings();
        let encoded = match self.adapter.encode(&request, self.destination(settings.as_ref())) {
            Ok(encoded) => encoded,
            Err(refusal) => {
                let error = Error::from(refusal);
                self.golden_usage(&json!({ "failure": name(error.failure) }));
                return self.golden_error(error.failure, &error.message, error.param);
            }
        };
        if self.read("path.txt").is_some() {
            self.golden("path.txt", format!("{}\n", encoded.path).as_bytes());
        }
        let sent = encoded.body.concat();
        assert_eq!(sent.len(), encoded.content_length);
        self.golden("upstream_request.json", &sent);
        if !encoded.dropped.is_empty() || self.read("dropped.txt").is_some() {
            self.golden("dropped.txt", format!("{}\n", encoded.dropped.header()).as_bytes());
        }
        if let Some(head) = self.read("upstream_status.txt") {
            self.refused(&head);
        } else if let Some(stream) = self.read("upstream_response.sse") {
            self.streamed(&request, &stream);
        } else {
            self.answered(&request);
        }
    }

    /// The provider answered with an error status.
    fn refused(&self, head: &[u8]) {
        let (status, headers) = head_of(head);
        let body = self.read("upstream_response.json").unwrap_or_default();
        let found = self.adapter.classify(status, &headers, &body);
        self.golden_usage(&json!({
            "failure": name(found.failure),
            "retry_after_ms": found.retry_after_ms,
            "upstream_code": found.upstream_code,
        }));
        self.golden_error(found.failure, &found.message, None);
    }

    /// The provider answered with a 200 and a whole body.
    fn answered(&self, request: &CallRequest) {
        let body = Bytes::from(self.read("upstream_response.json").unwrap());
        match self.adapter.answer(request, &body) {
            Ok(answer) if answer.failure.is_some() => {
                let failure = answer.failure.unwrap();
                self.golden_usage(&json!({ "failure": name(failure), "usage": answer.usage }));
                self.golden_error(failure, neutral_message(failure), None);
            }
            Ok(answer) => {
                let counted = answer.usage.is_none().then(|| answer.count_output_tokens());
                self.golden_usage(&json!({
                    "usage": answer.usage,
                    "suspect": answer.usage_suspect,
                    "output_tokens_counted": counted,
                    "service_tier": answer.service_tier,
                    "upstream_ref": answer.upstream_ref,
                    "text_bytes": answer.text_bytes,
                }));
                self.golden("response.json", &answer.body);
            }
            Err(failure) => {
                self.golden_usage(&json!({ "failure": name(failure) }));
                self.golden_error(failure, neutral_message(failure), None);
            }
        }
    }

    /// The provider answered with a stream.
    fn streamed(&self, request: &CallRequest, stream: &[u8]) {
        let decode = |size: usize| decode(self.adapter.stream(request), stream, size);
        let (client, facts) = decode(stream.len());
        for size in [1, 2, 7, 64] {
            assert_eq!(decode(size), (client.clone(), facts.clone()), "pieces of {size}");
        }
        self.golden("response.sse", &client);
        self.golden_usage(&facts);
    }
}

/// What the client gets of a stream, and the facts.
fn decode(mut decoder: StreamDecoder, stream: &[u8], size: usize) -> (Vec<u8>, Value) {
    let mut out = Vec::new();
    let outcome = stream
        .chunks(size)
        .try_for_each(|piece| decoder.push(Bytes::copy_from_slice(piece), &mut out))
        .and_then(|()| decoder.end(&mut out));
    out.push(match outcome {
        Ok(()) => decoder.terminator(),
        Err(failure) => {
            decoder.failure_event(failure, neutral_message(failure), "req-1").unwrap_or_default()
        }
    });
    let usage = decoder.usage();
    let facts = json!({
        "failure": outcome.err().map(name),
        "usage": usage,
        "suspect": decoder.usage_suspect(),
        "output_tokens_counted": usage.is_none().then(|| decoder.count_output_tokens()),
        "service_tier": decoder.service_tier(),
        "upstream_ref": decoder.upstream_ref(),
        "has_content": decoder.has_content(),
    });
    (out.concat(), facts)
}

/// The endpoint that a body is for, by its prompt.
fn endpoint(body: &[u8]) -> Endpoint {
    let text = String::from_utf8_lossy(body);
    if text.contains("\"prompt\"") {
        Endpoint::Completions
    } else if text.contains("\"documents\"") {
        Endpoint::Rerank
    } else if text.contains("\"input\"") {
        Endpoint::Embeddings
    } else {
        Endpoint::ChatCompletions
    }
}

/// A status line and headers.
fn head_of(text: &[u8]) -> (u16, HeaderMap) {
    let text = std::str::from_utf8(text).unwrap();
    let mut lines = text.lines();
    let status = lines.next().unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        let name: HeaderName = name.parse().unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    (status, lines.map(header).collect())
}

fn name(failure: impl Debug) -> String {
    format!("{failure:?}")
}

#[test]
fn every_conversation_is_as_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut count = 0;
    for adapter_folder in fs::read_dir(root).unwrap() {
        let adapter_folder = adapter_folder.unwrap();
        let adapter = adapter::lookup(adapter_folder.file_name().to_str().unwrap()).unwrap();
        for folder in fs::read_dir(adapter_folder.path()).unwrap() {
            let folder = folder.unwrap().path();
            let request = folder.join("request.json");
            assert!(request.exists(), "{} is missing", request.display());
            let mut case = Case { folder, adapter, model: UPSTREAM_MODEL };
            case.model = case.model();
            case.adapter = adapter::of_model(adapter, case.model);
            case.run();
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} cases were found");
}
