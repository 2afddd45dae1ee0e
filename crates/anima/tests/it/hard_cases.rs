//! The hard cases of `reliability` 1.6 that a gateway for chats can meet, one test per row.
//!
//! Rows that this gateway cannot meet yet are held at the ledger itself (`at_the_ledger`). What a
//! row says in many variants stands in `upstream_faults`, `leaving` and `money`; here is each row's
//! own promise. Rows that take another process have it played by a second opening of the node's
//! database: a node that holds money and is never heard of again.

use std::collections::BTreeMap;

use anima_core::clock::{Clock as _, Timestamp};
use anima_core::ledger::{
    Attempt, AttemptCost, Checkpoint, Close, Exposure, Hold, Phase, PriceRef, Running, Settlement,
};
use anima_core::money::{Currency, Multiplier};
use anima_core::usage::{Meter, Usage, UsageSource};
use anima_store::database::{self, Opener, Stores};
use anima_store::ledger::{Correction, SaleCorrection};
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::testapp::{
    ADMIN_TOKEN, BACKUP_SECRET, COST, Leg, MAIN_SECRET, Rates, Reply, SALE, TestApp, eventually,
    nano, on_both, owed, prompt,
};

mod at_the_ledger; // what calls cannot show yet
mod dropped; // calls that end without a word

on_both! {
    row_01_what_was_never_sent_costs_nobody;
    row_02_a_refusal_before_any_body_costs_nobody;
    row_03_a_failure_after_the_send_is_our_waste;
    row_04_a_stream_with_usage_is_exact;
    row_05_missing_usage_is_counted_and_flagged;
    row_06_a_stream_cut_before_content_is_our_waste;
    row_07_a_cut_stream_is_sold_as_delivered;
    row_07_a_cut_stream_is_free_where_the_operator_says_so ("partial_streams = \"free\"");
    row_07_a_cut_stream_is_sold_pro_rata ("partial_streams = \"pro_rata\"");
    row_08_a_cancelled_stream_is_sold_as_delivered_and_costs_an_interval_more;
    row_08_a_drain_ends_when_its_hold_is_used_up ("hold_output_tokens = 64");
    row_09_a_call_whose_client_left_is_made_to_its_end;
    row_10_a_fallback_is_sold_once_and_its_first_attempt_is_our_waste;
    row_12_a_crash_is_resolved_by_the_ladder;
    row_12_a_long_call_is_written_down_while_it_runs;
    row_12_a_node_that_was_missed_goes_on_under_a_new_id;
    row_12_a_hold_that_its_own_node_never_settled_is_resolved;
    row_14_prices_are_those_of_the_start;
    row_15_late_usage_gives_back_and_never_takes;
    row_15_a_report_confirms_what_was_estimated;
    row_15_estimates_of_a_period_are_cleared_at_once;
    row_15_a_late_report_charges_more_within_the_window ("sale_trueup_window_ms = 600000");
    row_15_a_late_report_charges_no_more_after_the_window ("sale_trueup_window_ms = 1");
    row_20_more_than_the_hold_is_charged_down_to_the_floor;
    row_20_a_key_that_comes_up_short_again_and_again_is_paused ("key_shortfalls_max = 2");
    row_20_a_stream_that_outgrows_its_hold_gets_a_larger_one ("hold_output_tokens = 64");
    row_20_a_stream_is_cut_where_the_money_ends
        ("hold_output_tokens = 64\nmin_output_tokens = 16");
    row_20_a_stream_goes_on_where_the_operator_says_so
        ("hold_output_tokens = 64\nmin_output_tokens = 16\nhold_exhausted = \"overdraft\"");
    row_21_a_settlement_waits_on_disk_for_its_database;
    row_21_a_loss_that_waited_on_disk_is_an_alarm_too;
    row_22_an_empty_answer_is_not_sold;
    row_24_an_account_without_money_fails_over;
    an_output_limit_is_lowered_to_what_the_wallet_covers;
}

/// The legs of a request as accounts, amount and flag.
async fn lines(app: &TestApp, id: &str) -> Vec<(String, String, i64, bool)> {
    let legs = app.postings(id).await;
    legs.iter().map(|l| (l.debit.clone(), l.credit.clone(), l.amount, l.estimate)).collect()
}

/// The accounts and the flags alone.
async fn accounts(app: &TestApp, id: &str) -> Vec<String> {
    let shown = |(debit, credit, _, estimate): &(String, String, i64, bool)| {
        format!("{debit} {credit}{}", if *estimate { " estimated" } else { "" })
    };
    lines(app, id).await.iter().map(shown).collect()
}

/// What the truth log says that the one call of a reply comes to: sale and cost.
async fn truth(app: &TestApp, reply: &Reply) -> (i64, i64) {
    let [call] = &app.calls_of(reply).await[..] else { panic!("one call: {reply:?}") };
    (owed(&SALE, &call.billed, 1_000), owed(&COST, &call.billed, 1_000))
}

const SOLD: &str = "wallet:acme revenue";
const BOUGHT: &str = "cost_of_sales payable:main";
const SOLD_ESTIMATED: &str = "wallet:acme revenue estimated";
const BOUGHT_ESTIMATED: &str = "cost_of_sales payable_estimated:main estimated";
const LOST: &str = "exposure revenue";
const WASTED: &str = "wasted_cost payable_estimated:main estimated";

async fn row_01_what_was_never_sent_costs_nobody(app: &TestApp) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    app.channel("gone", MAIN_SECRET, json!({ "base_url": base_url })).await;
    app.alias("away", "chat", &[("gone", "sim-chat")]).await;
    let before = app.wallet("acme").await;
    let reply = app.ask("away").await;
    assert_eq!(reply.status, 502);
    assert_eq!(lines(app, reply.request_id()).await, []);
    assert_eq!(app.wallet("acme").await, before);
}

