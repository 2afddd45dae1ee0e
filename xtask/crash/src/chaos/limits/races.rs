//! Races: thousands of parallel calls on a limit that is worth exactly a hundred.
//!
//! A budget, whose calls cost a cent each; a number of requests, of which none comes back while a
//! round lasts; and slots, which are held until every other call was refused. Every round has a key
//! of its own. Invariant: what passed is counted by the clients, in the books and at the provider,
//! and all three must be a hundred for each round.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::clients::{Rush, Told};
use super::rows::{self, Charged};
use super::slots;
use crate::books::Books;
use crate::chaos::table::Line;
use crate::chaos::world::World;
use crate::operator::Key;

/// What every limit is worth.
const WORTH: usize = 100;

/// A cent, in nano-dollars.
const CENT: i64 = 10_000_000;

/// Clients of the whole fleet.
const AT_ONCE: usize = 256;

/// The app that pays for races.
const APP: &str = "racer";

/// One kind of limit.
struct Kind {
    name: &'static str,
    limit: Value,
    alias: &'static str,
    /// What the others are told.
    reason: &'static str,
}

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn pass_exactly(world: &mut World) -> Result<Vec<Line>> {
    rows::patient(world).await?;
    rows::app(world, APP, None).await?;
    rows::alias(world, "race", ("", Charged::Cents)).await?;
    rows::alias(world, "race-held", ("+gate", Charged::Cents)).await?;
    let kinds = [
        Kind {
            name: "a budget",
            limit: json!({"kind": "cost", "window": "total", "limit": "1.00"}),
            alias: "race",
            reason: "budget_exceeded",
        },
        Kind {
            name: "requests",
            limit: json!({"kind": "requests", "window": "1d", "limit": WORTH}),
            alias: "race",
            reason: "requests_limited",
        },
        Kind {
            name: "slots",
            limit: json!({"kind": "concurrency", "limit": WORTH}),
            alias: "race-held",
            reason: "concurrency_limited",
        },
    ];
    let mut lines = Vec::new();
    // The first is the one that money depends on; all of them run through the same script.
    let rounds =
        [world.plan.rounds, world.plan.rounds.div_ceil(10), world.plan.rounds.div_ceil(10)];
    for (kind, rounds) in kinds.iter().zip(rounds) {
        lines.extend(race(world, (kind, rounds)).await?);
    }
    Ok(lines)
}

async fn race(world: &mut World, (kind, rounds): (&Kind, usize)) -> Result<Vec<Line>> {
    let quota = format!("race-{}", kind.reason);
    rows::quota(world, &quota, &json!([kind.limit])).await?;
    let (mut keys, mut wrong, mut odd, mut times) = (Vec::new(), 0, 0, Vec::new());
    for _ in 0..rounds {
        let key = rows::key(world, APP, &json!({"name": "race", "quota": quota})).await?;
        world.kept.judged_apart(&key);
        let began = Instant::now();
        let told = round(world, kind, &key).await?;
        times.push(began.elapsed());
        let passed = told.iter().filter(|told| told.status == 200).count();
        if passed != WORTH {
            eprintln!("anima-chaos: {} calls passed on {}", passed, kind.name);
        }
        wrong += usize::from(passed != WORTH);
        let is_odd = |told: &&Told| told.status != 200 && !told.is_refused(kind.reason);
        let of_round: Vec<&Told> = told.iter().filter(is_odd).collect();
        if let Some(first) = of_round.first() {
            eprintln!("anima-chaos: {} odd answers, the first is {first:?}", of_round.len());
        }
        odd += of_round.len();
        keys.push(key);
    }
    let calls = world.plan.race_calls;
    let title = format!("races, {calls} calls on {} for {WORTH}", kind.name);
    let booked = booked(world, (&keys, kind.alias)).await?;
    let total: Duration = times.iter().sum();
    let rate = u128::try_from(calls * rounds)? * 1_000 / total.as_millis().max(1);
    Ok(vec![
        Line::none_of(
            &format!("{title}: rounds in which not exactly {WORTH} pass"),
            wrong,
            (rounds, rounds),
        ),
        Line::none_of(&format!("{title}: keys with other books"), booked, (rounds, 1)),
        Line::none_of(
            &format!("{title}: answers that are neither 200 nor `{}`", kind.reason),
            odd,
            (calls * rounds, calls),
        ),
        Line::check(
            &format!("{title}: calls per second, of clients and nodes"),
            true,
            &rate.to_string(),
        ),
    ])
}

async fn round(world: &World, kind: &Kind, key: &Key) -> Result<Vec<Told>> {
    let (lane, calls) = (rows::lane(kind.alias, key), world.plan.race_calls);
    if kind.alias == "race" {
        return Ok(Rush::start(&world.nodes(), &lane, (calls, AT_ONCE)).over().await);
    }
    slots::fill(world, &lane, (calls, AT_ONCE, WORTH)).await
}

/// Keys that did not pay for exactly a hundred calls, or whose calls the provider got more often or
/// less often than that.
async fn booked(world: &mut World, (keys, alias): (&[Key], &str)) -> Result<usize> {
    world.settled().await?;
    let books = Books::read(&world.stores.database).await?;
    let truth = world.provider.truth(Duration::from_secs(30)).await?;
    let model = rows::model_of(alias);
    let mut wrong = 0;
    for key in keys {
        let of = || books.holds.iter().filter(|(_, hold)| hold.kid == key.kid);
        let sold = of().filter(|(_, hold)| hold.settled == CENT).count();
        let sum: i64 = of().map(|(_, hold)| hold.settled + hold.uncollected).sum();
        let heard = truth
            .iter()
            .filter(|call| call.model.split('+').next() == Some(model.as_str()))
            .filter_map(|call| books.holds.get(call.request_id.as_deref()?))
            .filter(|hold| hold.kid == key.kid)
            .count();
        let is_right = sold == WORTH && sum == CENT * 100 && heard == WORTH;
        if !is_right {
            eprintln!("anima-chaos: {}: {sold} sold for {sum}, {heard} heard", key.kid);
        }
        wrong += usize::from(!is_right);
    }
    Ok(wrong)
}
