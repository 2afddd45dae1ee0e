//! Chat messages, read into turns.
//!
//! Tool messages become parts of a user's turn, and neighbours of one role one turn. Lenient where
//! SDKs are (content may be a string, a list or null), strict about what would otherwise get lost.
//! Source: `a-inbound` A.1.2, `c-conversion` C.3 to C.5.

use std::borrow::Cow;

use crate::canonical::{
    Body, Cache, Issuer, Part, Refusal, Request, Role, Signature, Source, ToolResult, ToolUse,
    push_part,
};
use crate::json::{Kind, Misfit, Node};

/// Reads all messages.
pub(super) fn read<'a>(messages: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Refusal> {
    for message in messages.elements() {
        if message.kind() != Kind::Object {
            return Err(Misfit { member: "messages", must: "be an array of objects" }.into());
        }
        if message.get("name").is_some() && !request.unplaced.contains(&"messages.name".into()) {
            request.unplaced.push("messages.name".into());
        }
        let turns = &mut request.turns;
        let role = message.string("role")?.ok_or(Refusal::Missing("role"))?;
        match &*role {
            "system" | "developer" => content(message, |part| push_part(turns, Role::System, part)),
            "user" => content(message, |part| push_part(turns, Role::User, part)),
            "assistant" => assistant(message, |part| push_part(turns, Role::Assistant, part)),
            "tool" => {
                let id = message.string("tool_call_id")?.ok_or(Refusal::Missing("tool_call_id"))?;
                let mut parts = Vec::new();
                content(message, |part| parts.push(part))?;
                let result = ToolResult { id, content: parts, is_error: false };
                push_part(turns, Role::User, Part::new(Body::ToolResult(result)));
                Ok(())
            }
            role => Err(Refusal::unsupported_kind("messages.role", role)),
        }?;
    }
    Ok(())
}

/// Reads `content`.
fn content<'a>(message: Node<'_, 'a>, mut show: impl FnMut(Part<'a>)) -> Result<(), Refusal> {
    let Some(content) = message.get("content") else {
        return Ok(());
    };
    if let Some(text) = content.text() {
        show(Part::text(text));
        return Ok(());
    }
    if content.kind() != Kind::Array {
        return Err(Misfit { member: "content", must: "be a string or an array of parts" }.into());
    }
    for node in content.elements() {
        show(part(node)?);
    }
    Ok(())
}

fn part<'a>(node: Node<'_, 'a>) -> Result<Part<'a>, Refusal> {
    let kind = node.string("type")?.ok_or(Refusal::Missing("content.type"))?;
    let body = match &*kind {
        "text" => Body::Text(node.string("text")?.ok_or(Refusal::Missing("text"))?),
        "refusal" => Body::Refusal(node.string("refusal")?.unwrap_or_default()),
        "image_url" => image(node)?,
        "input_audio" => {
            let audio = node.object("input_audio")?.ok_or(Refusal::Missing("input_audio"))?;
            let sound = audio.string("data")?.ok_or(Refusal::Missing("input_audio.data"))?;
            Body::Audio(sound, audio.string("format")?.unwrap_or_else(|| "wav".into()))
        }
        "file" => file(node)?,
        kind => return Err(Refusal::unsupported_kind("messages.content", kind)),
    };
    Ok(Part { body, cache: cache(node), signature: None })
}

fn image<'a>(node: Node<'_, 'a>) -> Result<Body<'a>, Refusal> {
    let missing = || Refusal::Missing("image_url");
    let image = node.get("image_url").ok_or_else(missing)?;
    let url = image.text().or_else(|| image.text_of("url")).ok_or_else(missing)?;
    Ok(Body::Image(Source::of_url(url), image.text_of("detail")))
}

