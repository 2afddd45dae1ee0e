//! Strings inside JSON: where they end, and what they say.
//!
//! Finding the end is the hot loop of the gateway, since a prompt is almost only string. It looks
//! at 32 bytes at a time in a form that compilers turn into vector code, and at 8 to find the
//! place. UTF-8 is checked in the same pass (Unicode, table 3-7). Not here: what a string means.

use std::borrow::Cow;

use super::Error;

/// The text between two quotes, still escaped. Its escapes and UTF-8 are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// Wraps what a cursor has validated.
    pub(super) const fn new(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// The bytes as they stand.
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether nothing stands between the quotes.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it says: borrowed when nothing is escaped. Half a surrogate pair reads as U+FFFD.
    pub fn decode(&self) -> Cow<'a, str> {
        if self.0.contains(&b'\\') {
            let mut decoded = String::with_capacity(self.0.len());
            self.decode_into(&mut decoded);
            return Cow::Owned(decoded);
        }
        String::from_utf8_lossy(self.0)
    }

    /// Appends what it says.
    pub fn decode_into(&self, out: &mut String) {
        let mut rest = std::str::from_utf8(self.0).unwrap_or_default();
        while let Some((plain, escape)) = rest.split_once('\\') {
            out.push_str(plain);
            rest = unescape(escape, out);
        }
        out.push_str(rest);
    }

    /// Whether every escaped surrogate has its other half.
    pub(super) fn is_unicode(&self) -> bool {
        let mut rest = self.0;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            let escape = rest.get(at + 1..).unwrap_or_default();
            let Some((b'u', digits)) = escape.split_first() else {
                rest = escape.get(1..).unwrap_or_default();
                continue;
            };
            let Some((_, used)) = scalar(digits) else {
                return false;
            };
            rest = digits.get(used..).unwrap_or_default();
        }
        true
    }
}

/// Appends what the escape says whose backslash was just read, and gives what follows it.
fn unescape<'a>(escape: &'a str, out: &mut String) -> &'a str {
    let mut signs = escape.chars();
    match signs.next() {
        Some('n') => out.push('\n'),
        Some('t') => out.push('\t'),
        Some('r') => out.push('\r'),
        Some('b') => out.push('\u{8}'),
        Some('f') => out.push('\u{c}'),
        Some('u') => {
            let digits = signs.as_str();
            let (sign, used) =
                scalar(digits.as_bytes()).unwrap_or((char::REPLACEMENT_CHARACTER, 4));
            out.push(sign);
            return digits.get(used..).unwrap_or_default();
        }
        Some(sign) => out.push(sign),
        None => {}
    }
    signs.as_str()
}

/// Reads the digits after `\u`, with the second half of a surrogate pair: the character and how
/// many bytes it took. `None` for half a pair.
fn scalar(digits: &[u8]) -> Option<(char, usize)> {
    let high = unit(digits)?;
    if let Some(sign) = char::from_u32(high) {
        return Some((sign, 4));
    }
    let low = unit(digits.get(4..)?.strip_prefix(b"\\u")?)?;
    if !(0xD800..0xDC00).contains(&high) || !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    let sign = char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))?;
    Some((sign, 10))
}

/// The number that four hexadecimal digits give.
fn unit(digits: &[u8]) -> Option<u32> {
    digits
        .get(..4)?
        .iter()
        .try_fold(0, |unit, digit| char::from(*digit).to_digit(16).map(|value| unit << 4 | value))
}

/// What is wrong with a string, offset from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Truncated(usize),
    Unexpected(usize),
    Utf8(usize),
}

impl Fault {
    /// The error of a string that starts at `start`.
    pub(super) const fn at(self, start: usize) -> Error {
        match self {
            Self::Truncated(offset) => Error::Truncated { offset: start + offset },
            Self::Unexpected(offset) => Error::Unexpected { offset: start + offset },
            Self::Utf8(offset) => Error::Utf8 { offset: start + offset },
        }
    }
}

/// Finds the closing quote of a string whose first byte is the first of `bytes`.
pub(super) fn end(bytes: &[u8]) -> Result<usize, Fault> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let plain = plain(rest);
        at += plain;
        let rest = rest.get(plain..).unwrap_or_default();
        match rest.first() {
            Some(b'"') => return Ok(at),
            Some(b'\\') => at += escape(rest, at)?,
            Some(0x80..) => match wide(rest) {
                Ok(length) => at += length,
                Err(valid) => return Err(Fault::Utf8(at + valid)),
            },
            Some(_) => return Err(Fault::Unexpected(at)),
            None => return Err(Fault::Truncated(at)),
        }
    }
}

