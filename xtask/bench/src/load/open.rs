//! The open loop: requests are due at fixed times, whatever the server does.
//!
//! A thread of its own keeps the beat, since a runtime's timers are a millisecond coarse; it puts
//! due times on a queue that the connections empty.
//! Invariant: the number of requests is rate times length, answered or not.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::{Job, Tally, Worker, connect, finish};

/// Connections that share the work; a queue behind all of them shows as latency.
const CONNECTIONS: usize = 128;

/// `rate` requests a second for `length`.
///
/// # Errors
/// When the connections cannot be opened.
pub(crate) async fn open(job: &Job, rate: u32, length: Duration) -> Result<Tally> {
    let tally = Rc::new(RefCell::new(Tally::empty()?));
    let queue = Rc::new(Queue::default());
    let mut workers = JoinSet::new();
    for connection in connect(job, CONNECTIONS).await? {
        let mut worker =
            Worker { job: job.clone(), connection: Some(connection), tally: Rc::clone(&tally) };
        let queue = Rc::clone(&queue);
        workers.spawn_local(async move {
            while let Some(due) = queue.next().await {
                worker.call(due).await;
            }
        });
    }
    let start = Instant::now();
    let mut beats = beat(start, rate, length);
    while let Some(due) = beats.recv().await {
        queue.push(due);
    }
    queue.close();
    finish(workers, Duration::ZERO, &tally).await;
    let mut tally = tally.take();
    tally.fail_many("never sent", queue.left());
    tally.seconds = start.elapsed().as_secs_f64();
    Ok(tally)
}

/// Sends each due time when it comes.
fn beat(start: Instant, rate: u32, length: Duration) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let every = Duration::from_secs(1) / rate.max(1);
    thread::spawn(move || {
        let mut due = start + every;
        while due <= start + length {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
            due += every;
        }
    });
    receiver
}

/// Due times that no connection has taken yet.
#[derive(Default)]
struct Queue {
    due: RefCell<VecDeque<Instant>>,
    closed: RefCell<bool>,
    ring: Notify,
}

impl Queue {
    fn push(&self, due: Instant) {
        self.due.borrow_mut().push_back(due);
        self.ring.notify_one();
    }

    fn close(&self) {
        *self.closed.borrow_mut() = true;
        self.ring.notify_waiters();
    }

    fn left(&self) -> usize {
        self.due.borrow().len()
    }

    /// `None` when it is closed and empty.
    async fn next(&self) -> Option<Instant> {
        loop {
            if let Some(due) = self.due.borrow_mut().pop_front() {
                return Some(due);
            }
            if *self.closed.borrow() {
                return None;
            }
            self.ring.notified().await;
        }
    }
}
