//! Who may call what: unknown, malformed, disabled and expired keys, addresses, groups.

use http::Method;
use serde_json::json;

use crate::testapp::{Reply, TestApp, eventually, on_both, prompt};

on_both! {
    a_key_that_does_not_exist_is_unknown;
    a_malformed_key_is_unknown;
    a_missing_key_is_told_how_to_be_sent;
    a_disabled_key_is_refused_at_once;
    an_expired_key_is_refused;
    the_keys_of_a_disabled_app_are_refused;
    a_key_is_used_from_allowed_addresses_only;
    a_group_limits_what_a_key_may_use;
    a_suspended_group_is_not_a_wrong_key;
    an_admin_token_is_no_key_and_a_key_is_no_admin_token;
}

/// The row of `wire-conventions` 4.6 for keys, with the reason that tells them apart.
fn assert_refused(reply: &Reply, reason: &str) {
    let body = reply.json();
    assert_eq!(reply.refusal(), (401, "invalid_api_key".to_owned()), "{reply:?}");
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert_eq!(body["anima"]["reason"], reason, "{body}");
    assert_eq!(reply.header("x-should-retry"), "false");
    assert_eq!(reply.header("retry-after"), "");
}

async fn a_key_that_does_not_exist_is_unknown(app: &TestApp) {
    let (_, other) = app.mint("acme", json!({})).await;
    let (kid, _) = other.rsplit_once('-').unwrap();
    let (_, secret) = app.key.rsplit_once('-').unwrap();
    let crossed = format!("{kid}-{secret}");
    let mut altered = app.key.clone();
    let last = altered.pop().unwrap();
    let shorter = altered.clone();
    altered.push(if last == 'a' { 'b' } else { 'a' });
    for key in ["sk-0000000000000000-nothing", &crossed, &altered, &shorter] {
        assert_refused(&app.ask_as(key, "chat").await, "invalid_api_key");
    }
    assert_eq!(app.ask_as(&other, "chat").await.status, 200);
}

async fn a_malformed_key_is_unknown(app: &TestApp) {
    let long = "x".repeat(10_000);
    for key in ["x", "sk-", "sk--", "sk-a", "Bearer", "sk-'; DROP TABLE key; --", "%00", &long] {
        assert_refused(&app.ask_as(key, "chat").await, "invalid_api_key");
    }
}

async fn a_missing_key_is_told_how_to_be_sent(app: &TestApp) {
    let path = "/v1/chat/completions";
    for headers in [&[][..], &[("authorization", "Basic abc")], &[("x-api-key", "")]] {
        let reply = app.raw(Method::POST, path, headers, prompt("chat").to_string()).await;
        assert_refused(&reply, "missing_api_key");
        assert!(reply.text().contains("Authorization"), "{reply:?}");
    }
}

async fn a_disabled_key_is_refused_at_once(app: &TestApp) {
    let (path, key) = app.mint("acme", json!({})).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    app.switch(&path, false).await;
    assert_refused(&app.ask_as(&key, "chat").await, "disabled_api_key");
    app.switch(&path, true).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    app.admin(Method::DELETE, &path, &json!({"version_no": 1})).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 401);
}

async fn an_expired_key_is_refused(app: &TestApp) {
    let soon = anima::clock::SystemClock;
    let soon = anima_core::clock::Clock::now(&soon).plus_millis(1_000);
    let (_, key) = app.mint("acme", json!({"expires_at": soon.to_string()})).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    let reply = eventually("the key expires", async || {
        let reply = app.ask_as(&key, "chat").await;
        (reply.status != 200).then_some(reply)
    });
    assert_refused(&reply.await, "expired_api_key");
}

async fn the_keys_of_a_disabled_app_are_refused(app: &TestApp) {
    assert_eq!(app.ask("chat").await.status, 200);
    app.switch("/apps/acme", false).await;
    assert_refused(&app.ask("chat").await, "disabled_api_key");
    app.switch("/apps/acme", true).await;
    assert_eq!(app.ask("chat").await.status, 200);
}

async fn a_key_is_used_from_allowed_addresses_only(app: &TestApp) {
    let (_, here) = app.mint("acme", json!({"allowed_ips": ["127.0.0.0/8", "10.0.0.1"]})).await;
    let (_, elsewhere) = app.mint("acme", json!({"allowed_ips": ["10.0.0.0/8", "::1"]})).await;
    assert_eq!(app.ask_as(&here, "chat").await.status, 200);
    let reply = app.ask_as(&elsewhere, "chat").await;
    assert_eq!(reply.refusal(), (403, "ip_not_allowed".into()));
    // What a client says of itself decides nothing.
    let headers = [("x-api-key", elsewhere.as_str()), ("x-forwarded-for", "10.0.0.7")];
    let path = "/v1/chat/completions";
    let reply = app.raw(Method::POST, path, &headers, prompt("chat").to_string()).await;
    assert_eq!(reply.refusal(), (403, "ip_not_allowed".into()));
}

async fn a_group_limits_what_a_key_may_use(app: &TestApp) {
    app.embedding().await;
    app.create("/token-groups", &json!({"code": "small", "aliases": ["embed"]})).await;
    let (_, key) = app.mint("acme", json!({"token_group": "small"})).await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.refusal(), (404, "model_not_found".into()));
    let unknown = app.ask_as(&key, "none").await;
    let shown = |reply: &Reply, model: &str| reply.json()["error"].to_string().replace(model, "M");
    assert_eq!(shown(&reply, "chat"), shown(&unknown, "none"), "nothing is given away");
    let bearer = [("x-api-key", key.as_str())];
    let list = app.raw(Method::GET, "/v1/models", &bearer, "").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(app.raw(Method::GET, "/v1/models/chat", &bearer, "").await.status, 404);
}

async fn a_suspended_group_is_not_a_wrong_key(app: &TestApp) {
    app.create("/token-groups", &json!({"code": "all", "aliases": ["*"]})).await;
    let (_, key) = app.mint("acme", json!({"token_group": "all"})).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    app.switch("/token-groups/all", false).await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.refusal(), (503, "service_suspended".into()));
    assert_eq!(reply.header("x-should-retry"), "false");
}

async fn an_admin_token_is_no_key_and_a_key_is_no_admin_token(app: &TestApp) {
    assert_eq!(app.ask_as("integration-tests-admin", "chat").await.status, 401);
    let bearer = format!("Bearer {}", app.key);
    let headers = [("authorization", bearer.as_str())];
    let reply = app.raw(Method::GET, "/api/admin/v1/apps", &headers, "").await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("content-type").starts_with("application/problem+json"));
}
