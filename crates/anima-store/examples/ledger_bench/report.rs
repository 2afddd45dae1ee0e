//! The figures as tables, with the aims beside them.
//!
//! Invariant: what stands below the line `<!-- by hand -->` of the file is kept.

use std::fmt::Write as _;
use std::path::Path;

use super::load::Outcome;
use super::{Failure, MANY, OPEN, Wanted};

/// What a person wrote below the figures stays.
const BY_HAND: &str = "<!-- by hand -->";

/// One database.
#[derive(Debug, Default)]
struct Section {
    name: &'static str,
    grouped: Vec<(u64, usize, Outcome)>,
    alone: Vec<(u64, usize, Outcome)>,
    open_loop: [f64; 3],
    stored: f64,
    parts: Vec<(String, f64)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Section>);

impl Report {
    pub(super) fn begin(&mut self, name: &'static str) {
        self.0.push(Section { name, ..Section::default() });
    }

    pub(super) fn grouped(&mut self, wallets: u64, callers: usize, outcome: Outcome) {
        self.last(|section| section.grouped.push((wallets, callers, outcome)));
    }

    pub(super) fn alone(&mut self, wallets: u64, callers: usize, outcome: Outcome) {
        self.last(|section| section.alone.push((wallets, callers, outcome)));
    }

    pub(super) fn open_loop(&mut self, holds: [f64; 3]) {
        self.last(|section| section.open_loop = holds);
    }

    pub(super) fn stored(&mut self, bytes: f64, parts: Vec<(String, f64)>) {
        self.last(|section| (section.stored, section.parts) = (bytes, parts));
    }

    fn last(&mut self, change: impl FnOnce(&mut Section)) {
        if let Some(section) = self.0.last_mut() {
            change(section);
        }
    }

    /// The file's text, down to the line that ends it.
    pub(super) fn text(&self, wanted: &Wanted) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _infallible = self.write(wanted, &mut text);
        text
    }

    fn write(&self, wanted: &Wanted, out: &mut String) -> std::fmt::Result {
        let (seconds, rounds) = (wanted.seconds, wanted.rounds);
        writeln!(out, "# Benchmarks of the ledger\n")?;
        writeln!(
            out,
            "Made by `cargo xtask bench ledger --seconds {seconds} --rounds {rounds} --stored {} \
             --out docs/benchmarks-ledger.md`:\nthe ledger alone, in one process with its callers, \
             and PostgreSQL's server, on one machine with {}\ncores. A request is a hold and a \
             settlement with one attempt, each on disk when it returns. Figures are\nthe middle \
             one of {rounds} rounds of {seconds} s.\n",
            wanted.stored,
            std::thread::available_parallelism().map_or(0, usize::from),
        )?;
        self.aims(out)?;
        for section in &self.0 {
            section.write(wanted, out)?;
        }
        write!(out, "\n{BY_HAND}\n")
    }

    fn aims(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "## Aims\n\n| what | measured | aim | |\n|---|--:|--:|---|")?;
        for section in &self.0 {
            let name = section.name;
            let least = if name.starts_with("SQLite") { 8_000.0 } else { 4_000.0 };
            let (many, hot) = (section.best(MANY), section.best(1));
            let met = |is_met| if is_met { "met" } else { "**missed**" };
            let verdict = met(many >= least);
            let what = "requests booked, many wallets";
            writeln!(out, "| {what}, {name} | {many:.0}/s | ≥ {least:.0}/s | {verdict} |")?;
            let (ratio, verdict) = (hot / many.max(1.0), met(hot >= 0.75 * many));
            writeln!(
                out,
                "| on one hot wallet, {name} | {hot:.0}/s, {ratio:.2} × | ≥ 0.75 × | {verdict} |"
            )?;
            let (p99, verdict) = (section.open_loop[1], met(section.open_loop[1] < 15.0));
            writeln!(
                out,
                "| p99 of a hold at {}/s, {name} | {p99:.2} ms | < 15 ms | {verdict} |",
                OPEN.0
            )?;
            let (stored, verdict) = (section.stored, met(section.stored < 1_536.0));
            writeln!(
                out,
                "| on disk per request, {name} | {stored:.0} bytes | < 1536 bytes | {verdict} |"
            )?;
        }
        Ok(())
    }
}

impl Section {
    /// The most requests per second with so many wallets.
    fn best(&self, wallets: u64) -> f64 {
        let fitting = self.grouped.iter().filter(|(of, ..)| *of == wallets);
        fitting.map(|(.., outcome)| outcome.per_second).fold(0.0, f64::max)
    }

    fn write(&self, wanted: &Wanted, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## {}\n", self.name)?;
        writeln!(
            out,
            "| transactions | wallets | callers | requests/s | CPU µs/request | p50 ms | p99 ms | \
             operations in one |\n|---|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        let rows = self.grouped.iter().map(|row| ("shared", row));
        let alone = self.alone.iter().map(|row| ("one per operation", row));
        for (kind, (wallets, callers, outcome)) in rows.chain(alone) {
            let Outcome { per_second, cpu_us, p50_ms, p99_ms, shared } = outcome;
            writeln!(
                out,
                "| {kind} | {wallets} | {callers} | {per_second:.0} | {cpu_us:.0} | {p50_ms:.2} | \
                 {p99_ms:.2} | {shared:.1} |"
            )?;
        }
        let [p50, p99, p999] = self.open_loop;
        writeln!(
            out,
            "\nHolds at {} per second for {} s, counted from when each was due: p50 {p50:.2} ms, \
             p99 {p99:.2} ms,\np99.9 {p999:.2} ms. {} requests take {:.0} bytes each on disk, \
             indexes and free space in pages included:",
            OPEN.0, OPEN.1, wanted.stored, self.stored
        )?;
        writeln!(out, "\n| table or index | bytes per request |\n|---|--:|")?;
        for (name, bytes) in self.parts.iter().filter(|(_, bytes)| *bytes >= 1.0) {
            writeln!(out, "| `{name}` | {bytes:.0} |")?;
        }
        Ok(())
    }
}

/// Writes the file, and keeps what a person wrote into it.
pub(super) fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let old = std::fs::read_to_string(file).unwrap_or_default();
    let kept = old.split_once(BY_HAND).map_or("", |(_, rest)| rest.trim_start_matches('\n'));
    let gap = if kept.is_empty() { "" } else { "\n" };
    std::fs::write(file, format!("{text}{gap}{kept}"))?;
    Ok(())
}
