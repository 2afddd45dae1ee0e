//! The generated text in `choices`: of a chunk (`delta`), an answer (`message`), a completion.
//!
//! Whatever a client would see as content counts: text, refusals, reasoning, tool calls, audio.
//! A role alone does not. Vendors put reasoning under several names and content in lists; both are
//! read. Sources: `a-inbound` A.1.4, `b-outbound-chat` B.3.3 and B.4.

use std::ops::Range;

use super::usage::{self, Report};
use crate::json::{Cursor, Error, Kind, Text};

/// Generated text, as far as it is wanted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whether anything was generated.
    pub content: bool,
    /// Whether the text cites pages of the web.
    pub cites: bool,
    /// Bytes of all text seen, as it stood escaped.
    pub bytes: usize,
    /// The text itself, up to the bound. Not used for anything but counting it.
    pub text: String,
    /// Bytes of text that did not go into `text`.
    pub dropped_bytes: usize,
    keep_bytes: usize,
    /// Texts of the document that is being read, empty ones too.
    texts: usize,
    /// Where the last of them stands in it, without its quotes.
    place: (usize, usize),
    /// What they stand in.
    holder: Holder,
    /// Whether text has come in pieces: then a whole `message` behind them says it again, as
    /// `MiniMax` ends its streams.
    pieces: bool,
}

impl Tally {
    /// A tally that keeps this much of the text.
    pub const fn keeping(keep_bytes: usize) -> Self {
        Self {
            content: false,
            cites: false,
            bytes: 0,
            text: String::new(),
            dropped_bytes: 0,
            keep_bytes,
            texts: 0,
            place: (0, 0),
            holder: Holder::Other,
            pieces: false,
        }
    }

    /// Remembers where it stands, before another document.
    pub(crate) const fn mark(&mut self) -> Mark {
        self.texts = 0;
        Mark {
            content: self.content,
            bytes: self.bytes,
            kept_bytes: self.text.len(),
            dropped_bytes: self.dropped_bytes,
            pieces: self.pieces,
        }
    }

    /// Goes back to where it stood.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.content = mark.content;
        self.bytes = mark.bytes;
        self.text.truncate(mark.kept_bytes);
        self.dropped_bytes = mark.dropped_bytes;
        self.pieces = mark.pieces;
    }

    /// Where the one text of the last document stands in it. `None` when there were more or none.
    pub(crate) fn only_place(&self) -> Option<Range<usize>> {
        (self.texts == 1).then_some(self.place.0..self.place.1)
    }

    /// Adds text that was generated and in which nothing is escaped.
    pub(crate) fn add_plain(&mut self, text: &str) {
        self.content |= !text.is_empty();
        self.pieces |= self.holder == Holder::Delta && !text.is_empty();
        self.bytes += text.len();
        if self.text.len() + text.len() <= self.keep_bytes {
            self.text.push_str(text);
        } else {
            self.dropped_bytes += text.len();
        }
    }

    /// Adds text that was generated.
    fn add(&mut self, text: Text<'_>) {
        if text.is_empty() {
            return;
        }
        self.content = true;
        self.pieces |= self.holder == Holder::Delta;
        let bytes = text.raw().len();
        self.bytes += bytes;
        if self.text.len() + bytes <= self.keep_bytes {
            text.decode_into(&mut self.text);
        } else {
            self.dropped_bytes += bytes;
        }
    }
}

/// What a text stands in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Holder {
    /// A piece of the answer.
    Delta,
    /// All of it, or a completion.
    #[default]
    Other,
}

/// Where a tally stood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    content: bool,
    bytes: usize,
    kept_bytes: usize,
    dropped_bytes: usize,
    pieces: bool,
}

/// What stands in `choices`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choices {
    /// How many there are.
    pub count: usize,
    /// Usage inside a choice, where old Moonshot models put it.
    pub report: Report,
    /// How many have ended.
    pub ended: u64,
    /// Whether the reason of one to end is that the provider failed.
    pub failed: bool,
}

