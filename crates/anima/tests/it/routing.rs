//! Which way calls go when upstreams fail: circuits, chains, waits, steering.

use anima::clock::SystemClock;
use anima_core::clock::Clock as _;
use http::Method;
use serde_json::{Value, json};

use crate::testapp::{BACKUP_SECRET, MAIN_SECRET, TestApp, on_both, prompt};

mod chains;

on_both! {
    an_open_circuit_is_passed_by_until_its_probes_pass;
    a_chain_follows_the_class_of_the_failure;
    a_chain_that_leads_back_is_refused;
    a_second_credential_answers_when_the_first_is_refused;
    a_short_wait_that_the_provider_asks_for_is_waited;
    what_fails_after_a_rest_is_tried_once_more;
    when_everything_is_open_a_few_trickle_through;
    a_deadline_of_the_caller_ends_the_call;
    a_channel_switched_off_in_the_middle_of_a_call_is_not_fallen_back_to;
    a_refusal_of_the_content_goes_on_only_where_it_may;
    rehearsed_faults_fall_back_cost_nothing_and_end;
    circuits_that_only_measure_leave_no_channel_out;
    a_caller_switched_off_in_the_middle_of_a_call_gets_no_further_attempt;
    callers_steer_where_they_may ("caller_steering = \"on\"\ncaller_trace = \"on\"");
}

/// The channel `backup`, and the alias `two` with `main` before it.
async fn two(app: &TestApp, breaker: Value) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.patch("/channels/main", json!({ "breaker": breaker })).await;
    app.alias("two", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
}

fn fail_main(app: &TestApp, fault: &str) {
    app.script(&json!([{"match": {"key": MAIN_SECRET}, "do": fault}]));
}

async fn circuit(app: &TestApp, channel: &str) -> Value {
    let page = app.admin(Method::GET, &format!("/circuits?channel={channel}"), &Value::Null).await;
    page["items"][0].clone()
}

async fn an_open_circuit_is_passed_by_until_its_probes_pass(app: &TestApp) {
    two(app, json!({"consecutive_failures": 3, "open_ms": 300, "half_open_permits": 1})).await;
    fail_main(app, "status:500");
    for n in 0..6 {
        let reply = app.ask("two").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let attempts = if n < 3 { "2" } else { "1" };
        assert_eq!(reply.header("x-anima-attempts"), attempts, "call {n}");
    }
    assert_eq!(circuit(app, "main").await["circuits"][1]["cause"], json!("consecutive_failures"));
    assert!(
        app.metrics().await.contains("anima_circuit_state{channel=\"main\",model=\"sim-chat\"} 2")
    );
    // Heals without telling the node.
    let script = json!({"rules": []}).to_string();
    app.upstream.set_script(anima_simulator::Script::from_json(script.as_bytes()).unwrap());
    crate::testapp::eventually("the circuit closes", async || {
        assert_eq!(app.ask("two").await.status, 200);
        (circuit(app, "main").await["circuits"][1]["state"] == json!("closed")).then_some(())
    })
    .await;
    assert_eq!(app.ask("two").await.header("x-anima-served-model"), "sim-chat");
}

async fn a_channel_switched_off_in_the_middle_of_a_call_is_not_fallen_back_to(app: &TestApp) {
    two(app, json!({})).await;
    fail_main(app, "status:500+latency:1500");
    let before = app.upstream.calls().len();
    let switched = async {
        crate::testapp::eventually("the first attempt is under way", async || {
            (app.upstream.calls().len() > before).then_some(())
        })
        .await;
        app.switch("/channels/backup", false).await;
    };
    let (reply, ()) = tokio::join!(app.ask("two"), switched);
    assert!(reply.status >= 500, "{reply:?}");
    let models: Vec<_> = app.upstream.calls().into_iter().skip(before).map(|c| c.model).collect();
    assert!(models.iter().all(|model| model == "sim-chat"), "the other channel got {models:?}");
    app.switch("/channels/backup", true).await;
    assert_eq!(app.ask("two").await.header("x-anima-served-model"), "sim-other");
}

