//! Bodies and heads that no client should send: each is refused with the right row, costs nothing
//! and reaches no provider.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::testapp::{TestApp, on_both, prompt};

on_both! {
    bodies_that_are_no_json_object_are_refused;
    members_of_the_wrong_type_are_named;
    an_unknown_model_is_not_found;
    a_million_brackets_are_refused;
    a_member_that_decides_may_not_stand_twice;
    a_hundred_mebibytes_are_refused_by_their_announcement;
    a_body_without_an_end_is_refused ("body_bytes_max = 4194304");
    a_body_that_stops_coming_is_given_up_on ("body_timeout_ms = 200");
    a_body_that_trickles_is_given_up_on ("body_timeout_ms = 200");
    a_body_shorter_than_announced_is_dropped;
    huge_heads_are_refused;
    what_is_not_http_is_refused;
}

const PATH: &str = "/v1/chat/completions";

/// Sends a body and expects a 400 about the body, without a call of the provider.
async fn assert_refused(app: &TestApp, body: impl Into<Bytes>, param: Option<&str>) {
    let body: Bytes = body.into();
    let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
    let reply = app.raw(Method::POST, PATH, &[("x-api-key", &app.key)], body).await;
    assert_eq!(reply.refusal(), (400, "invalid_request".into()), "{shown}: {reply:?}");
    let error = &reply.json()["error"];
    assert_eq!(error["type"], "invalid_request_error", "{shown}");
    assert_eq!(error["param"], json!(param), "{shown}: {error}");
    assert_eq!(reply.header("x-should-retry"), "false");
    assert!(app.upstream.calls().is_empty(), "{shown}");
}

async fn bodies_that_are_no_json_object_are_refused(app: &TestApp) {
    for body in [
        "",
        " ",
        "{",
        "}",
        "null",
        "[]",
        "7",
        "\"model\"",
        "model=chat",
        "<html>",
        "{}{}",
        "{\"model\":\"chat\"",
        "{'model':'chat'}",
        "{\"model\":\"chat\",}",
        "\u{feff}",
        "NaN",
        "{\"a\":01}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\n\"}",
    ] {
        assert_refused(app, body, None).await;
    }
    let chat = prompt("chat").to_string();
    assert_refused(app, format!("{chat}{chat}"), None).await;
    assert_refused(app, [chat.as_bytes(), b"\0"].concat(), None).await;
    assert_refused(app, &b"{\"model\":\"chat\",\"messages\":[\"\xff\xfe\"]}"[..], None).await;
    assert_refused(app, &b"\x1f\x8b\x08\x00\x00\x00\x00\x00"[..], None).await;
}

async fn members_of_the_wrong_type_are_named(app: &TestApp) {
    let messages = json!([{"role": "user", "content": "x"}]);
    for (member, value) in [
        ("model", json!(7)),
        ("model", json!(null)),
        ("model", json!("")),
        ("model", json!(["chat"])),
        ("stream", json!("yes")),
        ("stream", json!(1)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!("many")),
        ("max_tokens", json!(1.5)),
        ("max_completion_tokens", json!([])),
        ("n", json!(0)),
        ("n", json!(-1)),
        ("n", json!("2")),
        ("n", json!(1.5)),
        ("messages", json!("x")),
        ("messages", json!({})),
        ("messages", json!(null)),
        ("stream_options", json!(true)),
    ] {
        let mut body = json!({"model": "chat", "messages": messages, "stream": true});
        body[member] = value;
        assert_refused(app, body.to_string(), Some(member)).await;
    }
    assert_refused(app, json!({"messages": messages}).to_string(), Some("model")).await;
    assert_refused(app, json!({"model": "chat"}).to_string(), Some("messages")).await;
}

async fn an_unknown_model_is_not_found(app: &TestApp) {
    let long = "x".repeat(100_000);
    for model in ["none", "Chat", "chat ", "sim-chat", "../chat", &long, "\u{0}"] {
        let reply = app.ask(model).await;
        assert_eq!(reply.refusal(), (404, "model_not_found".into()));
        assert_eq!(reply.json()["error"]["param"], "model");
        assert!(reply.body.len() < 1_000, "a name is not echoed at length");
    }
    assert!(app.calls().await.is_empty());
}

