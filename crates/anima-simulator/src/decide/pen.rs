//! How an answer is written down: one file per dialect, whole and as a stream.
//!
//! A pen knows the form of a dialect and nothing of scripts and faults. The invariant: what is
//! written is what the vendor documents, with usage in the vendor's own way of counting, of which
//! the truth log's is always `OpenAI`'s.

mod anthropic;
mod frames;
mod gemini;
mod openai;
mod responses;

use serde_json::Value;

use super::Scene;
use super::completion::{Material, Part};
use super::sample::Word;
use super::stream::Tape;
use crate::inquiry::{Completion, Dialect};

/// Where a content chunk belongs.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The choice, from 0.
    pub(super) choice: usize,
    /// The part of the choice, from 0.
    pub(super) index: usize,
    pub(super) part: &'a Part,
    /// Whether this is the part's first chunk.
    pub(super) first: bool,
    /// Whether this is the part's last chunk.
    pub(super) last: bool,
}

/// Writes one stream.
pub(super) trait Pen {
    /// What comes before the content.
    fn open(&mut self, tape: &mut Tape, material: &Material);
    /// One content chunk, with what must stand around it. The caller marks its end.
    fn content(&mut self, tape: &mut Tape, place: &Place<'_>, words: &[Word]);
    /// What comes after the content; without the end of the stream unless it is proper.
    fn close(&mut self, tape: &mut Tape, material: &Material, proper: bool);
    /// An error in the place of the rest.
    fn error(&mut self, tape: &mut Tape);
}

/// The pen for a stream.
pub(super) fn of(scene: &Scene<'_>, completion: &Completion<'_>) -> Box<dyn Pen> {
    match completion.dialect {
        Dialect::Chat | Dialect::Text => Box::new(openai::Openai::new(scene, completion)),
        Dialect::Messages => Box::new(anthropic::Messages::new(scene)),
        Dialect::Invoke => Box::new(frames::Framed::new(scene, false)),
        Dialect::Converse => Box::new(frames::Framed::new(scene, true)),
        Dialect::Responses => Box::new(responses::Responses::new(scene)),
        Dialect::Gemini { array } => Box::new(gemini::Gemini::new(scene, array)),
    }
}

/// A whole answer.
pub(super) fn whole(scene: &Scene<'_>, dialect: Dialect, material: &Material) -> Vec<u8> {
    match dialect {
        Dialect::Chat | Dialect::Text => openai::whole(scene, dialect, material),
        Dialect::Messages | Dialect::Invoke => anthropic::whole(scene, material),
        Dialect::Converse => frames::whole(&anthropic::whole(scene, material)),
        Dialect::Responses => responses::whole(scene, material),
        Dialect::Gemini { .. } => gemini::whole(scene, material),
    }
}

/// How often the usage is told.
fn times(scene: &Scene<'_>) -> usize {
    if scene.behaviour.usage == Some(crate::behaviour::UsageLie::Twice) { 2 } else { 1 }
}

/// A whole answer as text, with its usage once more where the script wants it twice.
fn told(scene: &Scene<'_>, whole: &Value, name: &str, usage: Option<&Value>) -> Vec<u8> {
    let mut text = whole.to_string();
    if let (2, Some(usage)) = (times(scene), usage) {
        text.truncate(text.len().saturating_sub(1));
        text.extend([",\"", name, "\":", &usage.to_string(), "}"]);
    }
    text.into_bytes()
}

/// A JSON object with one member more, if there is one.
fn with(mut object: Value, name: &str, value: Option<Value>) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.extend(value.map(|value| (name.to_owned(), value)));
    }
    object
}

/// The text of a chunk: all but the first of a part begin with a space.
fn piece(place: &Place<'_>, words: &[Word]) -> String {
    let text = words.join(" ");
    if place.first { text } else { format!(" {text}") }
}

/// The arguments of a call as JSON, where a dialect wants them so; nothing of ones that are cut.
fn arguments(part: &Part) -> Value {
    let empty = || Value::Object(serde_json::Map::new());
    serde_json::from_str(&part.text()).unwrap_or_else(|_cut| empty())
}

#[cfg(test)]
mod tests;
