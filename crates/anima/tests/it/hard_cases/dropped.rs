//! Calls that end without a word in a process that lives on, and what is written down for whoever
//! has to end a call in its place.
//!
//! Not here: processes that are gone (`hard_cases`). Invariant: what was sent is resolved like a
//! crash, and never given back as if nothing had happened.

use std::sync::Arc;

use anima::http::caller;
use anima::relay::call::{Arrival, Call};
use anima::relay::steer::Steering;
use anima::relay::{admit, chat};
use anima_store::database::Location;
use anima_wire::request::{CallRequest, Endpoint};
use http::Method;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{lines, now};
use crate::testapp::{TestApp, eventually, on_both, prompt};

on_both! {
    row_12_a_call_that_is_dropped_after_it_was_sent_is_resolved_like_a_crash;
    a_fallback_alias_is_written_down_before_it_is_asked;
}

/// Changes rows beside the node.
async fn alter(app: &TestApp, statements: &str) {
    let Location::Sqlite(file) = app.location() else { return app.place.run(statements).await };
    let writer = rusqlite::Connection::open(file).unwrap();
    writer.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    writer.execute_batch(statements).unwrap();
}

/// A chat of `acme`, admitted.
async fn admitted(app: &TestApp) -> Call {
    let kid = anima::secrets::kid_of(&app.key).unwrap();
    let caller = caller::again(&app.plane.relay.live, now(), kid).await.unwrap();
    let body = prompt("chat").to_string();
    let request = CallRequest::parse(Endpoint::ChatCompletions, body.into()).unwrap();
    let gone = CancellationToken::new();
    let arrival = Arrival { id: Uuid::from_u128(0xD0), at: now(), instant: Instant::now(), gone };
    admit::admit(caller, request, (arrival, Steering::default())).unwrap()
}

/// As when a call panics while its provider works.
async fn row_12_a_call_that_is_dropped_after_it_was_sent_is_resolved_like_a_crash(app: &TestApp) {
    let before = app.balance().await;
    app.fault("gate");
    let call = admitted(app).await;
    let id = call.arrival.id.to_string();
    let running = tokio::spawn(chat::run(Arc::clone(&app.plane.relay), Arc::new(call)));
    eventually("it is sent", async || app.upstream.calls().pop()).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    app.upstream.open_gate();
    // Its time is over. Again, since what it noted at its end keeps it for as long as it had.
    let said = eventually("it is resolved", async || {
        alter(app, "UPDATE hold SET expires_at = 1 WHERE state = 'HELD'").await;
        let said = lines(app, &id).await;
        (!said.is_empty()).then_some(said)
    })
    .await;
    let [(from, to, amount, estimate)] = &said[..] else { panic!("one leg: {said:?}") };
    assert_eq!((from.as_str(), to.as_str()), ("exposure", "payable_estimated:main"));
    assert!(*amount > 0 && *estimate, "{said:?}");
    assert_eq!(app.balance().await, before, "nobody saw an answer");
}

/// Checkpoints cannot be written.
const DEAF: [&str; 2] = [
    "CREATE TRIGGER deaf BEFORE UPDATE OF trail ON hold WHEN NEW.trail IS NOT NULL
     BEGIN SELECT RAISE(ABORT, 'deaf'); END",
    "CREATE FUNCTION deaf() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN RAISE EXCEPTION ''deaf''; END';
     CREATE TRIGGER deaf BEFORE UPDATE ON hold FOR EACH ROW
         WHEN (NEW.trail IS NOT NULL) EXECUTE FUNCTION deaf()",
];
const HEARS: [&str; 2] = ["DROP TRIGGER deaf", "DROP TRIGGER deaf ON hold"];

/// The same channel, and the first that is sent of the call; but the hold says another model.
async fn a_fallback_alias_is_written_down_before_it_is_asked(app: &TestApp) {
    app.alias("other", "chat", &[("main", "sim-other")]).await;
    app.alias("chained", "chat", &[("main", "sim-chat")]).await;
    let chained = json!({"fallbacks": {"error": ["other"]}, "retry": {"max_attempts": 2}});
    app.patch("/aliases/chained", chained).await;
    let open = json!({"reason": "it melts", "model": "sim-chat"});
    app.admin(Method::POST, "/circuits/main/open", &open).await;
    let at = usize::from(!matches!(app.location(), Location::Sqlite(_)));
    alter(app, DEAF[at]).await;
    let refused = app.ask("chained").await;
    assert_eq!(refused.refusal(), (503, "service_unavailable".to_owned()), "{refused:?}");
    assert_eq!(app.calls().await.len(), 0, "nothing is sent that nobody could ask about");
    alter(app, HEARS[at]).await;
    let served = app.ask("chained").await;
    assert_eq!((served.status, served.header("x-anima-served-model")), (200, "sim-other"));
    let calls = app.calls().await;
    assert_eq!(
        (calls.len(), calls[0].attempt_id.as_deref().map(|id| id.ends_with("-1"))),
        (1, Some(true))
    );
}
