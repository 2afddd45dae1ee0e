//! Callers: closed loops that ask again when they are answered, and an open loop that asks on time.
//!
//! Invariant: in the open loop a latency counts from when the hold was due, asked or not, so that a
//! stall is seen by everybody who would have come during it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Failure;
use super::place::Opened;
use super::sample;

/// So many callers that hold and settle, one request after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    pub(super) wallets: u64,
    pub(super) callers: usize,
    pub(super) length: Duration,
}

/// What a loop came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) per_second: f64,
    pub(super) cpu_us: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Operations in a transaction.
    pub(super) shared: f64,
}

impl Closed {
    /// Spreads the callers over the ledgers.
    pub(super) async fn run(self, ledgers: &[Opened]) -> Result<Outcome, Failure> {
        let counted: Vec<_> = ledgers.iter().map(|l| l.batches.read()).collect();
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let mut callers = JoinSet::new();
        for opened in ledgers.iter().cycle().take(self.callers) {
            callers.spawn(caller(opened.clone(), self, started));
        }
        let mut waits = Vec::new();
        for result in callers.join_all().await {
            waits.extend(result?);
        }
        let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let (mut count, mut operations) = (0, 0);
        for (opened, before) in ledgers.iter().zip(counted) {
            let now = opened.batches.read();
            count += now.0 - before.0;
            operations += now.1 - before.1;
        }
        let requests = float(waits.len())?;
        let (p50_ms, p99_ms) = percentiles(&mut waits);
        Ok(Outcome {
            per_second: requests / elapsed,
            cpu_us: cpu / requests * 1e6,
            p50_ms,
            p99_ms,
            shared: float(operations)? / float(count.max(1))?,
        })
    }
}

/// Holds and settles for a while. Gives how long each request took.
async fn caller(opened: Opened, load: Closed, started: Instant) -> Result<Vec<Duration>, Failure> {
    let mut waits = Vec::new();
    while started.elapsed() < load.length {
        let hold = sample::hold(load.wallets);
        let settlement = sample::settlement(&hold);
        let asked = Instant::now();
        opened.ledger.hold(hold).await?;
        opened.ledger.settle(settlement).await?;
        waits.push(asked.elapsed());
    }
    Ok(waits)
}

/// A hold each so often, each settled when it is there. Gives p50, p99 and p99.9 of the holds, in
/// milliseconds.
pub(super) async fn open_loop(
    opened: &Opened,
    per_second: u32,
    seconds: u32,
    wallets: u64,
) -> Result<[f64; 3], Failure> {
    let every = Duration::from_secs(1) / per_second;
    let begin = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..per_second * seconds {
        let due = begin + every * n;
        tokio::time::sleep_until(due).await;
        let ledger = Arc::clone(&opened.ledger);
        calls.spawn(async move {
            let hold = sample::hold(wallets);
            let settlement = sample::settlement(&hold);
            ledger.hold(hold).await?;
            let waited = due.elapsed();
            ledger.settle(settlement).await?;
            Ok::<_, Failure>(waited)
        });
    }
    let mut waits = calls.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    waits.sort_unstable();
    Ok([500, 990, 999].map(|part| at(&waits, part)))
}

/// Books so many requests, many at once.
pub(super) async fn so_many(opened: &Opened, count: u64, wallets: u64) -> Result<(), Failure> {
    const CALLERS: u64 = 256;
    let mut callers = JoinSet::new();
    for n in 0..CALLERS {
        let opened = opened.clone();
        let share = count / CALLERS + u64::from(n < count % CALLERS);
        callers.spawn(async move {
            for _ in 0..share {
                let hold = sample::hold(wallets);
                let settlement = sample::settlement(&hold);
                opened.ledger.hold(hold).await?;
                opened.ledger.settle(settlement).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    callers.join_all().await.into_iter().collect()
}

fn percentiles(waits: &mut [Duration]) -> (f64, f64) {
    waits.sort_unstable();
    (at(waits, 500), at(waits, 990))
}

/// In milliseconds; `part` in thousandths.
pub(super) fn at(sorted: &[Duration], part: usize) -> f64 {
    sorted.get(sorted.len() * part / 1_000).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
}

fn float(count: impl TryInto<u32>) -> Result<f64, Failure> {
    let count: u32 = count.try_into().map_err(|_too_many| "too many to count")?;
    Ok(f64::from(count))
}

/// Ticks per second of `/proc/self/stat`: `USER_HZ`, 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// Of this process: all of SQLite, nothing of PostgreSQL's server.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}
