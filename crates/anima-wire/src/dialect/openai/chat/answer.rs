//! A chat completion's answer, in and out of the canonical form.
//!
//! Reading is lenient, as an answer is paid for: what cannot be understood is left out. Not here:
//! errors inside a 200, which are known before. Sources: `a-inbound` A.1.3 and A.1.4,
//! `b-outbound-chat` B.3.3 and B.4, `c-conversion` C.6 and C.7.

use std::borrow::Cow;

use anima_core::failure::Failure;
use anima_core::usage::{Meter, Usage};
use bytes::Bytes;

use super::messages_in::{google_signature, thoughts};
use crate::canonical::{
    Answer, Body, CallIds, Choice, Issuer, Part, Signature, Source, Stop, ToolUse, tier,
};
use crate::dialect::openai::usage::{self, Report};
use crate::dialect::openai::{choice, logprobs};
use crate::dialect::{Echo, prefixed};
use crate::json::{Cursor, Node, Outline, Writer};

/// More calls than a choice has: what tells the places of two choices apart.
const CALLS_MAX: usize = 1_000;

/// Reads an answer.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Answer<'a>, Failure> {
    let root = outline.root();
    let choices = root.get("choices").ok_or(Failure::AnswerMalformed)?;
    let id = root.text_of("id").unwrap_or_default();
    let ids = CallIds::of(&id, root.raw().as_bytes());
    Ok(Answer {
        id,
        model: root.text_of("model").unwrap_or_default(),
        choices: choices.elements().enumerate().map(|(at, node)| choice(at, node, ids)).collect(),
        report: root.get("usage").map(report).unwrap_or_default(),
        service_tier: root.text_of("service_tier"),
    })
}

/// Reads a usage object.
pub(crate) fn report(node: Node<'_, '_>) -> Report {
    usage::read(&mut Cursor::new(node.raw().as_bytes())).unwrap_or_default()
}

fn choice<'a>(number: usize, node: Node<'_, 'a>, ids: CallIds) -> Choice<'a> {
    let mut parts = Vec::new();
    if let Some(message) = node.get("message") {
        parts = thoughts(message);
        if let Some(said) = message.get("content") {
            content(said, &mut parts);
        }
        parts.extend(message.get("images").iter().flat_map(Node::elements).filter_map(pictured));
        if let Some(refusal) = message.text_of("refusal").filter(|text| !text.is_empty()) {
            parts.push(Part::new(Body::Refusal(refusal)));
        }
        if let Some(calls) = message.get("tool_calls") {
            let place = |at: usize| number * CALLS_MAX + at;
            let calls = calls.elements().enumerate();
            parts.extend(calls.filter_map(|(at, node)| call(place(at), node, ids)));
        }
    }
    let finish = node.text_of("finish_reason");
    let mut choice = Choice {
        parts,
        stop: finish.map_or(Stop::End, |word| stop_of(&word)),
        stop_text: None,
        logprobs: node.get("logprobs").and_then(logprobs::read).map(Cow::Owned),
    };
    choice.stop = choice.stop.given_calls(choice.has_calls());
    choice
}

/// Reads content: a text, or the list that Mistral sends.
fn content<'a>(node: Node<'_, 'a>, parts: &mut Vec<Part<'a>>) {
    if let Some(text) = node.text() {
        if !text.is_empty() {
            parts.push(Part::text(text));
        }
        return;
    }
    for part in node.elements() {
        if let Some(text) = part.text_of("text") {
            parts.push(Part::text(text));
        } else if let Some(thinking) = part.get("thinking") {
            let text: String =
                thinking.elements().filter_map(|node| node.text_of("text")).collect();
            parts.push(Part::new(Body::Reasoning(Cow::Owned(text))));
        } else {
            parts.extend(pictured(part));
        }
    }
}

