//! Contents, read into turns.
//!
//! Calls may come without ids: they get some, by number, and a result without one answers the
//! first call of its name that is still open. Invariant: a part that is not understood is refused
//! by name. Source: `a-inbound` A.3.2, `c-conversion` C.3 to C.5.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use super::request_in::either;
use crate::canonical::{
    Body, Issuer, Part, Refusal, Request, Role, Signature, Source, ToolResult, ToolUse, push_part,
};
use crate::json::{Kind, Misfit, Node};

/// Calls so far.
#[derive(Default)]
struct Calls<'a> {
    count: usize,
    /// By name, the ids of those that no result without an id has answered.
    open: BTreeMap<Cow<'a, str>, VecDeque<Cow<'a, str>>>,
}

/// Reads the instructions: parts, or a text as the SDK accepts.
pub(super) fn system<'a>(node: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Refusal> {
    if let Some(text) = node.text() {
        push_part(&mut request.turns, Role::System, Part::text(text));
        return Ok(());
    }
    for part in parts(node) {
        let text =
            part.string("text")?.ok_or_else(|| Refusal::unsupported("systemInstruction.parts"))?;
        push_part(&mut request.turns, Role::System, Part::text(text));
    }
    Ok(())
}

/// The parts of a content: a list, or one alone.
fn parts<'t, 'a>(content: Node<'t, 'a>) -> Vec<Node<'t, 'a>> {
    let Some(parts) = content.get("parts") else {
        return Vec::new();
    };
    if parts.kind() == Kind::Array { parts.elements().collect() } else { vec![parts] }
}

/// Reads all contents.
pub(super) fn read<'a>(contents: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Refusal> {
    let mut calls = Calls::default();
    if contents.kind() == Kind::Object {
        return content(contents, request, &mut calls);
    }
    for node in contents.elements() {
        if node.kind() != Kind::Object {
            return Err(Misfit { member: "contents", must: "be an array of objects" }.into());
        }
        content(node, request, &mut calls)?;
    }
    Ok(())
}

fn content<'a>(
    node: Node<'_, 'a>,
    request: &mut Request<'a>,
    calls: &mut Calls<'a>,
) -> Result<(), Refusal> {
    let role = match node.string("role")?.as_deref() {
        Some("model") => Role::Assistant,
        Some("user" | "function") | None => Role::User,
        Some("system") => Role::System,
        Some(role) => return Err(Refusal::unsupported_kind("contents.role", role)),
    };
    for part_node in parts(node) {
        push_part(&mut request.turns, role, part(part_node, calls)?);
    }
    Ok(())
}

fn part<'a>(node: Node<'_, 'a>, calls: &mut Calls<'a>) -> Result<Part<'a>, Refusal> {
    // Each of them is content of its own, and only one would be read.
    let mut bodies = node.members().filter(|(name, node)| is_body(name) && !is_null(node));
    if let (Some(_), Some((more, _))) = (bodies.next(), bodies.next()) {
        return Err(Refusal::unsupported_kind("contents.parts", &more));
    }
    let is_thought = node.get("thought").and_then(|flag| flag.flag()) == Some(true);
    let body = if let Some(text) = node.string("text")? {
        if is_thought { Body::Reasoning(text) } else { Body::Text(text) }
    } else if let Some(inline) = either(node, "inlineData", "inline_data") {
        inline_medium(inline)?
    } else if let Some(file) = either(node, "fileData", "file_data") {
        file_medium(file)?
    } else if let Some(call) = either(node, "functionCall", "function_call") {
        Body::ToolUse(tool_use(call, calls)?)
    } else if let Some(response) = either(node, "functionResponse", "function_response") {
        Body::ToolResult(tool_result(response, calls)?)
    } else {
        let name = node.members().next().map(|(name, _)| name).unwrap_or_default();
        return Err(Refusal::unsupported_kind("contents.parts", &name));
    };
    let mut part = Part::new(body);
    part.signature = signature(node);
    Ok(part)
}

/// Whether a member of a part is what the part holds.
fn is_body(name: &str) -> bool {
    const BODIES: [&str; 9] = [
        "text",
        "inlineData",
        "inline_data",
        "fileData",
        "file_data",
        "functionCall",
        "function_call",
        "functionResponse",
        "function_response",
    ];
    BODIES.contains(&name)
}

fn is_null(node: &Node<'_, '_>) -> bool {
    node.kind() == Kind::Null
}

