//! Whole bodies: what clients ask, what providers answer, also with errors.
//!
//! Invariants: what is written is JSON, and a request that was said in another dialect can be read
//! in that dialect.

use anima_wire::adapter::{self, Destination, look_up as looking, presets};
use anima_wire::canonical::Refusal;
use anima_wire::dialect::Dialect;
use anima_wire::json::{Node, Outline};
use anima_wire::request::{CallRequest, Endpoint};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::json;
use serde_json::value::RawValue;

use super::{CLIENTS, must_be_json, plain_request, provider, settings, shape};
use crate::rng::Rng;

/// A text that callers may see is never longer.
const MESSAGE_BYTES_MAX: usize = 1100;

/// Providers that make vectors, with a model of each form.
const VECTORS: [(&str, &str); 6] = [
    ("gemini", "m"),
    ("openai_compatible", "m"),
    ("vertex", "m"),
    ("cohere", "m"),
    ("bedrock", "amazon.titan-embed-text-v2:0"),
    ("bedrock", "cohere.embed-v4:0"),
];

/// The scanner takes nothing that `serde_json` refuses, and nearly all that it takes.
pub(super) fn document(input: &[u8]) -> Result<u64, String> {
    let theirs = serde_json::from_slice::<serde_json::Value>(input);
    match (Outline::read(input), &theirs) {
        (Ok(outline), _) => {
            must_be_json("what the scanner took", input)?;
            let texts = walk(outline.root());
            Ok(shape(&["taken", &texts.min(20).to_string()], input))
        }
        (Err(ours), Ok(_)) => Err(format!("the scanner refused valid JSON: {ours}")),
        (Err(ours), Err(_)) => {
            let said = ours.to_string();
            let kind = said.split(" at byte ").next().unwrap_or_default();
            Ok(shape(&["refused", kind], b""))
        }
    }
}

/// Reads everything of a document, and counts its texts.
fn walk(node: Node<'_, '_>) -> usize {
    let own = usize::from(node.text().is_some());
    let of_names = node.members().map(|(name, value)| name.len().min(1) + walk(value));
    own + of_names.sum::<usize>() + node.elements().map(walk).sum::<usize>()
}

/// A client's request, read, counted, limited, and said to a provider.
pub(super) fn request(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let body = Bytes::copy_from_slice(input);
    let parsed = match rng.below(11) {
        0 => CallRequest::parse(Endpoint::Completions, body),
        1 => CallRequest::parse(Endpoint::Embeddings, body),
        2 => CallRequest::parse(Endpoint::Images, body),
        3 => CallRequest::parse(Endpoint::Rerank, body),
        4 => CallRequest::parse(Endpoint::Moderations, body),
        5 => CallRequest::parse(Endpoint::Speech, body),
        6 => CallRequest::parse(Endpoint::ImageEdits, body),
        7 => CallRequest::parse_embedding(body, "fast", rng.once_in(2)),
        _ => {
            let client = rng.pick(&CLIENTS).copied().ok_or("no clients")?;
            let in_path = (client == Dialect::Gemini).then_some(("fast", rng.once_in(2)));
            CallRequest::parse_as(client, body, in_path)
        }
    };
    let mut request = match parsed {
        Ok(request) => request,
        Err(error) => return Ok(shape(&["unread", error.param.unwrap_or_default()], b"")),
    };
    request.estimate_input_tokens();
    request.count_input_tokens();
    if rng.once_in(3) {
        request.limit_output(rng.next() >> 44);
    }
    let provider = provider(&mut rng)?;
    let settings = settings();
    let vendor = rng.pick(presets::ALL).map_or("", |preset| preset.base_url);
    let to = Destination { model: provider.model, settings: Some(&settings), base_url: vendor };
    let encoded = match provider.adapter.encode(&request, to) {
        Ok(encoded) => encoded,
        Err(refusal) => return Ok(shape(&["refused", &refusal.to_string()], b"")),
    };
    let sent = encoded.body.concat();
    if sent.len() != encoded.content_length {
        return Err(format!("{} bytes were said to be {}", sent.len(), encoded.content_length));
    }
    must_be_json("a request to a provider", &sent)?;
    let is_chat = request.endpoint == Endpoint::ChatCompletions;
    let is_converted = is_chat && Some(request.dialect) != provider.speaks;
    let whole = matches!(provider.name, "openai" | "anthropic" | "gemini" | "openai_responses");
    if let Some(speaks) = provider.speaks.filter(|_| is_converted && whole) {
        let outline = Outline::read(&sent).map_err(|error| format!("unreadable: {error}"))?;
        match speaks.read_request(&outline) {
            Ok(_) | Err(Refusal::Unsupported { .. }) => {}
            Err(refusal) => {
                let sent = String::from_utf8_lossy(&sent);
                return Err(format!("{} cannot read: {refusal}: {sent}", provider.name));
            }
        }
    }
    Ok(shape(&[provider.name, &encoded.dropped.header()], &sent))
}

