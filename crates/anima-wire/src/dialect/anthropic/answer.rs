//! A message, in and out of the canonical form.
//!
//! Reading passes over blocks of tools that ran at Anthropic. Invariant: what is called an answer
//! has content; an error object in its place is a failure. Source: `a-inbound` A.2.4,
//! `c-conversion` C.7.

use std::borrow::Cow;

use anima_core::failure::Failure;
use bytes::Bytes;

use super::content_out::{redacted_block, thinking_block, tool_use};
use super::usage::{self, Counts};
use crate::canonical::{Answer, Body, Choice, Part, Stop, ToolUse};
use crate::dialect::openai::chat;
use crate::dialect::{Echo, prefixed};
use crate::json::{Node, Outline, Writer};

/// Reads an answer.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Answer<'a>, Failure> {
    let root = outline.root();
    let content = root.get("content").ok_or(Failure::AnswerMalformed)?;
    let mut counts = Counts::default();
    let usage = root.get("usage");
    if let Some(usage) = usage {
        counts.overlay(usage);
    }
    let mut choice = Choice {
        parts: content.elements().filter_map(block).collect(),
        stop: root.text_of("stop_reason").map_or(Stop::End, |word| stop_of(&word)),
        stop_text: root.text_of("stop_sequence"),
        logprobs: None,
    };
    choice.stop = choice.stop.given_calls(choice.has_calls());
    Ok(Answer {
        id: root.text_of("id").unwrap_or_default(),
        model: root.text_of("model").unwrap_or_default(),
        choices: vec![choice],
        report: counts.report(),
        service_tier: usage.and_then(|usage| usage.text_of("service_tier")),
    })
}

fn block<'a>(node: Node<'_, 'a>) -> Option<Part<'a>> {
    match &*node.text_of("type")? {
        "text" => {
            let text = node.text_of("text").filter(|text| !text.is_empty())?;
            Some(Part::text(text))
        }
        "tool_use" => Some(Part::new(Body::ToolUse(ToolUse {
            id: node.text_of("id")?,
            name: node.text_of("name")?,
            arguments: Cow::Borrowed(node.get("input").map_or("{}", |input| input.raw())),
        }))),
        _ => chat::thinking_block(node),
    }
}

/// What a stop reason means.
pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "max_tokens" => Stop::Length,
        "stop_sequence" => Stop::StopText,
        "tool_use" => Stop::ToolUse,
        "pause_turn" => Stop::Paused,
        "refusal" => Stop::Filtered,
        "model_context_window_exceeded" => Stop::ContextFull,
        _ => Stop::End,
    }
}

/// The stop reason for a stop.
pub(super) const fn stop_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::MalformedCall | Stop::Error => "end_turn",
        Stop::StopText => "stop_sequence",
        Stop::Length => "max_tokens",
        Stop::ContextFull => "model_context_window_exceeded",
        Stop::ToolUse => "tool_use",
        Stop::Paused => "pause_turn",
        Stop::Filtered => "refusal",
    }
}

/// What stands for a picture of the model's, of which this dialect has no form: it was made and is
/// paid, so that it is not left out without a word.
pub(super) const PICTURE_LEFT_OUT: &str =
    "[A picture was made here, which this format cannot carry.]";

/// Writes an answer for a client.
pub(crate) fn write(answer: &Answer<'_>, echo: &Echo<'_>) -> Bytes {
    let first = answer.choices.first();
    let mut w = Writer::with_capacity(1024);
    w.object();
    w.key("id").strings(&prefixed("msg_", &answer.id));
    w.key("type").string("message");
    w.key("role").string("assistant");
    w.key("model").string(echo.model);
    w.key("content").array();
    for part in first.iter().flat_map(|choice| &choice.parts) {
        content_block(&mut w, part);
    }
    w.end_array();
    let stop = first.map(|choice| choice.stop).unwrap_or_default();
    w.key("stop_reason").string(stop_reason(stop));
    let stop_text = first.and_then(|choice| choice.stop_text.as_deref());
    w.key("stop_sequence");
    w.string_or_null(stop_text);
    w.key("usage");
    let served = answer.service_tier.as_deref();
    usage::write(&mut w, answer.report.usage.as_ref(), echo.input_tokens, served);
    w.end_object();
    w.finish()
}

fn content_block(w: &mut Writer, part: &Part<'_>) {
    match &part.body {
        Body::Text(text) | Body::Refusal(text) => {
            w.object();
            w.key("type").string("text");
            w.key("text").string(text);
            w.end_object();
        }
        Body::Reasoning(text) => thinking_block(w, text, part.signature.as_ref()),
        Body::Redacted(sealed) => redacted_block(w, sealed),
        Body::ToolUse(call) => {
            // The dialect has no place for a foreign signature but a thinking block of its own.
            if let Some(signature) = &part.signature {
                thinking_block(w, "", Some(signature));
            }
            w.object();
            tool_use(w, call);
            w.end_object();
        }
        Body::Image(..) => {
            w.object();
            w.key("type").string("text");
            w.key("text").string(PICTURE_LEFT_OUT);
            w.end_object();
        }
        // No provider's answer has such parts.
        Body::Audio(..) | Body::Document(..) | Body::ToolResult(_) => {}
    }
}
