//! The clients: calls at a steady rate, and what each of them saw.
//!
//! An open loop: a call starts when its time has come, whatever the others do, up to a bound. A
//! call is not repeated; a client that was cut off knows that and nothing more.
//! Invariant: `complete` is set only when the client has the whole answer, as HTTP and the event
//! stream say it, so that the call must be in the books.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::http_client::{Ask, send};
use crate::operator::Keys;
use crate::scenario::{self, Scenario, Shape};
use crate::seed::Seed;

/// Calls that may run at once; beyond it a tick is left out, which is counted.
const CONCURRENCY: usize = 400;

/// Longer than a zombie is stopped and a server paused, so that their calls can still end.
const GIVE_UP: Duration = Duration::from_secs(75);

/// Calls in a hundred whose client leaves in the middle of a stream.
const LEAVERS: u64 = 3;

/// Calls in a hundred that go to a node which is down: balancers notice late.
const MISLED: u64 = 4;

/// What a client saw of its call.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// 32 hex digits, when there was a head.
    pub(crate) request_id: Option<String>,
    pub(crate) status: Option<u16>,
    /// The whole answer came, with a status that says it went well.
    pub(crate) complete: bool,
}

/// Everything that clients saw.
#[derive(Debug, Default)]
pub(crate) struct Saw {
    pub(crate) calls: Vec<Seen>,
    /// Ticks without a call, since too many were running.
    pub(crate) left_out: u64,
}

/// Where calls go.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) up: Arc<[AtomicBool]>,
    pub(crate) keys: Keys,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    work: JoinHandle<Saw>,
}

impl Load {
    /// Starts them.
    pub(crate) fn start(target: Target, calls_per_second: u64, seed: Seed) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let work = tokio::spawn(run(target, calls_per_second, seed, Arc::clone(&stop)));
        Self { stop, work }
    }

    /// Lets the running calls end and gives what was seen.
    ///
    /// # Errors
    /// When a client panicked.
    pub(crate) async fn stop(self) -> Result<Saw> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.work.await?)
    }
}

async fn run(target: Target, rate: u64, mut seed: Seed, stop: Arc<AtomicBool>) -> Saw {
    let mut every = interval(Duration::from_micros(1_000_000 / rate.max(1)));
    every.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let gate = Arc::new(Semaphore::new(CONCURRENCY));
    let mut running = JoinSet::new();
    let mut saw = Saw::default();
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
        let Some((scenario, ask, leaves)) = draw(&target, &mut seed) else {
            continue;
        };
        match Arc::clone(&gate).try_acquire_owned() {
            Ok(turn) => running.spawn(async move {
                let ended = call(scenario, &ask, leaves).await;
                drop(turn);
                ended
            }),
            Err(_full) => {
                saw.left_out += 1;
                continue;
            }
        };
        while let Some(Ok(seen)) = running.try_join_next() {
            saw.calls.push(seen);
        }
    }
    while let Some(ended) = running.join_next().await {
        saw.calls.extend(ended);
    }
    saw
}

/// The next call: what, where, and after how many bytes its client leaves.
fn draw(target: &Target, seed: &mut Seed) -> Option<(&'static Scenario, Ask, Option<u64>)> {
    let scenario = scenario::draw(seed)?;
    let body = scenario.body(seed).to_string();
    let all: Vec<usize> = (0..target.addresses.len()).collect();
    let is_up = |n: &usize| target.up.get(*n).is_some_and(|up| up.load(Ordering::Relaxed));
    let up: Vec<usize> = all.iter().copied().filter(is_up).collect();
    let misled = seed.percent(MISLED);
    let node = *seed.pick(if misled || up.is_empty() { &all } else { &up })?;
    let key = seed.pick(target.keys.get(node)?)?;
    let leaves = seed.percent(LEAVERS) && scenario.shape == Shape::Stream;
    let leaves_after = seed.below(2_000);
    let ask = Ask {
        address: *target.addresses.get(node)?,
        method: Method::POST,
        path: scenario.path().to_owned(),
        token: key.secret.clone(),
        body,
        idempotency_key: None,
    };
    Some((scenario, ask, leaves.then_some(leaves_after)))
}

async fn call(scenario: &Scenario, ask: &Ask, leaves_after: Option<u64>) -> Seen {
    let mut seen = Seen { request_id: None, status: None, complete: false };
    let exchange = async {
        let Ok(response) = send(ask).await else {
            return;
        };
        let id = response.headers().get("x-anima-request-id").and_then(|id| id.to_str().ok());
        seen.request_id = id.map(|id| id.trim_start_matches("req_").to_owned());
        seen.status = Some(response.status().as_u16());
        let answered = response.status() == 200;
        seen.complete = read(response.into_body(), scenario.shape, leaves_after).await && answered;
    };
    // Too late is as good as cut off.
    drop(timeout(GIVE_UP, exchange).await);
    seen
}

/// Whether the whole body came; a stream also needs its terminator.
async fn read(mut body: Incoming, shape: Shape, leaves_after: Option<u64>) -> bool {
    let mut taken = 0;
    let mut tail = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        let bytes = frame.into_data().unwrap_or_default();
        taken += bytes.len() as u64;
        if leaves_after.is_some_and(|bytes| taken > bytes) {
            return false;
        }
        tail.extend_from_slice(&bytes);
        let surplus = tail.len().saturating_sub(TERMINATOR.len());
        tail.drain(..surplus);
    }
    shape != Shape::Stream || tail == TERMINATOR
}

/// What ends a stream that went well.
const TERMINATOR: &[u8] = b"data: [DONE]\n\n";
