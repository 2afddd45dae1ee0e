//! What an upstream can do to a call: each fault with the caller's answer and both sides of the
//! books. Alone, and with a second channel behind it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::testapp::{
    BACKUP_SECRET, COST, Leg, MAIN_SECRET, Reply, SALE, TestApp, on_both, owed, prompt,
};

on_both! {
    refusals_of_a_provider_cost_nothing;
    what_may_have_been_worked_on_is_booked_as_waste;
    silence_ends_in_time;
    usage_that_cannot_be_believed_is_counted_and_flagged;
    usage_told_twice_is_billed_once;
    a_long_line_is_an_answer_like_any_other;
    an_empty_answer_is_not_sold;
    a_stream_that_breaks_is_sold_as_far_as_it_came;
    a_stream_without_done_is_billed_by_its_usage;
    an_answer_that_says_it_failed_is_a_failure;
    a_provider_that_failed_is_not_waited_for;
    a_running_count_of_a_cut_stream_is_an_estimate;
    a_second_channel_answers_and_the_waste_is_booked;
    a_stream_falls_back_until_its_first_content;
    the_callers_own_fault_is_tried_once;
    the_attempt_budget_is_kept;
    a_wait_that_the_provider_asks_for_is_passed_on;
    an_upstream_that_is_not_there_is_unreachable;
    a_private_address_needs_permission;
    an_answer_that_is_too_large_is_refused ("answer_bytes_max = 100000");
}

/// What a side of the books shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Nothing,
    /// What the truth log says.
    Exact,
    /// Some amount, flagged.
    Estimate,
    /// An attempt that served nobody, some amount, flagged.
    Waste,
    /// The same with what the truth log says.
    ExactWaste,
}

use Side::{Estimate, Exact, ExactWaste, Nothing, Waste};

/// Compares the legs of a request that one attempt was made for.
async fn assert_booked(app: &TestApp, reply: &Reply, sale: Side, cost: Side, what: &str) {
    let calls = app.calls_of(reply).await;
    let [call] = &calls[..] else { panic!("{what}: one call, not {calls:?}") };
    let legs = app.legs(reply).await;
    let sold = legs.iter().find(|leg| leg.component == "sale");
    let bought = legs.iter().find(|leg| leg.component != "sale");
    let expected = usize::from(sale != Nothing) + usize::from(cost != Nothing);
    assert_eq!(legs.len(), expected, "{what}: {legs:?}");
    let exact = |rates| owed(rates, &call.billed, 1_000);
    for (leg, side, amount) in [(sold, sale, exact(&SALE)), (bought, cost, exact(&COST))] {
        let Some(leg) = leg else {
            assert_eq!(side, Nothing, "{what}: {legs:?}");
            continue;
        };
        let debit = match (leg.component.as_str(), side) {
            ("sale", _) => "wallet:acme",
            (_, Waste | ExactWaste) => "wasted_cost",
            _ => "cost_of_sales",
        };
        assert_eq!(leg.debit, debit, "{what}: {leg:?}");
        assert_eq!(leg.estimate, matches!(side, Estimate | Waste), "{what}: {leg:?}");
        if matches!(side, Exact | ExactWaste) {
            assert_eq!(leg.amount, amount, "{what}: {leg:?} {call:?}");
        } else {
            // What came and could not be used counts by its bytes, so a long line costs a lot.
            let most = if what.contains("huge") { 2_000_000_000 } else { 10 * amount.max(100_000) };
            assert!(leg.amount > 0 && leg.amount < most, "{what}: {leg:?}");
        }
    }
}

/// Both forms of a call that fails before its first content byte.
async fn assert_fails(app: &TestApp, fault: &str, (status, code): (u16, &str), cost: Side) {
    for stream in [false, true] {
        app.fault(fault);
        let reply = if stream { app.ask_stream("chat").await } else { app.ask("chat").await };
        assert_eq!(reply.refusal(), (status, code.to_owned()), "{fault}: {reply:?}");
        assert_eq!(reply.header("x-anima-attempts"), "1", "{fault}");
        assert!(!reply.text().contains("simcall"), "{fault}: {reply:?}");
        assert_booked(app, &reply, Nothing, cost, fault).await;
    }
}

