//! Limits of keys, apps and token groups, as clients meet them.

use anima_core::money::{Currency, Money};
use anima_simulator::Outcome;
use http::Method;
use serde_json::{Value, json};

use crate::testapp::{Reply, TestApp, eventually, on_both, prompt};

mod late_holds; // that are counted once

on_both! {
    requests_over_a_limit_are_refused_in_every_format;
    a_slot_is_free_again_when_its_call_is_over;
    a_client_that_hangs_up_gives_its_slot_back;
    a_budget_is_never_overspent;
    a_budget_knows_what_was_spent_before_it_was_set;
    a_budget_lowers_the_answer_to_what_is_left;
    a_stream_ends_where_its_budget_ends ("hold_output_tokens = 64");
    no_stream_overdraws_a_budget ("hold_output_tokens = 64\nhold_exhausted = \"overdraft\"");
    a_piece_that_is_more_than_is_left_overspends_no_budget ("hold_output_tokens = 64");
    a_whole_answer_of_unknown_length_is_reserved_in_full;
    tokens_are_corrected_by_what_was_used;
    all_limits_hold_together_and_the_refused_leaves_no_trace;
    an_operator_sees_how_far_limits_are_used;
    a_limit_changes_live;
    a_shadow_limit_refuses_nothing;
    a_budget_that_is_nearly_used_up_is_said_once;
    a_stream_says_that_its_budget_is_nearly_used_up ("hold_output_tokens = 64");
    every_reply_of_a_key_with_limits_says_where_they_stand;
    a_quota_that_makes_no_sense_is_refused;
}

/// No test lasts so long.
const LATER: &str = "2099-01-01T00:00:00Z";

async fn quota(app: &TestApp, code: &str, limits: Value) {
    app.create("/quotas", &json!({"code": code, "limits": limits})).await;
}

/// A key under a quota of its own.
async fn limited(app: &TestApp, code: &str, limits: Value) -> (String, String) {
    quota(app, code, limits).await;
    app.mint("acme", json!({"quota": code})).await
}

fn reason(reply: &Reply) -> String {
    reply.json()["anima"]["reason"].as_str().unwrap_or_default().to_owned()
}

async fn requests_over_a_limit_are_refused_in_every_format(app: &TestApp) {
    let limit = json!([{"kind": "requests", "window": "1m", "limit": 2}]);
    let (path, key) = limited(app, "two", limit).await;
    let kid = path.rsplit('/').next().unwrap();
    let first = app.ask_as(&key, "chat").await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-ratelimit-limit-requests"), "2");
    assert_eq!(first.header("x-ratelimit-remaining-requests"), "1");
    assert!(first.header("x-ratelimit-reset-requests").ends_with('s'));
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    let refused = app.ask_as(&key, "chat").await;
    assert_eq!(refused.refusal(), (429, "rate_limit_exceeded".to_owned()));
    let body = refused.json();
    assert_eq!(
        (&body["error"]["type"], reason(&refused).as_str()),
        (&json!("requests"), "requests_limited")
    );
    let named =
        json!({"scope": "key", "code": kid, "kind": "requests", "window": "1m", "limit": "2"});
    assert_eq!(body["anima"]["limit"], named);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    let wait_ms: u64 = refused.header("retry-after-ms").parse().unwrap();
    assert!((1..=30).contains(&wait) && wait_ms <= wait * 1_000, "{wait} {wait_ms}");
    assert_eq!(refused.header("x-should-retry"), "true");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");

    let headers = [("x-api-key", key.as_str()), ("anthropic-version", "2023-06-01")];
    let ask =
        json!({"model": "chat", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]});
    let refused = app.raw(Method::POST, "/v1/messages", &headers, ask.to_string()).await;
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert_eq!(refused.header("anthropic-ratelimit-requests-limit"), "2");
    assert_eq!(refused.header("anthropic-ratelimit-requests-remaining"), "0");
    assert!(refused.header("anthropic-ratelimit-requests-reset").ends_with('Z'));

    let headers = [("x-goog-api-key", key.as_str())];
    let ask = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}).to_string();
    let refused = app.raw(Method::POST, "/v1beta/models/chat:generateContent", &headers, ask).await;
    let body = refused.json();
    assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
    let details = body["error"]["details"].as_array().unwrap();
    let retry = details.iter().find_map(|detail| detail["retryDelay"].as_str()).unwrap();
    assert!(retry.ends_with('s'), "{retry}");
    assert!(app.metrics().await.contains(
        "anima_quota_refusals_total{effect=\"refused\",kind=\"requests\",scope=\"key\"} 3"
    ));
}

