//! Converse from end to end: what is sent, what is read, and in which frames.
//!
//! The expectations are AWS's own, from its API reference of Converse and `ConverseStream`.

use anima_core::usage::{Meter, Usage};
use serde_json::{Value, json};

use super::*;
use crate::adapter::{lookup, of_model};

const NOVA: &str = "eu.amazon.nova-pro-v1:0";

fn adapter() -> &'static dyn Adapter {
    of_model(lookup(NAME).unwrap(), NOVA)
}

fn request(body: &Value) -> CallRequest {
    CallRequest::parse(Endpoint::ChatCompletions, body.to_string().into()).unwrap()
}

fn chat(stream: bool) -> CallRequest {
    request(&json!({"model": "m", "stream": stream, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hi"}]}))
}

fn sent(body: &Value) -> (Encoded, Value) {
    let encoded = adapter().encode(&request(body), Destination::bare(NOVA)).unwrap();
    let said = serde_json::from_slice(&encoded.body.concat()).unwrap();
    (encoded, said)
}

#[test]
fn claude_is_invoked_and_all_others_converse() {
    let path = |model: &str, stream: bool| {
        let adapter = of_model(lookup(NAME).unwrap(), model);
        adapter.encode(&chat(stream), Destination::bare(model)).unwrap().path.into_owned()
    };
    assert_eq!(path("anthropic.claude-x-v1:0", false), "/model/anthropic.claude-x-v1%3A0/invoke");
    assert_eq!(path(NOVA, false), "/model/eu.amazon.nova-pro-v1%3A0/converse");
    let profile = "arn:aws:bedrock:eu-west-1:1:application-inference-profile/a1";
    assert!(path(profile, true).ends_with("application-inference-profile%2Fa1/converse-stream"));
}

#[test]
fn a_conversation_is_said_in_converses_words() {
    let (encoded, said) = sent(&json!({
        "model": "m", "max_tokens": 9, "temperature": 0.5, "stop": ["x"], "seed": 1,
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "call:1",
                "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
            {"role": "tool", "tool_call_id": "call:1", "content": "42"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d",
            "parameters": {"type": "object"}}}],
        "tool_choice": "required",
    }));
    assert_eq!(
        said,
        json!({
            "system": [{"text": "be kind"}],
            "messages": [
                {"role": "user", "content": [{"text": "look"},
                    {"image": {"format": "png", "source": {"bytes": "AAAA"}}}]},
                {"role": "assistant", "content": [
                    {"toolUse": {"toolUseId": "call_1", "name": "f", "input": {"a": 1}}}]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "call_1", "content": [{"text": "42"}]}}]}],
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "stopSequences": ["x"]},
            "toolConfig": {"tools": [{"toolSpec": {"name": "f", "description": "d",
                "inputSchema": {"json": {"type": "object"}}}}], "toolChoice": {"any": {}}},
        })
    );
    assert_eq!(encoded.dropped.header(), "seed");
}

#[test]
fn what_converse_cannot_say_is_refused_or_named() {
    let refused = |body: Value| {
        adapter().encode(&request(&body), Destination::bare(NOVA)).unwrap_err().to_string()
    };
    let say = |content: Value| {
        json!({"model": "m", "messages": [{"role": "user",
        "content": content}]})
    };
    let address = json!([{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]);
    assert!(refused(say(address)).contains("image_url"));
    let mut body = say(json!("hi"));
    body["n"] = json!(2);
    assert!(refused(body).contains("`n`"));
    let mut body = say(json!("hi"));
    body["reasoning_effort"] = json!("high");
    body["response_format"] = json!({"type": "json_schema",
        "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": true}});
    let (encoded, said) = sent(&body);
    assert_eq!(encoded.dropped.header(), "reasoning_effort,response_format.strict");
    assert!(said["system"][0]["text"].as_str().unwrap().ends_with("{\"type\":\"object\"}"));
}

#[test]
fn a_channel_names_its_region() {
    let settings = json!({"region": "eu-west-1"});
    let to = Destination { settings: settings.as_object(), ..Destination::bare(NOVA) };
    let encoded = adapter().encode(&chat(false), to).unwrap();
    assert_eq!(encoded.region.as_deref(), Some("eu-west-1"));
    let mut headers = HeaderMap::new();
    let uri = "https://proxy.example/model/m/converse".parse().unwrap();
    let sent = Sent { uri: &uri, body: &[], at_s: 0, region: encoded.region.as_deref() };
    adapter().authorize(&mut headers, "ID:SECRET", &sent).unwrap();
    let signed = headers[AUTHORIZATION].to_str().unwrap();
    assert!(signed.contains("/19700101/eu-west-1/bedrock/aws4_request"), "{signed}");
}

#[test]
fn a_whole_answer_is_read_with_its_usage() {
    let body = json!({
        "output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
            {"text": "hello"},
            {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}}]}},
        "stopReason": "tool_use", "metrics": {"latencyMs": 5}, "serviceTier": {"type": "flex"},
        "usage": {"inputTokens": 10, "outputTokens": 7, "totalTokens": 117,
            "cacheReadInputTokens": 60, "cacheWriteInputTokens": 40,
            "cacheDetails": [{"ttl": "5m", "inputTokens": 30}, {"ttl": "1h", "inputTokens": 10}]},
    });
    let answer = adapter().answer(&chat(false), &body.to_string().into()).unwrap();
    let expected = Usage::default()
        .with(Meter::InputTokens, 10)
        .with(Meter::CachedInputTokens, 60)
        .with(Meter::CacheWriteTokens, 30)
        .with(Meter::CacheWrite1hTokens, 10)
        .with(Meter::OutputTokens, 7);
    assert_eq!((answer.usage, answer.usage_suspect), (Some(expected), false));
    assert_eq!(answer.service_tier.as_deref(), Some("flex"));
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(said["choices"][0]["message"]["content"], "hello");
    assert_eq!(said["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!((&said["model"], &said["usage"]["prompt_tokens"]), (&json!("m"), &json!(110)));
    for (body, failure) in [
        (r#"{"message":"Too many requests"}"#, Failure::ErrorInAnswer),
        (r#"{"output":{}}"#, Failure::AnswerMalformed),
        ("[]", Failure::AnswerMalformed),
    ] {
        let answer = adapter().answer(&chat(false), &Bytes::from_static(body.as_bytes()));
        assert_eq!(answer.unwrap_err(), failure, "{body}");
    }
}

#[test]
fn errors_are_told_by_their_header() {
    let classified = |kind: &'static str, status| {
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", kind.parse().unwrap());
        adapter().classify(status, &headers, br#"{"message":"x"}"#)
    };
    for (kind, status, failure) in [
        ("ThrottlingException:http://internal", 429, Failure::RateLimited),
        ("ValidationException", 400, Failure::RequestRefused),
        ("AccessDeniedException", 403, Failure::CredentialRefused),
        ("ResourceNotFoundException", 404, Failure::UpstreamModelUnknown),
        ("ServiceUnavailableException", 503, Failure::Overloaded),
        ("InternalServerException", 500, Failure::ServerError),
    ] {
        let found = classified(kind, status);
        assert_eq!(found.failure, failure, "{kind}");
        assert_eq!(found.upstream_code.as_deref(), kind.split(':').next());
    }
}
