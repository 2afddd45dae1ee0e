//! Requests about sound: words to speak, and forms with a recording to hear.
//!
//! A form is read by the boundary that its content type names, as a real provider does: without it
//! there is nothing to read. Only what decides the answer and its bill is kept.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Ask, parse};
use crate::refusal::ErrorBody;
use crate::script::Endpoint;

/// Bytes of a second of a recording whose head says nothing.
const BYTES_PER_SECOND: u64 = 1_000;

/// A request about sound.
#[derive(Debug)]
pub(crate) struct Sound<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: Cow<'a, str>,
    pub(crate) stream: bool,
    /// Characters to speak.
    pub(crate) characters: u64,
    /// Seconds to hear.
    pub(crate) seconds: u64,
    /// The form of answer.
    pub(crate) format: String,
}

#[derive(Deserialize)]
struct SpeechBody<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    input: Cow<'a, str>,
    voice: serde::de::IgnoredAny,
    stream_format: Option<String>,
    response_format: Option<String>,
}

/// `POST /v1/audio/speech`.
pub(super) fn speech<'a>(ask: &Ask<'a>) -> Result<Sound<'a>, ErrorBody> {
    let body: SpeechBody<'a> = parse(ask.body)?;
    let SpeechBody { model, input, voice, stream_format, response_format } = body;
    let serde::de::IgnoredAny = voice;
    Ok(Sound {
        endpoint: Endpoint::Speech,
        model,
        stream: stream_format.as_deref() == Some("sse"),
        characters: u64::try_from(input.chars().count()).unwrap_or(u64::MAX),
        seconds: 0,
        format: response_format.unwrap_or_else(|| "mp3".to_owned()),
    })
}

/// `POST /v1/audio/transcriptions` and `/v1/audio/translations`.
pub(super) fn recording<'a>(endpoint: Endpoint, ask: &Ask<'a>) -> Result<Sound<'a>, ErrorBody> {
    let form = Form::read(ask)?;
    let file = form.part("file").ok_or_else(|| ErrorBody::invalid("'file' is required."))?;
    Ok(Sound {
        endpoint,
        model: Cow::Owned(form.text("model")?),
        stream: form.text("stream").is_ok_and(|word| word == "true"),
        characters: 0,
        seconds: seconds(file),
        format: form.text("response_format").unwrap_or_else(|_| "json".to_owned()),
    })
}

/// The model of `POST /v1/images/edits`, and how many pictures are asked for.
pub(super) fn edit(ask: &Ask<'_>) -> Result<(String, Option<u32>), ErrorBody> {
    let form = Form::read(ask)?;
    if form.part("image").or_else(|| form.part("image[]")).is_none() {
        return Err(ErrorBody::invalid("'image' is required."));
    }
    let n = form.text("n").ok().map(|n| n.parse());
    let n = n.transpose().map_err(|_bad| ErrorBody::invalid("n must be a number"))?;
    Ok((form.text("model")?, n))
}

/// Whether a body is a form.
pub(super) fn is_form(ask: &Ask<'_>) -> bool {
    ask.content_type.starts_with("multipart/form-data")
}

struct Form<'a> {
    parts: Vec<(String, &'a [u8])>,
}

impl<'a> Form<'a> {
    fn read(ask: &Ask<'a>) -> Result<Self, ErrorBody> {
        let boundary = ask.content_type.split_once("boundary=").map(|(_, rest)| rest);
        let boundary = boundary.and_then(|rest| rest.split(';').next()).unwrap_or_default();
        let sign = format!("--{}", boundary.trim_matches('"'));
        if !is_form(ask) || sign.len() < 3 || !ask.body.starts_with(sign.as_bytes()) {
            return Err(ErrorBody::invalid("Could not parse multipart form."));
        }
        let mut parts = Vec::new();
        for piece in pieces(ask.body, sign.as_bytes()).skip(1) {
            let Some(head) = position(piece, b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(piece.get(..head).unwrap_or_default());
            let name = text.split_once("name=\"").and_then(|(_, rest)| rest.split_once('"'));
            let content = piece.get(head.saturating_add(4)..).unwrap_or_default();
            let content = content.strip_suffix(b"\r\n").unwrap_or(content);
            parts.extend(name.map(|(name, _)| (name.to_owned(), content)));
        }
        Ok(Self { parts })
    }

    fn part(&self, name: &str) -> Option<&'a [u8]> {
        self.parts.iter().find(|(found, _)| found == name).map(|(_, content)| *content)
    }

    fn text(&self, name: &str) -> Result<String, ErrorBody> {
        let content = self
            .part(name)
            .ok_or_else(|| ErrorBody::invalid(format!("you must provide a {name} parameter")))?;
        Ok(String::from_utf8_lossy(content).into_owned())
    }
}

fn position(bytes: &[u8], sign: &[u8]) -> Option<usize> {
    bytes.windows(sign.len()).position(|window| window == sign)
}

/// What stands between the signs.
fn pieces<'a, 's>(
    mut bytes: &'a [u8],
    sign: &'s [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, 's> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let Some(at) = position(bytes, sign) else {
            is_over = true;
            return Some(bytes);
        };
        let (piece, rest) = bytes.split_at(at);
        bytes = rest.get(sign.len()..).unwrap_or_default();
        Some(piece)
    })
}

/// How long a recording lasts: of a wave file by its rate, else by its bytes.
fn seconds(file: &[u8]) -> u64 {
    let size = u64::try_from(file.len()).unwrap_or(u64::MAX);
    let rate = file.get(28..32).filter(|_| file.starts_with(b"RIFF"));
    let rate = rate.and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    match rate.filter(|rate| *rate > 0) {
        Some(rate) => size.saturating_sub(44).div_ceil(rate.into()),
        None => size.div_ceil(BYTES_PER_SECOND),
    }
}