async fn refusals_of_a_provider_cost_nothing(app: &TestApp) {
    for (fault, status, code) in [
        ("status:400", 400, "invalid_request"),
        ("status:401", 502, "upstream_auth"),
        ("status:403", 502, "upstream_auth"),
        ("status:404:code=model_not_found", 502, "upstream_model_not_found"),
        ("status:422", 400, "invalid_request"),
        ("status:429", 429, "rate_limit_exceeded"),
        ("status:429:code=insufficient_quota", 502, "upstream_account_exhausted"),
        ("status:503", 503, "upstream_overloaded"),
        ("status:529", 503, "upstream_overloaded"),
        ("context-length", 400, "context_length_exceeded"),
    ] {
        assert_fails(app, fault, (status, code), Nothing).await;
    }
}

async fn what_may_have_been_worked_on_is_booked_as_waste(app: &TestApp) {
    for (fault, status, code) in [
        ("status:500", 502, "upstream_error"),
        ("status:502", 502, "upstream_error"),
        ("status:504", 502, "upstream_error"),
        ("reset", 502, "upstream_connection_lost"),
        ("bad-json", 502, "upstream_malformed"),
        ("error-in-200", 502, "upstream_error"),
    ] {
        assert_fails(app, fault, (status, code), Waste).await;
    }
    app.fault("content-length");
    let reply = app.ask("chat").await;
    assert_eq!(reply.refusal(), (502, "upstream_connection_lost".into()));
    assert_booked(app, &reply, Nothing, Waste, "content-length").await;
    for (fault, code) in
        [("cut-stream:0", "upstream_stream_cut"), ("bad-sse:1", "upstream_malformed")]
    {
        app.fault(fault);
        let reply = app.ask_stream("chat").await;
        assert_eq!(reply.status, 502, "{fault}: {reply:?}");
        assert!(
            [code, "upstream_connection_lost"].contains(&reply.refusal().1.as_str()),
            "{fault}: {reply:?}"
        );
        assert_booked(app, &reply, Nothing, Waste, fault).await;
    }
}

async fn silence_ends_in_time(app: &TestApp) {
    hasten(app, json!({"first_byte_ms": 60})).await;
    assert_fails(app, "silent", (504, "upstream_timeout"), Waste).await;
    hasten(app, json!({"first_byte_ms": 20_000, "idle_ms": 250})).await;
    app.fault("silent-stream:0");
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.refusal(), (504, "upstream_timeout".into()));
    assert_booked(app, &reply, Nothing, Waste, "silent-stream:0").await;
    app.fault("silent-stream:3");
    let reply = app.ask_stream("chat").await;
    assert_broken(&reply, 3, "upstream_timeout", "silent-stream:3");
    assert_booked(app, &reply, Estimate, Estimate, "silent-stream:3").await;
    // The whole call's deadline ends a stream that never pauses long enough.
    hasten(app, json!({"idle_ms": 20_000})).await;
    app.patch("/aliases/chat", json!({"retry": {"deadline_ms": 700}})).await;
    app.fault("pace:50+answer-tokens:1000+chunks:1000");
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.last_event()["error"]["code"], "upstream_timeout", "{reply:?}");
    assert_booked(app, &reply, Estimate, Estimate, "deadline").await;
}

/// Other timeouts for `main`. Short ones are for who falls silent only: on a busy machine everybody
/// is silent for a while.
async fn hasten(app: &TestApp, timeouts: Value) {
    app.patch("/channels/main", json!({ "timeouts": timeouts })).await;
}

/// A stream that began and failed: the content that came, then an error event, and no terminator.
fn assert_broken(reply: &Reply, chunks: usize, code: &str, what: &str) {
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
    assert!(reply.complete, "{what}: the reply itself ends properly");
    let text = reply.text();
    assert!(!text.contains("[DONE]"), "{what}: {text}");
    let last = reply.last_event();
    assert_eq!(last["error"]["code"], code, "{what}: {text}");
    let words = reply.events().iter().filter(|e| e.contains("\"delta\":{\"content\"")).count();
    assert_eq!(words, chunks, "{what}: {text}");
}

async fn usage_that_cannot_be_believed_is_counted_and_flagged(app: &TestApp) {
    app.embedding().await;
    for fault in ["usage-missing", "usage-absurd", "usage-negative"] {
        app.fault(fault);
        for reply in [app.ask("chat").await, app.ask_stream("chat").await] {
            assert_eq!(reply.status, 200, "{fault}: {reply:?}");
            assert_booked(app, &reply, Estimate, Estimate, fault).await;
        }
        let reply = app.post("/v1/embeddings", &json!({"model": "embed", "input": "a b c"})).await;
        assert_eq!(reply.status, 200, "{fault}: {reply:?}");
        assert_booked(app, &reply, Estimate, Estimate, fault).await;
    }
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_usage_suspect_total{channel=\"main\"} 9"), "{metrics}");
}

