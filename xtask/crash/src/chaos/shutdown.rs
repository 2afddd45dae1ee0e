//! SIGTERM while streams run: who finishes, who is ended, and what is booked.
//!
//! Invariant: the node is asked once; nobody makes it end. Source: SPEC 12, `reliability` P4.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::streams::Stream;
use super::table::Line;
use super::world::{World, alias, chat, mint};
use crate::books;
use crate::fleet::probe;
use crate::operator::Admin;

/// What the nodes of a run are told (`fleet`), and what a cut stream may take besides.
const DRAIN: Duration = Duration::from_secs(10);
const LAST_WORDS: Duration = Duration::from_secs(5);

/// See the module.
///
/// # Errors
/// When a stream is refused, or the books cannot be read.
pub(crate) async fn with_running_streams(world: &mut World) -> Result<Vec<Line>> {
    let admin = world.admin(0)?;
    aliases(&admin).await?;
    let key = mint(&admin, &json!({"name": "streams over a shutdown"})).await?;
    let node = 1 % world.plan.nodes;
    let address = world.fleet.address(node)?;
    let short = Stream::open(address, "drained", &key).await?;
    let long = Stream::open(address, "ended", &key).await?;
    let others: Vec<_> = world.nodes().into_iter().filter(|other| *other != address).collect();
    let load = super::load::Load::start(
        others,
        vec![chat("chat", &world.key)],
        world.plan.calls_per_second,
    );
    world.fleet.terminate(node)?;
    let asked = Instant::now();
    let (short, long) = (tokio::spawn(short.end()), tokio::spawn(long.end()));
    let mut unready = None;
    while unready.is_none() && asked.elapsed() < DRAIN {
        if probe(address, "/actuator/health/readiness").await != Some(200) {
            unready = Some(asked.elapsed());
        }
        sleep(Duration::from_millis(5)).await;
    }
    let (short, long) = (short.await?, long.await?);
    let status = loop {
        if let Some(status) = world.fleet.ended(node) {
            break status;
        }
        if asked.elapsed() > DRAIN * 3 {
            world.fleet.kill(node)?;
            anyhow::bail!("the node does not end");
        }
        sleep(Duration::from_millis(20)).await;
    };
    let took = asked.elapsed();
    let (replies, _) = load.stop().await?;
    let refused = replies.iter().filter(|reply| !reply.is_served()).count();
    let open = world.settled().await?;
    let sold = books::sold_to(&world.stores.database, &key.kid).await?;
    let unready = unready.context("the node stays ready")?;
    let finished = short.whole && short.text.contains("data: [DONE]");
    let ended = long.whole && long.text.contains("shutting_down") && !long.text.contains("[DONE]");
    let in_time = long.at - asked < DRAIN + LAST_WORDS;
    let mut lines = vec![
        Line::times("SIGTERM: no new call is taken", &[unready], Duration::from_secs(1)),
        Line::check("SIGTERM: a stream that fits into the bound finishes", finished, ""),
        Line::check("SIGTERM: a longer one ends with the error event", ended && in_time, ""),
        Line::check(
            "SIGTERM: both are settled, and no hold is open",
            open == 0 && sold == 2,
            &format!("{sold} settled, {open} open"),
        ),
        Line::check(
            "SIGTERM: the process ends by itself, with 0",
            status.success(),
            &format!("after {:.1} s", took.as_secs_f64()),
        ),
    ];
    if world.plan.nodes > 1 {
        let what = "SIGTERM: calls that the other nodes refused";
        lines.push(Line::none_of(what, refused, (replies.len(), 100)));
    }
    Ok(lines)
}

/// One whose streams fit into the bound, and one whose streams do not.
async fn aliases(admin: &Admin) -> Result<()> {
    let models = [
        ("drained", "sim-drained+answer-tokens:40+chunks:40+pace:100"),
        ("ended", "sim-ended+answer-tokens:900+chunks:900+pace:100"),
    ];
    for (code, model) in models {
        let made = admin.attempt(Method::GET, &format!("/aliases/{code}"), &Value::Null).await?;
        if made.status == 404 {
            alias(admin, code, &[("main", model)]).await?;
        }
    }
    sleep(Duration::from_millis(100)).await;
    Ok(())
}
