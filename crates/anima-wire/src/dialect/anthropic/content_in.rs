//! Blocks, read into parts.
//!
//! Signatures that another issuer made arrive as empty thoughts with a tagged signature; they
//! belong to the block behind them. Invariant: a block that is not understood is refused by name.
//! Source: `a-inbound` A.2.2, `c-conversion` C.3 to C.5.

use std::borrow::Cow;

use crate::canonical::{Body, Issuer, Part, Refusal, Signature, Source, ToolResult, ToolUse};
use crate::dialect::openai::chat::{cache, thinking_block};
use crate::json::{Kind, Misfit, Node};

/// Reads content: a text or blocks.
pub(super) fn read<'a>(
    content: Node<'_, 'a>,
    member: &'static str,
    mut show: impl FnMut(Part<'a>),
) -> Result<(), Refusal> {
    if let Some(text) = content.text() {
        show(Part::text(text));
        return Ok(());
    }
    if content.kind() != Kind::Array {
        return Err(Misfit { member, must: "be a string or an array of blocks" }.into());
    }
    let mut carried: Option<Signature<'a>> = None;
    for node in content.elements() {
        if let Some(context) = node.string("context")?.filter(|_| is_document(node)) {
            show(Part::text(context));
        }
        let mut part = block(node)?;
        if is_carrier(&part) {
            carried = part.signature;
            continue;
        }
        part.signature = part.signature.or_else(|| carried.take());
        show(part);
    }
    Ok(())
}

fn is_document(node: Node<'_, '_>) -> bool {
    node.text_of("type").is_some_and(|kind| kind == "document")
}

/// Whether a thinking block is there for its foreign signature only.
fn is_carrier(part: &Part<'_>) -> bool {
    part.as_thought() == Some("") && part.signed_by(Issuer::Google).is_some()
}

fn block<'a>(node: Node<'_, 'a>) -> Result<Part<'a>, Refusal> {
    let kind = node.string("type")?.ok_or(Refusal::Missing("content.type"))?;
    let body = match &*kind {
        "text" => Body::Text(node.string("text")?.ok_or(Refusal::Missing("text"))?),
        "image" => Body::Image(source(node, "messages.content.image.source")?, None),
        "document" => {
            // Nobody else says where in a document an answer is from.
            let wished =
                node.object("citations")?.map(|wish| wish.switch("enabled")).transpose()?;
            if wished.flatten() == Some(true) {
                return Err(Refusal::unsupported("messages.content.document.citations"));
            }
            let name = node.string("title")?;
            Body::Document(source(node, "messages.content.document.source")?, name)
        }
        "tool_use" => Body::ToolUse(tool_use(node)?),
        "tool_result" => Body::ToolResult(tool_result(node)?),
        "thinking" | "redacted_thinking" => {
            return thinking_block(node).ok_or(Refusal::Missing("thinking"));
        }
        kind => return Err(Refusal::unsupported_kind("messages.content", kind)),
    };
    Ok(Part { body, cache: cache(node), signature: None })
}

fn source<'a>(node: Node<'_, 'a>, member: &'static str) -> Result<Source<'a>, Refusal> {
    let source = node.object("source")?.ok_or(Refusal::Missing("source"))?;
    let needed = |name: &'static str| source.string(name)?.ok_or(Refusal::Missing(name));
    match &*needed("type")? {
        "base64" => {
            Ok(Source::Base64 { media_type: needed("media_type")?, content: needed("data")? })
        }
        "url" => Ok(Source::Url(needed("url")?)),
        "text" => Ok(Source::Plain(needed("data")?)),
        // A file's id is known to one account only.
        kind => Err(Refusal::unsupported_kind(member, kind)),
    }
}

fn tool_use<'a>(node: Node<'_, 'a>) -> Result<ToolUse<'a>, Refusal> {
    let arguments = node.object("input")?.map_or("{}", |input| input.raw());
    Ok(ToolUse {
        id: node.string("id")?.ok_or(Refusal::Missing("tool_use.id"))?,
        name: node.string("name")?.ok_or(Refusal::Missing("tool_use.name"))?,
        arguments: Cow::Borrowed(arguments),
    })
}

fn tool_result<'a>(node: Node<'_, 'a>) -> Result<ToolResult<'a>, Refusal> {
    let mut content = Vec::new();
    if let Some(said) = node.get("content") {
        read(said, "content", |part| content.push(part))?;
    }
    Ok(ToolResult {
        id: node.string("tool_use_id")?.ok_or(Refusal::Missing("tool_use_id"))?,
        content,
        is_error: node.switch("is_error")?.unwrap_or(false),
    })
}
