//! The decision tables: every endpoint, every fault, exact bytes of streams, determinism.

use base64::Engine as _;
use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::script::Endpoint;

const TURN: Turn<'static> = Turn { id: "simcall_0000000000000001", created_s: 1_700_000_000 };

struct Plan {
    reply: Reply,
}

impl Plan {
    fn of(script: &str, path: &str, body: &str) -> Self {
        let script = Script::from_json(script.as_bytes()).unwrap();
        Self::with(&script, &Method::POST, path, body)
    }

    fn with(script: &Script, method: &Method, path: &str, body: &str) -> Self {
        let ask =
            Ask { method, path, query: "", key: None, content_type: "", body: body.as_bytes() };
        Self { reply: decide(&ask, script, &Counts::new(script), TURN) }
    }

    /// A chat with one message of 8 bytes (6 tokens) and answers of 4 tokens.
    fn chat(model: &str, more: &str) -> Self {
        let body = format!(
            r#"{{"model": "{model}", "messages": [{{"role": "user", "content": "8 bytes."}}]
                {more}}}"#
        );
        Self::of(r#"{"defaults": {"answer_tokens": 4}}"#, "/v1/chat/completions", &body)
    }

    fn stream(model: &str) -> Self {
        Self::chat(model, r#", "stream": true, "stream_options": {"include_usage": true}"#)
    }

    fn status(&self) -> u16 {
        match &self.reply.head {
            Head::Status { status, .. } => *status,
            Head::Silent | Head::Reset => panic!("no head"),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let Head::Status { headers, .. } = &self.reply.head else { panic!("no head") };
        headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.to_str().unwrap())
    }

    fn pieces(&self) -> Vec<&Piece> {
        let pieces = self.reply.steps.iter().filter_map(|step| match step {
            Step::Send(piece) => Some(piece),
            Step::Wait(_) | Step::Gate | Step::Cut | Step::Silence => None,
        });
        pieces.collect()
    }

    fn bytes(&self) -> Vec<u8> {
        self.pieces().iter().flat_map(|piece| piece.bytes.to_vec()).collect()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap()
    }

    /// The `data:` values of a well-formed stream.
    fn events(&self) -> Vec<String> {
        let text = self.text();
        let events = text.strip_suffix("\n\n").unwrap_or(&text).split("\n\n");
        events.map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
    }

    fn chunks(&self) -> Vec<Value> {
        let events = self.events();
        events.iter().filter(|e| *e != "[DONE]").map(|e| serde_json::from_str(e).unwrap()).collect()
    }

    /// Completion tokens billed once everything is sent, and content chunks.
    fn sent(&self) -> (u64, usize) {
        let tokens = self.pieces().iter().map(|piece| piece.tokens).sum();
        let chunks = self.pieces().iter().filter(|piece| piece.content).count();
        (self.reply.truth.billed(tokens).completion_tokens, chunks)
    }
}

#[test]
fn a_json_answer_has_the_shape_of_openai() {
    let plan = Plan::chat("sim-chat", "");
    let mut body = plan.json();
    let content = body["choices"][0]["message"]["content"].take();
    assert_eq!(content.as_str().unwrap().split(' ').count(), 4);
    assert_eq!(
        body,
        json!({
            "id": "chatcmpl-simcall_0000000000000001", "object": "chat.completion",
            "created": 1_700_000_000, "model": "sim-chat",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": null,
                "refusal": null, "annotations": []}, "logprobs": null, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10},
            "service_tier": "default", "system_fingerprint": "fp_simulator"
        })
    );
    assert_eq!(plan.header("content-type"), Some("application/json"));
    assert_eq!(plan.header("x-request-id"), Some(TURN.id));
    assert_eq!(plan.reply.truth.billing, Billing::Whole);
    assert_eq!(plan.reply.truth.outcome, Outcome::Answered);
    assert_eq!(plan.reply.truth.reported, Reported::of(&plan.reply.truth.usage, None));
}

