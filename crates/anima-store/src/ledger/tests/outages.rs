//! What becomes of operations whose database, or whose caller, goes away: with an engine that keeps
//! open holds in memory and fails as its script says.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::fixtures::*;
use crate::ledger::batch::{Engine, Failure, run};
use crate::ledger::operation::{Item, Operation, Verdict};
use crate::ledger::queue::queue;
use crate::ledger::{Error, Posted, Settled};

/// What happens to a batch.
enum Fate {
    Written,
    /// It is written, and the connection is lost before the answer comes.
    Unheard,
    Lost,
    Refused,
    Panics,
    /// It is written, and then the program panics.
    WrittenAndPanics,
}

type Script = Box<dyn FnMut(&[Item]) -> Fate + Send>;

/// Open holds, and every settlement that was written.
#[derive(Default)]
struct Written {
    open: BTreeSet<Uuid>,
    entries: usize,
    upstream_refs: Vec<Option<String>>,
}

struct Flaky {
    script: Script,
    written: Arc<Mutex<Written>>,
}

impl Engine for Flaky {
    async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, Failure> {
        let fate = (self.script)(items);
        match fate {
            Fate::Written | Fate::Unheard | Fate::WrittenAndPanics => {}
            Fate::Panics => panic!("on purpose"),
            Fate::Lost => return Err(Failure::Lost("away".to_owned())),
            Fate::Refused => return Err(Failure::Refused("no".to_owned())),
        }
        let mut written = self.written.lock();
        let verdicts = items.iter().map(|item| written.write(item)).collect();
        assert!(!matches!(fate, Fate::WrittenAndPanics), "on purpose");
        if matches!(fate, Fate::Unheard) {
            return Err(Failure::Lost("cut".to_owned()));
        }
        Ok(verdicts)
    }
}

impl Written {
    fn write(&mut self, item: &Item) -> Verdict {
        match &item.operation {
            Operation::Hold(hold) => {
                self.open.insert(hold.id);
                Verdict::Held(Ok(()))
            }
            Operation::Settle(s) if self.open.remove(&s.settlement.hold) => {
                let refs = s.settlement.attempts.iter().map(|a| a.upstream_ref.clone());
                self.upstream_refs.extend(refs);
                Verdict::Settled(Ok(Settled { charged: 0, uncollected: 0, replayed: false }))
            }
            Operation::Settle(_) => Verdict::Settled(Err(Error::HoldUnknown)),
            Operation::Post(_) => {
                self.entries += 1;
                Verdict::Posted(Ok(Posted { journal: Uuid::nil(), replayed: false }))
            }
            Operation::Extend(_) => Verdict::Extended(Ok(())),
            Operation::TrueUp(_) => Verdict::TruedUp(Err(Error::HoldUnknown)),
            Operation::Checkpoint(_) => Verdict::Checkpointed(Ok(())),
        }
    }

    fn open(&self) -> Vec<u128> {
        self.open.iter().map(Uuid::as_u128).collect()
    }
}

/// An engine whose hold 4 is open.
fn flaky(script: impl FnMut(&[Item]) -> Fate + Send + 'static) -> (Flaky, Arc<Mutex<Written>>) {
    let written = Written { open: [Uuid::from_u128(4)].into(), ..Written::default() };
    let written = Arc::new(Mutex::new(written));
    (Flaky { script: Box::new(script), written: Arc::clone(&written) }, written)
}

/// Away for a minute from now.
fn away_for_a_minute() -> impl FnMut(&[Item]) -> Fate + Send + 'static {
    let back = Instant::now() + Duration::from_mins(1);
    move |_| if Instant::now() < back { Fate::Lost } else { Fate::Written }
}

