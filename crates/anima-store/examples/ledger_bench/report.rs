//! The figures as tables, with the aims beside them.
//!
//! Invariant: what stands below the line `<!-- by hand -->` of the file is kept.

use std::fmt::Write as _;
use std::path::Path;

use super::load::Outcome;
use super::{DISK_SECONDS, Failure, MANY, OPEN, Wanted};

/// What a person wrote below the figures stays.
const BY_HAND: &str = "<!-- by hand -->";

/// A round of it: p50, p99 and p99.9 in milliseconds, of holds and of the disk alone before them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenLoop {
    pub(super) holds: [f64; 3],
    pub(super) disk: [f64; 3],
}

/// One database.
#[derive(Debug, Default)]
struct Section {
    name: &'static str,
    grouped: Vec<(u64, usize, Outcome)>,
    alone: Vec<(u64, usize, Outcome)>,
    open_loops: Vec<OpenLoop>,
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

    pub(super) fn open_loop(&mut self, round: OpenLoop) {
        self.last(|section| section.open_loops.push(round));
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
            let OpenLoop { holds: [_, p99, _], disk: [_, disk, _] } = section.open_loop();
            writeln!(
                out,
                "| p99 of a hold at {}/s, {name} | {p99:.2} ms (the disk alone {disk:.2}) | \
                 < 15 ms | {} |",
                OPEN.0,
                met(p99 < 15.0)
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

    /// The round in the middle, by the p99 of its holds.
    fn open_loop(&self) -> OpenLoop {
        let mut rounds = self.open_loops.clone();
        rounds.sort_by(|a, b| a.holds[1].total_cmp(&b.holds[1]));
        rounds.get(rounds.len() / 2).copied().unwrap_or_default()
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
        writeln!(
            out,
            "\nHolds at {} per second for {} s, each counted from when it was due; before each \
             round the disk alone at the\nsame pace for {DISK_SECONDS} s: records of 4 KiB, all \
             that is due in one write and one sync.\n\n\
             | round | hold p50 ms | p99 ms | p99.9 ms | disk p50 ms | p99 ms | p99.9 ms |\n\
             |--:|--:|--:|--:|--:|--:|--:|",
            OPEN.0, OPEN.1
        )?;
        for (n, round) in self.open_loops.iter().enumerate() {
            let ([p50, p99, p999], [disk_p50, disk_p99, disk_p999]) = (round.holds, round.disk);
            writeln!(
                out,
                "| {} | {p50:.2} | {p99:.2} | {p999:.2} | {disk_p50:.2} | {disk_p99:.2} | \
                 {disk_p999:.2} |",
                n + 1
            )?;
        }
        writeln!(
            out,
            "\n{} requests take {:.0} bytes each on disk, with indexes and free space in pages:",
            wanted.stored, self.stored
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
