//! SPEC 12, row by row, on nodes that start while something is away.
//!
//! Every node is killed first: nobody is there who remembers. Invariant: a node that cannot serve
//! says so and goes on trying; no process ends. Source: SPEC 12, `reliability` 5 and K4.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use anima_simulator::proxy::Mode;

use super::load::call;
use super::outages::{until_all_say, until_all_serve};
use super::table::Line;
use super::world::{World, chat, models};
use crate::fleet::probe;

/// How soon a node must listen after its start, whatever is away: debug builds included.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);

/// How soon all serve when everything is back.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// How soon a call must be refused that cannot be served.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);

/// Calls to each node in each mode.
const CALLS: usize = 20;

/// See the module.
///
/// # Errors
/// When a node cannot be started.
pub(crate) async fn every_row(world: &mut World) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    start(world, Mode::Open, Mode::Open).await?;
    let began = Instant::now();
    let times = until_all_serve(world, began).await?;
    lines.push(Line::times("cold start, nothing down: serving", &times, LISTEN_WITHIN));
    start(world, Mode::Cut, Mode::Open).await?;
    let began = Instant::now();
    let times = until_all_serve(world, began).await?;
    lines.push(Line::times("cold start, Redis down: serving", &times, LISTEN_WITHIN));
    until_all_say(world, "redis").await?;
    world.stores.set(Mode::Open, Mode::Open);
    until_all_say(world, "").await?;
    for mode in [Mode::Cut, Mode::Silent] {
        lines.extend(without_database(world, Mode::Open, mode, "database").await?);
        lines.extend(without_database(world, mode, mode, "redis,database").await?);
    }
    Ok(lines)
}

/// Kills every node, breaks what is to be away, and starts them until they listen.
async fn start(world: &mut World, redis: Mode, database: Mode) -> Result<()> {
    for n in 0..world.plan.nodes {
        world.fleet.kill(n)?;
    }
    world.stores.set(redis, database);
    for n in 0..world.plan.nodes {
        world.fleet.launch(n)?;
    }
    let began = Instant::now();
    for address in world.nodes() {
        while probe(address, "/actuator/health/liveness").await != Some(200) {
            if began.elapsed() > LISTEN_WITHIN * 2 {
                bail!("a node that starts while something is away does not listen");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn without_database(
    world: &mut World,
    redis: Mode,
    database: Mode,
    degraded: &str,
) -> Result<Vec<Line>> {
    let how = if database == Mode::Cut { "cut" } else { "silent" };
    let down = if redis == Mode::Open { "the database" } else { "both" };
    let title = format!("cold start, {down} down ({how})");
    // What the second level is to have: the keys as they are now.
    let admin = world.admin(0)?;
    admin.call(Method::POST, "/cache/invalidate", &json!({"scope": "keys"})).await?;
    until_all_serve(world, Instant::now()).await?;
    sleep(Duration::from_millis(300)).await;
    start(world, redis, database).await?;
    until_all_say(world, degraded).await?;
    let (mut billed, mut reads, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..CALLS * world.plan.nodes {
        let n = turn % world.plan.nodes;
        let address = world.fleet.address(n)?;
        let reply = call((0, chat("chat", &world.key)), (n, address)).await;
        took.push(reply.took);
        billed.push(reply);
        reads.push(call((1, models(&world.key)), (n, address)).await);
    }
    let mut unready = 0;
    for address in world.nodes() {
        let status = probe(address, "/actuator/health/readiness").await;
        unready += usize::from(status == Some(503));
    }
    let administration = admin.attempt(Method::GET, "/apps", &Value::Null).await?.status;
    world.stores.set(Mode::Open, Mode::Open);
    let times = until_all_serve(world, Instant::now()).await?;
    let wrong = billed.iter().filter(|r| r.status != 503 || r.degraded != degraded).count();
    let expected = if redis == Mode::Open { 200 } else { 503 };
    let odd = reads.iter().filter(|reply| reply.status != expected).count();
    let from =
        if redis == Mode::Open { "served from the second level" } else { "refused with 503" };
    Ok(vec![
        Line::none_of(
            &format!(
                "{title}: billed calls not refused with 503 and `x-anima-degraded: {degraded}`"
            ),
            wrong,
            (billed.len(), CALLS),
        ),
        Line::p99(&format!("{title}: the refusal"), &took, REFUSED_WITHIN),
        Line::none_of(&format!("{title}: reads that are not {from}"), odd, (reads.len(), CALLS)),
        Line::check(
            &format!("{title}: alive, not ready, and the admin API says 503"),
            unready == world.plan.nodes && administration == 503,
            "",
        ),
        Line::times(&format!("{title}: serving when it is back"), &times, BACK_WITHIN),
    ])
}
