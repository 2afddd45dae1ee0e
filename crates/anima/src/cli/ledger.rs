//! `anima ledger verify`: the invariants of the books, from the database alone.
//!
//! Reads one snapshot, also beside a node that serves; repairs nothing. Invariant: the exit code is
//! 0 only when every invariant holds. What they are: `docs/integrity.md`.

use anima_core::clock::{Clock as _, mint_id};
use anima_store::database::{self, Opener};
use anima_store::ledger::Finding;
use serde_json::json;

use crate::boot;
use crate::clock::{SystemClock, SystemRng};
use crate::metrics::Metrics;
use crate::settings::Flags;

use super::{Exit, prepare, process, say};

/// What to do with the books.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Checks every invariant; ends with 0 when all hold, else with 1.
    Verify(Args),
}

/// Options of `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs a ledger command.
pub(super) fn run(command: &Command) -> Result<(), Exit> {
    let Command::Verify(args) = command;
    let (settings, _log) = prepare(&args.flags)?;
    let location = boot::location(&settings).map_err(Exit::Usage)?;
    let findings = process::run(1, async {
        let observer = Metrics::new().map_err(|e| Exit::Failed(e.to_string()))?;
        let node = mint_id(SystemClock.now(), &SystemRng);
        let opener = Opener { node, observer: std::sync::Arc::new(observer) };
        let stores = database::open(&location, &opener)
            .await
            .map_err(|e| Exit::Failed(format!("setting `database_url`: {e}")))?;
        stores.ledger.verify(SystemClock.now()).await.map_err(|e| Exit::Failed(e.to_string()))
    })?;
    let holds = findings.iter().all(|f| f.breaches.is_empty());
    if args.json {
        say(&as_json(&findings, holds))?;
    } else {
        print(&findings)?;
    }
    if holds { Ok(()) } else { Err(Exit::Failed("the books do not hold".to_owned())) }
}

fn print(findings: &[Finding]) -> Result<(), Exit> {
    for finding in findings {
        let verdict = match (finding.not_applicable, finding.breaches.is_empty()) {
            (Some(_), _) => "-     ",
            (None, true) => "holds ",
            (None, false) => "BREACH",
        };
        let Finding { invariant, statement, checked, .. } = finding;
        match finding.not_applicable {
            Some(why) => say(&format_args!("{invariant:<4} {verdict} {statement}: {why}"))?,
            None => say(&format_args!("{invariant:<4} {verdict} {statement} ({checked} checked)"))?,
        }
        for breach in &finding.breaches {
            say(&format_args!("            {breach}"))?;
        }
    }
    Ok(())
}

fn as_json(findings: &[Finding], holds: bool) -> serde_json::Value {
    let rows: Vec<_> = findings
        .iter()
        .map(|f| {
            json!({
                "invariant": f.invariant, "statement": f.statement, "checked": f.checked,
                "holds": f.breaches.is_empty(), "breaches": f.breaches,
                "not_applicable": f.not_applicable,
            })
        })
        .collect();
    json!({ "ok": holds, "findings": rows })
}
