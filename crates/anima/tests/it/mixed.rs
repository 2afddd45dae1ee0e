//! Many calls with faults at once, then the books against the truth log: to the last unit where the
//! provider reported, flagged where it did not, and nothing lost in between.
//!
//! 1,000 calls, or as many as `ANIMA_TEST_MIXED` says. Which call meets which fault comes from a
//! seed; in which order they run does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use anima_core::clock::{Rng as _, SeededRng};
use anima_simulator::{Call, Outcome};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::testapp::{
    BACKUP_SECRET, COST, Leg, MAIN_SECRET, Reply, SALE, TestApp, nano, on_both, owed, variable,
};

on_both! {
    the_books_are_the_truth_after_many_calls_with_faults;
}

const CALLS: usize = 1_000;
const CONCURRENCY: usize = 32;
const SEED: u64 = 20_260_101;

/// What a first channel does to a call of the alias named `f0`, `f1`, …
const FAULTS: &[&str] = &[
    "",
    "",
    "",
    "",
    "reasoning:9",
    "cached:5",
    "pace:1+chunks:4",
    "latency:5",
    "status:500",
    "status:503",
    "status:429:retry-after=1",
    "401",
    "reset",
    "silent",
    "silent-stream:2",
    "cut-stream:0",
    "cut-stream:3",
    "bad-json",
    "bad-sse:2",
    "content-length",
    "usage-missing",
    "usage-twice",
    "usage-absurd",
    "usage-negative",
    "error-in-200:2",
    "no-done",
    "empty",
    "context-length",
    "huge-line:20000",
];

/// One call to be made.
#[derive(Debug, Clone)]
struct Plan {
    path: &'static str,
    body: Value,
    /// The client goes after so many events of a stream.
    leaves_after: Option<u64>,
}

fn plans(count: usize) -> Vec<Plan> {
    let rng = SeededRng::new(SEED);
    let below = |bound: u64| rng.next_u64() % bound;
    (0..count)
        .map(|_| {
            let fault = usize::try_from(below(FAULTS.len() as u64)).unwrap();
            let words = "word ".repeat(usize::try_from(1 + below(60)).unwrap());
            if below(8) == 0 {
                let body = json!({"model": format!("e{}", fault % 2), "input": [words, "x"]});
                return Plan { path: "/v1/embeddings", body, leaves_after: None };
            }
            let stream = below(2) == 0;
            // Every other fault has a second channel behind it.
            let alias = format!("{}{fault}", if below(2) == 0 { "f" } else { "b" });
            let mut body = json!({"model": alias, "stream": stream, "n": 1 + below(2),
                "max_tokens": 1 + below(40)});
            let leaves_after = (stream && below(12) == 0).then(|| below(6));
            if below(6) == 0 {
                body["prompt"] = json!(words);
                return Plan { path: "/v1/completions", body, leaves_after };
            }
            body["messages"] = json!([{"role": "user", "content": words}]);
            Plan { path: "/v1/chat/completions", body, leaves_after }
        })
        .collect()
}

async fn rows(app: &TestApp) {
    // Only who falls silent is waited for so shortly: a busy machine must not look silent.
    let timeouts = json!({"first_byte_ms": 150, "idle_ms": 150});
    app.channel("hasty", MAIN_SECRET, json!({ "timeouts": timeouts })).await;
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    for channel in ["main", "hasty", "backup"] {
        app.force_closed(channel);
    }
    for (n, fault) in FAULTS.iter().enumerate() {
        let model = if fault.is_empty() { "sim-chat".into() } else { format!("fault:{fault}") };
        let first = if is_silent(&model) { "hasty" } else { "main" };
        app.alias(&format!("f{n}"), "chat", &[(first, &model)]).await;
        let routes = [(first, model.as_str()), ("backup", "sim-backup")];
        app.alias(&format!("b{n}"), "chat", &routes).await;
    }
    app.alias("e0", "embedding", &[("main", "sim-embedding")]).await;
    app.alias("e1", "embedding", &[("main", "fault:usage-missing")]).await;
}

fn is_silent(model: &str) -> bool {
    model.starts_with("fault:silent")
}

/// What the client saw of a call.
#[derive(Debug)]
struct Seen {
    plan: Plan,
    id: String,
    reply: Option<Reply>,
}

async fn make(app: &TestApp, plans: Vec<Plan>) -> Vec<Seen> {
    let gate = Arc::new(Semaphore::new(CONCURRENCY));
    let calls: Vec<_> = plans
        .into_iter()
        .map(|plan| {
            let (client, key, gate) = (app.client.clone(), app.key.clone(), Arc::clone(&gate));
            tokio::spawn(async move {
                let _turn = gate.acquire().await.unwrap();
                let headers = [("x-api-key", key.as_str())];
                let body = Bytes::from(plan.body.to_string());
                let mut opened = client.open(Method::POST, plan.path, &headers, body).await;
                let id = opened.header("x-anima-request-id").replace("req_", "");
                let Some(events) = plan.leaves_after else {
                    return Seen { plan, id, reply: Some(opened.whole().await) };
                };
                for _ in 0..events {
                    opened.next().await;
                }
                Seen { plan, id, reply: None }
            })
        })
        .collect();
    let mut seen = Vec::new();
    for call in calls {
        seen.push(call.await.unwrap());
    }
    seen
}