/// The signature of a part.
pub(super) fn signature<'a>(node: Node<'_, 'a>) -> Option<Signature<'a>> {
    let value = either(node, "thoughtSignature", "thought_signature")?.text()?;
    (!value.is_empty()).then(|| Signature::read(Issuer::Google, value))
}

/// Reads what a tool shows beside what it says.
fn medium<'a>(part: Node<'_, 'a>) -> Result<Body<'a>, Refusal> {
    if let Some(inline) = either(part, "inlineData", "inline_data") {
        return inline_medium(inline);
    }
    let file = either(part, "fileData", "file_data");
    let file = file.ok_or_else(|| Refusal::unsupported("contents.parts.functionResponse.parts"))?;
    file_medium(file)
}

fn inline_medium<'a>(inline: Node<'_, 'a>) -> Result<Body<'a>, Refusal> {
    let media_type = either(inline, "mimeType", "mime_type").and_then(|kind| kind.text());
    let media_type = media_type.ok_or(Refusal::Missing("mimeType"))?;
    let content = inline.string("data")?.ok_or(Refusal::Missing("data"))?;
    let (family, kind) = media_type.split_once('/').unwrap_or((&media_type, ""));
    match family {
        "image" => Ok(Body::Image(Source::Base64 { media_type, content }, None)),
        "audio" => {
            let format = if kind == "mpeg" { "mp3" } else { kind }.to_owned();
            Ok(Body::Audio(content, format.into()))
        }
        "application" | "text" => Ok(Body::Document(Source::Base64 { media_type, content }, None)),
        family => Err(Refusal::unsupported_kind("contents.parts.inlineData", family)),
    }
}

fn file_medium<'a>(file: Node<'_, 'a>) -> Result<Body<'a>, Refusal> {
    let uri = either(file, "fileUri", "file_uri").and_then(|uri| uri.text());
    let uri = uri.ok_or(Refusal::Missing("fileUri"))?;
    // What was uploaded to Google is known to one account only.
    if !uri.starts_with("http") || uri.starts_with("https://generativelanguage.googleapis.com/") {
        return Err(Refusal::unsupported("contents.parts.fileData.fileUri"));
    }
    let kind = either(file, "mimeType", "mime_type").and_then(|kind| kind.text());
    match kind
        .as_deref()
        .and_then(|kind| kind.split_once('/'))
        .map_or("image", |(family, _)| family)
    {
        "image" => Ok(Body::Image(Source::Url(uri), None)),
        "application" | "text" => Ok(Body::Document(Source::Url(uri), None)),
        family => Err(Refusal::unsupported_kind("contents.parts.fileData", family)),
    }
}

fn tool_use<'a>(node: Node<'_, 'a>, calls: &mut Calls<'a>) -> Result<ToolUse<'a>, Refusal> {
    let name = node.string("name")?.ok_or(Refusal::Missing("functionCall.name"))?;
    let id = node.string("id")?.filter(|id| !id.is_empty());
    let id = id.unwrap_or_else(|| Cow::Owned(format!("call_{}", calls.count)));
    calls.count += 1;
    calls.open.entry(name.clone()).or_default().push_back(id.clone());
    let arguments = Cow::Borrowed(node.object("args")?.map_or("{}", |args| args.raw()));
    Ok(ToolUse { id, name, arguments })
}

fn tool_result<'a>(node: Node<'_, 'a>, calls: &mut Calls<'a>) -> Result<ToolResult<'a>, Refusal> {
    let name = node.string("name")?.unwrap_or_default();
    let id = node.string("id")?.filter(|id| !id.is_empty());
    let mut first = || calls.open.get_mut(&name)?.pop_front();
    // Without a call it is text in the end, so that the name is as good an id as any.
    let id = id.or_else(&mut first).unwrap_or(name);
    let response = node.object("response")?;
    let (text, is_error) = response.map_or((Cow::Borrowed("{}"), false), said);
    let mut content = vec![Part::text(text)];
    for part in parts(node) {
        content.push(Part::new(medium(part)?));
    }
    Ok(ToolResult { id, content, is_error })
}

/// What a response says: the text that was wrapped for want of an object, or the object itself.
fn said<'a>(response: Node<'_, 'a>) -> (Cow<'a, str>, bool) {
    let mut members = response.members();
    if let (Some((name, value)), None) = (members.next(), members.next())
        && let Some(text) = value.text()
    {
        match &*name {
            "result" | "output" => return (text, false),
            "error" => return (text, true),
            _ => {}
        }
    }
    (Cow::Borrowed(response.raw()), false)
}
