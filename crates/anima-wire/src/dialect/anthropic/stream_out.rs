//! Events, written as a stream of Messages.
//!
//! Blocks may not interleave here: a part that begins while another one is open waits until that
//! is closed. The reason and usage share the last delta, so both wait for the end.
//! Invariant: blocks are numbered without gaps and each is closed before the next one opens.
//! Sources: `a-inbound` A.2.4, `c-conversion` C.8.

use std::collections::VecDeque;

use anima_core::usage::Usage;
use bytes::Bytes;

use super::answer::{PICTURE_LEFT_OUT, stop_reason};
use super::content_out::{plain_id, redacted_block};
use super::request_out::OWN;
use super::usage;
use crate::canonical::{Delta, Event, Opening, Signature, Sink, Stop};
use crate::dialect::{Echo, prefixed};
use crate::json;

/// Writes one stream.
#[derive(Debug)]
pub(crate) struct Writer {
    model: String,
    input_tokens: u64,
    /// Blocks that were opened so far.
    blocks: u64,
    /// The part whose block is open, and of what kind it is.
    open: Option<(usize, Kind)>,
    waiting: VecDeque<Waiting>,
    stop: Stop,
    stop_text: Option<String>,
    usage: Option<Usage>,
    tier: Option<String>,
    out: json::Writer,
}

/// A part that began while another one was open.
#[derive(Debug)]
struct Waiting {
    part: usize,
    start: Start,
    text: String,
    signature: Option<Signature<'static>>,
    is_closed: bool,
}