async fn a_caller_switched_off_in_the_middle_of_a_call_gets_no_further_attempt(app: &TestApp) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("other", "chat", &[("backup", "sim-other")]).await;
    app.alias("chained", "chat", &[("main", "sim-chat")]).await;
    let chained = json!({"fallbacks": {"error": ["other"]}, "retry": {"max_attempts": 3}});
    app.patch("/aliases/chained", chained).await;
    app.create("/token-groups", &json!({"code": "gold", "aliases": ["*"]})).await;
    let (key_path, key) = app.mint("acme", json!({"token_group": "gold"})).await;
    fail_main(app, "status:500+latency:1500");
    for (path, refusal) in [
        (&*key_path, (401, "invalid_api_key")),
        ("/apps/acme", (401, "invalid_api_key")),
        ("/token-groups/gold", (503, "service_suspended")),
        ("/aliases/chained", (503, "service_suspended")),
    ] {
        let before = app.upstream.calls().len();
        let switched = async {
            crate::testapp::eventually("the first attempt is under way", async || {
                (app.upstream.calls().len() > before).then_some(())
            })
            .await;
            app.switch(path, false).await;
        };
        let (reply, ()) = tokio::join!(app.ask_as(&key, "chained"), switched);
        assert_eq!(reply.refusal(), (refusal.0, refusal.1.to_owned()), "{path}: {reply:?}");
        assert_eq!(app.upstream.calls().len(), before + 1, "{path}");
        app.switch(path, true).await;
    }
    assert_eq!(app.ask_as(&key, "chained").await.header("x-anima-served-model"), "sim-other");
}

async fn a_chain_follows_the_class_of_the_failure(app: &TestApp) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("larger", "chat", &[("backup", "sim-large")]).await;
    app.alias("other", "chat", &[("backup", "sim-other")]).await;
    app.alias("chained", "chat", &[("main", "sim-chat")]).await;
    let fallbacks = json!({"error": ["other"], "context_window": ["larger"]});
    let retry = json!({"max_attempts": 3});
    app.patch("/aliases/chained", json!({"fallbacks": fallbacks, "retry": retry})).await;
    for (fault, served) in
        [("status:500", "sim-other"), ("status:429", "sim-other"), ("context-length", "sim-large")]
    {
        for stream in [false, true] {
            fail_main(app, fault);
            let reply =
                if stream { app.ask_stream("chained").await } else { app.ask("chained").await };
            assert_eq!(reply.status, 200, "{fault}: {reply:?}");
            assert_eq!(reply.header("x-anima-served-model"), served, "{fault}");
            assert_ne!(reply.header("x-anima-fallback-index"), "", "{fault}");
            let legs = app.legs(&reply).await;
            let sale = legs.iter().find(|leg| leg.component == "sale").unwrap();
            let price = &sale.price.as_ref().unwrap().0;
            assert!(price.contains("chained"), "the alias that was asked for is sold: {price}");
        }
    }
    fail_main(app, "status:400");
    assert_eq!(app.ask("chained").await.status, 400, "the caller's own fault falls back nowhere");
}

async fn a_chain_that_leads_back_is_refused(app: &TestApp) {
    app.alias("a", "chat", &[("main", "sim-chat")]).await;
    app.alias("b", "chat", &[("main", "sim-chat")]).await;
    app.patch("/aliases/b", json!({"fallbacks": {"error": ["a"]}})).await;
    let row = app.admin(Method::GET, "/aliases/a", &Value::Null).await;
    for (fallbacks, member) in [
        (json!({"timeout": ["b"]}), "fallbacks.timeout[0]"),
        (json!({"error": ["a"]}), "fallbacks.error[0]"),
        (json!({"error": ["nobody"]}), "fallbacks.error[0]"),
    ] {
        let body = json!({"version_no": row["version_no"], "fallbacks": fallbacks});
        let refused = app.admin_try(Method::PATCH, "/aliases/a", &body).await;
        assert!((400..=422).contains(&refused.status), "{refused:?}");
        assert!(refused.text().contains(member), "{refused:?}");
    }
}