/// Reads the value of `choices`. `None` when it is not an array.
///
/// # Errors
/// When the JSON is malformed.
pub fn read(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Result<Option<Choices>, Error> {
    let mut choices = Choices::default();
    let is_array = cursor.elements(|cursor| {
        choices.count += 1;
        cursor.members(|cursor, name| match name.raw() {
            b"message" if tally.pieces => cursor.value().map(|_| ()),
            b"delta" | b"message" => {
                let is_piece = name.raw() == b"delta";
                tally.holder = if is_piece { Holder::Delta } else { Holder::Other };
                message(cursor, tally)
            }
            b"text" => string(cursor, tally),
            b"finish_reason" => {
                let word = cursor.value()?.text().filter(|word| !word.is_empty());
                choices.ended += u64::from(word.is_some());
                choices.failed |= word.is_some_and(|word| is_failure(word.raw()));
                Ok(())
            }
            b"usage" => {
                choices.report = usage::read(cursor)?;
                Ok(())
            }
            _ => cursor.value().map(|_| ()),
        })?;
        Ok::<(), Error>(())
    })?;
    Ok(is_array.then_some(choices))
}

/// Finish reasons that say that the provider failed: of `OpenRouter` and Mistral, Zhipu,
/// `DeepSeek`, vLLM and `SGLang`.
const FAILURES: [&[u8]; 4] =
    [b"error", b"network_error", b"insufficient_system_resource", b"abort"];

/// Whether a finish reason says that the provider failed.
pub(crate) fn is_failure(word: &[u8]) -> bool {
    FAILURES.iter().any(|failure| word.eq_ignore_ascii_case(failure))
}

/// Reads a `delta` or a `message`.
fn message(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Result<(), Error> {
    cursor.members(|cursor, name| match name.raw() {
        b"content" => content(cursor, tally),
        b"refusal" | b"reasoning_content" | b"reasoning" => string(cursor, tally),
        b"tool_calls" => cursor.elements(|cursor| call(cursor, tally)).map(|_| ()),
        b"function_call" => call(cursor, tally),
        b"audio" => audio(cursor, tally),
        b"annotations" => {
            let told = cursor.value()?.raw;
            tally.cites |= memchr::memmem::find(told, b"url_citation").is_some();
            Ok(())
        }
        b"images" | b"reasoning_details" => {
            tally.content |= !matches!(cursor.value()?.raw, b"null" | b"[]");
            Ok(())
        }
        _ => cursor.value().map(|_| ()),
    })?;
    Ok(())
}

/// Reads content: a text, or the list of parts that Mistral sends.
fn content(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Result<(), Error> {
    if cursor.kind()? != Kind::Array {
        return string(cursor, tally);
    }
    cursor.elements(|cursor| part(cursor, tally)).map(|_| ())
}

/// Reads one part of a list: its text, or the parts of its thinking.
fn part(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Result<(), Error> {
    let is_object = cursor.members(|cursor, name| match name.raw() {
        b"text" => string(cursor, tally),
        b"thinking" => {
            let inner = |cursor: &mut Cursor<'_>, name: Text<'_>| match name.raw() {
                b"text" => string(cursor, tally),
                _ => cursor.value().map(|_| ()),
            };
            thinking(cursor, inner)
        }
        b"image_url" => {
            tally.content |= cursor.value()?.kind != Kind::Null;
            Ok(())
        }
        _ => cursor.value().map(|_| ()),
    })?;
    tally.content |= is_object;
    Ok(())
}

/// Reads a list of objects by their members.
fn thinking<'a>(
    cursor: &mut Cursor<'a>,
    mut member: impl FnMut(&mut Cursor<'a>, Text<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    cursor.elements(|cursor| cursor.members(&mut member).map(|_| ())).map(|_| ())
}

/// Reads a tool call, new form or old: names and arguments are generated text.
fn call(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Result<(), Error> {
    let is_object = cursor.members(|cursor, name| match name.raw() {
        b"function" | b"custom" => cursor
            .members(|cursor, name| match name.raw() {
                b"name" | b"arguments" | b"input" => string(cursor, tally),
                _ => cursor.value().map(|_| ()),
            })
            .map(|_| ()),
        b"name" | b"arguments" => string(cursor, tally),
        _ => cursor.value().map(|_| ()),
    })?;
    tally.content |= is_object;
    Ok(())
}

/// Reads audio: its transcript is text, its sound is content.
fn audio(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Result<(), Error> {
    let is_object = cursor.members(|cursor, name| match name.raw() {
        b"transcript" => string(cursor, tally),
        _ => cursor.value().map(|_| ()),
    })?;
    tally.content |= is_object;
    Ok(())
}

/// Reads a value and adds it when it is a string.
fn string(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Result<(), Error> {
    let value = cursor.value()?;
    if let Some(text) = value.text() {
        tally.texts += 1;
        tally.place = (value.start + 1, value.start + 1 + text.raw().len());
        tally.add(text);
    }
    Ok(())
}
