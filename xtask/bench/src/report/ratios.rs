//! The numbers that Anima promises, each beside what was measured.
//!
//! They hold on two cores; elsewhere they are for orientation.
//! Invariant: a promise that was not measured says so, it is not met in silence.

use std::fmt::Write;

use anyhow::Result;

use super::median;
use crate::load::Tally;
use crate::scenario::{Phase, Results};
use crate::target::Kind;

/// One promise.
struct Promise {
    what: &'static str,
    measured: Option<f64>,
    bound: Bound,
    unit: &'static str,
}

/// Which side of the number is good.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

pub(super) fn write(out: &mut String, results: &Results) -> Result<()> {
    writeln!(out, "## Ratios\n\n| what | measured | aim | |\n|---|--:|--:|---|")?;
    for promise in promises(results) {
        let (sign, aim) = match promise.bound {
            Bound::AtMost(aim) => ("≤", aim),
            Bound::AtLeast(aim) => ("≥", aim),
        };
        let kept = promise.measured.map(|value| match promise.bound {
            Bound::AtMost(aim) => value <= aim,
            Bound::AtLeast(aim) => value >= aim,
        });
        let verdict = kept.map_or("not measured", |kept| if kept { "met" } else { "**missed**" });
        let unit = promise.unit;
        let measured = promise.measured.map_or_else(|| "–".to_owned(), |value| number(value, unit));
        writeln!(
            out,
            "| {} | {measured} | {sign} {} | {verdict} |",
            promise.what,
            number(aim, unit)
        )?;
    }
    writeln!(out)?;
    Ok(())
}

fn number(value: f64, unit: &str) -> String {
    let digits = if value.abs() >= 1000.0 { 0 } else { 2 };
    format!("{value:.digits$}{unit}")
}

fn promises(results: &Results) -> Vec<Promise> {
    let mut all = cpu(results);
    all.extend(throughput(results));
    all.extend(latency(results));
    all
}

/// How many times nginx's figure a target's is.
fn times_nginx(
    results: &Results,
    phase: Phase,
    kind: Kind,
    figure: fn(&Tally) -> f64,
) -> Option<f64> {
    Some(median(results, phase, kind, figure)? / median(results, phase, Kind::Nginx, figure)?)
}

fn cpu(results: &Results) -> Vec<Promise> {
    let promise = |(what, phase, kind, aim): (_, _, _, _)| {
        let by_event = matches!(phase, Phase::PinnedPaced | Phase::PinnedStream);
        let figure = if by_event { Tally::cpu_us_per_event } else { Tally::cpu_us_per_request };
        let measured = times_nginx(results, phase, kind, figure);
        Promise { what, measured, bound: Bound::AtMost(aim), unit: " ×" }
    };
    let (json, prompt) = (Phase::PinnedJson, Phase::PinnedPrompt);
    let (paced, burst) = (Phase::PinnedPaced, Phase::PinnedStream);
    let (off, sqlite, postgres) = (Kind::Unbilled, Kind::Sqlite, Kind::Postgres);
    let all = [
        ("CPU per request, billing off : nginx", json, off, 3.0),
        ("CPU per request, SQLite : nginx", json, sqlite, 7.0),
        ("CPU per request, PostgreSQL : nginx", json, postgres, 7.0),
        ("CPU per chunk, one every 2 ms, billing off : nginx", paced, off, 2.0),
        ("CPU per chunk, one every 2 ms, SQLite : nginx", paced, sqlite, 2.0),
        ("CPU per chunk, all at once, billing off : nginx", burst, off, 2.0),
        ("CPU per chunk, all at once, SQLite : nginx", burst, sqlite, 2.0),
        ("CPU per 128 KiB prompt, billing off : nginx", prompt, off, 2.5),
        ("CPU per 128 KiB prompt, SQLite : nginx", prompt, sqlite, 2.5),
    ];
    all.map(promise).into()
}

fn throughput(results: &Results) -> Vec<Promise> {
    let crowd = Phase::Closed(256);
    let rate = |what, kind, aim| Promise {
        what,
        measured: median(results, crowd, kind, Tally::rate),
        bound: Bound::AtLeast(aim),
        unit: "/s",
    };
    let memory = |what, kind| Promise {
        what,
        measured: median(results, crowd, kind, |tally| tally.resident_mib),
        bound: Bound::AtMost(120.0),
        unit: " MiB",
    };
    let failed: u64 = results.phases.values().flatten().map(Tally::failed).sum();
    let failed = u32::try_from(failed).map_or(f64::INFINITY, f64::from);
    vec![
        rate("billed requests at 256 connections, SQLite", Kind::Sqlite, 4000.0),
        rate("billed requests at 256 connections, PostgreSQL", Kind::Postgres, 2000.0),
        memory("memory at 256 connections, SQLite", Kind::Sqlite),
        memory("memory at 256 connections, PostgreSQL", Kind::Postgres),
        Promise {
            what: "failed requests, streams without `[DONE]` included",
            measured: Some(failed),
            bound: Bound::AtMost(0.0),
            unit: "",
        },
    ]
}

fn latency(results: &Results) -> Vec<Promise> {
    let commit = results.append_ms;
    let added = |what, phase, kind, figure: fn(&Tally) -> f64, aim| {
        let direct = median(results, phase, Kind::Direct, figure);
        let through = median(results, phase, kind, figure);
        let measured = through.zip(direct).map(|(through, direct)| through - direct);
        Promise { what, measured, bound: Bound::AtMost(aim), unit: " ms" }
    };
    let (busy, alone) = (Phase::Closed(16), Phase::Streams(1));
    let whole: fn(&Tally) -> f64 = |tally| tally.latency_ms(50.0);
    let first: fn(&Tally) -> f64 = |tally| tally.first_byte_ms(50.0);
    let (sqlite, postgres) = (Kind::Sqlite, Kind::Postgres);
    vec![
        added("added p50 at 16 connections, SQLite", busy, sqlite, whole, 2.0 * commit + 0.5),
        added("added p50 at 16 connections, PostgreSQL", busy, postgres, whole, 2.0 * commit + 0.5),
        added("added first byte, billing off", alone, Kind::Unbilled, first, 1.0),
        added("added first byte, SQLite (1 ms and the hold)", alone, sqlite, first, 1.0 + commit),
        added("added first byte, PostgreSQL (the same)", alone, postgres, first, 1.0 + commit),
    ]
}
