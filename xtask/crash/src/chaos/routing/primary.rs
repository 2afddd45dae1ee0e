//! The first choice fails every call, and the second is well.
//!
//! What clients feel of it, how many probes reach the channel that fails, and how long it is left
//! alone each time. Invariant: probes are counted in the provider's log, over all nodes; open times
//! are read from the nodes. Source: `reliability` 3.2.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::stage::{Fault, Stage, lanes, upstream};
use super::watch::{Opening, Watch, until_open};
use crate::chaos::load::Reply;
use crate::chaos::table::{Line, percentile};
use crate::chaos::world::World;
use crate::process::now_us;

/// How long a circuit may take to close after its open time.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// The first open time: with its jitter longer than an opening takes to be known on every node, and
/// that once more, so that no node probes before it has read of the last that opened.
const OPEN_MS: i64 = 4_000;

/// Open times that are watched to their end: 4, 8 and 16 seconds.
const TIMES: usize = 3;

/// Permits of a circuit that is half open.
const PERMITS: usize = 3;

/// An opening is known on every node by then (SPEC 7; nodes read each second).
const KNOWN_WITHIN_US: i64 = 1_200_000;

/// What a fault may add to the 99th percentile once the circuit is open, beside calls at the same
/// time whose first choice is well: so both feel what else the machine does.
const ADDED: Duration = Duration::from_millis(50);

/// Fewer calls prove nothing.
const LEAST: usize = 100;

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn fails(world: &mut World) -> Result<Vec<Line>> {
    let breaker = json!({"open_ms": OPEN_MS, "max_open_ms": 60_000, "half_open_permits": PERMITS});
    let stage = Stage::make(world, "first", &breaker).await?;
    let retry = json!({"deadline_ms": 5_000});
    let alias = stage.alias("", (&[0, 1], false), &retry).await?;
    let beside = stage.alias("-well", (&[2, 3], false), &retry).await?;
    let watch = Watch::start(world, "first-");
    let load = world.load([lanes(world, &alias), lanes(world, &beside)].concat());
    // The first calls of an alias open connections.
    sleep(Duration::from_secs(2)).await;
    let (failing, failing_us) = (Instant::now(), now_us());
    stage.set(&[(0, Fault::Does("status:500+latency:40"))]).await?;
    let first = stage.at(0)?;
    let place = (first.code.clone(), Some(upstream(&first.model)));
    let periods = periods(&watch, &place).await?;
    let (during, over_us) = (load.since(failing), now_us());
    stage.set(&[]).await?;
    let last = periods.last().map_or(0, |opening| opening.until_us);
    let left = Duration::from_micros(u64::try_from(last - over_us).unwrap_or(0));
    let closing = until_open(world, "first-", (|open| open == 0, left + CLOSES_WITHIN)).await?;
    let (replies, _) = load.stop().await?;
    let truth = world.provider.truth(Duration::from_secs(10)).await?;
    let heard = stage.calls(&truth, 0);
    let heard: Vec<i64> =
        heard.iter().map(|c| i64::try_from(c.received_ms).unwrap_or(0) * 1_000).collect();
    let mut lines = felt(&during, (&replies, failing_us + KNOWN_WITHIN_US));
    lines.extend(probes(&heard, &periods));
    lines.push(doubles(&periods));
    lines.push(Line::times(
        "first choice well again: from the end of its open time to closed on every node",
        &[closing.saturating_sub(left)],
        Duration::from_secs(5),
    ));
    world.day.keep(&replies);
    world.day.note(watch.end());
    Ok(lines)
}