async fn a_slot_is_free_again_when_its_call_is_over(app: &TestApp) {
    let (_, key) = limited(app, "one", json!([{"kind": "concurrency", "limit": 1}])).await;
    app.fault("latency:400");
    let (a, b) = tokio::join!(app.ask_as(&key, "chat"), async {
        eventually("the first call runs", async || {
            (!app.upstream.calls().is_empty()).then_some(())
        })
        .await;
        app.ask_as(&key, "chat").await
    });
    assert_eq!(a.status, 200);
    assert_eq!((b.status, reason(&b).as_str()), (429, "concurrency_limited"));
    assert!(!b.header("retry-after").is_empty());
    // Whole answers, streams and failures all give the slot back.
    app.fault("");
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    app.fault("status:500");
    assert_eq!(app.ask_as(&key, "chat").await.status, 502);
    app.fault("");
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
}

async fn a_client_that_hangs_up_gives_its_slot_back(app: &TestApp) {
    use tokio::io::AsyncWriteExt as _;
    let (_, key) = limited(app, "one", json!([{"kind": "concurrency", "limit": 1}])).await;
    app.patch("/channels/main", json!({"on_disconnect": "cancel"})).await;
    app.fault("latency:60000");
    let body = prompt("chat").to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    eventually("the call runs", async || (!app.upstream.calls().is_empty()).then_some(())).await;
    app.fault("");
    assert_eq!(app.ask_as(&key, "chat").await.status, 429);
    drop(socket);
    eventually("the slot is free", async || {
        (app.ask_as(&key, "chat").await.status == 200).then_some(())
    })
    .await;
}

async fn a_budget_is_never_overspent(app: &TestApp) {
    let limit = json!([{"kind": "cost", "window": "1d", "limit": "0.01"}]);
    let (_, key) = limited(app, "cent", limit).await;
    let body = json!({"model": "chat", "max_tokens": 200,
        "messages": [{"role": "user", "content": "Hello"}]});
    let ask = async || {
        let headers = [("x-api-key", key.as_str())];
        app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await
    };
    let before = app.balance().await;
    let mut served = 0;
    for _ in 0..12 {
        let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
        served += [a, b, c, d].iter().filter(|reply| reply.status == 200).count();
    }
    app.settled().await;
    assert!(served > 0);
    assert!(before - app.balance().await <= 10_000_000, "{served} calls");
}

async fn a_budget_knows_what_was_spent_before_it_was_set(app: &TestApp) {
    assert_eq!(app.ask("chat").await.status, 200);
    app.settled().await;
    for (scope, path) in [("app", "/apps/acme"), ("token_group", "/token-groups/all")] {
        if scope == "token_group" {
            app.create("/token-groups", &json!({"code": "all", "aliases": ["*"]})).await;
            app.patch("/apps/acme", json!({"token_group": "all"})).await;
        }
        let limit = json!([{"kind": "cost", "window": "total", "limit": "0.000000001"}]);
        quota(app, &format!("q-{scope}"), limit).await;
        app.patch(path, json!({"quota": format!("q-{scope}")})).await;
        let refused = app.ask("chat").await;
        assert_eq!(refused.refusal(), (429, "insufficient_quota".to_owned()), "{scope}");
        assert_eq!(reason(&refused), "budget_exceeded");
        assert_eq!(refused.json()["anima"]["limit"]["scope"], scope);
        assert_eq!(refused.header("x-should-retry"), "false");
        app.patch(path, json!({"quota": null})).await;
    }
}

async fn a_budget_lowers_the_answer_to_what_is_left(app: &TestApp) {
    let limit = json!([{"kind": "cost", "window": "1mo", "limit": "0.005"}]);
    let (_, key) = limited(app, "half", limit).await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!reply.header("x-anima-output-limit").is_empty());
}

