//! The upstream calls of a checkpoint, as one JSON text in the hold's row.
//!
//! Nobody queries it; it is read when the hold is taken over and goes when the hold is closed.
//! Invariant: names of members never change their meaning, for an older node's text may be read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use anima_core::clock::Timestamp;
use anima_core::ledger::{Attempt, Checkpoint, PriceRef, Running};
use anima_core::usage::Usage;

use super::Error;
use super::spool::record::{Call, attempt, call};

#[derive(Serialize, Deserialize)]
struct Trail {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<Call>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<Open>,
}

#[derive(Serialize, Deserialize)]
struct Open {
    n: i16,
    channel: Arc<str>,
    credential: Arc<str>,
    model: Arc<str>,
    cost_price: (Arc<str>, i64),
    upstream_ref: Option<String>,
    usage: Usage,
    delivered: bool,
    started_at: i64,
}

/// The text of a checkpoint's upstream calls.
///
/// # Errors
/// [`Error::Refused`].
pub(super) fn write(checkpoint: &Checkpoint) -> Result<String, Error> {
    let trail = Trail {
        ended: checkpoint.ended.iter().map(call).collect(),
        running: checkpoint.running.as_ref().map(open),
    };
    serde_json::to_string(&trail).map_err(|e| Error::Refused(e.to_string()))
}

/// Reads the text. What cannot be read is as good as no checkpoint, and is logged: the hold has to
/// be resolved all the same.
pub(super) fn read(text: Option<&str>) -> (Vec<Attempt>, Option<Running>) {
    let Some(text) = text else { return (Vec::new(), None) };
    match serde_json::from_str::<Trail>(text) {
        Ok(trail) => (trail.ended.into_iter().map(attempt).collect(), trail.running.map(running)),
        Err(error) => {
            tracing::error!(%error, "a checkpoint cannot be read");
            (Vec::new(), None)
        }
    }
}

fn open(running: &Running) -> Open {
    Open {
        n: running.n,
        channel: Arc::clone(&running.channel),
        credential: Arc::clone(&running.credential),
        model: Arc::clone(&running.model),
        cost_price: (Arc::clone(&running.cost_price.code), running.cost_price.version_no),
        upstream_ref: running.upstream_ref.clone(),
        usage: running.usage,
        delivered: running.delivered,
        started_at: running.started_at.micros(),
    }
}

fn running(open: Open) -> Running {
    let (code, version_no) = open.cost_price;
    Running {
        n: open.n,
        channel: open.channel,
        credential: open.credential,
        model: open.model,
        cost_price: PriceRef { code, version_no },
        upstream_ref: open.upstream_ref,
        usage: open.usage,
        delivered: open.delivered,
        started_at: Timestamp::from_micros(open.started_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::fixtures;

    #[test]
    fn the_upstream_calls_of_a_checkpoint_read_back() {
        let checkpoint = fixtures::checkpoint(&fixtures::hold(1, "acme", 100), 40);
        let text = write(&checkpoint).unwrap();
        assert_eq!(read(Some(&text)), (checkpoint.ended, checkpoint.running));
        assert!(text.len() < 700, "{text}");
    }

    #[test]
    fn a_text_that_cannot_be_read_is_no_checkpoint() {
        assert_eq!(read(Some("{")), (Vec::new(), None));
        assert_eq!(read(Some("{}")), (Vec::new(), None));
        assert_eq!(read(None), (Vec::new(), None));
    }
}