async fn a_second_credential_answers_when_the_first_is_refused(app: &TestApp) {
    let credentials = json!([
        {"code": "one", "secret": "sk-one"}, {"code": "two", "secret": "sk-two"},
    ]);
    app.patch("/channels/main", json!({ "credentials": credentials })).await;
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 3}})).await;
    app.script(&json!([{"match": {"key": "sk-one"}, "do": "401"}]));
    for _ in 0..8 {
        let reply = app.ask("chat").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let refused = app.calls().await.iter().filter(|call| call.status == Some(401)).count();
    assert!(refused <= 1, "it is out after the first refusal: {refused}");
}

async fn a_short_wait_that_the_provider_asks_for_is_waited(app: &TestApp) {
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 2}})).await;
    app.script(&json!([{"match": {"times": 1}, "do": "status:429:retry-after=1"}]));
    let reply = app.ask("chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("x-anima-attempts"), "2");
}

async fn what_fails_after_a_rest_is_tried_once_more(app: &TestApp) {
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 1}})).await;
    app.script(&json!([
        {"match": {"times": 1}, "do": "status:429:retry-after=1"},
        {"match": {"times": 1}, "do": "status:500"},
    ]));
    assert_eq!(app.ask("chat").await.status, 429);
    app.patch("/aliases/chat", json!({"retry": {"max_attempts": 2}})).await;
    let reply = app.ask("chat").await;
    assert_eq!((reply.status, reply.header("x-anima-attempts")), (200, "2"), "{reply:?}");
}

async fn when_everything_is_open_a_few_trickle_through(app: &TestApp) {
    let breaker = json!({"consecutive_failures": 2, "open_ms": 60_000});
    app.patch("/channels/main", json!({ "breaker": breaker })).await;
    app.fault("status:500");
    for _ in 0..2 {
        assert_eq!(app.ask("chat").await.status, 502);
    }
    let reply = app.ask("chat").await;
    assert_eq!((reply.status, reply.header("x-anima-last-resort")), (502, "true"), "{reply:?}");
    assert!(app.metrics().await.contains("anima_last_resort_total{channel=\"main\"} 1"));
}

async fn a_deadline_of_the_caller_ends_the_call(app: &TestApp) {
    app.fault("latency:5000");
    for (name, value) in [("x-anima-deadline-ms", "80"), ("x-stainless-timeout", "0.08")] {
        let headers = [("x-api-key", app.key.as_str()), (name, value)];
        let body = prompt("chat").to_string();
        let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body).await;
        assert_eq!(reply.refusal(), (504, "upstream_timeout".into()), "{name}: {reply:?}");
    }
    let headers = [("x-api-key", app.key.as_str()), ("x-anima-deadline-ms", "soon")];
    let body = prompt("chat").to_string();
    let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body).await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

async fn callers_steer_where_they_may(app: &TestApp) {
    two(app, json!({})).await;
    for (name, value, status, served) in [
        ("x-anima-only", "backup", 200, "sim-other"),
        ("x-anima-ignore", "main", 200, "sim-other"),
        ("x-anima-order", "backup,main", 200, "sim-other"),
        ("x-anima-only", "nowhere", 503, ""),
        ("x-anima-max-price", "output=1000000", 200, "sim-chat"),
        ("x-anima-max-price", "input=0, output=0", 503, ""),
        ("x-anima-max-price", "cheap", 400, ""),
        ("x-anima-trace", "1", 200, "sim-chat"),
    ] {
        let headers = [("x-api-key", app.key.as_str()), (name, value)];
        let body = prompt("two").to_string();
        let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body).await;
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        assert_eq!(reply.header("x-anima-served-model"), served, "{name}");
        let traced = reply.header("x-anima-trace").contains("\"outcome\":\"ok\"");
        assert_eq!(traced, name == "x-anima-trace", "{name}: {reply:?}");
    }
}

