//! What Converse answers, said in Anthropic's words.
//!
//! The two differ in names and not in kind: blocks, reasons to stop, and input counted without the
//! cache. So an answer is written anew as a message, a stream as a message's events, and everything
//! behind reads that. Invariants: what has no content list is no answer; a stream's end is said
//! only once both its reason and its usage are known. Source: AWS's API reference of Converse and
//! `ConverseStream`, `b-outbound-chat` B.2 and B.7, `c-conversion` C.6 and C.7.

use std::borrow::Cow;

use anima_core::failure::Failure;
use bytes::Bytes;

use crate::dialect::openai::fault::Fault;
use crate::json::{Node, Outline, Writer};

/// A whole answer as a message.
pub(super) fn message(body: &[u8]) -> Result<Bytes, Failure> {
    let outline = Outline::read(body).map_err(|_malformed| Failure::AnswerMalformed)?;
    let root = outline.root();
    let Some(output) = root.get("output") else {
        let fault = Fault::read(body);
        let is_told = fault != Fault::default();
        return Err(if is_told { fault.in_answer() } else { Failure::AnswerMalformed });
    };
    let content = output.get("message").and_then(|message| message.get("content"));
    let content = content.ok_or(Failure::AnswerMalformed)?;
    let mut w = Writer::with_capacity(body.len());
    w.object();
    w.key("type").string("message");
    w.key("content").array();
    for block in content.elements() {
        whole_block(&mut w, block);
    }
    w.end_array();
    let stop = root.text_of("stopReason").unwrap_or_default();
    w.key("stop_reason").string(stop_reason(&stop));
    usage(&mut w, root);
    w.end_object();
    Ok(w.finish())
}

fn whole_block(w: &mut Writer, block: Node<'_, '_>) {
    if let Some(text) = block.text_of("text") {
        w.object();
        w.key("type").string("text");
        w.key("text").string(&text);
    } else if let Some(call) = block.get("toolUse") {
        w.object();
        tool_use(w, call);
        w.key("input").raw(call.get("input").map_or("{}", |input| input.raw()));
    } else if let Some(thought) = block.get("reasoningContent") {
        w.object();
        if let Some(sealed) = thought.text_of("redactedContent") {
            w.key("type").string("redacted_thinking");
            w.key("data").string(&sealed);
        } else {
            let said = thought.get("reasoningText").unwrap_or(thought);
            w.key("type").string("thinking");
            w.key("thinking").string(&said.text_of("text").unwrap_or_default());
            w.maybe("signature", said.text_of("signature").as_deref());
        }
    } else {
        return;
    }
    w.end_object();
}

fn tool_use(w: &mut Writer, call: Node<'_, '_>) {
    w.key("type").string("tool_use");
    w.key("id").string(&call.text_of("toolUseId").unwrap_or_default());
    w.key("name").string(&call.text_of("name").unwrap_or_default());
}

/// A reason to stop in Anthropic's words.
fn stop_reason(word: &str) -> &str {
    match word {
        "guardrail_intervened" | "content_filtered" => "refusal",
        "malformed_model_output" | "malformed_tool_use" => "end_turn",
        same => same,
    }
}

/// Usage in Anthropic's words. The parts of what was written to the cache are told by lifetime.
fn usage(w: &mut Writer, place: Node<'_, '_>) {
    let Some(told) = place.get("usage") else { return };
    let raw = |name: &str| told.get(name).map(|count| count.raw());
    w.key("usage").object();
    w.maybe_raw("input_tokens", raw("inputTokens"));
    w.maybe_raw("output_tokens", raw("outputTokens"));
    w.maybe_raw("cache_read_input_tokens", raw("cacheReadInputTokens"));
    w.maybe_raw("cache_creation_input_tokens", raw("cacheWriteInputTokens"));
    let details = told.get("cacheDetails");
    let written = |ttl: &str| {
        let of = |detail: &Node<'_, '_>| detail.text_of("ttl").as_deref() == Some(ttl);
        let mut found = details.iter().flat_map(Node::elements).filter(of);
        found.next().and_then(|detail| detail.get("inputTokens")).map(|count| count.raw())
    };
    if details.is_some() {
        w.key("cache_creation").object();
        w.maybe_raw("ephemeral_5m_input_tokens", written("5m"));
        w.maybe_raw("ephemeral_1h_input_tokens", written("1h"));
        w.end_object();
    }
    let tier = place.get("serviceTier").and_then(|tier| tier.text_of("type"));
    w.maybe("service_tier", tier.as_deref());
    w.end_object();
}

