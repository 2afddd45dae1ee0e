//! The AWS event stream: binary frames with two checksums, into events as text.
//!
//! A frame is total length, length of the headers, a checksum of these, headers, payload and a
//! checksum of all of it, in network order (`b-outbound-chat` B.7). Of `InvokeModel` each payload
//! is `{"bytes": base64}` with one event of the vendor's inside; of Converse it is the event, and
//! its name a header. Invariant: the same bytes give the same events for any split of them, and a
//! frame whose checksums are wrong is never read.

use anima_core::failure::Failure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf as _;
use serde_json::{Value, json};

use super::converse_in::Events;

/// Bytes that one frame may have: AWS's own limit.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lengths and their checksum.
const PRELUDE: usize = 12;
/// The type of a header's value that is text.
const TEXT: u8 = 7;

/// Cuts a body into frames and gives their events as server-sent events.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Frames {
    carry: Vec<u8>,
    /// Of Converse: what its events have said so far.
    converse: Option<Events>,
}

/// What a frame says of itself.
#[derive(Debug, Default)]
struct Head {
    message: String,
    kind: String,
}

impl Frames {
    /// For a body of Converse's.
    pub(in crate::adapter) fn of_converse() -> Self {
        Self { carry: Vec::new(), converse: Some(Events::default()) }
    }

    /// Takes the next bytes and appends the events that are whole, also those before a frame that
    /// cannot be read: what they say is billed.
    pub(in crate::adapter) fn push(
        &mut self,
        chunk: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        self.carry.extend_from_slice(chunk);
        let mut used = 0;
        while let Some(frame) = whole(self.carry.get(used..).unwrap_or_default())? {
            used += frame.len();
            write_event(frame, &mut self.converse, out)?;
        }
        self.carry.drain(..used);
        Ok(())
    }
}

/// The first frame, if all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let Some(mut prelude) = bytes.get(..PRELUDE) else {
        return Ok(None);
    };
    let checked = bytes.get(..8).unwrap_or_default();
    let length = prelude.get_u32() as usize;
    let headers = prelude.get_u32() as usize;
    let is_sane = length <= FRAME_BYTES_MAX && length >= PRELUDE + 4 + headers;
    if crc32(checked) != prelude.get_u32() || !is_sane {
        return Err(Failure::AnswerMalformed);
    }
    let Some(frame) = bytes.get(..length) else {
        return Ok(None);
    };
    let (all, mut sum) = frame.split_at(length - 4);
    if crc32(all) != sum.get_u32() {
        return Err(Failure::AnswerMalformed);
    }
    Ok(Some(frame))
}

