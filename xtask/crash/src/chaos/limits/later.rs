//! Tasks whose workers are killed again and again: each ends once and is charged once.
//!
//! Every node takes calls and makes them, and is killed with `kill -9` in turn. Clients send each
//! call until they have its 202, under an `Idempotency-Key`. Invariant: what a task came to is
//! judged by its row, the provider's truth log and the wallet together. Source: SPEC 6,
//! `docs/tasks.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anima_simulator::Call;
use anyhow::{Result, bail};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::rows::{self, Charged};
use crate::books::{self, Books, Leg, Task};
use crate::chaos::load::Lane;
use crate::chaos::table::Line;
use crate::chaos::world::World;
use crate::http_client::{Ask, whole};
use crate::money::{SALE, dollars, nano, owed};
use crate::operator::Key;

/// The app that pays for tasks, and what it has.
const APP: &str = "later";
const CREDIT: &str = "100000.00";

/// Workers of a node, and keys: one key has at most half of a node's workers.
const WORKERS: u64 = 8;
const KEYS: usize = 4;

/// Between two kills.
const PAUSE: Duration = Duration::from_millis(1_500);

/// Clients that send.
const SENDERS: usize = 8;

/// When the last kill is over, leases and recovery need a minute or two.
const ENDED_WITHIN: Duration = Duration::from_mins(6);

/// See the module.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn end_once(world: &mut World) -> Result<Vec<Line>> {
    let (count, kills) = (world.plan.tasks, world.plan.kills);
    rows::app(world, APP, None).await?;
    rows::alias(world, "later", (&format!("+latency:{}", lasts_ms(world)), Charged::Tokens))
        .await?;
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        let row = json!({"name": "later", "queue_mode": "ASYNC", "max_queue": 100_000});
        let key = rows::key(world, APP, &row).await?;
        world.kept.judged_apart(&key);
        keys.push(key);
    }
    world.restart(&[("ANIMA_TASK_WORKERS", &WORKERS.to_string())]).await?;
    let began = Instant::now();
    let lanes: Vec<Lane> = keys.iter().map(|key| rows::lane("later", key)).collect();
    let mut sending = send(&world.nodes(), &lanes, count);
    for kill in 0..usize::try_from(kills)? {
        sleep(PAUSE).await;
        let node = kill % world.plan.nodes;
        world.fleet.kill(node)?;
        world.fleet.launch(node)?;
        world.fleet.ready(node).await?;
    }
    while let Some(sent) = sending.join_next().await {
        sent?;
    }
    let ended = ended(world, (&keys, count)).await?;
    let title = format!("tasks, {count} with {kills} kills, {} s", began.elapsed().as_secs());
    judged(world, &title, &ended).await
}

/// How long a call must last so that workers are busy for as long as they are killed.
fn lasts_ms(world: &World) -> u64 {
    let kills_ms = world.plan.kills * u64::try_from(PAUSE.as_millis()).unwrap_or_default();
    let workers = world.plan.nodes as u64 * WORKERS;
    (kills_ms * workers / world.plan.tasks.max(1) as u64).clamp(50, 2_000)
}

/// Sends so many calls, each until it is taken.
fn send(nodes: &[SocketAddr], lanes: &[Lane], count: usize) -> JoinSet<()> {
    let (next, mut sending) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..SENDERS {
        let (next, nodes, lanes) = (Arc::clone(&next), nodes.to_vec(), lanes.to_vec());
        sending.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(lane) = lanes.get(n % lanes.len().max(1)).filter(|_| n < count) else {
                    break;
                };
                until_taken(&nodes, lane, n).await;
            }
        });
    }
    sending
}

