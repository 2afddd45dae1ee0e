//! Storms of every kind over some of four equal channels, one after another, under load.
//!
//! What a client must never see is a failure while any channel is well, but for one kind: a stream
//! that breaks after its first content ends with the format's error event. Invariant: each storm
//! leaves the channels closed and well. Source: SPEC 7.

use std::time::Duration;

use anyhow::Result;
use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use anima_simulator::proxy::Mode;

use super::stage::{Fault, Stage, lanes};
use super::watch::{Watch, until_open};
use crate::chaos::load::{Load, Reply};
use crate::chaos::table::Line;
use crate::chaos::world::World;
use crate::process::now_us;

/// How long each lasts.
const LASTS: Duration = Duration::from_secs(6);

/// Fewer calls prove nothing.
const LEAST: usize = 50;

/// The alias's own deadline, and what a busy machine may add to it.
const DEADLINE_MS: u64 = 5_000;
const SLACK: Duration = Duration::from_millis(500);

/// What happens, to which channels.
struct Storm {
    what: &'static str,
    faults: &'static [(usize, Fault)],
    /// Streams break after their first content.
    breaks: bool,
}

const fn storm(what: &'static str, faults: &'static [(usize, Fault)]) -> Storm {
    Storm { what, faults, breaks: false }
}

const STORMS: &[Storm] = &[
    storm(
        "429, with and without Retry-After, on three of four",
        &[
            (0, Fault::Does("status:429:retry-after=2")),
            (1, Fault::Does("status:429:retry-after=2")),
            (2, Fault::Does("status:429")),
        ],
    ),
    storm(
        "503 and 529 on three of four",
        &[
            (0, Fault::Does("status:503")),
            (1, Fault::Does("status:529")),
            (2, Fault::Does("status:503:retry-after=1")),
        ],
    ),
    storm(
        "401 and 403 on two of four",
        &[(1, Fault::Does("status:401")), (3, Fault::Does("status:403"))],
    ),
    storm(
        "connections reset, one by the provider, one by the network",
        &[(0, Fault::Does("reset")), (2, Fault::Wire(Mode::Cut))],
    ),
    storm(
        "stalls before the head and before the first content",
        &[(1, Fault::Does("silent")), (2, Fault::Does("silent-stream:0+latency:20"))],
    ),
    storm(
        "half-open sockets: nothing arrives, or no answer does",
        &[(0, Fault::Wire(Mode::Silent)), (3, Fault::Wire(Mode::Deaf))],
    ),
    storm(
        "streams cut before their content, errors in a 200, broken JSON",
        &[
            (0, Fault::Does("cut-stream:0")),
            (1, Fault::Does("error-in-200:0")),
            (2, Fault::Does("bad-json")),
        ],
    ),
    Storm {
        what: "streams cut in the middle",
        faults: &[(0, Fault::Does("cut-stream:3")), (1, Fault::Does("error-in-200:3"))],
        breaks: true,
    },
];

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn of_every_kind(world: &mut World) -> Result<Vec<Line>> {
    let breaker = json!({"open_ms": 1_000, "max_open_ms": 4_000});
    let stage = Stage::make(world, "storm", &breaker).await?;
    let retry = json!({"max_attempts": 4, "deadline_ms": DEADLINE_MS});
    let alias = stage.alias("", (&[0, 1, 2, 3], true), &retry).await?;
    let watch = Watch::start(world, "storm-");
    let load = world.load(lanes(world, &alias));
    let mut lines = Vec::new();
    for storm in STORMS {
        lines.extend(one(world, (&stage, &load), storm).await?);
    }
    let (replies, left_out) = load.stop().await?;
    let longest = replies.iter().map(|reply| reply.took).max().unwrap_or_default();
    let bound = Duration::from_millis(DEADLINE_MS) + SLACK;
    let late = replies.iter().filter(|reply| reply.took > bound).count();
    let what = format!("storms: calls past their deadline (the longest took {longest:.2?})");
    lines.push(Line::none_of(&what, late, (replies.len(), LEAST)));
    lines.push(Line::check("storms: calls left out by the clients", left_out == 0, ""));
    world.day.keep(&replies);
    world.day.note(watch.end());
    Ok(lines)
}

async fn one(
    world: &mut World,
    (stage, load): (&Stage, &Load),
    storm: &Storm,
) -> Result<Vec<Line>> {
    let (began, began_us) = (Instant::now(), now_us());
    stage.set(storm.faults).await?;
    sleep(LASTS).await;
    stage.set(&[]).await?;
    for (n, fault) in storm.faults {
        if matches!(fault, Fault::Wire(_) | Fault::Does("bad-json")) {
            // What was under way when the wire broke, and until it is well again. Who meets broken
            // JSON in a stream does not read on, and so does not hear the report at its end.
            let span = (began_us - 2_000_000, now_us() + 2_000_000);
            world.day.void.push((stage.at(*n)?.code.clone(), span.0, span.1));
        }
    }
    sleep(Duration::from_secs(1)).await;
    let during: Vec<Reply> = load.since(began);
    let calm = calm(world, stage).await?;
    let what = format!("storm, {}", storm.what);
    let failed: Vec<_> = during.iter().filter(|reply| !is_fine(reply, storm.breaks)).collect();
    for reply in failed.iter().take(3) {
        eprintln!("anima-chaos: {what}: {reply:?}");
    }
    let title = format!("{what}: calls that fail for their clients");
    let mut lines = vec![Line::none_of(&title, failed.len(), (during.len(), LEAST))];
    if storm.breaks {
        let broken = during.iter().filter(|reply| reply.is_served() && !reply.is_whole).count();
        let found = format!("{broken} of {}", during.len());
        let title = format!("{what}: they do break, and each ends with an error event");
        lines.push(Line::check(&title, broken > 0, &found));
    }
    lines.push(Line::times(
        &format!("{what}: from the reset to closed circuits on every node"),
        &[calm],
        Duration::from_secs(2),
    ));
    Ok(lines)
}

/// Whether a client can be content.
fn is_fine(reply: &Reply, breaks: bool) -> bool {
    reply.is_served() && (reply.is_whole || (breaks && reply.is_told))
}

/// Gives every channel back with a clean sheet, and waits until each node shows it so.
async fn calm(world: &World, stage: &Stage) -> Result<Duration> {
    for (turn, place) in stage.channels.iter().enumerate() {
        let path = format!("/circuits/{}/reset", place.code);
        let body = json!({"reason": "chaos"});
        world.admin(turn)?.call(Method::POST, &path, &body).await?;
    }
    until_open(world, "storm-", (|open| open == 0, Duration::from_secs(20))).await
}
