//! What the ratios were made from: one table per question.
//!
//! Rows are targets in the order of `Kind::ALL`; a target that was left out has no row.
//! Invariant: times are in ms and CPU in µs, and the head of each column says so.

use std::fmt::Write;

use anyhow::Result;

use super::median;
use crate::load::Tally;
use crate::plan::Plan;
use crate::scenario::{Phase, Results};
use crate::target::Kind;
use crate::upstream::CHUNKS;

/// A column: its head, its digits after the point, and its figure.
type Column = (&'static str, usize, fn(&Tally) -> f64);

const LATENCIES: [Column; 6] = [
    ("per second", 0, Tally::rate),
    ("p50 ms", 2, |tally| tally.latency_ms(50.0)),
    ("p90 ms", 2, |tally| tally.latency_ms(90.0)),
    ("p99 ms", 2, |tally| tally.latency_ms(99.0)),
    ("p99.9 ms", 2, |tally| tally.latency_ms(99.9)),
    ("CPU µs/request", 1, Tally::cpu_us_per_request),
];

const PER_CORE: [Column; 4] = [
    ("CPU s/1,000 requests", 4, |tally| tally.cpu_us_per_request() / 1000.0),
    ("per second", 0, Tally::rate),
    ("p50 ms", 2, |tally| tally.latency_ms(50.0)),
    ("bytes of answer", 0, Tally::bytes_each),
];

const STREAMS: [Column; 6] = [
    ("CPU s/1,000 chunks", 5, |tally| tally.cpu_us_per_event() / 1000.0),
    ("streams/s", 0, Tally::rate),
    ("first byte p50 ms", 2, |tally| tally.first_byte_ms(50.0)),
    ("first byte p99 ms", 2, |tally| tally.first_byte_ms(99.0)),
    ("whole p50 ms", 2, |tally| tally.latency_ms(50.0)),
    ("events", 1, Tally::events_each),
];

const MEMORY: [Column; 1] = [("MiB at 256 connections", 1, |tally| tally.resident_mib)];

pub(super) fn write(out: &mut String, plan: &Plan, results: &Results) -> Result<()> {
    writeln!(out, "## Closed loop\n")?;
    let closed = plan.concurrency.iter().map(|n| (format!("{n} connections"), Phase::Closed(*n)));
    table(out, results, &closed.collect::<Vec<_>>(), &LATENCIES)?;
    writeln!(out, "## Open loop\n")?;
    let open = plan.rates.iter().map(|rate| (format!("{rate} requests/s"), Phase::Open(*rate)));
    table(out, results, &open.collect::<Vec<_>>(), &LATENCIES)?;
    writeln!(out, "## Per core, 16 connections\n")?;
    let pinned = [("short prompt", Phase::PinnedJson), ("128 KiB prompt", Phase::PinnedPrompt)];
    table(out, results, &pinned.map(|(title, phase)| (title.to_owned(), phase)), &PER_CORE)?;
    writeln!(out, "## Streams of {CHUNKS} chunks\n")?;
    let streams = [
        ("per core, at once, 16 connections", Phase::PinnedStream),
        ("per core, every 2 ms, 32 connections", Phase::PinnedPaced),
        ("1 connection", Phase::Streams(1)),
        ("16 connections", Phase::Streams(16)),
    ];
    table(out, results, &streams.map(|(title, phase)| (title.to_owned(), phase)), &STREAMS)?;
    memory(out, plan, results)?;
    failures(out, results)
}

fn table(
    out: &mut String,
    results: &Results,
    phases: &[(String, Phase)],
    columns: &[Column],
) -> Result<()> {
    let heads: Vec<&str> = columns.iter().map(|(head, ..)| *head).collect();
    writeln!(out, "| | | {} |", heads.join(" | "))?;
    writeln!(out, "|---|---|{}", "--:|".repeat(columns.len()))?;
    for (title, phase) in phases {
        for kind in Kind::ALL {
            if results.phases.contains_key(&(*phase, kind)) {
                let cells = columns.iter().map(|column| cell(results, *phase, kind, *column));
                let cells = cells.collect::<Vec<_>>().join(" | ");
                writeln!(out, "| {title} | {} | {cells} |", kind.title())?;
            }
        }
    }
    writeln!(out)?;
    Ok(())
}

fn cell(results: &Results, phase: Phase, kind: Kind, (head, digits, figure): Column) -> String {
    let has_process = kind != Kind::Direct || !(head.starts_with("CPU") || head.starts_with("MiB"));
    let value = median(results, phase, kind, figure).filter(|_| has_process);
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

fn memory(out: &mut String, plan: &Plan, results: &Results) -> Result<()> {
    writeln!(
        out,
        "## Resident memory\n\n| | MiB at rest | MiB at 256 connections |\n|---|--:|--:|"
    )?;
    for kind in plan.kinds.iter().filter(|kind| **kind != Kind::Direct) {
        let rest = results.rest_mib.get(kind).copied().unwrap_or(f64::NAN);
        let full = MEMORY.map(|column| cell(results, Phase::Closed(256), *kind, column)).concat();
        writeln!(out, "| {} | {rest:.1} | {full} |", kind.title())?;
    }
    writeln!(out)?;
    Ok(())
}

fn failures(out: &mut String, results: &Results) -> Result<()> {
    let all = results.phases.iter().flat_map(|(key, rounds)| {
        rounds
            .iter()
            .flat_map(move |tally| tally.failures.iter().map(move |failure| (key, failure)))
    });
    let lines: Vec<String> = all
        .map(|((phase, kind), (why, count))| {
            format!("- {}, {phase:?}: {count} × {why}", kind.title())
        })
        .collect();
    if !lines.is_empty() {
        writeln!(out, "## Failures\n\n{}\n", lines.join("\n"))?;
    }
    Ok(())
}
