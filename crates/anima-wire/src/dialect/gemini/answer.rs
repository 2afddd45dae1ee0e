//! An answer of generateContent, in and out of the canonical form.
//!
//! A prompt that was blocked has no candidates and is a refusal of the content, in spite of its
//! 200. Invariant: every call has an id, whether Google gave one or not. Sources: `a-inbound`
//! A.3.3, `c-conversion` C.7.

use std::borrow::Cow;

use anima_core::failure::Failure;
use anima_core::usage::Meter;
use bytes::Bytes;

use super::contents_in::signature;
use super::request_in::either;
use super::{logprobs, usage};
use crate::canonical::{Answer, Body, CallIds, Choice, Issuer, Part, Source, Stop, ToolUse};
use crate::dialect::Echo;
use crate::dialect::anthropic::arguments;
use crate::json::{Node, Outline, Writer};

/// More parts than a candidate has: what tells the places of two candidates apart.
const PARTS_MAX: usize = 1_000;

/// Reads an answer.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Answer<'a>, Failure> {
    let root = outline.root();
    if is_blocked(root) {
        return Err(Failure::ContentRefused);
    }
    let candidates = root.get("candidates").ok_or(Failure::AnswerMalformed)?;
    let metadata = either(root, "usageMetadata", "usage_metadata");
    let id = root.text_of("responseId").unwrap_or_default();
    let ids = CallIds::of(&id, root.raw().as_bytes());
    Ok(Answer {
        id,
        model: root.text_of("modelVersion").unwrap_or_default(),
        choices: candidates
            .elements()
            .enumerate()
            .map(|(at, node)| choice(at, node, ids))
            .collect(),
        report: metadata
            .map(usage::read)
            .unwrap_or_default()
            .with_fees(Meter::SearchCalls, searches(root)),
        service_tier: metadata.and_then(usage::tier),
    })
}

/// Searches of the web that an answer rests on: each query of the third generation is paid for,
/// and of older ones each prompt that was answered with any (`a-inbound` A.3.3).
pub(super) fn searches(root: Node<'_, '_>) -> u64 {
    let candidates = root.get("candidates");
    let queries = candidates.iter().flat_map(Node::elements).map(|candidate| {
        let grounding = either(candidate, "groundingMetadata", "grounding_metadata");
        let list =
            grounding.and_then(|told| either(told, "webSearchQueries", "web_search_queries"));
        list.map_or(0, |list| list.elements().count() as u64)
    });
    let model = root.text_of("modelVersion").unwrap_or_default();
    let is_older = ["gemini-1", "gemini-2"].iter().any(|name| model.contains(name));
    let sum: u64 = queries.sum();
    if is_older { sum.min(1) } else { sum }
}

/// Whether the prompt was blocked.
pub(super) fn is_blocked(root: Node<'_, '_>) -> bool {
    let has_candidates =
        root.get("candidates").is_some_and(|list| list.elements().next().is_some());
    let feedback = either(root, "promptFeedback", "prompt_feedback");
    !has_candidates
        && feedback.is_some_and(|node| either(node, "blockReason", "block_reason").is_some())
}

fn choice<'a>(number: usize, candidate: Node<'_, 'a>, ids: CallIds) -> Choice<'a> {
    let nodes = parts(candidate).into_iter().enumerate();
    let place = |at: usize| number * PARTS_MAX + at;
    let parts: Vec<_> = nodes.filter_map(|(at, node)| part(place(at), node, ids)).collect();
    let finish = either(candidate, "finishReason", "finish_reason").and_then(|word| word.text());
    let mut choice = Choice {
        parts,
        stop: finish.map_or(Stop::End, |word| stop_of(&word)),
        stop_text: None,
        logprobs: logprobs::read(candidate),
    };
    choice.stop = choice.stop.given_calls(choice.has_calls());
    choice
}

/// The parts of a candidate.
pub(super) fn parts<'t, 'a>(candidate: Node<'t, 'a>) -> Vec<Node<'t, 'a>> {
    let content = candidate.get("content").and_then(|content| content.get("parts"));
    content.iter().flat_map(Node::elements).collect()
}

fn part<'a>(place: usize, node: Node<'_, 'a>, ids: CallIds) -> Option<Part<'a>> {
    let body = if let Some(text) = node.text_of("text") {
        if is_thought(node) { Body::Reasoning(text) } else { Body::Text(text) }
    } else if let Some(call) = either(node, "functionCall", "function_call") {
        Body::ToolUse(call_of(place, call, ids)?)
    } else {
        let (media_type, content) = picture(node)?;
        Body::Image(Source::Base64 { media_type, content }, None)
    };
    let mut part = Part::new(body);
    part.signature = signature(node);
    Some(part)
}

