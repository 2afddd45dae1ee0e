//! A key's mode is changed live under load, and every reply is still right.
//!
//! Not the waiting itself (`line`). A reply may be what any mode says that was in force while its
//! call was under way, and what a node does within [`KNOWN`] of the admin's reply is still the mode
//! before. Invariant: a call without an answer is a call that was lost. Source: SPEC 6.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::clients::{Crowd, Habit, Told};
use super::rows::{self, Charged};
use crate::chaos::table::Line;
use crate::chaos::world::{APP, World, path_of};
use crate::operator::Key;

/// What the key is turned to, in turn; it begins with the last.
const MODES: [&str; 5] = ["WAIT", "ASYNC", "REJECT", "WAIT", "REJECT"];

/// How long each lasts.
const LASTS: Duration = Duration::from_secs(4);

/// A change is in force on every node within this (SPEC 10).
const KNOWN: Duration = Duration::from_secs(1);

/// Those who wait are refused within this after the admin's reply.
const REFUSED_WITHIN: Duration = KNOWN;

/// Slots of the key, and clients of each node: many more.
const SLOTS: usize = 3;
const PER_NODE: usize = 10;

/// Calls per second; what becomes a task is made by and by.
const PER_SECOND: u64 = 60;

/// Tasks have ended by then.
const ENDED_WITHIN: Duration = Duration::from_mins(4);

/// The longest that a call of the key may wait.
const PATIENCE: Duration = Duration::from_mins(2);

/// A mode, and from when until when it may have been in force.
struct Spell {
    mode: &'static str,
    from: Instant,
    until: Instant,
}

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn changes_live(world: &mut World) -> Result<Vec<Line>> {
    rows::patient(world).await?;
    rows::alias(world, "modes", ("+latency:150", Charged::Tokens)).await?;
    rows::quota(world, "modes", &json!([{"kind": "concurrency", "limit": SLOTS}])).await?;
    let row = json!({"name": "modes", "quota": "modes", "queue_mode": "REJECT",
        "wait_timeout_ms": 100_000, "max_queue": 5_000});
    let key = rows::key(world, APP, &row).await?;
    let lane = rows::lane("modes", &key);
    let habit = Habit { per_node: PER_NODE, per_second: PER_SECOND, patience: PATIENCE };
    let begun = Instant::now();
    let crowd = Crowd::start(&world.nodes(), &[lane], habit);
    sleep(LASTS).await;
    let (mut spells, mut rejects) = (Vec::new(), Vec::new());
    let (mut mode, mut from) = ("REJECT", begun);
    for (turn, next) in MODES.into_iter().enumerate() {
        let asked = Instant::now();
        rows::turn(world, (turn, &path_of(&key)), next).await?;
        let replied = Instant::now();
        spells.push(Spell { mode, from, until: replied + KNOWN });
        if next == "REJECT" {
            rejects.push((asked, replied));
        }
        (mode, from) = (next, asked);
        sleep(LASTS).await;
    }
    let told = crowd.stop().await;
    spells.push(Spell { mode, from, until: Instant::now() });
    world.kept.keep(&told);
    let mut lines = judged(&told, &spells);
    lines.push(refused_at_once(&told, &rejects));
    lines.extend(ended(world, (&told, &key)).await?);
    Ok(lines)
}

fn judged(told: &[Told], spells: &[Spell]) -> Vec<Line> {
    let (mut wrong, mut by) = (Vec::new(), BTreeMap::new());
    for one in told {
        let during = |spell: &&Spell| spell.from <= one.ended() && spell.until >= one.sent;
        let modes: BTreeSet<&str> = spells.iter().filter(during).map(|spell| spell.mode).collect();
        if !fits(one, &modes) {
            wrong.push((one, modes));
        }
        *by.entry(one.status).or_insert(0_usize) += 1;
    }
    for (one, modes) in wrong.iter().take(5) {
        eprintln!("anima-chaos: modes: in {modes:?}: {one:?}");
    }
    let lost = told.iter().filter(|told| told.status == 0).count();
    let has = |status: u16| by.get(&status).copied().unwrap_or(0) >= 20;
    vec![
        Line::none_of(
            &format!("modes, {} live changes: replies that their mode does not give", MODES.len()),
            wrong.len(),
            (told.len(), 200),
        ),
        Line::none_of("modes: calls without a reply", lost, (told.len(), 200)),
        Line::check(
            "modes: 200, 202 and 429 were all there",
            has(200) && has(202) && has(429),
            &format!("{by:?}"),
        ),
    ]
}

/// Whether a reply is one that one of these modes gives.
fn fits(told: &Told, modes: &BTreeSet<&str>) -> bool {
    match told.status {
        200 => modes.contains("REJECT") || modes.contains("WAIT"),
        202 => {
            let names = told.location.starts_with("/v1/tasks/task_");
            modes.contains("ASYNC") && names
        }
        429 => {
            let (seconds, ms) = told.retry.unwrap_or_default();
            let says = ms >= 1 && seconds >= 1 && ms <= seconds * 1_000;
            modes.contains("REJECT") && told.reason == "concurrency_limited" && says
        }
        _ => false,
    }
}

/// Those who waited when their key was turned to REJECT.
fn refused_at_once(told: &[Told], rejects: &[(Instant, Instant)]) -> Line {
    let mut times = Vec::new();
    for (asked, replied) in rejects {
        let waited = |told: &&Told| told.waited_ms.is_some_and(|ms| ms > 0);
        let was_there = |told: &&Told| told.sent < *asked && told.ended() > *asked;
        let of = told.iter().filter(was_there).filter(waited).filter(|told| told.status == 429);
        times.extend(of.map(|told| told.ended().saturating_duration_since(*replied)));
    }
    Line::times(
        "modes: from the reply to REJECT to the refusal of who waits",
        &times,
        REFUSED_WITHIN,
    )
}

/// What became of the tasks.
async fn ended(world: &World, (told, key): (&[Told], &Key)) -> Result<Vec<Line>> {
    let places: Vec<&str> =
        told.iter().filter(|told| told.status == 202).map(|told| told.location.as_str()).collect();
    let until = Instant::now() + ENDED_WITHIN;
    let (mut states, nodes) = (BTreeMap::new(), world.nodes());
    for (place, node) in places.iter().zip(nodes.iter().cycle()) {
        let mut state = state_of(*node, place, key).await;
        while !["succeeded", "failed", "cancelled", "expired"].contains(&state.as_str())
            && Instant::now() < until
        {
            sleep(Duration::from_millis(200)).await;
            state = state_of(*node, place, key).await;
        }
        *states.entry(state).or_insert(0_usize) += 1;
    }
    let done = states.get("succeeded").copied().unwrap_or(0);
    eprintln!("anima-chaos: modes: tasks: {states:?}");
    Ok(vec![Line::none_of(
        "modes: tasks that did not succeed",
        places.len() - done,
        (places.len(), 20),
    )])
}

/// The status of a task, or what was said instead.
async fn state_of(node: std::net::SocketAddr, place: &str, key: &Key) -> String {
    let ask = crate::http_client::Ask {
        address: node,
        method: Method::GET,
        path: place.to_owned(),
        token: key.secret.clone(),
        body: String::new(),
        idempotency_key: None,
    };
    let Ok(answer) = crate::http_client::whole(&ask).await else { return "no answer".to_owned() };
    let status = answer.json().get("status").and_then(Value::as_str).map(str::to_owned);
    status.unwrap_or_else(|| answer.status.to_string())
}
