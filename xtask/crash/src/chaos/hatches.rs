//! Every escape hatch of SPEC 10: in force on every node within a second, acknowledged by each,
//! audited, and still in force after a restart.
//!
//! Not the hundred kills, which are `kills`. Invariant: what is pulled here is given back here.
//! Source: SPEC 10.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::kills::{Around, Lever, kill, passes};
use super::load::{Lane, call};
use super::streams::Stream;
use super::table::Line;
use super::world::{APP, World, alias, chat, mint, path_of};
use crate::operator::{Key, member};

/// How often each is pulled.
const ROUNDS: usize = 3;

/// A hatch acts within this, everywhere (SPEC 10).
const BOUND: Duration = Duration::from_secs(1);

/// The provider's model of streams that would run for a minute.
const LONG: &str = "sim-long+answer-tokens:600+chunks:600+pace:100";

/// The provider's model of streams that take some seconds.
const SHORT: &str = "sim-short+answer-tokens:30+chunks:30+pace:100";

/// Something that can be switched off, and the status that its callers get.
struct Hatch {
    what: &'static str,
    lever: Lever,
    refusal: u16,
}

fn post(path: &str) -> (Method, String, Value) {
    (Method::POST, path.to_owned(), json!({"reason": "chaos"}))
}

fn hatches(key: &Key) -> Vec<Hatch> {
    let row = |what, path: &str, refusal| Hatch { what, lever: Lever::row(path), refusal };
    vec![
        Hatch {
            what: "circuit opened by hand",
            lever: Lever { off: post("/circuits/main/open"), on: post("/circuits/main/reset") },
            refusal: 503,
        },
        Hatch {
            what: "circuit opened, then closed by hand",
            lever: Lever { off: post("/circuits/main/open"), on: post("/circuits/main/close") },
            refusal: 503,
        },
        row("channel", "/channels/main", 503),
        row("alias", "/aliases/chat", 503),
        row("key", &path_of(key), 401),
        row("app", &format!("/apps/{APP}"), 401),
        row("token group", "/token-groups/gold", 503),
        row("the whole gateway", "/switch", 503),
    ]
}

/// A key in a token group of its own.
async fn key_in_group(world: &World) -> Result<Key> {
    let admin = world.admin(0)?;
    let made = admin.attempt(Method::GET, "/token-groups/gold", &Value::Null).await?;
    if made.status == 404 {
        admin.create("/token-groups", &json!({"code": "gold", "aliases": ["*"]})).await?;
    }
    mint(&admin, &json!({"name": "golden", "token_group": "gold"})).await
}

/// Each hatch some times under load.
///
/// # Errors
/// When one is refused.
pub(crate) async fn every_one(world: &mut World) -> Result<Vec<Line>> {
    let key = key_in_group(world).await?;
    let load = world.load(vec![chat("chat", &key)]);
    passes(&load, world.plan.nodes, Instant::now()).await?;
    let mut lines = Vec::new();
    for hatch in hatches(&key) {
        let mut late = Vec::new();
        for turn in 0..ROUNDS {
            late.push(kill(world, &load, (turn, &hatch.lever), Around::Nothing).await?);
        }
        let what = format!("hatch, {}: the last request let through", hatch.what);
        lines.push(Line::times(&what, &late, BOUND));
    }
    load.stop().await?;
    let (method, path, body) = post("/circuits/main/reset");
    world.admin(0)?.call(method, &path, &body).await?;
    lines.push(acknowledged(world, &key).await?);
    lines.push(invalidated(world).await?);
    lines.push(audited(world).await?);
    lines.extend(running(world).await?);
    Ok(lines)
}

/// Each pull names every node with the time at which it had it in force.
async fn acknowledged(world: &World, key: &Key) -> Result<Line> {
    let mut wrong = Vec::new();
    let all = hatches(key);
    for (turn, hatch) in all.iter().enumerate() {
        for (method, path, body) in [&hatch.lever.off, &hatch.lever.on] {
            let id = world.admin(turn)?.change(method.clone(), path, body).await?;
            if let Some(why) = incomplete(world, turn, id).await? {
                wrong.push(format!("{path}: {why}"));
            }
        }
    }
    for why in &wrong {
        eprintln!("anima-chaos: {why}");
    }
    let what = "hatches: pulls that not every node has acknowledged with its time";
    Ok(Line::none_of(what, wrong.len(), (2 * all.len(), 16)))
}

/// Why a change is not in force everywhere, by `GET /propagation/{id}` of another node, if so. Its
/// reply came when every node had it, or after the second that it may take.
async fn incomplete(world: &World, turn: usize, id: i64) -> Result<Option<String>> {
    let path = format!("/propagation/{id}");
    let said = world.admin(turn + 1)?.call(Method::GET, &path, &Value::Null).await?;
    let nodes = member(&said, "nodes").as_array().cloned().unwrap_or_default();
    let alive = nodes.iter().filter(|node| member(node, "alive") == true);
    let applied = alive.filter(|node| member(node, "applied_at").is_string()).count();
    let whole = member(&said, "complete") == true && applied >= world.plan.nodes;
    Ok((!whole).then(|| said.to_string()))
}

