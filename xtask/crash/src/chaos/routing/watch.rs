//! What every node shows of its circuits, again and again, as an operator's page would.
//!
//! Not a judgement. Invariant: an opening that lasts longer than [`LOOK`] on any node is seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::stamp;
use crate::chaos::world::World;
use crate::operator::{Admin, member, text};

/// Between two looks at all nodes.
const LOOK: Duration = Duration::from_millis(100);

/// A circuit: its channel, and the model unless it is the channel as a whole.
pub(super) type Place = (String, Option<String>);

/// An open circuit, as a node showed it. Microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) since_us: i64,
    /// The latest that was shown.
    pub(super) until_us: i64,
    pub(super) cause: String,
    /// Which nodes showed it.
    pub(super) nodes: Vec<usize>,
}

type Seen = Arc<Mutex<BTreeMap<Place, Vec<Opening>>>>;

/// Somebody who looks.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Seen,
    work: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Watch {
    /// Starts looking at channels whose code begins so.
    pub(super) fn start(world: &World, prefix: &'static str) -> Self {
        let seen = Seen::default();
        let work = tokio::spawn(look(world.nodes(), prefix, Arc::clone(&seen)));
        Self { seen, work }
    }

    /// What was seen so far of one place, by their beginning.
    pub(super) fn of(&self, place: &Place) -> Vec<Opening> {
        let mut found = self.seen.lock().get(place).cloned().unwrap_or_default();
        found.sort_by_key(|opening| opening.since_us);
        found
    }

    /// Ends, and gives everything.
    pub(super) fn end(self) -> BTreeMap<Place, Vec<Opening>> {
        std::mem::take(&mut *self.seen.lock())
    }
}

async fn look(nodes: Vec<SocketAddr>, prefix: &'static str, seen: Seen) {
    loop {
        for (n, node) in nodes.iter().enumerate() {
            // A node that does not answer shows nothing.
            if let Ok(shown) = shown(Admin { node: *node }, prefix).await {
                let mut seen = seen.lock();
                for (place, opening) in shown {
                    add(seen.entry(place).or_default(), opening, n);
                }
            }
        }
        sleep(LOOK).await;
    }
}

fn add(known: &mut Vec<Opening>, mut opening: Opening, node: usize) {
    match known.iter_mut().find(|one| one.since_us == opening.since_us) {
        None => {
            opening.nodes.push(node);
            known.push(opening);
        }
        Some(one) => {
            one.until_us = one.until_us.max(opening.until_us);
            if !one.nodes.contains(&node) {
                one.nodes.push(node);
            }
        }
    }
}

/// Circuits that are not closed on one node.
async fn shown(admin: Admin, prefix: &str) -> Result<Vec<(Place, Opening)>> {
    let page = admin.call(Method::GET, "/circuits", &Value::Null).await?;
    let mut found = Vec::new();
    for channel in member(&page, "items").as_array().into_iter().flatten() {
        let code = text(channel, "channel")?;
        if !code.starts_with(prefix) {
            continue;
        }
        for circuit in member(channel, "circuits").as_array().into_iter().flatten() {
            if member(circuit, "cause").is_null() {
                continue;
            }
            let model = member(circuit, "model").as_str().map(str::to_owned);
            let opening = Opening {
                since_us: stamp::micros(&text(circuit, "since")?)?,
                until_us: stamp::micros(&text(circuit, "until")?)?,
                cause: text(circuit, "cause")?,
                nodes: Vec::new(),
            };
            found.push(((code.clone(), model), opening));
        }
    }
    Ok(found)
}

/// Waits until every node shows so many circuits of these channels that are not closed.
///
/// # Errors
/// When that never is so.
pub(super) async fn until_open(
    world: &World,
    prefix: &str,
    (wanted, within): (impl Fn(usize) -> bool, Duration),
) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let mut all = true;
        for turn in 0..world.plan.nodes {
            all &= wanted(shown(world.admin(turn)?, prefix).await?.len());
        }
        if all {
            return Ok(began.elapsed());
        }
        if began.elapsed() > within {
            bail!("the circuits of {prefix} are not as they must be after {within:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}
