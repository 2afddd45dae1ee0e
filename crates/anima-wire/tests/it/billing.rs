//! The ten facts that are most likely to cause a billing bug (`reference/README.md`), a test each.
//!
//! Not here: fact 10, which is of what the gateway does and not of what is read, and fact 9 as it
//! is booked (`billing_facts` of the gateway's tests).

use anima_core::failure::Failure;
use anima_core::money::{Currency, Multiplier, Rate};
use anima_core::pricing::{MeterRate, PriceList, When};
use anima_core::usage::{Meter, Usage};
use anima_wire::adapter::{Answer, Destination, StreamDecoder, lookup};
use anima_wire::request::{CallRequest, Endpoint};
use bytes::Bytes;

fn request(stream: bool) -> CallRequest {
    let body = format!(r#"{{"model":"m","messages":[{{}}],"stream":{stream}}}"#);
    CallRequest::parse(Endpoint::ChatCompletions, body.into()).unwrap()
}

fn answer(provider: &str, body: &str) -> Result<Answer, Failure> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    lookup(provider).unwrap().answer(&request(false), &body)
}

fn usage(provider: &str, body: &str) -> Usage {
    answer(provider, body).unwrap().usage.unwrap()
}

fn stream(provider: &str, payloads: &[&str]) -> (StreamDecoder, Result<(), Failure>) {
    let mut decoder = lookup(provider).unwrap().stream(&request(true));
    let event = |payload: &&str| format!("data: {}\n\n", payload.replace('\n', ""));
    let text: String = payloads.iter().map(event).collect();
    let mut out = Vec::new();
    let result = decoder.push(text.into(), &mut out).and_then(|()| decoder.end(&mut out));
    (decoder, result)
}

/// Fact 1.
#[test]
fn anthropic_reports_input_without_what_was_cached_and_openai_with_it() {
    let anthropic = usage(
        "anthropic",
        r#"{"content":[{"type":"text","text":"x"}],"usage":{"input_tokens":10,
        "cache_read_input_tokens":90,"cache_creation_input_tokens":0,"output_tokens":1}}"#,
    );
    let openai = usage(
        "openai",
        r#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":100,
        "completion_tokens":1,"prompt_tokens_details":{"cached_tokens":90}}}"#,
    );
    let responses = usage(
        "openai_responses",
        r#"{"output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}],
        "usage":{"input_tokens":100,"output_tokens":1,
        "input_tokens_details":{"cached_tokens":90}}}"#,
    );
    let gemini = usage(
        "gemini",
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":
        {"promptTokenCount":100,"cachedContentTokenCount":90,"candidatesTokenCount":1}}"#,
    );
    for read in [anthropic, openai, responses, gemini] {
        assert_eq!((read.of(Meter::InputTokens), read.of(Meter::CachedInputTokens)), (10, 90));
        assert_eq!((read.input_tokens(), read.output_tokens()), (100, 1));
    }
}

/// Fact 2.
#[test]
fn thoughts_of_gemini_and_xai_are_outside_of_the_visible_output_and_of_others_inside() {
    let gemini = usage(
        "gemini",
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":
        {"promptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":40,
        "totalTokenCount":47}}"#,
    );
    let xai = usage(
        "openai_compatible",
        r#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":5,
        "completion_tokens":2,"total_tokens":47,
        "completion_tokens_details":{"reasoning_tokens":40}}}"#,
    );
    let openai = usage(
        "openai",
        r#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":5,
        "completion_tokens":42,"total_tokens":47,
        "completion_tokens_details":{"reasoning_tokens":40}}}"#,
    );
    let anthropic = usage(
        "anthropic",
        r#"{"content":[{"type":"text","text":"x"}],"usage":{"input_tokens":5,"output_tokens":42,
        "output_tokens_details":{"thinking_tokens":40}}}"#,
    );
    for read in [gemini, xai, openai, anthropic] {
        assert_eq!((read.of(Meter::OutputTokens), read.of(Meter::ReasoningTokens)), (2, 40));
    }
}