async fn a_million_brackets_are_refused(app: &TestApp) {
    let deep = 1_000_000;
    assert_refused(app, "[".repeat(deep), None).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let value = format!("{}1{}", open.repeat(deep), close.repeat(deep));
        assert_refused(app, format!("{{\"model\":\"chat\",\"messages\":{value}}}"), None).await;
        assert_refused(app, format!("{{\"a\":{value},\"model\":\"chat\",\"messages\":[]}}"), None)
            .await;
    }
}

async fn a_member_that_decides_may_not_stand_twice(app: &TestApp) {
    app.alias("cheap", "chat", &[("main", "sim-cheap")]).await;
    for second in ["\"model\"", "\"\\u006dodel\"", "\"mod\\u0065l\"", "\"Model\"", "\"MODEL\""] {
        let body = format!("{{\"model\":\"cheap\",\"messages\":[],{second}:\"chat\"}}");
        assert_refused(app, body, Some("model")).await;
        let body = format!("{{{second}:\"chat\",\"messages\":[],\"model\":\"cheap\"}}");
        assert_refused(app, body, Some("model")).await;
    }
    for member in ["stream", "max_tokens", "n", "stream_options"] {
        let body =
            format!("{{\"model\":\"chat\",\"messages\":[],\"{member}\":null,\"{member}\":null}}");
        assert_refused(app, body, Some(member)).await;
    }
}

/// The head of a POST on a bare socket.
fn head(app: &TestApp, more: &str) -> String {
    format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n{more}\r\n\r\n", app.key)
}

fn assert_answer(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer:?}");
    assert!(answer.to_ascii_lowercase().contains("\r\nx-anima-request-id: req_"), "{answer:?}");
}

async fn a_hundred_mebibytes_are_refused_by_their_announcement(app: &TestApp) {
    let head = head(app, "content-length: 104857600");
    let answer = app.client.push(&head, || None).await;
    assert_answer(&answer, 413, "request_too_large");
    let mut left = 100;
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let pieces = || {
        left -= 1;
        (left >= 0).then(|| piece.clone())
    };
    assert_answer(&app.client.push(&head, pieces).await, 413, "request_too_large");
}

async fn a_body_without_an_end_is_refused(app: &TestApp) {
    let head = head(app, "transfer-encoding: chunked");
    let piece = Bytes::from(format!("4000\r\n{}\r\n", " ".repeat(0x4000)));
    let answer = app.client.push(&head, || Some(piece.clone())).await;
    assert_answer(&answer, 413, "request_too_large");
    assert_eq!(app.ask("chat").await.status, 200);
}

async fn a_body_that_stops_coming_is_given_up_on(app: &TestApp) {
    for more in ["transfer-encoding: chunked", "content-length: 100"] {
        let answer = app.client.push(&head(app, more), || None).await;
        assert_answer(&answer, 408, "request_timeout");
    }
}

async fn a_body_that_trickles_is_given_up_on(app: &TestApp) {
    // One byte after the other, as fast as the socket takes them: the clock is what ends it.
    let head = head(app, "transfer-encoding: chunked");
    let answer = app.client.push(&head, || Some(Bytes::from_static(b"1\r\n \r\n"))).await;
    assert_answer(&answer, 408, "request_timeout");
}

async fn a_body_shorter_than_announced_is_dropped(app: &TestApp) {
    use tokio::io::AsyncWriteExt as _;
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let text = format!("{}{{\"model\":\"chat\"", head(app, "content-length: 4000"));
    socket.write_all(text.as_bytes()).await.unwrap();
    drop(socket);
    assert_eq!(app.ask("chat").await.status, 200);
    assert_eq!(app.calls().await.len(), 1);
}

async fn huge_heads_are_refused(app: &TestApp) {
    let one = format!("x-big: {}", "x".repeat(100_000));
    let many = "x-one: 1\r\n".repeat(150);
    for more in [one.as_str(), many.trim_end()] {
        let answer = app.client.push(&head(app, more), || None).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
    let target = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(100_000));
    let answer = app.client.push(&target, || None).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    assert_eq!(app.ask("chat").await.status, 200);
}

async fn what_is_not_http_is_refused(app: &TestApp) {
    for text in [
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
        "GET\r\n\r\n",
        "POST / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ] {
        let answer = app.client.push(text, || None).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{text:?}: {answer:?}");
    }
    assert_eq!(app.ask("chat").await.status, 200);
}
