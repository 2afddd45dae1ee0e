//! What is special about keys: minted here, shown once, below an app.

use super::*;

#[tokio::test]
async fn the_whole_key_is_in_the_creations_reply_and_nowhere_else() {
    let desk = Desk::furnished().await;
    let created = desk.post("/apps/acme/keys", json!({"name": "web"})).await;
    let (kid, secret) = (created.body["kid"].as_str().unwrap(), &created.body["secret"]);
    let secret = secret.as_str().unwrap();
    assert!(secret.starts_with(&format!("sk-{kid}-")));
    assert_eq!(created.body["app"], "acme");
    assert_eq!(created.header("location"), format!("/apps/acme/keys/{kid}"));
    let tail = secret.rsplit('-').next().unwrap();
    for path in [
        "/apps/acme/keys".to_owned(),
        format!("/apps/acme/keys/{kid}"),
        format!("/apps/acme/keys/{kid}/versions"),
        "/audit".to_owned(),
    ] {
        let seen = desk.get(&path).await;
        assert_eq!(seen.status, 200);
        assert!(!seen.text.contains(tail) && !seen.text.contains("secret"), "{}", seen.text);
    }
    let record = desk.admin.live.key(kid).await.unwrap().unwrap();
    assert_eq!(record.secrets[0].hash, desk.admin.secrets.hash_key(secret));
}

#[tokio::test]
async fn a_key_switched_off_is_off_here_at_once() {
    let desk = Desk::furnished().await;
    let created = desk.post("/apps/acme/keys", json!({})).await;
    let kid = created.body["kid"].as_str().unwrap();
    let enabled = async || {
        desk.admin.live.key(kid).await.unwrap().unwrap().key.iter().all(|version| version.enabled)
    };
    assert!(enabled().await);
    let path = format!("/apps/acme/keys/{kid}");
    let off = desk.call("at-operator", Method::PATCH, &path, Some(json!({"enabled": false}))).await;
    assert_eq!(off.status, 200, "{}", off.text);
    assert!(!enabled().await);
    let app_enabled = async || {
        desk.admin.live.key(kid).await.unwrap().unwrap().app.iter().all(|version| version.enabled)
    };
    assert!(app_enabled().await);
    desk.patch("/apps/acme", json!({"enabled": false})).await;
    assert!(!app_enabled().await);
}

#[tokio::test]
async fn a_key_is_found_below_its_own_app_alone() {
    let desk = Desk::furnished().await;
    desk.post("/apps", json!({"code": "other"})).await;
    let created = desk.post("/apps/acme/keys", json!({})).await;
    let kid = created.body["kid"].as_str().unwrap();
    assert_eq!(desk.get(&format!("/apps/acme/keys/{kid}")).await.status, 200);
    let foreign = format!("/apps/other/keys/{kid}");
    assert_eq!(desk.get(&foreign).await.status, 404);
    assert_eq!(desk.patch(&foreign, json!({"enabled": false})).await.status, 404);
    assert_eq!(desk.delete(&foreign).await.status, 404);
    assert_eq!(desk.get(&format!("{foreign}/versions")).await.status, 404);
    assert_eq!(desk.row("/apps/other/keys").await["items"], json!([]));
    assert_eq!(desk.get("/apps/nobody/keys").await.status, 404);
    assert_eq!(desk.post("/apps/nobody/keys", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_key_takes_no_name_from_outside() {
    let desk = Desk::furnished().await;
    for member in ["code", "kid", "app", "secret"] {
        let refused = desk.post("/apps/acme/keys", json!({member: "x"})).await;
        assert_eq!(refused.refusal(), (400, "unknown_member", member));
    }
}

#[tokio::test]
async fn a_deleted_key_is_dead() {
    let desk = Desk::furnished().await;
    let created = desk.post("/apps/acme/keys", json!({})).await;
    let kid = created.body["kid"].as_str().unwrap();
    assert!(!desk.admin.live.key(kid).await.unwrap().unwrap().secrets.is_empty());
    assert_eq!(desk.delete(&format!("/apps/acme/keys/{kid}")).await.status, 204);
    let record = desk.admin.live.key(kid).await.unwrap();
    assert!(record.is_none_or(|record| record.secrets.is_empty() || record.key.is_empty()));
}
