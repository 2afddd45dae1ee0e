//! The outcome as a table for people and as JSON for programs.
//!
//! Zeros first. Not a judgement: `Verdict::holds` is, from the same figures.
//! Invariant: both forms say the seed and the one command that repeats the run.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use crate::audit::{Audit, Class};
use crate::load::Saw;
use crate::money::dollars;
use crate::plan::{Fault, Plan, Storage};
use crate::recovery::Recovery;
use crate::wal::Aimed;

/// Findings that are shown, per class.
const SHOWN: usize = 5;

/// A minute: how soon after a kill its holds must be resolved.
const RECOVERY_MS: i64 = 60_000;

/// What one storage came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) storage: Storage,
    pub(crate) audit: Audit,
    /// By kill.
    pub(crate) recoveries: Vec<Recovery>,
    /// By stop.
    pub(crate) zombies: Vec<Recovery>,
    /// From each start of a gateway until it served.
    pub(crate) starts_ms: Vec<i64>,
    /// What happened beside the kills, and how often.
    pub(crate) events: Vec<(Fault, usize)>,
    /// Kills in the middle of a commit.
    pub(crate) aimed: Aimed,
    pub(crate) saw: Saw,
    /// What `anima ledger verify` says; empty when all invariants hold.
    pub(crate) breaches: Vec<String>,
    pub(crate) seconds: u64,
}

impl Verdict {
    /// Whether everything is as it must be.
    pub(crate) fn holds(&self) -> bool {
        let clean = Class::ALL.iter().all(|class| self.audit.count(*class) == 0);
        clean && self.breaches.is_empty() && self.audit.bank.is_empty() && self.is_fast()
    }

    fn is_fast(&self) -> bool {
        self.slowest_ms().is_none_or(|ms| ms < RECOVERY_MS)
    }

    fn slowest_ms(&self) -> Option<i64> {
        self.recoveries.iter().filter_map(|recovery| recovery.last_ms).max()
    }

    /// Of the kills that left something.
    fn median_ms(&self) -> Option<i64> {
        median(self.recoveries.iter().filter_map(|r| r.last_ms).collect())
    }

    fn orphans(&self) -> usize {
        self.recoveries.iter().map(|recovery| recovery.orphans).sum()
    }

    fn zombie_holds(&self, of: fn(&Recovery) -> usize) -> usize {
        self.zombies.iter().map(of).sum()
    }

    fn statuses(&self) -> Vec<(String, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for seen in &self.saw.calls {
            let status =
                seen.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            *counts.entry(status).or_default() += 1;
        }
        counts.into_iter().collect()
    }
}

/// The middle one.
fn median(mut all: Vec<i64>) -> Option<i64> {
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// The table of all storages.
///
/// # Errors
/// Never, in memory.
pub(crate) fn table(plan: &Plan, verdicts: &[Verdict]) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "Seed {}, made by `{}`.\n", plan.seed, plan.command)?;
    write!(out, "| |")?;
    verdicts.iter().try_for_each(|verdict| write!(out, " {} |", verdict.storage))?;
    writeln!(out, "\n|---|{}", "--:|".repeat(verdicts.len()))?;
    for (title, figure) in LINES {
        let cells: Vec<String> = verdicts.iter().map(figure).collect();
        writeln!(out, "| {title} | {} |", cells.join(" | "))?;
    }
    for verdict in verdicts {
        details(&mut out, verdict)?;
    }
    Ok(out)
}

/// A line of the table.
type Line = (&'static str, fn(&Verdict) -> String);

const LINES: &[Line] = &[
    ("kills (`kill -9`)", |v| v.recoveries.len().to_string()),
    ("of these during a commit of SQLite, and left half written", |v| {
        format!("{}, {}", v.aimed.kills, v.aimed.unfinished)
    }),
    ("other faults", |v| {
        let shown = v.events.iter().map(|(fault, count)| format!("{count} {}", fault.word()));
        let shown: Vec<_> = shown.collect();
        if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
    }),
    ("requests that clients made", |v| v.saw.calls.len().to_string()),
    ("upstream calls", |v| v.audit.upstream_calls.to_string()),
    ("answers that clients got whole", |v| v.audit.answers.to_string()),
    ("idempotency keys, calls sent again under them, stored answers", |v| {
        let once = &v.audit.once;
        format!("{}, {}, {}", once.keys, once.again, once.stored)
    }),
    ("**lost**", |v| v.audit.count(Class::Lost).to_string()),
    ("**double**", |v| v.audit.count(Class::Double).to_string()),
    ("**phantom**", |v| v.audit.count(Class::Phantom).to_string()),
    ("**wrong**", |v| v.audit.count(Class::Wrong).to_string()),
    ("unresolved holds", |v| v.audit.count(Class::Unresolved).to_string()),
    ("holds orphaned by kills", |v| v.orphans().to_string()),
    ("recovery after a kill, median", |v| seconds(v.median_ms())),
    ("recovery after a kill, slowest", |v| seconds(v.slowest_ms())),
    ("start until it serves, median", |v| seconds(median(v.starts_ms.clone()))),
    ("start until it serves, slowest", |v| seconds(v.starts_ms.iter().max().copied())),
    ("holds of zombies, of these closed by others", |v| {
        let taken = v.zombie_holds(|zombie| zombie.taken_over);
        format!("{}, {taken}", v.zombie_holds(|zombie| zombie.orphans))
    }),
    ("costs estimated for calls never sent", |v| v.audit.cautious.to_string()),
    ("answers given in an outage under a key, by policy not sold", |v| {
        v.audit.given_away.to_string()
    }),
    ("`anima ledger verify`", |v| clean(&v.breaches)),
    ("bank check", |v| clean(&v.audit.bank)),
    ("sold and covered by no wallet, USD", |v| dollars(v.audit.unpaid)),
    ("the provider bills, USD", |v| dollars(v.audit.billed)),
    ("booked as reported, USD", |v| dollars(v.audit.booked)),
    ("booked by estimate, USD", |v| dollars(v.audit.estimated)),
    ("billed for unresolved holds, USD", |v| dollars(v.audit.open_exposure)),
    ("minutes", |v| format!("{}:{:02}", v.seconds / 60, v.seconds % 60)),
];

fn seconds(ms: Option<i64>) -> String {
    ms.map_or_else(|| "none".to_owned(), |ms| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100))
}