async fn row_02_a_refusal_before_any_body_costs_nobody(app: &TestApp) {
    let before = app.wallet("acme").await;
    for fault in ["status:400", "status:429", "status:503", "status:529", "401"] {
        app.fault(fault);
        let reply = app.ask("chat").await;
        assert_ne!(reply.status, 200, "{fault}");
        assert_eq!(lines(app, reply.request_id()).await, [], "{fault}");
        assert_eq!(app.wallet("acme").await, before, "{fault}");
    }
}

async fn row_03_a_failure_after_the_send_is_our_waste(app: &TestApp) {
    let before = app.wallet("acme").await;
    for fault in ["status:500", "status:502", "status:504", "reset", "silent"] {
        if fault == "silent" {
            app.patch("/channels/main", json!({"timeouts": {"first_byte_ms": 60}})).await;
        }
        app.fault(fault);
        let reply = app.ask("chat").await;
        assert_ne!(reply.status, 200, "{fault}");
        assert_eq!(accounts(app, reply.request_id()).await, [WASTED], "{fault}");
        assert_eq!(app.wallet("acme").await, before, "{fault}");
    }
}

async fn row_04_a_stream_with_usage_is_exact(app: &TestApp) {
    app.fault("reasoning:5+cached:4");
    let reply = app.ask_stream("chat").await;
    assert_eq!(accounts(app, reply.request_id()).await, [SOLD, BOUGHT]);
    let (sale, cost) = truth(app, &reply).await;
    let booked = lines(app, reply.request_id()).await;
    assert_eq!((booked[0].2, booked[1].2), (sale, cost));
}

async fn row_05_missing_usage_is_counted_and_flagged(app: &TestApp) {
    app.fault("usage-missing");
    for reply in [app.ask("chat").await, app.ask_stream("chat").await] {
        assert_eq!(reply.status, 200);
        assert_eq!(
            accounts(app, reply.request_id()).await,
            [SOLD_ESTIMATED, BOUGHT_ESTIMATED],
            "{reply:?}"
        );
    }
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_usage_suspect_total{channel=\"main\"} 2"), "{metrics}");
}

async fn row_06_a_stream_cut_before_content_is_our_waste(app: &TestApp) {
    let before = app.wallet("acme").await;
    app.fault("cut-stream:0");
    let reply = app.ask_stream("chat").await;
    assert_eq!(accounts(app, reply.request_id()).await, [WASTED]);
    assert_eq!(app.wallet("acme").await, before);
}

/// A long prompt whose answer is cut after four words of sixteen.
async fn cut_stream(app: &TestApp) -> Reply {
    app.fault("cut-stream:4");
    let content = "A question of many words. ".repeat(40);
    let body = json!({"model": "chat", "max_tokens": 400,
        "messages": [{"role": "user", "content": content}]});
    let reply = app.stream(body).await.whole().await;
    assert_eq!(reply.last_event()["error"]["code"], "upstream_stream_cut", "{reply:?}");
    reply
}

async fn row_07_a_cut_stream_is_sold_as_delivered(app: &TestApp) {
    let reply = cut_stream(app).await;
    let id = reply.request_id();
    assert_eq!(accounts(app, id).await, [SOLD_ESTIMATED, BOUGHT_ESTIMATED]);
    let (sale, cost) = truth(app, &reply).await;
    let booked = lines(app, id).await;
    assert!(booked[0].2 > sale / 2 && booked[0].2 < 2 * sale, "{booked:?} {sale}");
    assert!(booked[1].2 > cost / 2 && booked[1].2 < 2 * cost, "{booked:?} {cost}");
}

async fn row_07_a_cut_stream_is_free_where_the_operator_says_so(app: &TestApp) {
    let before = app.wallet("acme").await;
    let reply = cut_stream(app).await;
    assert_eq!(accounts(app, reply.request_id()).await, [BOUGHT_ESTIMATED]);
    assert_eq!(app.wallet("acme").await, before);
    // An answer with its usage is whole, whatever its end looks like.
    app.fault("no-done");
    let reply = app.ask_stream("chat").await;
    assert_eq!(accounts(app, reply.request_id()).await, [SOLD, BOUGHT]);
}

async fn row_07_a_cut_stream_is_sold_pro_rata(app: &TestApp) {
    let reply = cut_stream(app).await;
    let id = reply.request_id();
    assert_eq!(accounts(app, id).await, [SOLD_ESTIMATED, BOUGHT_ESTIMATED]);
    // Of the prompt, which is nearly all of it, a few of 400 parts.
    let (sale, cost) = truth(app, &reply).await;
    let booked = lines(app, id).await;
    assert!(booked[0].2 > 0 && booked[0].2 < sale / 4, "{booked:?} {sale}");
    assert!(booked[1].2 > cost / 2, "{booked:?} {cost}");
}

/// Reads a stream up to its third word and leaves.
async fn leave_a_stream(app: &TestApp, body: Value) -> String {
    let mut stream = app.stream(body).await;
    let mut words = 0;
    while words < 3 {
        let event = stream.next().await.expect("an event");
        words += usize::from(event.contains("\"delta\":{\"content\""));
    }
    stream.header("x-anima-request-id").to_owned()
}

/// Waits for a request's postings.
async fn booked(app: &TestApp, id: &str) -> Vec<(String, String, i64, bool)> {
    eventually("the request is booked", async || {
        let lines = lines(app, id).await;
        (!lines.is_empty()).then_some(lines)
    })
    .await
}

async fn row_08_a_cancelled_stream_is_sold_as_delivered_and_costs_an_interval_more(app: &TestApp) {
    app.patch("/channels/main", json!({"on_disconnect": "cancel"})).await;
    app.fault("pace:20+answer-tokens:100000+chunks:100000");
    let id = leave_a_stream(app, prompt("chat")).await;
    let booked = booked(app, &id).await;
    assert_eq!(accounts(app, &id).await, [SOLD_ESTIMATED, BOUGHT_ESTIMATED]);
    // 1,000 tokens more than were delivered: what a provider may have made before it noticed.
    let interval = nano(COST.output) / 1_000;
    assert!(booked[0].2 < interval / 2, "{booked:?}");
    assert!(booked[1].2 >= interval && booked[1].2 < 2 * interval, "{booked:?}");
    // A caller's own limit bounds that too.
    let mut body = prompt("chat");
    body["max_tokens"] = json!(40);
    let id = leave_a_stream(app, body).await;
    let booked = super::hard_cases::booked(app, &id).await;
    assert!(booked[1].2 < interval / 10, "{booked:?}");
}

