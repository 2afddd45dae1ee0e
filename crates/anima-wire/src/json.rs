//! A cursor over JSON bytes: validates everything once, remembers where things are, copies nothing.
//!
//! Not a data model. A caller asks for the members that it knows and skips the rest; what it skips
//! is validated all the same (grammar, escapes, UTF-8, [`DEPTH_MAX`]), iteratively and in constant
//! memory, so a body that is a million brackets deep costs nothing. Invariant: a cursor that
//! reached the end without an error has seen one valid document. Why not `serde_json`: it reads
//! more slowly, and it keeps neither places nor bounds. Measured with `examples/scan.rs` (release,
//! generic x86-64, chat body of 128 KiB, microseconds, `RawValue` in brackets): prose 14 (23), code
//! full of escapes 48 (50), Chinese 33 (110), Russian 106 (112), base64 11 (21). Grammar: RFC 8259.

mod outline;
mod text;
mod write;

use std::ops::Range;

pub use outline::{Misfit, Node, Outline};
pub use text::Text;
pub use write::Writer;

/// Open containers that a document may have. The same order as `serde_json`'s limit.
pub const DEPTH_MAX: u32 = 128;

/// Values of a request that is read in full. A conversation of a million tokens with its tools has
/// some ten thousand; an outline takes 56 bytes for each, so this is what one caller can make us
/// hold.
pub const VALUES_MAX: usize = 1_000_000;

/// What is wrong with a document. Offsets are bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends where a value, a name or a closing sign must follow.
    #[error("the JSON ends too early, after {offset} bytes")]
    Truncated {
        /// How long it is.
        offset: usize,
    },
    /// A byte that the grammar does not allow there.
    #[error("the JSON is malformed at byte {offset}")]
    Unexpected {
        /// Where the byte is.
        offset: usize,
    },
    /// A string that is not UTF-8.
    #[error("the JSON holds invalid UTF-8 at byte {offset}")]
    Utf8 {
        /// Where the first bad sequence starts.
        offset: usize,
    },
    /// More than [`DEPTH_MAX`] open containers.
    #[error("the JSON is nested more than {DEPTH_MAX} levels deep at byte {offset}")]
    TooDeep {
        /// Where the first container too many opens.
        offset: usize,
    },
    /// More than [`VALUES_MAX`] values.
    #[error("the JSON holds more than {VALUES_MAX} values: send fewer")]
    TooMany,
}

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `false`.
    False,
    /// `true`.
    True,
    /// A number of any form.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A validated value: its kind and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// What it is.
    pub kind: Kind,
    /// Where it starts in the document.
    pub start: usize,
    /// Its text, quotes and brackets included.
    pub raw: &'a [u8],
}

impl<'a> Value<'a> {
    /// Where it stands in the document.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.raw.len()
    }

    /// The text of a string. `None` for another kind.
    pub fn text(&self) -> Option<Text<'a>> {
        let (Kind::String, [b'"', inner @ .., b'"']) = (self.kind, self.raw) else {
            return None;
        };
        Some(Text::new(inner))
    }

    /// A number without sign, fraction or exponent that fits. `None` for anything else.
    pub fn unsigned(&self) -> Option<u64> {
        std::str::from_utf8(self.raw).ok()?.parse().ok()
    }
}

