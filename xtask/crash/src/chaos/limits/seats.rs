//! A node that dies with slots and waiters: its slots return within their lease.
//!
//! Every slot of a key is held by calls at the gate, two on each node; more calls wait on every
//! node, those of the node that is to die first. Invariant: how many slots are taken is asked of
//! the nodes that live, all the time, and is never below none or above the limit.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::clients::{Caller, Told};
use super::rows::{self, Charged};
use super::slots;
use crate::chaos::table::Line;
use crate::chaos::world::{APP, World, path_of};
use crate::operator::Key;

/// Slots on each node.
const EACH: usize = 2;

/// Calls that wait on each node.
const WAITERS: usize = 3;

/// A lease lasts 30 s; a node that lives looks at the line every 250 ms.
const RETURNED_WITHIN: Duration = Duration::from_secs(32);

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_mins(3);

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn of_a_node_that_dies(world: &mut World) -> Result<Vec<Line>> {
    rows::patient(world).await?;
    let limit = world.plan.nodes * EACH;
    rows::quota(world, "seats", &json!([{"kind": "concurrency", "limit": limit}])).await?;
    rows::alias(world, "seats", ("+latency:5", Charged::Tokens)).await?;
    slots::make(world).await?;
    let row = json!({"name": "seats", "quota": "seats", "queue_mode": "WAIT",
        "wait_timeout_ms": 120_000});
    let key = rows::key(world, APP, &row).await?;
    let dies = world.plan.nodes - 1;
    let mut held = Vec::new();
    for n in 0..limit {
        held.push(send(world, (n, slots::GATED), &key)?);
    }
    let mut counts = vec![];
    until_used(world, &key, limit).await?;
    // Those of the node that dies are the first in line.
    let dead: Vec<_> =
        (0..WAITERS).map(|_| send(world, (dies, "seats"), &key)).collect::<Result<_>>()?;
    sleep(Duration::from_secs(1)).await;
    let mut live = Vec::new();
    for n in 0..dies * WAITERS {
        live.push(send(world, (n % dies.max(1), "seats"), &key)?);
    }
    sleep(Duration::from_secs(1)).await;
    world.fleet.kill(dies)?;
    let killed = Instant::now();
    while live.iter().any(|call| !call.is_finished()) && killed.elapsed() < PATIENCE {
        counts.push(rows::used(world, (0, &key)).await?);
        sleep(Duration::from_millis(50)).await;
    }
    let mut told = Vec::new();
    for call in live {
        told.push(call.await?);
    }
    world.fleet.launch(dies)?;
    world.fleet.ready(dies).await?;
    for call in held.into_iter().chain(dead) {
        slots::open(world).await?;
        told.push(timeout(PATIENCE, call).await.context("a call does not end")??);
    }
    world.kept.keep(&told);
    let mut lines = judged((&told, dies * WAITERS), killed, (&counts, limit));
    lines.push(again(world, &key, limit).await?);
    Ok(lines)
}

fn send(
    world: &World,
    (n, alias): (usize, &str),
    key: &Key,
) -> Result<tokio::task::JoinHandle<Told>> {
    let address = world.fleet.address(n % world.plan.nodes)?;
    let what = rows::lane(alias, key);
    Ok(tokio::spawn(async move { Caller::new(address, PATIENCE).call(0, &what).await }))
}

async fn until_used(world: &World, key: &Key, count: usize) -> Result<()> {
    let count = i64::try_from(count)?;
    let until = Instant::now() + Duration::from_secs(20);
    while rows::used(world, (0, key)).await? != count {
        ensure!(Instant::now() < until, "not all slots are taken");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn judged(
    (told, live): (&[Told], usize),
    killed: Instant,
    (counts, limit): (&[i64], usize),
) -> Vec<Line> {
    let of = told.get(..live).unwrap_or_default();
    let served: Vec<Duration> = of
        .iter()
        .filter(|told| told.status == 200)
        .map(|told| told.ended().saturating_duration_since(killed))
        .collect();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let wrong = counts.iter().filter(|count| !(0..=limit).contains(*count)).count();
    let least = counts.iter().min().copied().unwrap_or_default();
    let most = counts.iter().max().copied().unwrap_or_default();
    vec![
        Line::none_of(
            "a node dies: those who wait on others and are not served",
            of.len() - served.len(),
            (of.len(), 1),
        ),
        Line::times(
            "a node dies: from `kill -9` to the calls that got its slots",
            &served,
            RETURNED_WITHIN,
        ),
        Line::check(
            &format!("a node dies: slots taken stay between 0 and {limit}"),
            wrong == 0 && !counts.is_empty(),
            &format!("{least} to {most}, looked {} times", counts.len()),
        ),
    ]
}

/// Whether exactly all slots can be had again.
async fn again(world: &mut World, key: &Key, limit: usize) -> Result<Line> {
    rows::turn(world, (0, &path_of(key)), "REJECT").await?;
    sleep(Duration::from_secs(2)).await;
    let lane = rows::lane(slots::GATED, key);
    let told = slots::fill(world, &lane, (limit * 4, limit * 4, limit)).await?;
    world.kept.keep(&told);
    let passed = told.iter().filter(|told| told.status == 200).count();
    Ok(Line::check(
        &format!("a node dies: afterwards exactly {limit} slots can be had"),
        passed == limit,
        &format!("{passed} passed"),
    ))
}