/// Reads a picture, as vendors who copy the dialect return it: in a list of its own (`images`), or
/// among the content. One of which there is only the address is said as text, which every dialect
/// has.
pub(super) fn pictured<'a>(node: Node<'_, 'a>) -> Option<Part<'a>> {
    let image = node.get("image_url")?;
    let url = image.text().or_else(|| image.text_of("url"))?;
    Some(match Source::of_url(url) {
        Source::Url(url) => Part::text(Cow::Owned(format!("![picture]({url})"))),
        source @ (Source::Base64 { .. } | Source::Plain(_)) => Part::new(Body::Image(source, None)),
    })
}

fn call<'a>(place: usize, node: Node<'_, 'a>, ids: CallIds) -> Option<Part<'a>> {
    let function = node.get("function")?;
    let id = node.text_of("id").filter(|id| !id.is_empty());
    let mut part = Part::new(Body::ToolUse(ToolUse {
        id: id.unwrap_or_else(|| Cow::Owned(ids.id(place))),
        name: function.text_of("name")?,
        arguments: arguments(function),
    }));
    part.signature = google_signature(node);
    Some(part)
}

/// The arguments as text; some vendors send the object itself.
pub(super) fn arguments<'a>(function: Node<'_, 'a>) -> Cow<'a, str> {
    let Some(arguments) = function.get("arguments") else {
        return Cow::Borrowed("");
    };
    arguments.text().unwrap_or_else(|| Cow::Borrowed(arguments.raw()))
}

/// What a finish reason means, in all the words that vendors have for it.
pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "length" | "model_length" | "max_tokens" => Stop::Length,
        "tool_calls" | "function_call" => Stop::ToolUse,
        "content_filter" | "sensitive" => Stop::Filtered,
        "model_context_window_exceeded" => Stop::ContextFull,
        word if choice::is_failure(word.as_bytes()) => Stop::Error,
        _ => Stop::End,
    }
}

/// The finish reason for a stop.
pub(super) const fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::StopText | Stop::Paused | Stop::MalformedCall | Stop::Error => "stop",
        Stop::Length | Stop::ContextFull => "length",
        Stop::ToolUse => "tool_calls",
        Stop::Filtered => "content_filter",
    }
}

/// Writes an answer for a client.
pub(crate) fn write(answer: &Answer<'_>, echo: &Echo<'_>) -> Bytes {
    let mut w = Writer::with_capacity(1024);
    w.object();
    w.key("id").strings(&prefixed("chatcmpl-", &answer.id));
    w.key("object").string("chat.completion");
    w.key("created").number(echo.created_s);
    w.key("model").string(echo.model);
    w.key("choices").array();
    for (index, choice) in (0..).zip(&answer.choices) {
        w.object();
        w.key("index").number(index);
        message(&mut w, &choice.parts);
        w.key("logprobs").raw(choice.logprobs.as_deref().unwrap_or("null"));
        w.key("finish_reason").string(finish_reason(choice.stop));
        w.end_object();
    }
    w.end_array();
    if let Some(usage) = answer.report.usage {
        w.key("usage");
        write_usage(&mut w, &usage);
    }
    w.maybe("service_tier", answer.service_tier.as_deref().map(tier::of_openai));
    w.end_object();
    w.finish()
}

