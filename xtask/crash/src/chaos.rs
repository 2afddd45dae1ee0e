//! `cargo xtask chaos`: real nodes on a real PostgreSQL and a real Redis that fail on purpose.
//!
//! Not the crash harness, whose pieces it uses: that one kills nodes and audits their books, this
//! one breaks what nodes stand on, pulls every escape hatch, and measures how soon each node obeys.
//! What is done is a list of [`scenario::Scenario`]s, each of which leaves a fleet that serves and
//! gives lines of a table. Invariant: it ends with 0 only when every line holds. Source: SPEC 10
//! and 12, `reliability` 6.2 (D1, D2, K1, K2, K3, K4, P4, R2, R3, R7).

mod admins;
mod changes;
mod cold;
mod hatches;
mod kills;
mod limits;
mod load;
mod outages;
mod plan;
mod prices;
mod redis;
mod routing;
mod scenario;
mod shutdown;
mod stores;
mod streams;
mod table;
mod world;

use anyhow::{Context, Result};

use crate::page;
use plan::Plan;
use table::Line;
use world::World;

/// Runs what the options ask for. Whether everything holds.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let plan = Plan::parse(arguments)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    let scratch = tempfile::Builder::new().prefix("anima-chaos-").tempdir_in(&plan.scratch);
    let mut scratch = scratch.context("failed to make a scratch folder")?;
    if plan.keep {
        scratch.disable_cleanup(true);
    }
    eprintln!("anima-chaos: seed {}, in {}", plan.seed, scratch.path().display());
    let lines = runtime.block_on(Box::pin(play(&plan, scratch.path())))?;
    let table = table::markdown(&plan.command, &lines)?;
    if plan.json {
        println!("{:#}", table::json(&plan.command, &lines));
    } else {
        println!("\n{table}");
    }
    if let Some(path) = &plan.out {
        page::write(path, plan.verb(), &table)?;
        eprintln!("anima-chaos: written: {}", path.display());
    }
    Ok(lines.iter().all(|line| line.holds))
}

/// Every scenario in turn on one world. One that fails to be played is a line that does not hold,
/// and the others are still played.
async fn play(plan: &Plan, scratch: &std::path::Path) -> Result<Vec<Line>> {
    let mut world = World::start(plan, scratch).await?;
    let mut lines: Vec<Line> = Vec::new();
    for scenario in scenario::chosen(plan)? {
        let begin = tokio::time::Instant::now();
        let (name, before) = (scenario.name, lines.len());
        match (scenario.play)(&mut world).await {
            Ok(found) => lines.extend(found),
            Err(error) => {
                lines.push(Line::check(&format!("{name}: played"), false, &format!("{error:#}")));
            }
        }
        for line in lines.iter().skip(before).filter(|line| !line.holds) {
            eprintln!("anima-chaos: missed: {line:?}");
        }
        world.heal().await.with_context(|| format!("after {name}, nodes do not come back"))?;
        eprintln!("anima-chaos: {name}: over after {} s", begin.elapsed().as_secs());
    }
    lines.extend(world.end().await?);
    Ok(lines)
}
