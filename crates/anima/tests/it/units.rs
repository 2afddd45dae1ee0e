//! Moderations, pictures and reranks: what is counted in units, by both sides, to the last unit.
//!
//! Not here: what the answers hold (the wire's `units`). Source: SPEC 4 and 15, `a-inbound` A.4.

use http::Method;
use serde_json::{Value, json};

use crate::testapp::{TestApp, nano, on_both};

on_both! {
    what_is_counted_in_units_is_booked_by_both_sides;
    units_are_held_refused_and_priced_like_everything_else;
}

/// An alias of a kind with a route to `main` and a rate of one meter on both sides.
async fn alias(app: &TestApp, kind: &str, meter: &str, (sale, cost): (&str, &str)) {
    app.unpriced_alias(kind, kind, &[("main", "sim-units")]).await;
    let rate = |amount: &str| json!([{"meter": meter, "per": 1, "amount": amount}]);
    let of =
        |side: &str| json!({"code": format!("{kind}-{side}"), "side": side, "currency": "USD"});
    let mut row = of("sale");
    row["alias"] = json!(kind);
    row["meters"] = rate(sale);
    app.create("/prices", &row).await;
    app.channel(kind, "sk-main", json!({})).await;
    let mut row = of("cost");
    row["channel"] = json!(kind);
    row["model"] = json!("sim-units");
    row["meters"] = rate(cost);
    app.create("/prices", &row).await;
    let route = json!([{"channel": kind, "model": "sim-units", "priority": 0}]);
    app.patch(&format!("/aliases/{kind}"), json!({ "routes": route })).await;
}

async fn booked(app: &TestApp, path: &str, body: &Value) -> Vec<(String, i64, bool)> {
    let reply = app.post(path, body).await;
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    let legs = app.legs(&reply).await;
    legs.into_iter().map(|leg| (leg.credit, leg.amount, leg.estimate)).collect()
}

fn sides(kind: &str, units: i64, (sale, cost): (&str, &str)) -> Vec<(String, i64, bool)> {
    vec![
        ("revenue".to_owned(), units * nano(sale), false),
        (format!("payable:{kind}"), units * nano(cost), false),
    ]
}

async fn what_is_counted_in_units_is_booked_by_both_sides(app: &TestApp) {
    let prices = ("0.04", "0.03");
    alias(app, "image", "images", prices).await;
    let body = json!({"model": "image", "prompt": "a cat", "n": 3, "size": "1024x1024"});
    assert_eq!(booked(app, "/v1/images/generations", &body).await, sides("image", 3, prices));
    alias(app, "rerank", "queries", prices).await;
    let documents: Vec<String> = (0..101).map(|n| format!("document {n}")).collect();
    let body = json!({"model": "rerank", "query": "which?", "documents": documents});
    assert_eq!(booked(app, "/v1/rerank", &body).await, sides("rerank", 2, prices));
    assert_eq!(booked(app, "/v2/rerank", &body).await, sides("rerank", 2, prices));
    alias(app, "moderation", "requests", prices).await;
    let body = json!({"model": "moderation", "input": ["is this fine?"]});
    assert_eq!(booked(app, "/v1/moderations", &body).await, sides("moderation", 1, prices));
}

async fn units_are_held_refused_and_priced_like_everything_else(app: &TestApp) {
    alias(app, "image", "images", ("0.04", "0.03")).await;
    app.app("poor", "0.10", json!({})).await;
    let poor = app.mint("poor", json!({})).await.1;
    let ask = async |n: u64, path: &str, more: Value| {
        let mut body = json!({"model": "image", "prompt": "a cat", "n": n});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let headers = [("x-api-key", poor.as_str())];
        app.raw(Method::POST, path, &headers, body.to_string()).await
    };
    let path = "/v1/images/generations";
    let refused = ask(3, path, json!({})).await;
    assert_eq!(refused.refusal(), (429, "insufficient_quota".into()), "three cost 0.12");
    assert_eq!(ask(2, path, json!({})).await.status, 200);
    let twin = ask(1, path, json!({"stream": true})).await;
    assert_eq!((twin.status, twin.json()["error"]["param"].clone()), (400, json!("stream")));
    let chat = ask(1, "/v1/chat/completions", json!({"messages": [{"role": "user"}]})).await;
    assert_eq!(chat.status, 400, "another kind of alias: {chat:?}");
    let none = app.post("/v1/rerank", &json!({"model": "image", "query": "q"})).await;
    assert_eq!((none.status, none.json()["error"]["param"].clone()), (400, json!("documents")));
    app.unpriced_alias("dear", "image", &[("main", "sim-units")]).await;
    let dear = app.post(path, &json!({"model": "dear", "prompt": "x"})).await;
    assert_eq!(dear.refusal().1, "model_not_priced");
}
