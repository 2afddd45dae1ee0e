//! Every channel fails: nothing is multiplied, nobody waits in vain, and service comes back.
//!
//! Once by errors, once by silence. Invariant: attempts are counted in the provider's log.
//! Source: `reliability` 3.2 ("never eject the last one") and 4.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::stage::{Fault, Stage, lanes};
use super::watch::Watch;
use crate::chaos::kills::passes;
use crate::chaos::load::Reply;
use crate::chaos::table::Line;
use crate::chaos::world::World;

/// How long each half lasts.
const LASTS: Duration = Duration::from_secs(15);

/// The alias's deadline, and what a busy machine may add to it.
const DEADLINE_MS: u64 = 2_000;
const SLACK: Duration = Duration::from_millis(500);

/// The longest open time, and what follows it until every node has served.
const MAX_OPEN_MS: u64 = 4_000;
const BACK_WITHIN: Duration = Duration::from_millis(MAX_OPEN_MS + 4_000);

/// Fewer calls prove nothing.
const LEAST: usize = 100;

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn everything(world: &mut World) -> Result<Vec<Line>> {
    let breaker = json!({"open_ms": 1_000, "max_open_ms": MAX_OPEN_MS});
    let stage = Stage::make(world, "down", &breaker).await?;
    let retry = json!({"max_attempts": 3, "deadline_ms": DEADLINE_MS});
    let alias = stage.alias("", (&[0, 1, 2, 3], true), &retry).await?;
    let watch = Watch::start(world, "down-");
    let load = world.load(lanes(world, &alias));
    passes(&load, world.plan.nodes, Instant::now()).await?;
    let mut lines = Vec::new();
    for (what, fault) in [("500", "status:500"), ("silence", "silent")] {
        let heard = heard(world, &stage).await?;
        let began = Instant::now();
        stage.set(&[0, 1, 2, 3].map(|n| (n, Fault::Does(fault)))).await?;
        sleep(LASTS).await;
        let during = load.since(began);
        let tried = self::heard(world, &stage).await? - heard;
        stage.set(&[]).await?;
        let back = Instant::now();
        passes(&load, world.plan.nodes, back).await?;
        let back = back.elapsed();
        lines.extend(judged(what, &during, tried));
        lines.push(Line::times(&format!("all down, {what}: serving again"), &[back], BACK_WITHIN));
        sleep(Duration::from_secs(2)).await;
    }
    let (replies, _) = load.stop().await?;
    world.day.keep(&replies);
    world.day.note(watch.end());
    Ok(lines)
}

/// Attempts that reached any of the channels.
async fn heard(world: &mut World, stage: &Stage) -> Result<usize> {
    let truth = world.provider.truth(Duration::ZERO).await?;
    Ok((0..stage.channels.len()).map(|n| stage.calls(&truth, n).len()).sum())
}

fn judged(what: &str, during: &[Reply], tried: usize) -> Vec<Line> {
    let title = |of: &str| format!("all down, {what}: {of}");
    let bound = Duration::from_millis(DEADLINE_MS) + SLACK;
    let late = during.iter().filter(|reply| reply.took > bound).count();
    let clear = |reply: &Reply| matches!(reply.status, 502..=504) && !reply.code.is_empty();
    let unclear = during.iter().filter(|reply| !clear(reply) && !reply.is_served()).count();
    // Calls that were under way when it began are served, a few.
    let hundredths = tried * 100 / during.len().max(1);
    let found =
        format!("{}.{:02} ({tried} for {})", hundredths / 100, hundredths % 100, during.len());
    vec![
        Line::check(&title("attempts per call, at most 1.1"), hundredths <= 110, &found),
        Line::none_of(&title("calls past their deadline"), late, (during.len(), LEAST)),
        Line::none_of(&title("refusals that say nothing"), unclear, (during.len(), LEAST)),
    ]
}
