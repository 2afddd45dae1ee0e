//! Keys whose calls may wait no more, although nobody told those who wait.

use serde_json::json;

use anima::clock::SystemClock;
use anima_core::clock::Clock as _;

use super::{one, queued, reason, running, waiting_key};
use crate::testapp::{TestApp, on_both, prompt};

on_both! {
    a_call_that_was_on_its_way_when_its_key_changed_does_not_wait;
    a_key_that_ends_by_time_empties_its_queue;
    a_budget_that_is_set_while_a_call_waits_binds_it;
    a_raise_that_ends_by_time_ends_for_those_who_wait;
}

/// The answer to a call whose key is looked at before `change`, and whose body comes after it.
async fn late_body(app: &TestApp, key: &str, change: impl AsyncFn()) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let body = prompt("chat").to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\
         expect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    socket.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    change().await;
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await.unwrap();
    reply
}

async fn a_call_that_was_on_its_way_when_its_key_changed_does_not_wait(app: &TestApp) {
    let changes = [
        (json!({"queue_mode": "REJECT"}), "429", "concurrency_limited"),
        (json!({"enabled": false}), "401", "disabled_api_key"),
    ];
    for (n, (change, status, reason)) in (1..).zip(changes) {
        let quota = format!("one{n}");
        app.create("/quotas", &json!({"code": quota, "limits": [one()]})).await;
        let row = json!({"quota": quota, "queue_mode": "WAIT", "wait_timeout_ms": 60_000});
        let (path, key) = app.mint("acme", row).await;
        app.fault("latency:2000");
        let (a, b) = tokio::join!(app.ask_as(&key, "chat"), async {
            running(app, n).await;
            let change = async || {
                if change["enabled"].is_boolean() {
                    app.switch(&path, false).await;
                } else {
                    app.patch(&path, change.clone()).await;
                }
                let now = app.ask_as(&key, "chat").await;
                assert_eq!(now.status.to_string(), status, "it is known: {now:?}");
            };
            late_body(app, &key, change).await
        });
        assert_eq!(a.status, 200, "what runs is not touched");
        assert!(b.starts_with(&format!("HTTP/1.1 {status} ")) && b.contains(reason), "{b}");
    }
}

async fn a_key_that_ends_by_time_empties_its_queue(app: &TestApp) {
    let end = SystemClock.now().plus_millis(3_000);
    let row = json!({"wait_timeout_ms": 60_000, "expires_at": end.to_string()});
    let (_, key) = waiting_key(app, one(), row).await;
    app.fault("latency:8000");
    let (a, b, ()) = tokio::join!(
        app.ask_as(&key, "chat"),
        async {
            running(app, 1).await;
            app.ask_as(&key, "chat").await
        },
        queued(app, 1)
    );
    assert_eq!(a.status, 200, "what runs is not touched");
    assert_eq!((b.status, reason(&b).as_str()), (401, "expired_api_key"));
    let waited: u64 = b.header("x-anima-queue-wait-ms").parse().unwrap();
    assert!(waited < 6_500, "within seconds of its end: {waited}");
}

async fn a_budget_that_is_set_while_a_call_waits_binds_it(app: &TestApp) {
    let (_, key) = waiting_key(app, one(), json!({"wait_timeout_ms": 60_000})).await;
    app.fault("latency:4000");
    let (a, b, ()) = tokio::join!(
        app.ask_as(&key, "chat"),
        async {
            running(app, 1).await;
            app.ask_as(&key, "chat").await
        },
        async {
            queued(app, 1).await;
            let budget = json!({"kind": "cost", "window": "total", "limit": "0.000000001"});
            app.patch("/quotas/narrow", json!({"limits": [one(), budget]})).await;
        }
    );
    assert_eq!(a.status, 200, "what runs is not touched");
    assert_eq!((b.status, reason(&b).as_str()), (429, "budget_exceeded"), "{b:?}");
    assert_eq!(app.calls().await.len(), 1);
}

async fn a_raise_that_ends_by_time_ends_for_those_who_wait(app: &TestApp) {
    let until = SystemClock.now().plus_millis(3_000);
    let raised = json!({"limit": 2, "until": until.to_string()});
    let limit = json!({"kind": "concurrency", "limit": 1, "raised": raised});
    let (_, key) = waiting_key(app, limit, json!({"wait_timeout_ms": 60_000})).await;
    app.script(&json!([
        {"match": {"times": 1}, "do": "latency:5500"},
        {"match": {"times": 1}, "do": "latency:9000"}
    ]));
    let ask = || app.ask_as(&key, "chat");
    let (a, b, c) = tokio::join!(ask(), ask(), async {
        running(app, 2).await;
        ask().await
    });
    assert_eq!((a.status, b.status, c.status), (200, 200, 200), "{c:?}");
    let waited: u64 = c.header("x-anima-queue-wait-ms").parse().unwrap();
    assert!(waited > 7_500, "for both, as one may run: {waited}");
}