async fn usage_told_twice_is_billed_once(app: &TestApp) {
    app.fault("usage-twice");
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    assert_booked(app, &reply, Exact, Exact, "usage-twice").await;
    // A JSON object with the member twice means different things to different readers: neither is
    // believed.
    let reply = app.ask("chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_booked(app, &reply, Estimate, Estimate, "usage-twice").await;
}

async fn a_long_line_is_an_answer_like_any_other(app: &TestApp) {
    // Pictures have some megabytes. The bound of an event is the wire's, that of a whole answer
    // `answer_bytes_max`.
    for bytes in [1_000_000, 2_000_000] {
        app.fault(&format!("huge-line:{bytes}"));
        for reply in [app.ask("chat").await, app.ask_stream("chat").await] {
            assert_eq!(reply.status, 200);
            assert!(reply.body.len() > bytes, "{}", reply.body.len());
            assert_booked(app, &reply, Exact, Exact, "huge-line").await;
        }
    }
}

async fn an_empty_answer_is_not_sold(app: &TestApp) {
    app.fault("empty");
    for reply in [app.ask("chat").await, app.ask_stream("chat").await] {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_booked(app, &reply, Nothing, ExactWaste, "empty").await;
    }
    // Nothing at all, not even usage, is a failure of the provider, and another one may answer.
    with_backup(app).await;
    fault_on_main(app, "empty+usage-missing");
    for reply in [app.ask("chat").await, app.ask_stream("chat").await] {
        assert_eq!(reply.refusal(), (502, "upstream_empty".into()));
        assert_booked(app, &reply, Nothing, Waste, "nothing at all").await;
    }
    for reply in [app.ask("twice").await, app.ask_stream("twice").await] {
        assert_second_served(app, &reply, Waste, "nothing at all").await;
    }
}

async fn a_stream_that_breaks_is_sold_as_far_as_it_came(app: &TestApp) {
    for (fault, chunks, code) in [
        ("cut-stream:3", 3, "upstream_stream_cut"),
        ("bad-sse:3", 2, "upstream_malformed"),
        ("error-in-200:4", 4, "upstream_error"),
    ] {
        app.fault(fault);
        let reply = app.ask_stream("chat").await;
        assert_broken(&reply, chunks, code, fault);
        let extra = reply.last_event()["anima"]["request_id"].clone();
        assert_eq!(extra, json!(reply.request_id()), "{fault}");
        assert_booked(app, &reply, Estimate, Estimate, fault).await;
    }
}

async fn a_stream_without_done_is_billed_by_its_usage(app: &TestApp) {
    app.fault("no-done");
    let reply = app.ask_stream("chat").await;
    assert_broken(&reply, 16, "upstream_stream_cut", "no-done");
    assert_booked(app, &reply, Exact, Exact, "no-done").await;
}

async fn an_answer_that_says_it_failed_is_a_failure(app: &TestApp) {
    app.fault("finish-error");
    let reply = app.ask("chat").await;
    assert_eq!(reply.refusal(), (502, "upstream_error".into()), "{reply:?}");
    assert_booked(app, &reply, Nothing, ExactWaste, "whole").await;
    let reply = app.ask_stream("chat").await;
    assert_broken(&reply, 16, "upstream_error", "stream");
    assert!(!reply.text().contains("network_error"), "{reply:?}");
    assert_booked(app, &reply, Exact, Exact, "stream").await;
    app.fault("finish-error+empty");
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.refusal(), (502, "upstream_error".into()), "{reply:?}");
    assert_booked(app, &reply, Nothing, ExactWaste, "no content").await;
    // Another one may answer as long as nothing was shown, and the circuit counts it.
    with_backup(app).await;
    fault_on_main(app, "finish-error");
    let reply = app.ask("twice").await;
    assert_eq!(reply.header("x-anima-attempts"), "2", "{reply:?}");
    let waste: Vec<_> = app.legs(&reply).await;
    let waste = waste.iter().find(|leg| leg.component == "waste").map(Leg::line).unwrap();
    let worked = owed(&COST, &app.calls_of(&reply).await[0].billed, 1_000);
    assert_eq!(waste, ("wasted_cost", "payable:main", worked, false));
}

async fn a_provider_that_failed_is_not_waited_for(app: &TestApp) {
    hasten(app, json!({"first_byte_ms": 50_000, "idle_ms": 40_000})).await;
    let asked = Instant::now();
    app.fault("finish-silent");
    let reply = app.ask_stream("chat").await;
    assert_broken(&reply, 16, "upstream_error", "content");
    assert_booked(app, &reply, Estimate, Estimate, "content").await;
    app.fault("finish-silent+empty");
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.refusal(), (502, "upstream_error".into()), "{reply:?}");
    assert_booked(app, &reply, Nothing, Waste, "no content").await;
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
}