/// Fact 3.
#[test]
fn usage_of_a_chat_stream_is_always_asked_for_and_a_stream_that_is_cut_has_none() {
    let encoded = lookup("openai").unwrap().encode(&request(true), Destination::bare("m")).unwrap();
    let sent = String::from_utf8(encoded.body.concat()).unwrap();
    assert!(sent.contains(r#""stream_options":{"include_usage":true}"#), "{sent}");
    let (cut, result) = stream("openai", &[r#"{"choices":[{"delta":{"content":"x"}}]}"#]);
    assert_eq!((result, cut.usage()), (Err(Failure::StreamCut), None));
    // What Anthropic says first is what it believes of the prompt, and no bill.
    let (cut, result) = stream(
        "anthropic",
        &[
            r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,
            "content_block":{"type":"text","text":"x"}}"#,
        ],
    );
    assert_eq!((result, cut.usage()), (Err(Failure::StreamCut), None));
    assert_eq!(cut.input_usage().unwrap().input_tokens(), 9);
}

/// Fact 4.
#[test]
fn the_split_of_anthropics_cache_writes_stands_only_at_the_start_of_a_stream() {
    let (decoder, result) = stream(
        "anthropic",
        &[
            r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1,
            "cache_creation_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":100,
            "ephemeral_1h_input_tokens":200}}}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":3,
            "cache_creation_input_tokens":350,"output_tokens":7}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    );
    let read = decoder.usage().unwrap();
    assert_eq!(result, Ok(()));
    // What grew after the split was told is of the short kind.
    let writes = (read.of(Meter::CacheWriteTokens), read.of(Meter::CacheWrite1hTokens));
    assert_eq!((writes, read.of(Meter::InputTokens), read.output_tokens()), ((150, 200), 3, 7));
}

/// Fact 5.
#[test]
fn usage_may_stand_on_any_chunk_and_a_chunk_without_choices_need_not_be_usage() {
    let usage = r#""usage":{"prompt_tokens":5,"completion_tokens":2}"#;
    let azure = r#"{"choices":[],"prompt_filter_results":[]}"#;
    let text = r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#;
    let alone = format!(r#"{{"choices":[],{usage}}}"#);
    let beside = format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],{usage}}}"#);
    for last in [alone, beside] {
        let (decoder, result) = stream("openai", &[azure, text, &last, "[DONE]"]);
        let read = decoder.usage().unwrap();
        assert_eq!((result, read.input_tokens(), read.output_tokens()), (Ok(()), 5, 2));
    }
    let (decoder, _) = stream("openai", &[azure, text, "[DONE]"]);
    assert_eq!(decoder.usage(), None);
}

/// Dollars per million tokens: of input, of what was cached, of output, and twice of each above
/// 200,000 tokens.
fn tiered() -> PriceList {
    let rate = |meter, amount: &str, over: Option<u64>| MeterRate {
        meter,
        rate: Rate::parse(amount, 1_000_000, Currency::USD).unwrap(),
        when: When { input_tokens_over: over, ..When::default() },
    };
    let over = Some(200_000);
    let rates = vec![
        rate(Meter::InputTokens, "2", None),
        rate(Meter::CachedInputTokens, "0.2", None),
        rate(Meter::OutputTokens, "12", None),
        rate(Meter::InputTokens, "4", over),
        rate(Meter::CachedInputTokens, "0.4", over),
        rate(Meter::OutputTokens, "24", over),
    ];
    PriceList { code: "p".into(), version_no: 1, currency: Currency::USD, rates }
}

/// Fact 6.
#[test]
fn a_length_tier_prices_all_of_a_call_anew_also_its_output_and_what_was_cached() {
    let told = |provider: &str, input: u64| {
        let cached = 150_000;
        let body = match provider {
            // Its prompt is what it counts as input and what it read from its cache.
            "anthropic" => format!(
                r#"{{"content":[],"usage":{{"input_tokens":{},"cache_read_input_tokens":{cached},
                "output_tokens":1000}}}}"#,
                input - cached
            ),
            "gemini" => format!(
                r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}}}}],"usageMetadata":
                {{"promptTokenCount":{input},"cachedContentTokenCount":{cached},
                "candidatesTokenCount":400,"thoughtsTokenCount":600}}}}"#
            ),
            _ => format!(
                r#"{{"choices":[{{"message":{{"content":"x"}}}}],"usage":{{"prompt_tokens":{input},
                "completion_tokens":1000,"prompt_tokens_details":{{"cached_tokens":{cached}}}}}}}"#
            ),
        };
        tiered().charge(&usage(provider, &body), None, Multiplier::ONE).unwrap().units
    };
    for provider in ["openai", "anthropic", "gemini"] {
        // In nano-dollars: a token of two dollars a million is 2,000 of them.
        let at_the_bound = 50_000 * 2_000 + 150_000 * 200 + 1_000 * 12_000;
        assert_eq!(told(provider, 200_000), at_the_bound, "{provider}");
        assert_eq!(told(provider, 200_001), 2 * (at_the_bound + 2_000), "{provider}");
    }
}

