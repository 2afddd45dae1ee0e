//! Queue mode ASYNC: calls that their callers do not wait for.
//!
//! Workers that die are played by claims of a node that is not there, and once by processes that
//! are killed (`killed`). Not here: what the store promises.

use std::sync::Arc;

use anima_core::clock::Timestamp;
use anima_core::task::State;
use anima_store::database::{self, Opener, Stores};
use anima_store::ledger::BatchObserver;
use anima_store::tasks::{Claim, Claimed};
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::testapp::{Reply, SALE, TestApp, eventually, nano, on_both, owed, prompt};

mod killed; // workers that die
mod prices; // that change between a 202 and its run

on_both! {
    a_call_becomes_a_task_and_its_answer_is_read_later;
    a_stream_and_another_format_are_kept_as_they_are;
    a_task_waits_for_its_turn_and_is_not_refused;
    an_idempotency_key_makes_one_task;
    only_what_waits_can_be_cancelled ("task_workers = 0");
    a_key_sees_its_own_tasks_only ("task_workers = 0");
    a_key_that_is_disabled_has_its_tasks_cancelled ("task_workers = 0");
    a_task_that_the_wallet_does_not_cover_is_refused_at_once ("task_workers = 0");
    so_many_may_wait_and_no_more ("task_workers = 0");
    a_provider_that_fails_fails_the_task_and_nothing_is_charged;
    a_call_that_may_have_been_sent_is_never_sent_again ("task_workers = 0");
    a_lost_answer_that_was_charged_is_given_back ("task_workers = 0");
    what_a_task_ended_with_is_kept_for_its_time ("task_keep_ms = 1");
    the_end_is_sent_to_a_signed_webhook ("outbound_allow_private = [\"127.0.0.0/8\"]");
    a_webhook_that_leads_inside_is_refused;
    questions_that_make_no_sense_are_refused ("task_workers = 0");
    a_prompt_is_nowhere_in_clear ("task_workers = 0");
}

/// A key in queue mode ASYNC: its path and itself.
async fn key(app: &TestApp, row: Value) -> (String, String) {
    let mut row = row;
    row["queue_mode"] = json!("ASYNC");
    app.mint("acme", row).await
}

async fn as_key(app: &TestApp, key: &str, method: Method, path: &str) -> Reply {
    let headers = [("x-api-key", key)];
    app.raw(method, path, &headers, "").await
}

