//! Clients that leave: before the head, in the middle of a stream, between two attempts. The call
//! is settled whatever happens, as the channel's `on_disconnect` says, and nothing new is started.

use anima_simulator::Outcome;
use http::Method;
use serde_json::{Value, json};

use crate::testapp::{
    BACKUP_SECRET, COST, Leg, MAIN_SECRET, SALE, TestApp, eventually, on_both, owed, prompt,
};

on_both! {
    a_client_that_leaves_before_the_head_pays_for_what_was_made;
    a_channel_that_cancels_stops_before_the_head;
    a_client_that_leaves_a_stream_pays_for_all_of_it_when_it_is_drained;
    a_cancelled_stream_is_sold_as_far_as_it_came;
    a_drain_has_a_bound ("drain_timeout_ms = 100");
    nobody_waits_for_a_second_channel;
    a_client_that_leaves_while_it_asks_has_not_asked;
    many_clients_leave_at_any_point;
}

/// The bytes of a chat request of a bare socket.
fn request(app: &TestApp, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
         content-length: {}\r\n\r\n{body}",
        app.key,
        body.len()
    )
}

/// Sends a chat, leaves when the provider has got it, and gives the request's id.
async fn ask_and_leave(app: &TestApp, alias: &str) -> String {
    use tokio::io::AsyncWriteExt as _;
    let known = app.upstream.calls().len();
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    socket.write_all(request(app, &prompt(alias)).as_bytes()).await.unwrap();
    let call = eventually("the call arrives", async || app.upstream.calls().get(known).cloned());
    let id = call.await.request_id.unwrap();
    drop(socket);
    id
}

/// Waits for the settlement of a request and gives its legs.
async fn settled(app: &TestApp, id: &str) -> Vec<Leg> {
    let legs = eventually("the request is settled", async || {
        let legs = app.postings(id).await;
        (!legs.is_empty()).then_some(legs)
    });
    legs.await
}

async fn cancelling(app: &TestApp) {
    app.patch("/channels/main", json!({"on_disconnect": "cancel"})).await;
}

async fn a_client_that_leaves_before_the_head_pays_for_what_was_made(app: &TestApp) {
    app.fault("latency:300");
    let before = app.balance().await;
    let id = ask_and_leave(app, "chat").await;
    let legs = settled(app, &id).await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert_eq!((call.outcome, call.caller_left), (Outcome::Answered, false));
    let (sale, cost) = (owed(&SALE, &call.billed, 1_000), owed(&COST, &call.billed, 1_000));
    let lines: Vec<_> = legs.iter().map(Leg::line).collect();
    assert_eq!(
        lines,
        [("wallet:acme", "revenue", sale, false), ("cost_of_sales", "payable:main", cost, false),]
    );
    assert_eq!(app.balance().await, before - sale);
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_client_gone_total 1"), "{metrics}");
}

async fn a_channel_that_cancels_stops_before_the_head(app: &TestApp) {
    cancelling(app).await;
    // Long enough that only a cancelled call ends in the test's time.
    app.fault("latency:600000");
    let before = app.balance().await;
    let id = ask_and_leave(app, "chat").await;
    let legs = settled(app, &id).await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert!(call.caller_left, "{call:?}");
    // It was sent and may be charged: our side is booked as an estimate, the customer's is not.
    let [waste] = &legs[..] else { panic!("{legs:?}") };
    assert_eq!((waste.debit.as_str(), waste.estimate), ("wasted_cost", true));
    assert_eq!(app.wallet("acme").await, (before, 0, before));
}

/// Reads a stream up to its third word and leaves.
async fn leave_a_stream(app: &TestApp) -> String {
    let mut stream = app.stream(prompt("chat")).await;
    assert_eq!(stream.status, 200);
    let mut words = 0;
    while words < 3 {
        let event = stream.next().await.expect("an event");
        words += usize::from(event.contains("\"delta\":{\"content\""));
    }
    stream.header("x-anima-request-id").to_owned()
}

