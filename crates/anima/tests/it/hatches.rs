//! The escape hatches on the data plane: what is switched off is refused, in the caller's format,
//! and a stream ends when the switch says so.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{TestApp, eventually, on_both, prompt};

on_both! {
    a_circuit_that_was_opened_by_hand_takes_no_call;
    a_gateway_that_is_off_refuses_in_every_format;
    a_switch_that_cuts_ends_the_stream_with_an_error_event;
    a_switch_that_cuts_ends_a_stream_that_nobody_reads;
    a_switch_that_does_not_cut_lets_the_stream_finish;
    a_forgotten_key_is_read_again;
    of_parallel_administrators_one_saves_and_the_others_see_what_is;
}

async fn pull(app: &TestApp, path: &str, body: Value) -> Value {
    app.admin(Method::POST, path, &body).await
}

async fn a_circuit_that_was_opened_by_hand_takes_no_call(app: &TestApp) {
    let opened = pull(app, "/circuits/main/open", json!({"reason": "it melts"})).await;
    assert_eq!(opened["propagation"]["complete"], true, "{opened}");
    let refused = app.ask("chat").await;
    assert_eq!(refused.refusal(), (503, "no_healthy_channel".into()));
    let model = json!({"reason": "this one is well", "model": "sim-chat"});
    pull(app, "/circuits/main/close", model.clone()).await;
    assert_eq!(app.ask("chat").await.status, 200, "the model's word goes before its channel's");
    pull(app, "/circuits/main/reset", model).await;
    assert_eq!(app.ask("chat").await.status, 503, "which holds for the rest of it");
    pull(app, "/circuits/main/reset", json!({"reason": "it is well"})).await;
    assert_eq!(app.ask("chat").await.status, 200);
    let one = json!({"reason": "r", "model": "another-model"});
    pull(app, "/circuits/main/open", one).await;
    assert_eq!(app.ask("chat").await.status, 200, "only one model of the channel is out");
    let soon = json!({"reason": "r", "expires_in_ms": 300});
    pull(app, "/circuits/main/open", soon).await;
    assert_eq!(app.ask("chat").await.status, 503);
    eventually("the manual state ends", async || {
        (app.ask("chat").await.status == 200).then_some(())
    })
    .await;
}

async fn a_gateway_that_is_off_refuses_in_every_format(app: &TestApp) {
    let off = json!({"enabled": false, "reason": "maintenance"});
    let switched = app.admin(Method::PATCH, "/switch", &off).await;
    assert_eq!(switched["propagation"]["complete"], true, "{switched}");
    let chat = app.ask("chat").await;
    assert_eq!(chat.refusal(), (503, "service_suspended".into()));
    assert_eq!(app.get("/v1/models").await.status, 503);
    let messages =
        json!({"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    let anthropic = app.post("/v1/messages", &messages).await;
    assert_eq!((anthropic.status, &anthropic.json()["type"]), (503, &json!("error")));
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "x"}]}]});
    let gemini = app.post("/v1beta/models/chat:generateContent", &contents).await;
    assert_eq!((gemini.status, &gemini.json()["error"]["code"]), (503, &json!(503)));
    assert!(!chat.text().contains("maintenance"), "the reason is not the caller's business");
    assert!(app.calls().await.is_empty(), "nothing reached the provider");
    let on = json!({"enabled": true, "reason": "over"});
    app.admin(Method::PATCH, "/switch", &on).await;
    assert_eq!(app.ask("chat").await.status, 200);
}

/// A stream that would run for a minute, after its first content.
async fn long_stream(app: &TestApp) -> crate::testapp::Streamed {
    app.fault("pace:50+answer-tokens:1200+chunks:1200");
    let mut stream = app.stream(prompt("chat")).await;
    assert_eq!(stream.status, 200);
    for _ in 0..3 {
        assert!(stream.next().await.is_some());
    }
    stream
}

