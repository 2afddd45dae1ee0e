//! Generated text as server-sent events, with the faults that streams can have.
//!
//! Order of a healthy stream: what its dialect opens with, the content chunks of all choices in
//! turn, and what the dialect closes with. All events are written into one buffer and cut into
//! slices, so a stream of fifty chunks is one allocation of bytes. The invariant: the content
//! pieces of a choice join to its words.

use bytes::Bytes;

use super::completion::{Material, Said, generate};
use super::pen::{self, Pen, Place};
use super::sample::Word;
use super::{Draft, EVENT_STREAM, FRAMES, JSON, Scene, pad};
use crate::behaviour::{Damage, Ending};
use crate::inquiry::{Completion, Dialect};
use crate::reply::{Billing, Piece, Step};
use crate::truth::Outcome;

/// The events of one stream while they are written.
#[derive(Default)]
pub(super) struct Tape {
    pub(super) bytes: Vec<u8>,
    marks: Vec<Mark>,
}

/// Where an event ends, and what it means.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    end: usize,
    wait_ms: u64,
    tokens: u64,
    content: bool,
    pub(super) reports_usage: bool,
}

/// One content chunk.
struct Chunk<'a> {
    place: Place<'a>,
    words: &'a [Word],
}

/// The content chunks of one choice; all chunks of a part have the same number of words, give or
/// take one.
fn chunks(said: &Said, wanted: Option<u32>, whole_calls: bool) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    for (index, part) in said.parts.iter().enumerate() {
        let words = part.words.as_slice();
        let wanted = wanted.map_or(words.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
        let count = if whole_calls && part.call.is_some() { 1 } else { wanted };
        let count = count.max(1).min(words.len());
        let bound = |n: usize| n.saturating_mul(words.len()).checked_div(count).unwrap_or(0);
        for n in 0..count {
            let next = n.saturating_add(1);
            let place = Place { choice: 0, index, part, first: n == 0, last: next == count };
            let words = words.get(bound(n)..bound(next)).unwrap_or_default();
            chunks.push(Chunk { place, words });
        }
    }
    chunks
}

/// The plan of a streamed answer.
pub(super) fn plan(scene: &Scene<'_>, completion: &Completion<'_>) -> Draft {
    let mut material = generate(scene, completion);
    let falls_silent = scene.behaviour.ending == Some(Ending::FinishSilence);
    if !completion.include_usage || falls_silent {
        material.reported = None;
    }
    let mut pen = pen::of(scene, completion);
    let mut tape = Tape::default();
    let stop_after = match scene.behaviour.ending {
        Some(Ending::Cut { after } | Ending::Silence { after } | Ending::Error { after }) => {
            Some(after)
        }
        Some(Ending::NoDone | Ending::FinishError | Ending::FinishSilence) | None => None,
    };
    if stop_after != Some(0) {
        pen.open(&mut tape, &material);
        let whole_calls = matches!(completion.dialect, Dialect::Gemini { .. });
        contents(scene, (&mut *pen, &mut tape), &material, (stop_after, whole_calls));
    }
    if stop_after.is_none() {
        let proper = matches!(scene.behaviour.ending, None | Some(Ending::FinishError));
        pen.close(&mut tape, &material, proper);
    }
    let (last, billing, outcome) = match scene.behaviour.ending {
        Some(Ending::Cut { .. }) => (Some(Step::Cut), Billing::Streamed, Outcome::Cut),
        Some(Ending::Silence { .. } | Ending::FinishSilence) => {
            (Some(Step::Silence), Billing::Streamed, Outcome::Silent)
        }
        Some(Ending::Error { after }) => {
            let billing = if after == 0 { Billing::Nothing } else { Billing::Streamed };
            pen.error(&mut tape);
            (None, billing, Outcome::Failed)
        }
        Some(Ending::NoDone | Ending::FinishError) | None => {
            (None, Billing::Streamed, Outcome::Answered)
        }
    };
    let mut steps = tape.steps();
    steps.extend(last);
    let is_array = completion.dialect == Dialect::Gemini { array: true };
    Draft {
        steps,
        content_type: match completion.dialect {
            _ if is_array => JSON,
            Dialect::Invoke | Dialect::Converse => FRAMES,
            Dialect::Chat
            | Dialect::Text
            | Dialect::Messages
            | Dialect::Responses
            | Dialect::Gemini { .. } => EVENT_STREAM,
        },
        declared: None,
        usage: material.usage,
        reported: material.reported,
        billing,
        outcome,
    }
}

/// Writes the content chunks of all choices in turn, at most `stop_after` of them.
fn contents(
    scene: &Scene<'_>,
    (pen, tape): (&mut dyn Pen, &mut Tape),
    material: &Material,
    (stop_after, whole_calls): (Option<u32>, bool),
) {
    let of = |said| chunks(said, scene.behaviour.chunks, whole_calls);
    let cuts: Vec<Vec<Chunk<'_>>> = material.choices.iter().map(of).collect();
    let rounds = cuts.iter().map(Vec::len).max().unwrap_or(0);
    let mut written = 0u32;
    for round in 0..rounds {
        for (choice, cuts) in cuts.iter().enumerate() {
            let Some(chunk) = cuts.get(round) else {
                continue;
            };
            if stop_after.is_some_and(|limit| written >= limit) {
                return;
            }
            let pause = if written == 0 { None } else { scene.behaviour.pace_ms };
            written = written.saturating_add(1);
            let start = tape.bytes.len();
            pen.content(tape, &Place { choice, ..chunk.place }, chunk.words);
            damage(scene, &mut tape.bytes, start, written);
            tape.mark(Mark {
                wait_ms: pause.unwrap_or(0),
                tokens: u64::try_from(chunk.words.len()).unwrap_or(u64::MAX),
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

impl Tape {
    pub(super) fn push(&mut self, parts: &[&str]) {
        for part in parts {
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        self.marks.push(Mark { end: self.bytes.len(), ..mark });
    }

    /// The end of a piece that is not content.
    pub(super) fn beside(&mut self) {
        self.mark(Mark::default());
    }

    /// The end of a piece that tells the usage, if there is one to tell.
    pub(super) fn told(&mut self, reports_usage: bool) {
        self.mark(Mark { reports_usage, ..Mark::default() });
    }

    /// The bytes, and whether usage is told in them.
    pub(super) fn into_parts(self) -> (Vec<u8>, bool) {
        let told = self.marks.iter().any(|mark| mark.reports_usage);
        (self.bytes, told)
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
