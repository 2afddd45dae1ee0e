//! Turns, written as chat messages.
//!
//! A turn of results becomes one tool message each; pictures among results move into a user's
//! message behind them, since tool messages hold text only. Invariant: signatures of another
//! issuer never leave, and what stays behind is noted. Sources: `c-conversion` C.3 to C.5.

use super::request_out::Target;
use crate::canonical::{
    Body, Dropped, Part, Refusal, Request, Role, Source, ToolResult, ToolUse, plain_text,
};
use crate::dialect::openai::quirks::Quirks;
use crate::json::Writer;

/// What the assistant says to the results of tools where the user may not go on at once.
const BRIDGE: &str = "Understood.";

/// Writes all messages into an open array.
pub(super) fn write(
    w: &mut Writer,
    request: &Request<'_>,
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    let mut follows_tool = false;
    let role = if target.habits(request).is_newer { "developer" } else { "system" };
    for turn in &request.turns {
        let nested = turn.parts.iter().filter_map(Part::as_result).flat_map(|said| &said.content);
        for part in turn.parts.iter().chain(nested) {
            dropped.note_if(part.cache.is_some(), "cache_control");
            let is_titled = matches!(part.body, Body::Document(Source::Plain(_), Some(_)));
            dropped.note_if(is_titled, "messages.content.document.title");
        }
        match turn.role {
            Role::System => system(w, role, &turn.parts, target)?,
            Role::User => user(w, (&turn.parts, &mut follows_tool), target, dropped)?,
            Role::Assistant => {
                follows_tool = false;
                assistant(w, &turn.parts, target, dropped)?;
            }
        }
    }
    Ok(())
}

