//! `OpenAI`'s chat completions and completions.
//!
//! Written by hand and not by way of a JSON tree: the benchmarks' upstream speaks it. A stream has
//! a role chunk per choice (chat only), the content, a finishing chunk per choice, the usage chunk
//! if asked for, and `[DONE]`. Source: `OpenAI`'s API reference, as of November 2026.

use super::{Pen, Place, times};
use crate::decide::Scene;
use crate::decide::completion::{Material, Part, Said};
use crate::decide::sample::Word;
use crate::decide::stream::Tape;
use crate::inquiry::{Completion, Dialect};
use crate::refusal::{ErrorBody, Face};

/// `finish_reason` of a choice.
fn finish_reason(said: &Said) -> &'static str {
    if said.failed {
        "network_error"
    } else if said.capped {
        "length"
    } else if said.calls() {
        "tool_calls"
    } else {
        "stop"
    }
}

/// Words with spaces between, as JSON text.
fn push_words(body: &mut String, words: &[Word], first: bool) {
    for (place, word) in words.iter().enumerate() {
        if place > 0 || !first {
            body.push(' ');
        }
        if word.contains(['"', '\\']) {
            body.push_str(&word.replace('\\', "\\\\").replace('"', "\\\""));
        } else {
            body.push_str(word);
        }
    }
}

/// A whole answer.
pub(super) fn whole(scene: &Scene<'_>, dialect: Dialect, material: &Material) -> Vec<u8> {
    let is_text = dialect == Dialect::Text;
    let (prefix, object) =
        if is_text { ("cmpl", "text_completion") } else { ("chatcmpl", "chat.completion") };
    let mut body = format!(
        "{{\"id\":\"{prefix}-{}\",\"object\":\"{object}\",\"created\":{},\"model\":{},\
         \"choices\":[",
        scene.turn.id,
        scene.turn.created_s,
        scene.model_json()
    );
    for (index, said) in material.choices.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        push_choice(&mut body, is_text, index, said);
    }
    body.push(']');
    if let Some(reported) = &material.reported {
        let usage = reported.completion_json();
        for _ in 0..times(scene) {
            body.push_str(",\"usage\":");
            body.push_str(&usage);
        }
    }
    body.push_str(if is_text {
        ",\"system_fingerprint\":\"fp_simulator\"}"
    } else {
        ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_simulator\"}"
    });
    body.into_bytes()
}

fn push_choice(body: &mut String, is_text: bool, index: usize, said: &Said) {
    let index = index.to_string();
    if is_text {
        body.push_str("{\"text\":\"");
    } else {
        body.extend(["{\"index\":", &index, ",\"message\":{\"role\":\"assistant\",\"content\":"]);
        body.push_str(if said.parts.iter().any(|part| part.call.is_some()) {
            "null"
        } else {
            "\""
        });
    }
    match said.parts.first() {
        Some(Part { call: Some(_), .. }) => push_calls(body, said),
        Some(part) => {
            push_words(body, &part.words, true);
            body.push('"');
        }
        None => body.push('"'),
    }
    if is_text {
        body.extend([",\"logprobs\":null,\"index\":", &index]);
    } else {
        body.push_str(",\"refusal\":null,\"annotations\":[]},\"logprobs\":null");
    }
    body.extend([",\"finish_reason\":\"", finish_reason(said), "\"}"]);
}

fn push_calls(body: &mut String, said: &Said) {
    body.push_str(",\"tool_calls\":[");
    for (place, part) in said.parts.iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        if let Some(call) = &part.call {
            push_call(body, call);
            push_words(body, &part.words, true);
            body.push_str("\"}}");
        }
    }
    body.push(']');
}

/// A call, up to the inside of its arguments.
fn push_call(body: &mut String, (id, name): &(String, String)) {
    let name = serde_json::Value::from(name.as_str()).to_string();
    body.extend(["{\"id\":\"", id, "\",\"type\":\"function\",\"function\":{\"name\":", &name]);
    body.push_str(",\"arguments\":\"");
}

/// Writes a stream.
pub(super) struct Openai {
    is_text: bool,
    times: usize,
    /// Every chunk up to and including `"choices":[`.
    head: String,
    /// Every chunk from the `]` that closes `choices`.
    tail: &'static str,
}

