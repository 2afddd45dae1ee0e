//! Makes load: closed loops (each connection waits for its answer) and open loops (fixed rate).
//!
//! All of it on one thread, so that the generator costs little and its records need no locks.
//! Invariant: in an open loop, latency counts from the moment at which the request was due, not
//! from when it could be sent; a stalled server cannot hide by slowing the generator.

mod open;
mod tally;
mod watch;

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::Connection;
pub(crate) use open::open;
pub(crate) use tally::{Record, Tally};
use watch::Watch;

/// How long a phase may run over before what is left counts as failed.
const GRACE: Duration = Duration::from_secs(15);

/// What a good answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One JSON object.
    Json,
    /// Server-sent events that end with `[DONE]`.
    Stream,
}

/// One kind of request.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// To whom.
    pub(crate) address: SocketAddr,
    /// Head and body.
    pub(crate) request: Rc<[u8]>,
    /// What comes back.
    pub(crate) shape: Shape,
}

/// `concurrency` connections, each sending its next request when the last one is answered.
///
/// # Errors
/// When the connections cannot be opened.
pub(crate) async fn closed(job: &Job, concurrency: usize, length: Duration) -> Result<Tally> {
    let tally = Rc::new(RefCell::new(Tally::empty()?));
    let connections = connect(job, concurrency).await?;
    let start = Instant::now();
    let end = start + length;
    let mut workers = JoinSet::new();
    for connection in connections {
        let mut worker =
            Worker { job: job.clone(), connection: Some(connection), tally: Rc::clone(&tally) };
        workers.spawn_local(async move {
            while Instant::now() < end {
                worker.call(Instant::now()).await;
            }
        });
    }
    finish(workers, length, &tally).await;
    let mut tally = tally.take();
    tally.seconds = start.elapsed().as_secs_f64();
    Ok(tally)
}

async fn connect(job: &Job, count: usize) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let opened = Connection::open(job.address).await;
        connections.push(opened.with_context(|| format!("failed to connect to {}", job.address))?);
    }
    Ok(connections)
}

/// Waits for all workers; those that do not end are counted and dropped.
async fn finish(mut workers: JoinSet<()>, length: Duration, tally: &RefCell<Tally>) {
    let all = async { while workers.join_next().await.is_some() {} };
    if run_within(length + GRACE, all).await.is_none() {
        for _ in 0..workers.len() {
            tally.borrow_mut().fail("no answer before the end");
        }
    }
}

async fn run_within(limit: Duration, work: impl Future<Output = ()>) -> Option<()> {
    timeout(limit, work).await.ok()
}

/// One connection of a loop.
struct Worker {
    job: Job,
    /// `None` after an error; opened again for the next call.
    connection: Option<Connection>,
    tally: Rc<RefCell<Tally>>,
}

impl Worker {
    /// Sends one request that was due at `due`, and records how it went.
    async fn call(&mut self, due: Instant) {
        let outcome = self.exchange(due).await;
        let mut tally = self.tally.borrow_mut();
        match outcome {
            Ok(record) => tally.record(record),
            Err(error) => tally.fail(&error.to_string()),
        }
    }

    async fn exchange(&mut self, due: Instant) -> std::io::Result<Record> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.job.address).await?,
        };
        let mut watch = Watch::new(self.job.shape, due);
        let status = connection.exchange(&self.job.request, |bytes| watch.take(bytes)).await?;
        let record = watch.verdict(status)?;
        self.connection = Some(connection);
        Ok(record)
    }
}
