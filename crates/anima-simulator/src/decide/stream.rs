//! Generated text as server-sent events, with the faults that streams can have.
//!
//! Order of a healthy stream: a role chunk per choice (chat only), the content chunks of all
//! choices in turn, a finishing chunk per choice, the usage chunk if asked for, `[DONE]`. All
//! events are written into one buffer and cut into slices, so a stream of fifty chunks is one
//! allocation of bytes. The invariant: the content pieces of a choice join to its words.

use bytes::Bytes;

use super::completion::{Material, finish_reason, generate};
use super::{Draft, EVENT_STREAM, Scene, pad};
use crate::behaviour::{Damage, Ending, UsageLie};
use crate::inquiry::{Completion, Dialect};
use crate::prose::Answer;
use crate::refusal::ErrorBody;
use crate::reply::{Billing, Piece, Step};
use crate::truth::Outcome;

/// The events of one stream while they are written.
struct Tape {
    dialect: Dialect,
    /// Every chunk up to and including `"choices":[`.
    head: String,
    /// Every chunk from the `]` that closes `choices`.
    tail: &'static str,
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

/// Where an event ends, and what it means.
#[derive(Clone, Copy, Default)]
struct Mark {
    end: usize,
    wait_ms: u64,
    tokens: u64,
    content: bool,
    reports_usage: bool,
}

/// Content chunks of one choice.
struct Cuts<'a> {
    words: &'a [&'static str],
    chunks: usize,
}

impl<'a> Cuts<'a> {
    fn of(answer: &'a Answer, chunks: Option<u32>) -> Self {
        let words = answer.words.as_slice();
        let wanted = chunks.map_or(words.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
        Self { words, chunks: wanted.max(1).min(words.len()) }
    }

    /// The words of a chunk; all chunks have the same number of words, give or take one.
    fn get(&self, chunk: usize) -> Option<&'a [&'static str]> {
        let bound = |n: usize| n.saturating_mul(self.words.len()).checked_div(self.chunks);
        if chunk >= self.chunks {
            return None;
        }
        self.words.get(bound(chunk)?..bound(chunk.saturating_add(1))?)
    }
}

/// The plan of a streamed answer.
pub(super) fn plan(scene: &Scene<'_>, completion: &Completion<'_>) -> Draft {
    let mut material = generate(scene, completion);
    if !completion.include_usage {
        material.reported = None;
    }
    let mut tape = tape(scene, completion);
    let stop_after = match scene.behaviour.ending {
        Some(Ending::Cut { after } | Ending::Silence { after } | Ending::Error { after }) => {
            Some(after)
        }
        Some(Ending::NoDone) | None => None,
    };
    if stop_after != Some(0) {
        tape.roles(material.answers.len());
        contents(scene, &mut tape, &material, stop_after);
    }
    if stop_after.is_none() {
        finish(scene, &mut tape, &material);
    }
    let (last, billing, outcome) = match scene.behaviour.ending {
        Some(Ending::Cut { .. }) => (Some(Step::Cut), Billing::Streamed, Outcome::Cut),
        Some(Ending::Silence { .. }) => (Some(Step::Silence), Billing::Streamed, Outcome::Silent),
        Some(Ending::Error { after }) => {
            let billing = if after == 0 { Billing::Nothing } else { Billing::Streamed };
            tape.error();
            (None, billing, Outcome::Failed)
        }
        Some(Ending::NoDone) | None => (None, Billing::Streamed, Outcome::Answered),
    };
    let mut steps = tape.steps();
    steps.extend(last);
    Draft {
        steps,
        content_type: EVENT_STREAM,
        declared: None,
        usage: material.usage,
        reported: material.reported,
        billing,
        outcome,
    }
}

fn tape(scene: &Scene<'_>, completion: &Completion<'_>) -> Tape {
    let (prefix, object) = match completion.dialect {
        Dialect::Chat => ("chatcmpl", "chat.completion.chunk\",\"service_tier\":\"default"),
        Dialect::Text => ("cmpl", "text_completion"),
    };
    let head = format!(
        "data: {{\"id\":\"{prefix}-{}\",\"object\":\"{object}\",\"created\":{},\"model\":{},\
         \"system_fingerprint\":\"fp_simulator\",\"choices\":[",
        scene.turn.id,
        scene.turn.created_s,
        scene.model_json()
    );
    let tail = if completion.include_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" };
    Tape { dialect: completion.dialect, head, tail, bytes: Vec::new(), marks: Vec::new() }
}

/// Writes the content chunks of all choices in turn, at most `stop_after` of them.
fn contents(scene: &Scene<'_>, tape: &mut Tape, material: &Material, stop_after: Option<u32>) {
    let chunks = scene.behaviour.chunks;
    let cuts: Vec<Cuts<'_>> = material.answers.iter().map(|a| Cuts::of(a, chunks)).collect();
    let rounds = cuts.iter().map(|cuts| cuts.chunks).max().unwrap_or(0);
    let mut written = 0u32;
    for round in 0..rounds {
        for (index, cuts) in cuts.iter().enumerate() {
            let Some(words) = cuts.get(round) else {
                continue;
            };
            if stop_after.is_some_and(|limit| written >= limit) {
                return;
            }
            let pause = if written == 0 { None } else { scene.behaviour.pace_ms };
            written = written.saturating_add(1);
            let start = tape.bytes.len();
            tape.content(index, words, round == 0);
            damage(scene, &mut tape.bytes, start, written);
            tape.mark(Mark {
                wait_ms: pause.unwrap_or(0),
                tokens: u64::try_from(words.len()).unwrap_or(u64::MAX),
                content: true,
                ..Mark::default()
            });
        }
    }
}

