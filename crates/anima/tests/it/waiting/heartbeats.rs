//! Signs of life of streams that wait for their turn, in every format.

use http::Method;
use serde_json::{Value, json};

use super::{one, queued, running, waiting_key};
use crate::testapp::{Reply, TestApp, on_both, prompt};

on_both! {
    a_stream_that_waits_is_given_signs_of_life_and_then_its_answer
        ("queue_heartbeat_after_ms = 60\nqueue_heartbeat_ms = 60");
    a_refusal_after_the_head_is_the_formats_error_event
        ("queue_heartbeat_after_ms = 60\nqueue_heartbeat_ms = 60");
    what_does_not_stream_or_does_not_wait_long_is_not_touched
        ("queue_heartbeat_after_ms = 60\nqueue_heartbeat_ms = 60");
    nothing_is_sent_early_where_the_operator_wants_none ("queue_heartbeat_after_ms = 0");
    a_client_that_hangs_up_between_two_signs_is_out_of_the_queue
        ("queue_heartbeat_after_ms = 60\nqueue_heartbeat_ms = 60");
}

/// A path, its body, its sign of life, and the last word of its answer.
type Format = (&'static str, Value, &'static str, &'static str);

fn formats() -> [Format; 4] {
    let chat = json!({"stream": true, "model": "chat", "messages": prompt("chat")["messages"]});
    let mut messages = chat.clone();
    messages["max_tokens"] = json!(50);
    let responses = json!({"stream": true, "model": "chat", "input": "Say something."});
    let gemini = json!({"contents": [{"role": "user", "parts": [{"text": "Say something."}]}]});
    let path = "/v1beta/models/chat:streamGenerateContent?alt=sse";
    [
        ("/v1/chat/completions", chat, ": waiting\n\n", "data: [DONE]\n\n"),
        ("/v1/messages", messages, "event: ping\ndata: {\"type\": \"ping\"}\n\n", "message_stop"),
        ("/v1/responses", responses, ": waiting\n\n", "response.completed"),
        (path, gemini, "\n\n", "STOP"),
    ]
}

async fn send(app: &TestApp, key: &str, path: &str, body: &Value) -> Reply {
    let headers = [("x-api-key", key), ("anthropic-version", "2023-06-01")];
    app.raw(Method::POST, path, &headers, body.to_string()).await
}

/// A stream that is sent while another call runs, and how that one was answered.
async fn behind(app: &TestApp, key: &str, path: &str, body: &Value) -> Reply {
    let before = app.upstream.calls().len();
    let (first, second) = tokio::join!(app.ask_as(key, "chat"), async {
        running(app, before + 1).await;
        send(app, key, path, body).await
    });
    assert_eq!(first.status, 200, "{first:?}");
    second
}

async fn a_stream_that_waits_is_given_signs_of_life_and_then_its_answer(app: &TestApp) {
    let (_, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 20_000})).await;
    app.fault("latency:500");
    for (path, body, sign, last) in formats() {
        let reply = behind(app, &key, path, &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.header("content-type").starts_with("text/event-stream"), "{reply:?}");
        assert!(reply.header("x-anima-queue-wait-ms").parse::<u64>().unwrap() >= 60);
        assert!(!reply.header("x-anima-request-id").is_empty());
        let text = reply.text();
        assert!(text.starts_with(&sign.repeat(2)), "{path}: {text}");
        let answer = text.trim_start_matches(sign);
        assert!(answer.contains(last) && !answer.contains("waiting"), "{path}: {text}");
    }
    let with_key = [("x-api-key", key.as_str()), ("idempotency-key", "once")];
    let (_, body, sign, last) = &formats()[0];
    let (_, keyed) = tokio::join!(app.ask_as(&key, "chat"), async {
        running(app, 9).await;
        app.raw(Method::POST, "/v1/chat/completions", &with_key, body.to_string()).await
    });
    assert!(keyed.text().starts_with(sign) && keyed.text().ends_with(last), "{keyed:?}");
    let again = app.raw(Method::POST, "/v1/chat/completions", &with_key, body.to_string()).await;
    assert_eq!(keyed.text().trim_start_matches(sign), again.text(), "signs are not kept");
    app.verify().await;
}

async fn a_refusal_after_the_head_is_the_formats_error_event(app: &TestApp) {
    waiting_key(app, one(), json!({})).await;
    app.fault("latency:900");
    for (path, body, sign, _) in formats() {
        // How long the calls of this key last is not known, so none is refused at the door.
        let row = json!({"quota": "narrow", "queue_mode": "WAIT", "wait_timeout_ms": 300});
        let (_, key) = app.mint("acme", row).await;
        let reply = behind(app, &key, path, &body).await;
        let text = reply.text();
        assert!(reply.status == 200 && text.starts_with(sign), "{path}: {reply:?}");
        let event = text.trim_start_matches(sign);
        let (kind, payload) = event.trim_end().rsplit_once("data: ").unwrap();
        let payload: Value = serde_json::from_str(payload).unwrap();
        let (kind_wanted, pointer, word) = match path {
            "/v1/messages" => ("event: error\n", "/error/type", "rate_limit_error"),
            "/v1/responses" => ("event: error\n", "/code", "queue_timeout"),
            "/v1/chat/completions" => ("", "/error/code", "queue_timeout"),
            _ => ("", "/error/status", "RESOURCE_EXHAUSTED"),
        };
        assert_eq!((kind, payload.pointer(pointer)), (kind_wanted, Some(&json!(word))), "{text}");
        assert!(payload.to_string().contains("queue_timeout"), "{text}");
    }
}

async fn what_does_not_stream_or_does_not_wait_long_is_not_touched(app: &TestApp) {
    let (_, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 20_000})).await;
    app.fault("latency:400");
    let whole = behind(app, &key, "/v1/chat/completions", &prompt("chat")).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.json()["object"], "chat.completion");
    let array = "/v1beta/models/chat:streamGenerateContent";
    let array = behind(app, &key, array, &formats()[3].1).await;
    assert!(array.json().is_array(), "{array:?}");
    // It waits for its provider and not for its turn.
    let alone = send(app, &key, "/v1/chat/completions", &formats()[0].1).await;
    assert!(alone.text().starts_with("data: "), "{alone:?}");
    assert_eq!(alone.header("x-anima-attempts"), "1");
}

async fn nothing_is_sent_early_where_the_operator_wants_none(app: &TestApp) {
    let (_, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 100})).await;
    app.fault("latency:600");
    let (path, body, ..) = &formats()[0];
    let reply = behind(app, &key, path, body).await;
    assert_eq!(reply.refusal(), (429, "queue_timeout".to_owned()));
}

async fn a_client_that_hangs_up_between_two_signs_is_out_of_the_queue(app: &TestApp) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (_, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 60_000})).await;
    app.fault("latency:2500");
    let body = formats()[0].1.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (first, ()) = tokio::join!(app.ask_as(&key, "chat"), async {
        running(app, 1).await;
        let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.contains(": waiting") {
            let mut piece = [0_u8; 1024];
            let read = socket.read(&mut piece).await.unwrap();
            assert!(read > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        drop(socket);
        queued(app, 0).await;
        assert_eq!(app.upstream.calls().len(), 1, "while the other runs still");
    });
    assert_eq!(first.status, 200);
    assert_eq!(app.calls().await.len(), 1, "nothing was sent for it");
}
