//! Parts, written as items.
//!
//! One item per part; a message has one part of content. Invariant: a seal goes back with the id
//! of the item that it came with. Source: `a-inbound` A.1.5, `c-conversion` C.3 to C.5.

use crate::canonical::{
    Body, Dropped, Issuer, Part, Refusal, Role, Signature, Source, ToolResult, ToolUse, Turn,
    plain_text,
};
use crate::json::Writer;

/// Writes all items of an input into an open array.
pub(super) fn write(
    w: &mut Writer,
    turns: &[Turn<'_>],
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    for turn in turns {
        let mut said = Vec::new();
        for part in &turn.parts {
            dropped.note_if(part.cache.is_some(), "cache_control");
            if is_content(part) {
                dropped.note_if(part.signature.is_some(), "messages.content.signature");
                dropped.note_if(is_titled_text(part), "messages.content.document.title");
                said.push(part);
            } else {
                message(w, turn.role, &mut said)?;
                item(w, part, dropped)?;
            }
        }
        message(w, turn.role, &mut said)?;
    }
    Ok(())
}

/// Whether a part is plain text with a title, which has no place.
fn is_titled_text(part: &Part<'_>) -> bool {
    matches!(part.body, Body::Document(Source::Plain(_), Some(_)))
}

/// Whether a part belongs into a message; others are items of their own.
const fn is_content(part: &Part<'_>) -> bool {
    !matches!(
        part.body,
        Body::Reasoning(_) | Body::Redacted(_) | Body::ToolUse(_) | Body::ToolResult(_)
    )
}

fn item(w: &mut Writer, part: &Part<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    if let Some(result) = part.as_result() {
        return tool_result(w, result, dropped);
    }
    if let Some(call) = part.as_call() {
        dropped.note_if(part.signature.is_some(), "messages.content.signature");
        w.object();
        call_members(w, call);
        w.end_object();
        return Ok(());
    }
    let is_own = part.signed_by(Issuer::OpenAi).is_some();
    dropped.note_if(!is_own, "messages.content.thinking");
    if let (true, Some(signature)) = (is_own, &part.signature) {
        reasoning(w, "rs_0", part.as_thought().unwrap_or_default(), Some(signature));
    }
    Ok(())
}

/// Writes a message of the parts so far, if there are any.
fn message(w: &mut Writer, role: Role, said: &mut Vec<&Part<'_>>) -> Result<(), Refusal> {
    if said.is_empty() {
        return Ok(());
    }
    w.object();
    w.key("type").string("message");
    w.key("role").string(match role {
        Role::System => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
    });
    w.key("content").array();
    for part in said.drain(..) {
        content_part(w, role, part)?;
    }
    w.end_array();
    w.end_object();
    Ok(())
}

fn content_part(w: &mut Writer, role: Role, part: &Part<'_>) -> Result<(), Refusal> {
    w.object();
    match &part.body {
        Body::Text(text) | Body::Document(Source::Plain(text), _) => {
            let kind = if role == Role::Assistant { "output_text" } else { "input_text" };
            w.key("type").string(kind);
            w.key("text").string(text);
        }
        Body::Refusal(text) => {
            w.key("type").string("refusal");
            w.key("refusal").string(text);
        }
        Body::Image(source, detail) => {
            w.key("type").string("input_image");
            w.key("image_url").strings(&source.as_url().unwrap_or_default());
            w.maybe("detail", detail.as_deref());
        }
        Body::Document(source, name) => {
            let is_url = matches!(source, Source::Url(_));
            let fallback = if is_url { None } else { Some("document.pdf") };
            w.key("type").string("input_file");
            w.maybe("filename", name.as_deref().or(fallback));
            let member = if is_url { "file_url" } else { "file_data" };
            w.key(member).strings(&source.as_url().unwrap_or_default());
        }
        Body::Audio(sound, format) => {
            w.key("type").string("input_audio");
            w.key("input_audio").object();
            w.key("data").string(sound);
            w.key("format").string(format);
            w.end_object();
        }
        Body::Reasoning(_) | Body::Redacted(_) | Body::ToolUse(_) | Body::ToolResult(_) => {
            return Err(Refusal::unsupported("messages.content"));
        }
    }
    w.end_object();
    Ok(())
}

fn tool_result(
    w: &mut Writer,
    result: &ToolResult<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    dropped.note_if(result.is_error, "messages.content.is_error");
    w.object();
    w.key("type").string("function_call_output");
    w.key("call_id").string(&result.id);
    w.key("output");
    if result.content.iter().all(|part| part.as_text().is_some()) {
        w.string(&plain_text(&result.content));
    } else {
        w.array();
        for part in &result.content {
            dropped.note_if(part.cache.is_some(), "cache_control");
            if matches!(part.body, Body::Audio(..)) {
                return Err(Refusal::unsupported("messages.content.input_audio"));
            }
            dropped.note_if(is_titled_text(part), "messages.content.document.title");
            content_part(w, Role::User, part)?;
        }
        w.end_array();
    }
    w.end_object();
    Ok(())
}

/// Writes the members of a call that inputs and outputs share.
pub(super) fn call_members(w: &mut Writer, call: &ToolUse<'_>) {
    w.key("type").string("function_call");
    w.key("call_id").string(&call.id);
    w.key("name").string(&call.name);
    w.key("arguments").string(if call.arguments.is_empty() { "{}" } else { &call.arguments });
}

/// Writes thoughts. The id is that of the seal, where it has one.
pub(super) fn reasoning(w: &mut Writer, id: &str, text: &str, signature: Option<&Signature<'_>>) {
    let own = signature.filter(|made| made.issuer == Issuer::OpenAi);
    let parts = own.and_then(|made| made.value.split_once(':'));
    w.object();
    w.key("type").string("reasoning");
    w.key("id").string(parts.map_or(id, |(id, _)| id));
    w.key("summary").array();
    if !text.is_empty() {
        summary(w, text);
    }
    w.end_array();
    if let Some((_, sealed)) = parts {
        w.key("encrypted_content").string(sealed);
    } else if let Some(signature) = signature {
        w.key("encrypted_content").strings(&signature.written(Issuer::OpenAi));
    }
    w.end_object();
}

/// A piece of a summary.
pub(super) fn summary(w: &mut Writer, text: &str) {
    w.object();
    w.key("type").string("summary_text");
    w.key("text").string(text);
    w.end_object();
}