async fn row_08_a_drain_ends_when_its_hold_is_used_up(app: &TestApp) {
    app.fault("pace:5+answer-tokens:100000+chunks:100000");
    let id = leave_a_stream(app, prompt("chat")).await;
    let booked = booked(app, &id).await;
    assert_eq!(accounts(app, &id).await, [SOLD_ESTIMATED, BOUGHT_ESTIMATED]);
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert!(call.caller_left && (20..1_000).contains(&call.chunks), "{call:?}");
    assert!(booked[0].2 < 2 * 64 * nano(SALE.output) / 1_000_000, "{booked:?}");
}

async fn row_09_a_call_whose_client_left_is_made_to_its_end(app: &TestApp) {
    use tokio::io::AsyncWriteExt as _;
    app.fault("latency:300");
    let body = prompt("chat").to_string();
    let mut socket = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
         content-length: {}\r\n\r\n",
        app.key,
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let call = eventually("the call arrives", async || app.upstream.calls().first().cloned()).await;
    drop(socket);
    let id = call.request_id.unwrap();
    let booked = booked(app, &id).await;
    assert_eq!(accounts(app, &id).await, [SOLD, BOUGHT]);
    let [call] = &app.calls().await[..] else { panic!("one call") };
    assert!(!call.caller_left, "{call:?}");
    assert_eq!(booked[0].2, owed(&SALE, &call.billed, 1_000));
}

async fn with_backup(app: &TestApp) {
    app.channel("backup", BACKUP_SECRET, json!({})).await;
    app.alias("twice", "chat", &[("main", "sim-chat"), ("backup", "sim-other")]).await;
}

async fn row_10_a_fallback_is_sold_once_and_its_first_attempt_is_our_waste(app: &TestApp) {
    with_backup(app).await;
    app.script(&json!([{"match": {"key": MAIN_SECRET}, "do": "status:500"}]));
    let reply = app.ask("twice").await;
    assert_eq!(reply.status, 200);
    let booked = app.legs(&reply).await;
    let shown: Vec<_> =
        booked.iter().map(|leg| (leg.debit.as_str(), leg.credit.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("wallet:acme", "revenue"),
            ("wasted_cost", "payable_estimated:main"),
            ("cost_of_sales", "payable:backup"),
        ]
    );
    let calls = app.calls_of(&reply).await;
    assert_eq!(booked[0].amount, owed(&SALE, &calls[1].billed, 1_000));
    assert_eq!((booked[1].attempt, booked[2].attempt), (Some(1), Some(2)));
}

/// A process that opens the node's database and is never heard of again.
pub(crate) async fn another_process(app: &TestApp) -> Stores {
    process(app, Uuid::from_u128(0xDEAD)).await
}

async fn process(app: &TestApp, node: Uuid) -> Stores {
    let observer = std::sync::Arc::new(anima::metrics::Metrics::new().unwrap());
    let opener = Opener { node, observer };
    database::open(&app.location(), &opener).await.unwrap()
}

pub(crate) fn now() -> Timestamp {
    anima::clock::SystemClock.now()
}

fn price_ref(code: &str) -> PriceRef {
    PriceRef { code: code.into(), version_no: 1 }
}

/// What the process of the tests holds, in nano-dollars, and what it may cost.
const HELD: i64 = 10_000_000;
const EXPOSED: i64 = 8_000_000;

/// A hold whose time is over already.
pub(crate) fn hold(n: u128) -> Hold {
    let exposure = Exposure {
        channel: "main".into(),
        amount: EXPOSED,
        currency: Currency::USD,
        price: price_ref("main-sim-chat-cost"),
    };
    Hold {
        id: Uuid::from_u128(n),
        app: "acme".into(),
        kid: "ghost".into(),
        alias: "chat".into(),
        currency: Currency::USD,
        amount: HELD,
        floor: 0,
        sale_price: price_ref("chat-sale"),
        fx: None,
        multiplier: Multiplier::ONE,
        exposure: Some(exposure),
        created_at: now().plus_millis(-60_000),
        expires_at: now().plus_millis(-1_000),
    }
}

/// A hold whose time is not over.
fn open_hold(n: u128) -> Hold {
    Hold { expires_at: now().plus_millis(60_000), ..hold(n) }
}

pub(crate) fn streaming(hold: &Hold, usage: Usage) -> Checkpoint {
    let running = Running {
        n: 1,
        channel: "main".into(),
        credential: "first".into(),
        model: "sim-chat".into(),
        cost_price: price_ref("main-sim-chat-cost"),
        upstream_ref: Some("simcall_x".to_owned()),
        usage,
        delivered: true,
        started_at: hold.created_at,
    };
    Checkpoint {
        hold: hold.id,
        app: hold.app.clone(),
        currency: hold.currency,
        phase: Phase::Streaming,
        progress: 5_000,
        ended: Vec::new(),
        running: Some(running),
        expires_at: hold.expires_at,
    }
}

