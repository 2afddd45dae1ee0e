//! Measures what it costs to admit a call by four limits, in process and on Redis, and judges it by
//! the figures that this project promises. `cargo xtask bench admission` runs it in release with a
//! Redis of its own on loopback. One call after the other, so that no call waits for another.
//! Invariant: of Redis it also says how many scripts ran for each call; exit code 1 when there was
//! more than one, or when a figure is missed.

#![expect(clippy::print_stdout, reason = "a program whose product is its output")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anima_core::clock::Timestamp;
use anima_core::config::{LimitKind, OnOutage, Window};
use anima_core::quota::{Ask, Bound, Check, Counter, Rate, RuleName, Scope, Span, Tag, Verdict};
use anima_store::quota::memory::MemoryQuotas;
use anima_store::quota::redis::RedisQuotas;
use anima_store::quota::{QuotaStore, Ticket};
use anima_store::redis::{Options, Redis};
use uuid::Uuid;

/// Calls that are measured of each.
const CALLS: u128 = 20_000;
/// Calls before that.
const WARM: u128 = 2_000;
/// Scripts beside those of calls: the seeding, and each script that the server did not have yet.
const FEW: u64 = 8;
/// What the median may be.
const IN_PROCESS_MAX: Duration = Duration::from_micros(3);
const ON_REDIS_MAX: Duration = Duration::from_micros(300);

/// What went wrong, in words.
type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failed::from).and_then(|runtime| runtime.block_on(run())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("a figure is missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("admission_bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool, Failed> {
    println!("| admission by four limits | p50, us | p99, us | scripts per call | promised p50 |");
    println!("|---|--:|--:|--:|--:|");
    let memory = MemoryQuotas::default();
    let mut good = report("in process", &measure(&memory).await?, (None, IN_PROCESS_MAX));
    if let Some(url) = std::env::args().skip_while(|word| word != "--redis").nth(1) {
        let prefix = format!("bench-{}", std::process::id());
        let redis = Redis::open(&url, Options { prefix, ..Options::default() })?;
        if !redis.ready(Duration::from_secs(5)).await? {
            return Err("Redis does not answer".into());
        }
        let store = RedisQuotas::new(redis.clone(), Uuid::nil(), Arc::default());
        let before = scripts(&redis).await?;
        let times = measure(&store).await?;
        // Each call is admitted and closed.
        let ran = scripts(&redis).await?.saturating_sub(before);
        let calls = u64::try_from(WARM + CALLS)?;
        let each = ran.saturating_sub(calls + FEW).div_ceil(calls);
        good &= report("Redis on loopback", &times, (Some(each), ON_REDIS_MAX));
    }
    Ok(good)
}

/// Scripts that the server has run.
async fn scripts(redis: &Redis) -> Result<u64, Failed> {
    let mut command = redis::cmd("INFO");
    command.arg("commandstats");
    let text: String = redis.command(&command).await?;
    let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls = line.and_then(|rest| rest.split(',').next()).unwrap_or("0");
    Ok(calls.parse()?)
}

/// How long each admission took, sorted.
async fn measure(store: &dyn QuotaStore) -> Result<Vec<Duration>, Failed> {
    let bounds: Arc<[Bound]> = bounds().into();
    for bound in bounds.iter().filter(|b| matches!(b.check, Check::Purse { .. })) {
        // Nothing runs yet that the ledger may not know of.
        if let Some(birth) = store.birth(bound, now()).await? {
            store.seed(bound, (birth.name, 0)).await?;
        }
    }
    let mut times = Vec::new();
    for n in 0..WARM + CALLS {
        let id = Uuid::from_u128(n + 1);
        let ask = Ask { id, bounds: &bounds, now: now(), lease_us: 30_000_000 };
        let began = Instant::now();
        let verdict = store.admit_at_once(ask).await?;
        let took = began.elapsed();
        if !matches!(verdict, Verdict::Admitted(_)) {
            return Err(format!("call {n} was not admitted: {verdict:?}").into());
        }
        if n >= WARM {
            times.push(took);
        }
        store.close(&Ticket { id, bounds: Arc::clone(&bounds) }, now()).await?;
    }
    times.sort_unstable();
    Ok(times)
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// Slots and a rate of the key, tokens and a budget of its app.
fn bounds() -> Vec<Bound> {
    let rate = |limit| Rate { limit, period_us: 60_000_000, burst: limit };
    let (from, to) = (Timestamp::from_micros(0), Timestamp::from_micros(i64::MAX / 2));
    let purse = Check::Purse { limit: i64::MAX / 4, span: Span { from, to } };
    let many = 1_000_000_000;
    vec![
        bound(Scope::Key, LimitKind::Concurrency, Check::Slots { limit: 100 }, 1),
        bound(Scope::Key, LimitKind::Requests, Check::Rate(rate(many)), 1),
        bound(Scope::App, LimitKind::Tokens, Check::Rate(rate(many)), 500),
        bound(Scope::App, LimitKind::Cost, purse, 1_000),
    ]
}

fn bound(scope: Scope, kind: LimitKind, check: Check, units: i64) -> Bound {
    let window = (kind != LimitKind::Concurrency).then_some(Window::Minute);
    let rule = RuleName { kind, count: None, window, currency: None, rate: None, shadow: false };
    let counter = Counter { scope, code: "bench".into(), rule };
    Bound { counter, tag: Tag::App("bench".into()), check, units, on_outage: OnOutage::Share }
}

/// Says what was measured, and whether it is what was promised.
fn report(what: &str, times: &[Duration], (scripts, most): (Option<u64>, Duration)) -> bool {
    let at = |percent: usize| {
        let place = times.len().saturating_sub(1) * percent / 100;
        times.get(place).copied().unwrap_or_default()
    };
    let us = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
    let shown = scripts.map_or_else(|| "–".to_owned(), |scripts| scripts.to_string());
    println!("| {what} | {} | {} | {shown} | {} |", us(at(50)), us(at(99)), us(most));
    at(50) < most && scripts.is_none_or(|scripts| scripts <= 1)
}
