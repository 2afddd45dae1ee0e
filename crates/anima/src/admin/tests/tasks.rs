//! Tasks at the desk: listed, read, cancelled, their webhooks sent again.

use anima_core::money::Currency;
use anima_core::task::State;
use anima_store::tasks::{Accepted, Claim, Ending};

use super::*;

/// Task `n` of a key, with a webhook where `n` is even.
async fn stored(desk: &Desk, n: u128, kid: &str, app: &str) -> String {
    let (at, id) = (desk.clock.now(), Uuid::from_u128(n));
    let task = Accepted {
        id,
        kid: kid.into(),
        app: app.into(),
        endpoint: "chat_completions",
        alias: "chat".into(),
        currency: Currency::USD,
        request: b"sealed-canary".to_vec(),
        key_hash: None,
        content_hash: [1; 32],
        webhook: n.is_multiple_of(2).then(|| b"sealed-canary".to_vec()),
        at,
        expires_at: at.plus_millis(3_600_000),
        most: 100,
    };
    desk.admin.stores.tasks.tasks.create(task).await.unwrap();
    format!("task_{}", id.simple())
}

/// A worker takes what there is, and has sent it.
async fn sent(desk: &Desk) {
    let (now, node) = (desk.clock.now(), Uuid::from_u128(0xF));
    let claim = Claim { node, now, lease_until: now.plus_millis(60_000), most: 100, skip: vec![] };
    let queue = &desk.admin.stores.tasks.queue;
    for task in queue.claim(claim).await.unwrap() {
        assert!(queue.begin(task.id, task.run, Uuid::from_u128(0xC)).await.unwrap());
    }
}