/// A provider's answer, read, and said to a client.
pub(super) fn answer(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let request = plain_request(&mut rng, false)?;
    let provider = provider(&mut rng)?;
    match provider.adapter.answer(&request, &Bytes::copy_from_slice(input)) {
        // No client is given it: the provider itself says that it failed.
        Ok(answer) if answer.failure.is_some() => Ok(shape(&[provider.name, "failed"], b"")),
        Ok(answer) => {
            answer.count_output_tokens();
            must_be_json("an answer", &answer.body)?;
            let outline = Outline::read(&answer.body).map_err(|error| error.to_string())?;
            if Some(request.dialect) != provider.speaks {
                request.dialect.read_answer(&outline).map_err(|failure| {
                    let said = String::from_utf8_lossy(&answer.body);
                    format!("the client's dialect cannot read ({failure:?}): {said}")
                })?;
            }
            let suspect = if answer.usage_suspect { "suspect" } else { "" };
            Ok(shape(&[provider.name, suspect], &answer.body))
        }
        Err(failure) => Ok(shape(&[provider.name, &format!("{failure:?}")], b"")),
    }
}

/// Vectors of either dialect that has them, for a client of either.
pub(super) fn vectors(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let body = match rng.below(4) {
        0 => json!({"model": "m", "input": "hi"}),
        1 => json!({"model": "m", "input": ["hi", "ho"], "encoding_format": "base64"}),
        2 => json!({"content": {"parts": [{"text": "hi"}]}}),
        _ => json!({"requests": [{"content": {"parts": [{"text": "hi"}]}}]}),
    };
    let is_googles = body.get("input").is_none();
    let is_list = body.get("requests").is_some();
    let body = Bytes::from(body.to_string());
    let request = if is_googles {
        CallRequest::parse_embedding(body, "m", is_list)
    } else {
        CallRequest::parse(Endpoint::Embeddings, body)
    };
    let request = request.map_err(|error| format!("a plain request: {}", error.message))?;
    let (known, model) = *rng.pick(&VECTORS).ok_or("no provider makes vectors")?;
    let adapter = adapter::lookup(known).ok_or("no such provider")?;
    let adapter = adapter::of_model(adapter, model);
    match adapter.answer(&request, &Bytes::copy_from_slice(input)) {
        Ok(answer) => {
            must_be_json("vectors", &answer.body)?;
            let generated = answer.usage.map_or(0, |usage| usage.output_tokens());
            let is_read =
                known != "openai_compatible" && generated + answer.count_output_tokens() > 0;
            if is_read && answer.usage.is_none() {
                return Err("vectors were counted as text".into());
            }
            Ok(shape(&[known], &answer.body))
        }
        Err(failure) => Ok(shape(&[known, &format!("{failure:?}")], b"")),
    }
}

/// A provider's error.
pub(super) fn error(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let provider = provider(&mut rng)?;
    let statuses = [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529, 204, 301];
    let status = rng.pick(&statuses).copied().unwrap_or(500);
    let mut headers = HeaderMap::new();
    let start = input.get(rng.below(input.len())..).unwrap_or_default();
    let value = start.get(..rng.below(40)).unwrap_or_default();
    if let Ok(value) = HeaderValue::from_bytes(value) {
        headers.insert(RETRY_AFTER, value);
    }
    let found = provider.adapter.classify(status, &headers, input);
    if found.message.len() > MESSAGE_BYTES_MAX || found.message.chars().any(char::is_control) {
        return Err(format!("a message not to be shown: {:?}", found.message));
    }
    Ok(shape(&[provider.name, &format!("{:?}", found.failure)], b""))
}

/// What a provider says of a call afterwards.
pub(super) fn look_up(input: &[u8]) -> Result<u64, String> {
    let answer = format!("{:?}", looking::read(200, input));
    let is_valid = serde_json::from_slice::<&RawValue>(input).is_ok();
    if !is_valid && answer.starts_with("Calls") {
        return Err(format!("calls were read from no JSON: {answer}"));
    }
    Ok(shape(&[answer.get(..12).unwrap_or(&answer)], input))
}
