//! Clients that keep their connections, and what each call was told.
//!
//! Ten thousand calls of a race need connections that serve many of them: one each would run out of
//! ports. A call is never repeated. Invariant: what was sent is on record once it is answered or
//! given up, with status 0 when no whole answer came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::chaos::load::Lane;
use crate::http_client::{Answer, Ask, Wire, open, whole_on};
use crate::process::now_us;

/// A client whose node is gone looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a client was told of one call.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Which of the lanes.
    pub(super) lane: usize,
    pub(super) sent: Instant,
    pub(super) took: Duration,
    /// When it was sent, microseconds since 1970.
    pub(super) sent_us: i64,
    /// 0 when there was no whole answer.
    pub(super) status: u16,
    /// `anima.reason` of a refusal.
    pub(super) reason: String,
    /// `retry-after` in seconds and `retry-after-ms`, when both are there.
    pub(super) retry: Option<(u64, u64)>,
    pub(super) location: String,
    /// How long it waited for its turn, milliseconds; `None` when it does not say so.
    pub(super) waited_ms: Option<u64>,
    /// 32 hex digits; empty when there was no head.
    pub(super) request_id: String,
}

impl Told {
    /// When its answer was there.
    pub(super) fn ended(&self) -> Instant {
        self.sent + self.took
    }

    /// The same, microseconds since 1970.
    pub(super) fn ended_us(&self) -> i64 {
        self.sent_us + i64::try_from(self.took.as_micros()).unwrap_or(i64::MAX)
    }

    /// Whether it was refused, for this reason.
    pub(super) fn is_refused(&self, reason: &str) -> bool {
        self.status == 429 && self.reason == reason
    }
}

/// A client of one node.
#[derive(Debug)]
pub(super) struct Caller {
    address: SocketAddr,
    patience: Duration,
    wire: Option<Wire>,
}

impl Caller {
    pub(super) fn new(address: SocketAddr, patience: Duration) -> Self {
        Self { address, patience, wire: None }
    }

    /// Makes one call, to the end of its answer.
    pub(super) async fn call(&mut self, lane: usize, what: &Lane) -> Told {
        let ask = Ask {
            address: self.address,
            method: what.method.clone(),
            path: what.path.clone(),
            token: what.token.clone(),
            body: what.body.clone(),
            idempotency_key: None,
        };
        let (sent, sent_us) = (Instant::now(), now_us());
        let patience = self.patience;
        let answer = timeout(patience, self.exchange(&ask)).await;
        let took = sent.elapsed();
        let mut told = Told {
            lane,
            sent,
            took,
            sent_us,
            status: 0,
            reason: String::new(),
            retry: None,
            location: String::new(),
            waited_ms: None,
            request_id: String::new(),
        };
        if let Ok(Ok(answer)) = answer {
            hear(&mut told, &answer);
        }
        told
    }

    async fn exchange(&mut self, ask: &Ask) -> Result<Answer> {
        let mut kept = self.wire.take();
        if let Some(wire) = &mut kept
            && wire.ready().await.is_err()
        {
            kept = None;
        }
        let mut wire = match kept {
            Some(wire) => wire,
            None => open(self.address).await?,
        };
        let answer = whole_on(&mut wire, ask).await?;
        self.wire = Some(wire);
        Ok(answer)
    }
}

fn hear(told: &mut Told, answer: &Answer) {
    told.status = answer.status;
    let number = |name: &str| answer.header(name).parse::<u64>().ok();
    told.retry = number("retry-after").zip(number("retry-after-ms"));
    told.waited_ms = number("x-anima-queue-wait-ms");
    answer.header("location").clone_into(&mut told.location);
    let id = answer.header("x-anima-request-id").trim_start_matches("req_");
    id.clone_into(&mut told.request_id);
    if answer.status >= 300 {
        let body = answer.json();
        let reason = body.pointer("/anima/reason").and_then(Value::as_str);
        reason.unwrap_or_default().clone_into(&mut told.reason);
    }
}

/// Clients that call as often as they are told to, until they are stopped.
#[derive(Debug)]
pub(super) struct Crowd {
    stop: Arc<AtomicBool>,
    record: Arc<Mutex<Vec<Told>>>,
    callers: JoinSet<()>,
}

/// How a crowd behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habit {
    /// Clients of each node.
    pub(super) per_node: usize,
    /// Calls per second of all together, while none is slow.
    pub(super) per_second: u64,
    /// After this a client gives a call up.
    pub(super) patience: Duration,
}

impl Crowd {
    /// Starts them; each takes the lanes in turn.
    pub(super) fn start(nodes: &[SocketAddr], lanes: &[Lane], habit: Habit) -> Self {
        let (stop, record) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut callers = JoinSet::new();
        let count = nodes.len() * habit.per_node;
        let pace = Duration::from_micros(1_000_000 * count as u64 / habit.per_second.max(1));
        for (n, address) in nodes.iter().cycle().take(count).enumerate() {
            let caller = Caller::new(*address, habit.patience);
            let (stop, record) = (Arc::clone(&stop), Arc::clone(&record));
            // Two counters that share no factor with the nodes' turns: each node gets each lane.
            let lanes = (lanes.to_vec(), n / nodes.len().max(1));
            callers.spawn(call_on(caller, lanes, pace, (stop, record)));
        }
        Self { stop, record, callers }
    }

    /// What has ended of what was sent at `since` or later.
    pub(super) fn since(&self, since: Instant) -> Vec<Told> {
        self.record.lock().iter().filter(|told| told.sent >= since).cloned().collect()
    }

    /// Lets the running calls end, and gives the record.
    pub(super) async fn stop(mut self) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
        std::mem::take(&mut *self.record.lock())
    }
}

impl Drop for Crowd {
    /// A scenario that failed leaves no clients behind.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn call_on(
    mut caller: Caller,
    (lanes, first): (Vec<Lane>, usize),
    pace: Duration,
    (stop, record): (Arc<AtomicBool>, Arc<Mutex<Vec<Told>>>),
) {
    let mut every = interval(pace.max(Duration::from_millis(1)));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (lane, what) in lanes.iter().enumerate().cycle().skip(first) {
        every.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let told = caller.call(lane, what).await;
        if told.status == 0 {
            sleep(LOOK_AGAIN).await;
        }
        record.lock().push(told);
    }
}

/// So many equal calls, as many at once as there are clients.
#[derive(Debug)]
pub(super) struct Rush {
    callers: JoinSet<Vec<Told>>,
    ended: Arc<AtomicUsize>,
}

impl Rush {
    /// Starts them.
    pub(super) fn start(
        nodes: &[SocketAddr],
        what: &Lane,
        (calls, at_once): (usize, usize),
    ) -> Self {
        let (left, ended) = (Arc::new(AtomicUsize::new(calls)), Arc::new(AtomicUsize::new(0)));
        let mut callers = JoinSet::new();
        for address in nodes.iter().cycle().take(at_once.min(calls)) {
            let mut caller = Caller::new(*address, Duration::from_mins(5));
            let (left, ended, what) = (Arc::clone(&left), Arc::clone(&ended), what.clone());
            callers.spawn(async move {
                let mut told = Vec::new();
                let take = |n: usize| n.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    told.push(caller.call(0, &what).await);
                    ended.fetch_add(1, Ordering::Relaxed);
                }
                told
            });
        }
        Self { callers, ended }
    }

    /// How many have ended.
    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// Waits for all.
    pub(super) async fn over(mut self) -> Vec<Told> {
        let mut all = Vec::new();
        while let Some(told) = self.callers.join_next().await {
            all.extend(told.unwrap_or_default());
        }
        all
    }
}
