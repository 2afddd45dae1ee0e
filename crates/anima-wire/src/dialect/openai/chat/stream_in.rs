//! A chat completion's stream, read into events.
//!
//! Accepts the deviations that `b-outbound-chat` B.4 lists: no index on tool deltas, ids repeated
//! or missing, finish reasons empty or twice, content on the chunk that finishes, chunks without
//! choices. Parts of calls stay open until the end, since their pieces may interleave.
//! Invariant: nothing is said after the terminator.

use std::borrow::Cow;

use anima_core::failure::Failure;

use super::answer::{arguments, pictured, report, stop_of};
use super::messages_in::google_signature;
use crate::canonical::{Body, CallIds, Delta, Event, Opening, Sink, Source, Stop};
use crate::dialect::openai::fault::Fault;
use crate::dialect::openai::logprobs;
use crate::json::{Node, Outline};

/// Choices of one stream that are followed; the request's own bound is the same.
const CHOICES_MAX: usize = 128;

/// Calls of one choice that are followed.
const CALLS_MAX: usize = 1024;

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    is_started: bool,
    ids: CallIds,
    parts: usize,
    choices: Vec<Running>,
}

/// What is known of a choice that is being generated.
#[derive(Debug, Default)]
struct Running {
    /// The part of running text, and what it is.
    open: Option<(usize, Prose)>,
    calls: Vec<Call>,
    stop: Option<Stop>,
    /// Whether anything has been said.
    has_said: bool,
    /// Whether it came in pieces: then a whole message behind them says it again, as `MiniMax` ends
    /// its streams.
    by_piece: bool,
}

/// Kinds of running text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prose {
    Text,
    Refusal,
    Reasoning,
}

#[derive(Debug)]
struct Call {
    /// What the provider numbers it as.
    index: Option<u64>,
    id: String,
    part: usize,
}

impl Reader {
    /// Takes one payload. `true` when it is the terminator.
    pub(crate) fn read(&mut self, payload: &[u8], sink: &mut dyn Sink) -> Result<bool, Failure> {
        if payload.trim_ascii() == b"[DONE]" {
            self.end(sink);
            return Ok(true);
        }
        let outline = Outline::read(payload).map_err(|_malformed| Failure::AnswerMalformed)?;
        let root = outline.root();
        if is_fault(root) {
            return Err(Fault::read(payload).in_answer());
        }
        self.start(root, sink);
        let mut has_choices = false;
        for choice in root.get("choices").iter().flat_map(Node::elements) {
            has_choices = true;
            self.choice(choice, sink);
        }
        if let Some(tier) = root.text_of("service_tier") {
            sink.take(Event::Tier(tier));
        }
        if let Some(usage) = root.get("usage") {
            // Some report on every chunk.
            let is_last = !has_choices || self.has_ended();
            let report = report(usage);
            sink.take(if is_last { Event::Usage(report) } else { Event::Running(report) });
        }
        Ok(false)
    }

    /// Whether a choice has ended, and all others that began have, too.
    fn has_ended(&self) -> bool {
        let goes_on = |one: &Running| one.stop.is_none() && (one.has_said || !one.calls.is_empty());
        self.choices.iter().any(|one| one.stop.is_some()) && !self.choices.iter().any(goes_on)
    }

    fn start(&mut self, root: Node<'_, '_>, sink: &mut dyn Sink) {
        if !self.is_started {
            self.is_started = true;
            let id = root.text_of("id").unwrap_or_default();
            let model = root.text_of("model").unwrap_or_default();
            self.ids = CallIds::of(&id, root.raw().as_bytes());
            sink.take(Event::Start { id, model });
        }
    }

    fn choice(&mut self, node: Node<'_, '_>, sink: &mut dyn Sink) {
        let number = node.count_of("index").unwrap_or(0);
        let Some(at) = usize::try_from(number).ok().filter(|at| *at < CHOICES_MAX) else {
            return;
        };
        while self.choices.len() <= at {
            self.choices.push(Running::default());
        }
        let Some(running) = self.choices.get_mut(at) else {
            return;
        };
        let parts = (&mut self.parts, self.ids);
        if let Some(told) = node.get("logprobs").and_then(logprobs::read) {
            sink.take(Event::Logprobs(number, told.into()));
        }
        if let Some(delta) = node.get("delta") {
            running.delta(number, delta, parts, sink);
            running.by_piece = running.has_said;
        } else if let Some(whole) = node.get("message").filter(|_| !running.by_piece) {
            running.delta(number, whole, parts, sink);
        }
        if let Some(word) = node.text_of("finish_reason").filter(|word| !word.is_empty()) {
            running.stop = Some(stop_of(&word));
        }
        if let Some(usage) = node.get("usage") {
            let (is_last, report) = (running.stop.is_some(), report(usage));
            sink.take(if is_last { Event::Usage(report) } else { Event::Running(report) });
        }
    }

    fn end(&mut self, sink: &mut dyn Sink) {
        for (number, running) in (0..).zip(&mut self.choices) {
            running.close_prose(sink);
            running.calls.iter().for_each(|call| sink.take(Event::Close(call.part)));
            let stop = running.stop.unwrap_or_default().given_calls(!running.calls.is_empty());
            sink.take(Event::Stop(number, stop, None));
        }
        sink.take(Event::End);
    }
}

