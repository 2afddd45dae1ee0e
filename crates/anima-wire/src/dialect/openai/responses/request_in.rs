//! A request for a response, read into the canonical form.
//!
//! Not the input's items, which are next door. Invariant: every member is read, refused or named.
//! Source: `a-inbound` A.1.2.

use super::items_in;
use crate::canonical::{
    Format, Part, Reasoning, Refusal, Request, Role, Sampling, Tool, ToolChoice, push_part,
};
use crate::dialect::openai::chat::{
    allowed_names, choice_word, effort, function_tool, read_schema, unplaced,
};
use crate::dialect::strays;
use crate::json::{Node, Outline};

/// Members that are read.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "instructions",
    "stream",
    "stream_options",
    "max_output_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "temperature",
    "top_p",
    "user",
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
    "top_logprobs",
    "include",
];

/// What may be asked to be included that is understood here.
const LOGPROBS: &str = "message.output_text.logprobs";
const SEALED: &str = "reasoning.encrypted_content";

/// Reads a request.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Request<'a>, Refusal> {
    let root = outline.root();
    let mut request = Request {
        model: root.string("model")?.unwrap_or_default(),
        stream: root.switch("stream")?.unwrap_or(false),
        include_usage: true,
        tools: tools(root)?,
        tool_choice: root.get("tool_choice").map(tool_choice).transpose()?,
        parallel_tool_calls: root.switch("parallel_tool_calls")?,
        format: format(root)?,
        output_tokens_max: root.whole("max_output_tokens")?,
        sampling: Sampling {
            temperature: root.any_number("temperature")?,
            top_p: root.any_number("top_p")?,
            ..Sampling::default()
        },
        reasoning: reasoning(root)?,
        user: root.string("safety_identifier")?.or(root.string("user")?),
        service_tier: root.string("service_tier")?,
        cache_key: root.string("prompt_cache_key")?,
        unplaced: unplaced(root, KNOWN),
        ..Request::default()
    };
    included(root, &mut request)?;
    if let Some(text) = root.string("instructions")? {
        push_part(&mut request.turns, Role::System, Part::text(text));
    }
    let input = root.get("input").ok_or(Refusal::Missing("input"))?;
    items_in::read(input, &mut request)?;
    strays::of_responses(root, &mut request);
    Ok(request)
}

/// What more the answer shall hold.
fn included<'a>(root: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Refusal> {
    for wish in root.array("include")?.iter().flat_map(Node::elements) {
        match wish.text().as_deref() {
            Some(LOGPROBS) => request.logprobs = Some(0),
            Some(SEALED) => {}
            Some(_) | None => request.unplaced.push("include".into()),
        }
    }
    // Either of the two asks for them.
    request.logprobs = root.whole("top_logprobs")?.filter(|top| *top > 0).or(request.logprobs);
    let verbosity = root.get("text").and_then(|text| text.get("verbosity"));
    if verbosity.is_some() {
        request.unplaced.push("text.verbosity".into());
    }
    Ok(())
}

fn tools<'a>(root: Node<'_, 'a>) -> Result<Vec<Tool<'a>>, Refusal> {
    let Some(tools) = root.array("tools")? else {
        return Ok(Vec::new());
    };
    let tool = |node: Node<'_, 'a>| match node.string("type")?.as_deref() {
        Some("function") => function_tool(node, "parameters"),
        Some(kind) => Err(Refusal::unsupported_kind("tools", kind)),
        None => Err(Refusal::Missing("tools.type")),
    };
    tools.elements().map(tool).collect()
}

fn tool_choice<'a>(node: Node<'_, 'a>) -> Result<ToolChoice<'a>, Refusal> {
    if let Some(word) = node.text() {
        return choice_word(&word);
    }
    match node.string("type")?.as_deref() {
        Some("function") => {
            Ok(ToolChoice::Named(node.string("name")?.ok_or(Refusal::Missing("name"))?))
        }
        Some("allowed_tools") => {
            let is_required = node.text_of("mode").is_some_and(|mode| mode == "required");
            Ok(ToolChoice::Among(allowed_names(node)?, is_required))
        }
        Some(kind) => Err(Refusal::unsupported_kind("tool_choice", kind)),
        None => Err(Refusal::Missing("tool_choice.type")),
    }
}

fn format<'a>(root: Node<'_, 'a>) -> Result<Format<'a>, Refusal> {
    let Some(format) = root.object("text")?.and_then(|text| text.get("format")) else {
        return Ok(Format::Text);
    };
    match format.string("type")?.as_deref() {
        Some("text") | None => Ok(Format::Text),
        Some("json_object") => Ok(Format::Json),
        Some("json_schema") => Ok(Format::Schema(read_schema(format)?)),
        Some(kind) => Err(Refusal::unsupported_kind("text.format", kind)),
    }
}

fn reasoning(root: Node<'_, '_>) -> Result<Reasoning, Refusal> {
    let Some(node) = root.object("reasoning")? else {
        return Ok(Reasoning::default());
    };
    Ok(Reasoning {
        effort: node.string("effort")?.map(|word| effort(&word)).transpose()?,
        shown: node.get("summary").map(|_| true),
        ..Reasoning::default()
    })
}
