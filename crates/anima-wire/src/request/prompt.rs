//! How large a prompt is: in bytes while the body is read, in tokens when somebody asks.
//!
//! Inline media must not count as text, or a photograph would need a hold for a million tokens.
//! They are known by their place, `messages[].content[].image_url` and its kin, and never by how a
//! string looks: a text that imitates a picture is priced as text by the provider. An image has a
//! flat rate; of a sound, a video or a file a sixteenth of the bytes is added, chosen to exceed
//! what speech and scanned pages come to. Sources: `f-tokens` F.3 and F.5.

use super::Endpoint;
use crate::json::{Cursor, Error, Kind, Text};
use crate::tokens::{Counter, MEDIA_PART, MESSAGE_OVERHEAD};

/// Bytes of a sound, video or file that stand for one byte of text.
const MEDIA_BYTES_PER_BYTE: usize = 16;

/// The size of what will be read by the model.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Prompt {
    /// Bytes of text, with JSON's signs, and the share of media.
    pub(super) bytes: usize,
    /// Images, sounds and files.
    pub(super) media_parts: u64,
    /// Elements of the outer array.
    pub(super) items: u64,
    /// Whether the outer array is itself one prompt, made of tokens.
    of_tokens: bool,
}

impl Prompt {
    /// Reads the prompt's member.
    pub(super) fn read(
        &mut self,
        endpoint: Endpoint,
        cursor: &mut Cursor<'_>,
    ) -> Result<(), Error> {
        let start = cursor.offset();
        let (mut items, mut media_parts, mut excluded, mut of_tokens) = (0, 0, 0, false);
        cursor.elements(|cursor| {
            items += 1;
            if endpoint != Endpoint::ChatCompletions {
                of_tokens |= cursor.value()?.kind == Kind::Number;
                return Ok(());
            }
            message(cursor, &mut |piece| {
                if let Some((share, whole)) = piece.media() {
                    media_parts += 1;
                    excluded += whole - share;
                }
            })
        })?;
        self.bytes += (cursor.offset() - start).saturating_sub(excluded);
        self.items += items;
        self.media_parts += media_parts;
        self.of_tokens |= of_tokens;
        Ok(())
    }

    /// How many prompts a completion has.
    pub(super) fn prompts(&self) -> u64 {
        if self.of_tokens { 1 } else { self.items.max(1) }
    }
}

/// What a message is made of.
enum Piece<'a> {
    /// Text that the model reads.
    Text(Text<'a>),
    /// Structure that the model reads in some rendering.
    Raw(&'a [u8]),
    /// A name, which takes a token of its own.
    Name(Text<'a>),
    /// An image of so many bytes.
    Image(usize),
    /// A sound, a video or a file of so many bytes.
    Opaque(usize),
}

impl Piece<'_> {
    /// Of inline media: the bytes that count as text, and all of them.
    fn media(&self) -> Option<(usize, usize)> {
        match *self {
            Self::Image(bytes) => Some((0, bytes)),
            Self::Opaque(bytes) => Some((bytes / MEDIA_BYTES_PER_BYTE, bytes)),
            Self::Text(_) | Self::Raw(_) | Self::Name(_) => None,
        }
    }
}

/// Reads one message and shows its pieces.
fn message<'a>(cursor: &mut Cursor<'a>, show: &mut impl FnMut(Piece<'a>)) -> Result<(), Error> {
    cursor.members(|cursor, name| {
        if name.raw() == b"content" && cursor.kind()? == Kind::Array {
            return cursor.elements(|cursor| part(cursor, show)).map(|_| ());
        }
        let value = cursor.value()?;
        match (name.raw(), value.text()) {
            (b"content" | b"refusal" | b"reasoning_content" | b"reasoning", Some(text)) => {
                show(Piece::Text(text));
            }
            (b"name", Some(text)) => show(Piece::Name(text)),
            (b"tool_calls" | b"function_call", None) => show(Piece::Raw(value.raw)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(())
}

/// Reads one part of a message's content.
fn part<'a>(cursor: &mut Cursor<'a>, show: &mut impl FnMut(Piece<'a>)) -> Result<(), Error> {
    cursor.members(|cursor, name| {
        let value = cursor.value()?;
        match (name.raw(), value.text()) {
            (b"image_url", _) => show(Piece::Image(value.raw.len())),
            (b"input_audio" | b"video_url" | b"file", _) => {
                show(Piece::Opaque(value.raw.len()));
            }
            (b"text" | b"refusal", Some(text)) => show(Piece::Text(text)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(())
}

/// Counts the tokens of a body that was read before.
pub(super) fn count(endpoint: Endpoint, body: &[u8]) -> u64 {
    let mut counter = Counter::default();
    let read = Cursor::new(body).members(|cursor, name| {
        let name = name.decode();
        if name == endpoint.prompt() || endpoint == Endpoint::Rerank && name == "documents" {
            return count_prompt(endpoint, cursor, &mut counter);
        }
        let value = cursor.value()?;
        if matches!(&*name, "tools" | "functions" | "response_format" | "prediction" | "suffix") {
            add_raw(&mut counter, value.raw);
        }
        Ok::<(), Error>(())
    });
    if read.is_err() {
        // Cannot be: the body was read before. The bound by bytes holds all the same.
        counter.add_bytes(body.len());
    }
    counter.tokens
}

/// Counts the prompt's member.
fn count_prompt(
    endpoint: Endpoint,
    cursor: &mut Cursor<'_>,
    counter: &mut Counter,
) -> Result<(), Error> {
    if endpoint != Endpoint::ChatCompletions {
        return count_texts(cursor, counter);
    }
    counter.tokens += MESSAGE_OVERHEAD;
    cursor.elements(|cursor| {
        counter.tokens += MESSAGE_OVERHEAD;
        message(cursor, &mut |piece| match piece {
            Piece::Text(text) => counter.add(&text.decode()),
            Piece::Raw(raw) => add_raw(counter, raw),
            Piece::Name(text) => {
                counter.tokens += 1;
                counter.add(&text.decode());
            }
            Piece::Image(_) => counter.tokens += MEDIA_PART,
            Piece::Opaque(bytes) => {
                counter.tokens += MEDIA_PART;
                counter.add_bytes(bytes / MEDIA_BYTES_PER_BYTE);
            }
        })
    })?;
    Ok(())
}

/// Counts a text, a list of texts, a list of tokens or a list of such lists.
fn count_texts(cursor: &mut Cursor<'_>, counter: &mut Counter) -> Result<(), Error> {
    if cursor.kind()? != Kind::Array {
        return count_one(cursor, counter);
    }
    // Two levels are what the endpoints take; what is deeper counts as one token and is refused
    // by the provider.
    cursor.elements(|cursor| {
        if cursor.kind()? == Kind::Array {
            return cursor.elements(|cursor| count_one(cursor, counter)).map(|_| ());
        }
        count_one(cursor, counter)
    })?;
    Ok(())
}

/// Counts a text or a token.
fn count_one(cursor: &mut Cursor<'_>, counter: &mut Counter) -> Result<(), Error> {
    let value = cursor.value()?;
    match value.text() {
        Some(text) => counter.add(&text.decode()),
        // A document with its members.
        None if value.kind == Kind::Object => add_raw(counter, value.raw),
        None => counter.tokens += 1,
    }
    Ok(())
}

/// Counts JSON as it stands.
fn add_raw(counter: &mut Counter, raw: &[u8]) {
    counter.add(&String::from_utf8_lossy(raw));
}
