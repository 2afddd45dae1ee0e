//! The log: order, cap, file, and how entries end.

use super::*;
use crate::reply::{Billing, Piece, Truth};

fn truth(billing: Billing) -> Truth {
    Truth {
        endpoint: Endpoint::Chat,
        model: "sim-chat".to_owned(),
        stream: true,
        rule: None,
        billing,
        usage: Usage {
            prompt_tokens: 7,
            completion_tokens: 9,
            cached_tokens: 2,
            reasoning_tokens: 4,
            ..Usage::default()
        },
        pictures: Vec::new(),
        reported: Some(Reported { prompt_tokens: 7, ..Reported::default() }),
        outcome: Outcome::Answered,
    }
}

fn call(number: u64, truth: &Truth) -> Call {
    Call {
        number,
        id: format!("simcall_{number}"),
        received_ms: 0,
        attempt_id: None,
        request_id: None,
        key_tail: None,
        endpoint: truth.endpoint,
        model: truth.model.clone(),
        stream: truth.stream,
        rule: None,
        status: Some(200),
        billed: truth.billed(0),
        reported: None,
        pictures: Vec::new(),
        chunks: 0,
        caller_left: false,
        outcome: Outcome::Open,
    }
}

fn record(log: &Arc<Log>, billing: Billing) -> Record {
    let number = log.number();
    Record::open(log, number, truth(billing), |truth| call(number, truth))
}

fn piece(tokens: u64, reports_usage: bool) -> Piece {
    Piece { tokens, content: tokens > 0, reports_usage, ..Piece::default() }
}

fn in_memory(cap: usize) -> Arc<Log> {
    Arc::new(Log::in_memory(LogSettings { cap, ..LogSettings::default() }))
}

fn numbers(calls: &[Call]) -> Vec<u64> {
    calls.iter().map(|call| call.number).collect()
}

#[test]
fn an_entry_exists_before_the_first_piece() {
    let log = in_memory(9);
    let _open = record(&log, Billing::Streamed);
    let entry = &log.after(0)[0];
    assert_eq!(entry.outcome, Outcome::Open);
    assert_eq!((entry.billed.prompt_tokens, entry.billed.completion_tokens), (7, 4));
}

#[test]
fn a_finished_stream_bills_what_was_sent() {
    let log = in_memory(9);
    let mut open = record(&log, Billing::Streamed);
    open.sent(&piece(3, false));
    open.sent(&piece(2, false));
    open.sent(&piece(0, true));
    open.finish();
    drop(open);
    let entry = &log.after(0)[0];
    assert_eq!(entry.outcome, Outcome::Answered);
    assert_eq!((entry.billed.completion_tokens, entry.chunks), (9, 2));
    assert_eq!(entry.reported.unwrap().prompt_tokens, 7);
    assert!(!entry.caller_left);
}

#[test]
fn a_dropped_entry_says_why_it_ended() {
    let log = in_memory(9);
    let mut left = record(&log, Billing::Streamed);
    left.sent(&piece(3, false));
    drop(left);
    drop(record(&log, Billing::Whole));
    let mut silent = record(&log, Billing::Nothing);
    silent.fell_silent();
    assert_eq!(log.after(2)[0].outcome, Outcome::Silent);
    assert!(!log.after(2)[0].caller_left);
    drop(silent);
    log.stop();
    drop(record(&log, Billing::Whole));
    let ends: Vec<_> = log
        .after(0)
        .iter()
        .map(|call| (call.outcome, call.caller_left, call.billed.completion_tokens))
        .collect();
    assert_eq!(
        ends,
        [
            (Outcome::Left, true, 7),
            (Outcome::Left, true, 9),
            (Outcome::Silent, true, 0),
            (Outcome::Stopped, false, 9),
        ]
    );
    assert!(log.after(0).iter().all(|call| call.reported.is_none()));
}

#[test]
fn the_cap_forgets_the_oldest_and_a_clearing_forgets_all() {
    let log = in_memory(2);
    let mut first = record(&log, Billing::Whole);
    drop(record(&log, Billing::Whole));
    drop(record(&log, Billing::Whole));
    // Its entry is gone already; finishing it must not hurt.
    first.finish();
    assert_eq!(numbers(&log.after(0)), [2, 3]);
    assert_eq!(numbers(&log.after(2)), [3]);
    log.clear();
    drop(record(&log, Billing::Whole));
    assert_eq!(numbers(&log.after(0)), [4]);
}

#[test]
fn late_entries_are_sorted_in() {
    let log = in_memory(9);
    for number in [2, 1, 4, 3] {
        log.enter(call(number, &truth(Billing::Whole)));
    }
    assert_eq!(numbers(&log.after(0)), [1, 2, 3, 4]);
}

#[test]
fn a_disabled_log_keeps_nothing_but_counts() {
    let log = Arc::new(Log::in_memory(LogSettings { enabled: false, ..LogSettings::default() }));
    let mut open = record(&log, Billing::Whole);
    open.finish();
    assert_eq!((log.after(0).len(), log.arrived()), (0, 1));
}

#[test]
fn a_file_survives_a_kill_and_a_second_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls.jsonl");
    let open = || Log::open(LogSettings { file: Some(path.clone()), ..LogSettings::default() });
    let log = open().unwrap();
    let mut ended = record(&log, Billing::Whole);
    ended.finish();
    let unfinished = record(&log, Billing::Streamed);
    // A kill: no destructor runs, and the last line may be torn.
    std::mem::forget(unfinished);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"number\": 3, \"id");
    std::fs::write(&path, text).unwrap();

    let log = open().unwrap();
    log.clear();
    drop(record(&log, Billing::Whole));
    let calls = read_file(&path).unwrap();
    let ends: Vec<_> = calls.iter().map(|call| (call.number, call.outcome)).collect();
    assert_eq!(ends, [(1, Outcome::Answered), (2, Outcome::Open), (3, Outcome::Left)]);
    assert_eq!(calls[0].billed.completion_tokens, 9);
    assert_eq!(log.lost(), 0);
}

#[tokio::test]
async fn idle_waits_for_the_last_open_call() {
    let log = in_memory(9);
    log.idle().await;
    let mut open = record(&log, Billing::Whole);
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.idle().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    open.finish();
    waiting.await.unwrap();
}
