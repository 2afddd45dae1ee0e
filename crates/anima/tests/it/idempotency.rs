//! Calls that are sent again under their `Idempotency-Key`: one call upstream, one charge, and the
//! same answer to all who ask.
//!
//! Not here: what the store promises, which its own tests hold on both databases.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::testapp::{Reply, SALE, TestApp, eventually, on_both, owed, prompt};

mod other_nodes;

on_both! {
    a_call_that_is_sent_again_is_answered_again_and_charged_once;
    a_stream_that_is_sent_again_is_the_same_to_the_byte;
    a_thousand_at_once_are_one_call;
    those_who_ask_while_it_runs_wait_for_its_answer;
    another_request_under_a_used_key_is_refused;
    keys_of_two_callers_are_two;
    a_refusal_of_the_provider_is_kept;
    a_failure_that_may_pass_is_tried_again;
    a_call_without_money_is_made_when_there_is_some;
    a_client_that_left_gets_its_answer_on_the_retry;
    a_client_that_left_a_stream_gets_all_of_it_on_the_retry;
    an_answer_that_is_too_large_to_keep_is_named ("idempotency_answer_bytes_max = 64");
    after_its_time_a_key_is_free ("idempotency_keep_ms = 1");
    a_key_that_is_none_is_refused;
    a_settlement_on_disk_names_its_key;
}

/// A chat under a key.
async fn ask(app: &TestApp, key: &str, body: &Value) -> Reply {
    ask_as(app, &app.key, key, body).await
}

async fn ask_as(app: &TestApp, api_key: &str, key: &str, body: &Value) -> Reply {
    let headers = [("x-api-key", api_key), ("idempotency-key", key)];
    app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await
}

fn streamed() -> Value {
    let mut body = prompt("chat");
    body["stream"] = json!(true);
    body
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("x-anima-idempotent-replay") == "true"
}

async fn a_call_that_is_sent_again_is_answered_again_and_charged_once(app: &TestApp) {
    let before = app.balance().await;
    let first = ask(app, "once", &prompt("chat")).await;
    assert_eq!((first.status, is_replay(&first)), (200, false), "{first:?}");
    let after = app.balance().await;
    for _ in 0..3 {
        let again = ask(app, "once", &prompt("chat")).await;
        assert_eq!((again.status, is_replay(&again)), (200, true), "{again:?}");
        assert_eq!(again.body, first.body);
        for name in ["content-type", "x-anima-served-model", "x-anima-attempts"] {
            assert_eq!(again.header(name), first.header(name), "{name}");
        }
        assert_ne!(again.request_id(), first.request_id());
        assert_eq!(again.header("x-anima-original-request-id"), first.request_id());
        assert!(app.legs(&again).await.is_empty());
    }
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert_eq!(app.balance().await, after);
    assert_eq!(before - after, owed(&SALE, &call.billed, 1_000));
    let metrics = app.metrics().await;
    let line = "outcome=\"idempotent_replay\"} 3";
    assert!(metrics.contains(line), "{metrics}");
}

async fn a_stream_that_is_sent_again_is_the_same_to_the_byte(app: &TestApp) {
    let first = ask(app, "once", &streamed()).await;
    assert_eq!(first.events().last().map(String::as_str), Some("[DONE]"));
    let after = app.balance().await;
    let again = ask(app, "once", &streamed()).await;
    assert!(is_replay(&again));
    assert_eq!((&again.body, again.status), (&first.body, 200));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_eq!((app.calls().await.len(), app.balance().await), (1, after));
}

async fn a_thousand_at_once_are_one_call(app: &TestApp) {
    app.fault("latency:100");
    let body = prompt("chat");
    let replies = join_all((0..1_000).map(|_| ask(app, "once", &body))).await;
    let first = &replies[0];
    for reply in &replies {
        assert_eq!((reply.status, &reply.body), (200, &first.body));
    }
    assert_eq!(replies.iter().filter(|reply| !is_replay(reply)).count(), 1);
    assert_eq!(app.calls().await.len(), 1);
}

