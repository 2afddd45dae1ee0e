//! A stream of Messages, read into events.
//!
//! Order: `message_start`, blocks, `message_delta`, `message_stop`; `ping` and `error` anywhere.
//! The type stands in the payload too, so `event` lines are not needed. Invariant: blocks that are
//! not understood make no part, and their pieces are passed over. Source: `a-inbound` A.2.4.

use std::borrow::Cow;

use anima_core::failure::Failure;

use super::answer::stop_of;
use super::usage::Counts;
use crate::canonical::{Delta, Event, Issuer, Opening, Signature, Sink, Stop};
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::usage::Report;
use crate::json::{Node, Outline};

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    parts: usize,
    /// The block at hand: its index, and its part if it makes one.
    block: Option<(u64, Option<usize>)>,
    has_calls: bool,
    stop: Stop,
    stop_text: Option<String>,
    counts: Counts,
}

impl Reader {
    /// Takes one payload. `true` when it is the terminator.
    pub(crate) fn read(&mut self, payload: &[u8], sink: &mut dyn Sink) -> Result<bool, Failure> {
        let outline = Outline::read(payload).map_err(|_malformed| Failure::AnswerMalformed)?;
        let root = outline.root();
        let kind = root.text_of("type").ok_or_else(|| Fault::read(payload).in_answer())?;
        match &*kind {
            "message_start" => self.start(root, sink),
            "content_block_start" => self.open(root, sink),
            "content_block_delta" => self.piece(root, sink),
            "content_block_stop" => self.close(sink),
            "message_delta" => self.delta(root, sink),
            "message_stop" => {
                self.end(sink);
                return Ok(true);
            }
            "error" => return Err(Fault::read(payload).in_answer()),
            _ => {}
        }
        Ok(false)
    }

    fn start(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        let Some(message) = root.get("message") else {
            return;
        };
        let id = message.text_of("id").unwrap_or_default();
        let model = message.text_of("model").unwrap_or_default();
        sink.take(Event::Start { id, model });
        // Its output is a first guess: a stream that is cut must not be charged by it.
        self.usage(message, Event::Input, sink);
    }

    fn usage(
        &mut self,
        place: Node<'_, '_>,
        event: impl FnOnce(Report) -> Event<'static>,
        sink: &mut dyn Sink,
    ) {
        let Some(usage) = place.get("usage") else {
            return;
        };
        self.counts.overlay(usage);
        sink.take(event(self.counts.report()));
        if let Some(tier) = usage.text_of("service_tier") {
            sink.take(Event::Tier(tier));
        }
    }

    fn open(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        self.close(sink);
        let index = root.count_of("index").unwrap_or(0);
        let Some(block) = root.get("content_block") else {
            return;
        };
        let Some(opening) = opening(block) else {
            self.block = Some((index, None));
            return;
        };
        self.has_calls |= matches!(opening, Opening::ToolUse(..));
        let part = self.parts;
        self.parts += 1;
        self.block = Some((index, Some(part)));
        sink.take(Event::Open { part, choice: 0, opening });
        // Those who copy the dialect put the first piece, or all, into the start.
        let text = block.text_of("text").or_else(|| block.text_of("thinking"));
        let input = block.get("input").filter(|input| !matches!(input.raw(), "{}" | "\"\""));
        let first = text.or_else(|| input.map(|input| Cow::Borrowed(input.raw())));
        if let Some(text) = first.filter(|text| !text.is_empty()) {
            sink.take(Event::Piece(part, Delta::Text(text)));
        }
    }

    fn piece(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        let (Some((_, Some(part))), Some(delta)) = (self.block, root.get("delta")) else {
            return;
        };
        let text = match delta.text_of("type").as_deref() {
            Some("text_delta") => delta.text_of("text"),
            Some("input_json_delta") => delta.text_of("partial_json"),
            Some("thinking_delta") => delta.text_of("thinking"),
            Some("signature_delta") => {
                if let Some(value) = delta.text_of("signature").filter(|value| !value.is_empty()) {
                    let signature = Signature::read(Issuer::Anthropic, value);
                    sink.take(Event::Piece(part, Delta::Signature(signature)));
                }
                None
            }
            Some(_) | None => None,
        };
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            sink.take(Event::Piece(part, Delta::Text(text)));
        }
    }

    fn close(&mut self, sink: &mut dyn Sink) {
        if let Some((_, Some(part))) = self.block.take() {
            sink.take(Event::Close(part));
        }
    }

    fn delta(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        if let Some(delta) = root.get("delta") {
            if let Some(word) = delta.text_of("stop_reason") {
                self.stop = stop_of(&word);
            }
            self.stop_text = delta.text_of("stop_sequence").map(Cow::into_owned);
        }
        self.usage(root, Event::Usage, sink);
    }

    fn end(&mut self, sink: &mut dyn Sink) {
        self.close(sink);
        let stop_text = self.stop_text.take().map(Cow::Owned);
        sink.take(Event::Stop(0, self.stop.given_calls(self.has_calls), stop_text));
        sink.take(Event::End);
    }
}

/// What a block begins. `None` for one that makes no part.
fn opening<'a>(block: Node<'_, 'a>) -> Option<Opening<'a>> {
    match &*block.text_of("type")? {
        "text" => Some(Opening::Text),
        "thinking" => Some(Opening::Reasoning),
        "redacted_thinking" => {
            let sealed = Signature::read(Issuer::Anthropic, block.text_of("data")?);
            Some(Opening::Redacted(sealed))
        }
        "tool_use" => Some(Opening::ToolUse(block.text_of("id")?, block.text_of("name")?, None)),
        _ => None,
    }
}