/// How a block begins, kept for later.
#[derive(Debug)]
enum Start {
    Text,
    Thinking,
    Redacted(Signature<'static>),
    Call(String, String, Option<Signature<'static>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Redacted,
    Call,
}

impl Writer {
    /// A writer before the first event.
    pub(crate) fn new(echo: &Echo<'_>) -> Self {
        Self {
            model: echo.model.to_owned(),
            input_tokens: echo.input_tokens,
            blocks: 0,
            open: None,
            waiting: VecDeque::new(),
            stop: Stop::End,
            stop_text: None,
            usage: None,
            tier: None,
            out: json::Writer::default(),
        }
    }

    /// What may go to the client now.
    pub(crate) fn take_bytes(&mut self) -> Bytes {
        std::mem::take(&mut self.out).finish()
    }

    /// What ends the stream.
    pub(crate) const fn terminator() -> Bytes {
        Bytes::from_static(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
    }

    fn event(&mut self, name: &str, members: impl FnOnce(&mut json::Writer)) {
        self.out.frame(b"event: ");
        self.out.frame(name.as_bytes());
        self.out.frame(b"\ndata: ");
        self.out.object();
        self.out.key("type").string(name);
        members(&mut self.out);
        self.out.end_object();
        self.out.frame(b"\n\n");
    }

    fn start(&mut self, id: &str) {
        let (model, input_tokens) = (std::mem::take(&mut self.model), self.input_tokens);
        self.event("message_start", |w| {
            w.key("message").object();
            w.key("id").strings(&prefixed("msg_", id));
            w.key("type").string("message");
            w.key("role").string("assistant");
            w.key("model").string(&model);
            w.key("content").array();
            w.end_array();
            w.key("stop_reason").null();
            w.key("stop_sequence").null();
            w.key("usage");
            usage::write(w, None, input_tokens, None);
            w.end_object();
        });
    }

    fn open(&mut self, part: usize, start: Start) {
        if self.open.is_some() {
            let text = String::new();
            self.waiting.push_back(Waiting {
                part,
                start,
                text,
                signature: None,
                is_closed: false,
            });
            return;
        }
        let kind = self.write_start(&start);
        self.open = Some((part, kind));
    }

    fn write_start(&mut self, start: &Start) -> Kind {
        if let Start::Call(_, _, Some(signature)) = start {
            self.carrier(signature);
        }
        let index = self.blocks;
        self.blocks += 1;
        self.event("content_block_start", |w| {
            w.key("index").number(index);
            w.key("content_block");
            block(w, start);
        });
        match start {
            Start::Text => Kind::Text,
            Start::Thinking => Kind::Thinking,
            Start::Redacted(_) => Kind::Redacted,
            Start::Call(..) => Kind::Call,
        }
    }

    /// A block that is there for a foreign signature only.
    fn carrier(&mut self, signature: &Signature<'_>) {
        self.write_start(&Start::Thinking);
        self.write_signature(signature);
        self.write_stop();
    }

    fn write_text(&mut self, kind: Kind, text: &str) {
        let (kind, member) = match kind {
            Kind::Text => ("text_delta", "text"),
            Kind::Thinking => ("thinking_delta", "thinking"),
            Kind::Call => ("input_json_delta", "partial_json"),
            Kind::Redacted => return,
        };
        self.delta(kind, |w| w.key(member).string(text));
    }

    fn write_signature(&mut self, signature: &Signature<'_>) {
        self.delta("signature_delta", |w| w.key("signature").strings(&signature.written(OWN)));
    }

    fn delta(&mut self, kind: &str, member: impl FnOnce(&mut json::Writer)) {
        let index = self.blocks.saturating_sub(1);
        self.event("content_block_delta", |w| {
            w.key("index").number(index);
            w.key("delta").object();
            w.key("type").string(kind);
            member(w);
            w.end_object();
        });
    }

    fn write_stop(&mut self) {
        let index = self.blocks.saturating_sub(1);
        self.event("content_block_stop", |w| w.key("index").number(index));
    }

    fn piece(&mut self, part: usize, delta: Delta<'_>) {
        if let Some((open, kind)) = self.open
            && open == part
        {
            match delta {
                Delta::Text(text) => self.write_text(kind, &text),
                Delta::Signature(signature) if kind == Kind::Thinking => {
                    self.write_signature(&signature);
                }
                Delta::Signature(_) => {}
            }
            return;
        }
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.part == part) {
            match delta {
                Delta::Text(text) => waiting.text.push_str(&text),
                Delta::Signature(signature) => waiting.signature = Some(kept(signature)),
            }
        }
    }

    fn close(&mut self, part: usize) {
        if self.open.is_none_or(|(open, _)| open != part) {
            if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.part == part) {
                waiting.is_closed = true;
            }
            return;
        }
        self.write_stop();
        self.open = None;
        while let Some(waiting) = self.waiting.pop_front() {
            let kind = self.write_start(&waiting.start);
            if !waiting.text.is_empty() {
                self.write_text(kind, &waiting.text);
            }
            if let Some(signature) = waiting.signature.filter(|_| kind == Kind::Thinking) {
                self.write_signature(&signature);
            }
            if !waiting.is_closed {
                self.open = Some((waiting.part, kind));
                return;
            }
            self.write_stop();
        }
    }

    fn end(&mut self) {
        while let Some((part, _)) = self.open {
            self.close(part);
        }
        let (stop, stop_text, usage) = (self.stop, self.stop_text.take(), self.usage);
        let (input_tokens, tier) = (self.input_tokens, self.tier.take());
        self.event("message_delta", |w| {
            w.key("delta").object();
            w.key("stop_reason").string(stop_reason(stop));
            w.key("stop_sequence");
            w.string_or_null(stop_text.as_deref());
            w.end_object();
            w.key("usage");
            usage::write(w, usage.as_ref(), input_tokens, tier.as_deref());
        });
    }
}

/// Writes the empty block that a part begins with.
fn block(w: &mut json::Writer, start: &Start) {
    if let Start::Redacted(sealed) = start {
        return redacted_block(w, sealed);
    }
    w.object();
    match start {
        Start::Text | Start::Redacted(_) => {
            w.key("type").string("text");
            w.key("text").string("");
        }
        Start::Thinking => {
            w.key("type").string("thinking");
            w.key("thinking").string("");
            w.key("signature").string("");
        }
        Start::Call(id, name, _) => {
            w.key("type").string("tool_use");
            w.key("id").string(&plain_id(id));
            w.key("name").string(name);
            w.key("input").object();
            w.end_object();
        }
    }
    w.end_object();
}

fn kept(signature: Signature<'_>) -> Signature<'static> {
    Signature { issuer: signature.issuer, value: signature.value.into_owned().into() }
}

impl Sink for Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start { id, model: _ } => self.start(&id),
            Event::Open { part, choice: 0, opening } => match opening {
                Opening::Text | Opening::Refusal => self.open(part, Start::Text),
                Opening::Reasoning => self.open(part, Start::Thinking),
                Opening::Redacted(sealed) => self.open(part, Start::Redacted(kept(sealed))),
                Opening::ToolUse(id, name, signature) => {
                    let (id, name) = (id.into_owned(), name.into_owned());
                    self.open(part, Start::Call(id, name, signature.map(kept)));
                }
                Opening::Image(..) => {
                    self.open(part, Start::Text);
                    self.piece(part, Delta::Text(PICTURE_LEFT_OUT.into()));
                }
            },
            Event::Piece(part, delta) => self.piece(part, delta),
            Event::Close(part) => self.close(part),
            Event::Stop(0, stop, text) => {
                self.stop = stop;
                self.stop_text = text.map(std::borrow::Cow::into_owned);
            }
            Event::Input(report) | Event::Running(report) | Event::Usage(report) => {
                self.usage = report.usage.or(self.usage);
            }
            Event::End => self.end(),
            Event::Tier(tier) => self.tier = Some(tier.into_owned()),
            Event::Open { .. } | Event::Stop(..) | Event::Logprobs(..) | Event::Unsaid => {}
        }
    }
}