async fn those_who_ask_while_it_runs_wait_for_its_answer(app: &TestApp) {
    app.fault("latency:200");
    let body = streamed();
    let (one, two) = tokio::join!(ask(app, "once", &body), ask(app, "once", &body));
    assert_eq!((one.status, &one.body), (200, &two.body));
    assert_ne!(is_replay(&one), is_replay(&two));
    assert_eq!(app.calls().await.len(), 1);
}

async fn another_request_under_a_used_key_is_refused(app: &TestApp) {
    app.fault("latency:200");
    let (body, other) = (prompt("chat"), streamed());
    let running = ask(app, "once", &body);
    let meanwhile = async {
        eventually("the call arrives", async || app.upstream.calls().first().cloned()).await;
        ask(app, "once", &other).await
    };
    let (answer, refused) = tokio::join!(running, meanwhile);
    assert_eq!(answer.status, 200);
    for refused in [refused, ask(app, "once", &other).await] {
        assert_eq!(refused.refusal(), (409, "idempotency_conflict".to_owned()));
        assert_eq!(refused.header("x-should-retry"), "false");
    }
    // The same body to another endpoint is another request too.
    app.embedding().await;
    let headers = [("x-api-key", app.key.as_str()), ("idempotency-key", "both")];
    let both = json!({"model": "embed", "input": "x", "messages": prompt("chat")["messages"]});
    let embedded = app.raw(Method::POST, "/v1/embeddings", &headers, both.to_string()).await;
    assert_eq!(embedded.status, 200);
    assert_eq!(app.calls().await.len(), 2);
}

async fn keys_of_two_callers_are_two(app: &TestApp) {
    let (_, other) = app.mint("acme", json!({})).await;
    assert_eq!(ask(app, "once", &prompt("chat")).await.status, 200);
    let theirs = ask_as(app, &other, "once", &prompt("chat")).await;
    assert_eq!((theirs.status, is_replay(&theirs)), (200, false));
    assert_eq!(app.calls().await.len(), 2);
}

async fn a_refusal_of_the_provider_is_kept(app: &TestApp) {
    app.fault("status:400");
    let first = ask(app, "once", &prompt("chat")).await;
    assert_eq!((first.status, is_replay(&first)), (400, false));
    app.fault("");
    let again = ask(app, "once", &prompt("chat")).await;
    assert_eq!((again.status, is_replay(&again)), (400, true));
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("x-should-retry"), "false");
    assert_eq!(app.calls().await.len(), 1);
}

async fn a_failure_that_may_pass_is_tried_again(app: &TestApp) {
    let before = app.balance().await;
    app.fault("status:503");
    // What an SDK does: the same key and body, until it is served.
    let failed = ask(app, "once", &prompt("chat")).await;
    assert_eq!((failed.status, failed.header("x-should-retry")), (503, "true"));
    app.fault("status:429");
    assert_eq!(ask(app, "once", &prompt("chat")).await.status, 429);
    app.fault("");
    let served = ask(app, "once", &prompt("chat")).await;
    assert_eq!((served.status, is_replay(&served)), (200, false));
    let after = app.balance().await;
    assert!(is_replay(&ask(app, "once", &prompt("chat")).await));
    let calls = app.calls().await;
    let billed = &calls.last().unwrap().billed;
    assert_eq!((calls.len(), before - after), (3, owed(&SALE, billed, 1_000)));
    assert_eq!(app.balance().await, after);
}

async fn a_call_without_money_is_made_when_there_is_some(app: &TestApp) {
    app.app("poor", "0", json!({})).await;
    let (_, key) = app.mint("poor", json!({})).await;
    assert_eq!(ask_as(app, &key, "once", &prompt("chat")).await.status, 429);
    app.create("/apps/poor/topups", &json!({"amount": "1.00"})).await;
    let served = ask_as(app, &key, "once", &prompt("chat")).await;
    assert_eq!((served.status, is_replay(&served)), (200, false));
}

