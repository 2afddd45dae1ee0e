//! The payloads of SPEC 15, and that what was written is what is read.

use super::*;

/// One payload per collection, in the order in which they refer to one another.
pub(super) fn examples() -> Vec<(&'static str, Value)> {
    vec![
        (
            "/channels",
            json!({
                "code": "up", "provider": "openai_compatible", "base_url": "http://127.0.0.1:9/v1",
                "credentials": [{"code": "main", "secret": "canary-one"}],
                "timeouts": {"connect_ms": 1000, "first_byte_ms": 2000, "idle_ms": 3000,
                    "total_ms": 4000},
                "breaker": {"window_ms": 1000, "minimum_calls": 5, "failure_rate": 50,
                    "consecutive_failures": 3, "slow_call_ms": 900, "slow_rate": 80, "open_ms": 9,
                    "half_open_permits": 2, "metrics_only_until": "2026-01-01T00:00:00Z"},
                "max_concurrency": 8, "allow_private_network": true, "on_disconnect": "cancel",
                "faults": [{"percent": 5, "fail": "error", "until": "2026-01-01T00:00:00Z"}],
                "settings": {"organization": "org"},
            }),
        ),
        (
            "/aliases",
            json!({
                "code": "gpt-4o", "kind": "chat",
                "routes": [{"channel": "up", "model": "gpt-4o-2024", "priority": 1, "weight": 2}],
                "fallbacks": {"error": [], "rate_limited": [], "context_window": [],
                    "content_policy": [], "timeout": []},
                "retry": {"max_attempts": 2, "deadline_ms": 60000},
            }),
        ),
        (
            "/quotas",
            json!({"code": "basic", "limits": [
                {"kind": "requests", "window": "1s", "limit": 20, "burst": 40,
                    "on_outage": "share"},
                {"kind": "tokens", "count": "total", "window": "1m", "limit": 100_000},
                {"kind": "cost", "window": "1mo", "limit": "100.00"},
                {"kind": "concurrency", "limit": 8},
            ]}),
        ),
        (
            "/token-groups",
            json!({"code": "gold", "aliases": ["*"], "multiplier": "1.25", "quota": "basic",
                "queue_mode": "WAIT"}),
        ),
        (
            "/prices",
            json!({"code": "up-cost", "side": "cost", "channel": "up", "model": "gpt-4o-2024",
            "currency": "USD",
            "meters": [
                {"meter": "input_tokens", "per": 1_000_000, "amount": "2.50", "when": {}},
                {"meter": "output_tokens", "per": 1_000_000, "amount": "10.00",
                    "when": {"input_tokens_over": 200_000, "service_tier": "priority"}},
            ]}),
        ),
        (
            "/prices",
            json!({"code": "gpt-4o-sale", "side": "sale", "alias": "gpt-4o", "token_group": "gold",
                "currency": "USD",
                "meters": [{"meter": "input_tokens", "per": 1_000_000, "amount": "3.00",
                    "when": {}}]}),
        ),
        (
            "/apps",
            json!({"code": "acme", "name": "Acme", "currency": "USD", "credit_limit": "5.00",
                "token_group": "gold", "quota": "basic"}),
        ),
        (
            "/apps/acme/keys",
            json!({"name": "ci", "token_group": "gold", "quota": "basic", "queue_mode": "REJECT",
                "wait_timeout_ms": 1000, "max_queue": 10, "expires_at": "2030-01-01T00:00:00Z",
                "allowed_ips": ["10.0.0.0/8", "::1"], "caller_trace": true}),
        ),
    ]
}

/// Whether everything that was written is read; what was left out may read as its default.
fn holds(read: &Value, written: &Value) -> bool {
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => written
            .iter()
            .all(|(name, member)| read.get(name).is_some_and(|read| holds(read, member))),
        (Value::Array(read), Value::Array(written)) => {
            read.len() == written.len() && read.iter().zip(written).all(|(r, w)| holds(r, w))
        }
        _ => read == written,
    }
}

