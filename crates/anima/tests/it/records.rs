//! What is known of a request afterwards: its decision record, with what the ledger says of it.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{BACKUP_SECRET, MAIN_SECRET, Reply, TestApp, on_both, prompt};

on_both! {
    a_record_tells_how_a_call_went_and_what_it_cost;
    a_call_that_changed_a_circuit_says_so;
    a_refused_call_says_why_and_which_limit;
    a_request_that_nobody_knows_is_not_found;
    a_key_that_may_sees_how_its_calls_were_routed;
    without_a_record_the_ledger_is_shown ("records_per_s = 0\nplain_records_per_s = 0");
    a_refused_call_has_a_trace_too ("caller_trace = \"on\"");
}

/// The channel `backup`, and the alias `two` with `main` before it.
async fn two(app: &TestApp, breaker: Value) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.patch("/channels/main", json!({ "breaker": breaker })).await;
    app.alias("two", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
}

fn fail_main(app: &TestApp) {
    app.script(&json!([{"match": {"key": MAIN_SECRET}, "do": "status:500"}]));
}

async fn record(app: &TestApp, reply: &Reply) -> Value {
    let path = format!("/requests/{}", reply.request_id());
    app.admin(Method::GET, &path, &Value::Null).await
}

async fn a_record_tells_how_a_call_went_and_what_it_cost(app: &TestApp) {
    two(app, json!({})).await;
    fail_main(app);
    for stream in [false, true] {
        let reply = if stream { app.ask_stream("two").await } else { app.ask("two").await };
        let shown = record(app, &reply).await;
        assert_eq!(shown["request_id"], reply.request_id());
        assert_eq!(shown["recorded"], true);
        assert_eq!((&shown["outcome"], &shown["status"]), (&json!("ok"), &json!(200)));
        assert_eq!((&shown["alias"], &shown["stream"]), (&json!("two"), &json!(stream)));
        let candidates = shown["candidates"].as_array().unwrap();
        let channels: Vec<_> = candidates.iter().map(|c| c["channel"].as_str().unwrap()).collect();
        assert_eq!(channels, ["main", "backup"]);
        let attempts = shown["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 2, "{shown:#}");
        let (first, second) = (&attempts[0], &attempts[1]);
        assert_eq!((&first["outcome"], &first["status"]), (&json!("upstream_error"), &json!(500)));
        assert_eq!((&first["circuit"], &first["served"]), (&json!("closed"), &json!(false)));
        assert_eq!((&second["channel"], &second["served"]), (&json!("backup"), &json!(true)));
        assert!(second["cost"]["price"]["version_no"].is_i64(), "{shown:#}");
        assert!(second["duration_ms"].is_u64() && second["usage"].is_object(), "{shown:#}");
        assert!(second["upstream_ref"].is_string(), "{shown:#}");
        let hold = &shown["hold"];
        assert_eq!((&hold["state"], &hold["multiplier"]), (&json!("settled"), &json!("1")));
        let postings = shown["postings"].as_array().unwrap();
        let sale = postings.iter().find(|leg| leg["component"] == "sale").unwrap();
        assert_eq!(sale["amount"], hold["charged"], "what was charged is what was posted");
        assert_eq!(sale["price"], hold["sale_price"]);
    }
    let plain = app.ask("chat").await;
    assert_eq!(record(app, &plain).await["recorded"], true, "a plain one below the rate, too");
}

async fn a_call_that_changed_a_circuit_says_so(app: &TestApp) {
    two(app, json!({"consecutive_failures": 2, "open_ms": 60_000})).await;
    fail_main(app);
    let first = record(app, &app.ask("two").await).await;
    assert_eq!(first["attempts"][0]["circuit_change"], Value::Null);
    let second = record(app, &app.ask("two").await).await;
    let change = &second["attempts"][0]["circuit_change"];
    assert_eq!((&change["to"], &change["cause"]), (&json!("open"), &json!("consecutive_failures")));
    let third = record(app, &app.ask("two").await).await;
    let skip = &third["skips"][0];
    assert_eq!((&skip["reason"], &skip["circuit"]), (&json!("circuit_open"), &json!("open")));
    assert_eq!((&skip["channel"], &skip["until"]), (&json!("main"), &change["until"]));
}

async fn a_refused_call_says_why_and_which_limit(app: &TestApp) {
    two(app, json!({})).await;
    for channel in ["main", "backup"] {
        app.switch(&format!("/channels/{channel}"), false).await;
    }
    let reply = app.ask("two").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    let shown = record(app, &reply).await;
    assert_eq!(shown["outcome"], "no_healthy_channel", "{shown:#}");
    assert_eq!(shown["skips"].as_array().unwrap().len(), 2, "{shown:#}");
    assert_eq!(shown["skips"][0]["reason"], "channel_disabled");
    assert_eq!((&shown["hold"], &shown["postings"]), (&Value::Null, &json!([])));
    assert!(shown["message"].as_str().unwrap().contains("two"), "{shown:#}");
}

async fn a_request_that_nobody_knows_is_not_found(app: &TestApp) {
    for (id, status) in [("req_0192f3c456787abc8def0123456789ab", 404), ("req_x", 400)] {
        let reply = app.admin_try(Method::GET, &format!("/requests/{id}"), &Value::Null).await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    let unknown = [("x-api-key", "sk-nobody")];
    let body = prompt("chat").to_string();
    let reply = app.raw(Method::POST, "/v1/chat/completions", &unknown, body).await;
    assert_eq!(reply.status, 401);
    let path = format!("/requests/{}", reply.request_id());
    let found = app.admin_try(Method::GET, &path, &Value::Null).await;
    assert_eq!(found.status, 404, "who has no key leaves no record: {found:?}");
}

async fn without_a_record_the_ledger_is_shown(app: &TestApp) {
    two(app, json!({})).await;
    fail_main(app);
    let shown = record(app, &app.ask("two").await).await;
    assert_eq!((&shown["recorded"], &shown["alias"]), (&json!(false), &json!("two")));
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "{shown:#}");
    assert_eq!(shown["attempts"][1]["channel"], "backup");
    assert_eq!(shown["hold"]["state"], "settled");
    assert!(app.metrics().await.contains("decision_records_total{outcome=\"above_rate\"} 1"));
}

async fn a_key_that_may_sees_how_its_calls_were_routed(app: &TestApp) {
    two(app, json!({})).await;
    let (path, key) = app.mint("acme", json!({"caller_trace": true})).await;
    for (key, status) in [(&app.key, 400), (&key, 200)] {
        let headers = [("x-api-key", key.as_str()), ("x-anima-trace", "1")];
        let body = prompt("two").to_string();
        let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(
            reply.header("x-anima-trace").contains("\"outcome\""),
            status == 200,
            "{reply:?}"
        );
    }
    let wrong = json!({"version_no": 1, "caller_trace": "yes"});
    let reply = app.admin_try(Method::PATCH, &path, &wrong).await;
    assert_eq!(
        (reply.status, reply.json()["errors"][0]["member"].as_str()),
        (400, Some("caller_trace"))
    );
}

async fn a_refused_call_has_a_trace_too(app: &TestApp) {
    two(app, json!({})).await;
    app.switch("/channels/main", false).await;
    app.switch("/channels/backup", false).await;
    let headers = [("x-api-key", app.key.as_str()), ("x-anima-trace", "1")];
    let body = prompt("two").to_string();
    let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body).await;
    assert_eq!(reply.status, 503);
    let trace: Value = serde_json::from_str(reply.header("x-anima-trace")).unwrap();
    assert_eq!(trace["skipped"], 2);
    assert!(!reply.header("x-anima-trace").contains("backup"), "no channel is named: {trace}");
}
