//! Events, written as a stream of generateContent: server-sent events, or one JSON array.
//!
//! Calls are kept until they are whole, since the dialect knows no pieces of them. The chunk with
//! the finish reason and usage is the last one and stands for the terminator that the dialect
//! lacks. Invariant: every chunk is a whole answer in small. Sources: `a-inbound` A.3.1,
//! `c-conversion` C.8.

use anima_core::usage::Usage;
use bytes::Bytes;

use super::answer::{finish_reason, write_call, write_picture};
use super::{logprobs, usage};
use crate::canonical::{Delta, Event, Issuer, Opening, Signature, Sink, Stop, ToolUse};
use crate::dialect::Echo;
use crate::json;

/// Writes one stream.
#[derive(Debug)]
pub(crate) struct Writer {
    model: String,
    id: String,
    as_array: bool,
    has_begun: bool,
    parts: Vec<Part>,
    stops: Vec<(u64, Stop)>,
    usage: Option<Usage>,
    tier: Option<String>,
    /// Log probabilities of what is said next, by candidate.
    logprobs: Vec<(u64, String)>,
    last: Bytes,
    out: json::Writer,
}

#[derive(Debug)]
struct Part {
    choice: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text,
    Thought,
    /// A call, and its arguments so far.
    Call(ToolUse<'static>, Option<Signature<'static>>),
    /// Said whole when it began.
    Whole,
}

impl Writer {
    /// A writer before the first event.
    pub(crate) fn new(echo: &Echo<'_>) -> Self {
        Self {
            model: echo.model.to_owned(),
            id: String::new(),
            as_array: echo.as_array,
            has_begun: false,
            parts: Vec::new(),
            stops: Vec::new(),
            usage: None,
            tier: None,
            logprobs: Vec::new(),
            last: Bytes::new(),
            out: json::Writer::default(),
        }
    }

    /// What may go to the client now.
    pub(crate) fn take_bytes(&mut self) -> Bytes {
        std::mem::take(&mut self.out).finish()
    }

    /// The chunk that ends the stream.
    pub(crate) fn terminator(&self) -> Bytes {
        self.last.clone()
    }

    /// Whether the stream is one JSON array.
    pub(crate) const fn is_array(&self) -> bool {
        self.as_array
    }

    /// What ends the array when an error does.
    pub(crate) fn closed_by(&self, error: &[u8]) -> Bytes {
        let open: &[u8] = if self.has_begun { b",\n" } else { b"[" };
        Bytes::from([open, error, b"]"].concat())
    }

    /// One chunk: candidates, and what is said of the whole.
    fn chunk(&mut self, candidates: impl FnOnce(&mut json::Writer), usage: Option<Usage>) {
        let open: &[u8] = match (self.as_array, self.has_begun) {
            (false, _) => b"data: ",
            (true, false) => b"[",
            (true, true) => b",\n",
        };
        self.has_begun = true;
        self.out.frame(open);
        self.out.object();
        self.out.key("candidates").array();
        candidates(&mut self.out);
        self.out.end_array();
        if let Some(usage) = usage {
            self.out.key("usageMetadata");
            usage::write(&mut self.out, &usage, self.tier.as_deref());
        }
        self.out.key("modelVersion").string(&self.model);
        self.out.key("responseId").string(&self.id);
        self.out.end_object();
        self.out.frame(if self.as_array { b"" } else { b"\n\n" });
    }

    /// One chunk with one part.
    fn part(&mut self, choice: u64, members: impl FnOnce(&mut json::Writer)) {
        let told = self.told(choice);
        let candidate = |w: &mut json::Writer| {
            w.object();
            w.key("content").object();
            w.key("parts").array();
            w.object();
            members(w);
            w.end_object();
            w.end_array();
            w.key("role").string("model");
            w.end_object();
            w.key("index").number(choice);
            logprobs::write(w, told.as_deref());
            w.end_object();
        };
        self.chunk(candidate, None);
    }

    /// The log probabilities that are still to be said of a candidate.
    fn told(&mut self, choice: u64) -> Option<String> {
        let at = self.logprobs.iter().position(|(of, _)| *of == choice)?;
        Some(self.logprobs.swap_remove(at).1)
    }