/// Sends a call under a key on a socket of its own, reads `words` of the answer, and leaves when
/// the provider has the call.
async fn ask_and_leave(app: &TestApp, body: &Value, words: usize) {
    let headers = [("x-api-key", app.key.as_str()), ("idempotency-key", "once")];
    let bytes = Bytes::from(body.to_string());
    let opening = app.client.open(Method::POST, "/v1/chat/completions", &headers, bytes);
    if words > 0 {
        let mut stream = opening.await;
        for _ in 0..words {
            stream.next().await.expect("an event");
        }
        return;
    }
    let arrived = eventually("the call arrives", async || app.upstream.calls().first().cloned());
    tokio::select! {
        _ = opening => panic!("answered before the client could leave"),
        _ = arrived => {}
    }
}

async fn a_client_that_left_gets_its_answer_on_the_retry(app: &TestApp) {
    app.fault("latency:300");
    let before = app.balance().await;
    ask_and_leave(app, &prompt("chat"), 0).await;
    let again = ask(app, "once", &prompt("chat")).await;
    assert_eq!((again.status, is_replay(&again)), (200, true));
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert_eq!(before - app.balance().await, owed(&SALE, &call.billed, 1_000));
}

async fn a_client_that_left_a_stream_gets_all_of_it_on_the_retry(app: &TestApp) {
    app.fault("pace:20+answer-tokens:12+chunks:12");
    let before = app.balance().await;
    ask_and_leave(app, &streamed(), 3).await;
    let again = ask(app, "once", &streamed()).await;
    assert_eq!((again.status, is_replay(&again)), (200, true));
    assert_eq!(again.events().last().map(String::as_str), Some("[DONE]"));
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert_eq!(call.billed.completion_tokens, 12);
    assert_eq!(before - app.balance().await, owed(&SALE, &call.billed, 1_000));
}

async fn an_answer_that_is_too_large_to_keep_is_named(app: &TestApp) {
    for (key, body) in [("json", prompt("chat")), ("sse", streamed())] {
        let calls = app.calls().await.len();
        let first = ask(app, key, &body).await;
        assert_eq!((first.status, first.complete), (200, true));
        let after = app.balance().await;
        let again = ask(app, key, &body).await;
        assert_eq!(again.refusal(), (409, "idempotency_answer_gone".to_owned()));
        assert!(again.text().contains(first.request_id()), "{again:?}");
        assert_eq!(again.header("x-should-retry"), "false");
        assert_eq!((app.calls().await.len(), app.balance().await), (calls + 1, after));
    }
}

async fn after_its_time_a_key_is_free(app: &TestApp) {
    app.fault("latency:5");
    for _ in 0..2 {
        let reply = ask(app, "once", &prompt("chat")).await;
        assert_eq!((reply.status, is_replay(&reply)), (200, false));
    }
    assert_eq!(app.calls().await.len(), 2);
}

async fn a_key_that_is_none_is_refused(app: &TestApp) {
    for key in ["", &"x".repeat(256)] {
        let refused = ask(app, key, &prompt("chat")).await;
        assert_eq!(refused.refusal(), (400, "invalid_request".to_owned()));
        assert_eq!(refused.json()["error"]["param"], json!("Idempotency-Key"));
    }
    assert!(app.calls().await.is_empty());
}

/// So that the next process can tell whether another call has taken it over.
async fn a_settlement_on_disk_names_its_key(app: &TestApp) {
    app.fault("gate");
    let body = prompt("chat");
    let (delivered, away) = tokio::join!(ask(app, "once", &body), async {
        eventually("the call arrives", async || app.upstream.calls().pop()).await;
        app.fault("");
        let away = app.take_database_away().await;
        app.upstream.open_gate();
        away
    });
    assert_eq!((delivered.status, is_replay(&delivered)), (200, false), "{delivered:?}");
    let spooled = std::fs::read(app.data_dir().join("settlements.spool")).unwrap();
    let kid = anima::secrets::kid_of(&app.key).unwrap();
    let named = format!("\"once\":false,\"key\":{{\"kid\":\"{kid}\",\"hash\":[");
    let spooled = String::from_utf8_lossy(&spooled).into_owned();
    assert!(spooled.contains(&named), "{spooled}");
    away.give_back(app).await;
    let again = eventually("the answer is kept", async || {
        Some(ask(app, "once", &body).await).filter(|reply| reply.status == 200)
    })
    .await;
    assert!(is_replay(&again) && again.body == delivered.body, "{again:?}");
    assert_eq!(app.upstream.calls().len(), 1);
}