fn file<'a>(node: Node<'_, 'a>) -> Result<Body<'a>, Refusal> {
    let file = node.object("file")?.ok_or(Refusal::Missing("file"))?;
    // A file's id is known to one account of one provider only.
    let Some(url) = file.string("file_data")? else {
        return Err(Refusal::unsupported("messages.content.file.file_id"));
    };
    Ok(Body::Document(Source::of_url(url), file.string("filename")?))
}

/// The breakpoint that `OpenRouter` and others accept on parts.
pub(crate) fn cache(node: Node<'_, '_>) -> Option<Cache> {
    let control = node.get("cache_control")?;
    let is_long = control.text_of("ttl").is_some_and(|ttl| ttl == "1h");
    Some(if is_long { Cache::Long } else { Cache::Short })
}

fn assistant<'a>(message: Node<'_, 'a>, mut show: impl FnMut(Part<'a>)) -> Result<(), Refusal> {
    if message.get("function_call").is_some() {
        return Err(Refusal::unsupported("messages.function_call"));
    }
    if message.get("audio").is_some() {
        return Err(Refusal::unsupported("messages.audio"));
    }
    thoughts(message).into_iter().for_each(&mut show);
    content(message, &mut show)?;
    if let Some(refusal) = message.string("refusal")? {
        show(Part::new(Body::Refusal(refusal)));
    }
    if let Some(calls) = message.array("tool_calls")? {
        for call in calls.elements() {
            show(tool_call(call)?);
        }
    }
    Ok(())
}

/// What the model thought, with signatures where the client has kept them.
pub(super) fn thoughts<'a>(message: Node<'_, 'a>) -> Vec<Part<'a>> {
    let blocks: Vec<Part<'a>> = message
        .get("thinking_blocks")
        .into_iter()
        .flat_map(|blocks| blocks.elements())
        .filter_map(thinking_block)
        .collect();
    if !blocks.is_empty() {
        return blocks;
    }
    let plain = message.text_of("reasoning_content").or_else(|| message.text_of("reasoning"));
    let thought = |text| Part::new(Body::Reasoning(text));
    plain.filter(|text| !text.is_empty()).map(thought).into_iter().collect()
}

/// Reads a block as Anthropic has it.
pub(crate) fn thinking_block<'a>(node: Node<'_, 'a>) -> Option<Part<'a>> {
    let signed = |value: Cow<'a, str>| Signature::read(Issuer::Anthropic, value);
    match node.text_of("type")?.as_ref() {
        "thinking" => {
            let mut part = Part::new(Body::Reasoning(node.text_of("thinking").unwrap_or_default()));
            let signature = node.text_of("signature").filter(|value| !value.is_empty());
            part.signature = signature.map(signed);
            Some(part)
        }
        "redacted_thinking" => Some(Part::new(Body::Redacted(signed(node.text_of("data")?)))),
        _ => None,
    }
}

/// Reads a call. Strict: a call that is lost is a conversation that makes no sense.
pub(super) fn tool_call<'a>(node: Node<'_, 'a>) -> Result<Part<'a>, Refusal> {
    if let Some(kind) = node.string("type")?.filter(|kind| kind != "function") {
        return Err(Refusal::unsupported_kind("messages.tool_calls", &kind));
    }
    let function = node.object("function")?.ok_or(Refusal::Missing("function"))?;
    let call = ToolUse {
        id: node.string("id")?.ok_or(Refusal::Missing("tool_calls.id"))?,
        name: function.string("name")?.ok_or(Refusal::Missing("function.name"))?,
        arguments: function.string("arguments")?.unwrap_or_default(),
    };
    let mut part = Part::new(Body::ToolUse(call));
    part.signature = google_signature(node);
    Ok(part)
}

/// The place where Google's own OpenAI mirror puts signatures.
pub(super) fn google_signature<'a>(node: Node<'_, 'a>) -> Option<Signature<'a>> {
    let google = node.get("extra_content")?.get("google")?;
    Some(Signature::read(Issuer::Google, google.text_of("thought_signature")?))
}
