//! Forms with files: recordings to hear, and pictures to edit.
//!
//! A form is made around the bytes of an input, or the input is one. Invariants: what goes to a
//! provider has the length that was said, is a form again with the parts in their order, and what
//! decides about money is read alike.

use anima_wire::adapter::Destination;
use anima_wire::request::{CallRequest, Endpoint};
use bytes::Bytes;
use http::HeaderValue;

use super::{named, settings, shape};
use crate::rng::Rng;

const ENDPOINTS: [Endpoint; 3] =
    [Endpoint::Transcriptions, Endpoint::Translations, Endpoint::ImageEdits];
const KIND: HeaderValue = HeaderValue::from_static("multipart/form-data; boundary=b");
const MODEL: &str = "another-model";

/// How recordings begin, so that what follows is read as one of each kind.
const HEADS: [&[u8]; 8] = [
    b"",
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data",
    b"fLaC\0\0\0\x22\x10\0\x10\0\0\0\0\0\0\0\x0a\xc4\x42",
    b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x02",
    b"\0\0\0\x18ftypM4A \0\0\0\0\0\0\x01\0moov\0\0\0\x6cmvhd",
    b"ID3\x04\0\0\0\0\0\x0a",
    b"\xff\xfb\x90\x64",
    b"\xff\xf3\x44\xc0Xing\0\0\0\x01",
];

/// A form, read and said to a provider.
pub(super) fn form(input: &[u8]) -> Result<u64, String> {
    let mut rng = Rng::of(input);
    let endpoint = rng.pick(&ENDPOINTS).copied().ok_or("no endpoints")?;
    let body = if input.starts_with(b"--b") { input.to_vec() } else { around(input, &mut rng) };
    let read = CallRequest::parse_form(endpoint, &KIND, Bytes::from(body));
    let request = match read {
        Ok(request) => request,
        Err(error) => return Ok(shape(&["unread", error.param.unwrap_or_default()], b"")),
    };
    request.estimate_input_tokens();
    request.count_input_tokens();
    let substance: usize = request.substance().map(<[u8]>::len).sum();
    if substance > request.body.len() {
        return Err("a form has more substance than bytes".into());
    }
    let provider = named(("openai", MODEL, None))?;
    let settings = settings();
    let to = Destination { settings: Some(&settings), ..Destination::bare(MODEL) };
    let encoded = provider.adapter.encode(&request, to).map_err(|error| error.to_string())?;
    let sent = Bytes::from(encoded.body.concat());
    if sent.len() != encoded.content_length {
        return Err(format!("{} bytes were said to be {}", sent.len(), encoded.content_length));
    }
    let kind = encoded.content_type.ok_or("a form lost its kind")?;
    let again = CallRequest::parse_form(endpoint, &kind, sent);
    let again = again.map_err(|error| format!("what is sent is no form: {}", error.message))?;
    let facts = |request: &CallRequest| {
        (request.choices, request.audio_seconds, request.media_parts, request.stream)
    };
    if again.model != MODEL || facts(&again) != facts(&request) {
        return Err(format!("what is sent says something else: {again:?}"));
    }
    Ok(shape(&["form", &format!("{:?}", facts(&request))], b""))
}

/// A form whose fields are taken from the input.
fn around(input: &[u8], rng: &mut Rng) -> Vec<u8> {
    let names = [
        "file",
        "model",
        "n",
        "image",
        "image[]",
        "mask",
        "prompt",
        "response_format",
        "stream",
        "metadata",
        "batch_size",
        "language",
    ];
    let mut body = Vec::new();
    let mut part = |name: &str, content: &[u8]| {
        let head = format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    part("model", b"m");
    let needed = input.get(rng.below(input.len())..).unwrap_or_default();
    let head = rng.pick(&HEADS).copied().unwrap_or_default();
    part("file", &[head, needed].concat());
    part("image", needed);
    for _ in 0..rng.below(4) {
        let name = rng.pick(&names).copied().unwrap_or("n");
        let start = input.get(rng.below(input.len())..).unwrap_or_default();
        let words: [&[u8]; 6] = [b"1", b"3", b"json", b"vtt", b"true", start];
        part(name, rng.pick(&words).copied().unwrap_or_default());
    }
    body.extend_from_slice(b"--b--");
    body
}
