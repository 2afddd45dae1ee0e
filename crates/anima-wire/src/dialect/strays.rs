//! Members inside messages, parts and tools that no reader reads: named, so that none gets lost
//! without a word.
//!
//! Members of the root are each reader's own matter. What would change the answer is refused by
//! the readers; what is left here only shades it, or is of use to one vendor. Invariant: a member
//! is known by what its reader reads, or is named. Source: `c-conversion` C.1 and C.3.

use std::borrow::Cow;

use super::openai::chat::unplaced;
use crate::canonical::Request;
use crate::json::{Kind, Node};

/// Names that are kept: one more than can be shown, so that it shows that there were more.
const NAMES_MAX: usize = 33;

/// Members of one kind of node: what stands before their names, and those that are read.
type Place = (&'static str, &'static [&'static str]);

/// Names what is in a node beside what is read.
fn name(node: Node<'_, '_>, (place, known): Place, request: &mut Request<'_>) {
    for member in unplaced(node, known) {
        let path = Cow::Owned(format!("{place}.{member}"));
        if request.unplaced.len() < NAMES_MAX && !request.unplaced.contains(&path) {
            request.unplaced.push(path);
        }
    }
}

/// The elements of a list, under any of its names.
fn each<'t, 'a>(root: Node<'t, 'a>, names: &[&str]) -> Vec<Node<'t, 'a>> {
    names.iter().filter_map(|name| root.get(name)).flat_map(|list| list.elements()).collect()
}

/// Names what is in a member beside what is read.
fn inside(root: Node<'_, '_>, names: &[&str], place: Place, request: &mut Request<'_>) {
    for node in names.iter().filter_map(|name| root.get(name)) {
        name(node, place, request);
    }
}

/// Of chat completions.
pub(super) fn of_chat(root: Node<'_, '_>, request: &mut Request<'_>) {
    for tool in each(root, &["tools"]) {
        name(tool, ("tools", &["type", "function", "cache_control"]), request);
        let known = &["name", "description", "parameters", "strict"];
        inside(tool, &["function"], ("tools.function", known), request);
    }
    let known: &[&str] = &[
        "role",
        "content",
        "name",
        "refusal",
        "reasoning_content",
        "reasoning",
        "thinking_blocks",
        "tool_calls",
        "tool_call_id",
        "cache_control",
    ];
    for message in each(root, &["messages"]) {
        name(message, ("messages", known), request);
        for part in each(message, &["content"]) {
            let kind = part.text_of("type").unwrap_or_default();
            let (place, known): Place = match &*kind {
                "image_url" => ("messages.content.image_url", &["url", "detail"]),
                "file" => ("messages.content.file", &["file_data", "filename"]),
                "input_audio" => ("messages.content.input_audio", &["data", "format"]),
                _ => ("messages.content", &["type", "text", "refusal", "cache_control"]),
            };
            if place == "messages.content" {
                name(part, (place, known), request);
            } else {
                inside(part, &[&*kind], (place, known), request);
            }
        }
    }
}

/// Of Messages.
pub(super) fn of_anthropic(root: Node<'_, '_>, request: &mut Request<'_>) {
    let known: &[&str] =
        &["type", "name", "description", "input_schema", "strict", "cache_control"];
    for tool in each(root, &["tools"]) {
        name(tool, ("tools", known), request);
    }
    let known = &["type", "name", "disable_parallel_tool_use"];
    inside(root, &["tool_choice"], ("tool_choice", known), request);
    inside(root, &["metadata"], ("metadata", &["user_id"]), request);
    inside(root, &["output_config"], ("output_config", &["format", "effort"]), request);
    let known = &["type", "budget_tokens", "display"];
    inside(root, &["thinking"], ("thinking", known), request);
    for block in each(root, &["system"]) {
        name(block, ("system", &["type", "text", "cache_control"]), request);
    }
    for message in each(root, &["messages"]) {
        name(message, ("messages", &["role", "content"]), request);
        blocks(message, request);
    }
}

/// Of a message of Messages, or a result.
fn blocks(node: Node<'_, '_>, request: &mut Request<'_>) {
    for block in each(node, &["content"]) {
        let kind = block.text_of("type").unwrap_or_default();
        let known: &[&str] = match &*kind {
            "text" => &["type", "text", "cache_control"],
            "image" => &["type", "source", "cache_control"],
            "document" => &["type", "source", "title", "context", "citations", "cache_control"],
            // `caller` came with an answer of Anthropic's, and says who ran the tool there.
            "tool_use" => &["type", "id", "name", "input", "caller", "cache_control"],
            "tool_result" => &["type", "tool_use_id", "content", "is_error", "cache_control"],
            _ => &["type", "thinking", "signature", "data"],
        };
        name(block, ("messages.content", known), request);
        let known = &["type", "media_type", "data", "url"];
        inside(block, &["source"], ("messages.content.source", known), request);
        if kind == "tool_result" {
            blocks(block, request);
        }
    }
}

/// Of responses.
pub(super) fn of_responses(root: Node<'_, '_>, request: &mut Request<'_>) {
    for tool in each(root, &["tools"]) {
        name(tool, ("tools", &["type", "name", "description", "parameters", "strict"]), request);
    }
    inside(root, &["text"], ("text", &["format", "verbosity"]), request);
    inside(root, &["reasoning"], ("reasoning", &["effort", "summary"]), request);
    for item in each(root, &["input"]) {
        let kind = item.text_of("type").unwrap_or_default();
        let known: &[&str] = match &*kind {
            "function_call" => &["type", "id", "status", "call_id", "name", "arguments"],
            "function_call_output" => &["type", "id", "status", "call_id", "output"],
            "reasoning" => &["type", "id", "status", "summary", "content", "encrypted_content"],
            _ => &["type", "id", "status", "role", "content", "phase"],
        };
        name(item, ("input", known), request);
        let lists: &[&str] = if kind == "reasoning" { &[] } else { &["content", "output"] };
        for part in each(item, lists) {
            let known: &[&str] = match part.text_of("type").as_deref() {
                Some("input_image") => &["type", "image_url", "detail"],
                Some("input_file") => &["type", "file_data", "file_url", "filename"],
                Some("input_audio") => &["type", "input_audio"],
                // What a text of the model's own comes with says nothing to another.
                _ => &["type", "text", "refusal", "annotations", "logprobs"],
            };
            name(part, ("input.content", known), request);
        }
    }
}

/// Of generateContent.
pub(super) fn of_gemini(root: Node<'_, '_>, request: &mut Request<'_>) {
    let known: &[&str] =
        &["name", "description", "parameters", "parametersJsonSchema", "parameters_json_schema"];
    for group in each(root, &["tools"]) {
        for function in each(group, &["functionDeclarations", "function_declarations"]) {
            name(function, ("tools.functionDeclarations", known), request);
        }
    }
    let calling = ["functionCallingConfig", "function_calling_config"];
    for config in ["toolConfig", "tool_config"].iter().filter_map(|name| root.get(name)) {
        let known = &["functionCallingConfig", "function_calling_config"];
        name(config, ("toolConfig", known), request);
        let known = &["mode", "allowedFunctionNames", "allowed_function_names"];
        inside(config, &calling, ("toolConfig.functionCallingConfig", known), request);
    }
    for config in ["generationConfig", "generation_config"].iter().filter_map(|n| root.get(n)) {
        let known: &[&str] = &[
            "includeThoughts",
            "include_thoughts",
            "thinkingLevel",
            "thinking_level",
            "thinkingBudget",
            "thinking_budget",
        ];
        let place = ("generationConfig.thinkingConfig", known);
        inside(config, &["thinkingConfig", "thinking_config"], place, request);
    }
    let contents = root.get("contents");
    let alone = contents.filter(|node| node.kind() == Kind::Object);
    for content in each(root, &["contents"]).into_iter().chain(alone) {
        name(content, ("contents", &["role", "parts"]), request);
        let parts = content.get("parts").filter(|node| node.kind() == Kind::Object);
        for part in each(content, &["parts"]).into_iter().chain(parts) {
            gemini_part(part, request);
        }
    }
}

fn gemini_part(part: Node<'_, '_>, request: &mut Request<'_>) {
    let known: &[&str] = &[
        "text",
        "thought",
        "thoughtSignature",
        "thought_signature",
        "inlineData",
        "inline_data",
        "fileData",
        "file_data",
        "functionCall",
        "function_call",
        "functionResponse",
        "function_response",
    ];
    name(part, ("contents.parts", known), request);
    let known = &["mimeType", "mime_type", "data"];
    let place = ("contents.parts.inlineData", known as &[&str]);
    inside(part, &["inlineData", "inline_data"], place, request);
    let known = &["mimeType", "mime_type", "fileUri", "file_uri"];
    let place = ("contents.parts.fileData", known as &[&str]);
    inside(part, &["fileData", "file_data"], place, request);
    let known = &["id", "name", "args"];
    let place = ("contents.parts.functionCall", known as &[&str]);
    inside(part, &["functionCall", "function_call"], place, request);
    let known = &["id", "name", "response", "parts"];
    let place = ("contents.parts.functionResponse", known as &[&str]);
    inside(part, &["functionResponse", "function_response"], place, request);
}
