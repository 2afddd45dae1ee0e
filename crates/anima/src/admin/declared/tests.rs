//! Files against a real SQLite file: what is planned, what is written, what is refused.

use serde_json::json;

use super::*;
use crate::admin::tests::{Desk, actor};

async fn planned(desk: &Desk, document: &Value) -> Result<Plan, Refused> {
    plan(&desk.admin, &actor(), document.clone()).await
}

/// Plans and applies; how many rows were created, changed and left.
async fn applied(desk: &Desk, document: &Value) -> (usize, usize, usize) {
    let plan = planned(desk, document).await.unwrap();
    apply(&desk.admin, &actor(), &plan, false).await.unwrap();
    desk.clock.advance_millis(1);
    let count = |action| plan.rows.iter().filter(|row| row.action == action).count();
    (count(Action::Create), count(Action::Change), count(Action::Nothing))
}

fn whole() -> Value {
    json!({
        "aliases": [{"code": "chat", "kind": "chat",
            "routes": [{"channel": "main", "model": "m", "priority": 1, "weight": 1}]}],
        "channels": [{"code": "main", "provider": "openai", "base_url": "https://a.example/v1",
            "credentials": [{"code": "a", "secret": "canary-1"}]}],
        "quotas": [{"code": "q", "limits": [{"kind": "requests", "window": "1s", "limit": 5}]}],
        "token_groups": [{"code": "gold", "aliases": ["*"], "quota": "q"}],
        "prices": [
            {"code": "sale", "side": "sale", "alias": "chat", "currency": "USD",
                "meters": [{"meter": "input_tokens", "per": 1_000_000, "amount": "2.50"}]},
            {"code": "cost", "side": "cost", "channel": "main", "model": "m", "currency": "USD",
                "meters": [{"meter": "input_tokens", "per": 1_000_000, "amount": "1"}]},
        ],
        "apps": [{"code": "acme", "name": "Acme", "token_group": "gold"}],
        "fx_rates": [{"code": "eur", "from": "USD", "to": "EUR", "rate": "0.9"}],
    })
}

#[tokio::test]
async fn a_file_is_applied_once_and_then_changes_nothing() {
    let desk = Desk::open().await;
    assert_eq!(applied(&desk, &whole()).await, (8, 0, 0));
    let rev = desk.admin.stores.config.rev().await.unwrap();
    assert_eq!(rev, 1, "all of it is one change");
    assert_eq!(applied(&desk, &whole()).await, (0, 0, 8));
    assert_eq!(desk.admin.stores.config.rev().await.unwrap(), rev);
    let mut other = whole();
    other["channels"][0]["max_concurrency"] = json!(7);
    other["apps"][0]["name"] = json!("Other");
    let plan = planned(&desk, &other).await.unwrap();
    let shown: Vec<_> = plan.rows.iter().filter(|r| r.action != Action::Nothing).collect();
    assert_eq!(shown[0].to_string(), "~ channels main\n    + max_concurrency: 7");
    assert_eq!(shown[1].to_string(), "~ apps acme\n    ~ name: \"Acme\" -> \"Other\"");
    assert_eq!(applied(&desk, &other).await, (0, 2, 6));
    // What is left out has its default again.
    assert_eq!(applied(&desk, &whole()).await, (0, 2, 6));
    assert_eq!(desk.row("/channels/main").await["max_concurrency"], Value::Null);
}

#[tokio::test]
async fn an_export_has_no_secret_and_changes_nothing() {
    let desk = Desk::open().await;
    applied(&desk, &whole()).await;
    let exported = export(&desk.admin).await.unwrap();
    let text = exported.to_string();
    assert!(!text.contains("canary") && !text.contains("sealed"), "{text}");
    assert_eq!(exported["channels"][0]["credentials"], json!([{"code": "a"}]));
    assert_eq!(applied(&desk, &exported).await, (0, 0, 8));
}

