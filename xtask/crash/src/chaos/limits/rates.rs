//! A rate under a flood: what passes over any span, and whether refusals tell the time rightly.
//!
//! GCRA as clients and the provider see it, over all nodes in turn. Not its arithmetic, which is
//! property-tested where it lives. Invariant: a call was let pass between its sending and its
//! arrival at the provider, and counts in a span only when both are. Source: `reliability` 2.1.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::clients::{Caller, Crowd, Habit, Told};
use super::rows;
use crate::chaos::load::Lane;
use crate::chaos::table::Line;
use crate::chaos::world::{APP, World};
use crate::operator::Key;

/// Calls per second that the flooded key may make, and how many of them at once.
const LIMIT: i64 = 40;
const BURST: i64 = 60;

/// The flood, and how long it lasts.
const FLOOD: Habit = Habit { per_node: 8, per_second: 300, patience: Duration::from_mins(1) };
const LASTS: Duration = Duration::from_secs(10);

/// Refusals that are held against one that came shortly before the same instant.
const ROUNDS: usize = 30;

/// They may differ by less than this.
const EXACT: Duration = Duration::from_millis(10);

/// So long before the instant that one refusal told, another is asked for.
const BEFORE: Duration = Duration::from_millis(120);

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn keep_time(world: &mut World) -> Result<Vec<Line>> {
    rows::patient(world).await?;
    let mut lines = flooded(world).await?;
    lines.extend(told_exactly(world).await?);
    Ok(lines)
}

async fn limited(world: &World, code: &str, (limit, burst): (i64, i64)) -> Result<Key> {
    let limits = json!([{"kind": "requests", "window": "1s", "limit": limit, "burst": burst}]);
    rows::quota(world, code, &limits).await?;
    rows::key(world, APP, &json!({"name": code, "quota": code})).await
}

async fn flooded(world: &mut World) -> Result<Vec<Line>> {
    let key = limited(world, "rates-flood", (LIMIT, BURST)).await?;
    let crowd = Crowd::start(&world.nodes(), &[rows::lane("chat", &key)], FLOOD);
    sleep(LASTS).await;
    let told = crowd.stop().await;
    world.kept.keep(&told);
    let is_odd = |told: &&Told| told.status != 200 && !told.is_refused("requests_limited");
    let odd = told.iter().filter(is_odd).count();
    let truth = world.provider.truth(Duration::from_secs(30)).await?;
    let heard: BTreeMap<&str, i64> = truth
        .iter()
        .filter_map(|call| Some((call.request_id.as_deref()?, after_us(call.received_ms))))
        .collect();
    let passed: Vec<(i64, i64)> = told
        .iter()
        .filter(|told| told.status == 200)
        .filter_map(|told| Some((told.sent_us, *heard.get(told.request_id.as_str())?)))
        .collect();
    let over = most_over(&passed);
    let refused: Vec<(i64, i64)> = told
        .iter()
        .filter(|told| told.status == 429)
        .map(|told| (told.sent_us, told.ended_us()))
        .collect();
    let early = refused.iter().filter(|one| !is_due(**one, &passed)).count();
    let passed = passed.len();
    Ok(vec![
        Line::none_of(
            "rates: answers of a flood that are neither 200 nor `requests_limited`",
            odd,
            (told.len(), 500),
        ),
        Line::check(
            &format!("rates, {LIMIT} a second and {BURST} at once: no span has more"),
            over <= 0,
            &format!("{passed} passed; the fullest span has {over} more than its bound"),
        ),
        Line::none_of(
            "rates: refusals when another call might have passed",
            early,
            (refused.len(), 500),
        ),
    ])
}

/// The provider's milliseconds are rounded down: the call had come when the next one began.
fn after_us(received_ms: u64) -> i64 {
    i64::try_from(received_ms).unwrap_or(i64::MAX / 2_000).saturating_add(1) * 1_000
}

