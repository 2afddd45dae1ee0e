//! A thousand calls wait in one line over all nodes: who is served when, and who leaves.
//!
//! One slot for a whole app, held by a call at the gate while the line forms: one key lets nearly
//! all of them wait, two quiet keys come last with ten each. The order of service is that in which
//! the provider got the calls. Invariant: a bound on an order is one on times between sendings,
//! since two calls that are sent together on two nodes may arrive in either order. Source: SPEC 6,
//! `reliability` 2.4.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::clients::{Caller, Told};
use super::rows::{self, Charged};
use super::slots;
use crate::chaos::load::Lane;
use crate::chaos::table::Line;
use crate::chaos::world::World;
use crate::operator::Key;

/// The app whose calls share one slot.
pub(super) const APP: &str = "line";

/// Calls of each of the two quiet keys.
const QUIET: usize = 10;

/// By start-time fairness the last of the quiet calls is served 30th; what had begun comes before.
const LAST_BY: usize = 36;

/// Calls that were sent so long after another must not be served before it.
const OUT_OF_ORDER: Duration = Duration::from_millis(50);

/// Clients that hang up.
const LEAVERS: usize = 20;

/// Between two sendings.
const PACE: Duration = Duration::from_millis(4);

/// Longer than the whole line takes.
const PATIENCE: Duration = Duration::from_mins(15);

/// One call on its way.
type Sent = JoinHandle<Told>;

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn stand_in_line(world: &mut World) -> Result<Vec<Line>> {
    rows::patient(world).await?;
    rows::quota(world, "line", &json!([{"kind": "concurrency", "limit": 1}])).await?;
    rows::app(world, APP, Some("line")).await?;
    rows::alias(world, "line", ("+latency:2", Charged::Tokens)).await?;
    slots::make(world).await?;
    let (flood, holder) = (key(world).await?, key(world).await?);
    let quiet = [key(world).await?, key(world).await?];
    let held = hold(world, &holder).await?;
    let floods = world.plan.waiters.saturating_sub(QUIET * 2).max(QUIET);
    let mut sent = Vec::new();
    for n in 0..floods {
        sent.push(one(world, n, &rows::lane("line", &flood))?);
        sleep(PACE).await;
    }
    waiting(world, floods).await?;
    for n in 0..QUIET * 2 {
        let of = quiet.get(n % 2).context("two keys")?;
        sent.push(one(world, n, &rows::lane("line", of))?);
        sleep(PACE).await;
    }
    let all = floods + QUIET * 2;
    waiting(world, all).await?;
    let left = leave(world, (&flood, all)).await?;
    let mut told = Vec::new();
    let opened = Instant::now();
    slots::open(world).await?;
    for call in sent {
        told.push(call.await?);
    }
    let took = opened.elapsed();
    world.kept.keep(&[held.await?]);
    world.kept.keep(&told);
    let mut lines = judged(world, (&told, floods)).await?;
    lines.push(Line::times(
        "waiters: from hanging up to being out of the line",
        &left,
        Duration::from_secs(1),
    ));
    let rate = told.len() as u128 * 1_000 / took.as_millis().max(1);
    let what = "waiters: calls per second through one slot";
    lines.push(Line::check(what, true, &rate.to_string()));
    Ok(lines)
}

async fn key(world: &World) -> Result<Key> {
    let row = json!({"name": "line", "queue_mode": "WAIT", "max_queue": 20_000,
        "wait_timeout_ms": 900_000});
    rows::key(world, APP, &row).await
}