/// Streams that would go on for much longer than their budget has money.
async fn streams_end_with_their_budget(app: &TestApp) {
    let limit = json!([{"kind": "cost", "window": "1d", "limit": "0.003"}]);
    let (_, key) = limited(app, "tight", limit).await;
    app.fault("pace:4+answer-tokens:2000+chunks:2000");
    let mut body = prompt("chat");
    body["stream"] = json!(true);
    let stream = async || {
        let headers = [("x-api-key", key.as_str())];
        app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await
    };
    let before = app.balance().await;
    for reply in <[Reply; 2]>::from(tokio::join!(stream(), stream())) {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.last_event()["error"]["code"], "insufficient_quota", "{reply:?}");
        assert!(!reply.text().contains("[DONE]"));
    }
    app.settled().await;
    let spent = before - app.balance().await;
    assert!((1_500_000..=3_000_000).contains(&spent), "most of it and no more: {spent}");
}

async fn a_stream_ends_where_its_budget_ends(app: &TestApp) {
    streams_end_with_their_budget(app).await;
}

async fn no_stream_overdraws_a_budget(app: &TestApp) {
    streams_end_with_their_budget(app).await;
}

async fn a_piece_that_is_more_than_is_left_overspends_no_budget(app: &TestApp) {
    let limit = json!([{"kind": "cost", "window": "1d", "limit": "0.003"}]);
    let (path, key) = limited(app, "tight", limit).await;
    app.fault("answer-tokens:2000+chunks:2");
    let mut body = prompt("chat");
    body["stream"] = json!(true);
    let before = app.balance().await;
    let headers = [("x-api-key", key.as_str())];
    let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(reply.last_event()["error"]["code"], "insufficient_quota", "{reply:?}");
    app.settled().await;
    let spent = before - app.balance().await;
    assert!((1_500_000..=3_000_000).contains(&spent), "most of it and no more: {spent}");
    let shown = app.admin(Method::GET, &format!("{path}/limits"), &Value::Null).await;
    app.verify().await;
    let text = |units: i64| json!(Money::new(units, Currency::USD).to_string());
    let budget = &shown["items"][0];
    assert_eq!((&budget["used"], &budget["held"]), (&text(spent), &text(0)));
}

async fn a_whole_answer_of_unknown_length_is_reserved_in_full(app: &TestApp) {
    let limit = json!([{"kind": "cost", "window": "1d", "limit": "1.00"}]);
    let (path, key) = limited(app, "one", limit).await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!((reply.status, reply.header("x-anima-output-limit")), (200, "4096"));
    app.patch(
        "/quotas/one",
        json!({"limits": [
        {"kind": "cost", "window": "1d", "limit": "1.00", "shadow": true}]}),
    )
    .await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!((reply.status, reply.header("x-anima-output-limit")), (200, ""), "{path}");
}

async fn tokens_are_corrected_by_what_was_used(app: &TestApp) {
    let limit = json!([{"kind": "tokens", "count": "total", "window": "1h", "limit": 10_000}]);
    let (_, key) = limited(app, "tokens", limit).await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!((reply.status, reply.header("x-ratelimit-limit-tokens")), (200, "10000"));
    let used = reply.json()["usage"]["total_tokens"].as_i64().unwrap();
    app.settled().await;
    let next = app.ask_as(&key, "chat").await;
    let left: i64 = next.header("x-ratelimit-remaining-tokens").parse().unwrap();
    // What this call itself is taken for is at least the floor.
    assert!(left <= 10_000 - used - 256 && left > 7_000, "{left} after {used}");
    let large = json!({"model": "chat", "max_tokens": 9_000, "n": 20,
        "messages": [{"role": "user", "content": "Hello"}]});
    let headers = [("x-api-key", key.as_str())];
    let refused = app.raw(Method::POST, "/v1/chat/completions", &headers, large.to_string()).await;
    assert_eq!((refused.status, reason(&refused).as_str()), (429, "tokens_limited"));
    assert_eq!(refused.json()["error"]["type"], "tokens");
    assert_eq!(refused.header("x-should-retry"), "false");
    assert_eq!(refused.header("retry-after"), "");
}