#[test]
fn a_stream_is_exactly_openais() {
    let plan = Plan::of(
        r#"{"defaults": {"answer_tokens": 2}}"#,
        "/v1/chat/completions",
        r#"{"model": "m", "messages": [{"content": "x"}], "stream": true,
            "stream_options": {"include_usage": true}}"#,
    );
    let chunk = |choices: &str, usage: &str| {
        let id = r#"data: {"id":"chatcmpl-simcall_0000000000000001","object":"#;
        let object = r#""chat.completion.chunk","service_tier":"default","created":1700000000,"#;
        let model = r#""model":"m","system_fingerprint":"fp_simulator","choices":["#;
        [id, object, model, choices, "],\"usage\":", usage, "}\n\n"].concat()
    };
    let choice = |delta: &str, finish: &str| {
        format!(r#"{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}"#)
    };
    let words: Vec<String> = plan.chunks()[1..3]
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        chunk(&choice(r#""role":"assistant","content":"","refusal":null"#, "null"), "null"),
        chunk(&choice(&format!(r#""content":"{}""#, words[0]), "null"), "null"),
        chunk(&choice(&format!(r#""content":"{}""#, words[1]), "null"), "null"),
        chunk(&choice("", "\"stop\""), "null"),
        chunk("", r#"{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}"#),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(plan.text(), expected.concat());
    assert!(!words[0].starts_with(' ') && words[1].starts_with(' '));
    assert_eq!(plan.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let reports: Vec<bool> = plan.pieces().iter().map(|piece| piece.reports_usage).collect();
    assert_eq!(reports, [false, false, false, false, true, false]);
}

#[test]
fn a_stream_that_did_not_ask_for_usage_never_mentions_it() {
    let plan = Plan::chat("sim-chat", r#", "stream": true"#);
    assert!(!plan.text().contains("usage"));
    assert!(plan.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(plan.reply.truth.reported, None);
    assert_eq!(plan.sent(), (4, 4));
}

#[test]
fn the_caps_of_the_caller_end_an_answer_with_length() {
    for (more, tokens, finish) in [
        (r#", "max_tokens": 3"#, 3, "length"),
        (r#", "max_completion_tokens": 1, "max_tokens": 3"#, 1, "length"),
        (r#", "max_tokens": 4"#, 4, "stop"),
        (r#", "max_tokens": 0"#, 0, "length"),
    ] {
        let body = Plan::chat("sim-chat", more).json();
        assert_eq!(body["usage"]["completion_tokens"], tokens, "{more}");
        assert_eq!(body["choices"][0]["finish_reason"], finish, "{more}");
        let chunks = Plan::chat("sim-chat", &format!(r#"{more}, "stream": true"#)).chunks();
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], finish, "{more}");
    }
}

#[test]
fn several_choices_differ_and_are_all_billed() {
    let plan = Plan::chat("sim-chat", r#", "n": 2"#);
    let body = plan.json();
    assert_ne!(body["choices"][0]["message"], body["choices"][1]["message"]);
    assert_eq!(body["usage"]["completion_tokens"], 8);
    let stream = Plan::chat("sim-chat", r#", "n": 2, "stream": true"#);
    let order: Vec<u64> = stream
        .chunks()
        .iter()
        .map(|chunk| chunk["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(order, [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(stream.sent(), (8, 8));
}

#[test]
fn reasoning_and_cache_hits_are_told_as_details() {
    let plan = Plan::chat("sim-chat+reasoning:5+cached:100", "");
    assert_eq!(
        plan.json()["usage"],
        json!({"prompt_tokens": 6, "completion_tokens": 9, "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 6, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0}})
    );
    let capped = Plan::chat("sim-chat+reasoning:5", r#", "max_tokens": 5"#);
    assert_eq!(capped.json()["choices"][0]["message"]["content"], "");
    assert_eq!(capped.json()["choices"][0]["finish_reason"], "length");
    assert_eq!(capped.reply.truth.usage.reasoning_tokens, 5);
}

#[test]
fn chunks_share_the_words_evenly() {
    for (options, counts) in [
        ("answer-tokens:10+chunks:4", vec![2, 3, 2, 3]),
        ("answer-tokens:3+chunks:50", vec![1, 1, 1]),
        ("answer-tokens:3+chunks:0", vec![3]),
        ("empty+chunks:4", vec![]),
    ] {
        let plan = Plan::stream(&format!("fault:{options}"));
        let found: Vec<u64> =
            plan.pieces().iter().filter(|piece| piece.content).map(|piece| piece.tokens).collect();
        assert_eq!(found, counts, "{options}");
    }
    let bench = Plan::stream("fault:answer-bytes:600+chunks:50");
    assert_eq!(bench.sent().1, 50);
}

#[test]
fn a_stream_and_a_json_answer_of_text_completions_have_their_own_shape() {
    let body = r#"{"model": "m", "prompt": ["abcd", "abcd"], "max_tokens": 2}"#;
    let json = Plan::of("{}", "/v1/completions", body).json();
    assert_eq!(json["object"], "text_completion");
    assert_eq!(json["choices"][1]["index"], 1);
    assert_eq!(json["choices"][1]["finish_reason"], "length");
    assert_eq!(json["choices"][0]["text"].as_str().unwrap().split(' ').count(), 2);
    assert_eq!(
        json["usage"],
        json!({"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6})
    );
    let body = r#"{"model": "m", "prompt": "abcd", "max_tokens": 2, "stream": true}"#;
    let chunks = Plan::of("{}", "/v1/completions", body).chunks();
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[0]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(
        chunks[2]["choices"],
        json!([{"text": "", "index": 0, "logprobs": null, "finish_reason": "length"}])
    );
    let body = r#"{"model": "m", "prompt": "abcd", "max_tokens": 2, "n": 1, "best_of": 3}"#;
    let best = Plan::of("{}", "/v1/completions", body).json();
    assert_eq!(
        (best["choices"].as_array().unwrap().len(), &best["usage"]["completion_tokens"]),
        (1, &json!(6))
    );
}

#[test]
fn vectors_are_of_unit_length_and_the_same_in_both_forms() {
    let ask = |more: &str| {
        let body = format!(r#"{{"model": "e", "input": ["one", "two", "one"]{more}}}"#);
        Plan::of("{}", "/v1/embeddings", &body).json()
    };
    let floats = ask(r#", "dimensions": 5, "encoding_format": "float""#);
    assert_eq!(floats["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    let vector: Vec<f32> = serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
    assert_eq!(vector.len(), 5);
    assert!((vector.iter().map(|member| member * member).sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!(floats["data"][0]["embedding"], floats["data"][2]["embedding"]);
    assert_ne!(floats["data"][0]["embedding"], floats["data"][1]["embedding"]);
    let packed = ask(r#", "dimensions": 5, "encoding_format": "base64""#);
    let text = packed["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let unpacked: Vec<f32> =
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(unpacked, vector);
    assert_eq!(ask("")["data"][0]["embedding"].as_array().unwrap().len(), 64);
}

#[test]
fn models_are_listed_and_shown() {
    let get = |script: &str, path: &str| {
        let script = Script::from_json(script.as_bytes()).unwrap();
        let plan = Plan::with(&script, &Method::GET, path, "");
        (plan.status(), plan.json())
    };
    let (_, all) = get("{}", "/v1/models");
    assert_eq!(all["data"][0]["id"], "sim-chat");
    let named = r#"{"models": ["gpt-4o", "gpt-*"]}"#;
    let (_, list) = get(named, "/v1/models");
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(get(named, "/v1/models/gpt-5").1["object"], "model");
    let (status, error) = get(named, "/v1/models/o1");
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(get("{}", "/v1/models/fault:status:503").0, 200);
}

#[test]
fn keys_models_and_bodies_are_checked_in_this_order() {
    let script = r#"{"api_keys": ["right"], "models": ["gpt-*"]}"#;
    let script = Script::from_json(script.as_bytes()).unwrap();
    let counts = Counts::new(&script);
    for (key, body, status, code) in [
        (None, "{", 401, json!("invalid_api_key")),
        (Some("wrong"), r#"{"model": "gpt-4o", "messages": [{}]}"#, 401, json!("invalid_api_key")),
        (Some("right"), "{", 400, Value::Null),
        (Some("right"), r#"{"model": "o1", "messages": [{}]}"#, 404, json!("model_not_found")),
        (Some("right"), r#"{"model": "gpt-4o", "messages": [{}]}"#, 200, Value::Null),
    ] {
        let (method, path) = (&Method::POST, "/v1/chat/completions");
        let ask = Ask { method, path, query: "", key, content_type: "", body: body.as_bytes() };
        let plan = Plan { reply: decide(&ask, &script, &counts, TURN) };
        assert_eq!((plan.status(), &plan.json()["error"]["code"]), (status, &code), "{body}");
        let refused = status != 200;
        assert_eq!(plan.reply.truth.outcome == Outcome::Refused, refused);
        assert_eq!(plan.reply.truth.billing == Billing::Nothing, refused);
    }
}

#[test]
fn an_unknown_path_is_still_a_call() {
    let plan = Plan::of("{}", "/v1/other", "{}");
    assert_eq!((plan.status(), plan.reply.truth.endpoint), (404, Endpoint::Unknown));
}

#[test]
fn refusing_faults_bill_nothing() {
    for (fault, status, kind, code) in [
        ("status:500", 500, "server_error", Value::Null),
        ("status:503", 503, "service_unavailable_error", json!("server_is_overloaded")),
        ("status:429", 429, "rate_limit_error", json!("rate_limit_exceeded")),
        (
            "status:429:code=insufficient_quota",
            429,
            "insufficient_quota",
            json!("insufficient_quota"),
        ),
        ("401", 401, "invalid_request_error", json!("invalid_api_key")),
        ("context-length", 400, "invalid_request_error", json!("context_length_exceeded")),
        ("context-length:5", 400, "invalid_request_error", json!("context_length_exceeded")),
        ("no-such-fault", 404, "invalid_request_error", json!("model_not_found")),
    ] {
        for plan in
            [Plan::chat(&format!("fault:{fault}"), ""), Plan::stream(&format!("fault:{fault}"))]
        {
            let error = &plan.json()["error"];
            assert_eq!(
                (plan.status(), &error["type"], &error["code"]),
                (status, &json!(kind), &code)
            );
            assert_eq!(plan.header("content-type"), Some("application/json"));
            assert_eq!(plan.sent(), (0, 0));
            assert_eq!(plan.reply.truth.billed(0), Usage::default());
            assert_eq!(plan.reply.truth.outcome, Outcome::Refused, "{fault}");
        }
    }
    assert_eq!(Plan::chat("fault:context-length:6", "").status(), 200);
    assert_eq!(Plan::chat("fault:context-length:6", r#", "max_tokens": 1"#).status(), 400);
}

#[test]
fn delays_of_refusals_are_headers() {
    let plan = Plan::chat("fault:status:429:retry-after=2:retry-after-ms=1500+latency:9", "");
    assert_eq!(plan.header("retry-after"), Some("2"));
    assert_eq!(plan.header("retry-after-ms"), Some("1500"));
    assert_eq!(plan.reply.latency_ms, 9);
}

#[test]
fn headless_faults_have_no_steps_and_no_bill() {
    for (fault, head, outcome) in
        [("silent", Head::Silent, Outcome::Silent), ("reset", Head::Reset, Outcome::Reset)]
    {
        let reply = Plan::stream(&format!("fault:{fault}+latency:7")).reply;
        assert_eq!((&reply.head, reply.steps.len(), reply.latency_ms), (&head, 0, 7));
        assert_eq!((reply.truth.outcome, reply.truth.billing), (outcome, Billing::Nothing));
    }
}

#[test]
fn waits_stand_between_content_chunks() {
    let plan = Plan::stream("fault:pace:10");
    let shape: Vec<&str> = plan
        .reply
        .steps
        .iter()
        .map(|step| match step {
            Step::Wait(10) => "wait",
            Step::Send(piece) if piece.content => "content",
            Step::Send(_) => "other",
            Step::Wait(_) | Step::Gate | Step::Cut | Step::Silence => panic!("{step:?}"),
        })
        .collect();
    assert_eq!(
        shape,
        [
            "other", "content", "wait", "content", "wait", "content", "wait", "content", "other",
            "other", "other"
        ]
    );
}

#[test]
fn early_ends_of_streams_bill_what_was_made() {
    // Option, last step, billed completion, content chunks, events, outcome.
    let table = [
        ("cut-stream:3", Some(Step::Cut), 3, 3, 4, Outcome::Cut),
        ("cut-stream:0", Some(Step::Cut), 0, 0, 0, Outcome::Cut),
        ("cut-stream:9", Some(Step::Cut), 4, 4, 5, Outcome::Cut),
        ("cut-stream:2+reasoning:5", Some(Step::Cut), 7, 2, 3, Outcome::Cut),
        ("silent-stream:2", Some(Step::Silence), 2, 2, 3, Outcome::Silent),
        ("silent-stream", Some(Step::Silence), 0, 0, 0, Outcome::Silent),
        ("error-in-200", None, 0, 0, 1, Outcome::Failed),
        ("error-in-200:2", None, 2, 2, 4, Outcome::Failed),
        ("no-done", None, 4, 4, 7, Outcome::Answered),
        ("empty", None, 0, 0, 4, Outcome::Answered),
    ];
    for (fault, last, billed, chunks, events, outcome) in table {
        let plan = Plan::stream(&format!("fault:{fault}"));
        assert_eq!(plan.sent(), (billed, chunks), "{fault}");
        assert_eq!(plan.pieces().len(), events, "{fault}");
        assert_eq!(plan.reply.truth.outcome, outcome, "{fault}");
        let end = plan.reply.steps.last().filter(|step| !matches!(step, Step::Send(_)));
        assert_eq!(end, last.as_ref(), "{fault}");
        assert_eq!(plan.text().contains("[DONE]"), fault == "empty", "{fault}");
    }
    let frame = Plan::stream("fault:error-in-200:1").events().pop().unwrap();
    assert!(frame.starts_with(r#"{"error":{"message":"#), "{frame}");
}

#[test]
fn an_error_in_a_json_200_bills_nothing() {
    let plan = Plan::chat("fault:error-in-200", "");
    assert_eq!((plan.status(), &plan.json()["error"]["type"]), (200, &json!("server_error")));
    assert_eq!(plan.sent().0, 0);
    assert_eq!((plan.reply.truth.outcome, plan.reply.truth.reported), (Outcome::Failed, None));
}

#[test]
fn lies_about_usage_leave_the_bill_honest() {
    let told = |prompt: i64, completion: i64| {
        json!({"prompt_tokens": prompt, "completion_tokens": completion,
            "total_tokens": prompt + completion})
    };
    for (fault, expected) in [
        ("usage-missing", vec![]),
        ("usage-twice", vec![told(6, 4), told(6, 4)]),
        ("usage-absurd", vec![told(1_000_000_000_000, 1_000_000_000_000)]),
        ("usage-negative", vec![told(-6, -4)]),
    ] {
        let stream = Plan::stream(&format!("fault:{fault}"));
        let found: Vec<Value> = stream
            .chunks()
            .iter()
            .filter(|chunk| chunk["choices"] == json!([]))
            .map(|chunk| chunk["usage"].clone())
            .collect();
        assert_eq!(found, expected, "{fault}");
        let plan = Plan::chat(&format!("fault:{fault}"), "");
        assert_eq!(plan.text().matches("\"usage\":").count(), expected.len(), "{fault}");
        for plan in [plan, stream] {
            let usage = plan.reply.truth.usage;
            assert_eq!((usage.prompt_tokens, plan.sent().0), (6, 4), "{fault}");
            let reported = plan.reply.truth.reported.map(|reported| reported.total_tokens);
            let total = expected.first().map(|usage| usage["total_tokens"].as_i64().unwrap());
            assert_eq!(reported, total, "{fault}");
        }
    }
    let body = r#"{"model": "fault:usage-negative", "input": "abcd"}"#;
    let embedding = Plan::of("{}", "/v1/embeddings", body);
    assert_eq!(embedding.json()["usage"], json!({"prompt_tokens": -1, "total_tokens": -1}));
}

#[test]
fn damaged_json_is_billed_in_full() {
    let bad = Plan::chat("fault:bad-json", "");
    assert!(serde_json::from_slice::<Value>(&bad.bytes()).is_err());
    assert_eq!((bad.sent().0, bad.reply.truth.reported), (4, None));
    assert_eq!(bad.reply.steps.len(), 1);

    let short = Plan::chat("fault:content-length", "");
    let declared: usize = short.header("content-length").unwrap().parse().unwrap();
    assert_eq!(declared, short.bytes().len() + 64);
    assert_eq!(short.reply.steps[1..], [Step::Cut]);
    assert_eq!((short.sent().0, short.reply.truth.outcome), (4, Outcome::Cut));

    let huge = Plan::chat("fault:huge-line:5000", "");
    assert_eq!(huge.json()["obfuscation"].as_str().unwrap().len(), 5000);
    assert_eq!(huge.json()["usage"]["total_tokens"], 10);
}

#[test]
fn damaged_streams_are_billed_in_full() {
    let bad = Plan::stream("fault:bad-json");
    let broken = &bad.events()[1];
    assert!(serde_json::from_str::<Value>(broken).is_err());
    assert_eq!(bad.sent(), (4, 4));

    for (fault, at) in [("bad-sse", 1), ("bad-sse:3", 3)] {
        let plan = Plan::stream(&format!("fault:{fault}"));
        let spoilt: Vec<bool> =
            plan.pieces().iter().map(|piece| std::str::from_utf8(&piece.bytes).is_err()).collect();
        assert_eq!(spoilt.iter().position(|bad| *bad), Some(at), "{fault}");
        assert_eq!(spoilt.iter().filter(|bad| **bad).count(), 1);
        assert_eq!(plan.sent(), (4, 4));
    }

    let huge = Plan::stream("fault:huge-line:5000");
    assert_eq!(huge.chunks()[1]["obfuscation"].as_str().unwrap().len(), 5000);
    let plain = Plan::stream("fault:content-length");
    assert_eq!(plain.header("content-length"), None);
}

#[test]
fn layers_lie_over_each_other_and_the_rule_is_named() {
    let script = r#"{"defaults": "latency:1+answer-tokens:2", "rules": [
        {"match": {"model": "none"}, "do": {}},
        {"match": {"model": "fault:*", "stream": false}, "do": {"latency": 3}}]}"#;
    let body = r#"{"model": "fault:latency:2+answer-tokens:5", "messages": [{"content": "x"}]}"#;
    let plan = Plan::of(script, "/v1/chat/completions", body);
    assert_eq!((plan.reply.latency_ms, plan.sent().0), (3, 5));
    assert_eq!(plan.reply.truth.rule, Some(1));
}

#[test]
fn a_model_name_is_escaped_where_it_is_repeated() {
    let body = r#"{"model": "odd\"\n\u00e9", "messages": [{"content": "x"}]}"#;
    assert_eq!(Plan::of("{}", "/v1/chat/completions", body).json()["model"], "odd\"\né");
}

/// One of every kind.
const FAULTS: &str = "status:503 silent reset cut-stream:2 silent-stream:2 no-done error-in-200:1 \
bad-json bad-sse:2 huge-line:10 content-length pace:3 usage-twice empty answer-bytes:99 chunks:3 \
reasoning:3";

fn any_fault() -> impl Strategy<Value = String> {
    let faults: Vec<&str> = FAULTS.split(' ').collect();
    prop::sample::select(faults).prop_map(|fault| format!("fault:{fault}"))
}

proptest! {
    #[test]
    fn the_same_call_is_planned_the_same(
        seed in any::<u64>(),
        model in any_fault(),
        text in ".{0,40}",
        n in 1u32..4,
        stream in any::<bool>(),
    ) {
        let script = Script { seed, ..Script::default() };
        let messages = json!([{"content": text}]);
        let body = json!({"model": model, "messages": messages, "n": n, "stream": stream});
        let body = body.to_string();
        let plan = || Plan::with(&script, &Method::POST, "/v1/chat/completions", &body).reply;
        let (one, two) = (plan(), plan());
        prop_assert_eq!(one.head, two.head);
        prop_assert_eq!(one.steps, two.steps);
        prop_assert_eq!(one.truth, two.truth);
    }

    #[test]
    fn the_pieces_of_a_whole_stream_add_up_to_the_bill(
        seed in any::<u64>(), tokens in 0u32..60, chunks in 0u32..70, n in 1u32..4, cap in 0u64..70,
    ) {
        let script = Script { seed, ..Script::default() };
        let model = format!("fault:answer-tokens:{tokens}+chunks:{chunks}+reasoning:3");
        let body = json!({"model": model, "messages": [{"content": "x"}], "n": n, "max_tokens": cap,
            "stream": true}).to_string();
        let stream = Plan::with(&script, &Method::POST, "/v1/chat/completions", &body);
        prop_assert_eq!(stream.sent().0, stream.reply.truth.usage.completion_tokens);
        let mut texts: Vec<String> = (0..n).map(|_| String::new()).collect();
        for chunk in stream.chunks() {
            let choice = &chunk["choices"][0];
            let text = choice["delta"]["content"].as_str().unwrap_or_default();
            let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            texts[index].push_str(text);
        }
        let words: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
        let usage = stream.reply.truth.usage;
        prop_assert_eq!(words as u64, usage.completion_tokens - usage.reasoning_tokens);
        prop_assert!(texts.iter().all(|text| !text.contains("  ") && !text.ends_with(' ')));
    }
}