#[tokio::test]
async fn a_secret_is_changed_when_it_is_another_and_never_shown() {
    let desk = Desk::open().await;
    applied(&desk, &whole()).await;
    let mut other = whole();
    other["channels"][0]["credentials"][0]["secret"] = json!("canary-2");
    let plan = planned(&desk, &other).await.unwrap();
    let text: Vec<_> = plan.rows.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    assert!(text.contains("~ credentials[0].secret"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn a_file_with_one_fault_changes_nothing_and_every_fault_is_named() {
    let desk = Desk::open().await;
    let mut wrong = whole();
    wrong["aliases"][0]["routes"][0]["channel"] = json!("none");
    wrong["prices"][0]["meters"][0]["amount"] = json!(2.5);
    wrong["quotas"].as_array_mut().unwrap().push(json!({"code": "q", "limits": []}));
    wrong["token_groups"].as_array_mut().unwrap().push(json!({"aliases": []}));
    wrong["apps"][0]["moon"] = json!(1);
    wrong["keys"] = json!([]);
    let refused = planned(&desk, &wrong).await.unwrap_err();
    let text = refused.faults.join("\n");
    for fault in [
        "aliases[0] (chat): `routes[0].channel`",
        "prices[0] (sale): `meters[0].amount`: expected a string",
        "quotas[1] (q): is there twice",
        "token_groups[1]: `code`: is required",
        "apps[0] (acme): `moon`",
        "keys: is not a section",
    ] {
        assert!(text.contains(fault), "{fault} in\n{text}");
    }
    assert!(!refused.is_late);
    assert_eq!(desk.admin.stores.config.rev().await.unwrap(), 0);
    assert!(planned(&desk, &json!([])).await.is_err());
    assert!(planned(&desk, &json!({"channels": {"code": "a"}})).await.is_err());
}

#[tokio::test]
async fn what_the_database_refuses_takes_all_of_the_file_back() {
    let desk = Desk::open().await;
    let mut twice = whole();
    let mut rival = twice["prices"][0].clone();
    rival["code"] = json!("sale-2");
    twice["prices"].as_array_mut().unwrap().push(rival);
    let plan = planned(&desk, &twice).await.unwrap();
    for rehearsal in [true, false] {
        let refused = apply(&desk.admin, &actor(), &plan, rehearsal).await.unwrap_err();
        assert!(refused.faults[0].starts_with("prices sale-2: "), "{refused:?}");
    }
    assert_eq!(desk.admin.stores.config.rev().await.unwrap(), 0);
    assert_eq!(desk.get("/channels/main").await.status, 404);
}

#[tokio::test]
async fn a_rehearsed_file_writes_nothing() {
    let desk = Desk::open().await;
    let plan = planned(&desk, &whole()).await.unwrap();
    assert!(plan.changes_anything());
    apply(&desk.admin, &actor(), &plan, true).await.unwrap();
    assert_eq!(desk.get("/channels/main").await.status, 404);
}

#[tokio::test]
async fn a_file_that_does_not_mention_a_switch_leaves_it() {
    let desk = Desk::open().await;
    applied(&desk, &whole()).await;
    desk.patch("/channels/main", json!({"enabled": false})).await;
    assert_eq!(applied(&desk, &whole()).await, (0, 0, 8));
    assert_eq!(desk.row("/channels/main").await["enabled"], false);
    assert_eq!(export(&desk.admin).await.unwrap()["channels"][0]["enabled"], false);
    let mut on = whole();
    on["channels"][0]["enabled"] = json!(true);
    assert_eq!(applied(&desk, &on).await, (0, 1, 7));
    assert_eq!(desk.row("/channels/main").await["enabled"], true);
}

#[tokio::test]
async fn a_scheduled_row_is_applied_once() {
    let desk = Desk::open().await;
    applied(&desk, &whole()).await;
    let mut later = whole();
    later["prices"][0]["meters"][0]["amount"] = json!("3");
    later["prices"][0]["effective_from"] = json!(desk.in_millis(60_000));
    assert_eq!(applied(&desk, &later).await, (0, 1, 7));
    assert_eq!(applied(&desk, &later).await, (0, 0, 8));
    desk.clock.advance_millis(120_000);
    assert_eq!(applied(&desk, &later).await, (0, 0, 8), "its start has passed");
    assert_eq!(desk.row("/prices/sale").await["meters"][0]["amount"], "3");
}

#[tokio::test]
async fn a_file_whose_aliases_lead_back_is_refused_and_one_that_turns_a_chain_round_is_not() {
    let desk = Desk::open().await;
    applied(&desk, &whole()).await;
    let chains = |first: &[&str], second: &[&str]| {
        let alias = |code: &str, error: &[&str]| {
            json!({"code": code, "kind": "chat", "routes": [
                {"channel": "main", "model": "m"}], "fallbacks": {"error": error}})
        };
        json!({"aliases": [alias("one", first), alias("two", second)]})
    };
    let round = chains(&["two"], &["one"]);
    let refused = planned(&desk, &round).await.unwrap_err();
    assert!(refused.faults[0].contains("one -> two -> one"), "{refused:?}");
    applied(&desk, &chains(&["two"], &[])).await;
    applied(&desk, &chains(&[], &["one"])).await;
    assert!(planned(&desk, &round).await.is_err());
}
