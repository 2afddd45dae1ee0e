//! Bedrock's answers: Claude's events in frames, and Converse in its own words.
//!
//! A frame is total length, length of the headers, checksum of both, headers, payload, checksum of
//! all: network order, CRC-32. What is said is what the pen of Messages says; here it is only put
//! into the cloud's form. Source: AWS's description of the event stream and its API reference of
//! `ConverseStream`, as of November 2026.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::anthropic::Messages;
use super::{Pen, Place};
use crate::decide::Scene;
use crate::decide::completion::Material;
use crate::decide::sample::Word;
use crate::decide::stream::Tape;

/// Writes a stream in frames.
pub(super) struct Framed {
    inner: Messages,
    converses: bool,
}

impl Framed {
    pub(super) fn new(scene: &Scene<'_>, converses: bool) -> Self {
        Self { inner: Messages::new(scene), converses }
    }

    /// What the inner pen writes, in frames. Whether usage is among it.
    fn write(&mut self, tape: &mut Tape, write: impl FnOnce(&mut Messages, &mut Tape)) -> bool {
        let mut said = Tape::default();
        write(&mut self.inner, &mut said);
        let (text, reports_usage) = said.into_parts();
        let text = String::from_utf8_lossy(&text).into_owned();
        for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            if self.converses {
                let event = serde_json::from_str(line).unwrap_or_default();
                converse(&mut tape.bytes, &event);
            } else {
                let payload = json!({"bytes": STANDARD.encode(line)});
                frame(&mut tape.bytes, ("event", "chunk"), &payload);
            }
        }
        reports_usage
    }
}

impl Pen for Framed {
    fn open(&mut self, tape: &mut Tape, material: &Material) {
        let told = self.write(tape, |pen, tape| pen.open(tape, material));
        tape.told(told);
    }

    fn content(&mut self, tape: &mut Tape, place: &Place<'_>, words: &[Word]) {
        self.write(tape, |pen, tape| pen.content(tape, place, words));
    }

    fn close(&mut self, tape: &mut Tape, material: &Material, proper: bool) {
        let told = self.write(tape, |pen, tape| pen.close(tape, material, proper));
        tape.told(told);
    }

    fn error(&mut self, tape: &mut Tape) {
        let payload = json!({"message": "The simulated provider fails, as its script says."});
        frame(&mut tape.bytes, ("exception", "internalServerException"), &payload);
        tape.beside();
    }
}

/// A whole answer of Converse, from one of Messages.
pub(super) fn whole(message: &[u8]) -> Vec<u8> {
    let message: Value = serde_json::from_slice(message).unwrap_or_default();
    let blocks = message.get("content").and_then(Value::as_array).into_iter().flatten();
    let content: Value = blocks
        .map(|block| match text(block, "type") {
            "tool_use" => json!({"toolUse": {"toolUseId": block.get("id"),
                "name": block.get("name"), "input": block.get("input")}}),
            _ => json!({"text": block.get("text")}),
        })
        .collect();
    let mut answer = json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": message.get("stop_reason"), "metrics": {"latencyMs": 1},
    });
    if let (Some(told), Some(members)) = (message.get("usage"), answer.as_object_mut()) {
        members.insert("usage".to_owned(), usage(told));
    }
    answer.to_string().into_bytes()
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn usage(told: &Value) -> Value {
    let count = |name: &str| told.get(name).and_then(Value::as_i64).unwrap_or(0);
    let (input, read, output) =
        (count("input_tokens"), count("cache_read_input_tokens"), count("output_tokens"));
    json!({"inputTokens": input, "outputTokens": output, "cacheReadInputTokens": read,
        "cacheWriteInputTokens": 0,
        "totalTokens": input.saturating_add(read).saturating_add(output)})
}

/// An event of Messages in the words of Converse.
fn converse(out: &mut Vec<u8>, event: &Value) {
    let index = event.get("index");
    let mut write = |kind: &str, payload: &Value| frame(out, ("event", kind), payload);
    match text(event, "type") {
        "message_start" => write("messageStart", &json!({"role": "assistant"})),
        "content_block_start" => {
            let block = event.get("content_block").unwrap_or(&Value::Null);
            if text(block, "type") == "tool_use" {
                let call = json!({"toolUseId": block.get("id"), "name": block.get("name")});
                let start = json!({"contentBlockIndex": index, "start": {"toolUse": call}});
                write("contentBlockStart", &start);
            }
        }
        "content_block_delta" => {
            let delta = event.get("delta").unwrap_or(&Value::Null);
            let delta = match delta.get("partial_json") {
                Some(piece) => json!({"toolUse": {"input": piece}}),
                None => json!({"text": delta.get("text")}),
            };
            write("contentBlockDelta", &json!({"contentBlockIndex": index, "delta": delta}));
        }
        "content_block_stop" => write("contentBlockStop", &json!({"contentBlockIndex": index})),
        "message_delta" => {
            let reason = event.get("delta").and_then(|delta| delta.get("stop_reason"));
            write("messageStop", &json!({"stopReason": reason}));
            if let Some(told) = event.get("usage") {
                let metrics = json!({"latencyMs": 1});
                write("metadata", &json!({"usage": usage(told), "metrics": metrics}));
            }
        }
        _ => {}
    }
}

fn frame(out: &mut Vec<u8>, (message, kind): (&str, &str), payload: &Value) {
    let mut headers = Vec::new();
    for (name, value) in [
        (format!(":{message}-type"), kind),
        (":content-type".to_owned(), "application/json"),
        (":message-type".to_owned(), message),
    ] {
        headers.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let start = out.len();
    let total = headers.len().saturating_add(payload.len()).saturating_add(16);
    out.extend_from_slice(&length(total));
    out.extend_from_slice(&length(headers.len()));
    let sum = crc32(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum.to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload.as_bytes());
    let sum = crc32(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum.to_be_bytes());
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_checksums_of_aws() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let mut out = b"before".to_vec();
        frame(&mut out, ("event", "messageStop"), &json!({}));
        let framed = &out[6..];
        let total = u32::from_be_bytes(framed[..4].try_into().unwrap());
        assert_eq!(total as usize, framed.len());
        let (all, sum) = framed.split_at(framed.len() - 4);
        assert_eq!(crc32(all).to_be_bytes(), sum);
    }
}