/// Whether a part is thoughts.
pub(super) fn is_thought(node: Node<'_, '_>) -> bool {
    node.get("thought").and_then(|flag| flag.flag()) == Some(true)
}

/// Reads a call. One without an id gets one by its answer and its place in it.
pub(super) fn call_of<'a>(place: usize, call: Node<'_, 'a>, ids: CallIds) -> Option<ToolUse<'a>> {
    let id = call.text_of("id").filter(|id| !id.is_empty());
    Some(ToolUse {
        id: id.unwrap_or_else(|| Cow::Owned(ids.id(place))),
        name: call.text_of("name")?,
        arguments: Cow::Borrowed(call.get("args").map_or("{}", |args| args.raw())),
    })
}

/// Reads a picture: its type and its bytes.
pub(super) fn picture<'a>(node: Node<'_, 'a>) -> Option<(Cow<'a, str>, Cow<'a, str>)> {
    let inline = either(node, "inlineData", "inline_data")?;
    let media_type = either(inline, "mimeType", "mime_type")?.text()?;
    media_type.starts_with("image/").then_some(())?;
    Some((media_type, inline.text_of("data")?))
}

/// What a finish reason means.
pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "MAX_TOKENS" => Stop::Length,
        "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" => {
            Stop::Filtered
        }
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" => {
            Stop::MalformedCall
        }
        "OTHER" => Stop::Error,
        word if word.starts_with("IMAGE_") => Stop::Filtered,
        _ => Stop::End,
    }
}

/// The finish reason for a stop.
pub(super) const fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::StopText | Stop::ToolUse | Stop::Paused => "STOP",
        Stop::Length | Stop::ContextFull => "MAX_TOKENS",
        Stop::Filtered => "SAFETY",
        Stop::MalformedCall => "MALFORMED_FUNCTION_CALL",
        Stop::Error => "OTHER",
    }
}

/// Writes an answer for a client.
pub(crate) fn write(answer: &Answer<'_>, echo: &Echo<'_>) -> Bytes {
    let mut w = Writer::with_capacity(1024);
    w.object();
    w.key("candidates").array();
    for (index, choice) in (0..).zip(&answer.choices) {
        w.object();
        w.key("content").object();
        w.key("parts").array();
        for part in &choice.parts {
            write_part(&mut w, part);
        }
        w.end_array();
        w.key("role").string("model");
        w.end_object();
        w.key("finishReason").string(finish_reason(choice.stop));
        w.key("index").number(index);
        logprobs::write(&mut w, choice.logprobs.as_deref());
        w.end_object();
    }
    w.end_array();
    if let Some(usage) = &answer.report.usage {
        w.key("usageMetadata");
        usage::write(&mut w, usage, answer.service_tier.as_deref());
    }
    w.key("modelVersion").string(echo.model);
    w.key("responseId").string(&answer.id);
    w.end_object();
    w.finish()
}

fn write_part(w: &mut Writer, part: &Part<'_>) {
    w.object();
    match &part.body {
        Body::Text(text) | Body::Refusal(text) => w.key("text").string(text),
        Body::Reasoning(text) => {
            w.key("text").string(text);
            w.key("thought").flag(true);
        }
        Body::Redacted(sealed) => {
            w.key("text").string("");
            w.key("thought").flag(true);
            w.key("thoughtSignature").strings(&sealed.written(Issuer::Google));
        }
        Body::ToolUse(call) => write_call(w, call),
        Body::Image(Source::Base64 { media_type, content }, _) => {
            write_picture(w, media_type, content);
        }
        // A model's answer has no such parts in this dialect.
        Body::Image(..) | Body::Audio(..) | Body::Document(..) | Body::ToolResult(_) => {
            w.key("text").string("");
        }
    }
    if let Some(signature) = &part.signature {
        w.key("thoughtSignature").strings(&signature.written(Issuer::Google));
    }
    w.end_object();
}

/// Writes a call.
pub(super) fn write_call(w: &mut Writer, call: &ToolUse<'_>) {
    w.key("functionCall").object();
    w.key("id").string(&call.id);
    w.key("name").string(&call.name);
    w.key("args");
    arguments(w, &call.arguments);
    w.end_object();
}

/// Writes a picture.
pub(super) fn write_picture(w: &mut Writer, media_type: &str, content: &str) {
    w.key("inlineData").object();
    w.key("mimeType").string(media_type);
    w.key("data").string(content);
    w.end_object();
}
