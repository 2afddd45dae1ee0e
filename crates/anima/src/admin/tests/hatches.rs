//! The escape hatches, call by call: what they take, what they answer, what stays.

use anima_store::config::publish::Forced;

use super::*;

async fn with_channel() -> Desk {
    let desk = Desk::open().await;
    assert_eq!(desk.post("/channels", channel("main")).await.status, 201);
    desk
}

fn forced(desk: &Desk, model: &str) -> Option<Forced> {
    let now = desk.clock.now();
    desk.admin.live.pin(now)?.forced("main", model, now)
}

#[tokio::test]
async fn a_circuit_is_opened_closed_and_reset_by_hand() {
    let desk = with_channel().await;
    assert_eq!(forced(&desk, "m"), None);
    let opened = desk.post("/circuits/main/open", json!({"reason": "it melts"})).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    assert_eq!(opened.body["manual"]["state"], "open");
    assert_eq!(opened.body["propagation"]["complete"], true);
    assert_eq!(opened.body["propagation"]["nodes"][0]["node"], "desk");
    let id = opened.header("x-anima-propagation").to_owned();
    assert_eq!(opened.body["propagation"]["id"].to_string(), id);
    let propagation = desk.get(&format!("/propagation/{id}")).await;
    assert_eq!(propagation.body["nodes"], opened.body["propagation"]["nodes"]);
    assert_eq!(forced(&desk, "m"), Some(Forced::Open));
    let one = json!({"reason": "this one is well", "model": "m"});
    assert_eq!(desk.post("/circuits/main/close", one).await.status, 200);
    assert_eq!(
        (forced(&desk, "m"), forced(&desk, "n")),
        (Some(Forced::Closed), Some(Forced::Open))
    );
    let reset = desk.post("/circuits/main/reset", json!({"reason": "over"})).await;
    assert_eq!((reset.status.as_u16(), &reset.body["manual"]), (200, &Value::Null));
    assert_eq!(forced(&desk, "m"), None);
    let audit = desk.get("/audit?limit=1").await.body["items"][0].clone();
    assert_eq!((&audit["action"], &audit["resource"]), (&json!("reset"), &json!("circuit")));
    assert_eq!((&audit["actor"], &audit["reason"]), (&json!("admin"), &json!("over")));
}

#[tokio::test]
async fn a_manual_state_ends_at_its_expiry() {
    let desk = with_channel().await;
    let open = json!({"reason": "r", "expires_in_ms": 60_000});
    assert_eq!(desk.post("/circuits/main/open", open).await.status, 200);
    assert_eq!(forced(&desk, "m"), Some(Forced::Open));
    desk.clock.advance_millis(60_001);
    assert_eq!(forced(&desk, "m"), None);
}

#[tokio::test]
async fn a_hatch_is_still_pulled_after_a_restart() {
    let desk = with_channel().await;
    desk.post("/circuits/main/open", json!({"reason": "r"})).await;
    let off = desk.patch("/switch", json!({"enabled": false, "reason": "r"})).await;
    assert_eq!((off.status.as_u16(), &off.body["enabled"]), (200, &json!(false)));
    let stores = desk.admin.stores.clone();
    let from = Sources {
        config: stores.config,
        keys: stores.keys,
        publish: stores.publish,
        pubsub: Arc::new(MemoryPubSub::default()),
        second: None,
        node: "again".to_owned(),
    };
    let again = Live::load(from, Arc::clone(&desk.admin.secrets), desk.clock.clone()).await;
    let (again, now) = (again.unwrap(), desk.clock.now());
    assert!(!again.is_open());
    assert_eq!(again.pin(now).unwrap().forced("main", "m", now), Some(Forced::Open));
    assert_eq!(desk.get("/switch").await.body["reason"], "r");
}