async fn a_client_that_leaves_a_stream_pays_for_all_of_it_when_it_is_drained(app: &TestApp) {
    app.fault("pace:10+answer-tokens:12");
    let before = app.balance().await;
    let id = leave_a_stream(app).await;
    let legs = settled(app, &id).await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert_eq!((call.outcome, call.billed.completion_tokens), (Outcome::Answered, 12));
    assert_eq!((legs[0].amount, legs[0].estimate), (owed(&SALE, &call.billed, 1_000), false));
    assert_eq!((legs[1].amount, legs[1].estimate), (owed(&COST, &call.billed, 1_000), false));
    assert_eq!(app.balance().await, before - legs[0].amount);
}

async fn a_cancelled_stream_is_sold_as_far_as_it_came(app: &TestApp) {
    cancelling(app).await;
    app.fault("pace:20+answer-tokens:100000+chunks:100000");
    let before = app.balance().await;
    let id = leave_a_stream(app).await;
    let legs = settled(app, &id).await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert!(call.caller_left && call.chunks < 1_000, "{call:?}");
    assert_eq!(legs.len(), 2, "{legs:?}");
    assert!(legs.iter().all(|leg| leg.estimate), "{legs:?}");
    assert_eq!((legs[0].debit.as_str(), legs[1].debit.as_str()), ("wallet:acme", "cost_of_sales"));
    assert!(
        legs[0].amount > 0 && legs[0].amount < 3 * owed(&SALE, &call.billed, 1_000),
        "{legs:?}"
    );
    assert_eq!(app.balance().await, before - legs[0].amount);
}

async fn a_drain_has_a_bound(app: &TestApp) {
    app.fault("pace:20+answer-tokens:100000+chunks:100000");
    let id = leave_a_stream(app).await;
    let legs = settled(app, &id).await;
    assert!(legs.len() == 2 && legs.iter().all(|leg| leg.estimate), "{legs:?}");
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert!(call.caller_left, "{call:?}");
}

async fn nobody_waits_for_a_second_channel(app: &TestApp) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("twice", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
    let before = app.balance().await;
    for fault in ["status:500+latency:300", "status:503+latency:300", "reset+latency:300"] {
        app.script(&json!([{"match": {"key": MAIN_SECRET}, "do": fault}]));
        let made = app.upstream.calls().len();
        ask_and_leave(app, "twice").await;
        app.settled().await;
        assert_eq!(app.calls().await.len(), made + 1, "{fault}");
        assert_eq!(app.balance().await, before, "{fault}");
    }
}

async fn a_client_that_leaves_while_it_asks_has_not_asked(app: &TestApp) {
    use tokio::io::AsyncWriteExt as _;
    let whole = request(app, &prompt("chat"));
    for cut in [10, 60, whole.len() - 5] {
        let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
        socket.write_all(&whole.as_bytes()[..cut]).await.unwrap();
    }
    assert_eq!(app.raw(Method::GET, "/", &[], "").await.status, 200);
    assert!(app.calls().await.is_empty());
}

async fn many_clients_leave_at_any_point(app: &TestApp) {
    app.alias("cut", "chat", &[("main", "fault:pace:3+cut-stream:4")]).await;
    app.fault("");
    app.script(&json!([{"match": {"model": "sim-chat"}, "do": "pace:3+latency:5"}]));
    for round in 0..60 {
        let alias = if round % 4 == 3 { "cut" } else { "chat" };
        let mut stream = app.stream(prompt(alias)).await;
        for _ in 0..round % 12 {
            stream.next().await;
        }
        if round % 3 == 0 {
            cancelling_every_other(app, round).await;
        }
    }
    app.settled().await;
    let calls = app.calls().await;
    assert_eq!(calls.len(), 60);
    for call in &calls {
        let legs = app.postings(call.request_id.as_deref().unwrap()).await;
        assert!(
            legs.len() == 2 || legs.iter().all(|l| l.component == "waste"),
            "{call:?} {legs:?}"
        );
    }
}

/// Flips what happens to the streams of clients that leave from now on.
async fn cancelling_every_other(app: &TestApp, round: usize) {
    let policy = if round.is_multiple_of(2) { "cancel" } else { "drain" };
    app.patch("/channels/main", json!({ "on_disconnect": policy })).await;
}