fn ids(answer: &Answer) -> Vec<&str> {
    let items = answer.body["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn tasks_are_listed_by_state_app_and_key_page_by_page() {
    let desk = Desk::open().await;
    let mut made = vec![];
    for (n, (kid, app)) in [("a", "acme"), ("b", "acme"), ("c", "other")].into_iter().enumerate() {
        made.push(stored(&desk, n as u128 + 1, kid, app).await);
    }
    let [a, b, c] = &made[..] else { panic!("three") };
    assert_eq!(ids(&desk.get("/tasks").await), [c, b, a]);
    assert_eq!(ids(&desk.get("/tasks?app=acme").await), [b, a]);
    assert_eq!(ids(&desk.get("/tasks?key=a").await), [a]);
    assert!(ids(&desk.get("/tasks?key=a&app=other").await).is_empty());
    assert!(ids(&desk.get("/tasks?state=failed").await).is_empty());
    let first = desk.get("/tasks?state=accepted&limit=2").await;
    assert_eq!((ids(&first), &first.body["next"]), (vec![c.as_str(), b.as_str()], &json!(b)));
    let second = desk.get(&format!("/tasks?state=accepted&limit=2&after={b}")).await;
    assert_eq!((ids(&second), &second.body["next"]), (vec![a.as_str()], &Value::Null));
    let one = desk.get(&format!("/tasks/{b}")).await;
    assert_eq!((&one.body["app"], &one.body["key"]), (&json!("acme"), &json!("b")));
    assert_eq!((&one.body["state"], &one.body["model"]), (&json!("accepted"), &json!("chat")));
    assert_eq!(one.body["webhook"]["state"], "waiting");
    assert!(!one.text.contains("canary"), "{}", one.text);
}

#[tokio::test]
async fn what_was_not_sent_is_cancelled_once_with_a_record() {
    let desk = Desk::open().await;
    let id = stored(&desk, 1, "a", "acme").await;
    let path = format!("/tasks/{id}/cancel");
    let viewer = desk.call("at-viewer", Method::POST, &path, None).await;
    assert_eq!(viewer.refusal().0, 403);
    for _ in 0..2 {
        let done =
            desk.call("at-operator", Method::POST, &path, Some(json!({"reason": "r"}))).await;
        assert_eq!((done.status.as_u16(), &done.body["state"]), (200, &json!("cancelled")));
    }
    let audit = desk.get("/audit").await.body["items"].clone();
    let of_task: Vec<_> =
        audit.as_array().unwrap().iter().filter(|record| record["resource"] == "task").collect();
    let [record] = &of_task[..] else { panic!("one: {audit}") };
    assert_eq!((&record["action"], &record["reason"]), (&json!("cancel"), &json!("r")));
    assert_eq!((&record["code"], &record["actor"]), (&json!(id), &json!("operator")));
    let late = stored(&desk, 3, "a", "acme").await;
    sent(&desk).await;
    let path = format!("/tasks/{late}/cancel");
    let refused = desk.call("at-operator", Method::POST, &path, None).await;
    assert_eq!(refused.refusal(), (409, "task_not_cancellable", ""));
    assert_eq!(desk.get(&format!("/tasks/{late}")).await.body["state"], "submitting");
}

#[tokio::test]
async fn a_webhook_that_is_over_is_sent_again() {
    let desk = Desk::open().await;
    let id = stored(&desk, 2, "a", "acme").await;
    let bare = stored(&desk, 3, "a", "acme").await;
    let again = format!("/tasks/{id}/webhook");
    let none = desk.post(&format!("/tasks/{bare}/webhook"), json!({})).await;
    assert_eq!(none.refusal().0, 404);
    assert_eq!(desk.post(&again, json!({})).await.refusal(), (409, "webhook_pending", ""));
    let (tasks, now) = (&desk.admin.stores.tasks, desk.clock.now());
    let ending = Ending {
        state: State::Cancelled,
        result: None,
        error: None,
        refund: false,
        at: now,
        keep_until: now.plus_millis(1_000),
    };
    assert!(tasks.tasks.cancel(Uuid::from_u128(2), ending).await.unwrap());
    assert_eq!(desk.post(&again, json!({})).await.refusal(), (409, "webhook_pending", ""));
    let lease = now.plus_millis(10_000);
    assert_eq!(tasks.hooks.due(now, lease, 9).await.unwrap().len(), 1);
    tasks.hooks.failed(Uuid::from_u128(2), 1, "410", None).await.unwrap();
    let dead = desk.get(&format!("/tasks/{id}")).await;
    assert_eq!(dead.body["webhook"], json!({"state": "dead", "tries": 1, "error": "410"}));
    let sent = desk.post(&again, json!({"reason": "they mended it"})).await;
    assert_eq!((sent.status.as_u16(), &sent.body["webhook"]["state"]), (200, &json!("pending")));
    assert_eq!(sent.body["webhook"]["tries"], 0);
    let now = desk.clock.now();
    assert_eq!(tasks.hooks.due(now, now.plus_millis(10_000), 9).await.unwrap().len(), 1);
    let record = desk.get("/audit?limit=1").await.body["items"][0].clone();
    assert_eq!((&record["action"], &record["code"]), (&json!("replay"), &json!(id)));
    assert_eq!(record["reason"], "they mended it");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_named() {
    let desk = Desk::open().await;
    let id = stored(&desk, 1, "a", "acme").await;
    for (query, member) in [
        ("state=done", "state"),
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("after=1", "after"),
        ("after=req_00000000000000000000000000000001", "after"),
    ] {
        let refused = desk.get(&format!("/tasks?{query}")).await;
        assert_eq!(refused.refusal(), (400, "invalid_member", member), "{query}");
    }
    assert_eq!(desk.get("/tasks?status=x").await.refusal(), (400, "unknown_member", "status"));
    assert_eq!(desk.get("/tasks?key=%00").await.refusal().0, 400);
    let asked = desk.get(&format!("/tasks/{id}?full=1")).await;
    assert_eq!(asked.refusal(), (400, "unknown_member", "full"));
    for name in ["1", "task_", "task_00000000000000000000000000000009", "%ff"] {
        assert_eq!(desk.get(&format!("/tasks/{name}")).await.refusal().0, 404, "{name}");
        for verb in ["cancel", "webhook"] {
            let gone = desk.post(&format!("/tasks/{name}/{verb}"), json!({})).await;
            assert_eq!(gone.refusal().0, 404, "{name} {verb}");
        }
    }
    for verb in ["cancel", "webhook"] {
        let path = format!("/tasks/{id}/{verb}");
        let member = desk.post(&path, json!({"why": "x"})).await;
        assert_eq!(member.refusal(), (400, "unknown_member", "why"));
        let kind = desk.post(&path, json!({"reason": 1})).await;
        assert_eq!(kind.refusal(), (400, "invalid_member", "reason"));
        let long = desk.post(&path, json!({"reason": "x".repeat(1_001)})).await;
        assert_eq!(long.refusal(), (400, "invalid_member", "reason"));
        assert_eq!(desk.post(&format!("{path}?x=1"), json!({})).await.refusal().0, 400);
    }
    assert_eq!(desk.get(&format!("/tasks/{id}")).await.body["state"], "accepted");
}