fn clean(problems: &[String]) -> String {
    if problems.is_empty() { "clean".to_owned() } else { format!("{} breaches", problems.len()) }
}

/// What is behind the figures: how requests ended, and the first findings.
fn details(out: &mut String, verdict: &Verdict) -> Result<()> {
    writeln!(out, "\n{}:\n", verdict.storage)?;
    let shown = |counts: &mut dyn Iterator<Item = (&String, &usize)>| {
        counts.map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join("; ")
    };
    let statuses = verdict.statuses();
    let statuses = shown(&mut statuses.iter().map(|(status, count)| (status, count)));
    writeln!(out, "- What clients got, by status: {statuses}.")?;
    writeln!(
        out,
        "- Holds, and where their usage is from: {}.",
        shown(&mut verdict.audit.resolved.iter())
    )?;
    if verdict.saw.left_out > 0 {
        writeln!(out, "- Calls left out, since too many were running: {}.", verdict.saw.left_out)?;
    }
    for problem in verdict.breaches.iter().chain(&verdict.audit.bank) {
        writeln!(out, "- {problem}")?;
    }
    for class in Class::ALL {
        let of = verdict.audit.findings.iter().filter(|finding| finding.class == class);
        for finding in of.take(SHOWN) {
            writeln!(out, "- {}, {}: {}", class.word(), finding.request, finding.what)?;
        }
    }
    Ok(())
}

/// The same as JSON.
pub(crate) fn json(plan: &Plan, verdicts: &[Verdict]) -> Value {
    json!({
        "seed": plan.seed,
        "command": plan.command,
        "holds": verdicts.iter().all(Verdict::holds),
        "runs": verdicts.iter().map(one).collect::<Vec<_>>(),
    })
}

fn one(verdict: &Verdict) -> Value {
    let audit = &verdict.audit;
    let events: Vec<Value> = verdict
        .events
        .iter()
        .map(|(fault, count)| json!({"fault": fault.word(), "count": count}))
        .collect();
    let findings: Vec<Value> = audit
        .findings
        .iter()
        .map(|f| json!({"class": f.class.word(), "request_id": f.request, "what": f.what}))
        .collect();
    json!({
        "storage": verdict.storage.to_string(),
        "holds": verdict.holds(),
        "kills": verdict.recoveries.len(),
        "kills_in_commit": verdict.aimed.kills,
        "kills_in_commit_unfinished": verdict.aimed.unfinished,
        "events": events,
        "requests": verdict.saw.calls.len(),
        "upstream_calls": audit.upstream_calls,
        "answers": audit.answers,
        "idempotency_keys": audit.once.keys,
        "idempotency_repeats": audit.once.again,
        "idempotency_stored_answers": audit.once.stored,
        "given_away": audit.given_away,
        "lost": audit.count(Class::Lost),
        "double": audit.count(Class::Double),
        "phantom": audit.count(Class::Phantom),
        "wrong": audit.count(Class::Wrong),
        "unresolved": audit.count(Class::Unresolved),
        "orphans": verdict.orphans(),
        "recovery_median_ms": verdict.median_ms(),
        "recovery_slowest_ms": verdict.slowest_ms(),
        "start_median_ms": median(verdict.starts_ms.clone()),
        "start_slowest_ms": verdict.starts_ms.iter().max(),
        "zombie_holds": verdict.zombie_holds(|zombie| zombie.orphans),
        "zombie_holds_taken_over": verdict.zombie_holds(|zombie| zombie.taken_over),
        "cautious": audit.cautious,
        "breaches": verdict.breaches,
        "bank": audit.bank,
        "billed_nano": audit.billed,
        "booked_nano": audit.booked,
        "estimated_nano": audit.estimated,
        "uncollected_nano": audit.unpaid,
        "open_exposure_nano": audit.open_exposure,
        "resolved": audit.resolved,
        "findings": findings,
        "seconds": verdict.seconds,
    })
}