/// By how many calls the fullest span is above (or, negative, below) burst + limit × span. Of each
/// call is known from when until when it was let pass: only those count that must have been within.
fn most_over(passed: &[(i64, i64)]) -> i64 {
    let mut most = -BURST;
    for (begin_us, _) in passed {
        let within = passed.iter().filter(|(from_us, _)| from_us >= begin_us);
        let mut ends: Vec<i64> = within.map(|(_, until_us)| *until_us).collect();
        ends.sort_unstable();
        for (count, end_us) in (1_i64..).zip(ends) {
            let allowed = BURST + LIMIT * (end_us - begin_us) / 1_000_000;
            most = most.max(count - allowed);
        }
    }
    most
}

/// Whether a call that was refused between two instants would have been one too many at any of
/// them: from one that passed on there were as many as may be.
fn is_due((sent_us, ended_us): (i64, i64), passed: &[(i64, i64)]) -> bool {
    passed.iter().filter(|(from_us, _)| from_us <= &ended_us).any(|(first_us, heard_us)| {
        let since = |call: &&(i64, i64)| call.0 <= ended_us && call.1 >= *first_us;
        let count = i64::try_from(passed.iter().filter(since).count()).unwrap_or(i64::MAX);
        let span_us = (sent_us - heard_us).max(0);
        count >= BURST + LIMIT * span_us / 1_000_000
    })
}

/// Two refusals that come before the same instant must tell the same instant, whichever nodes they
/// come from, and who comes then is served.
async fn told_exactly(world: &World) -> Result<Vec<Line>> {
    let key = limited(world, "rates-told", (2, 1)).await?;
    let mut asker = Asker { world, lane: rows::lane("chat", &key), turn: 0 };
    let (mut apart, mut refused) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let (first, _) = asker.instant().await?;
        sleep_until(first - BEFORE).await;
        let (second, heard) = asker.instant().await?;
        apart.push(first.max(second) - first.min(second));
        sleep_until(heard).await;
        let told = asker.call().await?;
        if told.status != 200 {
            eprintln!("anima-chaos: rates: came when it was told to: {told:?}");
            refused += 1;
        }
    }
    Ok(vec![
        Line::times(
            "rates: two `retry-after-ms` for one instant, by how much apart",
            &apart,
            EXACT,
        ),
        Line::none_of(
            "rates: clients that came back as told and were refused again",
            refused,
            (ROUNDS, ROUNDS),
        ),
    ])
}

/// One client, which asks another node each time.
struct Asker<'a> {
    world: &'a World,
    lane: Lane,
    turn: usize,
}

impl Asker<'_> {
    async fn call(&mut self) -> Result<Told> {
        self.turn += 1;
        let node = self.world.fleet.address(self.turn % self.world.plan.nodes)?;
        Ok(Caller::new(node, Duration::from_mins(1)).call(0, &self.lane).await)
    }

    /// When the next refusal says that the next call will be served: counted from about when it
    /// was decided, and from when it was heard.
    async fn instant(&mut self) -> Result<(Instant, Instant)> {
        for _ in 0..20 {
            let told = self.call().await?;
            if told.is_refused("requests_limited") {
                let (_, ms) = told.retry.context("a refusal without `retry-after-ms`")?;
                let wait = Duration::from_millis(ms);
                return Ok((told.sent + told.took / 2 + wait, told.ended() + wait));
            }
        }
        bail!("nothing is refused")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_span_is_found_wherever_it_lies() {
        let steady = (0..400).map(|n| n * 1_000_000 / LIMIT).map(|us| (us, us));
        let steady: Vec<(i64, i64)> = steady.collect();
        assert_eq!(most_over(&steady), 1 - BURST);
        assert!(!is_due((9_900_000, 9_900_100), &steady), "the burst was never used");
        let mut bursts = steady;
        bursts.extend((0..BURST).map(|_| (5_000_000, 5_000_000)));
        assert_eq!(most_over(&bursts), 1);
        assert_eq!(most_over(&[]), -BURST);
        assert!(is_due((5_000_000, 5_000_100), &bursts));
    }
}
