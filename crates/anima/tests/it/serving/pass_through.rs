//! What the provider gets: the caller's bytes, but for what must change, and nothing of the
//! caller's own secrets. The upstream here keeps what it is sent.

use std::sync::Arc;
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::request::Parts;
use http::{HeaderMap, Method};
use serde_json::json;
use tokio::net::TcpListener;

use crate::testapp::{TestApp, on_both};

on_both! {
    a_body_reaches_the_provider_byte_for_byte;
    a_stream_that_comes_as_an_array_is_a_stream;
    only_the_model_is_replaced_where_it_differs;
    a_stream_asks_the_provider_for_usage_and_changes_nothing_else;
    nothing_of_the_callers_own_reaches_the_provider;
    the_answer_reaches_the_caller_byte_for_byte;
}

/// An answer with odd spacing and members that no one knows.
const ANSWER: &str = "{ \"id\":\"x\",\"object\":\"chat.completion\", \"created\" :1,\
    \"model\":\"m\",\n \
    \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\\u00e9\"},\
    \"finish_reason\":\"stop\"}],\"odd\":1e2,\
    \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}";

const STREAM: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n\
    data: {\"choices\":[],\
    \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n\
    data: [DONE]\n\n";

#[derive(Debug, Clone)]
struct Seen {
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

type Kept = Arc<Mutex<Vec<Seen>>>;

async fn keep(State(kept): State<Kept>, parts: Parts, body: Bytes) -> (HeaderMap, &'static str) {
    let streams = body.windows(13).any(|w| w == b"\"stream\":true");
    let (kind, answer) =
        if streams { ("text/event-stream", STREAM) } else { ("application/json", ANSWER) };
    kept.lock().unwrap().push(Seen { uri: parts.uri.to_string(), headers: parts.headers, body });
    let mut headers = HeaderMap::new();
    headers.insert("content-type", kind.parse().unwrap());
    (headers, answer)
}

/// An upstream that keeps what it is sent, behind the aliases `same` (its own name) and `other`.
async fn keeping(app: &TestApp) -> Kept {
    let kept = Kept::default();
    let routes = Router::new().route("/base/v1/chat/completions", post(keep));
    let routes = routes.with_state(Arc::clone(&kept));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum_serve(listener, routes).await });
    let base_url = format!("http://{address}/base/v1/");
    app.channel("keeper", "sk-keeper", json!({"base_url": base_url})).await;
    app.alias("same", "chat", &[("keeper", "same")]).await;
    app.alias("other", "chat", &[("keeper", "its \"own\" name")]).await;
    kept
}

/// What Gemini streams without `alt=sse`, or behind a server that takes it away.
const ARRAY: &str = r#"[{"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"}}],
"responseId":"r"},
{"candidates":[{"content":{"parts":[{"text":"lo."}],"role":"model"},"finishReason":"STOP"}],
"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2,"totalTokenCount":7}}]"#;

async fn a_stream_that_comes_as_an_array_is_a_stream(app: &TestApp) {
    let answer = async || ([("content-type", "application/json; charset=UTF-8")], ARRAY);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum_serve(listener, Router::new().fallback(answer)));
    app.channel("arrays", "k", json!({"provider": "gemini", "base_url": base_url})).await;
    app.alias("listed", "chat", &[("arrays", "gemini-2.5-flash")]).await;
    let reply = app.ask_stream("listed").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = reply.text();
    assert!(text.contains(r#""content":"Hel""#) && text.contains(r#""content":"lo.""#), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let legs = app.legs(&reply).await;
    assert!(!legs.is_empty() && legs.iter().all(|leg| !leg.estimate), "by the report");
}

async fn axum_serve(listener: TcpListener, routes: Router) {
    let never = std::future::pending::<()>();
    let grace = std::time::Duration::ZERO;
    anima::http::server::serve(listener, routes, never, (grace, CancellationToken::new())).await;
}

async fn sent(app: &TestApp, kept: &Kept, body: &str) -> Seen {
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
    let path = "/v1/chat/completions";
    let reply = app.raw(Method::POST, path, &headers, body.to_owned()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    kept.lock().unwrap().pop().unwrap()
}

const ODD: &str = "{\n\t\"unknown\": {\"n\": 1.0000000000000000001e+2, \"deep\": [[[]]]},\r\n  \
    \"messages\" : [ {\"content\":\"\\u0041\\ud83d\\ude00\\/ é\",\"role\":\"user\",\"x\":-0.0} ],\
    \"model\":\"MODEL\"  , \"temperature\": 0.70 , \"extra\": 12345678901234567890123 }\n";

async fn a_body_reaches_the_provider_byte_for_byte(app: &TestApp) {
    let kept = keeping(app).await;
    let body = ODD.replace("MODEL", "same");
    let seen = sent(app, &kept, &body).await;
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(seen.uri, "/base/v1/chat/completions");
    assert_eq!(seen.headers["content-length"], body.len().to_string());
}

async fn only_the_model_is_replaced_where_it_differs(app: &TestApp) {
    let kept = keeping(app).await;
    let seen = sent(app, &kept, &ODD.replace("MODEL", "other")).await;
    let expected = ODD.replace("MODEL", "its \\\"own\\\" name");
    assert_eq!(seen.body, expected.as_bytes(), "{:?}", seen.body);
}

async fn a_stream_asks_the_provider_for_usage_and_changes_nothing_else(app: &TestApp) {
    let kept = keeping(app).await;
    for options in
        ["", "\"stream_options\": {\"include_obfuscation\":false},", "\"stream_options\":null,"]
    {
        let body = format!(
            "{{\"stream\":true,{options} \"model\":\"same\",\
             \"messages\":[{{\"role\":\"user\"}}], \"n\" :1}}"
        );
        let seen = sent(app, &kept, &body).await;
        let got: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(&body).unwrap();
        if !expected["stream_options"].is_object() {
            expected["stream_options"] = json!({});
        }
        expected["stream_options"]["include_usage"] = json!(true);
        assert_eq!(got, expected, "{:?}", seen.body);
        let text = String::from_utf8(seen.body.to_vec()).unwrap();
        assert!(text.contains("\"messages\":[{\"role\":\"user\"}], \"n\" :1"), "{text}");
    }
}

async fn nothing_of_the_callers_own_reaches_the_provider(app: &TestApp) {
    let kept = keeping(app).await;
    let bearer = format!("Bearer {}", app.key);
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-api-key", app.key.as_str()),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("openai-organization", "org-mine"),
    ];
    let path = format!("/v1/chat/completions?key={}&a=b", app.key);
    let body = ODD.replace("MODEL", "same");
    assert_eq!(app.raw(Method::POST, &path, &headers, body).await.status, 200);
    let seen = kept.lock().unwrap().pop().unwrap();
    let shown = format!("{seen:?}");
    assert!(!shown.contains(&app.key), "{shown}");
    assert_eq!(seen.headers["authorization"], "Bearer sk-keeper");
    for name in ["cookie", "x-forwarded-for", "openai-organization", "x-api-key"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

async fn the_answer_reaches_the_caller_byte_for_byte(app: &TestApp) {
    let _kept = keeping(app).await;
    let reply = app.ask("same").await;
    assert_eq!(reply.body, ANSWER.as_bytes());
}