async fn a_switch_that_cuts_ends_the_stream_with_an_error_event(app: &TestApp) {
    let (key_path, key) = app.mint("acme", json!({})).await;
    for (path, key) in [("/channels/main", None), ("/aliases/chat", None), (&*key_path, Some(&key))]
    {
        if let Some(key) = key {
            assert_eq!(app.ask_as(key, "chat").await.status, 200);
        }
        let stream = match key {
            None => long_stream(app).await,
            Some(key) => {
                let bearer = format!("Bearer {key}");
                let mut body = prompt("chat");
                body["stream"] = json!(true);
                let headers = [("authorization", bearer.as_str())];
                let path = "/v1/chat/completions";
                let mut stream =
                    app.client.open(Method::POST, path, &headers, body.to_string().into()).await;
                assert!(stream.next().await.is_some());
                stream
            }
        };
        let cut = json!({"enabled": false, "running": "cut", "reason": "r"});
        app.admin(Method::PATCH, path, &cut).await;
        let rest = stream.whole().await;
        let last = rest.last_event();
        assert_eq!(last["anima"]["reason"], "cut_by_switch", "{path}: {rest:?}");
        assert!(rest.complete && !rest.text().contains("[DONE]"), "{path}");
        app.switch(path, true).await;
    }
    app.fault("");
    assert_eq!(app.ask("chat").await.status, 200);
}

/// A client that stops reading leaves the body unpolled, where its bounds would be seen.
async fn a_switch_that_cuts_ends_a_stream_that_nobody_reads(app: &TestApp) {
    app.fault("pace:50+answer-tokens:1200+chunks:1200");
    let mut body = prompt("chat");
    body["stream"] = json!(true);
    let bearer = format!("Bearer {}", app.key);
    let headers = [("authorization", bearer.as_str())];
    let path = "/v1/chat/completions";
    let client = app.client.narrow(16);
    let unread = client.open(Method::POST, path, &headers, body.to_string().into()).await;
    assert_eq!(unread.status, 200);
    assert!(app.wallet("acme").await.1 > 0, "it is held for");
    app.admin(Method::PATCH, "/channels/main", &json!({"enabled": false, "running": "cut"})).await;
    app.settled().await;
    let legs = app.postings(unread.header("x-request-id")).await;
    assert!(legs.iter().any(|leg| leg.amount > 0), "what was made is booked: {legs:?}");
    drop(unread);
    app.verify().await;
}

async fn a_switch_that_does_not_cut_lets_the_stream_finish(app: &TestApp) {
    app.fault("pace:20+answer-tokens:40+chunks:40");
    let mut stream = app.stream(prompt("chat")).await;
    assert!(stream.next().await.is_some());
    app.admin(Method::PATCH, "/channels/main", &json!({"enabled": false, "running": "finish"}))
        .await;
    let rest = stream.whole().await;
    assert!(rest.text().ends_with("data: [DONE]\n\n"), "{rest:?}");
    assert_eq!(app.ask("chat").await.status, 503, "what is new is refused");
}

async fn a_forgotten_key_is_read_again(app: &TestApp) {
    assert_eq!(app.ask("chat").await.status, 200);
    for scope in ["all", "keys", "apps", "config", "app:acme"] {
        pull(app, "/cache/invalidate", json!({"scope": scope})).await;
        assert_eq!(app.ask("chat").await.status, 200, "{scope}");
    }
}

async fn of_parallel_administrators_one_saves_and_the_others_see_what_is(app: &TestApp) {
    let (key_path, _) = app.mint("acme", json!({})).await;
    let places = [
        ("/channels/main", "max_concurrency"),
        ("/aliases/chat", ""),
        ("/apps/acme", "name"),
        (&*key_path, "name"),
    ];
    for (path, member) in places {
        let version_no = app.admin(Method::GET, path, &Value::Null).await["version_no"].clone();
        let writes = (0..6).map(|n| {
            let value =
                if member == "max_concurrency" { json!(10 + n) } else { json!(format!("n{n}")) };
            let mut body = json!({"version_no": version_no});
            match member {
                "" => body["retry"] = json!({"max_attempts": 2 + n}),
                _ => body[member] = value,
            }
            async move { app.admin_try(Method::PATCH, path, &body).await }
        });
        let replies = futures_util::future::join_all(writes).await;
        let saved: Vec<_> = replies.iter().filter(|r| r.status == 200).collect();
        assert_eq!(saved.len(), 1, "{path}: {replies:?}");
        let now = app.admin(Method::GET, path, &Value::Null).await;
        for refused in replies.iter().filter(|r| r.status != 200) {
            let problem = refused.json();
            assert_eq!((refused.status, &problem["code"]), (409, &json!("version_conflict")));
            assert_eq!(problem["current"], now, "{path}");
        }
    }
}
