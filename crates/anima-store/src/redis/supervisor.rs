//! Keeps the way to Redis open: connects, looks for signs of life, connects again.
//!
//! The breaker of the connection layer lives here. Invariant: commands are sent only over a link
//! that answered its last probe, and an observation about an old link never harms the present one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Address;
use super::link::{self, Line, Link, Server};
use super::{Error, Fault, Options, fault};

/// Between two signs of life on a link that nobody complains about.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long making a connection may take. TLS and Sentinel need several round trips.
const CONNECT: Duration = Duration::from_secs(2);
/// The first pause between two tries to connect; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
/// Short, so that a Redis that is back is in use within half a second.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What watchers see.
#[derive(Clone)]
pub(super) struct State {
    pub(super) line: Line,
    /// Set when Redis refused the login.
    pub(super) refused: Option<String>,
}

/// The way to Redis and its breaker.
pub(crate) struct Supervised {
    pub(crate) address: Address,
    timeout: Duration,
    failures_max: u32,
    pub(super) state: watch::Sender<State>,
    pub(super) health: watch::Sender<bool>,
    /// In a row, on the present link.
    failures: AtomicU32,
    lost: Notify,
    /// [`Server::run`] of the server behind the present link, or the last one.
    run: AtomicU32,
}

impl Supervised {
    pub(super) fn new(address: Address, options: &Options) -> Self {
        Self {
            address,
            timeout: options.timeout,
            failures_max: options.failures_max.max(1),
            state: watch::Sender::new(State { line: Line::Connecting, refused: None }),
            health: watch::Sender::new(false),
            failures: AtomicU32::new(0),
            lost: Notify::new(),
            run: AtomicU32::new(0),
        }
    }

    /// The link to use and its number. Waits while a lost one is being replaced.
    pub(super) async fn link(&self, deadline: Instant) -> Result<(Link, u64), Error> {
        if let Some(answer) = usable(&self.state.borrow().line) {
            return answer;
        }
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| usable(&state.line).is_some());
        match timeout_at(deadline, decided).await {
            Ok(Ok(state)) => usable(&state.line).unwrap_or(Err(Error::Down)),
            Ok(Err(_)) | Err(_) => Err(Error::Down),
        }
    }

    /// An answer came.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Decides what an error on link `number` means for it, and for the caller.
    pub(super) fn judge(&self, number: u64, error: &RedisError) -> Error {
        match fault(error) {
            Fault::Connection => {
                self.leave(number, &Line::Connecting, &error.to_string());
                Error::Unknown(error.to_string())
            }
            Fault::Server => {
                self.failed(number, error.category());
                Error::Unknown(error.to_string())
            }
            Fault::Command => {
                self.succeeded();
                Error::Refused(error.to_string())
            }
        }
    }

    /// No answer came on link `number`.
    pub(super) fn failed(&self, number: u64, why: &str) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= self.failures_max {
            self.leave(number, &Line::Down, why);
        }
    }

    /// Takes link `number` out of use, unless another has taken its place.
    fn leave(&self, number: u64, next: &Line, why: &str) {
        let left = self.state.send_if_modified(|state| {
            let present = matches!(state.line, Line::Up(_, n) if n == number);
            if present {
                state.line = next.clone();
            }
            present
        });
        if left {
            tracing::warn!(why, "the connection to redis is lost");
            if matches!(next, Line::Down) {
                self.health.send_replace(false);
            }
            self.lost.notify_one();
        }
    }

    /// Which process answers, or answered last; 0 when nobody can say.
    pub(super) fn run(&self) -> u32 {
        self.run.load(Ordering::Acquire)
    }

    fn up(&self, link: Link, run: u32, number: u64) {
        self.failures.store(0, Ordering::Relaxed);
        self.run.store(run, Ordering::Release);
        self.state.send_replace(State { line: Line::Up(link, number), refused: None });
        if !self.health.send_replace(true) {
            tracing::info!(kind = self.address.kind(), "connected to redis");
        }
    }

    fn down(&self, refused: Option<String>) {
        self.state.send_replace(State { line: Line::Down, refused });
        self.health.send_replace(false);
    }
}

/// `None` while nobody can say.
fn usable(line: &Line) -> Option<Result<(Link, u64), Error>> {
    match line {
        Line::Up(up, number) => Some(Ok((up.clone(), *number))),
        Line::Connecting => None,
        Line::Down => Some(Err(Error::Down)),
    }
}

/// Runs until it is aborted.
pub(super) async fn run(supervised: Arc<Supervised>) {
    let mut number = 0;
    loop {
        number += 1;
        let server = connect(&supervised, number).await;
        watch_over(&supervised, number, &server).await;
    }
}

/// Connects, however long that takes, and says to whom.
async fn connect(supervised: &Supervised, number: u64) -> Server {
    let mut pause = PAUSE;
    let mut said = String::new();
    loop {
        let connecting = link::connect(&supervised.address, (CONNECT, supervised.timeout));
        tokio::pin!(connecting);
        // Nobody waits longer for a new link than for an answer.
        let soon = timeout(supervised.timeout, &mut connecting).await;
        let connected = if let Ok(connected) = soon {
            connected
        } else {
            supervised.down(None);
            connecting.await
        };
        let error = match connected {
            Ok((link, server)) => {
                supervised.up(link, server.run, number);
                return server;
            }
            Err(error) => error,
        };
        let words = error.to_string();
        supervised.down(login_refused(&error).then(|| words.clone()));
        if words != said {
            tracing::warn!(error = words, "failed to connect to redis; trying on");
            said = words;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Returns when the present link is lost, or its server is not the primary any more. A primary that
/// was replaced goes on answering for seconds, and what is written there is lost.
async fn watch_over(supervised: &Supervised, number: u64, server: &Server) {
    loop {
        let doubted = supervised.failures.load(Ordering::Relaxed) > 0;
        let pause = if doubted { PAUSE } else { PROBE_EVERY };
        let lost = timeout(pause, supervised.lost.notified()).await.is_ok();
        let Some(Ok((link, present))) = usable(&supervised.state.borrow().line.clone()) else {
            return;
        };
        if lost || present != number {
            // A note about a link that is gone already.
            continue;
        }
        match timeout(supervised.timeout, link.ping()).await {
            Ok(Ok(())) => supervised.succeeded(),
            Ok(Err(error)) => drop(supervised.judge(number, &error)),
            Err(_) => supervised.failed(number, "no sign of life"),
        }
        let named = link::named(&supervised.address, CONNECT).await;
        if named.is_some_and(|place| place != server.place) {
            supervised.leave(number, &Line::Connecting, "another server is the primary");
        }
    }
}

fn login_refused(error: &RedisError) -> bool {
    let by_code = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    by_code || error.kind() == ErrorKind::AuthenticationFailed
}