/// A call that has the slot until the gate is opened.
async fn hold(world: &mut World, key: &Key) -> Result<Sent> {
    let heard = gated(world).await?;
    let held = one(world, 0, &rows::lane(slots::GATED, key))?;
    let until = Instant::now() + Duration::from_secs(20);
    while gated(world).await? == heard {
        ensure!(Instant::now() < until, "the call that holds the slot does not begin");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(held)
}

async fn gated(world: &mut World) -> Result<usize> {
    let truth = world.provider.truth(Duration::ZERO).await?;
    let model = rows::model_of(slots::GATED);
    let of = truth.iter().filter(|call| call.model.split('+').next() == Some(model.as_str()));
    Ok(of.count())
}

/// Sends one call to the next node in turn.
fn one(world: &World, n: usize, what: &Lane) -> Result<Sent> {
    let address = world.fleet.address(n % world.plan.nodes)?;
    let what = what.clone();
    Ok(tokio::spawn(async move { Caller::new(address, PATIENCE).call(0, &what).await }))
}

/// Waits until so many calls wait on all nodes together.
async fn waiting(world: &World, count: usize) -> Result<()> {
    let until = Instant::now() + Duration::from_mins(2);
    loop {
        let mut sum = 0;
        for n in 0..world.plan.nodes {
            sum += on_node(world, n).await?;
        }
        if sum == count {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{sum} calls wait, not {count}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Calls that wait on one node, as it says itself.
async fn on_node(world: &World, n: usize) -> Result<usize> {
    let (_, page) = world.page(n, "/actuator/prometheus").await?;
    let line = page.lines().find_map(|line| line.strip_prefix("anima_queue_length "));
    Ok(line.context("no anima_queue_length")?.trim().parse()?)
}

/// Calls that wait for the app's slot as the line itself says, which the call leaves last.
async fn in_line(world: &World, n: usize) -> Result<usize> {
    let (status, text) = world.page(n, "/api/admin/v1/queues").await?;
    ensure!(status == 200, "GET /queues: {status} {text}");
    let shown: Value = serde_json::from_str(&text)?;
    let items = shown.get("items").and_then(Value::as_array).context("no items")?;
    let own = items.iter().filter(|item| item.get("code").and_then(Value::as_str) == Some(APP));
    let calls = own.filter_map(|item| item.get("waiting").and_then(Value::as_u64)).sum::<u64>();
    Ok(usize::try_from(calls)?)
}

/// Clients join and hang up, one after the other. How long each was still in line.
async fn leave(world: &World, (key, all): (&Key, usize)) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for n in 0..LEAVERS {
        let node = n % world.plan.nodes;
        let call = one(world, n, &rows::lane("line", key))?;
        waiting(world, all + 1).await?;
        while in_line(world, node).await? != all + 1 {
            sleep(Duration::from_millis(5)).await;
        }
        call.abort();
        let left = Instant::now();
        while in_line(world, node).await? != all {
            ensure!(left.elapsed() < Duration::from_secs(30), "a client that left stays in line");
            sleep(Duration::from_millis(5)).await;
        }
        times.push(left.elapsed());
    }
    Ok(times)
}

async fn judged(world: &mut World, (told, floods): (&[Told], usize)) -> Result<Vec<Line>> {
    let truth = world.provider.truth(Duration::from_secs(30)).await?;
    let heard: BTreeMap<&str, (u64, i64)> = truth
        .iter()
        .filter_map(|call| {
            let at_us = i64::try_from(call.received_ms).ok()? * 1_000;
            Some((call.request_id.as_deref()?, (call.number, at_us)))
        })
        .collect();
    // In the order of service: the provider's number, its time, which call it was.
    let mut served: Vec<(u64, i64, usize)> = told
        .iter()
        .enumerate()
        .filter(|(_, told)| told.status == 200)
        .filter_map(|(n, told)| heard.get(told.request_id.as_str()).map(|(at, us)| (*at, *us, n)))
        .collect();
    served.sort_unstable();
    let is_quiet = |n: usize| n >= floods;
    let last = served.iter().rposition(|(_, _, n)| is_quiet(*n)).map_or(0, |at| at + 1);
    let mut lines = vec![
        Line::none_of(
            "waiters: calls that were not served",
            told.len() - served.len(),
            (told.len(), told.len()),
        ),
        Line::check(
            &format!(
                "waiters, {floods} of one key before 2 × {QUIET} of others: the last of these \
                      is served as one of the first {LAST_BY}"
            ),
            (QUIET * 2..=LAST_BY).contains(&last),
            &format!("as number {last}"),
        ),
    ];
    let flood: Vec<&Told> =
        served.iter().filter(|s| !is_quiet(s.2)).filter_map(|s| told.get(s.2)).collect();
    lines.push(Line::times(
        "waiters, one key: sent later than one that was served after it",
        &overtaken(&flood),
        OUT_OF_ORDER,
    ));
    lines.push(Line::p99(
        "waiters: from the end of a call at its client to the next call at the provider",
        &handed_on(told, &served),
        Duration::from_millis(50),
    ));
    Ok(lines)
}

/// By how much each was sent before one that was served before it; 0 for those in order.
fn overtaken(served: &[&Told]) -> Vec<Duration> {
    let (mut latest_us, mut by) = (0, Vec::new());
    for told in served {
        latest_us = latest_us.max(told.sent_us);
        by.push(Duration::from_micros(u64::try_from(latest_us - told.sent_us).unwrap_or(0)));
    }
    by
}

/// From the end of each call to the beginning of the next.
fn handed_on(told: &[Told], served: &[(u64, i64, usize)]) -> Vec<Duration> {
    let pairs = served.iter().zip(served.iter().skip(1));
    let gap = |(one, next): (&(u64, i64, usize), &(u64, i64, usize))| {
        let ended_us = told.get(one.2)?.ended_us();
        Some(Duration::from_micros(u64::try_from(next.1 - ended_us).unwrap_or(0)))
    };
    pairs.filter_map(gap).collect()
}