async fn all_limits_hold_together_and_the_refused_leaves_no_trace(app: &TestApp) {
    let (_, key) =
        limited(app, "wide", json!([{"kind": "requests", "window": "1h", "limit": 50}])).await;
    quota(app, "tight", json!([{"kind": "requests", "window": "1h", "limit": 1}])).await;
    app.patch("/apps/acme", json!({"quota": "tight"})).await;
    let first = app.ask_as(&key, "chat").await;
    assert_eq!((first.status, first.header("x-ratelimit-remaining-requests")), (200, "0"));
    for _ in 0..3 {
        let refused = app.ask_as(&key, "chat").await;
        assert_eq!(refused.json()["anima"]["limit"]["scope"], "app");
    }
    app.patch("/apps/acme", json!({"quota": null})).await;
    let next = app.ask_as(&key, "chat").await;
    assert_eq!((next.status, next.header("x-ratelimit-remaining-requests")), (200, "48"));
    assert_eq!(app.calls().await.iter().filter(|c| c.outcome == Outcome::Answered).count(), 2);
}

async fn an_operator_sees_how_far_limits_are_used(app: &TestApp) {
    let limits = json!([
        {"kind": "requests", "window": "1h", "limit": 10},
        {"kind": "cost", "window": "1d", "limit": "1.00",
            "raised": {"limit": "2.00", "until": LATER}}]);
    let (path, key) = limited(app, "seen", limits).await;
    let shown = async || app.admin(Method::GET, &format!("{path}/limits"), &Value::Null).await;
    let text = |units: i64| Money::new(units, Currency::USD).to_string();
    let before = shown().await;
    assert_eq!(before["items"][1]["used"], Value::Null, "nobody asked for it yet: {before}");
    let balance = app.balance().await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    app.settled().await;
    let spent = balance - app.balance().await;
    let after = shown().await;
    let (rate, budget) = (&after["items"][0], &after["items"][1]);
    assert_eq!(
        (&rate["kind"], &rate["used"], &rate["remaining"]),
        (&json!("requests"), &json!(1), &json!(9))
    );
    assert_eq!(
        (&budget["limit"], &budget["held"]),
        (&json!(text(2_000_000_000)), &json!(text(0))),
        "{budget}"
    );
    assert_eq!((&budget["used"], &budget["scope"]), (&json!(text(spent)), &json!("key")));
    let missing = app.admin_try(Method::GET, "/apps/acme/keys/none/limits", &Value::Null).await;
    assert_eq!(missing.status, 404);
    let elsewhere = path.replace("/acme/", "/other/") + "/limits";
    let missing = app.admin_try(Method::GET, &elsewhere, &Value::Null).await;
    assert_eq!(missing.status, 404, "the key is of another app");
    let odd = app.admin_try(Method::GET, &format!("{path}/limits?x=1"), &Value::Null).await;
    assert_eq!(odd.status, 400);
    let odd = app.admin_try(Method::GET, "/queues?x=1", &Value::Null).await;
    assert_eq!(odd.status, 400);
}

async fn a_limit_changes_live(app: &TestApp) {
    let (_, key) =
        limited(app, "live", json!([{"kind": "requests", "window": "1h", "limit": 1}])).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    assert_eq!(app.ask_as(&key, "chat").await.status, 429);
    let more = json!({"limits": [{"kind": "requests", "window": "1h", "limit": 1,
        "raised": {"limit": 40, "until": LATER}}]});
    app.patch("/quotas/live", more).await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    app.switch("/quotas/live", false).await;
    let free = app.ask_as(&key, "chat").await;
    assert_eq!((free.status, free.header("x-ratelimit-limit-requests")), (200, ""));
}

async fn a_shadow_limit_refuses_nothing(app: &TestApp) {
    let limit = json!([{"kind": "requests", "window": "1h", "limit": 1, "shadow": true}]);
    let (_, key) = limited(app, "shadow", limit).await;
    for _ in 0..3 {
        assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    }
    assert!(app.metrics().await.contains(
        "anima_quota_refusals_total{effect=\"shadow\",kind=\"requests\",scope=\"key\"} 2"
    ));
}

/// How often it was said that four fifths of a budget of a key are used up.
async fn warned(app: &TestApp) -> u64 {
    let text = app.metrics().await;
    let line = "anima_quota_warnings_total{scope=\"key\"} ";
    let count = text.lines().find_map(|one| one.strip_prefix(line));
    count.map_or(0, |count| count.parse().unwrap())
}

