//! The queue, the order and the halving, with an engine that keeps nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use super::fixtures::*;
use crate::ledger::batch::{Engine, Failure, run};
use crate::ledger::operation::{Item, Operation, Verdict};
use crate::ledger::queue::queue;
use crate::ledger::{Error, Settled};

type Answers = Box<dyn FnMut(&[Item]) -> Result<(), Failure> + Send>;

/// Says yes to everything that its script lets pass, and writes down what it was given.
struct Scripted {
    script: Answers,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Engine for Scripted {
    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        (self.script)(items)?;
        self.seen.lock().push(items.iter().map(letter).collect());
        let settled = Settled { charged: 0, uncollected: 0, replayed: false };
        Ok(items
            .iter()
            .map(|item| match &item.operation {
                Operation::Hold(_) => Verdict::Held(Ok(())),
                Operation::Settle(_) => Verdict::Settled(Ok(settled)),
                Operation::Post(_) => Verdict::Posted(Err(Error::Conflict)),
                Operation::Extend(_) => Verdict::Extended(Ok(())),
                Operation::TrueUp(_) => Verdict::TruedUp(Err(Error::Conflict)),
                Operation::Checkpoint(_) => Verdict::Checkpointed(Ok(())),
            })
            .collect())
    }
}

fn letter(item: &Item) -> char {
    match item.operation {
        Operation::Hold(_) => 'h',
        Operation::Settle(_) => 's',
        Operation::Post(_) => 'p',
        Operation::Extend(_) => 'e',
        Operation::TrueUp(_) => 't',
        Operation::Checkpoint(_) => 'c',
    }
}

fn is_offender(item: &Item) -> bool {
    matches!(&item.operation, Operation::Hold(hold) if hold.id == Uuid::from_u128(5))
}

