//! Clients: calls at a steady rate to all nodes in turn, and a record of each.
//!
//! An open loop: a call starts when its time has come, whatever became of the others, up to a
//! bound. A call is not repeated. Not a judgement: scenarios read the record. Invariant: whatever
//! was sent is in the record once it is answered or given up, with the node that it went to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use http::Method;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::http_client::{Ask, whole};
use crate::process::now_us;

/// Calls that may run at once; beyond it a tick is left out, which is counted.
const CONCURRENCY: usize = 2_000;

/// A client waits no longer; its call counts as unanswered.
const GIVE_UP: Duration = Duration::from_secs(10);

/// One kind of call.
#[derive(Debug, Clone)]
pub(crate) struct Lane {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The key.
    pub(crate) token: String,
    pub(crate) body: String,
}

/// What a client saw of its call.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Which of the load's lanes.
    pub(crate) lane: usize,
    pub(crate) node: usize,
    pub(crate) sent: Instant,
    pub(crate) took: Duration,
    /// When it was sent, microseconds since 1970.
    pub(crate) sent_us: i64,
    /// 0 when there was no answer.
    pub(crate) status: u16,
    /// The word for what was refused; empty when nothing was.
    pub(crate) code: String,
    /// `x-anima-degraded`.
    pub(crate) degraded: String,
    /// 32 hex digits; empty when there was no head.
    pub(crate) request_id: String,
    /// `x-anima-served-model`.
    pub(crate) served: String,
    /// The answer came to its end; a stream to its `[DONE]`.
    pub(crate) is_whole: bool,
    /// Of a stream that did not: it said so in an event of its own.
    pub(crate) is_told: bool,
}

impl Reply {
    /// When the answer was there, microseconds since 1970.
    pub(crate) fn ended_us(&self) -> i64 {
        self.sent_us + i64::try_from(self.took.as_micros()).unwrap_or(i64::MAX)
    }

    /// Whether it was served.
    pub(crate) fn is_served(&self) -> bool {
        self.status == 200
    }
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    record: Arc<Mutex<Vec<Reply>>>,
    left_out: Arc<AtomicU64>,
    work: JoinHandle<()>,
}

impl Load {
    /// Starts them: so many calls per second, spread evenly over nodes and lanes.
    pub(crate) fn start(nodes: Vec<SocketAddr>, lanes: Vec<Lane>, calls_per_second: u64) -> Self {
        let (stop, left_out) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let record = Arc::default();
        let shared = (Arc::clone(&stop), Arc::clone(&record), Arc::clone(&left_out));
        let work = tokio::spawn(run(nodes, lanes, calls_per_second, shared));
        Self { stop, record, left_out, work }
    }

    /// What was sent at `since` or later and has ended.
    pub(crate) fn since(&self, since: Instant) -> Vec<Reply> {
        self.record.lock().iter().filter(|reply| reply.sent >= since).cloned().collect()
    }

    /// How many calls have ended.
    pub(crate) fn count(&self) -> usize {
        self.record.lock().len()
    }

    /// Forgets what was recorded so far: a long scenario looks often.
    pub(crate) fn forget(&self) {
        self.record.lock().clear();
    }

    /// Lets running calls end and gives the record. Second: calls that were not made, since too
    /// many were running.
    ///
    /// # Errors
    /// When a client panicked.
    pub(crate) async fn stop(mut self) -> Result<(Vec<Reply>, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.work).await?;
        let record = std::mem::take(&mut *self.record.lock());
        Ok((record, self.left_out.load(Ordering::Relaxed)))
    }
}

impl Drop for Load {
    /// A scenario that failed leaves no clients behind.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

type Shared = (Arc<AtomicBool>, Arc<Mutex<Vec<Reply>>>, Arc<AtomicU64>);

async fn run(nodes: Vec<SocketAddr>, lanes: Vec<Lane>, rate: u64, shared: Shared) {
    let (stop, record, left_out) = shared;
    let mut every = interval(Duration::from_micros(1_000_000 / rate.max(1)));
    every.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let gate = Arc::new(Semaphore::new(CONCURRENCY));
    let mut running = JoinSet::new();
    let turns = (0..lanes.len()).flat_map(|lane| (0..nodes.len()).map(move |node| (lane, node)));
    let turns: Vec<(usize, usize)> = turns.collect();
    for (lane, node) in turns.iter().copied().cycle() {
        every.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (Some(what), Some(address)) = (lanes.get(lane), nodes.get(node)) else { break };
        let Ok(turn) = Arc::clone(&gate).try_acquire_owned() else {
            left_out.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let (what, address, record) = (what.clone(), *address, Arc::clone(&record));
        running.spawn(async move {
            let reply = call((lane, what), (node, address)).await;
            record.lock().push(reply);
            drop(turn);
        });
        while running.try_join_next().is_some() {}
    }
    while running.join_next().await.is_some() {}
}

/// Makes one call, to the end of its answer.
pub(crate) async fn call(
    (lane, what): (usize, Lane),
    (node, address): (usize, SocketAddr),
) -> Reply {
    let ask = Ask {
        address,
        method: what.method,
        path: what.path,
        token: what.token,
        body: what.body,
        idempotency_key: None,
    };
    let (sent, sent_us) = (Instant::now(), now_us());
    let answered = timeout(GIVE_UP, whole(&ask)).await;
    let mut reply = Reply {
        lane,
        node,
        sent,
        took: sent.elapsed(),
        sent_us,
        status: 0,
        code: String::new(),
        degraded: String::new(),
        request_id: String::new(),
        served: String::new(),
        is_whole: false,
        is_told: false,
    };
    if let Ok(Ok(answer)) = answered {
        reply.status = answer.status;
        answer.header("x-anima-degraded").clone_into(&mut reply.degraded);
        answer.header("x-anima-served-model").clone_into(&mut reply.served);
        let streams = answer.header("content-type").starts_with("text/event-stream");
        let has = |what: &[u8]| answer.body.windows(what.len()).any(|part| part == what);
        reply.is_whole = !streams || has(b"data: [DONE]");
        reply.is_told = streams && has(b"\"error\"");
        let id = answer.header("x-anima-request-id").trim_start_matches("req_");
        id.clone_into(&mut reply.request_id);
        if answer.status != 200 {
            let code =
                answer.json().pointer("/error/code").and_then(Value::as_str).map(str::to_owned);
            reply.code = code.unwrap_or_default();
        }
    }
    reply
}
