//! Ids of tool calls over a conversation of several turns, from providers that give none.

use std::collections::BTreeSet;

use anima_wire::adapter::{Destination, lookup};
use anima_wire::request::{CallRequest, Endpoint};
use bytes::Bytes;
use serde_json::{Value, json};

fn chat(messages: &Value, stream: bool) -> CallRequest {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let body = json!({"model": "m", "messages": messages, "stream": stream,
        "tools": [tool("weather"), tool("clock")]});
    CallRequest::parse(Endpoint::ChatCompletions, body.to_string().into()).unwrap()
}

fn call(name: &str) -> Value {
    json!({"functionCall": {"name": name, "args": {}}})
}

/// Google's answer with a call of this, without ids of its own.
fn gemini(name: &str) -> Value {
    json!({"candidates": [{"content": {"parts": [call(name), call(name)]},
        "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3,
        "candidatesTokenCount": 2, "totalTokenCount": 5}})
}

fn calls_of(answer: &Value) -> Vec<Value> {
    let calls = answer.pointer("/choices/0/message/tool_calls");
    calls.and_then(Value::as_array).unwrap().clone()
}

#[test]
fn two_turns_of_calls_without_ids_have_four_ids_and_results_keep_their_names() {
    let adapter = lookup("gemini").unwrap();
    let mut messages = vec![json!({"role": "user", "content": "when and how?"})];
    let mut ids = BTreeSet::new();
    for name in ["weather", "clock"] {
        let request = chat(&json!(messages), false);
        let body = Bytes::from(gemini(name).to_string());
        let answer = adapter.answer(&request, &body).unwrap().body;
        let calls = calls_of(&serde_json::from_slice(&answer).unwrap());
        messages.push(json!({"role": "assistant", "tool_calls": calls}));
        for call in &calls {
            let id = call["id"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} again in {messages:?}");
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": name}));
        }
    }
    let request = chat(&json!(messages), false);
    let sent = adapter.encode(&request, Destination::bare("gemini-2.5-pro")).unwrap();
    let sent: Value = serde_json::from_slice(&sent.body.concat()).unwrap();
    let parts = sent["contents"].as_array().unwrap().iter();
    let parts = parts.flat_map(|turn| turn["parts"].as_array().unwrap().clone());
    let results: Vec<_> = parts
        .filter_map(|part| part.get("functionResponse").cloned())
        .map(|result| (result["name"].clone(), result["response"]["result"].clone()))
        .collect();
    let expected = |name: &str| (json!(name), json!(name));
    let names = ["weather", "weather", "clock", "clock"];
    assert_eq!(results, names.map(expected));
}

#[test]
fn a_result_has_the_name_of_the_call_before_it_also_where_a_client_repeats_an_id() {
    let called = |name: &str| {
        json!({"role": "assistant", "tool_calls": [{"id": "call_0", "type": "function",
            "function": {"name": name, "arguments": "{}"}}]})
    };
    let said = |text: &str| json!({"role": "tool", "tool_call_id": "call_0", "content": text});
    let asked = json!({"role": "user", "content": "x"});
    let messages = json!([asked, called("weather"), said("rain"), called("clock"), said("noon")]);
    let sent = lookup("gemini").unwrap();
    let sent = sent.encode(&chat(&messages, false), Destination::bare("m")).unwrap().body.concat();
    let sent = String::from_utf8(sent).unwrap();
    let first = sent.find(r#""name":"weather","response":{"result":"rain"}"#);
    let second = sent.find(r#""name":"clock","response":{"result":"noon"}"#);
    assert!(first.is_some() && second.is_some(), "{sent}");
}

#[test]
fn calls_of_two_streams_without_ids_differ_too() {
    let mut ids = BTreeSet::new();
    for name in ["weather", "clock"] {
        let request = chat(&json!([{"role": "user", "content": "x"}]), true);
        let mut decoder = lookup("gemini").unwrap().stream(&request);
        let mut out = Vec::new();
        decoder.push(format!("data: {}\n\n", gemini(name)).into(), &mut out).unwrap();
        decoder.end(&mut out).unwrap();
        let text = String::from_utf8(out.concat()).unwrap();
        let found = text.split("\"id\":\"").filter(|text| text.starts_with("call_"));
        ids.extend(found.map(|text| text.split('"').next().unwrap().to_owned()));
    }
    assert_eq!(ids.len(), 4, "{ids:?}");
}
