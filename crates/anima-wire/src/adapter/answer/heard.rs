//! What was heard, in the form that the client asked for.
//!
//! A provider is asked for JSON also where the client wants bare text or subtitles: only JSON tells
//! what the call came to. Text and subtitles are then written here, as OpenAI writes them.
//! Invariant: what has no text is no answer. Sources: `a-inbound` A.1.2 and A.1.3, OpenAI's
//! reference of `verbose_json`, November 2026.

use std::fmt::Write as _;

use anima_core::failure::Failure;
use bytes::Bytes;

use super::super::sound::{Basis, whole};
use super::Answer;
use crate::dialect::openai::reply::Reply;
use crate::json::{Kind, Node, Outline};
use crate::request::{CallRequest, Transcript};

/// The content type of what is not JSON.
const PLAIN: &str = "text/plain; charset=utf-8";
const SUBTITLES: &str = "text/vtt; charset=utf-8";

/// Reads an answer in which no error was found.
pub(super) fn read(
    request: &CallRequest,
    body: &Bytes,
    reply: &Reply<'_>,
) -> Result<Answer, Failure> {
    let outline = Outline::read(body).map_err(|_malformed| Failure::AnswerMalformed)?;
    let root = outline.root();
    let text = root.text_of("text").ok_or(Failure::AnswerMalformed)?;
    let length = root.get("duration").and_then(whole);
    let known = Basis::of(request).known(root.get("usage"), length, &text);
    let (said, content_type) = match request.transcript() {
        Transcript::Json => (body.clone(), None),
        Transcript::Text => (Bytes::from(format!("{text}\n")), Some(PLAIN)),
        Transcript::Srt => (subtitles(root, ',')?, Some(PLAIN)),
        Transcript::Vtt => (subtitles(root, '.')?, Some(SUBTITLES)),
    };
    Ok(Answer {
        usage: Some(known.usage),
        told: known.told,
        usage_suspect: false,
        service_tier: None,
        upstream_ref: reply.id.map(|id| id.decode().into_owned()),
        text_bytes: text.len(),
        body: said,
        content_type,
        // The words are in the usage, and bare text or subtitles cannot be read again.
        counted: Some(0),
        failure: None,
    })
}

/// The segments with their times. `point` stands before the milliseconds, and tells the format.
fn subtitles(root: Node<'_, '_>, point: char) -> Result<Bytes, Failure> {
    let is_web = point == '.';
    let segments = root.get("segments").filter(|segments| segments.kind() == Kind::Array);
    let segments = segments.ok_or(Failure::AnswerMalformed)?;
    let mut out = String::from(if is_web { "WEBVTT\n\n" } else { "" });
    for (n, segment) in segments.elements().enumerate() {
        let at = |name: &str| segment.get(name).and_then(millis).ok_or(Failure::AnswerMalformed);
        let (start, end) = (time(at("start")?, point), time(at("end")?, point));
        let text = segment.text_of("text").ok_or(Failure::AnswerMalformed)?;
        let number = if is_web { String::new() } else { format!("{}\n", n + 1) };
        // Writing to a string does not fail.
        let _written = write!(out, "{number}{start} --> {end}\n{}\n\n", text.trim());
    }
    Ok(out.into())
}

/// Milliseconds of a number of seconds, cut off.
fn millis(node: Node<'_, '_>) -> Option<u64> {
    let (seconds, part) = node.number()?.split_once('.').unwrap_or((node.number()?, ""));
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    seconds.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(digits.parse().ok()?)
}

fn time(ms: u64, point: char) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{point}{:03}", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::adapter::lookup;
    use crate::request::Endpoint;

    const VERBOSE: &str = r#"{"task":"transcribe","language":"english","duration":8.47,
        "text":"The beach. It was hot.","segments":[
        {"id":0,"start":0.0,"end":3.319999933242798,"text":" The beach."},
        {"id":1,"start":3.32,"end":3661.5,"text":" It was hot."}],
        "usage":{"type":"duration","seconds":9}}"#;

    fn answer(format: &str, body: &'static str) -> Result<Answer, Failure> {
        let part = |name: &str, text: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
        };
        let form = [part("file", "x"), part("model", "m"), part("response_format", format)];
        let form = Bytes::from(form.concat() + "--b--");
        let kind = HeaderValue::from_static("multipart/form-data; boundary=b");
        let request = CallRequest::parse_form(Endpoint::Transcriptions, &kind, form);
        let request = request.map_err(|error| error.failure)?;
        let adapter = lookup("openai").unwrap();
        adapter.answer(&request, &Bytes::from_static(body.as_bytes()))
    }

    fn said(format: &str, body: &'static str) -> (String, Option<&'static str>) {
        let answer = answer(format, body).unwrap();
        (String::from_utf8(answer.body.to_vec()).unwrap(), answer.content_type)
    }

    #[test]
    fn text_and_subtitles_are_written_as_openai_writes_them() {
        let text = said("text", VERBOSE);
        assert_eq!(text, ("The beach. It was hot.\n".to_owned(), Some(PLAIN)));
        let srt = "1\n00:00:00,000 --> 00:00:03,319\nThe beach.\n\n\
            2\n00:00:03,320 --> 01:01:01,500\nIt was hot.\n\n";
        assert_eq!(said("srt", VERBOSE).0, srt);
        let vtt = "WEBVTT\n\n00:00:00.000 --> 00:00:03.319\nThe beach.\n\n\
            00:00:03.320 --> 01:01:01.500\nIt was hot.\n\n";
        assert_eq!(said("vtt", VERBOSE), (vtt.to_owned(), Some(SUBTITLES)));
        assert_eq!(said("verbose_json", VERBOSE), (VERBOSE.to_owned(), None));
    }

    #[test]
    fn what_has_no_text_is_no_answer() {
        for body in ["{}", r#"{"text":null}"#, r#"["text"]"#] {
            assert_eq!(answer("json", body).unwrap_err(), Failure::AnswerMalformed, "{body}");
        }
        let bare = answer("srt", r#"{"text":"x"}"#);
        assert_eq!(bare.unwrap_err(), Failure::AnswerMalformed);
        let fault = r#"{"error":{"code":"rate_limit_exceeded"}}"#;
        assert_eq!(answer("json", fault).unwrap_err(), Failure::RateLimited);
    }
}
