//! Ends streams that nobody reads.
//!
//! Their bodies are not polled then, and would hold the money, the channel's place and the lease
//! for ever: nothing but this notices that their time is over or that they are cut. One task looks
//! at all of them: a task for each would cost a short stream a tenth of its time. Invariant: a
//! stream that is read ends by itself; it is given [`TURN`] to do so.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior};

use anima_core::failure::Failure;

use super::super::Relay;
use super::{Flow, Phase, end};

/// How long a body has to end by itself when its time is over, before it is taken for one that
/// nobody reads.
const TURN: Duration = Duration::from_secs(2);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// The streams of a node.
#[derive(Debug, Default)]
pub struct Unread(Mutex<Vec<Watched>>);

#[derive(Debug)]
struct Watched {
    phase: Weak<Mutex<Phase>>,
    /// Since when its time has been over.
    over: Option<Instant>,
}

impl Unread {
    /// Looks after a stream from now on.
    pub(super) fn watch(&self, phase: &Arc<Mutex<Phase>>) {
        self.0.lock().push(Watched { phase: Arc::downgrade(phase), over: None });
    }

    /// Ends what nobody reads, and forgets what has ended.
    fn look(&self, now: Instant) {
        // Taken out, so that no stream that begins waits for the look.
        let mut all = std::mem::take(&mut *self.0.lock());
        all.retain_mut(|stream| stream.goes_on(now));
        self.0.lock().append(&mut all);
    }
}

impl Watched {
    fn goes_on(&mut self, now: Instant) -> bool {
        let Some(shared) = self.phase.upgrade() else { return false };
        // Locked by whoever reads it.
        let Some(mut phase) = shared.try_lock() else { return true };
        let Phase::Relaying(flow) = &*phase else { return false };
        if now < flow.deadline && !flow.entered.is_woken() {
            return true;
        }
        let over = *self.over.get_or_insert(now);
        if now.saturating_duration_since(over) < TURN {
            return true;
        }
        leave(&mut phase);
        false
    }
}

/// Ends the relaying for a client that is as good as gone. Should it read on, it gets the end.
fn leave(phase: &mut Phase) {
    let (sender, receiver) = oneshot::channel();
    let settling = Box::pin(async move { receiver.await.ok().flatten() });
    if let Phase::Relaying(flow) = std::mem::replace(phase, Phase::Settling(settling)) {
        let tasks = flow.relay.tasks.clone();
        tasks.spawn(async move { drop(sender.send(left(flow).await)) });
    }
}

async fn left(flow: Box<Flow>) -> Option<bytes::Bytes> {
    let failure = if flow.entered.is_cut() {
        Failure::CutOff
    } else if flow.entered.is_woken() {
        Failure::ShuttingDown
    } else {
        Failure::ClientGone
    };
    end(flow, Some(failure)).await
}

/// Looks again and again, until the task is aborted.
pub async fn run(relay: Arc<Relay>) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        relay.unread.look(Instant::now());
    }
}
