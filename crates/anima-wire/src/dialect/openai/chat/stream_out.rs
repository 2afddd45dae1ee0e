//! Events, written as a chat completion's stream.
//!
//! The usage chunk comes last and only for a client that asked. Signed thoughts are repeated whole
//! in `thinking_blocks` when the signature comes, so that clients can send them back as they are.
//! Invariant: each event of the stream is one line of JSON. Source: `a-inbound` A.1.4,
//! `c-conversion` C.8.

use bytes::Bytes;

use super::answer;
use crate::canonical::{Delta, Event, Opening, Signature, Sink, ToolUse, tier};
use crate::dialect::openai::usage::Report;
use crate::dialect::{Echo, prefixed};
use crate::json;

/// Writes one stream.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The members that every chunk begins with.
    head: Vec<u8>,
    model: String,
    created_s: u64,
    include_usage: bool,
    parts: Vec<Part>,
    /// Calls so far, by choice.
    calls: Vec<u64>,
    report: Report,
    tier: Option<String>,
    /// Log probabilities of what is said next, by choice.
    logprobs: Vec<(u64, String)>,
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
    Refusal,
    /// Thoughts so far.
    Reasoning(String),
    /// The number among the calls.
    Call(u64),
    /// Said whole when it began.
    Whole,
}

impl Writer {
    /// A writer before the first event.
    pub(crate) fn new(echo: &Echo<'_>) -> Self {
        Self {
            head: Vec::new(),
            model: echo.model.to_owned(),
            created_s: echo.created_s,
            include_usage: echo.include_usage,
            parts: Vec::new(),
            calls: Vec::new(),
            report: Report::default(),
            tier: None,
            logprobs: Vec::new(),
            out: json::Writer::default(),
        }
    }

    /// What may go to the client now.
    pub(crate) fn take_bytes(&mut self) -> Bytes {
        std::mem::take(&mut self.out).finish()
    }

    /// What ends the stream.
    pub(crate) const fn terminator() -> Bytes {
        Bytes::from_static(b"data: [DONE]\n\n")
    }

    fn start(&mut self, id: &str) {
        let mut w = json::Writer::with_capacity(160);
        w.object();
        w.key("id").strings(&prefixed("chatcmpl-", id));
        w.key("object").string("chat.completion.chunk");
        w.key("created").number(self.created_s);
        w.key("model").string(&self.model);
        self.head = w.finish().to_vec();
        self.delta(0, |w| {
            w.key("role").string("assistant");
            w.key("content").string("");
        });
    }

    /// The start of a chunk, also of one in a stream that the provider never started.
    fn frame_head(&mut self) {
        if self.head.is_empty() {
            self.start("");
        }
        self.out.frame(b"data: ");
        self.out.frame(&self.head);
    }

    /// One chunk with one choice.
    fn chunk(&mut self, choice: u64, members: impl FnOnce(&mut json::Writer)) {
        self.frame_head();
        self.out.frame(b",\"choices\":[");
        self.out.object();
        self.out.key("index").number(choice);
        members(&mut self.out);
        if let Some(at) = self.logprobs.iter().position(|(of, _)| *of == choice) {
            let (_, told) = self.logprobs.swap_remove(at);
            self.out.key("logprobs").raw(&told);
        }
        self.out.end_object();
        self.out.frame(b"]");
        if self.include_usage {
            self.out.frame(b",\"usage\":null");
        }
        self.out.frame(b"}\n\n");
    }

    fn delta(&mut self, choice: u64, members: impl FnOnce(&mut json::Writer)) {
        self.chunk(choice, |w| {
            w.key("delta").object();
            members(w);
            w.end_object();
            w.key("finish_reason").null();
        });
    }

