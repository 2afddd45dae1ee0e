//! Server-sent events: cuts a byte stream into units, the same for any split of the bytes.
//!
//! A unit is an event with the blank line that ends it, or a comment line or blank line between
//! events. Not here: what the payload means. A unit that lies within one chunk is a slice of it;
//! only one that spans chunks is copied. Lines end with LF, CRLF or CR; because a CR may be half
//! of a CRLF, a unit that ends with CR waits for one more byte. Invariant: the units joined are
//! the input. Source: HTML standard, 9.2.6 (event stream interpretation).

use bytes::{Buf, Bytes, BytesMut};

/// Bytes that one event may have. Real ones have some hundred; the largest are pictures.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// An event is larger than [`EVENT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {EVENT_BYTES_MAX} bytes")]
pub struct TooLarge;

/// Cuts a stream into units.
#[derive(Debug, Default)]
pub struct Splitter {
    chunk: Bytes,
    /// The start of a unit whose end has not come yet. Kept for its capacity.
    carry: BytesMut,
}

impl Splitter {
    /// Takes the next bytes. All units of the bytes before must have been taken.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::from(self.chunk.as_ref());
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
    }

    /// The next whole unit. `None` until more bytes come.
    ///
    /// # Errors
    /// When the unit that is under way is too large.
    pub fn next_unit(&mut self) -> Result<Option<Bytes>, TooLarge> {
        if self.carry.is_empty() {
            let Some(length) = unit_length(&self.chunk, 0) else {
                self.carry.extend_from_slice(&self.chunk);
                self.chunk.clear();
                return if self.carry.len() > EVENT_BYTES_MAX { Err(TooLarge) } else { Ok(None) };
            };
            let unit = self.chunk.split_to(length);
            return if unit.len() > EVENT_BYTES_MAX { Err(TooLarge) } else { Ok(Some(unit)) };
        }
        self.resume()
    }

    /// What is left when the stream has ended: the start of a unit that was never finished.
    pub fn rest(&self) -> &[u8] {
        &self.carry
    }

    /// Goes on with a unit that began in an earlier chunk.
    fn resume(&mut self) -> Result<Option<Bytes>, TooLarge> {
        let carried = self.carry.len();
        // What ends a unit is at most four bytes, so the search may start a little before.
        self.carry.extend_from_slice(&self.chunk);
        let Some(length) = unit_length(&self.carry, carried.saturating_sub(4)) else {
            self.chunk.clear();
            return if self.carry.len() > EVENT_BYTES_MAX { Err(TooLarge) } else { Ok(None) };
        };
        self.chunk.advance(length.saturating_sub(carried).min(self.chunk.len()));
        self.carry.truncate(length.max(carried));
        let unit = self.carry.split_to(length).freeze();
        if unit.len() > EVENT_BYTES_MAX { Err(TooLarge) } else { Ok(Some(unit)) }
    }
}
