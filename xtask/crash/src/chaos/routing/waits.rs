//! What a provider asks for is kept: 30 seconds, and a later word of 5 does not shorten them.
//!
//! With 429, which rests the credential, and with 503. Four calls are under way on three nodes when
//! the first answer says 30 s; the others then say 5 s. Invariant: what reaches the channel is
//! counted in the provider's log.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::stage::{Stage, lanes};
use super::watch::Watch;
use crate::chaos::load::call;
use crate::chaos::table::Line;
use crate::chaos::world::{World, chat};

/// What is asked for.
const ASKED_MS: i64 = 30_000;

/// Another node may not know of it before.
const KNOWN_MS: i64 = 1_300;

/// Fewer calls prove nothing.
const LEAST: usize = 100;

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn are_kept(world: &mut World) -> Result<Vec<Line>> {
    // Its circuit never opens by itself: here it is about what was asked for.
    let breaker = json!({"consecutive_failures": 0, "minimum_calls": 100_000});
    let stage = Stage::make(world, "waits", &breaker).await?;
    let retry = json!({"deadline_ms": 5_000});
    let aliases = [
        stage.alias("-429", (&[0, 2], false), &retry).await?,
        stage.alias("-503", (&[1, 3], false), &retry).await?,
    ];
    let mut rules = Vec::new();
    for (n, status) in [(0, 429), (1, 503)] {
        let of = format!("{}*", stage.at(n)?.model);
        let long = format!("status:{status}:retry-after=30");
        let short = format!("status:{status}:retry-after=5+latency:400");
        rules.push(json!({"match": {"model": of, "times": 1}, "do": long}));
        rules.push(json!({"match": {"model": of, "times": 3}, "do": short}));
    }
    stage.script(&rules).await?;
    let watch = Watch::start(world, "waits-");
    let mut volley = JoinSet::new();
    for alias in &aliases {
        for n in 0..4 {
            let node = n % world.plan.nodes;
            let address = world.fleet.address(node)?;
            volley.spawn(call((0, chat(alias, &world.key)), (node, address)));
        }
    }
    let mut replies = volley.join_all().await;
    let load = world.load(aliases.iter().flat_map(|alias| lanes(world, alias)).collect());
    sleep(Duration::from_millis(u64::try_from(ASKED_MS)? + 4_000)).await;
    replies.extend(load.stop().await?.0);
    let truth = world.provider.truth(Duration::from_secs(10)).await?;
    let mut lines = Vec::new();
    for (n, status) in [(0, 429), (1, 503)] {
        let heard = stage.calls(&truth, n);
        let at: Vec<i64> =
            heard.iter().map(|c| i64::try_from(c.received_ms).unwrap_or(0)).collect();
        let first = at.first().copied().context("nothing reached the channel")?;
        let short = heard.iter().filter(|c| c.rule == Some(2 * n + 1)).count();
        let asked = first + ASKED_MS;
        let early = at.iter().filter(|t| **t > first + KNOWN_MS && **t < asked).count();
        let after = at.iter().filter(|t| **t >= asked).count();
        let what = format!("{status} with Retry-After 30 s, then {short} times with 5 s");
        let found = format!("{early} before 30 s were over, {after} after");
        let holds = early == 0 && after > 0 && short > 0;
        lines.push(Line::check(&format!("{what}: calls that reach the channel"), holds, &found));
    }
    let failed = replies.iter().filter(|reply| !reply.is_served() || !reply.is_whole).count();
    lines.push(Line::none_of(
        "Retry-After: calls that fail for their clients",
        failed,
        (replies.len(), LEAST),
    ));
    world.day.keep(&replies);
    world.day.note(watch.end());
    Ok(lines)
}