/// Writes the event of a frame.
fn write_event(
    frame: &[u8],
    converse: &mut Option<Events>,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let mut lengths = frame.get(4..8).unwrap_or_default();
    let headers = PRELUDE + lengths.get_u32() as usize;
    let head = frame.get(PRELUDE..headers).and_then(read_head).ok_or(Failure::AnswerMalformed)?;
    let payload = frame.get(headers..frame.len().saturating_sub(4)).unwrap_or_default();
    if let Some(events) = converse.as_mut().filter(|_| head.message == "event") {
        return events.take(&head.kind, payload, out);
    }
    let value: Value = serde_json::from_slice(payload).unwrap_or_default();
    let event = if head.message == "event" {
        let inner = value.get("bytes").and_then(Value::as_str);
        let Some(inner) = inner.and_then(|text| STANDARD.decode(text).ok()) else {
            // Of a kind that this vendor does not document: nothing to show.
            return Ok(());
        };
        inner
    } else {
        let message = value.get("message").and_then(Value::as_str).unwrap_or_default();
        let kind = error_kind(&head.kind);
        json!({"type": "error", "error": {"type": kind, "message": message}}).to_string().into()
    };
    let name: Value = serde_json::from_slice(&event).map_err(|_bad| Failure::AnswerMalformed)?;
    let name = name.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    for part in [b"event: ", name.as_bytes(), b"\ndata: ", &event, b"\n\n"] {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// An exception in Anthropic's words.
fn error_kind(exception: &str) -> &'static str {
    match exception {
        "throttlingException" | "modelNotReadyException" => "rate_limit_error",
        "validationException" => "invalid_request_error",
        "serviceUnavailableException" => "overloaded_error",
        "modelTimeoutException" => "timeout_error",
        _ => "api_error",
    }
}

fn read_head(mut bytes: &[u8]) -> Option<Head> {
    let mut head = Head::default();
    while !bytes.is_empty() {
        let size = usize::from(bytes.try_get_u8().ok()?);
        let (name, rest) = bytes.split_at_checked(size)?;
        bytes = rest;
        if bytes.try_get_u8().ok()? != TEXT {
            return None;
        }
        let size = usize::from(bytes.try_get_u16().ok()?);
        let (value, rest) = bytes.split_at_checked(size)?;
        bytes = rest;
        let value = std::str::from_utf8(value).ok()?;
        match name {
            b":message-type" => value.clone_into(&mut head.message),
            b":event-type" | b":exception-type" | b":error-code" => {
                value.clone_into(&mut head.kind);
            }
            _ => {}
        }
    }
    Some(head)
}

/// CRC-32 of IEEE 802.3, a nibble at a time: frames are some hundred bytes.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc = (crc >> 1) ^ (0xEDB8_8320 & low.wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use anima_core::usage::{Meter, Usage};
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::adapter::{lookup, of_model};
    use crate::request::{CallRequest, Endpoint};

    fn header(out: &mut Vec<u8>, name: &str, value: &str) {
        out.push(u8::try_from(name.len()).unwrap());
        out.extend_from_slice(name.as_bytes());
        out.push(TEXT);
        out.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }

    fn frame(message: &str, kind: &str, payload: &str) -> Vec<u8> {
        let mut headers = Vec::new();
        header(&mut headers, &format!(":{message}-type"), kind);
        header(&mut headers, ":content-type", "application/json");
        header(&mut headers, ":message-type", message);
        let length = PRELUDE + headers.len() + payload.len() + 4;
        let mut out = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(&u32::try_from(headers.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&crc32(&out).to_be_bytes());
        out.extend_from_slice(&headers);
        out.extend_from_slice(payload.as_bytes());
        out.extend_from_slice(&crc32(&out).to_be_bytes());
        out
    }

    fn chunk(event: &str) -> Vec<u8> {
        frame("event", "chunk", &json!({"bytes": STANDARD.encode(event)}).to_string())
    }

    fn events() -> Vec<u8> {
        [
            chunk(r#"{"type":"message_start"}"#),
            chunk(r#"{"type":"ping"}"#),
            frame("exception", "throttlingException", r#"{"message":"slow"}"#),
        ]
        .concat()
    }

    const TEXT_OF_EVENTS: &str = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n\
        event: ping\ndata: {\"type\":\"ping\"}\n\n\
        event: error\ndata: {\"error\":{\"message\":\"slow\",\"type\":\"rate_limit_error\"},\
        \"type\":\"error\"}\n\n";

    #[test]
    fn a_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_frame_with_a_wrong_checksum_is_never_read() {
        for at in 0..chunk("{}").len() {
            let mut bytes = chunk("{}");
            bytes[at] ^= 1;
            let mut frames = Frames::default();
            let mut out = Vec::new();
            // What is declared to be longer is waited for.
            let outcome = frames.push(&bytes, &mut out);
            assert!(out.is_empty(), "byte {at}: {outcome:?}");
        }
    }

    #[test]
    fn events_before_a_frame_that_cannot_be_read_are_given() {
        let mut bytes = [chunk(r#"{"type":"ping"}"#), chunk("{}")].concat();
        *bytes.last_mut().unwrap() ^= 1;
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        assert_eq!(frames.push(&bytes, &mut out), Err(Failure::AnswerMalformed));
        assert_eq!(out, b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
    }

    fn conversation() -> Vec<u8> {
        let event = |kind: &str, payload: &str| frame("event", kind, payload);
        [
            event("messageStart", r#"{"role":"assistant"}"#),
            event(
                "contentBlockDelta",
                r#"{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"hm"}}}"#,
            ),
            event("contentBlockStop", r#"{"contentBlockIndex":0}"#),
            event("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"text":"he"}}"#),
            event("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"text":"llo"}}"#),
            event("contentBlockStop", r#"{"contentBlockIndex":1}"#),
            event(
                "contentBlockStart",
                r#"{"contentBlockIndex":2,"start":{"toolUse":{"toolUseId":"t","name":"f"}}}"#,
            ),
            event(
                "contentBlockDelta",
                r#"{"contentBlockIndex":2,"delta":{"toolUse":{"input":"{}"}}}"#,
            ),
            event("contentBlockStop", r#"{"contentBlockIndex":2}"#),
            event("messageStop", r#"{"stopReason":"tool_use"}"#),
            event(
                "metadata",
                r#"{"usage":{"inputTokens":5,"outputTokens":7,"cacheReadInputTokens":3}}"#,
            ),
        ]
        .concat()
    }

    /// What a client of OpenAI's gets of bytes in these pieces, and the usage.
    fn told(bytes: &[u8], cuts: &[usize]) -> (String, Option<Usage>, Result<(), Failure>) {
        let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},
            "messages":[{"role":"user","content":"x"}]}"#;
        let request = CallRequest::parse(Endpoint::ChatCompletions, body.into()).unwrap();
        let adapter = of_model(lookup("bedrock").unwrap(), "amazon.nova-pro-v1:0");
        let (mut decoder, mut out, mut from) = (adapter.stream(&request), Vec::new(), 0);
        let mut outcome = Ok(());
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            let piece = Bytes::copy_from_slice(bytes.get(from..cut).unwrap_or_default());
            outcome = outcome.and_then(|()| decoder.push(piece, &mut out));
            from = cut.max(from);
        }
        let outcome = outcome.and_then(|()| decoder.end(&mut out));
        (String::from_utf8(out.concat()).unwrap(), decoder.usage(), outcome)
    }

    #[test]
    fn a_conversation_is_told_to_any_client_with_its_usage() {
        let (text, usage, outcome) = told(&conversation(), &[]);
        assert_eq!(outcome, Ok(()));
        for piece in [r#""hm""#, r#""he""#, r#""llo""#, r#""name":"f""#, r#""tool_calls""#] {
            assert!(text.contains(piece), "{piece}: {text}");
        }
        let expected = Usage::default()
            .with(Meter::InputTokens, 5)
            .with(Meter::CachedInputTokens, 3)
            .with(Meter::OutputTokens, 7);
        assert_eq!(usage, Some(expected));
    }

    #[test]
    fn a_conversation_without_its_usage_is_cut_off_and_an_exception_is_named() {
        let whole = conversation();
        let last = frame("event", "metadata", "{}").len();
        let (_, usage, outcome) = told(&whole[..whole.len() - last - 40], &[]);
        assert_eq!((usage, outcome), (None, Err(Failure::StreamCut)));
        let slow = frame("exception", "throttlingException", r#"{"message":"slow"}"#);
        assert_eq!(told(&slow, &[]).2, Err(Failure::RateLimited));
        let broken = frame("exception", "modelStreamErrorException", r#"{"message":"x"}"#);
        assert_eq!(told(&broken, &[]).2, Err(Failure::ErrorInAnswer));
    }

    proptest! {
        #[test]
        fn any_split_of_a_conversation_is_the_same(
            cuts in prop::collection::vec(0usize..1600, 0..8)
        ) {
            let bytes = conversation();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(told(&bytes, &cuts), told(&bytes, &[]));
        }

        #[test]
        fn any_split_gives_the_same_events(cuts in prop::collection::vec(0usize..600, 0..8)) {
            let bytes = events();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut frames, mut out, mut from) = (Frames::default(), Vec::new(), 0);
            for cut in cuts {
                frames.push(&bytes[from..cut], &mut out).unwrap();
                from = cut;
            }
            prop_assert_eq!(String::from_utf8(out).unwrap(), TEXT_OF_EVENTS);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            let outcome = Frames::default().push(&bytes, &mut out);
            prop_assert!(outcome.is_err() || out.is_empty());
        }
    }
}
