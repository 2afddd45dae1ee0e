//! `OpenAI`'s Responses.
//!
//! An answer is a list of items: a message, or calls of functions. A stream tells each item piece
//! by piece and again whole, and all of it once more in its last event, which has the usage. There
//! is no `[DONE]`. Source: `OpenAI`'s API reference, as of November 2026.

use serde_json::{Value, json};

use super::{Pen, Place, piece, told, with};
use crate::decide::Scene;
use crate::decide::completion::{Material, Part};
use crate::decide::sample::Word;
use crate::decide::stream::Tape;
use crate::usage::Reported;

fn usage(reported: &Reported) -> Value {
    json!({
        "input_tokens": reported.prompt_tokens,
        "input_tokens_details": {"cached_tokens": reported.cached_tokens.unwrap_or(0)},
        "output_tokens": reported.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reported.reasoning_tokens.unwrap_or(0)},
        "total_tokens": reported.total_tokens,
    })
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// An item: whole, or as it is announced.
fn item(part: &Part, id: &str, whole: bool) -> Value {
    let status = if whole { "completed" } else { "in_progress" };
    let text = if whole { part.text() } else { String::new() };
    if let Some((call, name)) = &part.call {
        return json!({"type": "function_call", "id": id, "status": status,
            "call_id": call, "name": name, "arguments": text});
    }
    let content = if whole { json!([text_part(&text)]) } else { json!([]) };
    json!({"type": "message", "id": id, "status": status, "role": "assistant",
                "content": content})
}

fn item_id(part: &Part, turn: &str, index: usize) -> String {
    let prefix = if part.call.is_some() { "fc" } else { "msg" };
    format!("{prefix}_{turn}_{index}")
}

/// The whole object; with `material` it is over.
fn response(model: &str, turn: (&str, u64), material: Option<&Material>) -> Value {
    let said = material.and_then(|material| material.choices.first());
    let status = match said {
        None if material.is_none() => "in_progress",
        Some(said) if said.capped => "incomplete",
        Some(_) | None => "completed",
    };
    let reason = json!({"reason": "max_output_tokens"});
    let parts = said.iter().flat_map(|said| &said.parts).enumerate();
    let output: Value =
        parts.map(|(index, part)| item(part, &item_id(part, turn.0, index), true)).collect();
    let response = json!({
        "id": format!("resp_{}", turn.0), "object": "response", "created_at": turn.1,
        "status": status, "background": false, "error": null,
        "incomplete_details": if status == "incomplete" { reason } else { Value::Null },
        "instructions": null, "metadata": {}, "model": model, "output": output,
        "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
        "top_p": 1.0, "service_tier": "default",
    });
    let reported = material.and_then(|material| material.reported.as_ref());
    with(response, "usage", reported.map(usage))
}

/// A whole answer.
pub(super) fn whole(scene: &Scene<'_>, material: &Material) -> Vec<u8> {
    let turn = (scene.turn.id, scene.turn.created_s);
    let whole = response(scene.model, turn, Some(material));
    told(scene, &whole, "usage", material.reported.as_ref().map(usage).as_ref())
}

/// Writes a stream.
pub(super) struct Responses {
    model: String,
    turn: (String, u64),
    sequence: u64,
}

impl Responses {
    pub(super) fn new(scene: &Scene<'_>) -> Self {
        let turn = (scene.turn.id.to_owned(), scene.turn.created_s);
        Self { model: scene.model.to_owned(), turn, sequence: 0 }
    }

    fn event(&mut self, tape: &mut Tape, kind: &str, mut payload: Value) {
        if let Some(members) = payload.as_object_mut() {
            members.insert("type".to_owned(), kind.into());
            members.insert("sequence_number".to_owned(), self.sequence.into());
        }
        self.sequence = self.sequence.saturating_add(1);
        tape.push(&["event: ", kind, "\ndata: ", &payload.to_string(), "\n\n"]);
    }

    /// An event about the text of a message, or about its place.
    fn about(place: &Place<'_>, id: &str) -> Value {
        let index = place.index;
        if place.part.call.is_some() {
            json!({"item_id": id, "output_index": index})
        } else {
            json!({"item_id": id, "output_index": index, "content_index": 0})
        }
    }
}

impl Pen for Responses {
    fn open(&mut self, tape: &mut Tape, _material: &Material) {
        for kind in ["response.created", "response.in_progress"] {
            let now = response(&self.model, (&self.turn.0, self.turn.1), None);
            self.event(tape, kind, json!({ "response": now }));
            tape.beside();
        }
    }

    fn content(&mut self, tape: &mut Tape, place: &Place<'_>, words: &[Word]) {
        let id = item_id(place.part, &self.turn.0, place.index);
        let about = Self::about(place, &id);
        let is_call = place.part.call.is_some();
        let at = |whole| json!({"output_index": place.index, "item": item(place.part, &id, whole)});
        if place.first {
            self.event(tape, "response.output_item.added", at(false));
            if !is_call {
                let part = with(about.clone(), "part", Some(text_part("")));
                self.event(tape, "response.content_part.added", part);
            }
        }
        let (delta, done, whole) = if is_call {
            (
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "arguments",
            )
        } else {
            ("response.output_text.delta", "response.output_text.done", "text")
        };
        let said = with(about.clone(), "delta", Some(piece(place, words).into()));
        self.event(tape, delta, said);
        if place.last {
            let text = place.part.text();
            self.event(tape, done, with(about.clone(), whole, Some(text.as_str().into())));
            if !is_call {
                let part = with(about, "part", Some(text_part(&text)));
                self.event(tape, "response.content_part.done", part);
            }
            self.event(tape, "response.output_item.done", at(true));
        }
    }

    fn close(&mut self, tape: &mut Tape, material: &Material, proper: bool) {
        if proper {
            let turn = (self.turn.0.as_str(), self.turn.1);
            let whole = response(&self.model, turn, Some(material));
            let capped = material.choices.first().is_some_and(|said| said.capped);
            let kind = if capped { "response.incomplete" } else { "response.completed" };
            self.event(tape, kind, json!({ "response": whole }));
            tape.told(material.reported.is_some());
        }
    }

    fn error(&mut self, tape: &mut Tape) {
        let error = json!({"code": "server_error", "param": null,
            "message": "The simulated provider answers 500, as its script says."});
        self.event(tape, "error", error);
        tape.beside();
    }
}
