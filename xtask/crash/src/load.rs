//! The clients: calls at a steady rate, and what each of them saw.
//!
//! An open loop: a call starts when its time has come, whatever the others do, up to a bound. A
//! call without an idempotency key is not repeated; a client that was cut off knows that and
//! nothing more.
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
use crate::once::{Again, Keyed, Told, Under};
use crate::operator::{Key, Keys};
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
    /// What it was told under its idempotency key, if it had one.
    pub(crate) once: Option<Told>,
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
    /// For calls under idempotency keys.
    pub(crate) pool: Vec<Key>,
}

/// One call: what, where, after how many bytes its client leaves, and its idempotency key.
type Drawn = (&'static Scenario, Ask, Option<u64>, Option<Under>);

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

async fn run(mut target: Target, rate: u64, mut seed: Seed, stop: Arc<AtomicBool>) -> Saw {
    let mut every = interval(Duration::from_micros(1_000_000 / rate.max(1)));
    every.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let gate = Arc::new(Semaphore::new(CONCURRENCY));
    let mut running = JoinSet::new();
    let mut saw = Saw::default();
    let mut keyed = Keyed::new(std::mem::take(&mut target.pool));
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
        let drawn = match keyed.due() {
            Some(again) => repeat(&target, again, &mut seed),
            None => draw(&target, &mut keyed, &mut seed),
        };
        let Some((scenario, ask, leaves, under)) = drawn else {
            continue;
        };
        match Arc::clone(&gate).try_acquire_owned() {
            Ok(turn) => running.spawn(async move {
                let ended = call((scenario, &ask), leaves, under).await;
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

/// A node that a client would choose: one that is up, but for a few.
fn choose(target: &Target, seed: &mut Seed) -> Option<usize> {
    let all: Vec<usize> = (0..target.addresses.len()).collect();
    let is_up = |n: &usize| target.up.get(*n).is_some_and(|up| up.load(Ordering::Relaxed));
    let up: Vec<usize> = all.iter().copied().filter(is_up).collect();
    let misled = seed.percent(MISLED);
    seed.pick(if misled || up.is_empty() { &all } else { &up }).copied()
}

/// The next call.
fn draw(target: &Target, keyed: &mut Keyed, seed: &mut Seed) -> Option<Drawn> {
    let scenario = scenario::draw(seed)?;
    let body = scenario.body(seed).to_string();
    let node = choose(target, seed)?;
    let key = seed.pick(target.keys.get(node)?)?;
    let leaves = seed.percent(LEAVERS) && scenario.shape == Shape::Stream;
    let leaves_after = seed.below(2_000);
    let mut ask = Ask {
        address: *target.addresses.get(node)?,
        method: Method::POST,
        path: scenario.path().to_owned(),
        token: key.secret.clone(),
        body,
        idempotency_key: None,
    };
    let under = keyed.mark((scenario, &mut ask), seed);
    Some((scenario, ask, leaves.then_some(leaves_after), under))
}

/// A call that is sent again, to any node.
fn repeat(target: &Target, again: Again, seed: &mut Seed) -> Option<Drawn> {
    let Again { scenario, mut ask, under } = again;
    ask.address = *target.addresses.get(choose(target, seed)?)?;
    Some((scenario, ask, None, Some(under)))
}

async fn call(
    (scenario, ask): (&Scenario, &Ask),
    leaves_after: Option<u64>,
    under: Option<Under>,
) -> Seen {
    let told = |under| Told { under, original: None, answer: 0, code: String::new() };
    let once = under.map(told);
    let mut seen = Seen { request_id: None, status: None, complete: false, once };
    let exchange = async {
        let Ok(response) = send(ask).await else {
            return;
        };
        let header = |name| {
            let text = response.headers().get(name).and_then(|id| id.to_str().ok());
            text.map(|id| id.trim_start_matches("req_").to_owned())
        };
        seen.request_id = header("x-anima-request-id");
        seen.status = Some(response.status().as_u16());
        if let Some(told) = &mut seen.once {
            told.original = header("x-anima-original-request-id");
        }
        let answered = response.status() == 200;
        let body = read(response.into_body(), scenario.shape, leaves_after).await;
        seen.complete = body.is_whole && answered;
        if let Some(told) = &mut seen.once {
            told.answer = body.hash;
            told.code = if answered { String::new() } else { body.code() };
        }
    };
    // Too late is as good as cut off.
    drop(timeout(GIVE_UP, exchange).await);
    seen
}

/// What came of a body.
#[derive(Debug, Default)]
struct Read {
    /// All of it came; a stream also needs its terminator.
    is_whole: bool,
    /// FNV-1a of what came.
    hash: u64,
    /// Its first bytes.
    start: Vec<u8>,
}

/// What is kept of a body's start: more than an error has.
const START: usize = 4_096;

impl Read {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let room = START.saturating_sub(self.start.len());
        self.start.extend(bytes.iter().take(room));
    }

    /// Of an error.
    fn code(&self) -> String {
        let error: serde_json::Value = serde_json::from_slice(&self.start).unwrap_or_default();
        let code = error.pointer("/error/code").and_then(serde_json::Value::as_str);
        code.unwrap_or("no code").to_owned()
    }
}

async fn read(mut body: Incoming, shape: Shape, leaves_after: Option<u64>) -> Read {
    let mut read = Read { hash: 0xcbf2_9ce4_8422_2325, ..Read::default() };
    let mut taken = 0;
    let mut tail = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return read;
        };
        let bytes = frame.into_data().unwrap_or_default();
        taken += bytes.len() as u64;
        if leaves_after.is_some_and(|bytes| taken > bytes) {
            return read;
        }
        read.take(&bytes);
        tail.extend_from_slice(&bytes);
        let surplus = tail.len().saturating_sub(TERMINATOR.len());
        tail.drain(..surplus);
    }
    read.is_whole = shape != Shape::Stream || tail == TERMINATOR;
    read
}

/// What ends a stream that went well.
const TERMINATOR: &[u8] = b"data: [DONE]\n\n";