/// Waits until the last of the open times has begun, and gives all of them.
async fn periods(watch: &Watch, place: &super::Place) -> Result<Vec<Opening>> {
    let began = Instant::now();
    loop {
        let seen = watch.of(place);
        let found = merged(&seen);
        if found.len() > TIMES {
            return Ok(found);
        }
        if began.elapsed() > Duration::from_secs(90) {
            bail!("no failed probes are seen: {seen:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Openings as periods: what several nodes found out at the same time is one.
fn merged(seen: &[Opening]) -> Vec<Opening> {
    let mut periods: Vec<Opening> = Vec::new();
    for opening in seen {
        match periods.last_mut().filter(|last| opening.since_us < last.until_us) {
            Some(last) => last.until_us = last.until_us.max(opening.until_us),
            None => periods.push(opening.clone()),
        }
    }
    periods
}

/// What clients felt. The first two lanes are those whose first choice fails.
fn felt(during: &[Reply], (all, known_us): (&[Reply], i64)) -> Vec<Line> {
    let failed = all.iter().filter(|reply| !reply.is_served() || !reply.is_whole).count();
    let took = |of: fn(&Reply) -> bool| {
        let open = during.iter().filter(|reply| reply.sent_us > known_us && of(reply));
        open.map(|reply| reply.took).collect::<Vec<_>>()
    };
    let (hit, well) = (took(|reply| reply.lane < 2), took(|reply| reply.lane >= 2));
    let (slow, usual) = (percentile(&hit, 99), percentile(&well, 99));
    let added = slow.saturating_sub(usual);
    let found = format!(
        "{} ms: {} ms of {} calls, and {} ms of {} beside them without a fault",
        added.as_millis(),
        slow.as_millis(),
        hit.len(),
        usual.as_millis(),
        well.len()
    );
    let holds = hit.len() >= LEAST && well.len() >= LEAST && added < ADDED;
    let what = "first choice fails: calls that fail for their clients";
    let p99 = "first choice fails: added p99 once it is open, under 50 ms";
    vec![Line::none_of(what, failed, (all.len(), LEAST)), Line::check(p99, holds, &found)]
}

/// How many calls reached the channel in each period, and while nobody may call it.
fn probes(heard: &[i64], periods: &[Opening]) -> Vec<Line> {
    let between = |from: i64, to: i64| heard.iter().filter(|at| **at >= from && **at < to).count();
    // The log has milliseconds.
    let mut counts = Vec::new();
    let mut early = 0;
    for (n, (opening, next)) in periods.iter().zip(periods.iter().skip(1)).enumerate() {
        counts.push(between(opening.until_us - 1_000, next.until_us - 1_000));
        let known = if n == 0 { KNOWN_WITHIN_US } else { 200_000 };
        early += between(opening.since_us + known, opening.until_us - 1_000);
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    let found = format!("{counts:?}");
    vec![
        Line::check(
            "first choice fails: probes in each open period over three nodes, at most 3",
            counts.len() >= TIMES && most <= PERMITS,
            &found,
        ),
        Line::check(
            "first choice fails: calls that reach it while it is open and every node knows",
            early == 0,
            &early.to_string(),
        ),
    ]
}

/// Whether each failed probe doubled the wait, give or take the jitter of a fifth. The first is as
/// long as that of the node that found out last.
fn doubles(periods: &[Opening]) -> Line {
    let waits: Vec<i64> = periods.iter().map(|p| (p.until_us - p.since_us) / 1_000).collect();
    let fits = |(n, wait): (usize, &i64)| {
        let plain = OPEN_MS << n;
        let late = if n == 0 { KNOWN_WITHIN_US / 1_000 } else { 0 };
        (plain * 79 / 100..=plain * 121 / 100 + late).contains(wait)
    };
    let holds = waits.len() > TIMES && waits.iter().enumerate().all(fits);
    let what = "first choice fails: each failed probe doubles the wait, ± 20 %, ms";
    Line::check(what, holds, &format!("{waits:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(since_ms: i64, until_ms: i64) -> Opening {
        Opening {
            since_us: since_ms * 1_000,
            until_us: until_ms * 1_000,
            cause: "probe_failed".to_owned(),
            nodes: vec![0],
        }
    }

    #[test]
    fn a_fourth_probe_and_a_wait_that_does_not_double_are_found() {
        let mut periods = vec![opening(0, 5_000), opening(5_100, 13_200), opening(13_300, 29_000)];
        periods.push(opening(29_100, 61_000));
        assert!(doubles(&periods).holds);
        let mut heard = vec![5_050_000, 5_060_000, 5_070_000, 13_250_000, 29_050_000];
        assert!(probes(&heard, &periods).iter().all(|line| line.holds));
        heard.push(5_080_000);
        assert!(!probes(&heard, &periods)[0].holds);
        heard.push(10_000_000);
        assert!(!probes(&heard, &periods)[1].holds);
        periods[2].until_us = 21_000_000;
        assert!(!doubles(&periods).holds);
    }

    #[test]
    fn what_several_nodes_find_out_at_once_is_one_period() {
        let seen = [opening(0, 2_000), opening(2_100, 6_100), opening(2_130, 6_500)];
        let periods = merged(&seen);
        assert_eq!((periods.len(), periods[1].until_us), (2, 6_500_000));
    }
}