#[tokio::test]
async fn every_payload_of_the_contract_is_taken_and_read_back() {
    let desk = Desk::open().await;
    for (path, payload) in examples() {
        let created = desk.post(path, payload.clone()).await;
        assert_eq!(created.status, 201, "{path}: {}", created.text);
        assert_eq!(created.header("etag"), "\"1\"");
        assert_eq!(created.header("content-type"), "application/json");
        assert!(created.header("warning").is_empty());
        let mut expected = payload;
        if path == "/channels" {
            expected["credentials"] = json!([{"code": "main"}]);
        }
        let location = created.header("location").to_owned();
        let read = desk.get(&location).await;
        assert_eq!(read.status, 200, "{location}: {}", read.text);
        assert!(holds(&read.body, &expected), "{location}: {}", read.text);
        assert_eq!(read.body["version_no"], 1);
        assert_eq!(read.body["enabled"], true);
        assert_eq!(read.body["effective_to"], Value::Null);
        assert!(read.body["effective_from"].is_string());
        let items = desk.row(path).await["items"].as_array().unwrap().clone();
        assert!(items.contains(&read.body), "{path}: {items:?}");
    }
}

#[tokio::test]
async fn members_left_out_get_their_defaults() {
    let desk = Desk::open().await;
    let created = desk.post("/channels", channel("a")).await.body;
    assert_eq!(created["timeouts"]["total_ms"], 600_000);
    assert_eq!(created["breaker"]["failure_rate"], 50);
    assert_eq!(created["on_disconnect"], "drain");
    let app = desk.post("/apps", json!({"code": "a"})).await.body;
    assert_eq!((&app["currency"], &app["credit_limit"]), (&json!("USD"), &json!("0")));
}

#[tokio::test]
async fn a_row_can_be_sent_back_as_it_was_read() {
    let desk = Desk::furnished().await;
    let keys = desk.row("/apps/acme/keys").await;
    let kid = keys["items"][0]["kid"].as_str().unwrap().to_owned();
    for path in [
        "/channels/up".to_owned(),
        "/aliases/gpt-4o".to_owned(),
        "/quotas/basic".to_owned(),
        "/token-groups/gold".to_owned(),
        "/prices/up-cost".to_owned(),
        "/apps/acme".to_owned(),
        format!("/apps/acme/keys/{kid}"),
    ] {
        let read = desk.row(&path).await;
        let written = desk.patch(&path, read.clone()).await;
        assert_eq!(written.status, 200, "{path}: {}", written.text);
        assert_eq!(written.body["version_no"], 2);
        let again = desk.row(&path).await;
        for (member, value) in read.as_object().unwrap() {
            if !["version_no", "effective_from"].contains(&member.as_str()) {
                assert_eq!(&again[member], value, "{path} {member}");
            }
        }
    }
}

#[tokio::test]
async fn the_functions_without_http_make_the_same_rows() {
    let desk = Desk::open().await;
    let (admin, actor) = (&desk.admin, &actor());
    let mut payloads = examples().into_iter().map(|(_, payload)| payload);
    let mut next = || payloads.next().unwrap();
    super::super::channels::create(admin, actor, next()).await.unwrap();
    super::super::aliases::create(admin, actor, next()).await.unwrap();
    super::super::quotas::create(admin, actor, next()).await.unwrap();
    super::super::token_groups::create(admin, actor, next()).await.unwrap();
    super::super::prices::create(admin, actor, next()).await.unwrap();
    super::super::prices::create(admin, actor, next()).await.unwrap();
    let app = super::super::apps::create(admin, actor, next()).await.unwrap();
    assert_eq!((app.code.as_str(), app.version_no), ("acme", 1));
    let key = super::super::keys::create(admin, actor, "acme", next()).await.unwrap();
    assert!(key.secret.contains(&key.row.code));
    let body = json!({"amount": "10.00", "reference": "first"});
    let topup = super::super::apps::topup(admin, actor, "acme", "first", body).await.unwrap();
    assert_eq!(topup.balance["available"], "15.00");
    let page = desk.get("/audit").await;
    assert_eq!(page.body["items"][0]["actor"], "test");
    assert_eq!(page.body["items"][0]["reason"], "because");
}

#[tokio::test]
async fn a_change_is_in_force_before_the_reply() {
    let desk = Desk::furnished().await;
    let pinned = || desk.admin.live.pin(desk.clock.now()).unwrap().snapshot;
    let before = pinned();
    assert!(before.alias("gpt-4o").unwrap().enabled);
    assert_eq!(before.channel("up").unwrap().body.max_concurrency, Some(8));
    desk.patch("/channels/up", json!({"max_concurrency": 9, "version_no": 1})).await;
    desk.patch("/aliases/gpt-4o", json!({"enabled": false})).await;
    assert_eq!(pinned().channel("up").unwrap().body.max_concurrency, Some(9));
    assert!(!pinned().alias("gpt-4o").unwrap().enabled);
    desk.delete("/channels/up").await;
    assert!(pinned().channel("up").is_none());
}