async fn task(app: &TestApp, key: &str, id: &str) -> Value {
    let reply = as_key(app, key, Method::GET, &format!("/v1/tasks/{id}")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// Sends a call and gives its task's id.
async fn sent(app: &TestApp, key: &str) -> String {
    let reply = app.ask_as(key, "chat").await;
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.json()["task_id"].as_str().unwrap().to_owned()
}

/// Waits until a task is in a state.
async fn until(app: &TestApp, key: &str, id: &str, status: &str) -> Value {
    eventually(status, async || {
        let task = task(app, key, id).await;
        (task["status"] == status).then_some(task)
    })
    .await
}

#[derive(Debug)]
struct Deaf;

impl BatchObserver for Deaf {
    fn committed(&self, _holds: usize, _settlements: usize, _seconds: f64) {}
    fn failed(&self) {}
}

/// The database of a node, as another process would open it.
async fn stores(app: &TestApp) -> Stores {
    let opener = Opener { node: Uuid::from_u128(0xDEAD), observer: Arc::new(Deaf) };
    database::open(&app.location(), &opener).await.unwrap()
}

/// Claims everything as a worker whose lease is over at once.
async fn claimed_by_the_dead(stores: &Stores, now: Timestamp) -> Vec<Claimed> {
    let claim = Claim {
        node: Uuid::from_u128(0xDEAD),
        now,
        lease_until: now.plus_millis(1),
        most: 10,
        skip: vec![],
    };
    stores.tasks.queue.claim(claim).await.unwrap()
}

fn id_of(task: &Claimed) -> String {
    format!("task_{}", task.id.simple())
}

async fn a_call_becomes_a_task_and_its_answer_is_read_later(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let before = app.balance().await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let id = reply.json()["task_id"].as_str().unwrap().to_owned();
    assert_eq!(reply.header("location"), format!("/v1/tasks/{id}"));
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(reply.json()["status"], "accepted");
    let done = until(app, &key, &id, "succeeded").await;
    assert_eq!(
        (&done["id"], &done["object"], &done["progress"]),
        (&json!(id), &json!("task"), &json!(100))
    );
    assert_eq!(done["response"]["status"], 200);
    let answer = &done["response"]["body"];
    assert_eq!(answer["object"], "chat.completion", "{done:#}");
    let content = as_key(app, &key, Method::GET, &format!("/v1/tasks/{id}/content")).await;
    assert_eq!((content.status, &content.json()), (200, answer));
    assert_eq!(content.header("x-anima-attempts"), "1");
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert_eq!(before - app.balance().await, owed(&SALE, &call.billed, 1_000));
    let request = done["request_id"].as_str().unwrap();
    assert!(!app.postings(request).await.is_empty());
    assert_eq!(content.header("x-anima-original-request-id"), request);
    let again = as_key(app, &key, Method::DELETE, &format!("/v1/tasks/{id}")).await;
    assert_eq!(again.refusal(), (409, "task_not_cancellable".to_owned()));
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_tasks_ended_total{state=\"succeeded\"} 1"), "{metrics}");
}

async fn a_stream_and_another_format_are_kept_as_they_are(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let headers = [("x-api-key", key.as_str()), ("anthropic-version", "2023-06-01")];
    let mut body = prompt("chat");
    body["stream"] = json!(true);
    body["max_tokens"] = json!(50);
    for (path, kind, word) in [
        ("/v1/chat/completions", "text/event-stream", "[DONE]"),
        ("/v1/messages", "text/event-stream", "message_stop"),
    ] {
        let reply = app.raw(Method::POST, path, &headers, body.to_string()).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        let id = reply.json()["task_id"].as_str().unwrap().to_owned();
        until(app, &key, &id, "succeeded").await;
        let content = as_key(app, &key, Method::GET, &format!("/v1/tasks/{id}/content")).await;
        assert!(content.header("content-type").starts_with(kind), "{content:?}");
        assert!(content.text().contains(word), "{content:?}");
    }
}

async fn a_task_waits_for_its_turn_and_is_not_refused(app: &TestApp) {
    let limits = json!([{"kind": "concurrency", "limit": 1}]);
    app.create("/quotas", &json!({"code": "narrow", "limits": limits})).await;
    let (_, key) = key(app, json!({"quota": "narrow"})).await;
    app.fault("latency:50");
    let mut ids = vec![];
    for _ in 0..6 {
        ids.push(sent(app, &key).await);
    }
    for id in &ids {
        until(app, &key, id, "succeeded").await;
    }
    assert_eq!(app.calls().await.len(), 6);
}

async fn an_idempotency_key_makes_one_task(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let headers = [("x-api-key", key.as_str()), ("idempotency-key", "once")];
    let ask = async |body: Value| {
        app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await
    };
    let first = ask(prompt("chat")).await;
    let again = ask(prompt("chat")).await;
    assert_eq!((first.status, again.status), (202, 202), "{again:?}");
    assert_eq!(first.json()["task_id"], again.json()["task_id"]);
    assert_eq!(again.header("location"), first.header("location"));
    let other = ask(prompt("other")).await;
    assert_ne!(other.status, 202);
    until(app, &key, first.json()["task_id"].as_str().unwrap(), "succeeded").await;
    assert_eq!(app.calls().await.len(), 1);
}

async fn only_what_waits_can_be_cancelled(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    for (method, path) in [(Method::DELETE, ""), (Method::POST, "/cancel")] {
        let id = sent(app, &key).await;
        let path = format!("/v1/tasks/{id}{path}");
        for _ in 0..2 {
            let cancelled = as_key(app, &key, method.clone(), &path).await;
            assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
        }
        let content = as_key(app, &key, Method::GET, &format!("/v1/tasks/{id}/content")).await;
        assert_eq!(content.refusal(), (410, "task_gone".to_owned()));
    }
    let id = sent(app, &key).await;
    let waiting = as_key(app, &key, Method::GET, &format!("/v1/tasks/{id}/content")).await;
    assert_eq!(waiting.refusal(), (409, "task_not_finished".to_owned()));
    assert!(app.calls().await.is_empty());
}

async fn a_key_sees_its_own_tasks_only(app: &TestApp) {
    let (_, mine) = key(app, json!({})).await;
    let (_, theirs) = key(app, json!({})).await;
    let (a, b) = (sent(app, &mine).await, sent(app, &mine).await);
    for path in [format!("/v1/tasks/{a}"), format!("/v1/tasks/{a}/content")] {
        let reply = as_key(app, &theirs, Method::GET, &path).await;
        assert_eq!(reply.refusal(), (404, "task_not_found".to_owned()));
    }
    let cancel = as_key(app, &theirs, Method::DELETE, &format!("/v1/tasks/{a}")).await;
    assert_eq!(cancel.refusal(), (404, "task_not_found".to_owned()));
    let none = as_key(app, &theirs, Method::GET, "/v1/tasks").await.json();
    assert_eq!((&none["data"], &none["has_more"]), (&json!([]), &json!(false)));
    let page = as_key(app, &mine, Method::GET, "/v1/tasks?limit=1&status=accepted").await.json();
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(b), &json!(true)));
    let path = format!("/v1/tasks?limit=1&after={b}");
    let page = as_key(app, &mine, Method::GET, &path).await.json();
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(a), &json!(false)));
}

