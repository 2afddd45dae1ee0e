//! Changes of the configuration: switches and new versions count from the next request on this
//! node, a scheduled version from its instant, and no restart is needed for any of it.

use anima::clock::SystemClock;
use anima_core::clock::Clock as _;
use http::Method;
use serde_json::{Value, json};

use crate::testapp::{
    BACKUP_SECRET, COST, MAIN_SECRET, Rates, TestApp, eventually, on_both, owed, price, prompt,
};

on_both! {
    a_disabled_channel_gets_no_more_calls;
    a_disabled_alias_is_suspended;
    a_disabled_switch_is_not_undone_by_a_new_version;
    a_scheduled_price_takes_effect_at_its_instant;
    a_price_with_an_end_ends;
    a_restored_version_is_in_force_again;
    a_changed_secret_is_used_at_once;
    a_changed_route_is_taken_at_once;
    a_stale_change_changes_nothing;
    each_reply_names_the_configuration_it_used;
    a_deleted_alias_is_unknown;
}

async fn a_disabled_channel_gets_no_more_calls(app: &TestApp) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("twice", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
    assert_eq!(app.ask("twice").await.header("x-anima-served-model"), "sim-chat");
    app.switch("/channels/main", false).await;
    let reply = app.ask("twice").await;
    assert_eq!(reply.header("x-anima-served-model"), "sim-other");
    assert_eq!(reply.header("x-anima-attempts"), "1", "it is not even tried");
    let reply = app.ask("chat").await;
    assert_eq!(reply.refusal(), (503, "no_healthy_channel".into()));
    assert_eq!(reply.header("x-should-retry"), "true");
    assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
    app.switch("/channels/main", true).await;
    assert_eq!(app.ask("chat").await.status, 200);
}

async fn a_disabled_alias_is_suspended(app: &TestApp) {
    app.switch("/aliases/chat", false).await;
    let reply = app.ask("chat").await;
    assert_eq!(reply.refusal(), (503, "service_suspended".into()));
    assert_eq!(reply.header("x-should-retry"), "false");
    app.switch("/aliases/chat", true).await;
    assert_eq!(app.ask("chat").await.status, 200);
}

async fn a_disabled_switch_is_not_undone_by_a_new_version(app: &TestApp) {
    app.switch("/aliases/chat", false).await;
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 2}})).await;
    assert_eq!(app.ask("chat").await.refusal(), (503, "service_suspended".into()));
}

/// The price version that a call is sold at now.
async fn sold_at(app: &TestApp) -> i64 {
    let reply = app.ask("chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    app.legs(&reply).await[0].price.as_ref().unwrap().1
}

const OTHER: Rates = Rates { input: "3.3", cached: "3.3", output: "3.3" };

async fn a_scheduled_price_takes_effect_at_its_instant(app: &TestApp) {
    let start = SystemClock.now().plus_millis(800);
    let meters = price(&OTHER, json!({}))["meters"].clone();
    let change = json!({"meters": meters, "effective_from": start.to_string()});
    app.patch("/prices/chat-sale", change).await;
    assert_eq!(sold_at(app).await, 1, "not before its time");
    let first = eventually("the price changes", async || {
        let asked_at = SystemClock.now();
        let reply = app.ask("chat").await;
        let legs = app.legs(&reply).await;
        let version = legs[0].price.as_ref().unwrap().1;
        assert_eq!(version == 2, legs[0].amount == owed_at_other(app, &reply).await);
        assert!(version == 2 || asked_at < start, "late: {asked_at} is after {start}");
        (version == 2).then(|| SystemClock.now())
    });
    assert!(first.await >= start, "early");
}

async fn owed_at_other(app: &TestApp, reply: &crate::testapp::Reply) -> i64 {
    owed(&OTHER, &app.calls_of(reply).await[0].billed, 1_000)
}

async fn a_price_with_an_end_ends(app: &TestApp) {
    let end = SystemClock.now().plus_millis(800);
    app.patch("/prices/chat-sale", json!({"effective_to": end.to_string()})).await;
    let refused = eventually("the price ends", async || {
        let reply = app.ask("chat").await;
        (reply.status != 200).then_some(reply)
    });
    assert_eq!(refused.await.refusal(), (402, "model_not_priced".into()));
    assert!(SystemClock.now() >= end);
}

async fn a_restored_version_is_in_force_again(app: &TestApp) {
    let meters = price(&OTHER, json!({}))["meters"].clone();
    app.patch("/prices/chat-sale", json!({ "meters": meters })).await;
    assert_eq!(sold_at(app).await, 2);
    let path = "/prices/chat-sale/versions/1/restore";
    app.admin(Method::POST, path, &json!({"version_no": 2})).await;
    let reply = app.ask("chat").await;
    let call = &app.calls_of(&reply).await[0];
    let legs = app.legs(&reply).await;
    assert_eq!(legs[0].amount, owed(&crate::testapp::SALE, &call.billed, 1_000));
    assert_eq!(legs[0].price, Some(("chat-sale".into(), 3)));
    assert_eq!(legs[1].amount, owed(&COST, &call.billed, 1_000));
}

async fn a_changed_secret_is_used_at_once(app: &TestApp) {
    let credentials = json!([{"code": "first", "secret": "sk-changed-0815"}]);
    app.ask("chat").await;
    app.patch("/channels/main", json!({ "credentials": credentials })).await;
    app.ask("chat").await;
    let tails: Vec<_> = app.calls().await.into_iter().map(|c| c.key_tail.unwrap()).collect();
    assert!(MAIN_SECRET.ends_with(&tails[0]) && tails[1] == "0815", "{tails:?}");
    let shown = app.admin(Method::GET, "/channels/main/versions", &Value::Null).await.to_string();
    assert!(!shown.contains("0815") && !shown.contains(MAIN_SECRET), "{shown}");
}

async fn a_changed_route_is_taken_at_once(app: &TestApp) {
    app.alias("elsewhere", "chat", &[("main", "sim-other")]).await;
    let routes = json!([{"channel": "main", "model": "sim-other"}]);
    app.patch("/aliases/chat", json!({ "routes": routes })).await;
    assert_eq!(app.ask("chat").await.header("x-anima-served-model"), "sim-other");
}

async fn a_stale_change_changes_nothing(app: &TestApp) {
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 2}})).await;
    let stale = json!({"version_no": 1, "routes": [{"channel": "main", "model": "sim-other"}]});
    let reply = app.admin_try(Method::PATCH, "/aliases/chat", &stale).await;
    assert_eq!((reply.status, reply.json()["code"].clone()), (409, json!("version_conflict")));
    assert_eq!(app.ask("chat").await.header("x-anima-served-model"), "sim-chat");
}

async fn each_reply_names_the_configuration_it_used(app: &TestApp) {
    let version = async || {
        let reply = app.chat(prompt("chat")).await;
        reply.header("x-anima-config-version").parse::<i64>().unwrap()
    };
    let before = version().await;
    assert_eq!(version().await, before);
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 2}})).await;
    assert!(version().await > before);
}

async fn a_deleted_alias_is_unknown(app: &TestApp) {
    app.admin(Method::DELETE, "/aliases/chat", &json!({"version_no": 1})).await;
    assert_eq!(app.ask("chat").await.refusal(), (404, "model_not_found".into()));
    assert!(!app.get("/v1/models").await.text().contains("\"chat\""));
}
