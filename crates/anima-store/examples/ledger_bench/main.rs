//! Measures the ledger: how many requests it books, how long a hold takes, what a request costs on
//! disk.
//!
//! `cargo xtask bench ledger` builds it for release and gives it a PostgreSQL server of its own.
//! By hand: `ledger_bench --scratch DIR [--postgres URL] [--seconds N] [--rounds N] [--stored N]
//! [--out FILE]`, the URL that of a server whose user may create databases. Each request is a hold
//! and a settlement with one attempt, both on disk when they return. Not a test: it judges nothing
//! but its own aims, and ends well when they are missed.

#![expect(clippy::print_stdout, reason = "a program whose output is its table")]

mod disk; // what it takes by itself
mod load; // closed and open loops
mod place; // databases that are made and measured
mod report; // tables
mod sample; // what is booked

use std::path::{Path, PathBuf};
use std::time::Duration;

use load::{Closed, Outcome};
use place::Place;
use report::{OpenLoop, Report};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Wallets of the run with many of them.
const MANY: u64 = 2_000;

/// Callers at once, from one to what a busy node has.
const CALLERS: [usize; 4] = [1, 16, 64, 256];

/// Holds per second of the open loop, and its length in seconds.
const OPEN: (u32, u32) = (500, 10);

/// Seconds for which the disk alone is timed, right before each open loop.
const DISK_SECONDS: u32 = 5;

/// What the command line asks for.
#[derive(Debug, Clone)]
struct Wanted {
    scratch: PathBuf,
    postgres: Option<String>,
    seconds: u64,
    rounds: usize,
    stored: u64,
    out: Option<PathBuf>,
}

impl Wanted {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut wanted = Self {
            scratch: std::env::temp_dir(),
            postgres: None,
            seconds: 2,
            rounds: 3,
            stored: 100_000,
            out: None,
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--scratch" => wanted.scratch = value.into(),
                "--postgres" => wanted.postgres = Some(value),
                "--seconds" => wanted.seconds = value.parse()?,
                "--rounds" => wanted.rounds = value.parse()?,
                "--stored" => wanted.stored = value.parse()?,
                "--out" => wanted.out = Some(value.into()),
                other => return Err(format!("there is no option {other}").into()),
            }
        }
        Ok(wanted)
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let wanted = Wanted::read(std::env::args().skip(1))?;
    let mut report = Report::default();
    let folder = wanted.scratch.join(format!("ledger-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&wanted, &folder, &mut report).await;
    std::fs::remove_dir_all(&folder)?;
    measured?;
    let text = report.text(&wanted);
    match &wanted.out {
        Some(file) => report::write(file, &text)?,
        None => println!("{text}"),
    }
    Ok(())
}

async fn measure(wanted: &Wanted, folder: &Path, report: &mut Report) -> Result<(), Failure> {
    let servers = std::iter::once(None).chain(wanted.postgres.as_deref().map(Some));
    for server in servers {
        let place = Place::make(folder, server, "load").await?;
        report.begin(place.name());
        grouped(wanted, &place, report).await?;
        alone(wanted, &place, report).await?;
        let opened = place.open().await?;
        sample::fund(&opened, MANY).await?;
        for _ in 0..wanted.rounds.max(1) {
            let disk = disk_alone(folder.to_owned()).await?;
            let holds = load::open_loop(&opened, OPEN.0, OPEN.1, MANY).await?;
            report.open_loop(OpenLoop { holds, disk });
        }
        drop(opened);
        place.remove().await?;
        let (bytes, parts) = stored(wanted, folder, server).await?;
        report.stored(bytes, parts);
    }
    Ok(())
}

/// The disk alone at the pace of the open loop, on a thread that may block.
async fn disk_alone(folder: PathBuf) -> Result<[f64; 3], Failure> {
    let timed = move || disk::open_loop(&folder, OPEN.0, DISK_SECONDS);
    tokio::task::spawn_blocking(timed).await?
}

/// The store as it is: operations that wait share a transaction.
async fn grouped(wanted: &Wanted, place: &Place, report: &mut Report) -> Result<(), Failure> {
    let opened = place.open().await?;
    sample::fund(&opened, MANY).await?;
    for wallets in [MANY, 1] {
        for callers in CALLERS {
            let load = closed(wanted, callers, wallets);
            let best = rounds(wanted, async || load.run(std::slice::from_ref(&opened)).await);
            report.grouped(wallets, callers, best.await?);
        }
    }
    Ok(())
}

/// Each operation in a transaction of its own: as many ledgers as callers, so that nothing finds
/// company. SQLite lets one at a time write, and more would only wait for its lock.
async fn alone(wanted: &Wanted, place: &Place, report: &mut Report) -> Result<(), Failure> {
    let callers = place.writers_at_once();
    let mut nodes = Vec::new();
    for _ in 0..callers {
        nodes.push(place.open().await?);
    }
    for wallets in [MANY, 1] {
        let load = closed(wanted, callers, wallets);
        let best = rounds(wanted, async || load.run(&nodes).await).await?;
        report.alone(wallets, callers, best);
    }
    Ok(())
}

const fn closed(wanted: &Wanted, callers: usize, wallets: u64) -> Closed {
    Closed { wallets, callers, length: Duration::from_secs(wanted.seconds) }
}

/// The round in the middle.
async fn rounds(
    wanted: &Wanted,
    round: impl AsyncFn() -> Result<Outcome, Failure>,
) -> Result<Outcome, Failure> {
    let mut outcomes = Vec::new();
    for _ in 0..wanted.rounds.max(1) {
        outcomes.push(round().await?);
    }
    outcomes.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    let middle = outcomes.len() / 2;
    outcomes.into_iter().nth(middle).ok_or_else(|| "no round was made".into())
}

/// Bytes on disk per request, in a database of its own, and of what.
async fn stored(
    wanted: &Wanted,
    folder: &Path,
    server: Option<&str>,
) -> Result<(f64, Vec<(String, f64)>), Failure> {
    let place = Place::make(folder, server, "stored").await?;
    let opened = place.open().await?;
    sample::fund(&opened, MANY).await?;
    let before = place.size().await?;
    load::so_many(&opened, wanted.stored, MANY).await?;
    let after = place.size().await?;
    let parts = place.parts().await?;
    drop(opened);
    place.remove().await?;
    let requests = f64::from(u32::try_from(wanted.stored.max(1))?);
    let each = |bytes: u64| Ok::<_, Failure>(f64::from(u32::try_from(bytes)?) / requests);
    let parts = parts.into_iter().map(|(name, bytes)| Ok::<_, Failure>((name, each(bytes)?)));
    Ok((each(after.saturating_sub(before))?, parts.collect::<Result<_, _>>()?))
}
