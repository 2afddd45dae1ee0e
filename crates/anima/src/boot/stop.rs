//! When a node that was told to stop takes no connection any more.
//!
//! Balancers look at readiness from time to time: until they have seen that it is off they send
//! calls here, which would be refused if the address were free at once. Not here: what becomes of
//! calls that run. Invariant: readiness is off from the word on, and everything is served as before
//! until the delay is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// How long a stop may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopping {
    /// From not ready to no connection.
    pub(super) delay: Duration,
    /// From then until running calls are ended; and again for what they leave behind.
    pub(super) within: Duration,
}

impl Stopping {
    pub(super) fn of(settings: &Settings) -> Self {
        let [delay, within] = [settings.shutdown_delay_ms, settings.shutdown_timeout_ms];
        Self { delay: Duration::from_millis(delay), within: Duration::from_millis(within) }
    }
}

/// Ends `delay` after the word to stop, at which the node says that it is `draining`.
pub(super) async fn stopped(shutdown: CancellationToken, draining: &AtomicBool, delay: Duration) {
    shutdown.cancelled().await;
    draining.store(true, Ordering::Relaxed);
    if !delay.is_zero() {
        tracing::info!(?delay, "told to stop: not ready, and serving until the delay is over");
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn readiness_goes_at_once_and_the_listener_after_the_delay() {
        let (shutdown, draining) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let (word, seen) = (shutdown.clone(), Arc::clone(&draining));
        let serving = tokio::spawn(async move { stopped(word, &seen, SECOND * 5).await });
        tokio::time::sleep(SECOND * 60).await;
        assert!(!draining.load(Ordering::Relaxed) && !serving.is_finished());
        shutdown.cancel();
        tokio::time::sleep(SECOND / 1_000).await;
        assert!(draining.load(Ordering::Relaxed), "not ready");
        tokio::time::sleep(SECOND * 4).await;
        assert!(!serving.is_finished(), "connections are taken");
        tokio::time::sleep(SECOND).await;
        assert!(serving.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_delay_both_go_together() {
        let (shutdown, draining) = (CancellationToken::new(), AtomicBool::new(false));
        shutdown.cancel();
        let began = tokio::time::Instant::now();
        stopped(shutdown, &draining, Duration::ZERO).await;
        assert!(draining.load(Ordering::Relaxed));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
