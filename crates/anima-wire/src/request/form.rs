//! A body that is a form: which parts it has, where they stand, and what replaces the few that
//! must change.
//!
//! Files are never copied: what is sent is slices of what came. Strict where two readers could see
//! two things: a part that decides about money or routing stands once, under a plainly written
//! name, and nothing stands before the first part or after the last. Sources: RFC 7578 and 2046,
//! `a-inbound` A.1.2.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;

use super::draft::{folds_to, missing, wrong};
use super::rewrite::{Limits, Places, UsageOption};
use super::{CallRequest, Endpoint, Error, Ranking, pictures, sound};
use crate::dialect::Dialect;

/// Parts that decide about money or routing, or are read here.
const OWNED: [&str; 7] = ["model", "response_format", "stream", "n", "prompt", "file", "language"];

/// Parts that a form may have: a dozen fields, and the pictures of an edit.
const PARTS_MAX: usize = 64;

/// Bytes of the longest field that is read; a prompt of a picture has up to 32,000 signs.
const FIELD_BYTES_MAX: usize = 128 * 1024;

/// Pictures that one call may ask for (`a-inbound` A.1.2).
const PICTURES_MAX: u64 = 10;

/// What a client wants to be told of what was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transcript {
    /// A JSON object, whichever.
    Json,
    /// The bare text.
    Text,
    /// Subtitles of `SubRip`.
    Srt,
    /// Subtitles of the web.
    Vtt,
}

impl Transcript {
    fn read(word: &str) -> Option<Self> {
        match word {
            "json" | "verbose_json" | "diarized_json" => Some(Self::Json),
            "text" => Some(Self::Text),
            "srt" => Some(Self::Srt),
            "vtt" => Some(Self::Vtt),
            _ => None,
        }
    }

    /// What the provider is asked for: of answers without usage the one with it that holds as much.
    const fn asked(self) -> Option<&'static str> {
        match self {
            Self::Json => None,
            Self::Text => Some("json"),
            Self::Srt | Self::Vtt => Some("verbose_json"),
        }
    }
}

/// What is known of a form.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) content_type: HeaderValue,
    pub(super) transcript: Transcript,
    model: Range<usize>,
    format: Option<Range<usize>>,
    /// Heads and contents, without the boundaries between them.
    parts: Vec<Range<usize>>,
}

impl Form {
    /// The parts with their heads.
    pub(super) fn substance<'b>(&'b self, body: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        self.parts.iter().filter_map(|part| body.get(part.clone()))
    }

    /// The body with another model, and with a form of answer that reports usage.
    pub(super) fn rewrite(&self, body: &Bytes, model: &str) -> Vec<Bytes> {
        let mut pieces = vec![(self.model.clone(), Bytes::copy_from_slice(model.as_bytes()))];
        if let (Some(place), Some(asked)) = (&self.format, self.transcript.asked()) {
            pieces.push((place.clone(), Bytes::from_static(asked.as_bytes())));
        }
        pieces.sort_by_key(|(place, _)| place.start);
        let mut segments = Vec::with_capacity(2 * pieces.len() + 1);
        let mut at = 0;
        for (place, text) in pieces {
            segments.push(body.slice(at..place.start));
            segments.push(text);
            at = place.end;
        }
        segments.push(body.slice(at..));
        segments.retain(|segment| !segment.is_empty());
        segments
    }
}

/// One part.
struct Part<'a> {
    name: &'a str,
    head: usize,
    content: Range<usize>,
}