async fn until_taken(nodes: &[SocketAddr], lane: &Lane, n: usize) {
    for node in nodes.iter().cycle().skip(n) {
        let ask = Ask {
            address: *node,
            method: lane.method.clone(),
            path: lane.path.clone(),
            token: lane.token.clone(),
            body: lane.body.clone(),
            idempotency_key: Some(format!("later-{n}")),
        };
        if let Ok(Ok(answer)) = timeout(Duration::from_secs(10), whole(&ask)).await
            && answer.status == 202
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// All tasks of the keys, when all have ended and what was to be given back is.
async fn ended(world: &World, (keys, count): (&[Key], usize)) -> Result<Vec<Task>> {
    let until = Instant::now() + ENDED_WITHIN;
    loop {
        let all = books::tasks(&world.stores.database).await?;
        let of_ours = |task: &Task| keys.iter().any(|key| key.kid == task.kid);
        let ours: Vec<Task> = all.into_iter().filter(of_ours).collect();
        let over = ["succeeded", "failed", "cancelled", "expired"];
        let is_open = |task: &&Task| task.is_due || !over.contains(&task.state.as_str());
        let open = ours.iter().filter(is_open).count();
        if open == 0 && ours.len() >= count {
            return Ok(ours);
        }
        if Instant::now() > until {
            let first: Vec<_> = ours.iter().filter(is_open).take(3).collect();
            bail!("{open} of {} tasks do not end: {first:?}", ours.len());
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// What is wrong with tasks, by kind.
#[derive(Default)]
struct Wrong {
    ended: usize,
    lost: usize,
    double: usize,
    phantom: usize,
    amount: usize,
}

async fn judged(world: &mut World, title: &str, tasks: &[Task]) -> Result<Vec<Line>> {
    world.settled().await?;
    let truth = world.provider.truth(Duration::from_mins(1)).await?;
    let books = Books::read(&world.stores.database).await?;
    let model = rows::model_of("later");
    let mut made: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in truth.iter().filter(|c| c.model.split('+').next() == Some(model.as_str())) {
        made.entry(call.request_id.as_deref().unwrap_or_default()).or_default().push(call);
    }
    let heard: usize = made.values().map(Vec::len).sum();
    let (mut wrong, mut charged, mut failed) = (Wrong::default(), 0, 0);
    for task in tasks {
        let calls = task.call.as_deref().and_then(|id| made.remove(id)).unwrap_or_default();
        let legs = task.call.as_ref().and_then(|id| books.legs.get(id));
        charged += judge(task, (&calls, legs.map_or(&[], Vec::as_slice)), &mut wrong)?;
        failed += usize::from(task.state == "failed");
    }
    wrong.phantom += made.len();
    for id in made.keys().take(3) {
        eprintln!("anima-chaos: tasks: no task knows of the call {id}");
    }
    let (posted, _) = books.wallets.get(&format!("wallet:{APP}")).copied().unwrap_or_default();
    let off = nano(CREDIT)? - posted - charged;
    let of = (tasks.len(), world.plan.tasks);
    let line = |what: &str, count| Line::none_of(&format!("{title}: {what}"), count, of);
    let succeeded = tasks.iter().filter(|task| task.state == "succeeded").count();
    let found = format!("{succeeded} succeeded, {failed} failed and not charged, {heard} calls");
    Ok(vec![
        line("ended as nothing that a kill explains", wrong.ended),
        line("lost: answered, and not charged or not at the provider", wrong.lost),
        line("double: sent or charged twice", wrong.double),
        line("phantom: charged without an answer, or calls of no task", wrong.phantom),
        line("charged otherwise than the truth log says", wrong.amount),
        Line::check(&format!("{title}: the wallet against the truth log"), off == 0, &{
            format!("{} USD off", dollars(off))
        }),
        Line::check(&format!("{title}: how they ended"), succeeded + failed == of.0, &found),
    ])
}

/// What a task is to be charged.
fn judge(task: &Task, (calls, legs): (&[&Call], &[Leg]), wrong: &mut Wrong) -> Result<i64> {
    let sold: i64 = legs.iter().filter_map(|leg| leg.sold().or_else(|| leg.returned())).sum();
    let sales = legs.iter().filter(|leg| leg.is_of_closing() && leg.sold().is_some()).count();
    let is_wrong = |count: &mut usize, holds: bool| {
        if !holds {
            eprintln!("anima-chaos: tasks: {task:?}, {} calls, sold {sold}", calls.len());
            *count += 1;
        }
    };
    is_wrong(&mut wrong.double, calls.len() <= 1 && sales <= 1);
    if task.state == "succeeded" {
        let worth: i64 = calls.iter().map(|call| owed(&SALE, &call.billed)).sum::<Result<i64>>()?;
        is_wrong(&mut wrong.lost, !calls.is_empty() && sold > 0);
        is_wrong(&mut wrong.amount, sold == worth);
        return Ok(worth);
    }
    let explained = task.error.as_deref() == Some("task_answer_lost");
    is_wrong(&mut wrong.ended, task.state == "failed" && explained);
    is_wrong(&mut wrong.phantom, sold == 0);
    Ok(0)
}