/// Writes instructions.
fn system(
    w: &mut Writer,
    role: &str,
    parts: &[Part<'_>],
    target: Target<'_>,
) -> Result<(), Refusal> {
    let parts: Vec<_> = parts.iter().collect();
    let Some(text) = joined(&parts, "\n\n", target) else {
        return message(w, role, &parts);
    };
    w.object();
    w.key("role").string(role);
    w.key("content").string(&text);
    w.end_object();
    Ok(())
}

/// Several texts as one. Most who copy `OpenAI` take a list of parts from the user only.
fn joined(parts: &[&Part<'_>], between: &str, target: Target<'_>) -> Option<String> {
    if target.is_openai || parts.len() < 2 {
        return None;
    }
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.as_text()).collect();
    Some(texts?.join(between))
}

/// Writes one message of content alone.
fn message(w: &mut Writer, role: &str, parts: &[&Part<'_>]) -> Result<(), Refusal> {
    w.object();
    w.key("role").string(role);
    w.key("content");
    content(w, parts)?;
    w.end_object();
    Ok(())
}

/// Writes content: a string where one is enough.
fn content(w: &mut Writer, parts: &[&Part<'_>]) -> Result<(), Refusal> {
    if let [Part { body: Body::Text(text), .. }] = parts {
        w.string(text);
        return Ok(());
    }
    w.array();
    for part in parts {
        content_part(w, part)?;
    }
    w.end_array();
    Ok(())
}

fn content_part(w: &mut Writer, part: &Part<'_>) -> Result<(), Refusal> {
    w.object();
    match &part.body {
        Body::Text(text) | Body::Document(Source::Plain(text), _) => typed(w, "text", text),
        Body::Refusal(text) => typed(w, "refusal", text),
        Body::Image(source, detail) => {
            let url =
                source.as_url().ok_or_else(|| Refusal::unsupported("messages.content.image"))?;
            w.key("type").string("image_url");
            w.key("image_url").object();
            w.key("url").strings(&url);
            w.maybe("detail", detail.as_deref());
            w.end_object();
        }
        Body::Audio(sound, format) => {
            w.key("type").string("input_audio");
            w.key("input_audio").object();
            w.key("data").string(sound);
            w.key("format").string(format);
            w.end_object();
        }
        Body::Document(Source::Url(_), _) => {
            return Err(Refusal::unsupported("messages.content.document.url"));
        }
        Body::Document(source @ Source::Base64 { .. }, name) => {
            w.key("type").string("file");
            w.key("file").object();
            w.key("filename").string(name.as_deref().unwrap_or("document.pdf"));
            w.key("file_data").strings(&source.as_url().unwrap_or_default());
            w.end_object();
        }
        Body::Reasoning(_) | Body::Redacted(_) | Body::ToolUse(_) | Body::ToolResult(_) => {
            return Err(Refusal::unsupported("messages.content"));
        }
    }
    w.end_object();
    Ok(())
}

/// A part whose text stands under its own name.
fn typed(w: &mut Writer, kind: &str, text: &str) {
    w.key("type").string(kind);
    w.key(kind).string(text);
}

fn user(
    w: &mut Writer,
    (parts, follows_tool): (&[Part<'_>], &mut bool),
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    let mut rest = Vec::new();
    let mut pictures = Vec::new();
    for part in parts {
        if let Body::ToolResult(result) = &part.body {
            dropped.note_if(result.is_error, "messages.content.is_error");
            pictures.extend(result.content.iter().filter(|part| part.as_text().is_none()));
            tool(w, result, target);
            *follows_tool = true;
        } else {
            rest.push(part);
        }
    }
    pictures.extend(rest);
    if pictures.is_empty() {
        return Ok(());
    }
    if std::mem::take(follows_tool) && !target.quirks.user_after_tool {
        message(w, "assistant", &[&Part::text(BRIDGE)])?;
    }
    message(w, "user", &pictures)
}

fn tool(w: &mut Writer, result: &ToolResult<'_>, target: Target<'_>) {
    w.object();
    w.key("role").string("tool");
    w.key("tool_call_id").string(&target.quirks.id(&result.id));
    w.key("content").string(&plain_text(&result.content));
    w.end_object();
}

fn assistant(
    w: &mut Writer,
    parts: &[Part<'_>],
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    let mut said = Vec::new();
    let mut calls = Vec::new();
    let mut thoughts = Vec::new();
    for part in parts {
        if let Some(call) = part.as_call() {
            calls.push((call, part));
        } else if matches!(part.body, Body::Reasoning(_) | Body::Redacted(_)) {
            thoughts.push(part);
        } else {
            said.push(part);
        }
    }
    w.object();
    w.key("role").string("assistant");
    w.key("content");
    if said.is_empty() && !target.quirks.nulls {
        w.string("");
    } else if said.is_empty() {
        w.null();
    } else if let Some(text) = joined(&said, "", target) {
        w.string(&text);
    } else {
        content(w, &said)?;
    }
    replay(w, &thoughts, target, dropped);
    if !calls.is_empty() {
        w.key("tool_calls").array();
        for (call, part) in calls {
            dropped.note_if(part.signature.is_some(), "messages.content.signature");
            tool_call(w, call, target.quirks);
        }
        w.end_array();
    }
    w.end_object();
    Ok(())
}

/// Says again what was thought, for the vendors who want that of tool calls (DeepSeek, Moonshot).
/// Others refuse what they do not know.
fn replay(w: &mut Writer, thoughts: &[&Part<'_>], target: Target<'_>, dropped: &mut Dropped) {
    let text: String = thoughts.iter().filter_map(|part| part.as_thought()).collect();
    let signed =
        thoughts.iter().any(|part| part.signature.is_some() || part.as_thought().is_none());
    dropped.note_if(signed, "messages.content.signature");
    if !target.quirks.replays {
        dropped.note_if(!thoughts.is_empty(), "messages.content.thinking");
    } else if !text.is_empty() {
        w.key("reasoning_content").string(&text);
    }
}

/// Writes the members of a call that requests and answers share.
pub(super) fn tool_call(w: &mut Writer, call: &ToolUse<'_>, quirks: &Quirks) {
    w.object();
    w.key("id").string(&quirks.id(&call.id));
    w.key("type").string("function");
    w.key("function").object();
    w.key("name").string(&call.name);
    w.key("arguments").string(if call.arguments.is_empty() { "{}" } else { &call.arguments });
    w.end_object();
    w.end_object();
}
