//! Which aliases of a chain a call may come to, and after what.

use http::Method;
use serde_json::{Value, json};

use super::{circuit, fail_main};
use crate::testapp::{BACKUP_SECRET, MAIN_SECRET, TestApp, on_both};

on_both! {
    an_outage_comes_to_no_alias_of_another_class;
    an_open_alias_beside_a_chain_of_another_class_trickles;
    a_rest_is_waited_for_beside_a_chain_of_another_class;
    an_alias_that_is_open_goes_where_its_timeouts_went;
    a_second_try_follows_the_chain_of_what_it_failed_with;
    a_server_that_fails_and_asks_for_a_moment_gets_it;
}

/// The alias `chained` at `main`, with the alias `other` at `backup` for what a class says.
async fn chained(app: &TestApp, class: &str, attempts: u32) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("other", "chat", &[("backup", "sim-other")]).await;
    app.alias("chained", "chat", &[("main", "sim-chat")]).await;
    let fallbacks = Value::Object([(class.to_owned(), json!(["other"]))].into_iter().collect());
    let retry = json!({"max_attempts": attempts});
    app.patch("/aliases/chained", json!({"fallbacks": fallbacks, "retry": retry})).await;
}

async fn heal(app: &TestApp) {
    app.admin(Method::POST, "/circuits/main/reset", &json!({"reason": "it is well"})).await;
}

async fn asked_backup(app: &TestApp) -> usize {
    app.calls().await.iter().filter(|call| call.model == "sim-other").count()
}

async fn an_outage_comes_to_no_alias_of_another_class(app: &TestApp) {
    chained(app, "context_window", 3).await;
    for (fault, status) in
        [("status:500", 502), ("status:429:retry-after=60", 429), ("status:503", 503)]
    {
        fail_main(app, fault);
        let reply = app.ask("chained").await;
        assert_eq!(reply.status, status, "{fault}: {reply:?}");
        heal(app).await;
    }
    assert_eq!(asked_backup(app).await, 0, "an alias for long prompts is none for outages");
}

async fn an_open_alias_beside_a_chain_of_another_class_trickles(app: &TestApp) {
    chained(app, "context_window", 1).await;
    let breaker = json!({"consecutive_failures": 2, "open_ms": 60_000});
    app.patch("/channels/main", json!({ "breaker": breaker })).await;
    fail_main(app, "status:500");
    for _ in 0..2 {
        assert_eq!(app.ask("chained").await.status, 502);
    }
    let reply = app.ask("chained").await;
    assert_eq!((reply.status, reply.header("x-anima-last-resort")), (502, "true"), "{reply:?}");
    assert_eq!(asked_backup(app).await, 0);
    fail_main(app, "context-length");
    app.patch("/aliases/chained", json!({"retry": {"max_attempts": 2}})).await;
    let reply = app.ask("chained").await;
    let served = (reply.status, reply.header("x-anima-served-model"));
    assert_eq!(served, (200, "sim-other"), "but what it was made for goes there: {reply:?}");
}

async fn a_rest_is_waited_for_beside_a_chain_of_another_class(app: &TestApp) {
    chained(app, "content_policy", 1).await;
    app.script(&json!([{"match": {"times": 1}, "do": "status:429:retry-after=1"}]));
    assert_eq!(app.ask("chained").await.status, 429);
    let reply = app.ask("chained").await;
    let served = (reply.status, reply.header("x-anima-served-model"));
    assert_eq!(served, (200, "sim-chat"), "{reply:?}");
}

async fn an_alias_that_is_open_goes_where_its_timeouts_went(app: &TestApp) {
    chained(app, "timeout", 2).await;
    let breaker = json!({"consecutive_failures": 2, "open_ms": 60_000});
    let timeouts = json!({"first_byte_ms": 200});
    app.patch("/channels/main", json!({ "breaker": breaker, "timeouts": timeouts })).await;
    fail_main(app, "latency:5000");
    for attempts in ["2", "2", "1", "1"] {
        let reply = app.ask("chained").await;
        let served = (reply.status, reply.header("x-anima-served-model"));
        assert_eq!(served, (200, "sim-other"), "{reply:?}");
        assert_eq!(reply.header("x-anima-attempts"), attempts);
    }
    assert_eq!(circuit(app, "main").await["circuits"][1]["state"], "open");
}

async fn a_second_try_follows_the_chain_of_what_it_failed_with(app: &TestApp) {
    chained(app, "context_window", 3).await;
    app.script(&json!([
        {"match": {"key": MAIN_SECRET, "times": 1}, "do": "status:500"},
        {"match": {"key": MAIN_SECRET}, "do": "context-length"},
    ]));
    let reply = app.ask("chained").await;
    assert_eq!((reply.status, reply.header("x-anima-served-model")), (200, "sim-other"));
    assert_eq!(reply.header("x-anima-attempts"), "3", "{reply:?}");
    assert_eq!(reply.header("x-anima-fallback-index"), "1", "{reply:?}");
}

async fn a_server_that_fails_and_asks_for_a_moment_gets_it(app: &TestApp) {
    let two = json!([{"code": "one", "secret": MAIN_SECRET}, {"code": "two", "secret": "sk-two"}]);
    app.patch("/channels/main", json!({ "credentials": two })).await;
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 2}})).await;
    for fault in ["status:500:retry-after=1", "status:503:retry-after=1"] {
        app.script(&json!([{"match": {"times": 1}, "do": fault}]));
        let reply = app.ask("chat").await;
        assert_eq!((reply.status, reply.header("x-anima-attempts")), (200, "2"), "{reply:?}");
        let path = format!("/requests/{}", reply.request_id());
        let record = app.admin(Method::GET, &path, &Value::Null).await;
        let waited_ms = record["attempts"][1]["waited_ms"].as_u64().unwrap();
        assert!(waited_ms >= 900, "{fault}: as it asked, with either credential: {waited_ms}");
        heal(app).await;
    }
}