async fn a_running_count_of_a_cut_stream_is_an_estimate(app: &TestApp) {
    let origin = app.upstream_url.trim_end_matches("/v1").to_owned();
    app.channel("google", MAIN_SECRET, json!({"provider": "gemini", "base_url": origin})).await;
    app.alias("told", "chat", &[("google", "sim-chat")]).await;
    app.fault("cut-stream:3");
    let reply = app.ask_stream("told").await;
    assert_broken(&reply, 3, "upstream_stream_cut", "cut");
    assert_booked(app, &reply, Estimate, Estimate, "cut").await;
    // What the provider had counted by then is all of it, since nothing came after.
    let call = &app.calls_of(&reply).await[0];
    for (leg, rates) in app.legs(&reply).await.iter().zip([&SALE, &COST]) {
        assert_eq!(leg.amount, owed(rates, &call.billed, 1_000), "{leg:?} {call:?}");
    }
    // With the reason to end the count is the last one.
    app.fault("finish-error");
    let reply = app.ask_stream("told").await;
    assert_broken(&reply, 16, "upstream_error", "whole");
    assert_booked(app, &reply, Exact, Exact, "whole").await;
}

/// An alias with a second channel to another model, and the fault on the first one.
async fn with_backup(app: &TestApp) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("twice", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
}

fn fault_on_main(app: &TestApp, fault: &str) {
    app.script(&json!([{"match": {"key": MAIN_SECRET}, "do": fault}]));
}

/// The second channel served: exactly once, at its own cost and the alias's price.
async fn assert_second_served(app: &TestApp, reply: &Reply, waste: Side, what: &str) {
    assert_eq!(reply.status, 200, "{what}: {reply:?}");
    assert_eq!(reply.header("x-anima-attempts"), "2", "{what}");
    assert_eq!(reply.header("x-anima-served-model"), "sim-other", "{what}");
    let calls = app.calls_of(reply).await;
    let [first, second] = &calls[..] else { panic!("{what}: two calls, not {calls:?}") };
    assert_eq!((first.model.as_str(), second.model.as_str()), ("sim-chat", "sim-other"), "{what}");
    let (sale, cost) = (owed(&SALE, &second.billed, 1_000), owed(&COST, &second.billed, 1_000));
    let legs = app.legs(reply).await;
    let (wasted, rest): (Vec<_>, Vec<_>) = legs.iter().partition(|leg| leg.component == "waste");
    let lines: Vec<_> = rest.into_iter().map(Leg::line).collect();
    assert_eq!(
        lines,
        [("wallet:acme", "revenue", sale, false), ("cost_of_sales", "payable:backup", cost, false)],
        "{what}"
    );
    assert_eq!(wasted.len(), usize::from(waste == Waste), "{what}: {legs:?}");
    for leg in wasted {
        assert_eq!((leg.debit.as_str(), leg.attempt), ("wasted_cost", Some(1)), "{what}");
        assert_eq!((leg.credit.as_str(), leg.estimate), ("payable_estimated:main", true), "{what}");
    }
}

async fn a_second_channel_answers_and_the_waste_is_booked(app: &TestApp) {
    with_backup(app).await;
    for (fault, waste) in [
        ("status:500", Waste),
        ("status:503", Nothing),
        ("status:429", Nothing),
        ("status:429:retry-after=2", Nothing),
        ("401", Nothing),
        ("status:404:code=model_not_found", Nothing),
        ("reset", Waste),
        ("bad-json", Waste),
        ("error-in-200", Waste),
        ("silent", Waste),
    ] {
        if fault == "silent" {
            hasten(app, json!({"first_byte_ms": 60})).await;
        }
        for stream in [false, true] {
            fault_on_main(app, fault);
            let asked = if stream { app.ask_stream("twice").await } else { app.ask("twice").await };
            assert_second_served(app, &asked, waste, fault).await;
        }
    }
    hasten(app, json!({"first_byte_ms": 20_000})).await;
    fault_on_main(app, "content-length");
    assert_second_served(app, &app.ask("twice").await, Waste, "content-length").await;
}