/// Sums over all requests, as the books must have them.
#[derive(Debug, Default)]
struct Sums {
    sales: i64,
    by_account: BTreeMap<String, i64>,
}

async fn the_books_are_the_truth_after_many_calls_with_faults(app: &TestApp) {
    let count = variable("ANIMA_TEST_MIXED").map_or(CALLS, |text| text.parse().unwrap());
    rows(app).await;
    let before = app.balance().await;
    let seen = make(app, plans(count)).await;
    app.settled().await;
    let mut made: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    for call in app.calls().await {
        made.entry(call.request_id.clone().expect("an id")).or_default().push(call);
    }
    assert_eq!(seen.len(), count);
    let mut sums = Sums::default();
    for seen in &seen {
        let calls = made.remove(&seen.id).unwrap_or_default();
        let legs = app.postings(&seen.id).await;
        check(seen, &calls, &legs);
        for leg in &legs {
            if leg.component == "sale" {
                sums.sales += leg.amount;
            }
            *sums.by_account.entry(leg.debit.clone()).or_default() -= leg.amount;
            *sums.by_account.entry(leg.credit.clone()).or_default() += leg.amount;
        }
    }
    assert!(made.is_empty(), "calls that no request made: {made:?}");
    assert_eq!(app.balance().await, before - sums.sales);
    let books = app.trial_balance().await;
    assert_eq!(books["psp_clearing"], (nano(crate::testapp::CREDIT), 0));
    for (account, amount) in &sums.by_account {
        let (debits, credits) = books[account];
        let top_up = if account == "wallet:acme" { before } else { 0 };
        assert_eq!(credits - debits, amount + top_up, "{account}");
    }
    assert!(sums.by_account.len() >= 7, "every kind of account was used: {sums:?}");
    assert_eq!(app.settle_failures(), 0);
}

/// Whether the provider told of a call what is to be believed, before anything that ends it.
fn is_told(call: &Call) -> bool {
    let twice_in_json = call.model.contains("usage-twice") && !call.stream;
    let broken = call.model.contains("bad-sse") && call.stream && call.chunks >= 2;
    let lies = ["usage-absurd", "usage-negative"].iter().any(|lie| call.model.contains(lie));
    call.reported.is_some() && !lies && !twice_in_json && !broken
}

/// Compares one request's legs with what the provider knows of its calls.
fn check(seen: &Seen, calls: &[Call], legs: &[Leg]) {
    let shown = || format!("{:?}\n{calls:#?}\n{legs:#?}\n{:?}", seen.plan, seen.reply);
    let sales: Vec<_> = legs.iter().filter(|l| l.component == "sale").collect();
    let served: Vec<_> = legs.iter().filter(|l| l.component == "cost").collect();
    assert!(sales.len() <= 1 && served.len() == sales.len(), "{}", shown());
    let journals: std::collections::BTreeSet<_> = legs.iter().map(|l| &l.journal).collect();
    assert!(journals.len() <= 1, "one journal: {}", shown());
    assert!((1..=2).contains(&calls.len()), "{}", shown());
    for leg in legs.iter().filter(|l| l.component != "sale") {
        let n = usize::try_from(leg.attempt.unwrap()).unwrap();
        assert!(n <= calls.len(), "{}", shown());
        let channel = match calls[n - 1].model.as_str() {
            "sim-backup" => "backup",
            model if is_silent(model) => "hasty",
            _ => "main",
        };
        let payable = if leg.estimate { "payable_estimated" } else { "payable" };
        assert_eq!(leg.credit, format!("{payable}:{channel}"), "{}", shown());
    }
    let last = calls.last().unwrap();
    if let ([sale], [cost]) = (&sales[..], &served[..]) {
        assert_eq!(cost.attempt, i64::try_from(calls.len()).ok(), "{}", shown());
        assert_eq!(sale.estimate, cost.estimate, "{}", shown());
        if !sale.estimate {
            assert_eq!(sale.amount, owed(&SALE, &last.billed, 1_000), "{}", shown());
            assert_eq!(cost.amount, owed(&COST, &last.billed, 1_000), "{}", shown());
        }
        // A client that leaves may take the connection along before the last report.
        let known = is_told(last) && seen.reply.is_some();
        assert!(!sale.estimate || !known, "an estimate in spite of a report: {}", shown());
        assert!(sale.estimate || is_told(last), "exact without a report: {}", shown());
    }
    let Some(reply) = &seen.reply else { return };
    let answered = reply.status == 200;
    let empty = last.model.contains("empty");
    assert_eq!(sales.len(), usize::from(answered && !empty), "{}", shown());
    assert_eq!(reply.header("x-anima-attempts"), calls.len().to_string(), "{}", shown());
    if answered && reply.text().ends_with("data: [DONE]\n\n") {
        assert_eq!(last.outcome, Outcome::Answered, "{}", shown());
    }
    if answered && seen.plan.body["stream"] == json!(true) {
        let done = reply.text().contains("[DONE]");
        let failed = reply.last_event()["error"].is_object();
        assert!(done != failed, "an end or an error, and one of them: {}", shown());
    }
}