/// Fact 7.
#[test]
fn the_tier_is_the_one_in_the_answer() {
    let bodies = [
        ("openai", r#"{"choices":[],"service_tier":"flex"}"#),
        ("anthropic", r#"{"content":[],"usage":{"service_tier":"flex"}}"#),
        ("gemini", r#"{"candidates":[],"usageMetadata":{"serviceTier":"FLEX"}}"#),
        ("openai_responses", r#"{"output":[],"service_tier":"flex"}"#),
        ("vertex", r#"{"candidates":[],"usageMetadata":{"trafficType":"ON_DEMAND_FLEX"}}"#),
    ];
    for (provider, body) in bodies {
        assert_eq!(answer(provider, body).unwrap().service_tier.as_deref(), Some("flex"));
    }
    // Vertex has other words for it.
    for (traffic, tier) in [
        ("ON_DEMAND", Some("default")),
        ("ON_DEMAND_PRIORITY", Some("priority")),
        ("PROVISIONED_THROUGHPUT", Some("provisioned_throughput")),
        ("TRAFFIC_TYPE_UNSPECIFIED", None),
    ] {
        let usage = format!(r#"{{"promptTokenCount":1,"trafficType":"{traffic}"}}"#);
        let body = format!(r#"{{"candidates":[],"usageMetadata":{usage}}}"#);
        assert_eq!(answer("vertex", &body).unwrap().service_tier.as_deref(), tier, "{traffic}");
    }
}

/// Fact 8.
#[test]
fn a_200_can_carry_an_error() {
    let whole = [
        ("openai_compatible", r#"{"error":{"code":429}}"#, Failure::RateLimited),
        ("openai_compatible", r#"{"base_resp":{"status_code":1008}}"#, Failure::AccountExhausted),
        (
            "anthropic",
            r#"{"type":"error","error":{"type":"overloaded_error"}}"#,
            Failure::Overloaded,
        ),
        ("gemini", r#"[{"error":{"code":503,"status":"UNAVAILABLE"}}]"#, Failure::Overloaded),
        ("gemini", r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, Failure::ContentRefused),
        (
            "openai_responses",
            r#"{"status":"failed","output":[],"error":{"code":"rate_limit_exceeded"}}"#,
            Failure::RateLimited,
        ),
    ];
    for (provider, body, failure) in whole {
        assert_eq!(answer(provider, body).map(|_| ()), Err(failure), "{provider} {body}");
    }
    let streamed = [
        ("anthropic", r#"{"type":"error","error":{"type":"overloaded_error"}}"#),
        ("gemini", r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#),
        ("openai_responses", r#"{"type":"error","code":"server_is_overloaded"}"#),
        ("openai", r#"{"error":{"code":"server_is_overloaded"}}"#),
    ];
    for (provider, payload) in streamed {
        assert_eq!(stream(provider, &[payload]).1, Err(Failure::Overloaded), "{provider}");
    }
}

/// Fact 9: what is held covers the largest number in the body that goes out, and what is sold is
/// what was made.
#[test]
fn pictures_are_counted_wherever_a_body_asks_for_them_and_sold_as_they_were_made() {
    let wished = |more: &str| {
        let body = format!(r#"{{"model":"m","prompt":"a cat"{more}}}"#);
        CallRequest::parse(Endpoint::Images, body.into()).map(|request| request.choices)
    };
    for (more, count) in [
        ("", 1),
        (r#","n":3"#, 3),
        (r#","n":1,"batch_size":4"#, 4),
        (r#","n":2,"parameters":{"n":6,"size":"1024*1024"}"#, 6),
        (r#","extra_body":{"metadata":{"numberOfImages":"5"}}"#, 5),
        (r#","sequential_image_generation":"auto""#, 15),
        (
            r#","sequential_image_generation":"auto",
            "sequential_image_generation_options":{"max_images":20}"#,
            20,
        ),
        (r#","n":2,"seed":99,"num_inference_steps":50"#, 2),
    ] {
        assert_eq!(wished(more), Ok(count), "{more}");
    }
    for more in [r#","num_images":1000"#, r#","parameters":{"n":1e3}"#] {
        assert_eq!(wished(more).unwrap_err().param, Some("n"), "{more}");
    }
    let request = CallRequest::parse(
        Endpoint::Images,
        Bytes::from_static(br#"{"model":"m","prompt":"a cat","n":1,"metadata":{"n":3}}"#),
    );
    let made = Bytes::from_static(br#"{"data":[{"url":"a"},{"url":"b"},{"url":"c"}]}"#);
    let answer = lookup("openai_compatible").unwrap().answer(&request.unwrap(), &made).unwrap();
    assert_eq!(answer.usage.unwrap().of(Meter::Images), 3);
}

/// Not one of the ten: what is paid by the piece stands among the items of an answer.
#[test]
fn searches_in_files_and_containers_for_code_are_fees_beside_the_tokens() {
    let rate = |meter, amount: &str, per| MeterRate {
        meter,
        rate: Rate::parse(amount, per, Currency::USD).unwrap(),
        when: When::default(),
    };
    let rates = vec![
        rate(Meter::InputTokens, "2", 1_000_000),
        rate(Meter::OutputTokens, "12", 1_000_000),
        rate(Meter::SearchCalls, "10", 1_000),
        rate(Meter::FileSearchCalls, "2.5", 1_000),
        rate(Meter::CodeSessions, "0.03", 1),
    ];
    let list = PriceList { code: "p".into(), version_no: 1, currency: Currency::USD, rates };
    // Two runs in one container are one session; who does not name his container has one.
    let response = r#"{"status":"completed","output":[{"type":"file_search_call"},
        {"type":"code_interpreter_call","container_id":"c1"},{"type":"web_search_call"},
        {"type":"code_interpreter_call","container_id":"c1"},{"type":"file_search_call"},
        {"type":"code_interpreter_call"},{"type":"code_interpreter_call"},
        {"type":"message","content":[{"type":"output_text","text":"x"}]}],
        "usage":{"input_tokens":1000,"output_tokens":100,"total_tokens":1100}}"#;
    let expected = Usage::default()
        .with(Meter::InputTokens, 1_000)
        .with(Meter::OutputTokens, 100)
        .with(Meter::SearchCalls, 1)
        .with(Meter::FileSearchCalls, 2)
        .with(Meter::CodeSessions, 2);
    assert_eq!(usage("openai_responses", response), expected);
    let event = format!(r#"{{"type":"response.completed","response":{response}}}"#);
    let said = r#"{"type":"response.output_text.delta","delta":"x"}"#;
    let (decoder, result) = stream("openai_responses", &[said, &event]);
    assert_eq!((result, decoder.usage()), (Ok(()), Some(expected)));
    let charge = list.charge(&expected, None, Multiplier::ONE).unwrap();
    let tokens = 1_000 * 2_000 + 100 * 12_000;
    let fees = 10_000_000 + 2 * 2_500_000 + 2 * 30_000_000;
    assert_eq!((charge.units, charge.stood_in), (tokens + fees, false));
}

/// Searches that a chat completion makes, as far as its provider lets them be known.
#[test]
fn a_chat_that_searches_the_web_pays_for_it_once() {
    let searches = |usage: Usage| usage.of(Meter::SearchCalls);
    let plain = r#"{"choices":[{"message":{"content":"x","annotations":[]}}],
        "usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    assert_eq!(searches(usage("openai", plain)), 0);
    let cited = plain.replace("[]}", r#"[{"type":"url_citation","url_citation":{"url":"u"}}]}"#);
    assert_eq!(searches(usage("openai", &cited)), 1);
    let xai = plain.replace("\"prompt_tokens\"", "\"num_sources_used\":7,\"prompt_tokens\"");
    assert_eq!(searches(usage("openai_compatible", &xai)), 7);
    let asked = r#"{"model":"m","messages":[{}],"stream":true,"web_search_options":{}}"#;
    let asked = CallRequest::parse(Endpoint::ChatCompletions, asked.into()).unwrap();
    let mut decoder = lookup("openai").unwrap().stream(&asked);
    let last = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let said = r#"{"choices":[{"delta":{"content":"x"}}]}"#;
    let text = format!("data: {said}\n\ndata: {last}\n\ndata: [DONE]\n\n");
    decoder.push(text.into(), &mut Vec::new()).unwrap();
    assert_eq!(searches(decoder.usage().unwrap()), 1);
    let source = r#"{"choices":[{"delta":{"annotations":[{"type":"url_citation"}]}}]}"#;
    let (decoder, _) = stream("openai", &[said, source, last, "[DONE]"]);
    assert_eq!(searches(decoder.usage().unwrap()), 1);
}
