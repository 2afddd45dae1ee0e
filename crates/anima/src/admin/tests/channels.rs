//! What is special about channels: providers, addresses, credentials.

use super::*;

#[tokio::test]
async fn a_provider_must_be_known() {
    let desk = Desk::open().await;
    let mut body = channel("a");
    body["provider"] = json!("hal9000");
    let refused = desk.post("/channels", body).await;
    assert_eq!(refused.refusal(), (400, "invalid_member", "provider"));
    assert!(refused.body["detail"].as_str().unwrap().contains("`openai`"), "{}", refused.text);
}

#[tokio::test]
async fn a_private_address_needs_the_permission_also_when_changed() {
    let desk = Desk::open().await;
    let mut body = channel("a");
    body["base_url"] = json!("http://169.254.169.254/latest");
    assert_eq!(desk.post("/channels", body.clone()).await.refusal().2, "base_url");
    body["allow_private_network"] = json!(true);
    assert_eq!(desk.post("/channels", body).await.status, 201);
    let change = json!({"allow_private_network": false, "version_no": 1});
    assert_eq!(desk.patch("/channels/a", change).await.refusal().2, "base_url");
}

#[tokio::test]
async fn credentials_are_kept_replaced_and_removed_by_code() {
    let desk = Desk::open().await;
    let mut body = channel("a");
    body["credentials"] = json!([{"code": "x", "secret": "one"}, {"code": "y", "secret": "two"}]);
    desk.post("/channels", body).await;
    let secrets = || {
        let pinned = desk.admin.live.pin(desk.clock.now()).unwrap();
        let index = pinned.snapshot.channel("a").unwrap().index;
        let upstream = Arc::clone(pinned.upstream(index).unwrap());
        let pair = |(code, secret): &(Arc<str>, zeroize::Zeroizing<String>)| {
            format!("{code}={}", secret.as_str())
        };
        upstream.credentials.iter().map(pair).collect::<Vec<_>>()
    };
    assert_eq!(secrets(), ["x=one", "y=two"]);
    let change = json!({"credentials": [{"code": "y"}, {"code": "z", "secret": "three"}],
        "version_no": 1});
    let changed = desk.patch("/channels/a", change).await;
    assert_eq!(changed.body["credentials"], json!([{"code": "y"}, {"code": "z"}]));
    assert_eq!(secrets(), ["y=two", "z=three"]);
    let missing = json!({"credentials": [{"code": "x"}], "version_no": 2});
    let missing = desk.patch("/channels/a", missing).await;
    assert_eq!(missing.refusal(), (400, "invalid_member", "credentials[0].secret"));
    desk.patch("/channels/a", json!({"max_concurrency": 3, "version_no": 2})).await;
    assert_eq!(secrets(), ["y=two", "z=three"]);
    desk.post("/channels/a/versions/1/restore", json!({"version_no": 3})).await;
    assert_eq!(secrets(), ["x=one", "y=two"]);
}

#[tokio::test]
async fn a_stored_secret_does_not_follow_the_channel_to_another_host() {
    let desk = Desk::open().await;
    let mut body = channel("a");
    body["credentials"] = json!([{"code": "x", "secret": "one"}]);
    body["base_url"] = json!("https://api.example/v1");
    assert_eq!(desk.post("/channels", body).await.status, 201);
    let moved = json!({"base_url": "https://elsewhere.example/v1", "version_no": 1});
    let refused = desk.patch("/channels/a", moved.clone()).await;
    assert_eq!(refused.refusal(), (400, "invalid_member", "credentials[0].secret"));
    let path = json!({"base_url": "https://API.example/v2", "version_no": 1});
    assert_eq!(desk.patch("/channels/a", path).await.status, 200);
    let mut moved = moved;
    moved["credentials"] = json!([{"code": "x", "secret": "one"}]);
    moved["version_no"] = json!(2);
    assert_eq!(desk.patch("/channels/a", moved).await.status, 200);
}

#[tokio::test]
async fn a_sealed_secret_cannot_be_planted() {
    let desk = Desk::furnished().await;
    let body = json!({"credentials": [{"code": "main", "sealed": "AAAA"}], "version_no": 1});
    let refused = desk.patch("/channels/up", body).await;
    assert_eq!(refused.refusal(), (400, "unknown_member", "credentials[0].sealed"));
}

#[tokio::test]
async fn a_secret_is_in_no_reply_no_record_and_no_file() {
    let desk = Desk::furnished().await;
    let mut seen = String::new();
    let change =
        json!({"credentials": [{"code": "main", "secret": "canary-two"}], "version_no": 1});
    seen.push_str(&desk.patch("/channels/up", change.clone()).await.text);
    seen.push_str(&desk.patch("/channels/up", change).await.text);
    let wrong = json!({"credentials": "canary-three", "version_no": 2});
    seen.push_str(&desk.patch("/channels/up", wrong).await.text);
    let wrong = json!({"credentials": [{"code": "main", "secret": ["canary-four"]}],
        "version_no": 2});
    seen.push_str(&desk.patch("/channels/up", wrong).await.text);
    let wrong = json!({"on_disconnect": "canary-five", "version_no": 2});
    seen.push_str(&desk.patch("/channels/up", wrong).await.text);
    for path in ["/channels", "/channels/up", "/channels/up/versions", "/audit"] {
        seen.push_str(&desk.get(path).await.text);
    }
    assert!(!seen.contains("canary"), "{seen}");
    assert!(!seen.contains("sealed"), "{seen}");
    for entry in std::fs::read_dir(desk.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
    }
}
