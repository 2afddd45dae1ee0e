//! The endpoints as clients see them: answers, streams, keys in every form, headers, paths.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{COST, Reply, SALE, TestApp, on_both, owed, prompt};

mod own_words; // betas, and fees for tools of the provider's own
mod pass_through; // what the provider gets

on_both! {
    a_chat_is_answered_and_both_sides_are_booked;
    a_stream_ends_with_done_and_hides_the_usage_that_nobody_asked_for;
    a_stream_shows_the_usage_that_was_asked_for;
    completions_are_served_whole_and_streamed;
    embeddings_are_served;
    models_are_listed_and_read;
    the_key_is_taken_in_every_form;
    every_reply_says_how_it_came_about;
    unknown_paths_and_methods_are_refused_in_the_callers_format;
    paths_without_v1_are_served_too;
    an_alias_of_another_kind_is_refused;
}

async fn a_chat_is_answered_and_both_sides_are_booked(app: &TestApp) {
    let before = app.balance().await;
    let reply = app.ask("chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert!(!body["choices"][0]["message"]["content"].as_str().unwrap().is_empty());
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call") };
    assert_eq!(body["usage"]["prompt_tokens"], json!(call.billed.prompt_tokens));
    let (sale, cost) = (owed(&SALE, &call.billed, 1_000), owed(&COST, &call.billed, 1_000));
    let legs = app.legs(&reply).await;
    let lines: Vec<_> = legs.iter().map(crate::testapp::Leg::line).collect();
    let expected =
        [("wallet:acme", "revenue", sale, false), ("cost_of_sales", "payable:main", cost, false)];
    assert_eq!(lines, expected);
    assert_eq!(app.balance().await, before - sale);
    assert_eq!(reply.header("x-anima-served-model"), "sim-chat");
}

async fn a_stream_ends_with_done_and_hides_the_usage_that_nobody_asked_for(app: &TestApp) {
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.header("content-type").starts_with("text/event-stream"));
    let mut events = reply.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> = events.iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert!(events.iter().all(|e| e["object"] == "chat.completion.chunk"));
    assert!(events.iter().all(|e| e.get("usage").is_none()), "{events:?}");
    let text: String =
        events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text.split_whitespace().count(), 16, "{text}");
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call") };
    assert!(call.reported.is_some(), "usage is always asked for upstream");
    assert_eq!(app.legs(&reply).await[0].amount, owed(&SALE, &call.billed, 1_000));
}

async fn a_stream_shows_the_usage_that_was_asked_for(app: &TestApp) {
    let mut body = prompt("chat");
    body["stream_options"] = json!({"include_usage": true});
    let reply = app.stream(body).await.whole().await;
    let mut events = reply.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let last: Value = serde_json::from_str(&events.pop().unwrap()).unwrap();
    assert_eq!(last["choices"], json!([]));
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call") };
    assert_eq!(last["usage"]["completion_tokens"], json!(call.billed.completion_tokens));
    // Asking for no usage in so many words is not asking for it.
    let mut body = prompt("chat");
    body["stream_options"] = json!({"include_usage": false});
    let reply = app.stream(body).await.whole().await;
    assert!(!reply.text().contains("prompt_tokens"), "{}", reply.text());
    assert!(!app.legs(&reply).await[0].estimate);
}

async fn completions_are_served_whole_and_streamed(app: &TestApp) {
    let body = json!({"model": "chat", "prompt": ["one two", "three"], "max_tokens": 5});
    let reply = app.post("/v1/completions", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["object"], "text_completion");
    assert_exact(app, &reply).await;
    let mut body = body;
    body["stream"] = json!(true);
    let reply = app.post("/v1/completions", &body).await;
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    assert_exact(app, &reply).await;
}