#[tokio::test]
async fn what_a_hatch_cannot_take_is_named() {
    let desk = with_channel().await;
    let in_past = desk.in_millis(-1_000);
    for (path, body, refusal) in [
        ("/circuits/main/open", json!({}), (400, "invalid_member", "reason")),
        ("/circuits/main/open", json!({"reason": " "}), (400, "invalid_member", "reason")),
        ("/circuits/main/open", json!({"reason": 1}), (400, "invalid_member", "reason")),
        ("/circuits/main/open", json!({"reason": "r", "why": 1}), (400, "unknown_member", "why")),
        (
            "/circuits/main/open",
            json!({"reason": "r", "expires_at": in_past}),
            (400, "invalid_member", "expires_at"),
        ),
        (
            "/circuits/main/open",
            json!({"reason": "r", "expires_at": in_past, "expires_in_ms": 5}),
            (400, "invalid_member", "expires_in_ms"),
        ),
        (
            "/circuits/main/open",
            json!({"reason": "r", "model": ""}),
            (400, "invalid_member", "model"),
        ),
        (
            "/circuits/main/reset",
            json!({"reason": "r", "expires_in_ms": 5}),
            (400, "invalid_member", "expires_in_ms"),
        ),
        ("/circuits/none/open", json!({"reason": "r"}), (404, "not_found", "")),
        ("/circuits/main/shut", json!({"reason": "r"}), (404, "not_found", "")),
        (
            "/circuits/main/open?wait_ms=9999",
            json!({"reason": "r"}),
            (400, "invalid_member", "wait_ms"),
        ),
        ("/circuits/main/open?x=1", json!({"reason": "r"}), (400, "unknown_member", "x")),
        ("/cache/invalidate", json!({"scope": "moon"}), (400, "invalid_member", "scope")),
        ("/cache/invalidate", json!({"scope": "key:"}), (400, "invalid_member", "scope")),
        ("/cache/invalidate", json!({}), (400, "invalid_member", "scope")),
    ] {
        let refused = desk.post(path, body.clone()).await;
        assert_eq!(refused.refusal(), refusal, "{path} {body}: {}", refused.text);
    }
    for (body, refusal) in [
        (json!({"reason": "r"}), (400, "invalid_member", "enabled")),
        (json!({"enabled": false}), (400, "invalid_member", "reason")),
        (
            json!({"enabled": true, "reason": "r", "running": "cut"}),
            (400, "invalid_member", "running"),
        ),
        (
            json!({"enabled": false, "reason": "r", "running": "x"}),
            (400, "invalid_member", "running"),
        ),
    ] {
        assert_eq!(desk.patch("/switch", body.clone()).await.refusal(), refusal, "{body}");
    }
    for id in ["0", "-1", "x", "999999"] {
        assert_eq!(desk.get(&format!("/propagation/{id}")).await.status, 404, "{id}");
    }
}

#[tokio::test]
async fn a_switch_says_whether_running_streams_are_cut() {
    let desk = with_channel().await;
    let refused = desk.patch("/channels/main", json!({"enabled": true, "running": "cut"})).await;
    assert_eq!(refused.refusal(), (400, "invalid_member", "running"));
    let refused = desk.patch("/channels/main", json!({"running": "cut"})).await;
    assert_eq!(refused.refusal(), (400, "invalid_member", "running"));
    let off = json!({"enabled": false, "running": "cut", "reason": "r"});
    let answer = desk.call("at-operator", Method::PATCH, "/channels/main", Some(off)).await;
    assert_eq!((answer.status.as_u16(), &answer.body["enabled"]), (200, &json!(false)));
    assert_eq!(answer.header("x-anima-propagation-complete"), "true");
    assert!(answer.body.get("running").is_none() && answer.body.get("propagation").is_none());
}

#[tokio::test]
async fn memory_is_dropped_when_asked() {
    let desk = with_channel().await;
    for scope in ["all", "config", "keys", "key:abc", "apps", "app:acme"] {
        let body = Some(json!({"scope": scope}));
        let answer = desk.call("at-operator", Method::POST, "/cache/invalidate", body).await;
        assert_eq!((answer.status.as_u16(), &answer.body["scope"]), (200, &json!(scope)));
        assert_eq!(answer.body["propagation"]["complete"], true);
    }
}

#[tokio::test]
async fn what_is_scheduled_is_listed_and_taken_back() {
    let desk = with_channel().await;
    let change =
        json!({"version_no": 1, "max_concurrency": 7, "effective_from": desk.in_millis(60_000)});
    assert_eq!(desk.patch("/channels/main", change).await.status, 200);
    let listed = desk.get("/scheduled").await;
    assert_eq!(listed.body["items"][0]["id"], "channel:2:main");
    assert_eq!(listed.body["items"][0]["row"]["max_concurrency"], 7);
    let stale = ask(Method::DELETE, "/scheduled/channel:2:main")
        .header("authorization", "Bearer at-admin")
        .header("if-match", "\"1\"");
    let stale = desk.send(stale.body(Body::empty()).unwrap()).await;
    assert_eq!(stale.refusal(), (409, "version_conflict", ""));
    assert_eq!(stale.body["current"]["version_no"], 2);
    let rehearsed = desk.delete("/scheduled/channel:2:main?dry_run=true").await;
    assert_eq!(rehearsed.body["actions"], json!(["cancel"]), "{}", rehearsed.text);
    assert_eq!(desk.delete("/scheduled/channel:2:main").await.status, 204);
    assert_eq!(desk.get("/scheduled").await.body["items"], json!([]));
    assert_eq!(desk.row("/channels/main").await["effective_to"], Value::Null);
    for gone in ["channel:2:main", "channel:1:main", "moon:1:main", "channel", "channel:x:main"] {
        assert_eq!(desk.delete(&format!("/scheduled/{gone}")).await.status, 404, "{gone}");
    }
}
