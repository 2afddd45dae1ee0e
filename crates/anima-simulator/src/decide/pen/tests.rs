//! Each dialect, whole and as a stream: the same words, and usage in the vendor's way of counting.

use http::Method;
use serde_json::{Value, json};

use crate::decide::{Ask, Turn, decide};
use crate::reply::{Head, Reply, Step};
use crate::script::{Counts, Script};

const TURN: Turn<'static> = Turn { id: "simcall_0000000000000001", created_s: 1_700_000_000 };
const MODEL: &str = "sim-x+reasoning:3+cached:2+answer-tokens:4";

fn reply(path: &str, query: &str, body: &Value) -> Reply {
    let body = body.to_string();
    let script = Script::default();
    let ask = Ask {
        method: &Method::POST,
        path,
        query,
        key: None,
        content_type: "",
        body: body.as_bytes(),
    };
    decide(&ask, &script, &Counts::new(&script), TURN)
}

fn text(reply: &Reply) -> String {
    let pieces = reply.steps.iter().filter_map(|step| match step {
        Step::Send(piece) => Some(String::from_utf8(piece.bytes.to_vec()).unwrap()),
        Step::Wait(_) | Step::Gate | Step::Cut | Step::Silence => None,
    });
    pieces.collect()
}

fn payloads(reply: &Reply) -> Vec<Value> {
    let text = text(reply);
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn anthropic_tells_input_without_what_was_cached() {
    let mut body = json!({"model": MODEL, "max_tokens": 99,
        "messages": [{"role": "user", "content": "8 bytes."}]});
    let whole: Value = serde_json::from_str(&text(&reply("/v1/messages", "", &body))).unwrap();
    assert_eq!(whole["usage"]["input_tokens"], 4);
    assert_eq!(whole["usage"]["cache_read_input_tokens"], 2);
    assert_eq!(whole["usage"]["output_tokens"], 7);
    assert_eq!(whole["usage"]["output_tokens_details"]["thinking_tokens"], 3);
    assert_eq!(whole["content"][0]["text"].as_str().unwrap().split(' ').count(), 4);
    body["stream"] = json!(true);
    let events = payloads(&reply("/v1/messages", "", &body));
    let kinds: Vec<_> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    let mut expected = vec!["message_start", "ping", "content_block_start"];
    expected.extend(["content_block_delta"; 4]);
    expected.extend(["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(kinds, expected);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 4);
    assert_eq!(events[8]["usage"]["output_tokens"], 7);
    assert_eq!(events[8]["usage"]["output_tokens_details"]["thinking_tokens"], 3);
}

#[test]
fn gemini_tells_candidates_without_thoughts_on_every_chunk() {
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "8 bytes."}]}]});
    let path = |verb: &str| format!("/v1beta/models/{MODEL}:{verb}");
    let whole = text(&reply(&path("generateContent"), "", &body));
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let usage = |v: &Value, name: &str| v["usageMetadata"][name].as_u64();
    assert_eq!(usage(&whole, "promptTokenCount"), Some(6));
    assert_eq!(usage(&whole, "cachedContentTokenCount"), Some(2));
    assert_eq!(usage(&whole, "candidatesTokenCount"), Some(4));
    assert_eq!(usage(&whole, "thoughtsTokenCount"), Some(3));
    assert_eq!(usage(&whole, "totalTokenCount"), Some(13));
    let chunks = payloads(&reply(&path("streamGenerateContent"), "alt=sse", &body));
    let told: Vec<_> = chunks.iter().map(|c| usage(c, "candidatesTokenCount")).collect();
    assert_eq!(told, [Some(1), Some(2), Some(3), Some(4), Some(4)]);
    let array = text(&reply(&path("streamGenerateContent"), "", &body));
    assert_eq!(serde_json::from_str::<Value>(&array).unwrap().as_array().unwrap(), &chunks);
}

#[test]
fn responses_tells_all_of_it_again_at_the_end() {
    let body = json!({"model": MODEL, "input": "8 bytes.", "stream": true});
    let events = payloads(&reply("/v1/responses", "", &body));
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["sequence_number"].as_u64().unwrap(), events.len() as u64 - 1);
    let usage = &last["response"]["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(6), &json!(7)));
    let deltas = events.iter().filter(|e| e["type"] == "response.output_text.delta");
    let streamed: String = deltas.map(|e| e["delta"].as_str().unwrap()).collect();
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], json!(streamed));
}

#[test]
fn a_tool_is_called_in_each_dialect_with_arguments_of_its_schema() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "q"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]});
    let whole: Value =
        serde_json::from_str(&text(&reply("/v1/chat/completions", "", &chat))).unwrap();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let arguments = choice["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(arguments).unwrap()["city"].is_string());
    let mut stream = chat;
    stream["stream"] = json!(true);
    let streamed = reply("/v1/chat/completions", "", &stream);
    let joined: String = text(&streamed)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| {
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            Some(call["function"]["arguments"].as_str()?.to_owned())
        })
        .collect();
    assert!(serde_json::from_str::<Value>(&joined).unwrap()["city"].is_string(), "{joined}");
    let gemini = json!({"contents": [{"role": "user", "parts": [{"text": "q"}]}],
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]});
    let whole = text(&reply("/v1beta/models/m:generateContent", "", &gemini));
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let call = &whole["candidates"][0]["content"]["parts"][0]["functionCall"];
    assert!(call["args"]["city"].is_string(), "{whole}");
}

#[test]
fn an_empty_account_is_told_as_each_vendor_tells_it() {
    let model = "fault:status:429:code=insufficient_quota";
    let body = json!({"model": model, "max_tokens": 9,
        "messages": [{"role": "user", "content": "q"}]});
    let refused = reply("/v1/messages", "", &body);
    assert!(matches!(refused.head, Head::Status { status: 400, .. }));
    assert!(text(&refused).contains("credit balance is too low"));
    let path = "/v1beta/models/fault:status:429:retry-after=7:generateContent";
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "q"}]}]});
    let refused = reply(path, "", &body);
    assert!(text(&refused).contains(r#""retryDelay":"7s""#), "{}", text(&refused));
}