    fn open(&mut self, choice: u64, opening: Opening<'_>) -> Kind {
        match opening {
            Opening::Text => Kind::Text,
            Opening::Refusal => Kind::Refusal,
            Opening::Reasoning => Kind::Reasoning(String::new()),
            Opening::Redacted(sealed) => {
                self.delta(choice, |w| {
                    w.key("thinking_blocks").array();
                    answer::redacted_block(w, &sealed);
                    w.end_array();
                });
                Kind::Whole
            }
            Opening::Image(media_type, content) => {
                self.delta(choice, |w| {
                    w.key("images").array();
                    answer::picture(w, &["data:", &media_type, ";base64,", &content]);
                    w.end_array();
                });
                Kind::Whole
            }
            Opening::ToolUse(id, name, signature) => {
                let number = self.count_call(choice);
                let call = ToolUse { id, name, arguments: "".into() };
                self.delta(choice, |w| {
                    w.key("tool_calls").array();
                    w.object();
                    w.key("index").number(number);
                    answer::call_members(w, &call, signature.as_ref());
                    w.end_object();
                    w.end_array();
                });
                Kind::Call(number)
            }
        }
    }

    /// The number of a choice's next call.
    fn count_call(&mut self, choice: u64) -> u64 {
        let at = usize::try_from(choice).unwrap_or(0);
        if self.calls.len() <= at {
            self.calls.resize(at + 1, 0);
        }
        self.calls.get_mut(at).map_or(0, |count| {
            *count += 1;
            *count - 1
        })
    }

    fn text(&mut self, part: usize, text: &str) {
        let Some(Part { choice, kind }) = self.parts.get_mut(part) else {
            return;
        };
        let (choice, name) = match kind {
            Kind::Text => (*choice, "content"),
            Kind::Refusal => (*choice, "refusal"),
            Kind::Reasoning(thoughts) => {
                thoughts.push_str(text);
                (*choice, "reasoning_content")
            }
            Kind::Call(number) => {
                let (choice, number) = (*choice, *number);
                return self.delta(choice, |w| arguments(w, number, text));
            }
            Kind::Whole => return,
        };
        self.delta(choice, |w| w.key(name).string(text));
    }

    fn signature(&mut self, part: usize, signature: &Signature<'_>) {
        let Some(Part { choice, kind: Kind::Reasoning(thoughts) }) = self.parts.get_mut(part)
        else {
            return;
        };
        let (choice, thoughts) = (*choice, std::mem::take(thoughts));
        self.delta(choice, |w| {
            w.key("thinking_blocks").array();
            answer::thinking_block(w, &thoughts, signature);
            w.end_array();
        });
    }

    fn end(&mut self) {
        let Some(usage) = self.report.usage.filter(|_| self.include_usage) else {
            return;
        };
        self.frame_head();
        self.out.frame(b",\"choices\":[],\"usage\":");
        answer::write_usage(&mut self.out, &usage);
        if let Some(tier) = &self.tier {
            self.out.key("service_tier").string(tier::of_openai(tier));
        }
        self.out.frame(b"}\n\n");
    }
}

/// A piece of a call's arguments.
fn arguments(w: &mut json::Writer, number: u64, text: &str) {
    w.key("tool_calls").array();
    w.object();
    w.key("index").number(number);
    w.key("function").object();
    w.key("arguments").string(text);
    w.end_object();
    w.end_object();
    w.end_array();
}

impl Sink for Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start { id, model: _ } => self.start(&id),
            Event::Open { part: _, choice, opening } => {
                let kind = self.open(choice, opening);
                self.parts.push(Part { choice, kind });
            }
            Event::Piece(part, Delta::Text(text)) => self.text(part, &text),
            Event::Piece(part, Delta::Signature(signature)) => self.signature(part, &signature),
            Event::Close(_) | Event::Input(_) | Event::Unsaid => {}
            Event::Logprobs(choice, logprobs) => {
                if self.logprobs.iter().any(|(of, _)| *of == choice) {
                    self.delta(choice, |_nothing| {});
                }
                self.logprobs.push((choice, logprobs.into_owned()));
            }
            Event::Stop(choice, stop, _) => self.chunk(choice, |w| {
                w.key("delta").object();
                w.end_object();
                w.key("finish_reason").string(answer::finish_reason(stop));
            }),
            Event::Running(report) | Event::Usage(report) => self.report = report,
            Event::Tier(tier) => self.tier = Some(tier.into_owned()),
            Event::End => self.end(),
        }
    }
}
