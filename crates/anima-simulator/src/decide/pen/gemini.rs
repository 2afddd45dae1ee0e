//! Gemini's generateContent and streamGenerateContent.
//!
//! Usage is told as Google does: the prompt with what was cached, the candidates without what was
//! thought, and in a stream on every chunk, growing. Without `alt=sse` a stream is one JSON array.
//! A call comes whole. Source: Google's API reference, as of November 2026.

use serde_json::{Value, json};

use super::{Pen, Place, arguments, piece, times, told, with};
use crate::behaviour::UsageLie;
use crate::decide::Scene;
use crate::decide::completion::{Material, Part, Said};
use crate::decide::sample::Word;
use crate::decide::stream::Tape;
use crate::refusal::{ErrorBody, Face};
use crate::usage::Reported;

fn usage(reported: &Reported) -> Value {
    let thoughts = reported.reasoning_tokens.unwrap_or(0);
    let prompt = reported.prompt_tokens;
    let usage = json!({
        "promptTokenCount": prompt,
        "candidatesTokenCount": reported.completion_tokens.saturating_sub(thoughts),
        "totalTokenCount": reported.total_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    });
    let usage = with(usage, "cachedContentTokenCount", reported.cached_tokens.map(Value::from));
    with(usage, "thoughtsTokenCount", reported.reasoning_tokens.map(Value::from))
}

fn part_of(part: &Part, text: &str) -> Value {
    match &part.call {
        Some((id, name)) => {
            let mut call = json!({"id": id, "name": name, "args": arguments(part)});
            // Google leaves out what is not there.
            if let Some(members) = call.as_object_mut().filter(|_| id.is_empty()) {
                members.remove("id");
            }
            json!({"functionCall": call})
        }
        None => json!({ "text": text }),
    }
}

fn candidate(index: usize, parts: &Value, finish: Option<&str>) -> Value {
    let candidate = json!({"content": {"parts": parts, "role": "model"}, "index": index});
    with(candidate, "finishReason", finish.map(Value::from))
}

const fn finish_reason(said: &Said) -> &'static str {
    if said.failed {
        "OTHER"
    } else if said.capped {
        "MAX_TOKENS"
    } else {
        "STOP"
    }
}

/// An answer, or a chunk of one.
fn answer(scene: (&str, &str), candidates: &Value, usage: Option<Value>) -> Value {
    let answer = json!({"candidates": candidates, "modelVersion": scene.0, "responseId": scene.1});
    with(answer, "usageMetadata", usage)
}

/// A whole answer.
pub(super) fn whole(scene: &Scene<'_>, material: &Material) -> Vec<u8> {
    let choices = material.choices.iter().enumerate();
    let candidates = choices.map(|(index, said)| {
        let parts = said.parts.iter().map(|part| part_of(part, &part.text())).collect();
        candidate(index, &parts, Some(finish_reason(said)))
    });
    let usage = material.reported.as_ref().map(usage);
    let whole = answer((scene.model, scene.turn.id), &candidates.collect(), usage.clone());
    told(scene, &whole, "usageMetadata", usage.as_ref())
}

/// Writes a stream.
pub(super) struct Gemini {
    model: String,
    id: String,
    times: usize,
    array: bool,
    has_begun: bool,
    /// What is told with each chunk; nothing where the script wants lies.
    so_far: Option<Reported>,
    tells: bool,
}

impl Gemini {
    pub(super) fn new(scene: &Scene<'_>, array: bool) -> Self {
        Self {
            model: scene.model.to_owned(),
            id: scene.turn.id.to_owned(),
            times: times(scene),
            array,
            has_begun: false,
            so_far: None,
            tells: matches!(scene.behaviour.usage, None | Some(UsageLie::Twice)),
        }
    }

    fn chunk(&mut self, tape: &mut Tape, payload: &Value) {
        let begun = std::mem::replace(&mut self.has_begun, true);
        let before = match (self.array, begun) {
            (false, _) => "data: ",
            (true, false) => "[",
            (true, true) => ",",
        };
        tape.push(&[before, &payload.to_string(), "\n\n"]);
    }

    fn say(&mut self, tape: &mut Tape, candidates: &Value, usage: Option<Value>) {
        let payload = answer((&self.model, &self.id), candidates, usage);
        self.chunk(tape, &payload);
    }
}

impl Pen for Gemini {
    fn open(&mut self, _tape: &mut Tape, material: &Material) {
        let first = |reported: Reported| Reported {
            completion_tokens: reported.reasoning_tokens.unwrap_or(0),
            ..reported
        };
        self.so_far = material.reported.filter(|_| self.tells).map(first);
    }

    fn content(&mut self, tape: &mut Tape, place: &Place<'_>, words: &[Word]) {
        if let Some(told) = &mut self.so_far {
            let more = i64::try_from(words.len()).unwrap_or(0);
            told.completion_tokens = told.completion_tokens.saturating_add(more);
            told.total_tokens = told.prompt_tokens.saturating_add(told.completion_tokens);
        }
        let part = part_of(place.part, &piece(place, words));
        let usage = self.so_far.as_ref().map(usage);
        self.say(tape, &json!([candidate(place.choice, &json!([part]), None)]), usage);
    }

    fn close(&mut self, tape: &mut Tape, material: &Material, proper: bool) {
        // The reason to stop is all that tells a whole stream from a cut one.
        if proper {
            let choices = material.choices.iter().enumerate();
            let last = choices.map(|(index, said)| {
                candidate(index, &json!([{"text": ""}]), Some(finish_reason(said)))
            });
            let last: Value = last.collect();
            for _ in 0..self.times {
                self.say(tape, &last, material.reported.as_ref().map(usage));
                tape.told(material.reported.is_some());
            }
        }
        if self.array {
            tape.push(&["]"]);
            tape.beside();
        }
    }

    fn error(&mut self, tape: &mut Tape) {
        let body = ErrorBody::scripted(500, None).json(Face::Gemini);
        let error = serde_json::from_slice(&body).unwrap_or_default();
        self.chunk(tape, &error);
        if self.array {
            tape.push(&["]"]);
        }
        tape.beside();
    }
}
