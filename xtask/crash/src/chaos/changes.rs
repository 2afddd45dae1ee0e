//! Changes of the configuration whose messages are all dropped: every node finds them by itself.
//!
//! Time is taken from the admin's reply to the first look at which a node names that revision.
//! Invariant: each change is made by another node than the one before. Source: SPEC 5 and
//! `reliability` K1.

use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use anima_simulator::proxy::Mode;

use super::table::Line;
use super::world::{World, chat};
use crate::operator::member;

/// A lost message heals within this (SPEC 5).
const BOUND: Duration = Duration::from_mins(1);

/// Between two looks at a node.
const LOOK: Duration = Duration::from_millis(10);

/// See the module.
///
/// # Errors
/// When a change is refused, or never arrives.
pub(crate) async fn without_messages(world: &mut World) -> Result<Vec<Line>> {
    world.restart(&[("ANIMA_DATABASE_LISTEN", "off")]).await?;
    world.stores.set(Mode::Mute, Mode::Open);
    let load = world.load(vec![chat("chat", &world.key)]);
    let mut late = Vec::new();
    for turn in 0..usize::try_from(world.plan.changes)? {
        late.push(change(world, turn).await?);
    }
    let (replies, _) = load.stop().await?;
    let refused = replies.iter().filter(|reply| !reply.is_served()).count();
    world.stores.set(Mode::Open, Mode::Open);
    world.restart(&[]).await?;
    Ok(vec![
        Line::times(
            "configuration changes, every message dropped: in force everywhere",
            &late,
            BOUND,
        ),
        Line::none_of("calls refused meanwhile", refused, (replies.len(), 1)),
    ])
}

/// Makes one change, and says how long it took until the last node had it.
async fn change(world: &World, turn: usize) -> Result<Duration> {
    let admin = world.admin(turn)?;
    let row = admin.call(Method::GET, "/aliases/chat", &Value::Null).await?;
    let attempts = 2 + turn % 3;
    let body =
        json!({"version_no": member(&row, "version_no"), "retry": {"max_attempts": attempts}});
    let rev = admin.change(Method::PATCH, "/aliases/chat?wait_ms=0", &body).await?;
    let replied = Instant::now();
    for n in 0..world.plan.nodes {
        while world.revision(n).await? < rev {
            if replied.elapsed() > BOUND * 2 {
                bail!("revision {rev} does not arrive at node {n}");
            }
            sleep(LOOK).await;
        }
    }
    Ok(replied.elapsed())
}
