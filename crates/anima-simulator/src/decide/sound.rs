//! Sound: bytes that stand for speech, and words that stand for what was heard.
//!
//! As with `OpenAI`, a model with `whisper` in its name tells seconds and others tell tokens: ten
//! for a second that is heard, twenty for one that is spoken, of fifteen characters. Bare text and
//! subtitles tell nothing. The bill is always the truth: characters, seconds and tokens. Source:
//! `OpenAI`'s API reference, as of November 2026.

use bytes::Bytes;
use serde_json::{Value, json};

use super::completion::generate;
use super::{Draft, EVENT_STREAM, Scene};
use crate::behaviour::Ending;
use crate::inquiry::{Completion, Dialect, Sound, Wanted};
use crate::refusal::ErrorBody;
use crate::reply::{Billing, Piece, Step};
use crate::script::Endpoint;
use crate::truth::Outcome;
use crate::usage::{Reported, Usage};

/// Tokens of a second that is heard.
const HEARD: u64 = 10;
/// Pieces of a sound or of a stream when nobody says otherwise.
const PIECES: u32 = 4;

/// The plan of an answer.
pub(super) fn plan(scene: &Scene<'_>, sound: &Sound<'_>) -> Draft {
    if sound.endpoint == Endpoint::Speech { speak(scene, sound) } else { hear(scene, sound) }
}

fn speak(scene: &Scene<'_>, sound: &Sound<'_>) -> Draft {
    let usage = Usage {
        prompt_tokens: sound.characters.div_ceil(4),
        completion_tokens: sound.characters.saturating_mul(4) / 3,
        characters: sound.characters,
        ..Usage::default()
    };
    let reported = Reported::of(&usage, scene.behaviour.usage);
    let count = scene.behaviour.chunks.unwrap_or(PIECES);
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for n in 0..count {
        // As valid as a player needs, and different in each place.
        let bytes = format!("ID3 {} {n:08} of sound.", scene.turn.id).into_bytes();
        let event = json!({"type": "speech.audio.delta", "audio": format!("AAAA{n:04}")});
        pieces.push(if sound.stream { framed(&event) } else { bytes });
    }
    let told = reported.filter(|_| sound.stream);
    let last = json!({"type": "speech.audio.done", "usage": told.as_ref().map(|told| json!({
        "input_tokens": told.prompt_tokens, "output_tokens": told.completion_tokens,
        "total_tokens": told.total_tokens,
    }))});
    let end = sound.stream.then(|| framed(&last));
    let content_type = if sound.stream { EVENT_STREAM } else { "audio/mpeg" };
    pieced(scene, (usage, told), (pieces, end), content_type)
}

fn hear(scene: &Scene<'_>, sound: &Sound<'_>) -> Draft {
    let completion = Completion {
        dialect: Dialect::Chat,
        model: sound.model.clone(),
        stream: sound.stream,
        include_usage: true,
        cap: None,
        choices: 1,
        generated: 1,
        prompt_tokens: sound.seconds.saturating_mul(HEARD),
        pictures: Vec::new(),
        wanted: Wanted::Prose,
    };
    let material = generate(scene, &completion);
    let usage = Usage { audio_seconds: sound.seconds, ..material.usage };
    let text: String = material
        .choices
        .iter()
        .flat_map(|said| &said.parts)
        .map(super::completion::Part::text)
        .collect();
    let told = material.reported.map(|told| usage_of(scene, &told, sound.seconds));
    if sound.stream && !scene.model.contains("whisper") {
        let delta = |word: &str| {
            framed(&json!({"type": "transcript.text.delta", "delta": format!("{word} ")}))
        };
        let pieces = text.split(' ').map(delta).collect();
        let end = json!({"type": "transcript.text.done", "text": text, "usage": told});
        let end = Some(framed(&end));
        return pieced(scene, (usage, material.reported), (pieces, end), EVENT_STREAM);
    }
    let segment = json!({"id": 0, "start": 0.0, "end": sound.seconds, "text": text});
    let body = match sound.format.as_str() {
        "text" => format!("{text}\n"),
        "srt" | "vtt" => format!("1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n"),
        "verbose_json" => json!({"task": "transcribe", "language": "english", "text": text,
            "duration": sound.seconds, "segments": [segment], "usage": told})
        .to_string(),
        _ => json!({"text": text, "usage": told}).to_string(),
    };
    let is_json = sound.format.contains("json");
    let mut draft = scene.json(body.into_bytes(), usage, material.reported.filter(|_| is_json));
    if !is_json {
        draft.content_type = "text/plain; charset=utf-8";
    }
    draft
}

/// What the caller is told, in the way of the model.
fn usage_of(scene: &Scene<'_>, told: &Reported, seconds: u64) -> Value {
    if scene.model.contains("whisper") {
        return json!({"type": "duration", "seconds": seconds});
    }
    json!({"type": "tokens", "input_tokens": told.prompt_tokens,
        "input_token_details": {"text_tokens": 0, "audio_tokens": told.prompt_tokens},
        "output_tokens": told.completion_tokens, "total_tokens": told.total_tokens})
}

fn framed(payload: &Value) -> Vec<u8> {
    let kind = payload.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {kind}\ndata: {payload}\n\n").into_bytes()
}

/// An answer in pieces, with the faults that streams can have.
fn pieced(
    scene: &Scene<'_>,
    (usage, reported): (Usage, Option<Reported>),
    (pieces, end): (Vec<Vec<u8>>, Option<Vec<u8>>),
    content_type: &'static str,
) -> Draft {
    let stop_after = match scene.behaviour.ending {
        Some(Ending::Cut { after } | Ending::Silence { after } | Ending::Error { after }) => after,
        Some(Ending::NoDone | Ending::FinishError | Ending::FinishSilence) | None => u32::MAX,
    };
    let mut steps = Vec::new();
    for piece in pieces.into_iter().take(usize::try_from(stop_after).unwrap_or(usize::MAX)) {
        let wait = scene.behaviour.pace_ms.filter(|_| !steps.is_empty());
        steps.extend(wait.map(Step::Wait));
        let bytes = Bytes::from(piece);
        steps.push(Step::Send(Piece { bytes, content: true, ..Piece::default() }));
    }
    let reports_usage = reported.is_some();
    let outcome = match scene.behaviour.ending {
        Some(Ending::Cut { .. }) => {
            steps.push(Step::Cut);
            Outcome::Cut
        }
        Some(Ending::Silence { .. }) => {
            steps.push(Step::Silence);
            Outcome::Silent
        }
        Some(Ending::Error { .. }) => {
            let error = ErrorBody::scripted(500, None).json(scene.face);
            let bytes = [b"event: error\ndata: ", error.as_slice(), b"\n\n"].concat();
            steps.push(Step::Send(Piece { bytes: bytes.into(), ..Piece::default() }));
            Outcome::Failed
        }
        Some(Ending::NoDone | Ending::FinishError | Ending::FinishSilence) | None => {
            let proper = end.filter(|_| scene.behaviour.ending != Some(Ending::NoDone));
            let last =
                |bytes: Vec<u8>| Piece { bytes: bytes.into(), reports_usage, ..Piece::default() };
            steps.extend(proper.map(|bytes| Step::Send(last(bytes))));
            Outcome::Answered
        }
    };
    let billing = Billing::Whole;
    Draft { steps, content_type, declared: None, usage, reported, billing, outcome }
}
