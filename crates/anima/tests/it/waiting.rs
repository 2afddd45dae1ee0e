//! Queue mode WAIT: calls over a limit wait for their turn.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{Reply, TestApp, eventually, on_both, prompt};

on_both! {
    calls_wait_for_their_turn_and_are_served;
    a_call_that_waits_too_long_is_told_so;
    no_more_wait_than_may;
    a_rate_lets_waiters_pass_one_by_one;
    a_client_that_hangs_up_is_out_of_the_queue;
    a_key_that_turns_to_reject_refuses_its_waiters;
    a_key_that_turns_to_async_serves_its_waiters;
    a_key_that_is_disabled_empties_its_queue;
}

mod changes; // keys that change before a call waits, or by time alone
mod heartbeats; // of streams that wait

/// A key that waits, one call at a time: its path and itself.
async fn waiting_key(app: &TestApp, limit: Value, mut row: Value) -> (String, String) {
    app.create("/quotas", &json!({"code": "narrow", "limits": [limit]})).await;
    row["quota"] = json!("narrow");
    row["queue_mode"] = json!("WAIT");
    app.mint("acme", row).await
}

fn one() -> Value {
    json!({"kind": "concurrency", "limit": 1})
}

fn reason(reply: &Reply) -> String {
    reply.json()["anima"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// Waits until so many calls wait for their turn.
async fn queued(app: &TestApp, count: usize) {
    let line = format!("anima_queue_length {count}");
    eventually("calls wait", async || app.metrics().await.contains(&line).then_some(())).await;
}

/// Waits until the provider has so many calls.
async fn running(app: &TestApp, count: usize) {
    eventually("calls run", async || (app.upstream.calls().len() >= count).then_some(())).await;
}

async fn calls_wait_for_their_turn_and_are_served(app: &TestApp) {
    let (_, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 20_000})).await;
    app.fault("latency:150");
    let ask = || app.ask_as(&key, "chat");
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    let mut waits = vec![];
    for reply in [&a, &b, &c, &d] {
        assert_eq!(reply.status, 200, "{reply:?}");
        waits.push(reply.header("x-anima-queue-wait-ms").parse::<u64>().unwrap());
    }
    waits.sort_unstable();
    assert!(waits[0] < 100, "one did not wait: {waits:?}");
    assert!(waits[1] >= 100 && waits[3] >= 400, "one after the other: {waits:?}");
    let text = app.metrics().await;
    assert!(text.contains("anima_queue_wait_seconds_count{outcome=\"served\"} 3"));
    queued(app, 0).await;
}

async fn a_call_that_waits_too_long_is_told_so(app: &TestApp) {
    let (_, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 100})).await;
    app.fault("latency:2000");
    let (a, b) = tokio::join!(app.ask_as(&key, "chat"), async {
        running(app, 1).await;
        app.ask_as(&key, "chat").await
    });
    assert_eq!(a.status, 200);
    assert_eq!(b.refusal(), (429, "queue_timeout".to_owned()));
    assert_eq!(b.header("x-should-retry"), "false");
    assert!(!b.header("retry-after").is_empty());
    assert!(b.header("x-anima-queue-wait-ms").parse::<u64>().unwrap() >= 100);
    // What a call lasts is known by now: the next one is told at once that it would wait in vain.
    let (c, d) = tokio::join!(app.ask_as(&key, "chat"), async {
        running(app, 2).await;
        app.ask_as(&key, "chat").await
    });
    assert_eq!(c.status, 200);
    assert_eq!(d.refusal(), (429, "deadline_unreachable".to_owned()));
}

async fn no_more_wait_than_may(app: &TestApp) {
    let row = json!({"wait_timeout_ms": 20_000, "max_queue": 1});
    let (_, key) = waiting_key(app, one(), row).await;
    app.fault("latency:700");
    let (a, b, c) = tokio::join!(
        app.ask_as(&key, "chat"),
        async {
            running(app, 1).await;
            app.ask_as(&key, "chat").await
        },
        async {
            running(app, 1).await;
            queued(app, 1).await;
            app.ask_as(&key, "chat").await
        }
    );
    assert_eq!((a.status, b.status), (200, 200));
    assert_eq!(c.refusal(), (429, "queue_full".to_owned()));
    assert_eq!(c.header("retry-after-ms"), "2000", "two turns of what a call is taken to last");
    assert_eq!(
        (c.header("x-ratelimit-limit-requests"), c.header("x-ratelimit-remaining-requests")),
        ("1", "0"),
        "also of one that was never judged"
    );
}