/// A stream's events, one after the other.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The block that has begun.
    block: Option<u64>,
    /// Why it stopped, once it has.
    stop: Option<String>,
    /// The usage and its name, once it is told.
    usage: Option<Vec<u8>>,
}

impl Events {
    /// Takes an event and writes what it says.
    pub(super) fn take(
        &mut self,
        kind: &str,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let outline = Outline::read(payload).map_err(|_malformed| Failure::AnswerMalformed)?;
        let root = outline.root();
        let index = root.count_of("contentBlockIndex").unwrap_or(0);
        match kind {
            "messageStart" => event(out, "message_start", |w| {
                w.key("message").object();
                w.key("type").string("message");
                w.key("content").raw("[]");
                w.end_object();
            }),
            "contentBlockStart" => {
                if let Some(call) = root.get("start").and_then(|start| start.get("toolUse")) {
                    self.open(index, out, |w| {
                        tool_use(w, call);
                        w.key("input").raw("{}");
                    });
                }
            }
            "contentBlockDelta" => {
                root.get("delta").into_iter().for_each(|delta| self.piece(index, delta, out));
            }
            "contentBlockStop" => self.close(out),
            "messageStop" => {
                let word = root.text_of("stopReason").unwrap_or(Cow::Borrowed("end_turn"));
                self.stop = Some(stop_reason(&word).to_owned());
                self.end(out);
            }
            "metadata" => {
                let mut w = Writer::with_capacity(128);
                w.object();
                usage(&mut w, root);
                w.end_object();
                self.usage = Some(w.finish().to_vec());
                self.end(out);
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, index: u64, out: &mut Vec<u8>, write: impl FnOnce(&mut Writer)) {
        self.close(out);
        self.block = Some(index);
        event(out, "content_block_start", |w| {
            w.key("index").number(index);
            w.key("content_block").object();
            write(w);
            w.end_object();
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(index) = self.block.take() {
            event(out, "content_block_stop", |w| w.key("index").number(index));
        }
    }

    /// A piece; blocks of text and of thoughts begin with theirs.
    fn piece(&mut self, index: u64, delta: Node<'_, '_>, out: &mut Vec<u8>) {
        let is_open = self.block == Some(index);
        let (kind, member, text) = if let Some(text) = delta.text_of("text") {
            if !is_open {
                self.open(index, out, |w| {
                    w.key("type").string("text");
                    w.key("text").string("");
                });
            }
            ("text_delta", "text", text)
        } else if let Some(input) = delta.get("toolUse").and_then(|call| call.text_of("input")) {
            ("input_json_delta", "partial_json", input)
        } else if let Some(thought) = delta.get("reasoningContent") {
            if let Some(sealed) = thought.text_of("redactedContent") {
                return self.open(index, out, |w| {
                    w.key("type").string("redacted_thinking");
                    w.key("data").string(&sealed);
                });
            }
            if !is_open {
                self.open(index, out, |w| {
                    w.key("type").string("thinking");
                    w.key("thinking").string("");
                });
            }
            match thought.text_of("signature") {
                Some(signature) => ("signature_delta", "signature", signature),
                None => ("thinking_delta", "thinking", thought.text_of("text").unwrap_or_default()),
            }
        } else {
            return;
        };
        event(out, "content_block_delta", |w| {
            w.key("index").number(index);
            w.key("delta").object();
            w.key("type").string(kind);
            w.key(member).string(&text);
            w.end_object();
        });
    }

    /// Both the reason and the usage are needed, in whichever order they come.
    fn end(&mut self, out: &mut Vec<u8>) {
        let (Some(stop), Some(usage)) = (&self.stop, &self.usage) else { return };
        let (stop, usage) = (stop.clone(), usage.clone());
        self.close(out);
        event(out, "message_delta", |w| {
            w.key("delta").object();
            w.key("stop_reason").string(&stop);
            w.end_object();
            let told = Outline::read(&usage).ok();
            let told = told.as_ref().and_then(|told| told.root().get("usage"));
            w.maybe_raw("usage", told.map(|told| told.raw()));
        });
        event(out, "message_stop", |_| {});
    }
}

fn event(out: &mut Vec<u8>, name: &str, write: impl FnOnce(&mut Writer)) {
    let mut w = Writer::with_capacity(128);
    w.object();
    w.key("type").string(name);
    write(&mut w);
    w.end_object();
    for part in [b"event: ", name.as_bytes(), b"\ndata: ", &w.finish(), b"\n\n"] {
        out.extend_from_slice(part);
    }
}