fn away() -> Error {
    Error::Unavailable("away".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_settlement_is_written_after_its_caller_was_told_that_the_database_is_away() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(away_for_a_minute());
    let calls = async {
        let started = Instant::now();
        assert_eq!(queue.settle(settle(&hold(4, "a", 1), 1)).await, Err(away()));
        assert!((4_900..5_500).contains(&started.elapsed().as_millis()));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().open(), []);
}

#[tokio::test(start_paused = true)]
async fn holds_are_refused_at_once_while_settlements_are_kept() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(away_for_a_minute());
    let calls = async {
        assert_eq!(queue.settle(settle(&hold(4, "a", 1), 1)).await, Err(away()));
        let asked = Instant::now();
        assert!(matches!(queue.hold(hold(1, "a", 1)).await, Err(Error::Unavailable(_))));
        assert_eq!(asked.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(queue.hold(hold(2, "a", 1)).await, Ok(()));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().open(), [2]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_not_written_after_its_caller_was_told_that_the_database_is_away() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(away_for_a_minute());
    let calls = async {
        let both =
            tokio::join!(queue.post(topup(2, "a", 1)), queue.settle(settle(&hold(4, "a", 1), 1)));
        assert_eq!(both, (Err(away()), Err(away())));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    let written = written.lock();
    assert_eq!((written.entries, written.open()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_checkpoints_are_refused_and_extensions_wait() {
    let (queue, lanes) = queue();
    let (engine, _written) = flaky(away_for_a_minute());
    let started = Instant::now();
    let calls = async {
        let one = hold(4, "a", 1);
        let point = queue.checkpoint(checkpoint(&one, 1)).unwrap();
        let extending = async {
            assert_eq!(queue.extend(extension(&one, 5)).await, Err(away()));
            started.elapsed()
        };
        let pointing = async {
            assert_eq!(point.await, Err(away()));
            started.elapsed()
        };
        let (extended, pointed) = tokio::join!(extending, pointing);
        assert!(extended.as_secs() >= 4 && pointed.is_zero(), "{extended:?} {pointed:?}");
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
}

#[tokio::test(start_paused = true)]
async fn callers_behind_many_kept_settlements_are_told_in_time() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(away_for_a_minute());
    let queue = Arc::new(queue);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..1_200 {
        let queue = Arc::clone(&queue);
        calls.spawn(async move {
            let started = Instant::now();
            let told = queue.settle(settle(&hold(n, "a", 1), 1)).await;
            (told, started.elapsed())
        });
    }
    drop(queue);
    let writer = tokio::spawn(run(engine, lanes, Arc::new(Counts::default())));
    for (told, after) in calls.join_all().await {
        assert_eq!(told, Err(away()));
        assert!(after < Duration::from_millis(5_500), "{after:?}");
    }
    writer.await.unwrap();
    assert_eq!(written.lock().open(), []);
}

#[tokio::test]
async fn of_too_many_kept_settlements_the_oldest_are_dropped() {
    let (_queue, mut lanes) = queue();
    (0..50_003).for_each(|n| lanes.release(&hold(n, "a", 1)));
    lanes.outage(&away());
    let kept = lanes.take(usize::MAX);
    assert_eq!(kept.len(), 50_000);
    assert_eq!(kept[0].operation.name(), ("settlement", Uuid::from_u128(3)));
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_unwell_until_what_waits_for_the_database_is_written() {
    let (queue, lanes) = queue();
    let (engine, _) = flaky(away_for_a_minute());
    assert!(queue.healthy());
    let calls = async {
        assert_eq!(queue.hold(hold(1, "a", 1)).await, Err(away()));
        assert!(!queue.healthy());
        tokio::time::sleep(Duration::from_mins(1)).await;
        // Nobody asked for anything meanwhile.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(queue.healthy());
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
}

#[tokio::test(start_paused = true)]
async fn a_writer_with_nothing_left_to_try_is_not_unwell_for_ever() {
    let (queue, lanes) = queue();
    let (engine, _) = flaky(|_| Fate::Lost);
    let calls = async {
        assert_eq!(queue.post(topup(2, "a", 1)).await, Err(away()));
        assert!(queue.healthy());
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
}

#[tokio::test]
async fn a_writer_that_has_ended_is_unwell() {
    let (queue, lanes) = queue();
    drop(lanes);
    assert!(!queue.healthy());
}

#[tokio::test(start_paused = true)]
async fn a_hold_whose_answer_got_lost_is_released() {
    let (queue, lanes) = queue();
    let mut batches = 0;
    let (engine, written) = flaky(move |_| {
        batches += 1;
        if batches == 1 { Fate::Unheard } else { Fate::Written }
    });
    let calls = async {
        let answer = queue.hold(hold(1, "a", 1)).await;
        assert_eq!(answer, Err(Error::Unavailable("cut".to_owned())));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().open(), [4]);
}

#[tokio::test(start_paused = true)]
async fn the_release_of_a_hold_that_was_never_written_does_not_meet_its_repetition() {
    let (queue, lanes) = queue();
    let mut batches = 0;
    let (engine, written) = flaky(move |_| {
        batches += 1;
        if batches == 1 { Fate::Lost } else { Fate::Written }
    });
    let calls = async {
        assert_eq!(queue.hold(hold(1, "a", 1)).await, Err(away()));
        while queue.hold(hold(1, "a", 1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().open(), [1, 4]);
}

/// Polls a future once.
async fn once(future: std::pin::Pin<&mut impl Future>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(move |context| {
        std::task::Poll::Ready(future.take().is_some_and(|f| f.poll(context).is_ready()))
    })
    .await
}

#[tokio::test]
async fn a_hold_whose_caller_leaves_before_the_verdict_is_released() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(|_| Fate::Written);
    {
        let mut call = pin!(queue.hold(hold(1, "a", 1)));
        assert!(!once(call.as_mut()).await);
    }
    drop(queue);
    run(engine, lanes, Arc::new(Counts::default())).await;
    assert_eq!(written.lock().open(), [4]);
}

#[tokio::test]
async fn a_hold_whose_caller_leaves_between_the_verdict_and_reading_it_is_released() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(|_| Fate::Written);
    let mut writer = pin!(run(engine, lanes, Arc::new(Counts::default())));
    {
        let mut call = pin!(queue.hold(hold(1, "a", 1)));
        assert!(!once(call.as_mut()).await);
        assert!(!once(writer.as_mut()).await);
        assert_eq!(written.lock().open(), [1, 4]);
    }
    drop(queue);
    writer.await;
    assert_eq!(written.lock().open(), [4]);
}

#[tokio::test]
async fn a_hold_whose_verdict_was_read_stays() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(|_| Fate::Written);
    let calls = async {
        assert_eq!(queue.hold(hold(1, "a", 1)).await, Ok(()));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().open(), [1, 4]);
}

#[tokio::test]
async fn a_refused_settlement_is_written_without_what_the_service_named_it() {
    let (queue, lanes) = queue();
    let named = |item: &Item| match &item.operation {
        Operation::Settle(s) => s.settlement.attempts.iter().any(|a| a.upstream_ref.is_some()),
        Operation::Hold(_)
        | Operation::Post(_)
        | Operation::Extend(_)
        | Operation::TrueUp(_)
        | Operation::Checkpoint(_) => false,
    };
    let (engine, written) =
        flaky(move |items| if items.iter().any(named) { Fate::Refused } else { Fate::Written });
    let calls = async {
        queue.settle(settle(&hold(4, "a", 1), 1)).await.unwrap();
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().upstream_refs, [None]);
}

#[tokio::test]
async fn a_settlement_that_is_refused_without_texts_too_is_refused() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(|_| Fate::Refused);
    let counts = Arc::new(Counts::default());
    let calls = async {
        let answer = queue.settle(settle(&hold(4, "a", 1), 1)).await;
        assert_eq!(answer, Err(Error::Refused("no".to_owned())));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::<Counts>::clone(&counts)));
    assert_eq!(written.lock().open(), [4]);
    assert_eq!(counts.failed.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_a_service_names_a_call_is_cut_to_128_plain_characters() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(|_| Fate::Written);
    let mut settlement = settle(&hold(4, "a", 1), 1);
    settlement.attempts[0].upstream_ref = Some(format!("a\0b\n\u{85}{}", "ü".repeat(500)));
    let calls = async {
        queue.settle(settlement).await.unwrap();
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().upstream_refs, [Some(format!("ab{}", "ü".repeat(126)))]);
}

fn panicked(error: &Error) -> bool {
    matches!(error, Error::Unavailable(why) if why.contains("is not known: on purpose"))
}

/// Panics in the first transaction, and in each one of these holds or settlements of them alone.
fn panics_at(id: u128) -> impl FnMut(&[Item]) -> Fate + Send + 'static {
    let id = Uuid::from_u128(id);
    move |items| {
        let is_it = |item: &Item| item.operation.name().1 == id;
        if items.iter().any(is_it) { Fate::Panics } else { Fate::Written }
    }
}

#[tokio::test(start_paused = true)]
async fn what_shares_a_transaction_with_a_panic_is_written_and_it_alone_is_given_back() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(panics_at(2));
    let calls = async {
        let all = tokio::join!(
            queue.hold(hold(1, "a", 1)),
            queue.hold(hold(2, "a", 1)),
            queue.hold(hold(3, "a", 1)),
            queue.post(topup(9, "a", 1)),
            queue.settle(settle(&hold(4, "a", 1), 1)),
        );
        assert_eq!((all.0, all.2), (Ok(()), Ok(())));
        assert!(panicked(&all.1.unwrap_err()));
        assert!(all.3.is_ok() && all.4.is_ok() && queue.healthy());
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    let written = written.lock();
    assert_eq!((written.open(), written.entries), (vec![1, 3], 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_the_commit_loses_nothing_that_was_written() {
    let (queue, lanes) = queue();
    let mut is_first = true;
    let script = move |_: &[Item]| {
        let fate = if is_first { Fate::WrittenAndPanics } else { Fate::Written };
        is_first = false;
        fate
    };
    let (engine, written) = flaky(script);
    let counts = Arc::new(Counts::default());
    let calls = async {
        // Alone: nobody knows whether it was written, so it is given back.
        assert!(panicked(&queue.hold(hold(1, "a", 1)).await.unwrap_err()));
        assert_eq!(queue.hold(hold(2, "a", 1)).await, Ok(()));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::clone(&counts) as _));
    assert_eq!(written.lock().open(), [2, 4]);
    assert_eq!(counts.panicked.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_always_panics_is_refused_in_the_end() {
    let (queue, lanes) = queue();
    let (engine, written) = flaky(panics_at(4));
    let calls = async {
        let again = || queue.settle(settle(&hold(4, "a", 1), 1));
        assert!(panicked(&again().await.unwrap_err()));
        assert!(panicked(&again().await.unwrap_err()));
        assert!(matches!(again().await, Err(Error::Refused(_))));
        assert_eq!(queue.hold(hold(2, "a", 1)).await, Ok(()));
        drop(queue);
    };
    tokio::join!(calls, run(engine, lanes, Arc::new(Counts::default())));
    assert_eq!(written.lock().open(), [2, 4]);
}

/// Panics when it is told of a transaction, so many times.
#[derive(Debug)]
struct Clumsy(std::sync::atomic::AtomicUsize);

impl crate::ledger::BatchObserver for Clumsy {
    fn committed(&self, _holds: usize, _settlements: usize, _seconds: f64) {
        let left = self.0.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        assert!(left.is_err(), "on purpose");
    }

    fn failed(&self) {}
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_panics_starts_again_and_gives_up_when_it_always_does() {
    for (panics, is_served) in [(9, true), (10, false)] {
        let (queue, lanes) = queue();
        let (engine, written) = flaky(|_: &[Item]| Fate::Written);
        let calls = async {
            let all = tokio::join!(
                queue.post(topup(9, "a", 1)),
                queue.extend(extension(&hold(4, "a", 1), 5))
            );
            assert_eq!((all.0.is_ok(), all.1.is_ok()), (is_served, is_served));
            assert_eq!(queue.healthy(), is_served);
            assert_eq!(queue.hold(hold(1, "a", 1)).await.is_ok(), is_served);
            drop(queue);
        };
        tokio::join!(calls, run(engine, lanes, Arc::new(Clumsy(panics.into()))));
        assert_eq!(written.lock().open().contains(&1), is_served);
    }
}

/// On a database: the writer panics after each of its first transactions.
pub(super) async fn a_panic_loses_nothing_that_was_acknowledged(
    open: impl Fn(Arc<dyn crate::ledger::BatchObserver>) -> Arc<dyn crate::ledger::LedgerStore>,
) {
    let ledger = open(Arc::new(Clumsy(3.into())));
    let one = ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    assert!(one.replayed, "it was written before the panic, and once");
    let ledger = open(Arc::new(Clumsy(1.into())));
    assert!(matches!(ledger.hold(hold(1, "acme", 100)).await, Err(Error::Unavailable(_))));
    let again = hold(2, "acme", 60);
    // Refused while it is given back.
    while ledger.hold(again.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
    // What nobody knew of is given back, by its own writer.
    while wallet(&*ledger, "acme").await != (1_000, 60, 0) {
        tokio::task::yield_now().await;
    }
    let ledger = open(Arc::new(Clumsy(1.into())));
    let settled = ledger.settle(settle(&again, 50)).await.unwrap();
    assert_eq!((settled.charged, settled.replayed), (50, true));
    assert_eq!(wallet(&*ledger, "acme").await, (950, 0, 0));
    assert_clean(&*ledger).await;
}
