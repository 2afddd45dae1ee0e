//! The table: ratios first, then what they were made from.
//!
//! Each figure is the median over the rounds of that figure, so a row need not be one phase.
//! Invariant: what stands below the line `<!-- by hand -->` of an existing file is kept.

mod ratios;
mod tables;

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use crate::load::Tally;
use crate::plan::Plan;
use crate::scenario::{Phase, Results};
use crate::target::Kind;
use crate::{machine, nginx};

/// Below it, the file is written by people.
const BY_HAND: &str = "<!-- by hand -->";

/// Writes the file that the plan names, or prints.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(plan: &Plan, results: &Results) -> Result<()> {
    let text = text(plan, results)?;
    let Some(path) = &plan.table else {
        println!("\n{text}");
        return Ok(());
    };
    let before = fs::read_to_string(path).unwrap_or_default();
    let kept = before.find(BY_HAND).and_then(|at| before.get(at..));
    let text = format!("{text}{}", kept.unwrap_or(&format!("{BY_HAND}\n")));
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

fn text(plan: &Plan, results: &Results) -> Result<String> {
    let mut out = String::from("# Benchmarks\n\n");
    let Plan { command, rounds, phase, .. } = plan;
    writeln!(out, "Made by `{command}` on {}. Load generator, upstream", machine::today())?;
    writeln!(
        out,
        "(the simulated provider) and proxies share one machine: {}.",
        machine::description(results.cores)
    )?;
    writeln!(
        out,
        "Each figure is the median of {rounds} rounds of {:.0} s.\n",
        phase.as_secs_f64()
    )?;
    ratios::write(&mut out, results)?;
    tables::write(&mut out, plan, results)?;
    setting(&mut out, plan, results)?;
    Ok(out)
}

fn setting(out: &mut String, plan: &Plan, results: &Results) -> Result<()> {
    writeln!(out, "## How it was measured\n")?;
    writeln!(out, "- Yardstick: {}.", machine::version(nginx::program(), "-v"))?;
    writeln!(out, "- One durable append of 4 KiB to this disk takes {:.2} ms.", results.append_ms)?;
    if let Some(url) = plan.postgres.as_deref().filter(|_| plan.kinds.contains(&Kind::Postgres)) {
        let durable = "its default durability";
        writeln!(
            out,
            "- PostgreSQL: a fresh cluster on the same disk, {durable} ({}).",
            server(url)
        )?;
    }
    let pinned = if results.pinned {
        "\"Per core\": the proxy on one core, load generator and upstream on the other."
    } else {
        "Processes could not be bound to cores, so \"per core\" is not."
    };
    writeln!(out, "- {pinned}")?;
    writeln!(
        out,
        "- CPU is user plus system time of the proxy's process and its children, from the"
    )?;
    writeln!(out, "  kernel; a database server is not in it, SQLite is.")?;
    writeln!(out, "- Open loop: latency counts from when the request was due, sent or not.\n")?;
    Ok(())
}

/// Where it listened, without its name and password.
fn server(url: &str) -> &'static str {
    if url.contains("@127.0.0.1") { "over loopback" } else { "elsewhere" }
}

/// The median over the rounds of one figure; `None` when it was not measured.
fn median(
    results: &Results,
    phase: Phase,
    kind: Kind,
    figure: impl Fn(&Tally) -> f64,
) -> Option<f64> {
    let mut values: Vec<f64> = results.phases.get(&(phase, kind))?.iter().map(figure).collect();
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