/// Spoils the n-th content chunk, from 1, if the behaviour says so. It lies from `start` on.
fn damage(scene: &Scene<'_>, bytes: &mut Vec<u8>, start: usize, nth: u32) {
    let middle = start.midpoint(bytes.len());
    match scene.behaviour.damage {
        Some(Damage::BadJson) if nth == 1 => {
            bytes.truncate(middle);
            bytes.extend_from_slice(b"\n\n");
        }
        Some(Damage::BadSse { at }) if nth == at => {
            let rest = bytes.split_off(middle);
            // 0xFF is never valid in UTF-8; the line after the break has no field name.
            bytes.extend_from_slice(b"\n\xff");
            bytes.extend_from_slice(&rest);
        }
        // Before `}` and the two line breaks.
        Some(Damage::HugeLine { bytes: padding }) if nth == 1 => pad(bytes, 3, padding),
        Some(
            Damage::BadJson
            | Damage::BadSse { .. }
            | Damage::HugeLine { .. }
            | Damage::ContentLength,
        )
        | None => {}
    }
}

/// Writes what follows the content of a whole stream.
fn finish(scene: &Scene<'_>, tape: &mut Tape, material: &Material) {
    for (index, answer) in material.answers.iter().enumerate() {
        let index = tape.begin(index);
        tape.end(&index, Some(finish_reason(answer)));
        tape.mark(Mark::default());
    }
    if let Some(reported) = &material.reported {
        let usage = reported.completion_json();
        let times = if scene.behaviour.usage == Some(UsageLie::Twice) { 2 } else { 1 };
        for _ in 0..times {
            tape.push(&[&tape.head.clone(), "],\"usage\":", &usage, "}\n\n"]);
            tape.mark(Mark { reports_usage: true, ..Mark::default() });
        }
    }
    if scene.behaviour.ending.is_none() {
        tape.push(&["data: [DONE]\n\n"]);
        tape.mark(Mark::default());
    }
}

impl Tape {
    fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }

    fn mark(&mut self, mark: Mark) {
        self.marks.push(Mark { end: self.bytes.len(), ..mark });
    }

    fn roles(&mut self, choices: usize) {
        if self.dialect == Dialect::Text {
            return;
        }
        for index in 0..choices {
            let index = self.begin(index);
            self.push(&["\"role\":\"assistant\",\"content\":\"\",\"refusal\":null"]);
            self.end(&index, None);
            self.mark(Mark::default());
        }
    }

    /// Starts an event with one choice, up to the inside of a chat's delta or of a text.
    fn begin(&mut self, index: usize) -> String {
        let index = index.to_string();
        self.bytes.extend_from_slice(self.head.as_bytes());
        match self.dialect {
            Dialect::Chat => self.push(&["{\"index\":", &index, ",\"delta\":{"]),
            Dialect::Text => self.push(&["{\"text\":\""]),
        }
        index
    }

    fn end(&mut self, index: &str, finish: Option<&str>) {
        match self.dialect {
            Dialect::Chat => self.push(&["},\"logprobs\":null,\"finish_reason\":"]),
            Dialect::Text => {
                self.push(&["\",\"index\":", index, ",\"logprobs\":null,\"finish_reason\":"]);
            }
        }
        match finish {
            Some(reason) => self.push(&["\"", reason, "\"}", self.tail]),
            None => self.push(&["null}", self.tail]),
        }
    }

    /// One content chunk; all but the first of a choice begin with a space.
    fn content(&mut self, index: usize, words: &[&str], first: bool) {
        let index = self.begin(index);
        if self.dialect == Dialect::Chat {
            self.push(&["\"content\":\""]);
        }
        for (place, word) in words.iter().enumerate() {
            let space = if first && place == 0 { "" } else { " " };
            self.push(&[space, word]);
        }
        if self.dialect == Dialect::Chat {
            self.push(&["\""]);
        }
        self.end(&index, None);
    }

    fn error(&mut self) {
        self.bytes.extend_from_slice(b"data: ");
        self.bytes.extend_from_slice(&ErrorBody::scripted(500, None).json());
        self.bytes.extend_from_slice(b"\n\n");
        self.mark(Mark::default());
    }

    fn steps(self) -> Vec<Step> {
        let bytes = Bytes::from(self.bytes);
        let mut steps = Vec::with_capacity(self.marks.len().saturating_add(1));
        let mut start = 0;
        for mark in self.marks {
            if mark.wait_ms > 0 {
                steps.push(Step::Wait(mark.wait_ms));
            }
            steps.push(Step::Send(Piece {
                bytes: bytes.slice(start..mark.end),
                tokens: mark.tokens,
                content: mark.content,
                reports_usage: mark.reports_usage,
            }));
            start = mark.end;
        }
        steps
    }
}
