//! Events, written as a stream of Responses.
//!
//! Every `done` event and the last one repeat what was said, so that all of it is kept; the last
//! one stands for the terminator. Invariants: sequence numbers count from 0 without gaps; each part
//! is an item of its own and items are numbered as they begin. Sources: `a-inbound` A.1.5,
//! `c-conversion` C.8.

use anima_core::usage::Usage;
use bytes::Bytes;

use super::answer::{content_part, head, message_item, picture_item, status, tail};
use super::items_out::{call_members, reasoning, summary};
use crate::canonical::{Delta, Event, Opening, Signature, Sink, Stop, ToolUse};
use crate::dialect::Echo;
use crate::dialect::openai::logprobs;
use crate::json;

/// Writes one stream.
#[derive(Debug)]
pub(crate) struct Writer {
    model: String,
    created_s: u64,
    id: String,
    sequence: u64,
    /// By the part's number: its item, if it has one.
    parts: Vec<Option<usize>>,
    items: Vec<Item>,
    stop: Stop,
    usage: Option<Usage>,
    tier: Option<String>,
    /// Log probabilities of the text that is said next, as tokens.
    tokens: String,
    last: Bytes,
    out: json::Writer,
}

/// An item of the output.
#[derive(Debug)]
struct Item {
    kind: Kind,
    text: String,
    /// Log probabilities of the text so far, as tokens.
    tokens: String,
    signature: Option<Signature<'static>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
    /// A picture, whole, in base64.
    Picture(String),
    /// A call's id and name.
    Call(String, String),
}

impl Item {
    const fn empty() -> Self {
        Self { kind: Kind::Text, text: String::new(), tokens: String::new(), signature: None }
    }
}

impl Kind {
    /// The word for a message's part, and for its events.
    const fn word(&self) -> &'static str {
        if matches!(self, Self::Refusal) { "refusal" } else { "output_text" }
    }

    const fn prefix(&self) -> &'static str {
        match self {
            Self::Text | Self::Refusal => "msg_",
            Self::Reasoning => "rs_",
            Self::Picture(_) => "ig_",
            Self::Call(..) => "fc_",
        }
    }
}

impl Writer {
    /// A writer before the first event.
    pub(crate) fn new(echo: &Echo<'_>) -> Self {
        Self {
            model: echo.model.to_owned(),
            created_s: echo.created_s,
            id: String::new(),
            sequence: 0,
            parts: Vec::new(),
            items: Vec::new(),
            stop: Stop::End,
            usage: None,
            tier: None,
            tokens: String::new(),
            last: Bytes::new(),
            out: json::Writer::default(),
        }
    }

    /// What may go to the client now.
    pub(crate) fn take_bytes(&mut self) -> Bytes {
        std::mem::take(&mut self.out).finish()
    }

    /// The event that ends the stream.
    pub(crate) fn terminator(&self) -> Bytes {
        self.last.clone()
    }

    fn event(&mut self, name: &str, members: impl FnOnce(&mut json::Writer)) {
        self.out.frame(b"event: response.");
        self.out.frame(name.as_bytes());
        self.out.frame(b"\ndata: ");
        self.out.object();
        self.out.key("type").strings(&["response.", name]);
        self.out.key("sequence_number").number(self.sequence);
        self.sequence += 1;
        members(&mut self.out);
        self.out.end_object();
        self.out.frame(b"\n\n");
    }

    /// An event of an item, with its place.
    fn item_event(
        &mut self,
        at: usize,
        prefix: &str,
        name: &str,
        members: impl FnOnce(&mut json::Writer),
    ) {
        let number = at.to_string();
        self.event(name, |w| {
            w.key("item_id").strings(&[prefix, &number]);
            w.key("output_index").number(at as u64);
            members(w);
        });
    }

    fn start(&mut self, id: &str) {
        id.clone_into(&mut self.id);
        for name in ["created", "in_progress"] {
            let (id, model, created_s) = (self.id.clone(), self.model.clone(), self.created_s);
            self.event(name, |w| {
                w.key("response");
                head(w, &id, "in_progress", created_s, &model);
                w.key("output").array();
                w.end_array();
                tail(w, Stop::End, None, None);
            });
        }
    }

