//! SPEC 12, row by row, on running nodes: Redis away, the database away, both, and slow.
//!
//! By resets and by silence (a network that is gone in between, connections half open). Times of
//! answers are the clients'. Invariant: what is said of a mode is said of every call that was sent
//! after every node knew of it; for a cut, of every call that was sent after the cut.
//! Source: SPEC 12, `reliability` R2, R7, D1, D2.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use anima_simulator::proxy::Mode;

use super::kills::{Lever, passes};
use super::load::{Reply, call};
use super::table::Line;
use super::world::{World, chat, mint, models, path_of};

/// How soon a node must serve again when everything is back.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// How soon a call must be refused that cannot be served.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);

/// How long each mode is held.
const HELD: Duration = Duration::from_secs(4);

/// Fewer calls prove nothing.
const LEAST: usize = 20;

/// How long reads go on from memory (SPEC 12).
const L1: Duration = Duration::from_secs(30);

/// How long reads surely go on: some seconds pass between the reading of a key and the outage.
const L1_SURE: Duration = Duration::from_secs(20);

/// What is broken, for the table.
fn word(mode: Mode) -> &'static str {
    if mode == Mode::Cut { "cut" } else { "silent" }
}

/// Waits until every node says that this is down; an empty text for nothing. Since then.
///
/// # Errors
/// When one never does.
pub(super) async fn until_all_say(world: &World, expected: &str) -> Result<Instant> {
    let began = Instant::now();
    for n in 0..world.plan.nodes {
        loop {
            let (_, page) = world.page(n, "/actuator/health").await?;
            let page: Value = serde_json::from_str(&page)?;
            let said = page.get("degraded").and_then(Value::as_str).unwrap_or_default();
            if said == expected {
                break;
            }
            if began.elapsed() > Duration::from_secs(30) {
                bail!("node {n} says `{said}` is down, and not `{expected}`");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(Instant::now())
}

/// Whether every node shows its mode in the metric and in its health.
async fn shown(world: &World, down: &[&str]) -> Result<bool> {
    let mut all = true;
    for n in 0..world.plan.nodes {
        let (_, metrics) = world.page(n, "/actuator/prometheus").await?;
        let (_, health) = world.page(n, "/actuator/health").await?;
        let health: Value = serde_json::from_str(&health)?;
        for dependency in ["redis", "database"] {
            let is_down = down.contains(&dependency);
            let line =
                format!("anima_degraded{{dependency=\"{dependency}\"}} {}", u8::from(is_down));
            let status = health.pointer(&format!("/components/{dependency}/status"));
            let expected = if is_down { "DOWN" } else { "UP" };
            all &= metrics.contains(&line) && status.and_then(Value::as_str) == Some(expected);
        }
    }
    Ok(all)
}

/// Waits until every node serves a billed call. How long that took.
///
/// # Errors
/// When one never does.
pub(super) async fn until_all_serve(world: &World, since: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for (n, address) in world.nodes().into_iter().enumerate() {
        while !call((0, chat("chat", &world.key)), (n, address)).await.is_served() {
            if since.elapsed() > Duration::from_mins(1) {
                bail!("node {n} does not serve again");
            }
            sleep(Duration::from_millis(20)).await;
        }
        times.push(since.elapsed());
    }
    Ok(times)
}

/// How many of these calls the provider has heard of.
async fn reached_upstream(world: &mut World, replies: &[&Reply]) -> Result<usize> {
    let ids: BTreeSet<_> = replies.iter().map(|reply| reply.request_id.as_str()).collect();
    let truth = world.provider.truth(Duration::from_secs(20)).await?;
    let heard = |id: &String| !id.is_empty() && ids.contains(id.as_str());
    Ok(truth.iter().filter(|call| call.request_id.as_ref().is_some_and(heard)).count())
}

/// Redis is away: serving goes on, and kill switches come by looking.
///
/// # Errors
/// When a node does not do what a row says, so that nothing can be measured.
pub(crate) async fn redis_down(world: &mut World) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for mode in [Mode::Cut, Mode::Silent] {
        let title = format!("Redis down ({})", word(mode));
        let victim = mint(&world.admin(0)?, &json!({"name": "a victim"})).await?;
        let load = world.load(vec![chat("chat", &world.key), models(&world.key)]);
        passes(&load, world.plan.nodes, Instant::now()).await?;
        world.stores.set(mode, Mode::Open);
        let broken = Instant::now();
        let known = until_all_say(world, "redis").await?;
        let told = shown(world, &["redis"]).await?;
        let late = kill_by_looking(world, &victim).await?;
        sleep(HELD.saturating_sub(known.elapsed())).await;
        world.stores.set(Mode::Open, Mode::Open);
        let back = Instant::now();
        let well = until_all_say(world, "").await?;
        let (replies, _) = load.stop().await?;
        let during = |reply: &&Reply| reply.sent >= broken && reply.sent < back;
        let during: Vec<_> = replies.iter().filter(during).collect();
        let refused = during.iter().filter(|reply| !reply.is_served()).count();
        let marked = |reply: &&&Reply| reply.sent > known && reply.degraded != "redis";
        let unmarked = during.iter().filter(marked).count();
        lines.push(Line::none_of(
            &format!("{title}: calls refused"),
            refused,
            (during.len(), LEAST),
        ));
        lines.push(Line::none_of(
            &format!("{title}: replies without `x-anima-degraded: redis`"),
            unmarked,
            (during.len(), LEAST),
        ));
        lines.push(Line::check(&format!("{title}: shown by metric and health"), told, ""));
        let what = format!("{title}: a key is killed, by the looks at the database");
        lines.push(Line::times(&what, &late, Duration::from_secs(2)));
        lines.push(Line::times(&format!("{title}: well again"), &[well - back], BACK_WITHIN));
    }
    Ok(lines)
}

/// Kills a key that every node knows; when each node refuses it first.
async fn kill_by_looking(world: &World, victim: &crate::operator::Key) -> Result<Vec<Duration>> {
    for (n, address) in world.nodes().into_iter().enumerate() {
        if !call((0, chat("chat", victim)), (n, address)).await.is_served() {
            bail!("node {n} does not serve a key that is in no cache");
        }
    }
    let (method, path, body) = Lever::row(&path_of(victim)).off;
    world.admin(0)?.call(method, &format!("{path}?wait_ms=0"), &body).await?;
    let replied = Instant::now();
    let mut times = Vec::new();
    for (n, address) in world.nodes().into_iter().enumerate() {
        while call((0, chat("chat", victim)), (n, address)).await.status != 401 {
            if replied.elapsed() > Duration::from_secs(30) {
                bail!("node {n} goes on serving a killed key");
            }
        }
        times.push(replied.elapsed());
    }
    Ok(times)
}

/// The database is away: billed calls are refused, reads go on.
///
/// # Errors
/// As before.
pub(crate) async fn database_down(world: &mut World) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for mode in [Mode::Cut, Mode::Silent] {
        let title = format!("database down ({})", word(mode));
        let broken = Broken { redis: Mode::Open, database: mode, degraded: "database" };
        lines.extend(refused(world, &title, &broken, HELD).await?);
    }
    Ok(lines)
}

/// Both are away: the same, and reads end after their 30 s.
///
/// # Errors
/// As before.
pub(crate) async fn both_down(world: &mut World) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for mode in [Mode::Cut, Mode::Silent] {
        let title = format!("both down ({})", word(mode));
        let broken = Broken { redis: mode, database: mode, degraded: "redis,database" };
        let held = L1 + Duration::from_secs(5);
        lines.extend(refused(world, &title, &broken, held).await?);
    }
    let breaches = world.verify().await?;
    let found = if breaches.is_empty() { "clean".to_owned() } else { breaches.join("; ") };
    let what = "after both were down: `anima ledger verify`";
    lines.push(Line::check(what, breaches.is_empty(), &found));
    Ok(lines)
}

