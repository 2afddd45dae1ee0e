//! A response, in and out of the canonical form.
//!
//! Items of tools that ran at OpenAI are passed over. Invariant: a response that failed is a
//! failure, whatever else it holds. Sources: `a-inbound` A.1.5, `c-conversion` C.6 and C.7.

use std::collections::BTreeSet;

use anima_core::failure::Failure;
use anima_core::usage::{Meter, Usage};
use bytes::Bytes;

use super::items_in::{call, thoughts};
use super::items_out::{call_members, reasoning};
use crate::canonical::{Answer, Body, Choice, Part, Source, Stop, tier};
use crate::dialect::openai::chat::{cached, report, written};
use crate::dialect::openai::logprobs;
use crate::dialect::openai::usage::Report;
use crate::dialect::{Echo, prefixed};
use crate::json::{Node, Outline, Writer};

/// Reads a response.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Answer<'a>, Failure> {
    let root = outline.root();
    let output = root.get("output").ok_or(Failure::AnswerMalformed)?;
    let mut choice = Choice::default();
    for item in output.elements() {
        match item.text_of("type").as_deref() {
            Some("message") => message(item, &mut choice),
            Some("function_call") => choice.parts.extend(call(item)),
            Some("reasoning") => choice.parts.extend(thoughts(item)),
            Some(_) | None => {}
        }
    }
    choice.stop = stop_of(root).given_calls(choice.has_calls());
    Ok(Answer {
        id: root.text_of("id").unwrap_or_default(),
        model: root.text_of("model").unwrap_or_default(),
        choices: vec![choice],
        report: reported(root),
        service_tier: root.text_of("service_tier"),
    })
}

/// What a response says that it used. What OpenAI's own tools cost stands among its items and not
/// in its usage: a fee for each search, and one for each container that code ran in.
pub(super) fn reported(response: Node<'_, '_>) -> Report {
    let output = response.get("output");
    let items: Vec<_> = output.iter().flat_map(Node::elements).collect();
    let of_kind = |kind: &'static str| {
        items.iter().filter(move |item| item.get("type").is_some_and(|told| told.is(kind)))
    };
    let containers: BTreeSet<_> =
        of_kind("code_interpreter_call").map(|call| call.text_of("container_id")).collect();
    [
        (Meter::SearchCalls, of_kind("web_search_call").count()),
        (Meter::FileSearchCalls, of_kind("file_search_call").count()),
        (Meter::CodeSessions, containers.len()),
    ]
    .into_iter()
    .fold(response.get("usage").map(report).unwrap_or_default(), |report, (meter, count)| {
        report.with_fees(meter, count as u64)
    })
}

fn message<'a>(item: Node<'_, 'a>, choice: &mut Choice<'a>) {
    for part in item.get("content").iter().flat_map(Node::elements) {
        if let Some(text) = part.text_of("text").filter(|text| !text.is_empty()) {
            choice.parts.push(Part::text(text));
        } else if let Some(refusal) = part.text_of("refusal") {
            choice.parts.push(Part::new(Body::Refusal(refusal)));
        }
        if let Some(told) = part.get("logprobs").and_then(logprobs::read_list) {
            let all = choice.logprobs.take().map(|before| logprobs::join(&before, &told));
            choice.logprobs = Some(all.unwrap_or(told).into());
        }
    }
}

/// What the state of a response means.
pub(super) fn stop_of(response: Node<'_, '_>) -> Stop {
    let reason = response.get("incomplete_details").and_then(|details| details.text_of("reason"));
    match (response.text_of("status").as_deref(), reason.as_deref()) {
        (Some("failed" | "cancelled"), _) => Stop::Error,
        (_, Some("max_output_tokens")) => Stop::Length,
        (_, Some("content_filter")) => Stop::Filtered,
        (Some("incomplete"), _) => Stop::Paused,
        (_, _) => Stop::End,
    }
}

/// The state for a stop, and what it lacks.
pub(super) const fn status(stop: Stop) -> (&'static str, Option<&'static str>) {
    match stop {
        Stop::End | Stop::StopText | Stop::ToolUse | Stop::MalformedCall => ("completed", None),
        Stop::Length | Stop::ContextFull | Stop::Paused => {
            ("incomplete", Some("max_output_tokens"))
        }
        Stop::Filtered => ("incomplete", Some("content_filter")),
        Stop::Error => ("failed", None),
    }
}

/// Writes a response for a client.
pub(crate) fn write(answer: &Answer<'_>, echo: &Echo<'_>) -> Bytes {
    let first = answer.choices.first();
    let mut w = Writer::with_capacity(1024);
    let stop = first.map(|choice| choice.stop).unwrap_or_default();
    let (status, _) = status(stop);
    head(&mut w, &answer.id, status, echo.created_s, echo.model);
    w.key("output").array();
    let told = first.and_then(|choice| choice.logprobs.as_deref());
    let mut tokens = told.map(logprobs::tokens).unwrap_or_default();
    for (at, part) in first.iter().flat_map(|choice| &choice.parts).enumerate() {
        // They are of the text as a whole, which is one item as a rule.
        let of_part =
            if part.as_text().is_some() { std::mem::take(&mut tokens) } else { String::new() };
        item(&mut w, at, part, &of_part);
    }
    w.end_array();
    tail(&mut w, stop, answer.report.usage.as_ref(), answer.service_tier.as_deref());
    w.finish()
}