    fn open(&mut self, opening: Opening<'_>) -> usize {
        let (kind, signature) = match opening {
            Opening::Text => (Kind::Text, None),
            Opening::Refusal => (Kind::Refusal, None),
            Opening::Reasoning => (Kind::Reasoning, None),
            Opening::Redacted(sealed) => (Kind::Reasoning, Some(kept(sealed))),
            Opening::ToolUse(id, name, signature) => {
                // The dialect has no place for a foreign signature but thoughts of its own.
                if let Some(signature) = signature {
                    let at = self.begin(Kind::Reasoning, Some(kept(signature)));
                    self.done(at);
                }
                (Kind::Call(id.into_owned(), name.into_owned()), None)
            }
            Opening::Image(_, content) => (Kind::Picture(content.into_owned()), None),
        };
        self.begin(kind, signature)
    }

    fn begin(&mut self, kind: Kind, signature: Option<Signature<'static>>) -> usize {
        let at = self.items.len();
        let item = Item { kind, text: String::new(), tokens: String::new(), signature };
        self.event("output_item.added", |w| {
            w.key("output_index").number(at as u64);
            w.key("item");
            write_item(w, at, &item, "in_progress");
        });
        let prefix = item.kind.prefix();
        let word = item.kind.word();
        match item.kind {
            Kind::Text | Kind::Refusal => {
                self.item_event(at, prefix, "content_part.added", |w| {
                    w.key("content_index").number(0);
                    w.key("part");
                    content_part(w, (word, "", ""));
                });
            }
            Kind::Reasoning if item.signature.is_none() => {
                self.item_event(at, prefix, "reasoning_summary_part.added", |w| {
                    w.key("summary_index").number(0);
                    w.key("part");
                    summary(w, "");
                });
            }
            Kind::Picture(_) => {
                self.item_event(at, prefix, "image_generation_call.in_progress", |_none| {});
            }
            Kind::Reasoning | Kind::Call(..) => {}
        }
        self.items.push(item);
        at
    }

    fn piece(&mut self, part: usize, delta: Delta<'_>) {
        let Some(at) = self.parts.get(part).copied().flatten() else {
            return;
        };
        let Some(item) = self.items.get_mut(at) else {
            return;
        };
        let text = match delta {
            Delta::Signature(signature) => {
                item.signature = Some(kept(signature));
                return;
            }
            Delta::Text(text) => text,
        };
        item.text.push_str(&text);
        let is_text = item.kind == Kind::Text;
        let tokens = if is_text { std::mem::take(&mut self.tokens) } else { String::new() };
        logprobs::append(&mut item.tokens, &tokens);
        let prefix = item.kind.prefix();
        let (name, place) = match item.kind {
            Kind::Text => ("output_text.delta", Some("content_index")),
            Kind::Refusal => ("refusal.delta", Some("content_index")),
            Kind::Reasoning => ("reasoning_summary_text.delta", Some("summary_index")),
            Kind::Picture(_) => return,
            Kind::Call(..) => ("function_call_arguments.delta", None),
        };
        self.item_event(at, prefix, name, |w| {
            w.maybe_number(place.unwrap_or_default(), place.map(|_| 0));
            w.key("delta").string(&text);
            if name == "output_text.delta" {
                logprobs::list(w, &tokens);
            }
        });
    }