async fn a_refusal_of_the_content_goes_on_only_where_it_may(app: &TestApp) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("other", "chat", &[("backup", "sim-other")]).await;
    app.alias("strict", "chat", &[("main", "sim-chat"), ("backup", "sim-chat")]).await;
    app.patch("/aliases/strict", json!({"fallbacks": {"error": ["other"]}})).await;
    app.alias("lenient", "chat", &[("main", "sim-chat"), ("backup", "sim-chat")]).await;
    app.patch("/aliases/lenient", json!({"fallbacks": {"content_policy": ["other"]}})).await;
    let refused = json!([{"match": {"model": "sim-chat"},
        "do": "status:400:code=content_policy_violation"}]);
    app.script(&refused);
    for stream in [false, true] {
        let ask = async |alias: &str| {
            if stream { app.ask_stream(alias).await } else { app.ask(alias).await }
        };
        let reply = ask("strict").await;
        assert_eq!(reply.refusal(), (400, "content_policy_violation".into()), "{reply:?}");
        let reply = ask("lenient").await;
        assert_eq!((reply.status, reply.header("x-anima-served-model")), (200, "sim-other"));
        assert_eq!(reply.header("x-anima-attempts"), "2", "no other channel refuses it again");
    }
    let state = &circuit(app, "main").await["circuits"][1]["state"];
    assert_eq!(state, "closed", "and it is no failure of the channel");
}

/// An instant so far from now.
fn from_now(ms: i64) -> Value {
    json!(SystemClock.now().plus_millis(ms))
}

async fn rehearsed_faults_fall_back_cost_nothing_and_end(app: &TestApp) {
    two(app, json!({})).await;
    let rule = |until| json!({"faults": [{"percent": 100, "fail": "error", "until": until}]});
    app.patch("/channels/main", rule(from_now(60_000))).await;
    let before = app.upstream.calls().len();
    let reply = app.ask("two").await;
    assert_eq!((reply.status, reply.header("x-anima-served-model")), (200, "sim-other"));
    assert_eq!(app.upstream.calls().len(), before + 1, "nothing was sent to the first channel");
    let waste = app.legs(&reply).await.into_iter().filter(|leg| leg.component == "waste").count();
    assert_eq!(waste, 0, "and nothing is booked for it");
    let path = format!("/requests/{}", reply.request_id());
    let record = app.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(record["attempts"][0]["injected"], true, "{record:#}");
    let counted = "anima_faults_injected_total{channel=\"main\",fault=\"error\"} 1";
    assert!(app.metrics().await.contains(counted));
    app.patch("/channels/main", rule(from_now(-1))).await;
    assert_eq!(app.ask("two").await.header("x-anima-served-model"), "sim-chat");
    let row = app.admin(Method::GET, "/channels/main", &Value::Null).await;
    for (faults, member) in [
        (json!([{"percent": 0, "fail": "error", "until": from_now(1)}]), "faults[0].percent"),
        (json!([{"percent": 5, "until": from_now(1)}]), "faults[0].fail"),
        (json!([{"percent": 5, "fail": "error"}]), "until"),
        (json!([{"percent": 5, "fail": "error", "until": from_now(8 * 86_400_000)}]), "faults"),
    ] {
        let body = json!({"version_no": row["version_no"], "faults": faults});
        let refused = app.admin_try(Method::PATCH, "/channels/main", &body).await;
        assert!((400..=422).contains(&refused.status), "{refused:?}");
        assert!(refused.text().contains(member), "{refused:?}");
    }
}

async fn circuits_that_only_measure_leave_no_channel_out(app: &TestApp) {
    let until = from_now(60_000);
    let breaker = json!({"consecutive_failures": 2, "open_ms": 60_000,
        "metrics_only_until": until});
    two(app, breaker).await;
    fail_main(app, "status:500");
    for _ in 0..5 {
        assert_eq!(app.ask("two").await.header("x-anima-attempts"), "2");
    }
    assert_eq!(
        circuit(app, "main").await["circuits"][1]["state"],
        "open",
        "it judges all the same"
    );
    app.patch("/channels/main", json!({"breaker": {"metrics_only_until": null}})).await;
    assert_eq!(app.ask("two").await.header("x-anima-attempts"), "1", "and then it counts");
}
