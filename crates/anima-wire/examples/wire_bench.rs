//! Measures what the wire costs, and judges it by the figures that this project promises: a body of
//! 128 KiB passed on, a request of 2 KiB converted, one chunk of a stream, for every pair of
//! dialects that differ. `cargo xtask bench wire` runs it in release. Each figure is the best of
//! many rounds, so that what else the machine does is not in it. Exit code 1 when one is missed;
//! whole answers are shown and not judged.

#![expect(clippy::print_stdout, reason = "a program whose product is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use anima_wire::adapter::{Adapter, Destination, lookup};
use anima_wire::dialect::Dialect;
use anima_wire::request::CallRequest;
use bytes::Bytes;
use serde_json::{Value, json};

/// Enough rounds for the best of them to be undisturbed.
const ROUNDS: usize = 1000;

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

/// Microseconds that may be spent.
const PASSED_BODY_MAX: f64 = 150.0;
const CONVERTED_REQUEST_MAX: f64 = 60.0;
const CHUNK_MAX: f64 = 3.0;

fn main() -> ExitCode {
    let mut missed = 0;
    println!(
        "| passed on, us | request of 128 KiB | answer of 128 KiB | chunk |\n|---|---|---|---|"
    );
    for (name, dialect) in CLIENTS {
        missed += report_passed(name, *dialect);
    }
    println!(
        "\n| client | provider | request of 2 KiB, us | answer of 500 bytes, us | chunk, us |"
    );
    println!("|---|---|---|---|---|");
    for (client, speaks) in CLIENTS {
        for (provider, answers) in PROVIDERS.iter().filter(|(_, answers)| answers != speaks) {
            missed += report_converted((client, *speaks), (provider, *answers));
        }
    }
    println!(
        "\nat most {PASSED_BODY_MAX} us for a body passed on, {CONVERTED_REQUEST_MAX} us for a \
        request converted, {CHUNK_MAX} us for a chunk: {missed} missed"
    );
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many of the figures are over what they may be.
fn missed(figures: &[(f64, f64)]) -> u32 {
    figures.iter().map(|(found, most)| u32::from(found > most)).sum()
}

/// Measures client and provider of one dialect.
fn report_passed(name: &str, dialect: Dialect) -> u32 {
    let provider = PROVIDERS.iter().find(|(_, speaks)| *speaks == dialect);
    let Some(adapter) = provider.and_then(|(provider, _)| lookup(provider)) else {
        return 1;
    };
    // Text of every kind: plain, escaped, and of more than one byte a sign.
    let words = "Why \"is\" it so?\n\tПотому что. 因为光散射。 Because light scatters. ";
    let body = Bytes::from(request_of(dialect, &words.repeat(128 * 1024 / 4 / 82)).to_string());
    let named = (dialect == Dialect::Gemini).then_some(("fast", true));
    let request = best(|| {
        let parsed = CallRequest::parse_as(dialect, black_box(body.clone()), named);
        let sent = parsed.map(|call| adapter.encode(&call, Destination::bare("upstream")).is_ok());
        black_box(sent.is_ok());
    });
    let Ok(call) = CallRequest::parse_as(dialect, body, named) else {
        return 1;
    };
    let said = Bytes::from(answer_of(dialect, &words.repeat(128 * 1024 / 82)).to_string());
    let answer = best(|| {
        black_box(adapter.answer(&call, black_box(&said)).is_ok());
    });
    let chunk = chunk_of(adapter, &call, dialect);
    println!("| {name} | {request:.1} | {answer:.1} | {chunk:.2} |");
    missed(&[(request, PASSED_BODY_MAX), (chunk, CHUNK_MAX)])
}

/// Measures one pair.
fn report_converted(client: (&str, Dialect), provider: (&str, Dialect)) -> u32 {
    let ((client, speaks), (provider, answers)) = (client, provider);
    let named = (speaks == Dialect::Gemini).then_some(("fast", true));
    let sent = Bytes::from(request(speaks).to_string());
    let Some(adapter) = lookup(provider) else {
        return 1;
    };
    let encode = best(|| {
        let parsed = CallRequest::parse_as(speaks, black_box(sent.clone()), named);
        let said = parsed.map(|call| adapter.encode(&call, Destination::bare("upstream")).is_ok());
        black_box(said.is_ok());
    });
    let Ok(call) = CallRequest::parse_as(speaks, sent, named) else {
        return 1;
    };
    let body = Bytes::from(answer(answers).to_string());
    let whole = best(|| {
        black_box(adapter.answer(&call, black_box(&body)).is_ok());
    });
    let chunk = chunk_of(adapter, &call, answers);
    println!("| {client} | {provider} | {encode:.1} | {whole:.1} | {chunk:.2} |");
    missed(&[(encode, CONVERTED_REQUEST_MAX), (chunk, CHUNK_MAX)])
}

/// Measures one chunk of a stream of many.
fn chunk_of(adapter: &dyn Adapter, call: &CallRequest, answers: Dialect) -> f64 {
    let (start, piece) = chunks(answers);
    let mut out = Vec::new();
    let stream = best(|| {
        let mut decoder = adapter.stream(call);
        black_box(decoder.push(start.clone(), &mut out).is_ok());
        for _ in 0..CHUNKS {
            black_box(decoder.push(black_box(piece.clone()), &mut out).is_ok());
            out.clear();
        }
    });
    stream / f64::from(u32::try_from(CHUNKS).unwrap_or(1))
}

/// A request of some 2 KiB: instructions, a few turns, a tool.
fn request(dialect: Dialect) -> Value {
    request_of(dialect, &"Tell me \"why\" the sky is blue.\nAnd the sea? ".repeat(7))
}

/// A request in which the words stand several times.
fn request_of(dialect: Dialect, words: &str) -> Value {
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
    answer_of(dialect, &"Because of the way light scatters. ".repeat(12))
}

/// An answer of these words.
fn answer_of(dialect: Dialect, words: &str) -> Value {
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