async fn row_12_a_crash_is_resolved_by_the_ladder(app: &TestApp) {
    let before = app.balance().await;
    let dead = another_process(app).await.ledger;
    let (unseen, seen, asked, unsent) = (hold(1), hold(2), hold(3), hold(4));
    // Nobody can be asked: the checkpoint counts, else the worst is ours.
    dead.hold(unseen.clone()).await.unwrap();
    dead.hold(seen.clone()).await.unwrap();
    let usage = Usage::default().with(Meter::InputTokens, 1_000);
    let usage = usage.with(Meter::OutputTokens, 500);
    dead.checkpoint(vec![streaming(&seen, usage)]).await.unwrap();
    app.settled().await;
    let said = lines(app, &unseen.id.to_string()).await;
    let exposure = ("exposure".to_owned(), "payable_estimated:main".to_owned(), EXPOSED, true);
    assert_eq!(said, [exposure]);
    let usage = anima_simulator::Usage {
        prompt_tokens: 1_000,
        completion_tokens: 500,
        ..Default::default()
    };
    let (sale, cost) = (owed(&SALE, &usage, 1_000), owed(&COST, &usage, 1_000));
    let said = lines(app, &seen.id.to_string()).await;
    assert_eq!((said[0].1.as_str(), said[0].2, said[0].3), ("revenue", sale, true), "{said:?}");
    assert_eq!(
        (said[1].1.as_str(), said[1].2, said[1].3),
        ("payable_estimated:main", cost, true),
        "{said:?}"
    );
    assert_eq!(app.balance().await, before - sale);
    // The provider can be asked: its word is exact. Nothing was acknowledged, so nothing is sold.
    app.patch("/channels/main", json!({"settings": {"call_look_up": true}})).await;
    call_as(app, asked.id).await;
    dead.hold(asked.clone()).await.unwrap();
    dead.hold(unsent.clone()).await.unwrap();
    app.settled().await;
    let [call] = &app.calls().await[..] else { panic!("one call") };
    let cost = owed(&COST, &call.billed, 1_000);
    let waste = ("wasted_cost".to_owned(), "payable:main".to_owned(), cost, false);
    assert_eq!(lines(app, &asked.id.to_string()).await, [waste]);
    assert_eq!(lines(app, &unsent.id.to_string()).await, []);
    assert_eq!(app.balance().await, before - sale);
    let metrics = app.metrics().await;
    for (by, count) in [("estimate", 1), ("checkpoint", 1), ("look_up", 2)] {
        let line = format!("anima_recovered_total{{by=\"{by}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

async fn row_12_a_long_call_is_written_down_while_it_runs(app: &TestApp) {
    app.fault("gate");
    let (slow, whole, ()) = tokio::join!(app.ask_stream("chat"), app.ask("chat"), async {
        eventually("both are written down", async || (written(app).await >= 2).then_some(())).await;
        app.upstream.open_gate();
    });
    assert_eq!((slow.status, whole.status), (200, 200));
    for reply in [slow, whole] {
        assert_eq!(accounts(app, reply.request_id()).await, [SOLD, BOUGHT], "{reply:?}");
    }
    assert!(written(app).await < 20);
}

/// Checkpoints so far.
async fn written(app: &TestApp) -> u64 {
    let metrics = app.metrics().await;
    let line = metrics.lines().find(|l| l.starts_with("anima_checkpoints_total ")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// On SQLite nobody can miss a node: its file is locked.
async fn row_12_a_node_that_was_missed_goes_on_under_a_new_id(app: &TestApp) {
    if !app.place.can_be_closed() {
        return;
    }
    let other = another_process(app).await.ledger;
    let missed = other.leases().await.unwrap()[0].node;
    app.fault("gate");
    let (reply, ()) = tokio::join!(app.ask("chat"), async {
        eventually("the call arrives", async || app.upstream.calls().pop()).await;
        app.place.run("UPDATE node_lease SET state = 'DEAD', expires_at = 0").await;
        app.fault("");
        eventually("calls are served again", async || {
            let served = app.ask("chat").await.status == 200;
            let lost = app.metrics().await.contains("anima_leases_lost_total 1");
            (served && lost).then_some(())
        })
        .await;
        eventually("it took over its own hold", async || {
            let leases = other.leases().await.unwrap();
            leases.iter().find(|l| l.node == missed && l.open_holds == 0).map(|_| ())
        })
        .await;
        // Passes come one after the other: one that closes this has looked at that hold, too.
        other.hold(hold(1)).await.unwrap();
        eventually("a pass is over", async || {
            (!lines(app, &hold(1).id.to_string()).await.is_empty()).then_some(())
        })
        .await;
        app.upstream.open_gate();
    });
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(accounts(app, reply.request_id()).await, [SOLD, BOUGHT]);
    let metrics = app.metrics().await;
    let recovered: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("anima_recovered_total{")).collect();
    assert_eq!(recovered, ["anima_recovered_total{by=\"estimate\"} 1"]);
}

/// As after a settlement that the database refused for good.
async fn row_12_a_hold_that_its_own_node_never_settled_is_resolved(app: &TestApp) {
    let own = another_process(app).await.ledger.leases().await.unwrap()[0].node;
    let left = Hold { expires_at: now().plus_millis(-60_000), ..hold(1) };
    process(app, own).await.ledger.hold(left.clone()).await.unwrap();
    app.settled().await;
    let exposure = ("exposure".to_owned(), "payable_estimated:main".to_owned(), EXPOSED, true);
    assert_eq!(lines(app, &left.id.to_string()).await, [exposure]);
}

/// Calls the provider as a node does, for a request of this id.
async fn call_as(app: &TestApp, id: Uuid) {
    let hex = id.simple().to_string();
    let address = app.upstream_url.trim_start_matches("http://").trim_end_matches("/v1");
    let provider = crate::testapp::Client::new(address.parse().unwrap());
    let attempt = format!("{hex}-1");
    let bearer = format!("Bearer {MAIN_SECRET}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-anima-request-id", hex.as_str()),
        ("x-anima-attempt-id", attempt.as_str()),
        ("content-type", "application/json"),
    ];
    let body = prompt("sim-chat").to_string();
    let reply = provider.open(Method::POST, "/v1/chat/completions", &headers, body.into()).await;
    assert_eq!(reply.whole().await.status, 200);
}

/// What so many tokens of prompt come to.
fn of_tokens(rates: &Rates, tokens: u64) -> i64 {
    owed(rates, &anima_simulator::Usage { prompt_tokens: tokens, ..Default::default() }, 1_000)
}

/// A settlement for so many tokens of prompt.
fn settlement(hold: &Hold, tokens: u64, estimate: bool) -> Settlement {
    let attempt = Attempt {
        n: 1,
        channel: "main".into(),
        credential: "first".into(),
        model: "sim-chat".into(),
        outcome: "ok",
        served: true,
        usage: Usage::default().with(Meter::InputTokens, tokens),
        usage_source: if estimate { UsageSource::Counted } else { UsageSource::Provider },
        cost: Some(AttemptCost {
            amount: of_tokens(&COST, tokens),
            currency: Currency::USD,
            price: price_ref("main-sim-chat-cost"),
            estimate,
        }),
        upstream_ref: None,
        started_at: hold.created_at,
        first_byte_at: None,
        ended_at: hold.created_at,
    };
    Settlement {
        hold: hold.id,
        app: hold.app.clone(),
        currency: hold.currency,
        close: Close::Settle { sale: of_tokens(&SALE, tokens), estimate },
        sale_price: hold.sale_price.clone(),
        conversion: None,
        attempts: vec![attempt],
        at: hold.created_at,
    }
}

async fn row_14_prices_are_those_of_the_start(app: &TestApp) {
    app.fault("pace:40+answer-tokens:20");
    let mut stream = app.stream(prompt("chat")).await;
    stream.next().await.unwrap();
    let meters = json!([{"meter": "input_tokens", "per": 1, "amount": "1"},
        {"meter": "output_tokens", "per": 1, "amount": "1"}]);
    for path in ["/prices/chat-sale", "/prices/main-sim-chat-cost"] {
        app.patch(path, json!({ "meters": meters })).await;
    }
    let reply = stream.whole().await;
    let (sale, cost) = truth(app, &reply).await;
    let legs: Vec<Leg> = app.legs(&reply).await;
    assert_eq!((legs[0].amount, legs[1].amount), (sale, cost));
    let versions: Vec<_> = legs.iter().map(|leg| leg.price.clone().unwrap().1).collect();
    assert_eq!(versions, [1, 1]);
}

async fn row_15_late_usage_gives_back_and_never_takes(app: &TestApp) {
    let before = app.balance().await;
    let ledger = another_process(app).await.ledger;
    let hold = open_hold(1);
    ledger.hold(hold.clone()).await.unwrap();
    ledger.settle(settlement(&hold, 1_000, true)).await.unwrap();
    let correct = async |tokens| {
        let settlement = settlement(&hold, tokens, false);
        let reference = "reported late".to_owned();
        let sale = SaleCorrection::DownOnly;
        ledger.true_up(Correction { settlement, sale, report: None, reference }).await.unwrap()
    };
    let (sold, left) = (of_tokens(&SALE, 1_000), of_tokens(&SALE, 600));
    assert_eq!(correct(600).await.given_back, sold - left);
    assert_eq!(app.balance().await, before - left);
    assert!(correct(600).await.replayed);
    // More than was charged is not taken afterwards; our own cost follows both ways.
    assert_eq!(correct(5_000).await.given_back, 0);
    assert_eq!(app.balance().await, before - left);
    let books = app.trial_balance().await;
    assert_eq!(books["payable_estimated:main"].0, books["payable_estimated:main"].1);
    assert_eq!(books["payable:main"].1 - books["payable:main"].0, of_tokens(&COST, 5_000));
}

async fn row_15_a_report_confirms_what_was_estimated(app: &TestApp) {
    app.fault("usage-missing");
    let reply = app.ask("chat").await;
    let (id, path) = (reply.request_id(), format!("/requests/{}/true-up", reply.request_id()));
    let before = app.balance().await;
    let estimates =
        async || app.admin(Method::GET, "/ledger/estimates?channel=main", &Value::Null).await;
    let listed = estimates().await["items"][0].clone();
    assert_eq!((&listed["request_id"], &listed["attempt"]), (&json!(id), &json!(1)), "{listed}");
    let usage = json!({"input_tokens": 2, "output_tokens": 1});
    for (body, member) in [
        (json!({"attempts": [{"n": 1, "usage": usage}]}), "reason"),
        (json!({"attempts": [], "reason": "r"}), "attempts"),
        (json!({"attempts": [{"n": 1}], "reason": "r"}), "attempts[0]"),
        (
            json!({"attempts": [{"n": 1, "usage": usage, "cost": "1"}], "reason": "r"}),
            "attempts[0]",
        ),
        (json!({"attempts": [{"n": 2, "usage": usage}], "reason": "r"}), "attempts[0].n"),
        (json!({"attempts": [{"n": 1, "cost": "-1"}], "reason": "r"}), "attempts[0].cost"),
        (json!({"attempts": [{"n": 1, "cost": 1}], "reason": "r"}), "attempts[0].cost"),
        (
            json!({"attempts": [{"n": 1, "usage": {"images": 1}}], "reason": "r"}),
            "attempts[0].usage",
        ),
    ] {
        let refused = app.admin_try(Method::POST, &path, &body).await;
        let told = refused.json()["errors"][0]["member"].clone();
        assert_eq!((refused.status, &told), (400, &json!(member)), "{body}: {refused:?}");
    }
    let nobody = "/requests/req_00000000000000000000000000000000/true-up";
    let report = json!({"attempts": [{"n": 1, "usage": usage}], "reason": "usage came late"});
    assert_eq!(app.admin_try(Method::POST, nobody, &report).await.status, 404);
    let done = app.admin(Method::POST, &path, &report).await;
    let told =
        anima_simulator::Usage { prompt_tokens: 2, completion_tokens: 1, ..Default::default() };
    let (sale, cost) = (owed(&SALE, &told, 1_000), owed(&COST, &told, 1_000));
    let sold = lines(app, id).await[0].2;
    assert_eq!(nano(done["given_back"].as_str().unwrap()), sold - sale, "{done}");
    assert_eq!(nano(done["attempts"][0]["cost"].as_str().unwrap()), cost, "{done}");
    assert_eq!(app.balance().await, before + sold - sale);
    assert_eq!(estimates().await["items"], json!([]));
    let again = app.admin_try(Method::POST, &path, &report).await;
    assert_eq!((again.status, &again.json()["id"]), (200, &done["id"]), "{again:?}");
    let other = json!({"attempts": [{"n": 1, "cost": "0.5"}], "reason": "usage came late"});
    let conflict = app.admin_try(Method::POST, &path, &other).await;
    assert_eq!((conflict.status, &conflict.json()["code"]), (409, &json!("idempotency_conflict")));
    let record = app.admin(Method::GET, "/audit?limit=1", &Value::Null).await["items"][0].clone();
    assert_eq!((&record["action"], &record["code"]), (&json!("true_up"), &json!(id)));
}

async fn row_15_estimates_of_a_period_are_cleared_at_once(app: &TestApp) {
    app.fault("usage-missing");
    let mut calls = Vec::new();
    for _ in 0..3 {
        calls.push(app.ask("chat").await);
    }
    app.fault("");
    let exact = app.ask("chat").await;
    let before = (app.balance().await, lines(app, exact.request_id()).await);
    let books = app.trial_balance().await;
    let days = async || app.admin(Method::GET, "/ledger/estimates?by=day", &Value::Null).await;
    let day = days().await["items"][0].clone();
    assert_eq!((&day["channel"], &day["calls"]), (&json!("main"), &json!(3)), "{day}");
    let clearing = |change: Value| {
        let mut body = json!({"channel": "main", "currency": "USD", "from": day["day"],
            "to": day["day"], "billed": "as_estimated", "reference": "bill 12", "reason": "r"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    for (change, member) in [
        (json!({"from": "2026-1-1"}), "from"),
        (json!({"to": "1970-01-01"}), "to"),
        (json!({"billed": "half"}), "billed"),
        (json!({"reference": " "}), "reference"),
        (json!({"reason": ""}), "reason"),
    ] {
        let refused =
            app.admin_try(Method::POST, "/ledger/estimates/clear", &clearing(change)).await;
        assert_eq!((refused.status, &refused.json()["errors"][0]["member"]), (400, &json!(member)));
    }
    let none = clearing(json!({"channel": "backup"}));
    let none = app.admin(Method::POST, "/ledger/estimates/clear", &none).await;
    assert_eq!((&none["cleared"], &none["is_all"]), (&json!(0), &json!(true)));
    let body = clearing(json!({}));
    let done = app.admin(Method::POST, "/ledger/estimates/clear", &body).await;
    assert_eq!((&done["cleared"], &done["is_all"]), (&json!(3), &json!(true)), "{done}");
    assert_eq!(done["amount"], day["amount"]);
    assert_eq!(days().await["items"], json!([]));
    let again = app.admin(Method::POST, "/ledger/estimates/clear", &body).await;
    assert_eq!(again["cleared"], json!(0), "{again}");
    let record = app.admin(Method::GET, "/audit?limit=1", &Value::Null).await["items"][0].clone();
    assert_eq!((&record["action"], &record["code"]), (&json!("clear_estimates"), &json!("main")));
    // The customers paid what they paid; what was confirmed by the provider stays as it is.
    assert_eq!(before, (app.balance().await, lines(app, exact.request_id()).await));
    assert_eq!(calls.len(), 3);
    let after = app.trial_balance().await;
    assert_eq!(after["payable_estimated:main"].0, after["payable_estimated:main"].1);
    let owed = |books: &BTreeMap<String, (i64, i64)>| {
        let of = |code: &str| books.get(code).map_or(0, |(debits, credits)| credits - debits);
        of("payable:main") + of("payable_estimated:main")
    };
    assert_eq!(owed(&after), owed(&books));
}

/// Usage that comes after a call was booked by our own count.
async fn late_report(app: &TestApp, tokens: u64) -> (String, Value, i64) {
    app.fault("usage-missing");
    let reply = app.ask("chat").await;
    let sold = lines(app, reply.request_id()).await[0].2;
    let path = format!("/requests/{}/true-up", reply.request_id());
    let usage = json!({"input_tokens": tokens, "output_tokens": 0});
    let report = json!({"attempts": [{"n": 1, "usage": usage}], "reason": "usage came late"});
    (path, report, sold)
}

async fn row_15_a_late_report_charges_more_within_the_window(app: &TestApp) {
    let (path, report, sold) = late_report(app, 9_000).await;
    let before = app.balance().await;
    let done = app.admin(Method::POST, &path, &report).await;
    let owes = of_tokens(&SALE, 9_000);
    assert!(owes > sold, "{owes} {sold}");
    assert_eq!(nano(done["charged_more"].as_str().unwrap()), owes - sold, "{done}");
    assert_eq!(nano(done["given_back"].as_str().unwrap()), 0, "{done}");
    assert_eq!(app.balance().await, before - (owes - sold));
    let again = app.admin_try(Method::POST, &path, &report).await;
    assert_eq!((again.status, app.balance().await), (200, before - (owes - sold)));
    // A later report corrects it down again.
    let less = json!({"attempts": [{"n": 1, "usage": {"input_tokens": 10}}], "reason": "again"});
    let token = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", token.as_str()), ("idempotency-key", "another")];
    let path = format!("/api/admin/v1{path}");
    let reply = app.raw(Method::POST, &path, &headers, less.to_string()).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(app.balance().await, before + sold - of_tokens(&SALE, 10));
}

async fn row_15_a_late_report_charges_no_more_after_the_window(app: &TestApp) {
    let (path, report, _) = late_report(app, 9_000).await;
    let before = app.balance().await;
    let closed = now();
    eventually("a millisecond is over", async || (now().since(closed) > 2_000).then_some(())).await;
    let done = app.admin(Method::POST, &path, &report).await;
    assert_eq!(nano(done["charged_more"].as_str().unwrap()), 0, "{done}");
    assert_eq!(nano(done["attempts"][0]["cost"].as_str().unwrap()), of_tokens(&COST, 9_000));
    assert_eq!(app.balance().await, before);
}

async fn row_20_more_than_the_hold_is_charged_down_to_the_floor(app: &TestApp) {
    app.app("short", "0.0075", json!({})).await;
    let (_, key) = app.mint("short", json!({})).await;
    app.fault("reasoning:50000");
    let reply = app.ask_as(&key, "chat").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(accounts(app, reply.request_id()).await, ["wallet:short revenue", LOST, BOUGHT]);
    let booked = lines(app, reply.request_id()).await;
    let (sale, cost) = truth(app, &reply).await;
    let paid = nano("0.0075");
    assert_eq!((booked[0].2, booked[1].2, booked[2].2), (paid, sale - paid, cost));
    assert_eq!(app.wallet("short").await, (0, 0, 0));
    // The alarm: a metric, an audit record, and a margin that is not flattered.
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_shortfalls_total 1"), "{metrics}");
    let record = eventually("the shortfall is recorded", async || {
        let all = app.admin(Method::GET, "/audit?limit=1", &Value::Null).await;
        Some(all["items"][0].clone()).filter(|record| record["action"] == "shortfall")
    })
    .await;
    assert_eq!(record["code"], reply.request_id());
    assert_eq!(nano(record["after"]["uncollected"].as_str().unwrap()), sale - paid, "{record}");
    let path = format!("/ledger/margin?request_id={}", reply.request_id());
    let margin = app.admin(Method::GET, &path, &Value::Null).await["items"][0].clone();
    let of = |name: &str| nano(margin[name].as_str().unwrap().trim_start_matches('-'));
    assert_eq!((of("revenue"), of("uncollected")), (sale, sale - paid), "{margin}");
    assert_eq!(of("margin"), (paid - cost).abs(), "{margin}");
}

async fn top_up(app: &TestApp, code: &str, once: &str) {
    let token = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", token.as_str()), ("idempotency-key", once)];
    let path = format!("/api/admin/v1/apps/{code}/topups");
    let body = json!({"amount": "0.0075"}).to_string();
    assert_eq!(app.raw(Method::POST, &path, &headers, body).await.status, 201);
}

async fn row_20_a_key_that_comes_up_short_again_and_again_is_paused(app: &TestApp) {
    app.app("short", "0.0075", json!({})).await;
    let (path, key) = app.mint("short", json!({})).await;
    let (_, other) = app.mint("short", json!({})).await;
    let shortfall = async |n: &str| {
        app.fault("reasoning:50000");
        assert_eq!(app.ask_as(&key, "chat").await.status, 200);
        app.fault("");
        top_up(app, "short", n).await;
    };
    shortfall("one").await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200, "once is not again and again");
    shortfall("two").await;
    let paused = eventually("the key is paused", async || {
        let row = app.admin(Method::GET, &path, &Value::Null).await;
        (row["enabled"] == false && row["pause"].is_object()).then_some(row)
    })
    .await;
    assert_eq!(paused["pause"]["calls"], 2, "{paused}");
    let reason = paused["pause"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("paused: 2 calls") && reason.contains("short"), "{reason}");
    assert_eq!(app.ask_as(&key, "chat").await.status, 401);
    assert_eq!(app.ask_as(&other, "chat").await.status, 200, "other keys go on");
    let audit = app.admin(Method::GET, "/audit?limit=20", &Value::Null).await;
    let switched = audit["items"].as_array().unwrap().iter().find(|r| r["action"] == "switch");
    assert_eq!(switched.unwrap()["reason"], reason, "{audit}");
    assert_eq!(switched.unwrap()["actor"], "anima", "{audit}");
    // An admin switches it on, and what came before counts no more.
    app.patch(&path, json!({"enabled": true})).await;
    assert_eq!(app.admin(Method::GET, &path, &Value::Null).await["pause"], Value::Null);
    shortfall("three").await;
    assert_eq!(app.ask_as(&key, "chat").await.status, 200, "one more is not again and again");
    assert!(app.metrics().await.contains("anima_key_pauses_total 1"));
}

async fn row_20_a_stream_that_outgrows_its_hold_gets_a_larger_one(app: &TestApp) {
    app.fault("pace:4+answer-tokens:400+chunks:400");
    let reply = app.ask_stream("chat").await;
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    assert_eq!(accounts(app, reply.request_id()).await, [SOLD, BOUGHT]);
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_hold_extensions_total{outcome=\"extended\"}"), "{metrics}");
}

/// A key of an app that can pay for the prompt and some 200 tokens.
async fn poor(app: &TestApp) -> String {
    app.app("poor", "0.0014", json!({})).await;
    app.mint("poor", json!({})).await.1
}

async fn ask_stream_as(app: &TestApp, key: &str, mut body: Value) -> Reply {
    body["stream"] = json!(true);
    let headers = [("x-api-key", key)];
    app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await
}

async fn row_20_a_stream_is_cut_where_the_money_ends(app: &TestApp) {
    let key = poor(app).await;
    app.fault("pace:4+answer-tokens:2000+chunks:2000");
    let reply = ask_stream_as(app, &key, prompt("chat")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.last_event()["error"]["code"], "insufficient_quota", "{reply:?}");
    assert!(!reply.text().contains("[DONE]"));
    let booked = lines(app, reply.request_id()).await;
    assert_eq!((booked[0].0.as_str(), booked[0].3), ("wallet:poor", true));
    // Most of the money was used, and none that is not there.
    let (posted, held, _) = app.wallet("poor").await;
    assert!(held == 0 && (0..nano("0.0008")).contains(&posted), "{posted} {booked:?}");
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_uncollected_total 0"), "{metrics}");
}

async fn row_20_a_stream_goes_on_where_the_operator_says_so(app: &TestApp) {
    let key = poor(app).await;
    app.fault("pace:1+answer-tokens:500+chunks:500");
    let reply = ask_stream_as(app, &key, prompt("chat")).await;
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    let (sale, cost) = truth(app, &reply).await;
    let booked = lines(app, reply.request_id()).await;
    assert!(sale > nano("0.0014"));
    let paid = nano("0.0014");
    assert_eq!((booked[0].2, booked[1].2, booked[2].2), (paid, sale - paid, cost));
    assert_eq!(app.wallet("poor").await, (0, 0, 0));
}

async fn row_21_a_settlement_waits_on_disk_for_its_database(app: &TestApp) {
    app.fault("gate");
    let (delivered, away) = tokio::join!(app.ask("chat"), async {
        eventually("the call arrives", async || app.upstream.calls().pop()).await;
        app.fault("");
        let away = app.take_database_away().await;
        app.upstream.open_gate();
        away
    });
    // Synced to disk it is settled: the answer is billed, and so it is given.
    assert_eq!(delivered.status, 200, "{delivered:?}");
    assert!(delivered.json()["choices"][0]["message"]["content"].is_string(), "{delivered:?}");
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_spool_settlements 1"), "{metrics}");
    let spooled = std::fs::metadata(app.data_dir().join("settlements.spool")).unwrap().len();
    assert!(spooled > 100, "{spooled}");
    let refused = app.ask("chat").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(app.upstream.calls().len(), 1, "nothing new is begun");
    away.give_back(app).await;
    let booked = booked_again(app, delivered.request_id()).await;
    let (sale, cost) = truth(app, &delivered).await;
    assert_eq!((booked[0].2, booked[1].2), (sale, cost));
    eventually("the spool is empty and calls are served", async || {
        (app.ask("chat").await.status == 200).then_some(())
    })
    .await;
    assert!(app.metrics().await.contains("anima_spool_settlements 0"));
}

/// Found when the spool is written, long after its caller has gone.
async fn row_21_a_loss_that_waited_on_disk_is_an_alarm_too(app: &TestApp) {
    app.app("short", "0.0075", json!({})).await;
    let (_, key) = app.mint("short", json!({})).await;
    app.fault("gate+reasoning:50000");
    let (delivered, away) = tokio::join!(app.ask_as(&key, "chat"), async {
        eventually("the call arrives", async || app.upstream.calls().pop()).await;
        let away = app.take_database_away().await;
        app.upstream.open_gate();
        away
    });
    assert_eq!(delivered.status, 200, "{delivered:?}");
    away.give_back(app).await;
    let booked = booked_again(app, delivered.request_id()).await;
    assert_eq!((booked[0].0.as_str(), booked[1].0.as_str()), ("wallet:short", "exposure"));
    let record = eventually("the shortfall is recorded", async || {
        let all = app.admin_try(Method::GET, "/audit?limit=1", &Value::Null).await;
        let all = (all.status == 200).then(|| all.json())?;
        Some(all["items"][0].clone()).filter(|record| record["action"] == "shortfall")
    })
    .await;
    assert_eq!(record["code"], delivered.request_id());
    assert!(key.contains(record["after"]["kid"].as_str().unwrap()), "{record}");
    assert_eq!(nano(record["after"]["uncollected"].as_str().unwrap()), booked[1].2, "{record}");
    let metrics = app.metrics().await;
    assert!(metrics.contains("anima_shortfalls_total 1"), "{metrics}");
}

/// The same as `booked`, through an admin API that does not answer for a while.
async fn booked_again(app: &TestApp, id: &str) -> Vec<(String, String, i64, bool)> {
    let path = format!("/ledger/postings?request_id={id}");
    eventually("the database is back", async || {
        let reply = app.admin_try(Method::GET, &path, &Value::Null).await;
        let some = reply.status == 200 && !reply.json()["items"].as_array()?.is_empty();
        some.then_some(())
    })
    .await;
    lines(app, id).await
}

async fn row_22_an_empty_answer_is_not_sold(app: &TestApp) {
    let before = app.wallet("acme").await;
    app.fault("empty");
    let reply = app.ask("chat").await;
    assert_eq!(reply.status, 200);
    assert_eq!(accounts(app, reply.request_id()).await, ["wasted_cost payable:main"]);
    assert_eq!(app.wallet("acme").await, before);
}

async fn row_24_an_account_without_money_fails_over(app: &TestApp) {
    with_backup(app).await;
    let exhausted = "status:429:code=insufficient_quota";
    app.script(&json!([{"match": {"key": MAIN_SECRET}, "do": exhausted}]));
    let reply = app.ask("twice").await;
    assert_eq!((reply.status, reply.header("x-anima-served-model")), (200, "sim-other"));
    let metrics = app.metrics().await;
    let line =
        "anima_upstream_attempts_total{channel=\"main\",outcome=\"upstream_account_exhausted\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    let booked = app.legs(&reply).await;
    assert!(booked.iter().all(|leg| leg.component != "waste"), "{booked:?}");
}

async fn an_output_limit_is_lowered_to_what_the_wallet_covers(app: &TestApp) {
    app.app("poor", "0.0035", json!({})).await;
    let (_, key) = app.mint("poor", json!({})).await;
    app.fault("answer-tokens:3000");
    let headers = [("x-api-key", key.as_str())];
    let mut body = prompt("chat");
    body["max_tokens"] = json!(100_000);
    let reply = app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let limit: u64 = reply.header("x-anima-output-limit").parse().unwrap();
    assert!((256..600).contains(&limit), "{limit}");
    let [call] = &app.calls_of(&reply).await[..] else { panic!("one call") };
    assert_eq!(call.billed.completion_tokens, limit, "the provider was told");
    let (posted, held, _) = app.wallet("poor").await;
    assert!(posted >= 0 && held == 0, "{posted}");
    assert!(app.metrics().await.contains("anima_output_limited_total 1"));
    // What is left covers less than is of use.
    let refused = app.raw(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(refused.refusal(), (429, "insufficient_quota".into()));
    assert_eq!(refused.header("x-anima-output-limit"), "");
    assert_eq!(app.ask("chat").await.header("x-anima-output-limit"), "", "only when lowered");
}