async fn a_rate_lets_waiters_pass_one_by_one(app: &TestApp) {
    let limit = json!({"kind": "requests", "window": "1s", "limit": 5, "burst": 1});
    let (_, key) = waiting_key(app, limit, json!({"wait_timeout_ms": 20_000})).await;
    let began = tokio::time::Instant::now();
    let ask = || app.ask_as(&key, "chat");
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    for reply in [&a, &b, &c, &d] {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert!(began.elapsed().as_millis() >= 600, "one in 200 ms");
}

async fn a_client_that_hangs_up_is_out_of_the_queue(app: &TestApp) {
    use tokio::io::AsyncWriteExt as _;
    let (path, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 60_000})).await;
    app.fault("latency:1500");
    let body = prompt("chat").to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (a, ()) = tokio::join!(app.ask_as(&key, "chat"), async {
        running(app, 1).await;
        let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        queued(app, 1).await;
        let shown = eventually("it is shown", async || {
            let shown = app.admin(Method::GET, "/queues", &Value::Null).await;
            shown["items"][0].is_object().then_some(shown)
        })
        .await;
        let (item, kid) = (&shown["items"][0], path.rsplit('/').next().unwrap());
        assert_eq!((&item["waiting"], &item["key"]), (&json!(1), &json!(kid)), "{shown}");
        assert_eq!((&item["scope"], &item["code"]), (&json!("app"), &json!("acme")));
        assert!(item["oldest_ms"].is_u64() && item["node"].is_string(), "{shown}");
        assert_eq!(item["expected_wait_ms"], Value::Null, "it had no turn yet");
        drop(socket);
        queued(app, 0).await;
    });
    assert_eq!(a.status, 200);
    assert_eq!(app.calls().await.len(), 1, "nothing was sent for it");
}

/// A call that waits while another runs, and what it is told when `change` is made.
async fn told_after(app: &TestApp, key: &str, change: impl AsyncFn()) -> Reply {
    app.fault("latency:2000");
    let (a, b, ()) = tokio::join!(
        app.ask_as(key, "chat"),
        async {
            running(app, 1).await;
            app.ask_as(key, "chat").await
        },
        async {
            queued(app, 1).await;
            change().await;
        }
    );
    assert_eq!(a.status, 200, "what runs is not touched");
    let waited: u64 = b.header("x-anima-queue-wait-ms").parse().unwrap();
    assert!(waited < 1_500, "at once: {waited}");
    b
}

async fn a_key_that_turns_to_reject_refuses_its_waiters(app: &TestApp) {
    let (path, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 60_000})).await;
    let told = told_after(app, &key, async || {
        app.patch(&path, json!({"queue_mode": "REJECT"})).await;
    });
    let told = told.await;
    assert_eq!((told.status, reason(&told).as_str()), (429, "concurrency_limited"));
}

async fn a_key_that_turns_to_async_serves_its_waiters(app: &TestApp) {
    let (path, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 60_000})).await;
    app.fault("latency:1000");
    let (a, b, ()) = tokio::join!(
        app.ask_as(&key, "chat"),
        async {
            running(app, 1).await;
            app.ask_as(&key, "chat").await
        },
        async {
            queued(app, 1).await;
            app.patch(&path, json!({"queue_mode": "ASYNC"})).await;
        }
    );
    assert_eq!((a.status, b.status), (200, 200), "{b:?}");
    assert_eq!(app.ask_as(&key, "chat").await.status, 202, "the next is a task");
}

async fn a_key_that_is_disabled_empties_its_queue(app: &TestApp) {
    let (path, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 60_000})).await;
    let told = told_after(app, &key, async || {
        app.admin(Method::PATCH, &path, &json!({"enabled": false})).await;
    });
    let told = told.await;
    assert_eq!((told.status, reason(&told).as_str()), (401, "disabled_api_key"));
}
