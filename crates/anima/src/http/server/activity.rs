//! What one connection is busy with.
//!
//! A request counts from when its head was read until its answer has been handed over whole or was
//! dropped. Not here: what follows when a connection is busy with nothing. Invariant: whoever is
//! served is never idle, however long it takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose head was read, ever.
    begun: AtomicU64,
    /// Requests that are being served.
    running: AtomicUsize,
    /// Rings when the last of them has ended.
    rest: Notify,
}

impl Activity {
    /// A request's head has been read: it counts until the value is dropped.
    pub(super) fn serve(self: &Arc<Self>) -> Serving {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Serving(Arc::clone(self))
    }

    /// How many requests there have been.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether something is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// Ends when nothing has been served for so long.
    pub(super) async fn idle(&self, within: Duration) {
        loop {
            while self.is_busy() {
                self.rest.notified().await;
            }
            let before = self.begun();
            tokio::time::sleep(within).await;
            if !self.is_busy() && self.begun() == before {
                return;
            }
        }
    }
}

/// A request that is being served.
#[derive(Debug)]
pub(super) struct Serving(Arc<Activity>);

impl Drop for Serving {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.rest.notify_one();
        }
    }
}

/// The body of an answer: its request is served as long as this lives.
#[derive(Debug)]
pub(super) struct Counted {
    body: axum::body::Body,
    _serving: Serving,
}

impl Counted {
    pub(super) fn new(body: axum::body::Body, serving: Serving) -> Self {
        Self { body, _serving: serving }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance, timeout};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(75);

    #[tokio::test(start_paused = true)]
    async fn what_is_served_is_never_idle_and_rest_counts_from_its_end() {
        let activity = Arc::new(Activity::default());
        let serving = activity.serve();
        assert!(timeout(WITHIN * 100, activity.idle(WITHIN)).await.is_err());
        let start = Instant::now();
        drop(serving);
        activity.idle(WITHIN).await;
        assert_eq!(start.elapsed().as_secs(), WITHIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_between_begins_the_time_anew() {
        let activity = Arc::new(Activity::default());
        let start = Instant::now();
        let idle = activity.idle(WITHIN);
        let asks = async {
            advance(WITHIN / 2).await;
            drop(activity.serve());
        };
        tokio::join!(idle, asks);
        assert!(start.elapsed() >= WITHIN * 3 / 2, "{:?}", start.elapsed());
    }
}