/// Reads a body.
pub(super) fn read(
    endpoint: Endpoint,
    content_type: &HeaderValue,
    body: Bytes,
) -> Result<CallRequest, Error> {
    let boundary = boundary(content_type)?;
    let parts = parts(&body, &boundary)?;
    let range = |name: &str| parts.iter().find(|part| part.name == name).map(|p| &p.content);
    let field = |name: &'static str| range(name).map(|at| text(&body, name, at)).transpose();
    let model = field("model")?.unwrap_or_default();
    let Some(model_place) = range("model").filter(|_| !model.is_empty()).cloned() else {
        return Err(missing("model", "the model's name"));
    };
    let streams = switch(field("stream")?.unwrap_or_default())?;
    if streams && endpoint == Endpoint::ImageEdits {
        return Err(wrong("stream", "must be false: pictures are not streamed here"));
    }
    let (mut transcript, mut audio_seconds, mut choices) = (Transcript::Json, 0, 1);
    if endpoint.hears() {
        let file = range("file").filter(|at| !at.is_empty());
        let file = file.ok_or_else(|| missing("file", "the recording"))?;
        audio_seconds = sound::seconds(body.get(file.clone()).unwrap_or_default());
        let word = field("response_format")?.unwrap_or("json");
        let must = "must be `json`, `text`, `srt`, `verbose_json`, `vtt` or `diarized_json`";
        transcript = Transcript::read(word).ok_or_else(|| wrong("response_format", must))?;
    } else {
        choices = wished(&parts, &body, pictures_of(field("n")?)?)?;
        if !parts.iter().any(|part| matches!(part.name, "image" | "image[]")) {
            return Err(missing("image", "the picture to edit"));
        }
    }
    let prompt = field("prompt")?.unwrap_or_default();
    let shown = parts.iter().filter(|part| part.name.starts_with("image") || part.name == "mask");
    let media_parts = if endpoint.hears() { 0 } else { shown.count() as u64 };
    let (model, input_bytes) = (model.to_owned(), prompt.len());
    let format = range("response_format").cloned();
    // Of a stream the end reports usage, whatever its events hold.
    let transcript = if streams { Transcript::Json } else { transcript };
    let parts = parts.iter().map(|part| part.head..part.content.end).collect();
    let content_type = content_type.clone();
    let form = Form { content_type, transcript, model: model_place, format, parts };
    Ok(CallRequest {
        endpoint,
        dialect: Dialect::OpenAiChat,
        created_s: 0,
        as_array: false,
        ranking: Ranking::Jina,
        model,
        stream: streams && endpoint == Endpoint::Transcriptions,
        include_usage: true,
        output_tokens_max: None,
        choices,
        input_bytes,
        media_parts,
        characters: 0,
        audio_seconds,
        service_tier: None,
        searches: 0,
        betas: String::new(),
        limited_to: None,
        form: Some(form),
        places: Places {
            model: 0..0,
            limits: Limits::default(),
            usage_option: UsageOption::Asked,
            closing: body.len(),
        },
        body,
    })
}

fn switch(word: &str) -> Result<bool, Error> {
    match word {
        "" | "false" | "False" | "0" => Ok(false),
        "true" | "True" | "1" => Ok(true),
        _ => Err(wrong("stream", "must be true or false")),
    }
}

/// The most pictures that any field asks for.
fn wished(parts: &[Part<'_>], body: &Bytes, n: u64) -> Result<u64, Error> {
    parts.iter().try_fold(n, |most, part| {
        // Numbers are short, and files are not read.
        let bytes =
            body.get(part.content.clone()).filter(|bytes| bytes.len() <= pictures::TEXT_BYTES_MAX);
        let text = std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
        pictures::most_of_field(most, part.name, text)
    })
}

fn pictures_of(n: Option<&str>) -> Result<u64, Error> {
    let Some(n) = n.filter(|n| !n.is_empty()) else { return Ok(1) };
    let n = n.parse::<u64>().ok().filter(|n| (1..=PICTURES_MAX).contains(n));
    n.ok_or_else(|| wrong("n", "must be a whole number from 1 to 10"))
}

/// The text of a field.
fn text<'a>(body: &'a Bytes, name: &'static str, at: &Range<usize>) -> Result<&'a str, Error> {
    let bytes = body.get(at.clone()).unwrap_or_default();
    if bytes.len() > FIELD_BYTES_MAX {
        return Err(wrong(name, "is too long"));
    }
    std::str::from_utf8(bytes).map_err(|_bad| wrong(name, "must be text in UTF-8"))
}

fn malformed(what: &str) -> Error {
    Error::new(None, format!("the form cannot be read: {what}"))
}

/// The sign between parts, as the content type names it.
fn boundary(content_type: &HeaderValue) -> Result<Vec<u8>, Error> {
    let lacks = || malformed("its content type must be `multipart/form-data` with a `boundary`");
    let text = content_type.to_str().map_err(|_bad| lacks())?;
    let (kind, rest) = text.split_once(';').ok_or_else(lacks)?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(lacks());
    }
    let mut found = rest.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("boundary").then_some(value)
    });
    let (Some(value), None) = (found.next(), found.next()) else { return Err(lacks()) };
    if value.is_empty() || value.len() > 70 {
        return Err(lacks());
    }
    Ok([b"\r\n--", value.as_bytes()].concat())
}