/// The length of the escape that `bytes` starts with.
fn escape(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    match bytes.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => {
            for index in 2..6 {
                match bytes.get(index) {
                    Some(byte) if byte.is_ascii_hexdigit() => {}
                    Some(_) => return Err(Fault::Unexpected(at + index)),
                    None => return Err(Fault::Truncated(at + index)),
                }
            }
            Ok(6)
        }
        Some(_) => Err(Fault::Unexpected(at + 1)),
        None => Err(Fault::Truncated(at + 1)),
    }
}

/// Words of 8 bytes looked at before blocks of 32: most names and values end there.
const WORDS_FIRST: usize = 4;

/// The bytes before the first that needs a look: a quote, a backslash, a control sign, or the
/// start of a sign outside ASCII.
fn plain(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().take(WORDS_FIRST).enumerate() {
        if let Some(found) = special(*word) {
            return index * 8 + found;
        }
    }
    let mut length = words.len().min(WORDS_FIRST) * 8;
    let (blocks, _) = bytes.get(length..).unwrap_or_default().as_chunks::<32>();
    for block in blocks {
        let mut stop = 0_u8;
        for byte in block {
            // A control sign and a byte outside ASCII are both outside of 0x20..0x80.
            let outside = byte.wrapping_sub(b' ') >= 0x60;
            stop |= u8::from(*byte == b'"') | u8::from(*byte == b'\\') | u8::from(outside);
        }
        if stop != 0 {
            break;
        }
        length += 32;
    }
    length + locate(bytes.get(length..).unwrap_or_default())
}

/// Finds the place in the last stretch: by words, then by bytes.
fn locate(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        if let Some(found) = special(*word) {
            return index * 8 + found;
        }
    }
    let stop = |byte: &u8| matches!(*byte, b'"' | b'\\' | 0..b' ' | 0x80..);
    words.len() * 8 + tail.iter().position(stop).unwrap_or(tail.len())
}

/// The lowest bit of each byte.
const ONES: u64 = u64::from_le_bytes([1; 8]);
/// The highest bit of each byte.
const HIGHS: u64 = ONES << 7;

/// The index of the first byte among 8 that needs a look. A borrow can only mark bytes above a
/// real hit, so the lowest mark is exact.
fn special(word: [u8; 8]) -> Option<usize> {
    let word = u64::from_le_bytes(word);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * 0x22));
    let backslash = zero(word ^ (ONES * 0x5C));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let marks = (quote | backslash | control | word) & HIGHS;
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

/// The length of the run of signs outside ASCII that `bytes` starts with, or how much of it is
/// valid.
fn wide(bytes: &[u8]) -> Result<usize, usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        at += match rest {
            rest if two_of_three(rest) => 6,
            rest if four_of_two(rest) => 8,
            // A space between two words does not end the run.
            [b' ', 0x80..=0xFF, ..] => 1,
            [0xC2..=0xDF, 0x80..=0xBF, ..] => 2,
            [0xE0, 0xA0..=0xBF, 0x80..=0xBF, ..]
            | [0xE1..=0xEC | 0xEE | 0xEF, 0x80..=0xBF, 0x80..=0xBF, ..]
            | [0xED, 0x80..=0x9F, 0x80..=0xBF, ..] => 3,
            [0xF0, 0x90..=0xBF, 0x80..=0xBF, 0x80..=0xBF, ..]
            | [0xF1..=0xF3, 0x80..=0xBF, 0x80..=0xBF, 0x80..=0xBF, ..]
            | [0xF4, 0x80..=0x8F, 0x80..=0xBF, 0x80..=0xBF, ..] => 4,
            [0x80..=0xFF, ..] => return Err(at),
            _ => return Ok(at),
        };
    }
}

/// Whether two signs of three bytes stand here, which is what Chinese and Japanese are made of.
/// The leads 0xE0 and 0xED have rules of their own and are not taken for it.
fn two_of_three(bytes: &[u8]) -> bool {
    let Some(word) = bytes.first_chunk::<8>() else {
        return false;
    };
    let word = u64::from_le_bytes(*word);
    let lead = |word: u64| !matches!(word & 0xF, 0x0 | 0xD);
    word & 0xC0C0_F0C0_C0F0 == 0x8080_E080_80E0 && lead(word) && lead(word >> 24)
}

/// Whether four signs of two bytes stand here, as in Cyrillic, Greek, Hebrew and Arabic. The leads
/// 0xC0 and 0xC1 do not exist.
fn four_of_two(bytes: &[u8]) -> bool {
    let Some(word) = bytes.first_chunk::<8>() else {
        return false;
    };
    let word = u64::from_le_bytes(*word);
    let leads = (word & 0x001E_001E_001E_001E) + 0x7FFF_7FFF_7FFF_7FFF;
    word & 0xC0E0_C0E0_C0E0_C0E0 == 0x80C0_80C0_80C0_80C0
        && leads & 0x8000_8000_8000_8000 == 0x8000_8000_8000_8000
}