impl Running {
    fn delta(
        &mut self,
        choice: u64,
        delta: Node<'_, '_>,
        (parts, ids): (&mut usize, CallIds),
        sink: &mut dyn Sink,
    ) {
        let thought = delta.text_of("reasoning_content").or_else(|| delta.text_of("reasoning"));
        self.prose(Prose::Reasoning, choice, thought, parts, sink);
        if let Some(content) = delta.get("content") {
            if let Some(text) = content.text() {
                self.prose(Prose::Text, choice, Some(text), parts, sink);
            }
            for part in content.elements() {
                self.prose(Prose::Text, choice, part.text_of("text"), parts, sink);
                for inner in part.get("thinking").iter().flat_map(Node::elements) {
                    self.prose(Prose::Reasoning, choice, inner.text_of("text"), parts, sink);
                }
                self.picture(choice, part, parts, sink);
            }
        }
        for picture in delta.get("images").iter().flat_map(Node::elements) {
            self.picture(choice, picture, parts, sink);
        }
        self.prose(Prose::Refusal, choice, delta.text_of("refusal"), parts, sink);
        for call in delta.get("tool_calls").iter().flat_map(Node::elements) {
            self.call(choice, call, (parts, ids), sink);
        }
    }

    /// Text goes on in its part; another kind of text begins a part of its own.
    fn prose(
        &mut self,
        kind: Prose,
        choice: u64,
        text: Option<Cow<'_, str>>,
        parts: &mut usize,
        sink: &mut dyn Sink,
    ) {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return;
        };
        let part = match self.open {
            Some((part, open)) if open == kind => part,
            _ => {
                self.close_prose(sink);
                self.has_said = true;
                let part = next(parts);
                let opening = match kind {
                    Prose::Text => Opening::Text,
                    Prose::Refusal => Opening::Refusal,
                    Prose::Reasoning => Opening::Reasoning,
                };
                sink.take(Event::Open { part, choice, opening });
                self.open = Some((part, kind));
                part
            }
        };
        sink.take(Event::Piece(part, Delta::Text(text)));
    }

    /// A picture comes whole.
    fn picture(&mut self, choice: u64, node: Node<'_, '_>, parts: &mut usize, sink: &mut dyn Sink) {
        let Some(picture) = pictured(node) else { return };
        if let Body::Image(Source::Base64 { media_type, content }, _) = picture.body {
            self.close_prose(sink);
            let part = next(parts);
            let opening = Opening::Image(media_type, content);
            sink.take(Event::Open { part, choice, opening });
            sink.take(Event::Close(part));
        } else if let Body::Text(text) = picture.body {
            self.prose(Prose::Text, choice, Some(text), parts, sink);
        }
    }

    fn close_prose(&mut self, sink: &mut dyn Sink) {
        if let Some((part, _)) = self.open.take() {
            sink.take(Event::Close(part));
        }
    }

    fn call(
        &mut self,
        choice: u64,
        node: Node<'_, '_>,
        (parts, ids): (&mut usize, CallIds),
        sink: &mut dyn Sink,
    ) {
        let Some(function) = node.get("function") else {
            return;
        };
        let index = node.count_of("index");
        let id = node.text_of("id").filter(|id| !id.is_empty());
        let name = function.text_of("name").filter(|name| !name.is_empty());
        let known = match (index, id.as_deref()) {
            (Some(index), _) => self.calls.iter().rev().find(|call| call.index == Some(index)),
            (None, Some(id)) => self.calls.iter().find(|call| call.id == id),
            (None, None) => self.calls.last().filter(|_| name.is_none()),
        };
        // One index for all calls, each with an id of its own: seen with whole calls in one chunk.
        let is_other =
            |call: &&Call| name.is_some() && id.as_deref().is_some_and(|id| id != call.id);
        let part = match known.filter(|call| !is_other(call)) {
            Some(call) => call.part,
            None if self.calls.len() < CALLS_MAX => {
                self.close_prose(sink);
                self.has_said = true;
                let part = next(parts);
                let id = id.unwrap_or_else(|| Cow::Owned(ids.id(part)));
                self.calls.push(Call { index, id: id.clone().into_owned(), part });
                let name = name.unwrap_or_default();
                let opening = Opening::ToolUse(id, name, google_signature(node));
                sink.take(Event::Open { part, choice, opening });
                part
            }
            None => return,
        };
        let piece = arguments(function);
        if !piece.is_empty() {
            sink.take(Event::Piece(part, Delta::Text(piece)));
        }
    }
}

/// The number of the next part.
fn next(parts: &mut usize) -> usize {
    *parts += 1;
    *parts - 1
}

/// Whether a chunk tells of an error. Empty error members stand next to content here and there.
fn is_fault(root: Node<'_, '_>) -> bool {
    let told = |node: Node<'_, '_>| !matches!(node.raw(), "false" | "\"\"" | "{}");
    let business = root.get("base_resp").and_then(|node| node.get("status_code"));
    root.get("error").is_some_and(told)
        || root.get("object").is_some_and(|object| object.is("error"))
        || business.is_some_and(|code| code.raw() != "0")
}