    fn done(&mut self, at: usize) {
        let Some(item) = self.items.get_mut(at) else {
            return;
        };
        // Taken out while it is written, since writing borrows the whole.
        let mut item = std::mem::replace(item, Item::empty());
        if item.kind == Kind::Text {
            logprobs::append(&mut item.tokens, &std::mem::take(&mut self.tokens));
        }
        let (prefix, word) = (item.kind.prefix(), item.kind.word());
        match &item.kind {
            Kind::Text | Kind::Refusal => {
                let is_text = item.kind == Kind::Text;
                let name = if is_text { "output_text.done" } else { "refusal.done" };
                self.item_event(at, prefix, name, |w| {
                    w.key("content_index").number(0);
                    w.key(if is_text { "text" } else { "refusal" }).string(&item.text);
                    if is_text && !item.tokens.is_empty() {
                        logprobs::list(w, &item.tokens);
                    }
                });
                self.item_event(at, prefix, "content_part.done", |w| {
                    w.key("content_index").number(0);
                    w.key("part");
                    content_part(w, (word, &item.text, &item.tokens));
                });
            }
            Kind::Reasoning if !item.text.is_empty() => {
                self.item_event(at, prefix, "reasoning_summary_text.done", |w| {
                    w.key("summary_index").number(0);
                    w.key("text").string(&item.text);
                });
                self.item_event(at, prefix, "reasoning_summary_part.done", |w| {
                    w.key("summary_index").number(0);
                    w.key("part");
                    summary(w, &item.text);
                });
            }
            Kind::Reasoning => {}
            Kind::Picture(_) => {
                self.item_event(at, prefix, "image_generation_call.completed", |_none| {});
            }
            Kind::Call(..) => {
                let text = if item.text.is_empty() { "{}" } else { &item.text };
                self.item_event(at, prefix, "function_call_arguments.done", |w| {
                    w.key("arguments").string(text);
                });
            }
        }
        self.event("output_item.done", |w| {
            w.key("output_index").number(at as u64);
            w.key("item");
            write_item(w, at, &item, "completed");
        });
        if let Some(place) = self.items.get_mut(at) {
            *place = item;
        }
    }

    /// Keeps the last event back.
    fn end(&mut self) {
        let said = self.take_bytes();
        let items = std::mem::take(&mut self.items);
        let (id, model) = (std::mem::take(&mut self.id), std::mem::take(&mut self.model));
        let (created_s, stop, usage) = (self.created_s, self.stop, self.usage);
        let tier = self.tier.take();
        let (state, _) = status(stop);
        self.event(state, |w| {
            w.key("response");
            head(w, &id, state, created_s, &model);
            w.key("output").array();
            for (at, item) in items.iter().enumerate() {
                write_item(w, at, item, "completed");
            }
            w.end_array();
            tail(w, stop, usage.as_ref(), tier.as_deref());
        });
        self.last = self.take_bytes();
        self.out.frame(&said);
    }
}

fn write_item(w: &mut json::Writer, at: usize, item: &Item, state: &str) {
    let number = at.to_string();
    match &item.kind {
        Kind::Text | Kind::Refusal => {
            message_item(w, &number, (item.kind.word(), &item.text, &item.tokens), state);
        }
        Kind::Reasoning => {
            reasoning(w, &format!("rs_{number}"), &item.text, item.signature.as_ref());
        }
        Kind::Picture(content) => {
            let content = Some(content.as_str()).filter(|_| state == "completed");
            picture_item(w, &number, content, state);
        }
        Kind::Call(id, name) => {
            let arguments = item.text.as_str().into();
            let call = ToolUse { id: id.into(), name: name.into(), arguments };
            w.object();
            w.key("id").strings(&["fc_", &number]);
            if state == "completed" {
                call_members(w, &call);
            } else {
                w.key("type").string("function_call");
                w.key("call_id").string(id);
                w.key("name").string(name);
                w.key("arguments").string("");
            }
            w.key("status").string(state);
            w.end_object();
        }
    }
}

fn kept(signature: Signature<'_>) -> Signature<'static> {
    Signature { issuer: signature.issuer, value: signature.value.into_owned().into() }
}

impl Sink for Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start { id, model: _ } => self.start(&id),
            Event::Open { part: _, choice, opening } => {
                // Only the first choice is an answer here.
                let item = (choice == 0).then(|| self.open(opening));
                self.parts.push(item);
            }
            Event::Piece(part, delta) => self.piece(part, delta),
            Event::Close(part) => {
                if let Some(at) = self.parts.get(part).copied().flatten() {
                    self.done(at);
                }
            }
            Event::Stop(0, stop, _) => self.stop = stop,
            Event::Input(report) | Event::Running(report) | Event::Usage(report) => {
                self.usage = report.usage.or(self.usage);
            }
            Event::Tier(tier) => self.tier = Some(tier.into_owned()),
            Event::End => self.end(),
            Event::Logprobs(0, told) => {
                logprobs::append(&mut self.tokens, &logprobs::tokens(&told));
            }
            Event::Stop(..) | Event::Logprobs(..) | Event::Unsaid => {}
        }
    }
}
