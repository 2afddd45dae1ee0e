//! Plays the steps of a plan as the body of an HTTP answer.
//!
//! The only place where a plan meets time. It decides nothing: a wait is a tokio timer, a cut is a
//! body error (hyper then closes the connection without ending the body), a silence never wakes.
//! The invariant: the log has been told of a piece before hyper gets its bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::gate::Gate;
use crate::reply::{Piece, Step};
use crate::truth::Record;

/// The connection is to be closed, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the script closes this connection")]
pub(crate) struct Closed;

/// As good as for ever.
const THIRTY_YEARS: Duration = Duration::from_hours(262_800);

/// A body that is a plan being played.
#[derive(Debug)]
pub(crate) struct Player {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<Sleep>>>,
    record: Option<Record>,
    flushed: bool,
    /// The gate, and how often it was opened before.
    gate: Option<(Arc<Gate>, u64)>,
}

impl Player {
    pub(crate) fn new(steps: Vec<Step>, record: Record, gate: (Arc<Gate>, u64)) -> Self {
        let (steps, record, gate) = (steps.into(), Some(record), Some(gate));
        Self { steps, waiting: None, record, flushed: false, gate }
    }

    /// A body that is not part of the simulation.
    pub(crate) fn plain(body: Vec<u8>) -> Self {
        let piece = Piece { bytes: body.into(), ..Piece::default() };
        let steps =
            if piece.bytes.is_empty() { VecDeque::new() } else { [Step::Send(piece)].into() };
        Self { steps, waiting: None, record: None, flushed: false, gate: None }
    }

    fn finish(&mut self) {
        if let Some(record) = &mut self.record {
            record.finish();
        }
    }

    fn send(&mut self, piece: Piece) -> Bytes {
        if let Some(record) = &mut self.record {
            record.sent(&piece);
        }
        if self.steps.is_empty() {
            self.finish();
        }
        piece.bytes
    }
}

/// The moment so many milliseconds from now.
pub(crate) fn moment(ms: u64) -> Instant {
    let now = Instant::now();
    // A script may ask for more than the clock can hold.
    now.checked_add(Duration::from_millis(ms)).unwrap_or_else(|| now + THIRTY_YEARS)
}

impl Body for Player {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Closed>>> {
        loop {
            if let Some(sleep) = &mut self.waiting {
                ready!(sleep.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.steps.pop_front() {
                Some(Step::Wait(ms)) => self.waiting = Some(Box::pin(sleep_until(moment(ms)))),
                Some(Step::Gate) => {
                    if let Some((gate, since)) = &self.gate
                        && gate.poll(*since, cx).is_pending()
                    {
                        self.steps.push_front(Step::Gate);
                        return Poll::Pending;
                    }
                }
                Some(Step::Send(piece)) => {
                    return Poll::Ready(Some(Ok(Frame::data(self.send(piece)))));
                }
                // An error drops what hyper still has buffered, so it gets one turn to flush.
                Some(Step::Cut) if !self.flushed => {
                    self.flushed = true;
                    self.steps.push_front(Step::Cut);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Cut) => {
                    self.finish();
                    return Poll::Ready(Some(Err(Closed)));
                }
                Some(Step::Silence) => {
                    self.steps.push_front(Step::Silence);
                    if let Some(record) = &mut self.record {
                        record.fell_silent();
                    }
                    return Poll::Pending;
                }
                None => {
                    self.finish();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.steps.len(), self.steps.front()) {
            (1, Some(Step::Send(piece))) => {
                SizeHint::with_exact(u64::try_from(piece.bytes.len()).unwrap_or(u64::MAX))
            }
            (0, _) => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