/// A position in a document that is read forward, once.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    named_at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor before the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0, named_at: 0 }
    }

    /// The kind of the next value, which stays unread.
    ///
    /// # Errors
    /// When no value can start here.
    pub fn kind(&mut self) -> Result<Kind, Error> {
        self.space();
        match self.peek() {
            Some(b'"') => Ok(Kind::String),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(self.fault()),
        }
    }

    /// Reads one whole value.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn value(&mut self) -> Result<Value<'a>, Error> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Array | Kind::Object => self.container()?,
            Kind::String => self.string().map(|_| ())?,
            Kind::Number => self.number()?,
            Kind::Null => self.word(b"null")?,
            Kind::True => self.word(b"true")?,
            Kind::False => self.word(b"false")?,
        }
        let raw = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Value { kind, start, raw })
    }

    /// Reads an object. `member` gets each name and must read its value. A value of another kind
    /// is read over, and the answer is `false`.
    ///
    /// # Errors
    /// When the value is not valid, a name is not Unicode, or `member` fails.
    pub fn members<E: From<Error>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.kind()? != Kind::Object {
            return Ok(self.value().map(|_| false)?);
        }
        self.open()?;
        self.space();
        if self.take(b'}') {
            self.depth -= 1;
            return Ok(true);
        }
        loop {
            let name = self.name()?;
            if !name.is_unicode() {
                return Err(Error::Unexpected { offset: self.at }.into());
            }
            member(self, name)?;
            self.space();
            if self.take(b'}') {
                self.depth -= 1;
                return Ok(true);
            }
            self.expect(b',')?;
        }
    }

    /// Reads an array. `element` must read each element. A value of another kind is read over,
    /// and the answer is `false`.
    ///
    /// # Errors
    /// When the value is not valid, or `element` fails.
    pub fn elements<E: From<Error>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.kind()? != Kind::Array {
            return Ok(self.value().map(|_| false)?);
        }
        self.open()?;
        self.space();
        if self.take(b']') {
            self.depth -= 1;
            return Ok(true);
        }
        loop {
            element(self)?;
            self.space();
            if self.take(b']') {
                self.depth -= 1;
                return Ok(true);
            }
            self.expect(b',')?;
        }
    }

    /// Checks that only white space is left.
    ///
    /// # Errors
    /// When something else follows.
    pub fn end(&mut self) -> Result<(), Error> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fault()) }
    }

    /// Where the cursor stands, bytes from the start.
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// Where the quote of the name that was read last stands.
    pub const fn name_offset(&self) -> usize {
        self.named_at
    }

    /// Enters a container whose sign is next.
    fn open(&mut self) -> Result<(), Error> {
        if self.depth == DEPTH_MAX {
            return Err(Error::TooDeep { offset: self.at });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Reads over an array or object without recursion. One bit per open container says which.
    fn container(&mut self) -> Result<(), Error> {
        let floor = self.depth;
        let mut objects = 0_u128;
        loop {
            match self.kind()? {
                Kind::Object => {
                    self.open()?;
                    objects = objects << 1 | 1;
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                }
                Kind::Array => {
                    self.open()?;
                    objects <<= 1;
                    self.space();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Kind::String => self.string().map(|_| ())?,
                Kind::Number => self.number()?,
                Kind::Null => self.word(b"null")?,
                Kind::True => self.word(b"true")?,
                Kind::False => self.word(b"false")?,
            }
            if self.close(floor, &mut objects)? {
                return Ok(());
            }
        }
    }

    /// Reads closing signs after a value, up to the next value. `true` when all are closed.
    fn close(&mut self, floor: u32, objects: &mut u128) -> Result<bool, Error> {
        while self.depth > floor {
            self.space();
            let in_object = *objects & 1 == 1;
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if in_object {
                        self.name()?;
                    }
                    return Ok(false);
                }
                Some(b'}') if in_object => self.at += 1,
                Some(b']') if !in_object => self.at += 1,
                _ => return Err(self.fault()),
            }
            *objects >>= 1;
            self.depth -= 1;
        }
        Ok(true)
    }

    /// Reads a member's name and the colon.
    fn name(&mut self) -> Result<Text<'a>, Error> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.fault());
        }
        self.named_at = self.at;
        let name = self.string()?;
        self.space();
        self.expect(b':')?;
        Ok(name)
    }

    /// Reads a string whose quote is next.
    fn string(&mut self) -> Result<Text<'a>, Error> {
        let start = self.at + 1;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let end = text::end(rest).map_err(|fault| fault.at(start))?;
        self.at = start + end + 1;
        Ok(Text::new(rest.get(..end).unwrap_or_default()))
    }

    /// Reads a number.
    fn number(&mut self) -> Result<(), Error> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Reads one digit or more.
    fn digits(&mut self) -> Result<(), Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.fault()) } else { Ok(()) }
    }

    /// Reads a literal, and names the first byte that differs.
    fn word(&mut self, word: &[u8]) -> Result<(), Error> {
        for byte in word {
            self.expect(*byte)?;
        }
        Ok(())
    }

    /// Reads over white space. Compact documents have none, so the first test decides.
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.take(byte) { Ok(()) } else { Err(self.fault()) }
    }

    /// The error for what stands here: too early an end, or a wrong byte.
    fn fault(&self) -> Error {
        if self.at >= self.bytes.len() {
            Error::Truncated { offset: self.bytes.len() }
        } else {
            Error::Unexpected { offset: self.at }
        }
    }
}

#[cfg(test)]
mod tests;
