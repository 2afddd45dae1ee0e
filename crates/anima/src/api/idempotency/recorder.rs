//! A streamed answer, kept while it goes out.
//!
//! Passes frames on at once, all but the last: that one waits until the answer is on disk. A client
//! that leaves a call that drains is replaced by a task that reads on, so that the retry finds the
//! whole answer. Invariant: the recorder never changes what goes out, and stops keeping, not
//! sending, above its bound.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use tokio_util::task::TaskTracker;

use super::{Kept, Turn};

type Keeping = Pin<Box<dyn Future<Output = ()> + Send>>;
type Item = Result<Frame<Bytes>, axum::Error>;

/// What is recorded so far.
#[derive(Debug)]
struct Tape {
    turn: Box<Turn>,
    /// The answer's head.
    head: Kept,
    /// `None` once it is too large.
    body: Option<BytesMut>,
}

impl Tape {
    fn record(&mut self, item: Option<&Item>) {
        let Some(Ok(frame)) = item else { return };
        let (Some(chunk), Some(body)) = (frame.data_ref(), self.body.as_mut()) else { return };
        if body.len() + chunk.len() > self.turn.bytes_max() {
            self.body = None;
        } else {
            body.extend_from_slice(chunk);
        }
    }

    async fn keep(self) {
        match self.body {
            Some(body) => self.turn.keep(self.head.with_body(body.freeze())).await,
            None => self.turn.too_large().await,
        }
    }
}

/// The body of a streamed answer whose call has a key.
pub(super) struct Recorder {
    stream: Body,
    /// Until the answer is being kept.
    tape: Option<Tape>,
    /// The answer is being kept; then this goes out.
    keeping: Option<(Keeping, Option<Item>)>,
    drains: bool,
    /// Shutdown waits for what is spawned here.
    tasks: TaskTracker,
}

impl Recorder {
    pub(super) fn new(turn: Turn, parts: &Parts, stream: Body, drains: bool) -> Self {
        let tasks = turn.relay.tasks.clone();
        let head = Kept::of(parts, Bytes::new());
        let tape = Tape { turn: Box::new(turn), head, body: Some(BytesMut::new()) };
        Self { stream, tape: Some(tape), keeping: None, drains, tasks }
    }

    fn poll_keeping(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let Some((keeping, last)) = self.keeping.as_mut() else {
            return Poll::Ready(None);
        };
        ready!(keeping.as_mut().poll(cx));
        let last = last.take();
        self.keeping = None;
        Poll::Ready(last)
    }
}

impl http_body::Body for Recorder {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        let Some(tape) = this.tape.as_mut() else {
            return this.poll_keeping(cx);
        };
        let item = ready!(Pin::new(&mut this.stream).poll_frame(cx));
        tape.record(item.as_ref());
        let is_last = item.is_none() || this.stream.is_end_stream();
        if !is_last {
            return Poll::Ready(item);
        }
        if let Some(tape) = this.tape.take() {
            this.keeping = Some((Box::pin(tape.keep()), item));
        }
        this.poll_keeping(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.tape.is_none() && self.keeping.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if let Some((keeping, _unsent)) = self.keeping.take() {
            self.tasks.spawn_on(keeping, &runtime);
        }
        // Without draining, the stream that is dropped with this settles what went out, and its
        // hold says so to whoever asks again.
        if let Some(tape) = self.tape.take().filter(|_| self.drains) {
            let stream = std::mem::take(&mut self.stream);
            self.tasks.spawn_on(read_on(stream, tape), &runtime);
        }
    }
}

/// Goes on in place of a client that has left, within the bounds of draining.
async fn read_on(mut stream: Body, mut tape: Tape) {
    let relay = Arc::clone(&tape.turn.relay);
    let reading = async {
        loop {
            let item = stream.frame().await;
            tape.record(item.as_ref());
            if item.is_none() {
                return;
            }
        }
    };
    // Above the bound the stream is dropped: it settles what it has, and its hold tells.
    if tokio::time::timeout(relay.limits.drain, reading).await.is_ok() {
        relay.metrics.drains.inc();
        tape.keep().await;
    }
}