impl Openai {
    pub(super) fn new(scene: &Scene<'_>, completion: &Completion<'_>) -> Self {
        let is_text = completion.dialect == Dialect::Text;
        let (prefix, object) = if is_text {
            ("cmpl", "text_completion")
        } else {
            ("chatcmpl", "chat.completion.chunk\",\"service_tier\":\"default")
        };
        let head = format!(
            "data: {{\"id\":\"{prefix}-{}\",\"object\":\"{object}\",\"created\":{},\"model\":{},\
             \"system_fingerprint\":\"fp_simulator\",\"choices\":[",
            scene.turn.id,
            scene.turn.created_s,
            scene.model_json()
        );
        let tail = if completion.include_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" };
        Self { is_text, times: times(scene), head, tail }
    }

    /// Starts an event with one choice, up to the inside of a chat's delta or of a text.
    fn begin(&self, tape: &mut Tape, index: &str) {
        tape.push(&[&self.head]);
        if self.is_text {
            tape.push(&["{\"text\":\""]);
        } else {
            tape.push(&["{\"index\":", index, ",\"delta\":{"]);
        }
    }

    fn end(&self, tape: &mut Tape, index: &str, finish: Option<&str>) {
        if self.is_text {
            tape.push(&["\",\"index\":", index, ",\"logprobs\":null,\"finish_reason\":"]);
        } else {
            tape.push(&["},\"logprobs\":null,\"finish_reason\":"]);
        }
        match finish {
            Some(reason) => tape.push(&["\"", reason, "\"}", self.tail]),
            None => tape.push(&["null}", self.tail]),
        }
    }
}

impl Pen for Openai {
    fn open(&mut self, tape: &mut Tape, material: &Material) {
        if self.is_text {
            return;
        }
        for (index, said) in material.choices.iter().enumerate() {
            let index = index.to_string();
            self.begin(tape, &index);
            let calls = said.parts.iter().any(|part| part.call.is_some());
            let content = if calls { "null" } else { "\"\"" };
            tape.push(&["\"role\":\"assistant\",\"content\":", content, ",\"refusal\":null"]);
            self.end(tape, &index, None);
            tape.beside();
        }
    }

    fn content(&mut self, tape: &mut Tape, place: &Place<'_>, words: &[Word]) {
        let index = place.choice.to_string();
        self.begin(tape, &index);
        let mut text = String::new();
        match &place.part.call {
            Some(call) => {
                let opening = format!("\"tool_calls\":[{{\"index\":{},", place.index);
                tape.push(&[&opening]);
                if place.first {
                    let mut head = String::new();
                    push_call(&mut head, call);
                    tape.push(&[head.trim_start_matches('{')]);
                } else {
                    tape.push(&["\"function\":{\"arguments\":\""]);
                }
                push_words(&mut text, words, place.first);
                tape.push(&[&text, "\"}}]"]);
            }
            None if self.is_text => {
                push_words(&mut text, words, place.first);
                tape.push(&[&text]);
            }
            None => {
                push_words(&mut text, words, place.first);
                tape.push(&["\"content\":\"", &text, "\""]);
            }
        }
        self.end(tape, &index, None);
    }

    fn close(&mut self, tape: &mut Tape, material: &Material, proper: bool) {
        for (index, said) in material.choices.iter().enumerate() {
            let index = index.to_string();
            self.begin(tape, &index);
            self.end(tape, &index, Some(finish_reason(said)));
            tape.beside();
        }
        if let Some(reported) = &material.reported {
            let usage = reported.completion_json();
            for _ in 0..self.times {
                tape.push(&[&self.head, "],\"usage\":", &usage, "}\n\n"]);
                tape.told(true);
            }
        }
        if proper {
            tape.push(&["data: [DONE]\n\n"]);
            tape.beside();
        }
    }

    fn error(&mut self, tape: &mut Tape) {
        tape.bytes.extend_from_slice(b"data: ");
        tape.bytes.extend_from_slice(&ErrorBody::scripted(500, None).json(Face::Openai));
        tape.bytes.extend_from_slice(b"\n\n");
        tape.beside();
    }
}
