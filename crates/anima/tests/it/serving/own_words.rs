//! What providers are told and charge beside the body: `anthropic-beta`, and fees for tools of
//! their own. The upstream here answers by hand and keeps what it is sent.
//!
//! Not here: which names of betas pass, and how fees are counted (the wire's own tests).
//! Source: `c-conversion` C.6, `docs/providers.md`.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::testapp::{Reply, TestApp, nano, on_both};

on_both! {
    betas_reach_anthropic_and_are_named_elsewhere;
    fees_for_files_and_code_are_booked_by_both_sides;
    calls_without_ids_get_some_for_the_client;
}

const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m",
    "content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","stop_sequence":null,
    "usage":{"input_tokens":3,"output_tokens":1}}"#;

/// Two searches of files, and two containers in which code ran.
const RESPONSE: &str = include_str!(
    "../../../../anima-wire/fixtures/openai_responses/native_fees/upstream_response.json"
);

/// Names that Anthropic knows.
const BETAS: &str = "context-1m-2025-08-07,interleaved-thinking-2025-05-14";

type Kept = Arc<Mutex<Vec<HeaderMap>>>;

/// An upstream that answers a path with a body and keeps the headers that it is sent.
async fn answering(path: &str, answer: &'static str) -> (Kept, String) {
    let kept = Kept::default();
    let keep = move |State(kept): State<Kept>, headers: HeaderMap, _body: Bytes| async move {
        kept.lock().unwrap().push(headers);
        ([("content-type", "application/json")], answer)
    };
    let routes = Router::new().route(path, post(keep)).with_state(Arc::clone(&kept));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let never = std::future::pending::<()>();
    let grace = (std::time::Duration::ZERO, CancellationToken::new());
    tokio::spawn(anima::http::server::serve(listener, routes, never, grace));
    (kept, base_url)
}

async fn message(app: &TestApp, alias: &str, betas: &str) -> Reply {
    let headers = [("x-api-key", app.key.as_str()), ("anthropic-beta", betas)];
    let body = json!({"model": alias, "max_tokens": 9,
        "messages": [{"role": "user", "content": "Hello"}]});
    let reply = app.raw(Method::POST, "/v1/messages", &headers, body.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

async fn betas_reach_anthropic_and_are_named_elsewhere(app: &TestApp) {
    let (kept, base_url) = answering("/v1/messages", MESSAGE).await;
    let row = json!({"provider": "anthropic", "base_url": base_url});
    app.channel("claude", "sk-claude", row).await;
    app.alias("claude", "chat", &[("claude", "m")]).await;
    let reply = message(app, "claude", BETAS).await;
    assert_eq!(reply.header("x-anima-dropped"), "");
    assert_eq!(kept.lock().unwrap().pop().unwrap()["anthropic-beta"], BETAS);
    let reply = message(app, "claude", "oauth-2025-04-20").await;
    assert_eq!(reply.header("x-anima-dropped"), "anthropic-beta");
    assert!(!kept.lock().unwrap().pop().unwrap().contains_key("anthropic-beta"));
    // Who speaks another format does not get it.
    let reply = message(app, "chat", BETAS).await;
    assert_eq!(reply.header("x-anima-dropped"), "anthropic-beta");
}

async fn fees_for_files_and_code_are_booked_by_both_sides(app: &TestApp) {
    let (_kept, base_url) = answering("/v1/responses", RESPONSE).await;
    let row = json!({"provider": "openai_responses", "base_url": format!("{base_url}/v1")});
    app.channel("native", "sk-native", row).await;
    app.unpriced_alias("fees", "chat", &[("native", "m")]).await;
    let meter = |name: &str, amount: &str| json!({"meter": name, "per": 1, "amount": amount});
    let meters = |files: &str, code: &str| {
        json!([
            meter("input_tokens", "0.001"),
            meter("output_tokens", "0.001"),
            meter("file_search_calls", files),
            meter("code_sessions", code)
        ])
    };
    let sale = json!({"code": "fees-sale", "side": "sale", "alias": "fees", "currency": "USD",
        "meters": meters("0.005", "0.06")});
    app.create("/prices", &sale).await;
    let cost = json!({"code": "fees-cost", "side": "cost", "channel": "native", "model": "m",
        "currency": "USD", "meters": meters("0.0025", "0.03")});
    app.create("/prices", &cost).await;
    let body = json!({"model": "fees", "input": "Hi", "tools": [
        {"type": "file_search", "vector_store_ids": ["v"]},
        {"type": "code_interpreter", "container": {"type": "auto"}}]});
    let reply = app.post("/v1/responses", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let legs = app.legs(&reply).await;
    let booked: Vec<_> = legs.iter().map(|leg| (leg.amount, leg.estimate)).collect();
    let tokens = TOKENS * nano("0.001");
    let fees = |files: &str, code: &str| tokens + FILES * nano(files) + CODE * nano(code);
    let (sale, cost) = (fees("0.005", "0.06"), fees("0.0025", "0.03"));
    assert_eq!(booked, [(sale, false), (cost, false)], "{legs:?}");
}

/// What the wire counts in the answer.
const TOKENS: i64 = 11;
const FILES: i64 = 2;
const CODE: i64 = 2;

async fn calls_without_ids_get_some_for_the_client(app: &TestApp) {
    app.fault("no-call-ids+calls:2");
    let body = json!({"model": "chat", "max_tokens": 100,
        "messages": [{"role": "user", "content": "Weather?"}],
        "tools": [{"name": "weather", "input_schema": {"type": "object"}}]});
    let reply = app.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    let ids: Vec<&Value> = answer["content"].as_array().unwrap().iter().map(|b| &b["id"]).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{answer}");
    assert!(ids.iter().all(|id| id.as_str().is_some_and(|id| !id.is_empty())), "{answer}");
    assert_eq!(app.legs(&reply).await.len(), 2);
}
