//! Anthropic's Messages.
//!
//! Usage is told as Anthropic does: input without what came from the cache, output with what was
//! thought; a stream tells the input at its start and the output in its last but one event. Source:
//! Anthropic's API reference, as of November 2026.

use serde_json::{Value, json};

use super::{Pen, Place, arguments, piece, times, told, with};
use crate::decide::Scene;
use crate::decide::completion::{Material, Part, Said};
use crate::decide::sample::Word;
use crate::decide::stream::Tape;
use crate::refusal::{ErrorBody, Face};
use crate::usage::Reported;

fn usage(reported: &Reported) -> Value {
    let cached = reported.cached_tokens.unwrap_or(0);
    let usage = json!({
        "input_tokens": reported.prompt_tokens.saturating_sub(cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": reported.completion_tokens,
        "service_tier": "standard",
    });
    with(usage, "output_tokens_details", thought(reported))
}

/// How much of the output was thought, told when some was.
fn thought(reported: &Reported) -> Option<Value> {
    reported.reasoning_tokens.map(|tokens| json!({"thinking_tokens": tokens}))
}

fn stop_reason(said: Option<&Said>) -> &'static str {
    match said {
        Some(said) if said.capped => "max_tokens",
        Some(said) if said.calls() => "tool_use",
        Some(_) | None => "end_turn",
    }
}

fn block(part: &Part) -> Value {
    match &part.call {
        Some((id, name)) => {
            let id = id.replace("call_", "toolu_");
            json!({"type": "tool_use", "id": id, "name": name, "input": arguments(part)})
        }
        None => json!({"type": "text", "text": part.text()}),
    }
}

fn message(scene: &Scene<'_>, content: &Value, stop: Option<&str>) -> Value {
    json!({
        "id": format!("msg_{}", scene.turn.id), "type": "message", "role": "assistant",
        "model": scene.model, "content": content, "stop_reason": stop, "stop_sequence": null,
    })
}

/// A whole answer.
pub(super) fn whole(scene: &Scene<'_>, material: &Material) -> Vec<u8> {
    let said = material.choices.first();
    let content: Value = said.iter().flat_map(|said| &said.parts).map(block).collect();
    let usage = material.reported.as_ref().map(usage);
    let message = message(scene, &content, Some(stop_reason(said)));
    told(scene, &with(message, "usage", usage.clone()), "usage", usage.as_ref())
}

/// Writes a stream.
pub(super) struct Messages {
    times: usize,
    /// The message of the first event, without its usage.
    start: Value,
}

impl Messages {
    pub(super) fn new(scene: &Scene<'_>) -> Self {
        Self { times: times(scene), start: message(scene, &json!([]), None) }
    }
}

fn event(tape: &mut Tape, payload: &Value) {
    let kind = payload.get("type").and_then(Value::as_str).unwrap_or_default();
    tape.push(&["event: ", kind, "\ndata: ", &payload.to_string(), "\n\n"]);
}

impl Pen for Messages {
    fn open(&mut self, tape: &mut Tape, material: &Material) {
        let first = |reported: &Reported| {
            usage(&Reported { completion_tokens: 1, reasoning_tokens: None, ..*reported })
        };
        let start = with(self.start.clone(), "usage", material.reported.as_ref().map(first));
        event(tape, &json!({"type": "message_start", "message": start}));
        tape.beside();
        event(tape, &json!({"type": "ping"}));
        tape.beside();
    }

    fn content(&mut self, tape: &mut Tape, place: &Place<'_>, words: &[Word]) {
        let text = piece(place, words);
        let (empty, delta) = if let Some((id, name)) = &place.part.call {
            let id = id.replace("call_", "toolu_");
            let empty = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
            (empty, json!({"type": "input_json_delta", "partial_json": text}))
        } else {
            let empty = json!({"type": "text", "text": ""});
            (empty, json!({"type": "text_delta", "text": text}))
        };
        let index = place.index;
        if place.first {
            let start =
                json!({"type": "content_block_start", "index": index, "content_block": empty});
            event(tape, &start);
        }
        event(tape, &json!({"type": "content_block_delta", "index": index, "delta": delta}));
        if place.last {
            event(tape, &json!({"type": "content_block_stop", "index": index}));
        }
    }

    fn close(&mut self, tape: &mut Tape, material: &Material, proper: bool) {
        let stop = stop_reason(material.choices.first());
        let last = json!({"type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": null}});
        let cumulative = |reported: &Reported| {
            let usage = json!({
                "input_tokens": usage(reported).get("input_tokens"),
                "cache_read_input_tokens": reported.cached_tokens.unwrap_or(0),
                "cache_creation_input_tokens": 0,
                "output_tokens": reported.completion_tokens,
            });
            with(usage, "output_tokens_details", thought(reported))
        };
        let last = with(last, "usage", material.reported.as_ref().map(cumulative));
        for _ in 0..self.times {
            event(tape, &last);
            tape.told(material.reported.is_some());
        }
        if proper {
            event(tape, &json!({"type": "message_stop"}));
            tape.beside();
        }
    }

    fn error(&mut self, tape: &mut Tape) {
        tape.push(&["event: error\ndata: "]);
        tape.bytes.extend_from_slice(&ErrorBody::scripted(500, None).json(Face::Anthropic));
        tape.push(&["\n\n"]);
        tape.beside();
    }
}