#[tokio::test]
async fn settlements_go_before_entries_and_entries_before_holds() {
    let (queue, lanes) = queue();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let engine = Scripted { script: Box::new(|_| Ok(())), seen: Arc::clone(&seen) };
    let calls = async {
        let _answers = tokio::join!(
            queue.hold(hold(1, "a", 1)),
            queue.post(topup(2, "a", 1)),
            queue.hold(hold(3, "a", 1)),
            queue.settle(settle(&hold(4, "a", 1), 1)),
        );
        drop(queue);
    };
    tokio::join!(biased; calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(*seen.lock(), ["sphh"]);
}

#[tokio::test]
async fn checkpoints_go_last_and_only_so_many_together() {
    let (queue, mut lanes) = queue();
    let one = hold(1, "a", 1);
    let sent: Vec<_> = (0..200).map(|n| queue.checkpoint(checkpoint(&one, n)).unwrap()).collect();
    let calls = async {
        let _answers = tokio::join!(
            queue.hold(hold(2, "a", 1)),
            queue.extend(extension(&one, 5)),
            queue.true_up(correction(settle(&one, 1))),
            queue.settle(settle(&hold(4, "a", 1), 1)),
        );
    };
    let writer = async {
        assert!(lanes.fill().await);
        let letters = |batch: Vec<Item>| batch.iter().map(letter).collect::<String>();
        assert_eq!(letters(lanes.take(512)), format!("seth{}", "c".repeat(128)));
        assert_eq!(letters(lanes.take(3)), "ccc");
        assert_eq!(letters(lanes.take(512)), "c".repeat(69));
    };
    tokio::join!(biased; calls, writer);
    drop(sent);
}

#[tokio::test]
async fn of_too_many_checkpoints_the_oldest_are_dropped() {
    let (queue, mut lanes) = queue();
    let one = hold(1, "a", 1);
    let mut sent: Vec<_> =
        (0..4_100).map(|n| queue.checkpoint(checkpoint(&one, n)).unwrap()).collect();
    assert!(lanes.fill().await);
    assert_eq!(sent.remove(3).await, Err(Error::Overloaded));
    let kept = lanes.take(1);
    let Operation::Checkpoint(first) = &kept[0].operation else { panic!("{kept:?}") };
    assert_eq!(first.checkpoint.progress, 4);
}

#[tokio::test]
async fn an_offender_is_found_by_halving_and_the_order_is_kept() {
    let (queue, lanes) = queue();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let script = |items: &[Item]| {
        if items.iter().any(is_offender) { Err(Failure::Refused("no".to_owned())) } else { Ok(()) }
    };
    let engine = Scripted { script: Box::new(script), seen: Arc::clone(&seen) };
    let counts = Arc::new(Counts::default());
    let queue = Arc::new(queue);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let queue = Arc::clone(&queue);
        calls.spawn(async move { (n, queue.hold(hold(n, "a", 1)).await) });
    }
    drop(queue);
    // The calls are queued before the writer starts: one thread, and they were spawned first.
    let writer = tokio::spawn(run(engine, lanes, Arc::<Counts>::clone(&counts)));
    for (n, answer) in calls.join_all().await {
        let expected = if n == 5 { Err(Error::Refused("no".to_owned())) } else { Ok(()) };
        assert_eq!(answer, expected, "{n}");
    }
    writer.await.unwrap();
    assert_eq!(*seen.lock(), ["hhhh", "h", "hh"]);
    assert_eq!(counts.failed.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn an_outage_refuses_holds_at_once() {
    let (queue, lanes) = queue();
    let script = |_: &[Item]| Err(Failure::Lost("away".to_owned()));
    let engine = Scripted { script: Box::new(script), seen: Arc::default() };
    let started = tokio::time::Instant::now();
    let call = async {
        let answer = queue.hold(hold(1, "a", 1)).await;
        assert_eq!(answer, Err(Error::Unavailable("away".to_owned())));
        assert!(started.elapsed() < Duration::from_millis(10));
    };
    tokio::select! {
        () = call => {}
        () = run(engine, lanes, Arc::new(Counts::default())) => panic!("its release waits"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_is_written_when_the_database_comes_back() {
    let (queue, lanes) = queue();
    let mut tries = 0;
    let script = move |_: &[Item]| {
        tries += 1;
        if tries < 10 { Err(Failure::Lost("away".to_owned())) } else { Ok(()) }
    };
    let engine = Scripted { script: Box::new(script), seen: Arc::default() };
    let calls = async {
        queue.settle(settle(&hold(4, "a", 1), 1)).await.unwrap();
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
}

#[tokio::test(start_paused = true)]
async fn holds_that_waited_too_long_are_shed_and_settlements_are_not() {
    let (queue, mut lanes) = queue();
    let calls = async {
        let (held, also, settled) = tokio::join!(
            queue.hold(hold(1, "a", 1)),
            queue.hold(hold(2, "a", 1)),
            queue.settle(settle(&hold(4, "a", 1), 1)),
        );
        assert_eq!((held, also), (Err(Error::Overloaded), Err(Error::Overloaded)));
        assert!(matches!(settled, Err(Error::Unavailable(_))));
        drop(queue);
    };
    let writer = async {
        assert!(lanes.fill().await);
        tokio::time::advance(Duration::from_millis(251)).await;
        let batch = lanes.take(2);
        assert_eq!(batch.iter().map(letter).collect::<String>(), "s");
    };
    tokio::join!(biased; calls, writer);
}

#[tokio::test]
async fn a_full_queue_refuses_holds_and_takes_settlements() {
    let (queue, lanes) = queue();
    let queue = Arc::new(queue);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..4_097 {
        let queue = Arc::clone(&queue);
        calls.spawn(async move { queue.hold(hold(n, "a", 1)).await });
    }
    // The last one finds the queue full and returns at once.
    assert_eq!(calls.join_next().await.unwrap().unwrap(), Err(Error::Overloaded));
    let settling = Arc::clone(&queue);
    calls.spawn(async move { settling.settle(settle(&hold(4, "a", 1), 1)).await.map(|_| ()) });
    drop(queue);
    let engine = Scripted { script: Box::new(|_| Ok(())), seen: Arc::default() };
    tokio::spawn(run(engine, lanes, Arc::new(Counts::default())));
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 4_097);
}

#[tokio::test]
async fn a_fatal_failure_stops_the_writer_and_says_so() {
    let (queue, lanes) = queue();
    let script = |_: &[Item]| Err(Failure::Fatal("fsync failed".to_owned()));
    let engine = Scripted { script: Box::new(script), seen: Arc::default() };
    let calls = async {
        let stopped = Err(Error::Unavailable("fsync failed".to_owned()));
        assert_eq!(queue.hold(hold(1, "a", 1)).await, stopped);
        assert_eq!(queue.hold(hold(2, "a", 1)).await, stopped);
        assert!(!queue.healthy());
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
}
