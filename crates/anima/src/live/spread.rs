//! Hears of changes, and looks for those that it did not hear of.
//!
//! A message only rings the bell: what changed is read from the database by its number. Whether one
//! was rung or not, the number is read every second, so that a lost message costs at most that
//! (SPEC 10; `reliability` 5). Invariant: nothing here decides anything from a message's content.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Live;

/// Between two looks at the number of the last change.
const LOOK: Duration = Duration::from_secs(1);
/// Between two signs of life; other nodes believe in one for [`super::propagation::ALIVE_MS`].
const SIGN: Duration = Duration::from_secs(5);
/// Between two readings of everything, whatever the numbers say.
const WHOLE: Duration = Duration::from_mins(10);

/// What became of a look.
pub type Seen<'a> = &'a (dyn Fn(bool) + Send + Sync);

/// Keeps this node up to date until `shutdown`. `down` is told after each look whether the database
/// did not answer.
pub async fn run(live: Arc<Live>, shutdown: CancellationToken, down: Seen<'_>) {
    let mut every = tokio::time::interval(LOOK);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut signed, mut whole) = (None, Instant::now());
    let mut ear = live.ear().await;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            // Whatever it says, and also when it says that something was missed.
            _ = ear.next() => {}
            () = live.bell.notified() => {}
            () = shutdown.cancelled() => return,
        }
        let caught_up = live.catch_up().await;
        down(caught_up.is_err());
        if let Err(error) = &caught_up {
            tracing::warn!(%error, "failed to look for changes of the configuration");
            continue;
        }
        if signed.is_none_or(|at: Instant| at.elapsed() >= SIGN) && live.acknowledge().await.is_ok()
        {
            signed = Some(Instant::now());
        }
        if whole.elapsed() >= WHOLE {
            whole = Instant::now();
            if let Err(error) = live.compare().await {
                tracing::warn!(%error, "failed to compare the configuration with the database");
            }
        }
    }
}