/// What is broken how.
struct Broken {
    redis: Mode,
    database: Mode,
    degraded: &'static str,
}

/// Breaks it for a while under load, and mends it.
async fn refused(
    world: &mut World,
    title: &str,
    broken: &Broken,
    held: Duration,
) -> Result<Vec<Line>> {
    let admin = world.admin(0)?;
    let unseen = mint(&admin, &json!({"name": "in no cache"})).await?;
    // From here on keys are in memory for their whole time.
    admin.call(Method::POST, "/cache/invalidate", &json!({"scope": "keys"})).await?;
    let load = world.load(vec![chat("chat", &world.key), models(&world.key)]);
    passes(&load, world.plan.nodes, Instant::now()).await?;
    world.stores.set(broken.redis, broken.database);
    let began = Instant::now();
    let known = until_all_say(world, broken.degraded).await?;
    let down: Vec<&str> = broken.degraded.split(',').collect();
    let told = shown(world, &down).await?;
    let mut asked = Vec::new();
    for (n, address) in world.nodes().into_iter().enumerate() {
        asked.push(call((0, chat("chat", &unseen)), (n, address)).await);
    }
    let administration = admin.attempt(Method::GET, "/apps", &Value::Null).await?.status;
    // From when it is known: silence takes a while to be noticed.
    sleep(held.saturating_sub(known.elapsed())).await;
    world.stores.set(Mode::Open, Mode::Open);
    let back = Instant::now();
    let times = until_all_serve(world, back).await?;
    let (replies, _) = load.stop().await?;
    // A cut is felt at once. Silence is known of after a while, and calls wait for that.
    let judged = if broken.database == Mode::Cut { began } else { known };
    let in_time = |reply: &&Reply| reply.sent >= judged && reply.sent + reply.took < back;
    let during: Vec<&Reply> = replies.iter().filter(in_time).collect();
    let billed: Vec<&Reply> = during.iter().copied().filter(|reply| reply.lane == 0).collect();
    let all_billed = |r: &&Reply| r.lane == 0 && r.sent >= judged && r.sent < back;
    let sent = replies.iter().filter(all_billed).count();
    let answered: Vec<Duration> = billed.iter().map(|reply| reply.took).collect();
    let wrong = billed.iter().filter(|reply| reply.status != 503).count();
    let heard = reached_upstream(world, &billed).await?;
    let never_401 = asked.iter().all(|r| r.status == 503 && r.code == "auth_unavailable");
    let mut lines = vec![
        Line::none_of(&format!("{title}: billed calls not refused with 503"), wrong, (sent, LEAST)),
        Line::p99(&format!("{title}: the refusal"), &answered, REFUSED_WITHIN),
        Line::none_of(&format!("{title}: calls that reached the provider"), heard, (sent, LEAST)),
        Line::check(&format!("{title}: shown by metric and health"), told, ""),
        Line::check(
            &format!("{title}: a key in no cache is `auth_unavailable`, never 401"),
            never_401,
            "",
        ),
        Line::check(&format!("{title}: the admin API says 503"), administration == 503, ""),
    ];
    lines.extend(reads(title, &during, (began, back.saturating_duration_since(began))));
    lines.push(Line::times(&format!("{title}: serving again"), &times, BACK_WITHIN));
    Ok(lines)
}