async fn a_key_that_is_disabled_has_its_tasks_cancelled(app: &TestApp) {
    let (path, key) = key(app, json!({})).await;
    let id = sent(app, &key).await;
    app.switch(&path, false).await;
    let stores = stores(app).await;
    let uuid = Uuid::try_parse(id.strip_prefix("task_").unwrap()).unwrap();
    eventually("it is cancelled", async || {
        let task = stores.tasks.tasks.task(uuid).await.unwrap().unwrap();
        (task.state == State::Cancelled).then_some(())
    })
    .await;
    app.switch(&path, true).await;
    assert_eq!(task(app, &key, &id).await["error"]["code"], "task_cancelled");
}

async fn a_task_that_the_wallet_does_not_cover_is_refused_at_once(app: &TestApp) {
    app.app("poor", "0", json!({})).await;
    let (_, key) = app.mint("poor", json!({"queue_mode": "ASYNC"})).await;
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.refusal(), (429, "insufficient_quota".to_owned()));
    let listed = as_key(app, &key, Method::GET, "/v1/tasks").await.json();
    assert_eq!(listed["data"], json!([]), "{listed}");
    app.create("/apps/poor/topups", &json!({"amount": "1"})).await;
    sent(app, &key).await;
}

async fn so_many_may_wait_and_no_more(app: &TestApp) {
    let (_, key) = key(app, json!({"max_queue": 2})).await;
    sent(app, &key).await;
    sent(app, &key).await;
    let full = app.ask_as(&key, "chat").await;
    assert_eq!(full.refusal(), (429, "queue_full".to_owned()));
    assert_eq!(full.header("retry-after"), "5");
}

async fn a_provider_that_fails_fails_the_task_and_nothing_is_charged(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let before = app.balance().await;
    app.fault("status:400");
    let id = sent(app, &key).await;
    let failed = until(app, &key, &id, "failed").await;
    assert_eq!(failed["error"]["code"], "upstream_refused_request", "{failed:#}");
    let content = as_key(app, &key, Method::GET, &format!("/v1/tasks/{id}/content")).await;
    assert_eq!(content.status, 400);
    app.fault("status:500");
    let id = sent(app, &key).await;
    until(app, &key, &id, "failed").await;
    assert_eq!((app.calls().await.len(), app.balance().await), (2, before));
}

async fn a_call_that_may_have_been_sent_is_never_sent_again(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let stores = stores(app).await;
    let (id, claimed) = stolen(app, &stores, &key).await;
    assert!(stores.tasks.queue.begin(claimed.id, claimed.run, Uuid::from_u128(9)).await.unwrap());
    let lost = until(app, &key, &id, "failed").await;
    assert_eq!(lost["error"]["code"], "task_answer_lost");
    let content = as_key(app, &key, Method::GET, &format!("/v1/tasks/{id}/content")).await;
    assert_eq!(content.refusal(), (502, "task_failed".to_owned()));
    assert!(app.calls().await.is_empty());
    // The dead come back, and change nothing.
    let now = claimed.created_at;
    assert!(!stores.tasks.queue.give_back(claimed.id, claimed.run, now).await.unwrap());
}

/// A task that a worker has claimed which is not there any more.
async fn stolen(app: &TestApp, stores: &Stores, key: &str) -> (String, Claimed) {
    let id = sent(app, key).await;
    let uuid = Uuid::try_parse(id.strip_prefix("task_").unwrap()).unwrap();
    let made = stores.tasks.tasks.task(uuid).await.unwrap().unwrap();
    let mut claimed = claimed_by_the_dead(stores, made.created_at.plus_millis(1)).await;
    let mine = claimed.pop().unwrap();
    assert_eq!(id_of(&mine), id);
    (id, mine)
}

async fn a_lost_answer_that_was_charged_is_given_back(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let stores = stores(app).await;
    // A call that was sold stands for the one whose node died after its settlement.
    let sold = app.ask("chat").await;
    let request = sold.request_id().strip_prefix("req_").unwrap();
    let call = Uuid::try_parse(request).unwrap();
    let charged = app.balance().await;
    assert!(charged < nano("100.00"));
    let (id, claimed) = stolen(app, &stores, &key).await;
    let before = app.balance().await;
    assert!(stores.tasks.queue.begin(claimed.id, claimed.run, call).await.unwrap());
    until(app, &key, &id, "failed").await;
    eventually("it is given back", async || (app.balance().await > before).then_some(())).await;
    let legs = app.postings(sold.request_id()).await;
    let back = legs.iter().filter(|leg| leg.kind.eq_ignore_ascii_case("refund")).count();
    assert_eq!(back, 1, "{legs:?}");
}

