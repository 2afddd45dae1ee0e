//! Endpoints that are neither chat nor vectors: texts, moderations, pictures, ranks and sound.
//!
//! Invariants: what goes to a client that asked for JSON is JSON, an answer about sound is never
//! without usage, and of streams those of `streams`.

use anima_wire::adapter;
use anima_wire::dialect::Dialect;
use anima_wire::request::{CallRequest, Endpoint};
use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;

use super::{must_be_json, named, shape, streams};
use crate::rng::Rng;

const KIND: HeaderValue = HeaderValue::from_static("multipart/form-data; boundary=b");

/// A whole answer.
pub(super) fn answer(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let (request, wants_json) = match rng.below(6) {
        0 => (asked(Endpoint::Completions, &json!({"model": "m", "prompt": ["a", "b"]}))?, true),
        1 => (asked(Endpoint::Moderations, &json!({"model": "m", "input": "hi"}))?, true),
        2 => (asked(Endpoint::Images, &json!({"model": "m", "prompt": "hi", "n": 2}))?, true),
        3 => {
            let body = json!({"model": "m", "query": "q", "documents": ["a", "b"]});
            (asked(Endpoint::Rerank, &body)?, true)
        }
        _ => {
            let format = ["json", "verbose_json", "diarized_json", "text", "srt", "vtt"];
            let format = rng.pick(&format).copied().unwrap_or("json");
            (recording(&[("response_format", format)])?, format.ends_with("json"))
        }
    };
    let names: &[&str] = if request.endpoint == Endpoint::Rerank {
        &["cohere", "openai_compatible"]
    } else {
        &["openai", "openai_compatible", "azure_openai"]
    };
    let name = rng.pick(names).copied().ok_or("no providers")?;
    let adapter = adapter::lookup(name).ok_or("no such provider")?;
    let endpoint = format!("{:?}", request.endpoint);
    match adapter.answer(&request, &Bytes::copy_from_slice(input)) {
        Ok(answer) if answer.failure.is_some() => Ok(shape(&[name, &endpoint, "failed"], b"")),
        Ok(answer) => {
            answer.count_output_tokens();
            if wants_json {
                must_be_json("an answer", &answer.body)?;
            }
            if request.endpoint.hears() && answer.usage.is_none() {
                return Err("something was heard for nothing".into());
            }
            let usage = answer.usage.map_or(0, |usage| usage.iter().count());
            Ok(shape(&[name, &endpoint, &usage.to_string()], &answer.body))
        }
        Err(failure) => Ok(shape(&[name, &endpoint, &format!("{failure:?}")], b"")),
    }
}

/// A stream.
pub(super) fn stream(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let request = match rng.below(4) {
        0 => {
            let told = json!({"include_usage": rng.once_in(2)});
            let body = json!({"model": "m", "prompt": "a", "stream": true, "stream_options": told});
            asked(Endpoint::Completions, &body)?
        }
        n @ (1 | 2) => {
            let format = if n == 1 { "sse" } else { "audio" };
            let body = json!({"model": "m", "input": "hi", "voice": "v", "stream_format": format});
            asked(Endpoint::Speech, &body)?
        }
        _ => recording(&[("stream", "true")])?,
    };
    let from = named(("openai", "gpt-x", Some(Dialect::OpenAiChat)))?;
    streams::run(&from, &request, input, &mut rng)
}

fn asked(endpoint: Endpoint, body: &serde_json::Value) -> Result<CallRequest, String> {
    let read = CallRequest::parse(endpoint, Bytes::from(body.to_string()));
    read.map_err(|error| format!("a plain request: {}", error.message))
}

/// A form that asks to hear.
fn recording(fields: &[(&str, &str)]) -> Result<CallRequest, String> {
    let mut body = String::new();
    for (name, value) in [("model", "m"), ("file", "RIFF")].iter().chain(fields) {
        let head = format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend([&head, *value, "\r\n"]);
    }
    body.push_str("--b--");
    let read = CallRequest::parse_form(Endpoint::Transcriptions, &KIND, Bytes::from(body));
    read.map_err(|error| format!("a plain form: {}", error.message))
}
