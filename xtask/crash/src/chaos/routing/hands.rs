//! `open`, `close` and `reset` by hand: obeyed by every node within a second.
//!
//! Not the hatches' own scenario, which looks at refusals: here a second channel serves, and what
//! is measured is when the first one is called, by the provider's log. Invariant: times run from
//! the admin's reply, which waits for nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use serde_json::json;
use tokio::time::sleep;

use super::stage::{Fault, Stage, lanes};
use super::watch::{Watch, until_open};
use crate::chaos::load::{Load, Reply};
use crate::chaos::table::Line;
use crate::chaos::world::World;
use crate::process::now_us;

/// How often each is pulled.
const ROUNDS: usize = 3;

/// Each acts within this (SPEC 10).
const BOUND: Duration = Duration::from_secs(1);

/// How long is looked whether it does.
const LOOKED: Duration = Duration::from_millis(1_800);

/// Fewer calls prove nothing.
const LEAST: usize = 100;

/// The last lever of a round.
const TRIPPED: &str = "reset of a circuit that tripped";

/// What was pulled, and when its reply was there.
struct Pulled {
    lever: &'static str,
    at_us: i64,
    until_us: i64,
}

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn obeyed(world: &mut World) -> Result<Vec<Line>> {
    // Once it opens by itself it stays so for longer than the scenario lasts.
    let breaker = json!({"open_ms": 120_000, "max_open_ms": 120_000});
    let stage = Stage::make(world, "hands", &breaker).await?;
    let alias = stage.alias("", (&[0, 1], false), &json!({"deadline_ms": 5_000})).await?;
    let watch = Watch::start(world, "hands-");
    let load = world.load(lanes(world, &alias));
    sleep(Duration::from_secs(2)).await;
    let mut pulled = Vec::new();
    for turn in 0..ROUNDS {
        round(world, (&stage, turn), &mut pulled).await?;
    }
    let lines = measured(world, (&stage, load), &pulled).await?;
    world.day.note(watch.end());
    Ok(lines)
}

/// Opened by hand, given back, tripped, closed by hand although it fails, and given back again.
async fn round(
    world: &World,
    (stage, turn): (&Stage, usize),
    pulled: &mut Vec<Pulled>,
) -> Result<()> {
    pulled.push(pull(world, (stage, turn), "open").await?);
    pulled.push(pull(world, (stage, turn + 1), "reset").await?);
    stage.set(&[(0, Fault::Does("status:500"))]).await?;
    until_open(world, "hands-a", (|open| open > 0, Duration::from_secs(20))).await?;
    pulled.push(pull(world, (stage, turn + 2), "close").await?);
    stage.set(&[]).await?;
    // Back to what the breaker found out: open, for two minutes. Then a clean sheet.
    let last = pull(world, (stage, turn), "reset").await?;
    pulled.push(Pulled { lever: TRIPPED, ..last });
    Ok(())
}

async fn pull(
    world: &World,
    (stage, turn): (&Stage, usize),
    lever: &'static str,
) -> Result<Pulled> {
    let path = format!("/circuits/{}/{lever}?wait_ms=0", stage.at(0)?.code);
    world.admin(turn)?.call(Method::POST, &path, &json!({"reason": "chaos"})).await?;
    let at_us = now_us();
    sleep(LOOKED).await;
    Ok(Pulled { lever, at_us, until_us: now_us() })
}

/// Joins what the clients and the provider know.
async fn measured(
    world: &mut World,
    (stage, load): (&Stage, Load),
    pulled: &[Pulled],
) -> Result<Vec<Line>> {
    let (replies, _) = load.stop().await?;
    let truth = world.provider.truth(Duration::from_secs(10)).await?;
    let node_of: BTreeMap<&str, usize> =
        replies.iter().map(|reply| (reply.request_id.as_str(), reply.node)).collect();
    let mut heard: Vec<(usize, i64)> = Vec::new();
    for call in stage.calls(&truth, 0) {
        let id = call.request_id.as_deref().context("an upstream call without a request id")?;
        if let Some(node) = node_of.get(id) {
            heard.push((*node, i64::try_from(call.received_ms)? * 1_000));
        }
    }
    let mut lines = Vec::new();
    for lever in ["open", "reset", "close", TRIPPED] {
        let mut times = Vec::new();
        for one in pulled.iter().filter(|one| one.lever == lever) {
            for node in 0..world.plan.nodes {
                let within = |at: &i64| *at > one.at_us && *at < one.until_us;
                let mut of = heard.iter().filter(|(n, at)| *n == node && within(at)).map(|h| h.1);
                // Opened: the last call. Else: the first.
                let at = if lever == "open" { of.next_back() } else { of.next() };
                times.push(if lever == "open" {
                    late(at, one)
                } else {
                    at.map_or(LOOKED, |at| late(Some(at), one))
                });
            }
        }
        let what =
            if lever == "open" { "the last call of a node" } else { "the first call of each node" };
        lines.push(Line::times(
            &format!("by hand, {lever}: from the reply to {what}"),
            &times,
            BOUND,
        ));
    }
    let failed = |reply: &&Reply| !reply.is_served() || !reply.is_whole;
    let failed = replies.iter().filter(failed).count();
    lines.push(Line::none_of(
        "by hand: calls that fail for their clients",
        failed,
        (replies.len(), LEAST),
    ));
    world.day.keep(&replies);
    Ok(lines)
}

fn late(at: Option<i64>, one: &Pulled) -> Duration {
    at.map(|at| Duration::from_micros(u64::try_from(at - one.at_us).unwrap_or(0)))
        .unwrap_or_default()
}
