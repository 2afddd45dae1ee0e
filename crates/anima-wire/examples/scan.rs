//! Prints how fast the scanner is next to `serde_json`, and what decoding a stream costs, so that
//! the figures in `json.rs` can be had again: `cargo run --release -p anima-wire --example scan`.
//! Not a test: it judges nothing. Each figure is the best of many rounds.
#![expect(clippy::print_stdout, reason = "a program whose product is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use anima_wire::adapter::lookup;
use anima_wire::request::{CallRequest, Endpoint};
use bytes::Bytes;
use serde_json::value::RawValue;

/// Enough rounds for the best of them to be undisturbed.
const ROUNDS: usize = 400;

fn main() {
    report_stream();
    println!(
        "{:<28} {:>9} {:>12} {:>12} {:>8}",
        "128 KiB body of", "scan us", "RawValue us", "Value us", "GB/s"
    );
    let code = "    if value == \"quoted\" { return Err(fault); } // one more line of a file\n";
    report(
        "prose, one line break in 600",
        &format!("{}\n", "The quick brown fox jumps. ".repeat(22)),
    );
    report("code, many escapes", code);
    report("Chinese", "人工智能网关会扫描每一个请求的正文，然后原样转发。");
    report("Russian", "Шлюз читает каждый запрос один раз и передаёт его дальше без изменений. ");
    report("base64", &"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ".repeat(20));
}

/// Measures a stream of 50 chunks that arrive one by one, for a client that did not ask for usage.
fn report_stream() {
    let chunk = Bytes::from_static(
        b"data: {\"id\":\"chatcmpl-7\",\"object\":\"chat.completion.chunk\",\"created\":1763800000,\
        \"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
        \"system_fingerprint\":\"fp_1\",\
        \"choices\":[{\"index\":0,\"delta\":{\"content\":\" there\"},\"logprobs\":null,\
        \"finish_reason\":null}],\"usage\":null}\n\n",
    );
    let body = Bytes::from_static(br#"{"model":"m","messages":[{}],"stream":true}"#);
    let parsed = CallRequest::parse(Endpoint::ChatCompletions, body);
    let (Ok(request), Some(adapter)) = (parsed, lookup("openai")) else {
        return;
    };
    let mut out = Vec::new();
    let micros = best(|| {
        let mut decoder = adapter.stream(&request);
        for _ in 0..50 {
            black_box(decoder.push(black_box(chunk.clone()), &mut out).is_ok());
            out.clear();
        }
    });
    println!("{:<28} {micros:>9.1}", "stream of 50 chunks");
}

/// Measures one kind of prompt.
fn report(name: &str, sample: &str) {
    let text = sample.repeat(128 * 1024 / sample.len());
    let body = serde_json::json!({
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": text}],
        "stream": true,
    });
    let body = Bytes::from(body.to_string());
    let scan = best(|| {
        black_box(CallRequest::parse(Endpoint::ChatCompletions, black_box(body.clone())).is_ok());
    });
    let raw = best(|| {
        let members: Result<BTreeMap<&str, &RawValue>, _> =
            serde_json::from_slice(black_box(&body));
        black_box(members.is_ok());
    });
    let value = best(|| {
        let document: Result<serde_json::Value, _> = serde_json::from_slice(black_box(&body));
        black_box(document.is_ok());
    });
    let bytes = u32::try_from(body.len()).map_or(f64::NAN, f64::from);
    let rate = bytes / scan / 1000.0;
    println!("{name:<28} {scan:>9.1} {raw:>12.1} {value:>12.1} {rate:>8.1}");
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