async fn what_a_task_ended_with_is_kept_for_its_time(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let id = sent(app, &key).await;
    until(app, &key, &id, "succeeded").await;
    let gone = eventually("its time is over", async || {
        let path = format!("/v1/tasks/{id}/content");
        let reply = as_key(app, &key, Method::GET, &path).await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert_eq!(gone.refusal(), (410, "task_gone".to_owned()));
    assert_eq!(task(app, &key, &id).await["response"], Value::Null);
}

async fn the_end_is_sent_to_a_signed_webhook(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", receiver.local_addr().unwrap());
    let headers = [("x-api-key", key.as_str()), ("x-anima-webhook-url", url.as_str())];
    let reply =
        app.raw(Method::POST, "/v1/chat/completions", &headers, prompt("chat").to_string()).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let id = reply.json()["task_id"].as_str().unwrap().to_owned();
    // The first try is refused, so that there is a second one with the same id.
    let (first, _) = received(&receiver, "503 Busy").await;
    let (second, body) = received(&receiver, "204 No Content").await;
    let name = format!("webhook-id: msg_{id}_succeeded");
    assert!(first.contains(&name) && second.contains(&name), "{first}\n{second}");
    let message: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&message["type"], &message["data"]["id"]), (&json!("task.succeeded"), &json!(id)));
    assert_eq!(message["data"]["response"]["status"], 200);
    let secret = as_key(app, &key, Method::GET, "/v1/tasks/webhook_secret").await.json();
    assert!(secret["secret"].as_str().unwrap().starts_with("whsec_"));
    assert!(second.contains("webhook-signature: v1,"), "{second}");
    let told = eventually("it is put down", async || {
        let task = task(app, &key, &id).await;
        (task["webhook"]["state"] == "delivered").then_some(task)
    })
    .await;
    assert_eq!(told["webhook"]["tries"], 2);
}

/// One HTTP request, head and body, answered with a status.
async fn received(receiver: &tokio::net::TcpListener, status: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let accepting = tokio::time::timeout(std::time::Duration::from_secs(20), receiver.accept());
    let (mut socket, _) = accepting.await.expect("a webhook comes").unwrap();
    let mut bytes = vec![];
    loop {
        let mut piece = [0_u8; 4096];
        let read = socket.read(&mut piece).await.unwrap();
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse::<usize>().unwrap() {
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.unwrap();
            return (head.to_owned(), body.to_owned());
        }
    }
}

async fn a_webhook_that_leads_inside_is_refused(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    for url in
        ["http://127.0.0.1:9/", "https://169.254.169.254/", "https://[::1]/", "nowhere", "/hook"]
    {
        let headers = [("x-api-key", key.as_str()), ("x-anima-webhook-url", url)];
        let body = prompt("chat").to_string();
        let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body).await;
        assert_eq!(reply.refusal(), (400, "invalid_request".to_owned()), "{url}");
    }
    assert!(app.calls().await.is_empty());
}

async fn questions_that_make_no_sense_are_refused(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    for path in ["?limit=0", "?limit=101", "?limit=x", "?after=1", "?status=done", "?color=red"] {
        let reply = as_key(app, &key, Method::GET, &format!("/v1/tasks{path}")).await;
        assert_eq!(reply.refusal(), (400, "invalid_request".to_owned()), "{path}");
    }
    for id in ["1", "task_", "task_zz", "%ff", "req_00000000000000000000000000000001"] {
        let reply = as_key(app, &key, Method::GET, &format!("/v1/tasks/{id}")).await;
        assert_eq!(reply.refusal(), (404, "task_not_found".to_owned()), "{id}");
    }
    assert_eq!(as_key(app, "sk-a-b", Method::GET, "/v1/tasks").await.status, 401);
    let bad = app.ask_as(&key, "nothing").await;
    assert_eq!(bad.status, 404, "what cannot be called is refused at once");
}

async fn a_prompt_is_nowhere_in_clear(app: &TestApp) {
    let (_, key) = key(app, json!({})).await;
    sent(app, &key).await;
    let stores = stores(app).await;
    let now = Timestamp::from_micros(4_000_000_000_000_000);
    let claimed = claimed_by_the_dead(&stores, now).await;
    // It waits no longer than a day, and so is not claimed then.
    assert!(claimed.is_empty());
    if app.place.url().is_none() {
        for file in std::fs::read_dir(app.data_dir()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains("Say something, please."));
        }
    }
}