async fn a_budget_that_is_nearly_used_up_is_said_once(app: &TestApp) {
    let limit = json!([{"kind": "cost", "window": "1d", "limit": "0.005"}]);
    let (_, key) = limited(app, "half", limit).await;
    // What it may come to is lowered to all that is left.
    assert_eq!(app.ask_as(&key, "chat").await.status, 200);
    assert_eq!(warned(app).await, 1);
    app.settled().await;
    let ask = json!({"model": "chat", "max_tokens": 1,
        "messages": [{"role": "user", "content": "Hi"}]});
    let headers = [("x-api-key", key.as_str())];
    let small = app.raw(Method::POST, "/v1/chat/completions", &headers, ask.to_string()).await;
    assert_eq!(small.status, 200, "{small:?}");
    assert_eq!(warned(app).await, 1, "it was given back, and this one does not cross the line");
}

async fn a_stream_says_that_its_budget_is_nearly_used_up(app: &TestApp) {
    let limit = json!([{"kind": "cost", "window": "1d", "limit": "0.003"}]);
    let (_, key) = limited(app, "tight", limit).await;
    app.fault("pace:4+answer-tokens:2000+chunks:2000");
    let mut body = prompt("chat");
    body["stream"] = json!(true);
    let headers = [("x-api-key", key.as_str())];
    let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(reply.last_event()["error"]["code"], "insufficient_quota", "{reply:?}");
    assert_eq!(warned(app).await, 1, "by what it asked for on the way");
}

async fn every_reply_of_a_key_with_limits_says_where_they_stand(app: &TestApp) {
    let limit = json!([
        {"kind": "requests", "window": "1h", "limit": 7},
        {"kind": "tokens", "count": "total", "window": "1h", "limit": 1_000_000}]);
    let (_, key) = limited(app, "seven", limit).await;
    let mut ask = json!({"model": "chat", "max_tokens": 16,
        "messages": [{"role": "user", "content": "Hi"}]});
    let mut left = 7;
    for stream in [false, true] {
        ask["stream"] = json!(stream);
        for fault in ["", "status:500"] {
            app.fault(fault);
            let headers = [("x-api-key", key.as_str())];
            let path = "/v1/chat/completions";
            let reply = app.raw(Method::POST, path, &headers, ask.to_string()).await;
            left -= 1;
            let told = |name: &str| reply.header(&format!("x-ratelimit-{name}"));
            assert_eq!(told("limit-requests"), "7", "{reply:?}");
            assert_eq!(told("remaining-requests"), left.to_string());
            assert!(told("reset-requests").ends_with('s'), "{reply:?}");
            assert_eq!(told("limit-tokens"), "1000000");
            if !fault.is_empty() {
                continue;
            }
            let headers = [("x-api-key", key.as_str()), ("anthropic-version", "2023-06-01")];
            let reply = app.raw(Method::POST, "/v1/messages", &headers, ask.to_string()).await;
            left -= 1;
            let told = |name: &str| reply.header(&format!("anthropic-ratelimit-{name}"));
            assert_eq!(told("requests-limit"), "7", "{reply:?}");
            assert_eq!(told("requests-remaining"), left.to_string());
            assert!(told("requests-reset").ends_with('Z') && told("tokens-reset").ends_with('Z'));
        }
    }
}

async fn a_quota_that_makes_no_sense_is_refused(app: &TestApp) {
    let limit = |members: Value| json!({"code": "bad", "limits": [members]});
    let cases = [
        (json!({"kind": "requests", "window": "1mo", "limit": 1}), "window"),
        (json!({"kind": "cost", "window": "1m", "limit": "1"}), "window"),
        (json!({"kind": "cost", "window": "1d", "limit": "-1"}), "limit"),
        (json!({"kind": "requests", "window": "1s", "limit": 1, "burst": 0}), "burst"),
        (
            json!({"kind": "concurrency", "limit": 1, "raised": {"limit": "1", "until": LATER}}),
            "raised.limit",
        ),
    ];
    for (members, member) in cases {
        let reply = app.admin_try(Method::POST, "/quotas", &limit(members)).await;
        assert_eq!(reply.status, 400, "{member}");
        assert!(reply.text().contains(member), "{member}: {reply:?}");
    }
    let twice = json!({"kind": "concurrency", "limit": 1});
    let body = json!({"code": "bad", "limits": [twice, twice]});
    assert_eq!(app.admin_try(Method::POST, "/quotas", &body).await.status, 400);
    let zone = json!({"code": "x", "time_zone": "Mars/Olympus"});
    assert_eq!(app.admin_try(Method::POST, "/apps", &zone).await.status, 400);
}
