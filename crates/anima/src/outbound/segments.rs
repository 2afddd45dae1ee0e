//! A request body made of slices that are sent one after the other, without joining them.
//!
//! A pass-through body is the client's own buffer with a few spliced members; large ones are never
//! copied. Invariant: the size is known, so that `content-length` is sent and no chunked framing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

/// Below this size joining the slices costs less than writing them one by one.
const JOIN_BELOW: usize = 16 * 1024;

/// The slices, last first, so that the next is popped from the end.
#[derive(Debug, Default)]
pub struct Segments {
    reversed: Vec<Bytes>,
    remaining: u64,
    /// Set when the first slice is taken.
    begun: Option<Arc<AtomicBool>>,
}

impl Segments {
    /// A body of these slices in order.
    pub fn new(mut slices: Vec<Bytes>) -> Self {
        slices.retain(|s| !s.is_empty());
        let total: usize = slices.iter().map(Bytes::len).sum();
        if slices.len() > 1 && total < JOIN_BELOW {
            let mut joined = BytesMut::with_capacity(total);
            for slice in &slices {
                joined.extend_from_slice(slice);
            }
            slices = vec![joined.freeze()];
        }
        slices.reverse();
        Self { reversed: slices, remaining: total as u64, begun: None }
    }

    /// Says in `begun` when the body begins to leave: until then the other side has none of it.
    #[must_use]
    pub fn telling(self, begun: Arc<AtomicBool>) -> Self {
        Self { begun: Some(begun), ..self }
    }
}

impl Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(begun) = self.begun.take() {
            begun.store(true, Ordering::Relaxed);
        }
        let next = self.reversed.pop();
        if let Some(slice) = &next {
            self.remaining = self.remaining.saturating_sub(slice.len() as u64);
        }
        Poll::Ready(next.map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.reversed.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
