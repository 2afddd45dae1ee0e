//! Prints what a conversion costs, so that the figures in issue 7 can be checked: a request of
//! 2 KiB, a whole answer, and one chunk of a stream, for every pair of dialects that differ.
//! `cargo run --release -p anima-wire --example convert`. Not a test: it judges nothing. Each
//! figure is the best of many rounds, microseconds.
#![expect(clippy::print_stdout, reason = "a program whose product is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::time::Instant;

use anima_wire::adapter::{Destination, lookup};
use anima_wire::dialect::Dialect;
use anima_wire::request::CallRequest;
use bytes::Bytes;
use serde_json::{Value, json};

/// Enough rounds for the best of them to be undisturbed.
const ROUNDS: usize = 2000;

/// Chunks of one measured stream.
const CHUNKS: usize = 50;

const CLIENTS: &[(&str, Dialect)] = &[
    ("chat", Dialect::OpenAiChat),
    ("anthropic", Dialect::Anthropic),
    ("gemini", Dialect::Gemini),
    ("responses", Dialect::Responses),
];

const PROVIDERS: &[(&str, Dialect)] = &[
    ("openai", Dialect::OpenAiChat),
    ("anthropic", Dialect::Anthropic),
    ("gemini", Dialect::Gemini),
    ("openai_responses", Dialect::Responses),
];

fn main() {
    println!("{:<12} {:<18} {:>9} {:>9} {:>9}", "client", "provider", "request", "answer", "chunk");
    for (client, speaks) in CLIENTS {
        for (provider, answers) in PROVIDERS.iter().filter(|(_, answers)| answers != speaks) {
            report(client, *speaks, provider, *answers);
        }
    }
}

/// Measures one pair.
fn report(client: &str, speaks: Dialect, provider: &str, answers: Dialect) {
    let named = (speaks == Dialect::Gemini).then_some(("fast", true));
    let parsed = CallRequest::parse_as(speaks, Bytes::from(request(speaks).to_string()), named);
    let (Ok(call), Some(adapter)) = (parsed, lookup(provider)) else {
        return;
    };
    let encode = best(|| {
        black_box(adapter.encode(black_box(&call), Destination::bare("upstream")).is_ok());
    });
    let body = Bytes::from(answer(answers).to_string());
    let whole = best(|| {
        black_box(adapter.answer(&call, black_box(&body)).is_ok());
    });
    let (start, piece) = chunks(answers);
    let mut out = Vec::new();
    let stream = best(|| {
        let mut decoder = adapter.stream(&call);
        black_box(decoder.push(start.clone(), &mut out).is_ok());
        for _ in 0..CHUNKS {
            black_box(decoder.push(black_box(piece.clone()), &mut out).is_ok());
            out.clear();
        }
    });
    let chunk = stream / f64::from(u32::try_from(CHUNKS).unwrap_or(1));
    println!("{client:<12} {provider:<18} {encode:>9.2} {whole:>9.2} {chunk:>9.2}");
}

/// A request of some 2 KiB: instructions, a few turns, a tool.
fn request(dialect: Dialect) -> Value {
    let words = "Tell me \"why\" the sky is blue.\nAnd the sea? ".repeat(7);
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    match dialect {
        Dialect::OpenAiChat => json!({"model": "fast", "stream": true, "temperature": 0.7,
            "messages": [{"role": "system", "content": words}, {"role": "user", "content": words},
                {"role": "assistant", "content": words}, {"role": "user", "content": words}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}),
        Dialect::Anthropic => json!({"model": "fast", "stream": true, "max_tokens": 500,
            "system": words, "messages": [{"role": "user", "content": words},
                {"role": "assistant", "content": words}, {"role": "user", "content": words}],
            "tools": [{"name": "f", "input_schema": schema}]}),
        Dialect::Gemini => {
            let turn = |role: &str| json!({"role": role, "parts": [{"text": words}]});
            let tool = json!({"name": "f", "parametersJsonSchema": schema});
            json!({"systemInstruction": {"parts": [{"text": words}]},
                "contents": [turn("user"), turn("model"), turn("user")],
                "tools": [{"functionDeclarations": [tool]}]})
        }
        Dialect::Responses => json!({"model": "fast", "stream": true, "instructions": words,
            "input": [{"role": "user", "content": words}, {"role": "assistant", "content": words},
                {"role": "user", "content": words}],
            "tools": [{"type": "function", "name": "f", "parameters": schema}]}),
    }
}

/// An answer of some 500 bytes.
fn answer(dialect: Dialect) -> Value {
    let words = "Because of the way light scatters. ".repeat(12);
    match dialect {
        Dialect::OpenAiChat => json!({"id": "c", "object": "chat.completion", "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": words}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}}),
        Dialect::Anthropic => json!({"id": "msg_1", "type": "message", "role": "assistant",
            "model": "m", "content": [{"type": "text", "text": words}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 9, "output_tokens": 9}}),
        Dialect::Gemini => json!({"responseId": "r", "modelVersion": "m", "candidates": [
                {"index": 0, "finishReason": "STOP", "content": {"parts": [{"text": words}]}}],
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 9,
                "totalTokenCount": 18}}),
        Dialect::Responses => json!({"id": "resp_1", "status": "completed", "model": "m",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": words}]}],
            "usage": {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}}),
    }
}

/// The start of a stream, and a chunk with a piece of text.
fn chunks(dialect: Dialect) -> (Bytes, Bytes) {
    let event = |value: &Value| Bytes::from(format!("data: {value}\n\n"));
    match dialect {
        Dialect::OpenAiChat => {
            let chunk = |delta: Value| {
                event(&json!({"id": "chatcmpl-7", "object": "chat.completion.chunk",
                    "created": 1_763_800_000, "model": "gpt-4o", "system_fingerprint": "fp_1",
                    "choices": [{"index": 0, "delta": delta, "logprobs": null,
                        "finish_reason": null}], "usage": null}))
            };
            (chunk(json!({"role": "assistant"})), chunk(json!({"content": " there"})))
        }
        Dialect::Anthropic => {
            let start = json!({"type": "message_start", "message": {"id": "msg_1", "model": "m"}});
            let block = json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}});
            let piece = json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": " there"}});
            (Bytes::from([event(&start), event(&block)].concat()), event(&piece))
        }
        Dialect::Gemini => {
            let chunk = json!({"responseId": "r", "modelVersion": "m", "candidates": [
                    {"index": 0, "content": {"role": "model", "parts": [{"text": " there"}]}}],
                "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 9,
                    "totalTokenCount": 18}});
            (event(&chunk), event(&chunk))
        }
        Dialect::Responses => {
            let start = json!({"type": "response.created", "sequence_number": 0,
                "response": {"id": "resp_1", "model": "m"}});
            let piece = json!({"type": "response.output_text.delta", "sequence_number": 1,
                "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": " there",
                "logprobs": []});
            (event(&start), event(&piece))
        }
    }
}

/// The shortest of many rounds, microseconds.
fn best(mut round: impl FnMut()) -> f64 {
    let mut shortest = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        shortest = shortest.min(start.elapsed().as_secs_f64() * 1e6);
    }
    shortest
}
