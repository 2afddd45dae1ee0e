//! `dry_run`: a write is judged and shown, and nothing is written.

use super::*;

#[tokio::test]
async fn a_rehearsed_write_is_shown_and_not_written() {
    let desk = Desk::open().await;
    let created = desk.post("/channels?dry_run=true", channel("main")).await;
    assert_eq!(created.status, 200, "{}", created.text);
    assert_eq!(created.body["actions"], json!(["create"]));
    assert_eq!(
        (&created.body["before"], &created.body["after"]["code"]),
        (&Value::Null, &json!("main"))
    );
    assert_eq!(desk.get("/channels/main").await.status, 404);
    desk.post("/channels", channel("main")).await;
    let change = json!({"version_no": 1, "timeouts": {"idle_ms": 5}, "enabled": false});
    let changed = desk.patch("/channels/main?dry_run=true", change.clone()).await;
    assert_eq!(changed.body["actions"], json!(["change", "switch"]), "{}", changed.text);
    let members: Vec<_> = changed.body["difference"].as_array().unwrap().iter().collect();
    let idle = json!({"member": "timeouts.idle_ms", "before": 60_000, "after": 5});
    let off = json!({"member": "enabled", "before": true, "after": false});
    assert!(members.contains(&&idle) && members.contains(&&off), "{}", changed.text);
    let row = desk.row("/channels/main").await;
    assert_eq!((&row["version_no"], &row["enabled"]), (&json!(1), &json!(true)));
    assert_eq!(desk.patch("/channels/main?dry_run=false", change).await.status, 200);
    let restored =
        desk.post("/channels/main/versions/1/restore?dry_run=true", json!({"version_no": 2}));
    assert_eq!(restored.await.body["actions"], json!(["restore"]));
    let deleted = desk.delete("/channels/main?dry_run=true").await;
    assert_eq!(
        (&deleted.body["actions"], &deleted.body["after"]),
        (&json!(["delete"]), &Value::Null)
    );
    assert_eq!(desk.row("/channels/main").await["version_no"], 2);
    assert_eq!(desk.get("/audit").await.body["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_rehearsed_write_is_refused_as_the_write_would_be() {
    let desk = Desk::open().await;
    desk.post("/channels", channel("main")).await;
    let refused = desk.post("/channels?dry_run=true", channel("main")).await;
    assert_eq!(refused.refusal(), (409, "already_exists", ""));
    let change = json!({"version_no": 9, "max_concurrency": 1});
    let refused = desk.patch("/channels/main?dry_run=true", change).await;
    assert_eq!(refused.refusal(), (409, "version_conflict", ""));
    let refused = desk.patch("/channels/main?dry_run=yes", json!({"enabled": false})).await;
    assert_eq!(refused.refusal(), (400, "invalid_member", "dry_run"));
    assert_eq!(desk.get("/channels/main?dry_run=true").await.refusal().0, 400);
}

#[tokio::test]
async fn a_rehearsal_shows_no_secret_and_makes_no_key() {
    let desk = Desk::open().await;
    let mut body = channel("main");
    body["credentials"] = json!([{"code": "a", "secret": "canary-1"}]);
    let shown = desk.post("/channels?dry_run=true", body.clone()).await;
    assert!(shown.text.contains("credentials") && !shown.text.contains("canary"), "{}", shown.text);
    desk.post("/channels", body).await;
    let change = json!({"version_no": 1, "credentials": [{"code": "a", "secret": "canary-2"}]});
    let shown = desk.patch("/channels/main?dry_run=true", change).await;
    assert!(shown.text.contains("credentials[0].secret"), "{}", shown.text);
    assert!(!shown.text.contains("canary") && !shown.text.contains("sealed"), "{}", shown.text);
    desk.post("/apps", json!({"code": "acme"})).await;
    let key = desk.post("/apps/acme/keys?dry_run=true", json!({"name": "k"})).await;
    assert_eq!((key.status.as_u16(), &key.body["after"]["name"]), (200, &json!("k")));
    assert!(!key.text.contains("sk-"), "{}", key.text);
    assert_eq!(desk.get("/apps/acme/keys").await.body["items"], json!([]));
}