/// What became of reads.
fn reads(title: &str, during: &[&Reply], (began, held): (Instant, Duration)) -> Vec<Line> {
    let of = |from: Duration, to: Duration| {
        let within = move |r: &&&Reply| r.sent >= began + from && r.sent < began + to;
        during.iter().filter(|r| r.lane == 1).filter(within).collect::<Vec<_>>()
    };
    // The key was read some time before: a few seconds of its 30 are over.
    let early = of(Duration::ZERO, held.min(L1_SURE));
    let refused = early.iter().filter(|reply| !reply.is_served()).count();
    let what = format!("{title}: reads refused while the key is in memory");
    let mut lines = vec![Line::none_of(&what, refused, (early.len(), LEAST))];
    if held > L1 {
        let late = of(L1, held);
        let served = late.iter().filter(|reply| reply.status != 503).count();
        let what = format!("{title}: reads that are not 503 after 30 s");
        lines.push(Line::none_of(&what, served, (late.len(), LEAST)));
    }
    lines
}

/// Nothing is down, and everything is slow; then half-open connections that come back.
///
/// # Errors
/// As before.
pub(crate) async fn slow_and_half_open(world: &mut World) -> Result<Vec<Line>> {
    let ms = Duration::from_millis;
    let delays = [
        ("Redis 20 ms slower each way", Mode::Delayed(ms(20)), Mode::Open, ms(1_000)),
        ("Redis 200 ms slower each way", Mode::Delayed(ms(200)), Mode::Open, ms(1_500)),
        ("the database 10 ms slower each way", Mode::Open, Mode::Delayed(ms(10)), ms(1_500)),
    ];
    let mut lines = Vec::new();
    for (title, redis, database, bound) in delays {
        world.stores.set(redis, database);
        let load = world.load(vec![chat("chat", &world.key)]);
        sleep(HELD).await;
        let (replies, _) = load.stop().await?;
        world.stores.set(Mode::Open, Mode::Open);
        until_all_say(world, "").await?;
        let refused = replies.iter().filter(|reply| !reply.is_served()).count();
        let took: Vec<_> = replies.iter().map(|reply| reply.took).collect();
        lines.push(Line::none_of(
            &format!("{title}: calls refused"),
            refused,
            (replies.len(), LEAST),
        ));
        lines.push(Line::p99(&format!("{title}: a call"), &took, bound));
    }
    let load = world.load(vec![chat("chat", &world.key)]);
    for (redis, database) in [(Mode::Deaf, Mode::Deaf), (Mode::Silent, Mode::Silent)] {
        world.stores.set(redis, database);
        sleep(ms(1_200)).await;
        world.stores.set(Mode::Open, Mode::Open);
        sleep(ms(1_500)).await;
    }
    let back = Instant::now();
    let times = until_all_serve(world, back).await?;
    let (replies, _) = load.stop().await?;
    let hung = replies.iter().filter(|reply| reply.status == 0).count();
    let what = "answers of both lost for 1.2 s, then both silent for 1.2 s";
    lines.push(Line::none_of(
        &format!("{what}: calls without an answer"),
        hung,
        (replies.len(), LEAST),
    ));
    lines.push(Line::times(&format!("{what}: serving again"), &times, BACK_WITHIN));
    Ok(lines)
}
