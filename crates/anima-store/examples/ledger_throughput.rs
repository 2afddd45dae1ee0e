//! Measures the ledger: hold + settle per second and CPU per request, by concurrency and wallets.
//!
//! `cargo run --release -p anima-store --example ledger_throughput -- SECONDS URL…`, each URL
//! `sqlite://PATH` (a file that is not there yet) or `postgres://…` (an empty database). CPU is
//! this process's: all of SQLite, but not PostgreSQL's server. Concurrency 1 is one transaction per
//! operation, since nothing else is there to share it. Not a test: it prints and judges nothing.

#![expect(clippy::print_stdout, reason = "a program whose output is its table")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::clock::{Rng as _, SeededRng, Timestamp, mint_id};
use anima_core::ledger::{
    Account, Attempt, AttemptCost, Close, Component, Entry, EntryKind, Hold, Leg, PriceRef,
    Settlement,
};
use anima_core::money::Currency;
use anima_core::usage::{Meter, Usage, UsageSource};
use anima_store::database::{Location, Opener, open};
use anima_store::ledger::{BatchObserver, LedgerStore};

/// Ticks per second of `/proc/self/stat`: `USER_HZ`, 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

#[derive(Debug, Default)]
struct Batches {
    count: AtomicU64,
    operations: AtomicU64,
}

impl BatchObserver for Batches {
    fn committed(&self, holds: usize, settlements: usize, _seconds: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let operations = u64::try_from(holds + settlements).unwrap_or(0);
        self.operations.fetch_add(operations, Ordering::Relaxed);
    }

    fn failed(&self) {}
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let mut arguments = std::env::args().skip(1);
    let Some(seconds) = arguments.next().and_then(|text| text.parse().ok()) else {
        println!("usage: ledger_throughput SECONDS URL…");
        return Ok(ExitCode::from(2));
    };
    let rng = Arc::new(SeededRng::new(1));
    println!("| database | wallets | concurrency | req/s | CPU µs/req | p50 ms | p99 ms | batch |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for url in arguments {
        let batches = Arc::new(Batches::default());
        let node = mint_id(Timestamp::from_micros(1_790_000_000_000_000), &*rng);
        let observer: Arc<dyn BatchObserver> = Arc::<Batches>::clone(&batches);
        let stores = open(&Location::parse(&url)?, &Opener { node, observer }).await?;
        fund(&stores.ledger, &rng).await?;
        let database = url.split(':').next().unwrap_or_default();
        for wallets in [1, 2_000] {
            for concurrency in [1, 16, 64, 256] {
                let length = Duration::from_secs(seconds);
                let load = Load { wallets, concurrency, length };
                let row = load.run(&stores.ledger, &rng, &batches).await?;
                println!("| {database} | {wallets} | {concurrency} | {row} |");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn fund(ledger: &Arc<dyn LedgerStore>, rng: &SeededRng) -> Result<(), Failure> {
    let mut calls = JoinSet::new();
    for n in 0..2_000 {
        let (ledger, entry) = (Arc::clone(ledger), topup(mint_id(now(), rng), n));
        calls.spawn(async move { ledger.post(entry).await });
    }
    for posted in calls.join_all().await {
        posted?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Load {
    wallets: u64,
    concurrency: usize,
    length: Duration,
}

impl Load {
    async fn run(
        self,
        ledger: &Arc<dyn LedgerStore>,
        rng: &Arc<SeededRng>,
        batches: &Batches,
    ) -> Result<String, Failure> {
        let before =
            (batches.count.load(Ordering::Relaxed), batches.operations.load(Ordering::Relaxed));
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let mut callers = JoinSet::new();
        for _ in 0..self.concurrency {
            callers.spawn(caller(Arc::clone(ledger), Arc::clone(rng), self, started));
        }
        let mut waits = Vec::new();
        for result in callers.join_all().await {
            waits.extend(result?);
        }
        let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        waits.sort_unstable();
        let requests = f64::from(u32::try_from(waits.len())?);
        let at = |part: usize| {
            waits.get(waits.len() * part / 100).map_or(0.0, |w| w.as_secs_f64() * 1e3)
        };
        let count = batches.count.load(Ordering::Relaxed) - before.0;
        let operations = batches.operations.load(Ordering::Relaxed) - before.1;
        Ok(format!(
            "{:.0} | {:.1} | {:.2} | {:.2} | {:.1}",
            requests / elapsed,
            cpu / requests * 1e6,
            at(50),
            at(99),
            f64::from(u32::try_from(operations)?) / f64::from(u32::try_from(count.max(1))?),
        ))
    }
}

/// Holds and settles, one request after the other. Gives how long each took.
async fn caller(
    ledger: Arc<dyn LedgerStore>,
    rng: Arc<SeededRng>,
    load: Load,
    started: Instant,
) -> Result<Vec<Duration>, Failure> {
    let mut waits = Vec::new();
    while started.elapsed() < load.length {
        let hold = hold(mint_id(now(), &*rng), rng.next_u64() % load.wallets);
        let settlement = settlement(&hold);
        let asked = Instant::now();
        ledger.hold(hold).await?;
        ledger.settle(settlement).await?;
        waits.push(asked.elapsed());
    }
    Ok(waits)
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

#[expect(clippy::disallowed_methods, reason = "a program of its own: this is its clock")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(0))
}

fn app(n: u64) -> Arc<str> {
    format!("customer-{n}").into()
}

fn price(code: &str) -> PriceRef {
    PriceRef { code: code.into(), version_no: 1 }
}

fn topup(subject: Uuid, n: u64) -> Entry {
    Entry {
        subject,
        kind: EntryKind::Topup,
        seq: 0,
        legs: vec![Leg {
            debit: Account::PspClearing,
            credit: Account::Wallet(app(n)),
            amount: 1_000_000_000_000_000,
            currency: Currency::USD,
            component: Component::Topup,
            attempt: None,
            price: None,
            estimate: false,
        }],
        reference: "measurement".to_owned(),
        at: now(),
        floor: 0,
    }
}

fn hold(id: Uuid, n: u64) -> Hold {
    Hold {
        id,
        app: app(n),
        kid: "01JD4T0M6W".into(),
        alias: "gpt-4o-mini".into(),
        currency: Currency::USD,
        amount: 40_000_000,
        floor: 0,
        sale_price: price("gpt-4o-mini-sale"),
        created_at: now(),
        expires_at: now().plus_millis(600_000),
    }
}

fn settlement(hold: &Hold) -> Settlement {
    Settlement {
        hold: hold.id,
        app: Arc::clone(&hold.app),
        currency: hold.currency,
        close: Close::Settle { sale: 1_234_567, estimate: false },
        sale_price: hold.sale_price.clone(),
        attempts: vec![Attempt {
            n: 1,
            channel: "openai-main".into(),
            credential: "main".into(),
            model: "gpt-4o-mini-2024-07-18".into(),
            outcome: "ok",
            served: true,
            usage: Usage::default().with(Meter::InputTokens, 812).with(Meter::OutputTokens, 96),
            usage_source: UsageSource::Provider,
            cost: Some(AttemptCost {
                amount: 987_654,
                currency: Currency::USD,
                price: price("gpt-4o-mini-cost"),
                estimate: false,
            }),
            upstream_ref: Some("chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT".to_owned()),
            started_at: hold.created_at,
            first_byte_at: Some(hold.created_at.plus_millis(310)),
            ended_at: hold.created_at.plus_millis(900),
        }],
        at: now(),
    }
}
