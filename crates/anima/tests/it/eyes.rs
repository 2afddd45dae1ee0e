//! What operators see: metrics with bounded labels, health, info; and what callers see when the
//! database is gone.

use http::Method;
use serde_json::json;

use crate::testapp::{Backend, TestApp, eventually, on_both, prompt};

on_both! {
    metrics_tell_of_calls_money_and_batches;
    callers_choose_no_label;
    health_and_info_are_told;
    nothing_is_left_in_flight;
}

/// The sample of a metric whose line starts so.
fn sample(metrics: &str, start: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("no {start} in\n{metrics}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The same for what is counted.
fn count(metrics: &str, start: &str) -> u64 {
    format!("{:.0}", sample(metrics, start)).parse().unwrap()
}

async fn metrics_tell_of_calls_money_and_batches(app: &TestApp) {
    app.embedding().await;
    app.ask("chat").await;
    app.ask_stream("chat").await;
    app.post("/v1/embeddings", &json!({"model": "embed", "input": "x"})).await;
    app.fault("status:503");
    app.ask("chat").await;
    app.settled().await;
    let reply = app.raw(Method::GET, "/actuator/prometheus", &[], "").await;
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = reply.text();
    let of = "alias=\"chat\",app=\"acme\",channel=\"main\",endpoint=\"chat_completions\"";
    assert_eq!(count(&text, &format!("anima_requests_total{{{of},outcome=\"ok\"}}")), 2);
    let failed = format!("anima_requests_total{{{of},outcome=\"upstream_overloaded\"}}");
    assert_eq!(count(&text, &failed), 1);
    for family in
        ["request_duration_seconds", "gateway_overhead_seconds", "time_to_first_byte_seconds"]
    {
        let observed = count(&text, &format!("anima_{family}_count{{{of}}}"));
        assert_eq!(observed, if family.starts_with("time") { 2 } else { 3 }, "{family}");
    }
    for direction in ["input", "output"] {
        let of = of.replace("endpoint=", &format!("direction=\"{direction}\",endpoint="));
        assert!(sample(&text, &format!("anima_tokens_total{{{of}}}")) > 0.0, "{direction}");
    }
    for family in ["upstream_cost_total", "charge_total"] {
        let of = of.replace("endpoint=", "currency=\"USD\",endpoint=");
        assert!(sample(&text, &format!("anima_{family}{{{of}}}")) > 0.0, "{family}");
    }
    for outcome in ["ok", "upstream_overloaded"] {
        let line =
            format!("anima_upstream_attempts_total{{channel=\"main\",outcome=\"{outcome}\"}}");
        assert!(sample(&text, &line) >= 1.0);
    }
    for operation in ["hold", "settle"] {
        let line = format!("anima_ledger_batch_size_count{{operation=\"{operation}\"}}");
        assert!(sample(&text, &line) >= 4.0);
    }
    assert!(sample(&text, "anima_ledger_batch_duration_seconds_count") >= 8.0);
    assert_eq!(count(&text, "anima_settle_failures_total "), 0);
    assert_eq!(count(&text, "anima_degraded{dependency=\"database\"}"), 0);
    assert!(sample(&text, "anima_config_version ") > 0.0);
    assert!(sample(&text, "process_resident_memory_bytes ") > 1e6);
    assert_eq!(app.raw(Method::GET, "/metrics", &[], "").await.status, 200);
}

async fn callers_choose_no_label(app: &TestApp) {
    for n in 0..20 {
        app.ask(&format!("evil-{n}")).await;
        app.ask_as(&format!("sk-evil{n}-x"), "chat").await;
        app.post(&format!("/v1/evil-{n}"), &json!({})).await;
        let body = json!({"model": "chat", "user": "evil", "messages": prompt("x")["messages"]});
        app.raw(Method::POST, "/v1/chat/completions", &[("x-api-key", "evil")], body.to_string())
            .await;
    }
    let metrics = app.metrics().await;
    assert!(!metrics.contains("evil"), "{metrics}");
    let unknown = "outcome=\"model_not_found\"";
    let line = metrics.lines().find(|l| l.contains(unknown)).unwrap();
    assert!(line.contains("alias=\"\"") && line.contains("app=\"acme\""), "{line}");
    assert!(line.ends_with(" 20"), "{line}");
    assert!(!metrics.contains(&app.key), "no secret is shown");
}

async fn health_and_info_are_told(app: &TestApp) {
    let get = async |path: &str| app.raw(Method::GET, path, &[], "").await;
    for path in ["/actuator/health", "/healthz"] {
        let health = get(path).await;
        assert_eq!(health.status, 200);
        let body = health.json();
        assert_eq!(body["status"], "UP", "{body}");
        assert_eq!(body["components"]["database"]["status"], "UP", "{body}");
        assert_eq!(body["groups"], json!(["liveness", "readiness"]));
    }
    for path in ["/actuator/health/liveness", "/actuator/health/readiness", "/livez", "/readyz"] {
        assert_eq!(get(path).await.json()["status"], "UP", "{path}");
    }
    let info = get("/actuator/info").await.json();
    let database = if app.place.url().is_some() { "postgresql" } else { "sqlite" };
    assert_eq!(info["storage"]["database"], database);
    assert_eq!(info["build"]["name"], "anima");
    assert!(info["config"]["version"].as_i64().unwrap() > 0);
    assert!(get("/actuator").await.json()["_links"]["prometheus"].is_object());
}

async fn nothing_is_left_in_flight(app: &TestApp) {
    app.fault("pace:60");
    let mut stream = app.stream(prompt("chat")).await;
    stream.next().await;
    assert_eq!(count(&app.metrics().await, "anima_inflight_requests "), 1, "a stream counts");
    drop(stream.whole().await);
    for fault in ["", "status:500"] {
        app.fault(fault);
        app.ask("chat").await;
    }
    eventually("nothing is in flight", async || {
        (count(&app.metrics().await, "anima_inflight_requests ") == 0).then_some(())
    })
    .await;
}

/// PostgreSQL only: an open SQLite file cannot be taken away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_a_node_refuses_and_says_so() {
    let Some(place) = Backend::Postgres.place().await else { return };
    let app = Box::pin(TestApp::start(place, "")).await;
    let (_, unseen) = app.mint("acme", json!({})).await;
    assert_eq!(app.ask("chat").await.status, 200);
    app.place.destroy().await;
    let made = app.calls().await.len();
    // The key is in memory, so the caller is known; its call cannot be held.
    for reply in [app.ask("chat").await, app.ask_stream("chat").await] {
        assert_eq!(reply.refusal(), (503, "service_unavailable".into()), "{reply:?}");
        assert_eq!(reply.header("x-should-retry"), "true");
        assert!(!reply.header("retry-after").is_empty());
        assert!(!reply.text().to_lowercase().contains("database"), "{reply:?}");
    }
    // A key that is not in memory cannot be checked, which is not the same as being wrong.
    let reply = app.ask_as(&unseen, "chat").await;
    assert_eq!(reply.refusal(), (503, "auth_unavailable".into()), "{reply:?}");
    assert_eq!(app.calls().await.len(), made, "nothing is sent unheld");
    assert_eq!(app.get("/v1/models").await.status, 200, "reads go on from memory");
    let get = async |path: &str| app.raw(Method::GET, path, &[], "").await;
    assert_eq!(get("/actuator/health/liveness").await.status, 200);
    for path in ["/actuator/health", "/actuator/health/readiness"] {
        let reply = get(path).await;
        assert_eq!((reply.status, reply.json()["status"].clone()), (503, json!("DOWN")), "{path}");
    }
    let metrics = app.metrics().await;
    assert_eq!(count(&metrics, "anima_degraded{dependency=\"database\"}"), 1);
    let reply = app.admin_try(Method::GET, "/apps", &serde_json::Value::Null).await;
    assert_eq!(reply.status, 503, "{reply:?}");
}