/// Opens a response object.
pub(super) fn head(w: &mut Writer, id: &str, status: &str, created_s: u64, model: &str) {
    w.object();
    w.key("id").strings(&prefixed("resp_", id));
    w.key("object").string("response");
    w.key("created_at").number(created_s);
    w.key("status").string(status);
    w.key("error").null();
    w.key("model").string(model);
}

/// Closes a response object.
pub(super) fn tail(w: &mut Writer, stop: Stop, usage: Option<&Usage>, served: Option<&str>) {
    w.key("incomplete_details");
    if let (_, Some(reason)) = status(stop) {
        w.object();
        w.key("reason").string(reason);
        w.end_object();
    } else {
        w.null();
    }
    w.key("instructions").null();
    w.key("metadata").object();
    w.end_object();
    w.key("parallel_tool_calls").flag(true);
    w.key("tool_choice").string("auto");
    w.key("tools").array();
    w.end_array();
    w.maybe("service_tier", served.map(tier::of_openai));
    w.key("usage");
    if let Some(usage) = usage {
        write_usage(w, usage);
    } else {
        w.null();
    }
    w.end_object();
}

fn item(w: &mut Writer, at: usize, part: &Part<'_>, tokens: &str) {
    let number = at.to_string();
    match &part.body {
        Body::Text(text) => message_item(w, &number, ("output_text", text, tokens), "completed"),
        Body::Refusal(text) => message_item(w, &number, ("refusal", text, ""), "completed"),
        Body::Reasoning(text) => {
            reasoning(w, &format!("rs_{number}"), text, part.signature.as_ref());
        }
        Body::Redacted(sealed) => reasoning(w, &format!("rs_{number}"), "", Some(sealed)),
        Body::ToolUse(call) => {
            // The dialect has no place for a foreign signature but thoughts of its own.
            if let Some(signature) = &part.signature {
                reasoning(w, &format!("rs_{number}"), "", Some(signature));
            }
            w.object();
            w.key("id").strings(&["fc_", &number]);
            call_members(w, call);
            w.key("status").string("completed");
            w.end_object();
        }
        Body::Image(source, _) => {
            let content = match source {
                Source::Base64 { content, .. } => Some(&**content),
                Source::Url(_) | Source::Plain(_) => None,
            };
            picture_item(w, &number, content, "completed");
        }
        // A model's answer has no such parts in this dialect.
        Body::Audio(..) | Body::Document(..) | Body::ToolResult(_) => {}
    }
}

/// Writes a picture: its bytes in base64, once they are there.
pub(super) fn picture_item(w: &mut Writer, number: &str, content: Option<&str>, status: &str) {
    w.object();
    w.key("type").string("image_generation_call");
    w.key("id").strings(&["ig_", number]);
    w.key("status").string(status);
    w.key("result");
    w.string_or_null(content);
    w.end_object();
}

/// What a part of a message is, its text, and the log probabilities of its tokens.
pub(super) type Said<'a> = (&'a str, &'a str, &'a str);

/// Writes a message of one part.
pub(super) fn message_item(w: &mut Writer, number: &str, said: Said<'_>, status: &str) {
    w.object();
    w.key("id").strings(&["msg_", number]);
    w.key("type").string("message");
    w.key("status").string(status);
    w.key("role").string("assistant");
    w.key("content").array();
    if status == "completed" {
        content_part(w, said);
    }
    w.end_array();
    w.end_object();
}

/// Writes a part of a message.
pub(super) fn content_part(w: &mut Writer, (kind, text, tokens): Said<'_>) {
    w.object();
    w.key("type").string(kind);
    if kind == "refusal" {
        w.key("refusal").string(text);
    } else {
        w.key("text").string(text);
        w.key("annotations").array();
        w.end_array();
        logprobs::list(w, tokens);
    }
    w.end_object();
}

/// Writes meters as a usage object: totals that contain their parts.
fn write_usage(w: &mut Writer, usage: &Usage) {
    let (input, output) = (usage.input_tokens(), usage.output_tokens());
    w.object();
    w.key("input_tokens").number(input);
    w.key("input_tokens_details").object();
    w.key("cached_tokens").number(cached(usage));
    w.maybe_number("cache_write_tokens", Some(written(usage)).filter(|count| *count > 0));
    w.end_object();
    w.key("output_tokens").number(output);
    w.key("output_tokens_details").object();
    w.key("reasoning_tokens").number(usage.of(Meter::ReasoningTokens));
    w.end_object();
    w.key("total_tokens").number(input + output);
    w.end_object();
}