async fn embeddings_are_served(app: &TestApp) {
    app.embedding().await;
    for format in ["float", "base64"] {
        let body =
            json!({"model": "embed", "input": ["a text", "another"], "encoding_format": format});
        let reply = app.post("/v1/embeddings", &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let body = reply.json();
        assert_eq!(body["data"].as_array().unwrap().len(), 2);
        assert_eq!(body["data"][0]["embedding"].is_string(), format == "base64");
        assert_exact(app, &reply).await;
    }
}

/// Both sides of a call that one attempt served are what the truth log says.
async fn assert_exact(app: &TestApp, reply: &Reply) {
    let [call] = &app.calls_of(reply).await[..] else { panic!("one call") };
    let legs = app.legs(reply).await;
    let amounts: Vec<_> = legs.iter().map(|leg| (leg.amount, leg.estimate)).collect();
    let (sale, cost) = (owed(&SALE, &call.billed, 1_000), owed(&COST, &call.billed, 1_000));
    assert_eq!(amounts, [(sale, false), (cost, false)], "{call:?}");
}

async fn models_are_listed_and_read(app: &TestApp) {
    app.embedding().await;
    app.alias("vendor/Model-1.5", "chat", &[("main", "sim-chat")]).await;
    let list = app.get("/v1/models").await.json();
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(names, ["chat", "embed", "vendor/Model-1.5"]);
    // The official SDKs write the slash as %2F.
    let encoded = app.get("/v1/models/vendor%2FModel-1.5").await;
    assert_eq!((encoded.status, &encoded.json()["id"]), (200, &json!("vendor/Model-1.5")));
    let one = app.get("/v1/models/vendor/Model-1.5").await.json();
    assert_eq!((&one["id"], &one["object"]), (&json!("vendor/Model-1.5"), &json!("model")));
    for unknown in ["/v1/models/none", "/v1/models/%ff"] {
        let refusal = app.get(unknown).await.refusal();
        assert_eq!(refusal, (404, "model_not_found".into()), "{unknown}");
    }
    let reply = app.raw(Method::GET, "/v1/models", &[], "").await;
    assert_eq!(reply.refusal(), (401, "invalid_api_key".into()));
    app.switch("/aliases/embed", false).await;
    let list = app.get("/v1/models").await.text();
    assert!(!list.contains("embed"), "{list}");
}

async fn the_key_is_taken_in_every_form(app: &TestApp) {
    let key = app.key.as_str();
    let bearer = format!("Bearer {key}");
    let path = "/v1/chat/completions";
    for (name, value) in [
        ("authorization", bearer.as_str()),
        ("x-api-key", key),
        ("x-goog-api-key", key),
        ("api-key", key),
    ] {
        let reply = app.raw(Method::POST, path, &[(name, value)], prompt("chat").to_string()).await;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
    }
    let query = format!("{path}?alt=sse&key={key}");
    let reply = app.raw(Method::POST, &query, &[], prompt("chat").to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(app.calls().await.iter().all(|call| call.key_tail.as_deref() == Some("main")));
}

async fn every_reply_says_how_it_came_about(app: &TestApp) {
    app.alias("broken", "chat", &[("main", "fault:status:500")]).await;
    let path = "/v1/chat/completions";
    let key = [("x-api-key", app.key.as_str())];
    let chat = prompt("chat").to_string();
    let mut seen = std::collections::BTreeSet::new();
    for (method, path, headers, body, status) in [
        (Method::POST, path, &key[..], chat.clone(), 200),
        (Method::GET, "/v1/models", &key[..], String::new(), 200),
        (Method::POST, path, &[], chat.clone(), 401),
        (Method::POST, path, &key[..], "{".into(), 400),
        (Method::POST, path, &key[..], prompt("none").to_string(), 404),
        (Method::POST, path, &key[..], prompt("broken").to_string(), 502),
        (Method::POST, "/v1/nothing", &key[..], chat, 404),
        (Method::GET, path, &key[..], String::new(), 405),
        (Method::GET, "/v1/models/none", &key[..], String::new(), 404),
        (Method::GET, "/v1/models/%ff", &key[..], String::new(), 404),
        (Method::GET, "/v1/models/%ff", &[], String::new(), 401),
    ] {
        let reply = app.raw(method, path, headers, body).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert!(reply.request_id().starts_with("req_"), "{reply:?}");
        assert_eq!(reply.header("x-request-id"), reply.request_id());
        assert!(seen.insert(reply.request_id().to_owned()), "ids are unique");
        assert!(reply.headers.contains_key("x-anima-served-model"), "{reply:?}");
        for number in ["x-anima-attempts", "x-anima-queue-wait-ms", "x-anima-config-version"] {
            assert!(reply.header(number).parse::<u64>().is_ok(), "{number}: {reply:?}");
        }
        let retry = reply.header("x-should-retry");
        assert_eq!(retry.is_empty(), status < 400, "{reply:?}");
    }
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.header("x-anima-attempts"), "1");
    assert_eq!(reply.header("x-anima-served-model"), "sim-chat");
}

async fn unknown_paths_and_methods_are_refused_in_the_callers_format(app: &TestApp) {
    for path in ["/v1/nothing", "/nothing", "/v1", "/v1/chat", "/v1/chat/completions/more"] {
        let reply = app.post(path, &json!({})).await;
        assert_eq!(reply.refusal(), (404, "unknown_url".into()), "{path}");
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    for (method, path) in [
        (Method::GET, "/v1/chat/completions"),
        (Method::DELETE, "/v1/embeddings"),
        (Method::POST, "/v1/models"),
    ] {
        let reply = app.raw(method, path, &[("x-api-key", &app.key)], "").await;
        assert_eq!(reply.refusal(), (405, "method_not_allowed".into()), "{path}");
        let allowed = if path == "/v1/models" { "GET,HEAD" } else { "POST" };
        assert_eq!(reply.header("allow"), allowed, "{path}");
    }
    let head = app.raw(Method::HEAD, "/", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(app.raw(Method::GET, "/", &[], "").await.json()["name"], "anima");
}

async fn paths_without_v1_are_served_too(app: &TestApp) {
    app.embedding().await;
    assert_eq!(app.post("/chat/completions", &prompt("chat")).await.status, 200);
    assert_eq!(
        app.post("/completions", &json!({"model": "chat", "prompt": "x"})).await.status,
        200
    );
    assert_eq!(app.post("/embeddings", &json!({"model": "embed", "input": "x"})).await.status, 200);
    assert_eq!(app.get("/models").await.status, 200);
    assert_eq!(app.get("/models/chat").await.status, 200);
}

async fn an_alias_of_another_kind_is_refused(app: &TestApp) {
    app.embedding().await;
    let reply = app.ask("embed").await;
    assert_eq!(reply.refusal(), (400, "model_kind_mismatch".into()));
    assert_eq!(reply.json()["error"]["param"], "model");
    let reply = app.post("/v1/embeddings", &json!({"model": "chat", "input": "x"})).await;
    assert_eq!(reply.refusal(), (400, "model_kind_mismatch".into()));
    assert!(app.calls().await.is_empty());
}