    fn open(&mut self, choice: u64, opening: Opening<'_>) -> Kind {
        match opening {
            Opening::Text | Opening::Refusal => Kind::Text,
            Opening::Reasoning => Kind::Thought,
            Opening::ToolUse(id, name, signature) => {
                let (id, name) = (id.into_owned().into(), name.into_owned().into());
                let call = ToolUse { id, name, arguments: "".into() };
                Kind::Call(call, signature.map(kept))
            }
            Opening::Redacted(sealed) => {
                self.signed_thought(choice, &sealed);
                Kind::Whole
            }
            Opening::Image(media_type, content) => {
                self.part(choice, |w| write_picture(w, &media_type, &content));
                Kind::Whole
            }
        }
    }

    fn signed_thought(&mut self, choice: u64, signature: &Signature<'_>) {
        self.part(choice, |w| {
            w.key("text").string("");
            w.key("thought").flag(true);
            w.key("thoughtSignature").strings(&signature.written(Issuer::Google));
        });
    }

    fn piece(&mut self, part: usize, delta: Delta<'_>) {
        let Some(Part { choice, kind }) = self.parts.get_mut(part) else {
            return;
        };
        let choice = *choice;
        match (kind, delta) {
            (Kind::Text, Delta::Text(text)) => self.part(choice, |w| w.key("text").string(&text)),
            (Kind::Thought, Delta::Text(text)) => self.part(choice, |w| {
                w.key("text").string(&text);
                w.key("thought").flag(true);
            }),
            (Kind::Call(call, _), Delta::Text(text)) => call.arguments.to_mut().push_str(&text),
            (Kind::Thought, Delta::Signature(signature)) => self.signed_thought(choice, &signature),
            (Kind::Text | Kind::Call(..) | Kind::Whole, Delta::Signature(_))
            | (Kind::Whole, Delta::Text(_)) => {}
        }
    }

    fn close(&mut self, part: usize) {
        let Some(part) = self.parts.get_mut(part) else {
            return;
        };
        let choice = part.choice;
        if let Kind::Call(call, signature) = std::mem::replace(&mut part.kind, Kind::Whole) {
            self.part(choice, |w| {
                write_call(w, &call);
                if let Some(signature) = &signature {
                    w.key("thoughtSignature").strings(&signature.written(Issuer::Google));
                }
            });
        }
    }

    /// Keeps the last chunk back.
    fn end(&mut self) {
        let said = self.take_bytes();
        let has_begun = self.has_begun;
        let (stops, usage) = (std::mem::take(&mut self.stops), self.usage);
        let told: Vec<_> = stops.iter().map(|(choice, _)| self.told(*choice)).collect();
        let candidates = |w: &mut json::Writer| {
            for ((choice, stop), told) in stops.iter().zip(&told) {
                w.object();
                w.key("content").object();
                w.key("parts").array();
                w.end_array();
                w.key("role").string("model");
                w.end_object();
                w.key("finishReason").string(finish_reason(*stop));
                w.key("index").number(*choice);
                logprobs::write(w, told.as_deref());
                w.end_object();
            }
        };
        self.chunk(candidates, usage);
        if self.as_array {
            self.out.frame(b"]");
        }
        self.last = self.take_bytes();
        // An error may come in the place of what is kept back.
        self.has_begun = has_begun;
        self.out.frame(&said);
    }
}

fn kept(signature: Signature<'_>) -> Signature<'static> {
    Signature { issuer: signature.issuer, value: signature.value.into_owned().into() }
}

impl Sink for Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start { id, model: _ } => self.id = id.into_owned(),
            Event::Open { part: _, choice, opening } => {
                let kind = self.open(choice, opening);
                self.parts.push(Part { choice, kind });
            }
            Event::Piece(part, delta) => self.piece(part, delta),
            Event::Close(part) => self.close(part),
            Event::Stop(choice, stop, _) => self.stops.push((choice, stop)),
            Event::Input(report) | Event::Running(report) | Event::Usage(report) => {
                self.usage = report.usage.or(self.usage);
            }
            Event::End => self.end(),
            Event::Tier(tier) => self.tier = Some(tier.into_owned()),
            Event::Logprobs(choice, told) => self.logprobs.push((choice, told.into_owned())),
            Event::Unsaid => {}
        }
    }
}
