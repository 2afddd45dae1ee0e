//! Looks at an answer's bytes as they come, and says at the end whether it was good.
//!
//! Keeps only the tail: enough to know that the answer ended as it should.
//! Invariant: a stream is good only if its last event is `[DONE]`.

use std::io;
use std::time::Instant;

use super::{Record, Shape};

const END: &[u8] = b"data: [DONE]";

/// Longer than `END` with its line breaks.
const TAIL_BYTES: usize = 32;

/// One answer on its way.
pub(super) struct Watch {
    shape: Shape,
    due: Instant,
    first: Option<Instant>,
    bytes: usize,
    events: u64,
    tail: Vec<u8>,
}

impl Watch {
    /// For a request that was due at `due`.
    pub(super) fn new(shape: Shape, due: Instant) -> Self {
        Self {
            shape,
            due,
            first: None,
            bytes: 0,
            events: 0,
            tail: Vec::with_capacity(2 * TAIL_BYTES),
        }
    }

    /// The next bytes of the body.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.first.is_none() {
            self.first = Some(Instant::now());
        }
        self.bytes += bytes.len();
        if self.shape == Shape::Stream {
            self.count_events(bytes);
        }
        let last = bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
        self.tail.extend_from_slice(last);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }

    /// An event ends with an empty line, whose two line breaks may come in two pieces.
    fn count_events(&mut self, bytes: &[u8]) {
        let mut before = self.tail.last().copied().unwrap_or(0);
        for byte in bytes {
            self.events += u64::from(*byte == b'\n' && before == b'\n');
            before = *byte;
        }
    }

    /// At the end of the body.
    ///
    /// # Errors
    /// When the answer was not what was asked for.
    pub(super) fn verdict(&self, status: u16) -> io::Result<Record> {
        let end = self.tail.trim_ascii_end();
        if status != 200 {
            return Err(io::Error::other(format!("status {status}")));
        }
        match self.shape {
            Shape::Json if !end.ends_with(b"}") => Err(io::Error::other("half an object")),
            Shape::Stream if !end.ends_with(END) => Err(io::Error::other("no [DONE]")),
            Shape::Json | Shape::Stream => Ok(Record {
                latency_us: micros(self.due, Instant::now()),
                first_byte_us: micros(self.due, self.first.unwrap_or(self.due)),
                events: self.events,
                bytes: self.bytes.try_into().unwrap_or(u64::MAX),
            }),
        }
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(pieces: &[&[u8]]) -> Watch {
        let mut watch = Watch::new(Shape::Stream, Instant::now());
        for piece in pieces {
            watch.take(piece);
        }
        watch
    }

    #[test]
    fn a_stream_without_its_end_is_a_failure() {
        assert!(watched(&[b"data: {}\n\n"]).verdict(200).is_err());
        assert!(watched(&[b"data: {}\n\ndata: [DONE]\n\n"]).verdict(500).is_err());
    }

    #[test]
    fn events_are_counted_over_any_split_of_the_bytes() {
        let watch = watched(&[b"data: {}\n", b"\ndata: [DO", b"NE]\n", b"\n"]);
        assert_eq!(watch.verdict(200).unwrap().events, 2);
    }
}