/// Every part, in order.
fn parts<'a>(body: &'a Bytes, boundary: &[u8]) -> Result<Vec<Part<'a>>, Error> {
    let opening = boundary.get(2..).unwrap_or_default();
    if !body.starts_with(opening) {
        return Err(malformed("it must begin with its boundary"));
    }
    let (mut at, mut parts) = (opening.len(), Vec::new());
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if let Some(end) = rest.strip_prefix(b"--") {
            if end.trim_ascii().is_empty() {
                return Ok(parts);
            }
            return Err(malformed("something follows its last boundary"));
        }
        let Some(_) = rest.strip_prefix(b"\r\n") else {
            return Err(malformed("a boundary must end its line"));
        };
        // The line end of a boundary is also that of an empty head.
        let head_end = find(rest, b"\r\n\r\n").ok_or_else(|| malformed("a part has no content"))?;
        let head = rest.get(2..head_end).unwrap_or_default();
        let content = at + head_end + 4;
        let length = find(body.get(content..).unwrap_or_default(), boundary);
        let length = length.ok_or_else(|| malformed("its last boundary is missing"))?;
        let name = name(head)?;
        guard(name, &parts)?;
        parts.push(Part { name, head: at, content: content..content + length });
        if parts.len() > PARTS_MAX {
            return Err(malformed("it has too many parts"));
        }
        at = content + length + boundary.len();
    }
}

/// The name of a part.
fn name(head: &[u8]) -> Result<&str, Error> {
    let bad = || malformed("each part must have one plain `Content-Disposition` with a `name`");
    let head = std::str::from_utf8(head).map_err(|_bad| bad())?;
    let mut found = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':').ok_or_else(bad)?;
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            return Err(malformed("its parts must not be encoded for transfer"));
        }
        if field.eq_ignore_ascii_case("content-disposition")
            && found.replace(value.trim()).is_some()
        {
            return Err(bad());
        }
    }
    let value = found.and_then(|value| value.strip_prefix("form-data")).ok_or_else(bad)?;
    if value.contains('\\') || value.contains("name*") && !value.contains("filename*") {
        return Err(bad());
    }
    let (_, rest) =
        value.split_once(" name=").or_else(|| value.split_once(";name=")).ok_or_else(bad)?;
    let name = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or_else(bad)?.0,
        None => rest.split(';').next().unwrap_or_default().trim(),
    };
    let again = value.matches(" name=").count() + value.matches(";name=").count();
    if name.is_empty() || again != 1 { Err(bad()) } else { Ok(name) }
}