async fn a_stream_falls_back_until_its_first_content(app: &TestApp) {
    with_backup(app).await;
    for fault in ["cut-stream:0", "bad-sse:1", "error-in-200:0", "silent-stream:0"] {
        if fault == "silent-stream:0" {
            hasten(app, json!({"idle_ms": 60})).await;
        }
        fault_on_main(app, fault);
        let reply = app.ask_stream("twice").await;
        assert_second_served(app, &reply, Waste, fault).await;
        let text = reply.text();
        assert!(text.ends_with("data: [DONE]\n\n"), "{fault}: {text}");
        assert_eq!(
            text.matches("\"role\":\"assistant\"").count(),
            1,
            "{fault}: one stream: {text}"
        );
    }
    hasten(app, json!({"idle_ms": 20_000})).await;
    fault_on_main(app, "cut-stream:1");
    let reply = app.ask_stream("twice").await;
    assert_broken(&reply, 1, "upstream_stream_cut", "after content");
    assert_eq!(app.calls_of(&reply).await.len(), 1);
}

async fn the_callers_own_fault_is_tried_once(app: &TestApp) {
    with_backup(app).await;
    for (fault, code) in [
        ("context-length", "context_length_exceeded"),
        ("status:400", "invalid_request"),
        ("status:400:code=content_policy_violation", "content_policy_violation"),
    ] {
        fault_on_main(app, fault);
        let reply = app.ask("twice").await;
        assert_eq!(reply.refusal(), (400, code.into()), "{fault}");
        assert_eq!(reply.header("x-anima-attempts"), "1", "{fault}");
        assert_eq!(app.calls_of(&reply).await.len(), 1, "{fault}");
    }
}

async fn the_attempt_budget_is_kept(app: &TestApp) {
    with_backup(app).await;
    app.alias("once", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
    app.patch("/aliases/once", json!({"retry": {"max_attempts": 1}})).await;
    app.fault("status:503");
    for (alias, attempts) in [("once", "1"), ("twice", "2")] {
        let reply = app.ask(alias).await;
        assert_eq!(reply.refusal(), (503, "upstream_overloaded".into()));
        assert_eq!(reply.header("x-anima-attempts"), attempts);
        assert_eq!(app.calls_of(&reply).await.len().to_string(), attempts);
    }
}

async fn a_wait_that_the_provider_asks_for_is_passed_on(app: &TestApp) {
    for (fault, seconds, should) in [
        ("status:429:retry-after=2", "2", "true"),
        ("status:429:retry-after-ms=1500", "2", "true"),
        ("status:503:retry-after=7", "7", "true"),
        ("status:429:retry-after=3600", "3600", "false"),
        ("status:429", "", "true"),
    ] {
        app.fault(fault);
        let reply = app.ask("chat").await;
        assert_eq!(reply.header("retry-after"), seconds, "{fault}: {reply:?}");
        assert_eq!(reply.header("x-should-retry"), should, "{fault}");
    }
    assert_eq!(app.ask("chat").await.json()["error"]["type"], "requests");
}

async fn an_upstream_that_is_not_there_is_unreachable(app: &TestApp) {
    // A port that was free a moment ago and that nobody listens on.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let base_url = format!("http://{address}/v1");
    app.channel("gone", MAIN_SECRET, json!({ "base_url": base_url })).await;
    app.alias("away", "chat", &[("gone", "sim-chat")]).await;
    for reply in [app.ask("away").await, app.ask_stream("away").await] {
        assert_eq!(reply.refusal(), (502, "upstream_unreachable".into()));
        assert!(!reply.text().contains("127.0.0.1"), "{reply:?}");
        assert!(app.legs(&reply).await.is_empty());
    }
}

async fn a_private_address_needs_permission(app: &TestApp) {
    // A name that leads to loopback passes the admin API's look at the text.
    let port = app.upstream_url.rsplit_once(':').unwrap().1.to_owned();
    let base_url = format!("http://127.0.0.1:{port}");
    let row = json!({"code": "inside", "provider": "openai_compatible", "base_url": base_url,
        "credentials": [{"code": "a", "secret": "x"}]});
    let refused = app.admin_try(http::Method::POST, "/channels", &row).await;
    assert_eq!(
        (refused.status, refused.json()["errors"][0]["member"].clone()),
        (400, json!("base_url"))
    );
    app.channel("inside", "x", json!({})).await;
    app.alias("inner", "chat", &[("inside", "sim-chat")]).await;
    assert_eq!(app.ask("inner").await.status, 200);
}

async fn an_answer_that_is_too_large_is_refused(app: &TestApp) {
    app.fault("huge-line:200000");
    let reply = app.ask("chat").await;
    assert_eq!(reply.refusal(), (502, "upstream_answer_too_large".into()));
    assert_booked(app, &reply, Nothing, Waste, "huge-line").await;
    let reply = app.stream(prompt("chat")).await.whole().await;
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
}
