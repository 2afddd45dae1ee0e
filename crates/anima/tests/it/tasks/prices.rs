//! Prices that change between the 202 of a task and its run.
//!
//! A circuit that is open by hand keeps tasks from running until the test has changed what it
//! wants. Invariant: the customer pays what was in force at the 202, and the provider is owed what
//! is in force when it works.

use http::Method;
use serde_json::{Value, json};

use super::{as_key, key, sent, task, until};
use crate::testapp::{COST, Rates, SALE, TestApp, nano, on_both, owed, price, prompt};

const DEARER: Rates = Rates { input: "99", cached: "99", output: "99" };

on_both! {
    a_task_is_sold_at_the_price_of_its_202;
    a_price_that_was_withdrawn_still_counts_and_an_alias_does_not;
    the_rate_of_a_202_counts_too;
    a_task_that_is_asked_for_again_after_a_price_change_is_the_same;
}

/// Nothing is sent until [`let_run`].
async fn keep_back(app: &TestApp) {
    let reason = json!({"reason": "tasks wait"});
    app.admin(Method::POST, "/circuits/main/open", &reason).await;
}

async fn let_run(app: &TestApp) {
    let reason = json!({"reason": "tasks run"});
    app.admin(Method::POST, "/circuits/main/reset", &reason).await;
}

async fn make_dearer(app: &TestApp, code: &str) {
    let meters = price(&DEARER, json!({}))["meters"].clone();
    app.patch(&format!("/prices/{code}"), json!({ "meters": meters })).await;
}

async fn delete(app: &TestApp, path: &str) {
    let gone = app.admin_try(Method::DELETE, path, &Value::Null).await;
    assert!(gone.status < 300, "{gone:?}");
}

async fn a_task_is_sold_at_the_price_of_its_202(app: &TestApp) {
    let group = json!({"code": "half", "aliases": ["*"], "multiplier": "1.5"});
    app.create("/token-groups", &group).await;
    let (_, key) = key(app, json!({"token_group": "half"})).await;
    keep_back(app).await;
    let before = app.balance().await;
    let early = sent(app, &key).await;
    make_dearer(app, "chat-sale").await;
    make_dearer(app, "main-sim-chat-cost").await;
    app.patch("/token-groups/half", json!({"multiplier": "3"})).await;
    let_run(app).await;
    let done = until(app, &key, &early, "succeeded").await;
    let legs = app.postings(done["request_id"].as_str().unwrap()).await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    let paid = owed(&SALE, &call.billed, 1_500);
    assert_eq!((legs[0].price.clone(), legs[0].amount), (Some(("chat-sale".into(), 1)), paid));
    assert_eq!(before - app.balance().await, paid);
    // The provider is owed what it charges now.
    let cost = (Some(("main-sim-chat-cost".into(), 2)), owed(&DEARER, &call.billed, 1_000));
    assert_eq!((legs[1].price.clone(), legs[1].amount), cost);
    assert_ne!(cost.1, owed(&COST, &call.billed, 1_000));
    let late = sent(app, &key).await;
    let done = until(app, &key, &late, "succeeded").await;
    let legs = app.postings(done["request_id"].as_str().unwrap()).await;
    let paid = owed(&DEARER, &app.calls().await[1].billed, 3_000);
    assert_eq!((legs[0].price.clone(), legs[0].amount), (Some(("chat-sale".into(), 2)), paid));
}

async fn a_price_that_was_withdrawn_still_counts_and_an_alias_does_not(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    app.alias("gone", "chat", &[("main", "sim-chat")]).await;
    keep_back(app).await;
    let priced = sent(app, &key).await;
    let reply = app.ask_as(&key, "gone").await;
    let gone = reply.json()["task_id"].as_str().unwrap().to_owned();
    delete(app, "/prices/chat-sale").await;
    delete(app, "/aliases/gone").await;
    assert_ne!(app.ask_as(&key, "chat").await.status, 202, "nothing is sold without a price");
    let before = app.balance().await;
    let failed = until(app, &key, &gone, "failed").await;
    assert_eq!(failed["error"]["code"], "model_not_found", "{failed:#}");
    assert_eq!(app.balance().await, before);
    let_run(app).await;
    let done = until(app, &key, &priced, "succeeded").await;
    let legs = app.postings(done["request_id"].as_str().unwrap()).await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert_eq!(legs[0].amount, owed(&SALE, &call.billed, 1_000));
    assert_eq!(task(app, &key, &priced).await["status"], "succeeded");
}

async fn the_rate_of_a_202_counts_too(app: &TestApp) {
    app.app("europe", "10", json!({"currency": "EUR"})).await;
    let rate = json!({"code": "usd-eur", "from": "USD", "to": "EUR", "rate": "0.5"});
    app.create("/fx-rates", &rate).await;
    let (_, key) = app.mint("europe", json!({"queue_mode": "ASYNC"})).await;
    keep_back(app).await;
    let id = sent(app, &key).await;
    app.patch("/fx-rates/usd-eur", json!({"rate": "0.9"})).await;
    let_run(app).await;
    until(app, &key, &id, "succeeded").await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    let sale = owed(&SALE, &call.billed, 1_000);
    let half = sale / 2 + (sale % 4) / 3;
    assert_eq!(nano("10") - app.wallet("europe").await.0, half, "half of {sale}, half to even");
}

async fn a_task_that_is_asked_for_again_after_a_price_change_is_the_same(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    keep_back(app).await;
    let headers = [("x-api-key", key.as_str()), ("idempotency-key", "once")];
    let ask = async || {
        let body = prompt("chat").to_string();
        app.raw(Method::POST, "/v1/chat/completions", &headers, body).await
    };
    let first = ask().await;
    assert_eq!(first.status, 202, "{first:?}");
    make_dearer(app, "chat-sale").await;
    let again = ask().await;
    assert_eq!((again.status, &again.json()["task_id"]), (202, &first.json()["task_id"]));
    let listed = as_key(app, &key, Method::GET, "/v1/tasks").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
}