fn message(w: &mut Writer, parts: &[Part<'_>]) {
    w.key("message").object();
    w.key("role").string("assistant");
    let texts: Vec<&str> = parts.iter().filter_map(Part::as_text).collect();
    w.key("content");
    if texts.is_empty() {
        w.null();
    } else {
        w.strings(&texts);
    }
    let refusal = parts.iter().find_map(Part::as_refusal);
    w.key("refusal");
    w.string_or_null(refusal);
    let thoughts: Vec<&str> =
        parts.iter().filter_map(Part::as_thought).filter(|text| !text.is_empty()).collect();
    if !thoughts.is_empty() {
        w.key("reasoning_content").strings(&thoughts);
    }
    thinking_blocks(w, parts);
    pictures(w, parts);
    if parts.iter().any(|part| part.as_call().is_some()) {
        w.key("tool_calls").array();
        for part in parts {
            if let Some(call) = part.as_call() {
                w.object();
                call_members(w, call, part.signature.as_ref());
                w.end_object();
            }
        }
        w.end_array();
    }
    w.end_object();
}

/// Thoughts with their signatures, so that the client can send them back.
fn thinking_blocks(w: &mut Writer, parts: &[Part<'_>]) {
    let is_signed = |part: &&Part<'_>| {
        matches!(part.body, Body::Redacted(_))
            || (part.as_thought().is_some() && part.signature.is_some())
    };
    let mut signed = parts.iter().filter(is_signed).peekable();
    if signed.peek().is_none() {
        return;
    }
    w.key("thinking_blocks").array();
    for part in signed {
        if let Body::Redacted(sealed) = &part.body {
            redacted_block(w, sealed);
        } else if let Some(signature) = &part.signature {
            thinking_block(w, part.as_thought().unwrap_or_default(), signature);
        }
    }
    w.end_array();
}

/// Writes signed thoughts as Anthropic has them.
pub(super) fn thinking_block(w: &mut Writer, text: &str, signature: &Signature<'_>) {
    w.object();
    w.key("type").string("thinking");
    w.key("thinking").string(text);
    w.key("signature").strings(&signature.written(Issuer::Anthropic));
    w.end_object();
}

/// Writes sealed thoughts as Anthropic has them.
pub(super) fn redacted_block(w: &mut Writer, sealed: &Signature<'_>) {
    w.object();
    w.key("type").string("redacted_thinking");
    w.key("data").strings(&sealed.written(Issuer::Anthropic));
    w.end_object();
}

/// Pictures, as vendors who copy the dialect return them.
fn pictures(w: &mut Writer, parts: &[Part<'_>]) {
    let urls = parts.iter().filter_map(|part| {
        if let Body::Image(source, _) = &part.body { source.as_url() } else { None }
    });
    let urls: Vec<_> = urls.collect();
    if urls.is_empty() {
        return;
    }
    w.key("images").array();
    for url in &urls {
        picture(w, url);
    }
    w.end_array();
}

/// One picture.
pub(super) fn picture(w: &mut Writer, url: &[&str]) {
    w.object();
    w.key("type").string("image_url");
    w.key("image_url").object();
    w.key("url").strings(url);
    w.end_object();
    w.end_object();
}

/// Writes a call's members, with the signature where Google's mirror has it.
pub(super) fn call_members(w: &mut Writer, call: &ToolUse<'_>, signature: Option<&Signature<'_>>) {
    w.key("id").string(&call.id);
    w.key("type").string("function");
    w.key("function").object();
    w.key("name").string(&call.name);
    w.key("arguments").string(&call.arguments);
    w.end_object();
    if let Some(signature) = signature {
        w.key("extra_content").object();
        w.key("google").object();
        w.key("thought_signature").strings(&signature.written(Issuer::Google));
        w.end_object();
        w.end_object();
    }
}

/// Writes meters as a usage object: totals that contain their parts.
pub(crate) fn write_usage(w: &mut Writer, usage: &Usage) {
    let (input, output) = (usage.input_tokens(), usage.output_tokens());
    w.object();
    w.key("prompt_tokens").number(input);
    w.key("completion_tokens").number(output);
    w.key("total_tokens").number(input + output);
    w.key("prompt_tokens_details").object();
    w.key("cached_tokens").number(cached(usage));
    w.maybe_number("cache_write_tokens", Some(written(usage)).filter(|count| *count > 0));
    w.key("audio_tokens").number(usage.of(Meter::InputAudioTokens));
    w.end_object();
    w.key("completion_tokens_details").object();
    w.key("reasoning_tokens").number(usage.of(Meter::ReasoningTokens));
    w.key("audio_tokens").number(usage.of(Meter::OutputAudioTokens));
    w.end_object();
    w.end_object();
}

/// All tokens read from a cache.
pub(crate) fn cached(usage: &Usage) -> u64 {
    [Meter::CachedInputTokens, Meter::CachedInputAudioTokens, Meter::CachedInputImageTokens]
        .iter()
        .map(|meter| usage.of(*meter))
        .sum()
}

/// All tokens written to a cache.
pub(crate) fn written(usage: &Usage) -> u64 {
    usage.of(Meter::CacheWriteTokens) + usage.of(Meter::CacheWrite1hTokens)
}