/// Every scope is dropped everywhere, and calls go on.
async fn invalidated(world: &World) -> Result<Line> {
    let key = format!("key:{}", world.key.kid);
    let app = format!("app:{APP}");
    let scopes = ["all", "config", "keys", "apps", key.as_str(), app.as_str()];
    let mut wrong = 0;
    for (turn, scope) in scopes.iter().enumerate() {
        let body = json!({"scope": scope, "reason": "chaos"});
        let id = world.admin(turn)?.change(Method::POST, "/cache/invalidate", &body).await?;
        wrong += usize::from(incomplete(world, turn, id).await?.is_some());
        for (n, address) in world.nodes().into_iter().enumerate() {
            let served = call((0, chat("chat", &world.key)), (n, address)).await.is_served();
            wrong += usize::from(!served);
        }
    }
    let what = "cache invalidation, every scope: not acknowledged, or calls refused";
    Ok(Line::none_of(what, wrong, (scopes.len() * (1 + world.plan.nodes), 12)))
}

/// The audit names who and why.
async fn audited(world: &World) -> Result<Line> {
    let page = world.admin(0)?.call(Method::GET, "/audit?limit=100", &Value::Null).await?;
    let records = member(&page, "items").as_array().cloned().unwrap_or_default();
    let named = |record: &&Value| {
        let text = record.to_string();
        text.contains("\"chaos\"") && text.contains("\"settings\"")
    };
    let found = records.iter().filter(named).count();
    let words = format!("{found} of the last {} records", records.len());
    Ok(Line::check("hatches: audited with reason and actor", found > 20, &words))
}

/// Streams through what is killed: ended when the switch says so, else they finish.
async fn running(world: &World) -> Result<Vec<Line>> {
    let admin = world.admin(0)?;
    for (code, model) in [("long", LONG), ("short", SHORT)] {
        let made = admin.attempt(Method::GET, &format!("/aliases/{code}"), &Value::Null).await?;
        if made.status == 404 {
            alias(&admin, code, &[("main", model)]).await?;
        }
    }
    sleep(Duration::from_millis(100)).await;
    let victim = mint(&admin, &json!({"name": "streams"})).await?;
    let mut cut = Vec::new();
    let mut wrong = 0;
    for path in ["/channels/main".to_owned(), path_of(&victim)] {
        let (late, bad) = ended_by(world, (&path, "cut"), ("long", &victim)).await?;
        cut.extend(late);
        wrong += bad;
    }
    let finishing = mint(&admin, &json!({"name": "streams that finish"})).await?;
    let mut broken = 0;
    for path in ["/channels/main".to_owned(), path_of(&finishing)] {
        broken += ended_by(world, (&path, "finish"), ("short", &finishing)).await?.1;
    }
    let each = 2 * world.plan.nodes;
    Ok(vec![
        Line::times("a kill that cuts: until a running stream on any node ended", &cut, BOUND),
        Line::none_of("streams that were cut without the error event", wrong, (each, each)),
        Line::none_of(
            "a kill that does not cut: streams that did not finish",
            broken,
            (each, each),
        ),
    ])
}

/// Runs a stream on every node and kills what they go through. How long after the reply each ended,
/// and how many did not end as they must.
async fn ended_by(
    world: &World,
    (path, running): (&str, &str),
    (alias, key): (&str, &Key),
) -> Result<(Vec<Duration>, usize)> {
    let mut streams = Vec::new();
    for address in world.nodes() {
        streams.push(Stream::open(address, alias, key).await?);
    }
    let body = json!({"enabled": false, "running": running, "reason": "chaos"});
    let admin = world.admin(1)?;
    admin.call(Method::PATCH, &format!("{path}?wait_ms=0"), &body).await?;
    let replied = Instant::now();
    let reading: Vec<_> = streams.into_iter().map(|stream| tokio::spawn(stream.end())).collect();
    let (mut late, mut wrong) = (Vec::new(), 0);
    for stream in reading {
        let ended = stream.await?;
        late.push(ended.at.saturating_duration_since(replied));
        let done = ended.text.contains("data: [DONE]");
        let right = match running {
            "cut" => ended.text.contains("cut_by_switch") && !done,
            _ => done,
        };
        wrong += usize::from(!ended.whole || !right);
    }
    let (method, path, body) = Lever::row(path).on;
    admin.call(method, &path, &body).await?;
    Ok((late, wrong))
}

/// What is off stays off when every node is started again.
///
/// # Errors
/// When a node does not come back.
pub(crate) async fn survive_restarts(world: &mut World) -> Result<Vec<Line>> {
    let key = key_in_group(world).await?;
    let lane = chat("chat", &key);
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for hatch in
        hatches(&key).into_iter().filter(|hatch| hatch.lever.on.1 != "/circuits/main/close")
    {
        let admin = world.admin(0)?;
        let (method, path, body) = hatch.lever.off.clone();
        admin.call(method, &path, &body).await?;
        world.restart(&[]).await?;
        for (n, address) in world.nodes().into_iter().enumerate() {
            asked += 1;
            let reply = call((0, lane.clone()), (n, address)).await;
            if reply.status != hatch.refusal {
                wrong.push(format!("{} on node {n}: {reply:?}", hatch.what));
            }
        }
        let (method, path, body) = hatch.lever.on;
        admin.call(method, &path, &body).await?;
        serves(world, &lane).await?;
    }
    for why in &wrong {
        eprintln!("anima-chaos: {why}");
    }
    let what = "hatches after a restart of every node: not in force";
    Ok(vec![Line::none_of(what, wrong.len(), (asked, 7 * world.plan.nodes))])
}

async fn serves(world: &World, lane: &Lane) -> Result<()> {
    let began = Instant::now();
    for (n, address) in world.nodes().into_iter().enumerate() {
        while !call((0, lane.clone()), (n, address)).await.is_served() {
            if began.elapsed() > Duration::from_secs(30) {
                bail!("node {n} does not serve again");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
