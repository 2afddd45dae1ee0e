//! Kills of a channel and of a key under load: how soon no node lets anything through any more.
//!
//! With every message, with every message dropped (on Redis by the proxy, on PostgreSQL since nodes
//! do not listen), and while Redis is restarted. Time is taken from the admin's reply, which waits
//! for nobody, to the sending of the last request that any node served. Invariant: a kill counts as
//! over only when every node has refused since and none has served for [`QUIET`]. Source: SPEC 10,
//! `reliability` K2.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use anima_simulator::proxy::Mode;

use super::load::{Lane, Load, Reply};
use super::table::Line;
use super::world::{World, chat, mint, path_of};

/// How long no node may have served anything before a kill counts as in force.
const QUIET: Duration = Duration::from_millis(250);

/// A kill that is not in force by then never will be.
const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at what clients saw.
const LOOK: Duration = Duration::from_millis(10);

/// A request to the admin API.
pub(super) type Request = (Method, String, Value);

/// How something is switched off, and on again.
#[derive(Debug, Clone)]
pub(super) struct Lever {
    pub(super) off: Request,
    pub(super) on: Request,
}

impl Lever {
    /// The switch of a row.
    pub(super) fn row(path: &str) -> Self {
        let ask = |enabled: bool| {
            let body = json!({"enabled": enabled, "reason": "chaos"});
            (Method::PATCH, path.to_owned(), body)
        };
        Self { off: ask(false), on: ask(true) }
    }
}

/// What is switched off, and which lane goes through it.
struct Victim {
    lever: Lever,
    what: &'static str,
    lane: Lane,
}

/// What happens to Redis around a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    Nothing,
    Restart,
}

/// All messages arrive.
///
/// # Errors
/// When a node is not as it should be.
pub(crate) async fn with_messages(world: &mut World) -> Result<Vec<Line>> {
    let count = world.plan.kills;
    let what = "kills: from the reply to the last request let through";
    all(world, (what, count), Around::Nothing, Duration::from_secs(1)).await
}

/// No message arrives: nodes look for themselves.
///
/// # Errors
/// As before.
pub(crate) async fn without_messages(world: &mut World) -> Result<Vec<Line>> {
    world.restart(&[("ANIMA_DATABASE_LISTEN", "off")]).await?;
    world.stores.set(Mode::Mute, Mode::Open);
    let count = world.plan.kills.div_ceil(5);
    let what = "kills, every message dropped: the same";
    let lines = all(world, (what, count), Around::Nothing, Duration::from_secs(2)).await;
    world.stores.set(Mode::Open, Mode::Open);
    world.restart(&[]).await?;
    lines
}

/// Redis is killed before each kill and started after it.
///
/// # Errors
/// As before.
pub(crate) async fn while_redis_restarts(world: &mut World) -> Result<Vec<Line>> {
    let count = world.plan.kills.div_ceil(5);
    let what = "kills while Redis restarts: from its first answer to the last request let through";
    all(world, (what, count), Around::Restart, Duration::from_secs(2)).await
}

async fn all(
    world: &mut World,
    (what, count): (&str, u64),
    around: Around,
    bound: Duration,
) -> Result<Vec<Line>> {
    let admin = world.admin(0)?;
    let key = mint(&admin, &json!({"name": "to be killed"})).await?;
    let victims = [
        Victim { lever: Lever::row("/channels/main"), what: "channel", lane: chat("chat", &key) },
        Victim { lever: Lever::row(&path_of(&key)), what: "key", lane: chat("chat", &key) },
    ];
    let mut lines = Vec::new();
    for victim in victims {
        let load = world.load(vec![victim.lane.clone()]);
        let mut late = Vec::new();
        passes(&load, world.plan.nodes, Instant::now()).await?;
        for turn in 0..usize::try_from(count)? {
            late.push(kill(world, &load, (turn, &victim.lever), around).await?);
        }
        let (_, left_out) = load.stop().await?;
        if left_out > 0 {
            eprintln!("anima-chaos: {left_out} calls were left out");
        }
        lines.push(Line::times(&format!("{what} ({})", victim.what), &late, bound));
    }
    Ok(lines)
}

/// Switches something off and on again. How late the last request was that passed.
///
/// # Errors
/// When it is not in force, or not over, within [`PATIENCE`].
pub(super) async fn kill(
    world: &mut World,
    load: &Load,
    (turn, lever): (usize, &Lever),
    around: Around,
) -> Result<Duration> {
    if around == Around::Restart {
        world.stores.redis.kill()?;
    }
    let admin = world.admin(turn)?;
    load.forget();
    let (method, path, body) = &lever.off;
    admin.call(method.clone(), &format!("{path}?wait_ms=0"), body).await?;
    let replied = Instant::now();
    // With a restart the clock runs from when Redis answers again: until then messages have no way.
    let from = match around {
        Around::Nothing => replied,
        Around::Restart => {
            sleep(Duration::from_millis(world.seed.between(0, 300))).await;
            world.stores.redis.begin().await?
        }
    };
    let late = last_served(load, world.plan.nodes, replied, from).await?;
    let (method, path, body) = &lever.on;
    admin.call(method.clone(), path, body).await?;
    passes(load, world.plan.nodes, Instant::now()).await?;
    Ok(late)
}

/// How many of which answers came from which node.
fn summary(seen: &[Reply]) -> String {
    let mut counts = BTreeMap::new();
    for reply in seen {
        *counts.entry((reply.node, reply.status, reply.code.as_str())).or_insert(0_usize) += 1;
    }
    format!("{counts:?}")
}

/// Waits until nothing passes any more; how long after `from` the last request was sent that did.
async fn last_served(
    load: &Load,
    nodes: usize,
    replied: Instant,
    from: Instant,
) -> Result<Duration> {
    loop {
        sleep(LOOK).await;
        let seen = load.since(replied);
        let last = seen.iter().filter(|reply| reply.is_served()).map(|reply| reply.sent).max();
        let quiet_since = last.unwrap_or(replied);
        let refused = |n: usize| {
            let mut of = seen.iter().filter(|reply| reply.node == n && !reply.is_served());
            of.any(|reply| reply.sent > quiet_since)
        };
        if quiet_since.elapsed() > QUIET && from.elapsed() > QUIET && (0..nodes).all(refused) {
            return Ok(last.map(|at| at.saturating_duration_since(from)).unwrap_or_default());
        }
        if replied.elapsed() > PATIENCE {
            bail!("a kill is not in force after {PATIENCE:?}: {}", summary(&seen));
        }
    }
}

/// Waits until every node has served a request that was sent after `since`.
///
/// # Errors
/// When one does not within [`PATIENCE`].
pub(super) async fn passes(load: &Load, nodes: usize, since: Instant) -> Result<()> {
    loop {
        sleep(LOOK).await;
        let seen = load.since(since);
        let served = |n: usize| seen.iter().any(|reply| reply.node == n && reply.is_served());
        if (0..nodes).all(served) {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            bail!("not every node serves again after {PATIENCE:?}: {}", summary(&seen));
        }
    }
}
