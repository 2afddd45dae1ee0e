//! Items of an input, read into turns; the same items of an output, into parts.
//!
//! Signatures that another issuer made arrive as thoughts without words; they belong to the item
//! behind them. Invariant: an item of an input that is not understood is refused by name.
//! Source: `a-inbound` A.1.2 and A.1.5, `c-conversion` C.3 to C.5.

use std::borrow::Cow;

use crate::canonical::{
    Body, Issuer, Part, Refusal, Request, Role, Signature, Source, ToolResult, ToolUse, push_part,
};
use crate::json::{Kind, Misfit, Node};

/// Reads the input: a text or items.
pub(super) fn read<'a>(input: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Refusal> {
    if let Some(text) = input.text() {
        push_part(&mut request.turns, Role::User, Part::text(text));
        return Ok(());
    }
    if input.kind() != Kind::Array {
        return Err(Misfit { member: "input", must: "be a string or an array of items" }.into());
    }
    let mut carried = None;
    for item in input.elements() {
        let kind = item.string("type")?.unwrap_or_else(|| "message".into());
        let turns = &mut request.turns;
        match &*kind {
            "message" => {
                let role = role(item)?;
                let content = item.get("content").ok_or(Refusal::Missing("content"))?;
                read_content(content, |part| push_part(turns, role, part))?;
            }
            "function_call" => {
                let mut part = call(item).ok_or(Refusal::Missing("input.function_call"))?;
                part.signature = carried.take();
                push_part(turns, Role::Assistant, part);
            }
            "function_call_output" => push_part(turns, Role::User, result(item)?),
            "reasoning" => {
                if let Some(part) = thoughts(item) {
                    if part.as_thought() == Some("") && part.signed_by(Issuer::Google).is_some() {
                        carried = part.signature;
                    } else {
                        push_part(turns, Role::Assistant, part);
                    }
                }
            }
            kind => return Err(Refusal::unsupported_kind("input", kind)),
        }
    }
    Ok(())
}

fn role(item: Node<'_, '_>) -> Result<Role, Refusal> {
    match &*item.string("role")?.ok_or(Refusal::Missing("role"))? {
        "system" | "developer" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        role => Err(Refusal::unsupported_kind("input.role", role)),
    }
}

fn read_content<'a>(content: Node<'_, 'a>, mut show: impl FnMut(Part<'a>)) -> Result<(), Refusal> {
    if let Some(text) = content.text() {
        show(Part::text(text));
        return Ok(());
    }
    for node in content.elements() {
        show(part(node)?);
    }
    Ok(())
}

fn part<'a>(node: Node<'_, 'a>) -> Result<Part<'a>, Refusal> {
    let kind = node.string("type")?.ok_or(Refusal::Missing("content.type"))?;
    let body = match &*kind {
        "input_text" | "output_text" | "text" => {
            Body::Text(node.string("text")?.ok_or(Refusal::Missing("text"))?)
        }
        "refusal" => Body::Refusal(node.string("refusal")?.unwrap_or_default()),
        "input_image" => {
            let url = node.string("image_url")?;
            let url =
                url.ok_or_else(|| Refusal::unsupported("input.content.input_image.file_id"))?;
            Body::Image(Source::of_url(url), node.string("detail")?)
        }
        "input_file" => {
            let url = node.string("file_data")?.or(node.string("file_url")?);
            let url =
                url.ok_or_else(|| Refusal::unsupported("input.content.input_file.file_id"))?;
            Body::Document(Source::of_url(url), node.string("filename")?)
        }
        "input_audio" => {
            let audio = node.object("input_audio")?.ok_or(Refusal::Missing("input_audio"))?;
            let sound = audio.string("data")?.ok_or(Refusal::Missing("input_audio.data"))?;
            Body::Audio(sound, audio.string("format")?.unwrap_or_else(|| "wav".into()))
        }
        kind => return Err(Refusal::unsupported_kind("input.content", kind)),
    };
    Ok(Part::new(body))
}

/// Reads a call.
pub(super) fn call<'a>(item: Node<'_, 'a>) -> Option<Part<'a>> {
    Some(Part::new(Body::ToolUse(ToolUse {
        id: item.text_of("call_id")?,
        name: item.text_of("name")?,
        arguments: item.text_of("arguments").unwrap_or_default(),
    })))
}

fn result<'a>(item: Node<'_, 'a>) -> Result<Part<'a>, Refusal> {
    let mut content = Vec::new();
    if let Some(output) = item.get("output") {
        read_content(output, |part| content.push(part))?;
    }
    let id = item.string("call_id")?.ok_or(Refusal::Missing("call_id"))?;
    Ok(Part::new(Body::ToolResult(ToolResult { id, content, is_error: false })))
}

/// Reads thoughts: what was shown of them, and the seal.
pub(super) fn thoughts<'a>(item: Node<'_, 'a>) -> Option<Part<'a>> {
    let text = shown(item);
    let signature = seal(item);
    if text.is_empty() && signature.is_none() {
        return None;
    }
    let mut part = Part::new(Body::Reasoning(text));
    part.signature = signature;
    Some(part)
}

/// The words of thoughts.
fn shown<'a>(item: Node<'_, 'a>) -> Cow<'a, str> {
    let lists = [item.get("summary"), item.get("content")];
    let mut texts =
        lists.iter().flatten().flat_map(Node::elements).filter_map(|node| node.text_of("text"));
    let Some(first) = texts.next() else {
        return Cow::Borrowed("");
    };
    texts.fold(first, |mut text, more| {
        let text_mut = text.to_mut();
        text_mut.push_str("\n\n");
        text_mut.push_str(&more);
        text
    })
}

/// The seal of thoughts together with their item's id, as one signature.
pub(super) fn seal<'a>(item: Node<'_, 'a>) -> Option<Signature<'a>> {
    let sealed = Signature::read(Issuer::OpenAi, item.text_of("encrypted_content")?);
    let id = item.text_of("id").filter(|id| !id.is_empty() && !id.contains(':'));
    match id.filter(|_| sealed.issuer == Issuer::OpenAi) {
        Some(id) => {
            let value = Cow::Owned(format!("{id}:{}", sealed.value));
            Some(Signature { issuer: Issuer::OpenAi, value })
        }
        None => Some(sealed),
    }
}
