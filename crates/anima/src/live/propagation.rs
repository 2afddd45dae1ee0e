//! Who has which change in force, and since when.
//!
//! The id of a change's propagation is its revision: nodes acknowledge by number, in order. A node
//! that was heard of lately is expected to have it. Invariant: `complete` is never said while such
//! a node has not acknowledged.

use std::time::Duration;

use serde_json::{Value, json};

use anima_core::clock::{Clock, Timestamp};
use anima_store::config::Error;
use anima_store::config::publish::{NodeState, PublishStore};

/// A node that was not heard of for this long, in milliseconds, is taken for gone: three signs of
/// life missed.
pub const ALIVE_MS: i64 = 15_000;

/// Between two looks of one who waits.
const LOOK: Duration = Duration::from_millis(20);

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Propagation {
    /// The change's revision.
    pub rev: i64,
    /// Nodes that have it, and nodes that are alive and should.
    pub nodes: Vec<NodeState>,
    /// When this was looked up.
    pub at: Timestamp,
}

impl Propagation {
    /// Whether every node that is alive has it in force.
    pub fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| node.applied_at.is_some() || !self.is_alive(node))
    }

    fn is_alive(&self, node: &NodeState) -> bool {
        node.seen_at.plus_millis(ALIVE_MS) > self.at
    }

    /// As the admin API shows it.
    pub fn to_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            json!({
                "node": node.node,
                "applied_at": node.applied_at,
                "rev": node.rev,
                "seen_at": node.seen_at,
                "alive": self.is_alive(node),
            })
        });
        let last = self.nodes.iter().filter_map(|node| node.applied_at).max();
        json!({
            "id": self.rev,
            "complete": self.is_complete(),
            "last_applied_at": last.filter(|_| self.is_complete()),
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }
}

/// How far a change has come by now.
///
/// # Errors
/// When the store cannot be read.
pub async fn look(
    store: &dyn PublishStore,
    rev: i64,
    clock: &dyn Clock,
) -> Result<Propagation, Error> {
    let mut nodes = store.acknowledged(rev).await?;
    let at = clock.now();
    nodes.retain(|node| node.applied_at.is_some() || node.seen_at.plus_millis(ALIVE_MS) > at);
    Ok(Propagation { rev, nodes, at })
}

/// The same, after every living node has it or the time is over.
///
/// # Errors
/// When the store cannot be read.
pub async fn wait(
    store: &dyn PublishStore,
    rev: i64,
    clock: &dyn Clock,
    within: Duration,
) -> Result<Propagation, Error> {
    let until = tokio::time::Instant::now() + within;
    loop {
        let found = look(store, rev, clock).await?;
        if found.is_complete() || tokio::time::Instant::now() + LOOK > until {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(seen: i64, applied: Option<i64>) -> NodeState {
        let at = |millis: i64| Timestamp::from_micros(0).plus_millis(millis);
        NodeState { node: "n".to_owned(), rev: 1, seen_at: at(seen), applied_at: applied.map(at) }
    }

    fn propagation(nodes: Vec<NodeState>) -> Propagation {
        Propagation { rev: 1, nodes, at: Timestamp::from_micros(0).plus_millis(20_000) }
    }

    #[test]
    fn a_change_is_complete_when_every_living_node_has_it() {
        assert!(propagation(vec![node(19_000, Some(5)), node(18_000, Some(7))]).is_complete());
        assert!(!propagation(vec![node(19_000, Some(5)), node(18_000, None)]).is_complete());
        assert!(propagation(vec![node(19_000, Some(5)), node(4_000, None)]).is_complete());
        let shown = propagation(vec![node(19_000, Some(5)), node(18_000, Some(7))]).to_json();
        assert_eq!(shown["last_applied_at"], "1970-01-01T00:00:00.007Z");
    }
}
