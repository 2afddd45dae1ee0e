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
        keep(format!("{place}.{member}"), request);
    }
}

fn keep(path: String, request: &mut Request<'_>) {
    let path = Cow::Owned(path);
    if request.unplaced.len() < NAMES_MAX && !request.unplaced.contains(&path) {
        request.unplaced.push(path);
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
            let (of_part, place, known): (&[&str], _, &[&str]) = match &*kind {
                "image_url" => (
                    &["type", "image_url", "cache_control"],
                    "messages.content.image_url",
                    &["url", "detail"],
                ),
                "file" => (
                    &["type", "file", "cache_control"],
                    "messages.content.file",
                    &["file_data", "filename"],
                ),
                "input_audio" => (
                    &["type", "input_audio", "cache_control"],
                    "messages.content.input_audio",
                    &["data", "format"],
                ),
                _ => (&["type", "text", "refusal", "cache_control"], "", &[]),
            };
            name(part, ("messages.content", of_part), request);
            inside(part, &[&*kind], (place, known), request);
        }
        // Clients that keep an answer's chunks send the number of a call along.
        let known: &[&str] = &["id", "type", "index", "function", "extra_content"];
        for call in each(message, &["tool_calls"]) {
            name(call, ("messages.tool_calls", known), request);
            let place = ("messages.tool_calls.function", &["name", "arguments"] as &[&str]);
            inside(call, &["function"], place, request);
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
            _ => &["type", "id", "status", "role", "content"],
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
        let modes = calling.iter().filter_map(|name| config.get(name)?.text_of("mode"));
        // Calls that keep to their schema or text: others know only what is near it, `AUTO`.
        if modes.into_iter().any(|mode| mode == "VALIDATED") {
            keep("toolConfig.functionCallingConfig.mode".to_owned(), request);
        }
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
    for system in ["systemInstruction", "system_instruction"].iter().filter_map(|n| root.get(n)) {
        name(system, ("systemInstruction", &["role", "parts"]), request);
        for part in each(system, &["parts"]) {
            name(part, ("systemInstruction.parts", &["text"]), request);
        }
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
    let responses = ["functionResponse", "function_response"];
    inside(part, &responses, place, request);
    let known = &["inlineData", "inline_data", "fileData", "file_data"];
    for shown in responses.iter().filter_map(|name| part.get(name)) {
        for part in each(shown, &["parts"]) {
            name(part, ("contents.parts.functionResponse.parts", known), request);
        }
    }
}