/// Refuses a part that was there before, or that is one of ours in disguise.
fn guard(name: &str, before: &[Part<'_>]) -> Result<(), Error> {
    let Some(owned) = OWNED.iter().find(|owned| folds_to(name, owned)) else { return Ok(()) };
    if name != *owned || before.iter().any(|part| part.name == name) {
        let message = format!("`{owned}` must stand once, in small letters: remove the others");
        return Err(Error::new(Some(owned), message));
    }
    Ok(())
}

/// Where `sign` first stands in `bytes`.
fn find(bytes: &[u8], sign: &[u8]) -> Option<usize> {
    let first = *sign.first()?;
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|byte| *byte == first)?;
        if bytes.get(at..)?.starts_with(sign) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=XyZ";

    fn form(parts: &[(&str, &str)]) -> String {
        let mut body = String::new();
        for (head, content) in parts {
            body.push_str("--XyZ\r\nContent-Disposition: form-data; ");
            body.push_str(head);
            body.push_str("\r\n\r\n");
            body.push_str(content);
            body.push_str("\r\n");
        }
        body.push_str("--XyZ--\r\n");
        body
    }

    fn parse(endpoint: Endpoint, body: &str) -> Result<CallRequest, Error> {
        let kind = HeaderValue::from_static(KIND);
        CallRequest::parse_form(endpoint, &kind, Bytes::copy_from_slice(body.as_bytes()))
    }

    const FILE: (&str, &str) =
        ("name=\"file\"; filename=\"a b.mp3\"\r\nContent-Type: audio/mpeg", "\r\n--Xy\r\nZ");

    #[test]
    fn what_is_sent_differs_in_the_model_and_the_form_of_answer_only() {
        let body = form(&[FILE, ("name=\"model\"", "fast"), ("name=\"language\"", "de")]);
        let read = parse(Endpoint::Transcriptions, &body).unwrap();
        assert_eq!((read.model.as_str(), read.stream), ("fast", false));
        let sent = String::from_utf8(read.rewrite("whisper-1", "").concat()).unwrap();
        assert_eq!(sent, body.replace("fast", "whisper-1"));
        for (asked, told) in [("text", "json"), ("srt", "verbose_json"), ("json", "json")] {
            let field = ("name=\"response_format\"", asked);
            let body = form(&[field, ("name=\"model\"", "fast"), FILE]);
            let read = parse(Endpoint::Translations, &body).unwrap();
            let sent = String::from_utf8(read.rewrite("m", "").concat()).unwrap();
            assert_eq!(sent, body.replace("fast", "m").replace(asked, told));
        }
    }

    #[test]
    fn the_pictures_of_an_edit_are_counted() {
        let picture = |name| (name, "png");
        let body = form(&[
            picture("name=\"image[]\"; filename=a.png"),
            picture("name=\"image[]\"; filename=b.png"),
            ("name=model", "m"),
            ("name=\"n\"", "3"),
            ("name=\"prompt\"", "a cat"),
        ]);
        let read = parse(Endpoint::ImageEdits, &body).unwrap();
        assert_eq!((read.choices, read.media_parts, read.input_bytes), (3, 2, 5));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let model = ("name=\"model\"", "m");
        for body in [
            form(&[FILE, model, ("name=\"MODEL\"", "n")]),
            form(&[FILE, model, model]),
            form(&[FILE, ("name=\"model\"; name=\"x\"", "m")]),
            form(&[FILE, ("name=\"mo\\del\"", "m"), model]),
            form(&[FILE, ("name*=utf-8''model", "m"), model]),
            form(&[FILE, ("name=\"model\"\r\nContent-Transfer-Encoding: base64", "bQ==")]),
            form(&[FILE]),
            form(&[model]),
            form(&[("name=\"file\"", ""), model]),
            form(&[FILE, model, ("name=\"response_format\"", "xml")]),
            form(&[FILE, model, ("name=\"stream\"", "perhaps")]),
            format!("x{}", form(&[FILE, model])),
            format!("{}x", form(&[FILE, model])),
            form(&[FILE, model]).replace("--XyZ--", "--XyZ"),
            String::new(),
        ] {
            let error = parse(Endpoint::Transcriptions, &body).unwrap_err();
            assert!(error.message.len() > 20, "{body}: {error}");
        }
        let kind = HeaderValue::from_static("application/json");
        assert!(CallRequest::parse_form(Endpoint::Transcriptions, &kind, Bytes::new()).is_err());
    }

    #[test]
    fn no_cut_of_a_form_panics() {
        let body = form(&[FILE, ("name=\"model\"", "fast")]);
        for end in 0..body.len() - 2 {
            assert!(parse(Endpoint::Transcriptions, body.get(..end).unwrap()).is_err(), "{end}");
        }
    }
}
