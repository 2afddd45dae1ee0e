//! A chat completion's request, read into the canonical form.
//!
//! Not the messages, which are next door. Members that decide what is generated and have no place
//! in the canonical form are refused by name; hints are remembered by name. Invariant: every
//! member is read, refused or named. Source: `a-inbound` A.1.2.

use std::borrow::Cow;

use super::messages_in;
use crate::canonical::{
    Effort, Format, Reasoning, Refusal, Request, Sampling, Schema, Tool, ToolChoice,
};
use crate::dialect::strays;
use crate::json::{Misfit, Node, Outline};

/// Members that are read.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "logit_bias",
    "stop",
    "n",
    "reasoning_effort",
    "thinking",
    "logprobs",
    "top_logprobs",
    "user",
    "safety_identifier",
    "service_tier",
    "prompt_cache_key",
    "modalities",
];

/// Members whose loss the caller would see in the answer.
const REFUSED: &[&str] = &["functions", "function_call", "audio", "web_search_options"];

/// Reads a request.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Request<'a>, Refusal> {
    let root = outline.root();
    for member in REFUSED {
        if root.get(member).is_some() {
            return Err(Refusal::unsupported(*member));
        }
    }
    if let Some(modalities) = root.array("modalities")?
        && modalities.elements().any(|modality| !modality.is("text"))
    {
        return Err(Refusal::unsupported("modalities"));
    }
    let mut request = Request {
        model: root.string("model")?.unwrap_or_default(),
        stream: root.switch("stream")?.unwrap_or(false),
        include_usage: include_usage(root)?,
        tools: tools(root)?,
        tool_choice: root.get("tool_choice").map(tool_choice).transpose()?,
        parallel_tool_calls: root.switch("parallel_tool_calls")?,
        format: format(root)?,
        output_tokens_max: root.whole("max_completion_tokens")?.max(root.whole("max_tokens")?),
        sampling: sampling(root)?,
        stop: stop(root)?,
        choices: root.whole("n")?,
        reasoning: reasoning(root)?,
        logprobs: logprobs(root)?,
        user: root.string("safety_identifier")?.or(root.string("user")?),
        service_tier: root.string("service_tier")?,
        cache_key: root.string("prompt_cache_key")?,
        unplaced: unplaced(root, KNOWN),
        ..Request::default()
    };
    let messages = root.array("messages")?.ok_or(Refusal::Missing("messages"))?;
    messages_in::read(messages, &mut request)?;
    strays::of_chat(root, &mut request);
    Ok(request)
}

/// Names of members that have no place in the canonical form, without those that say nothing.
pub(crate) fn unplaced<'a>(root: Node<'_, 'a>, known: &[&str]) -> Vec<Cow<'a, str>> {
    let says_nothing = |node: &Node<'_, '_>| matches!(node.raw(), "null" | "false" | "[]" | "{}");
    root.members()
        .filter(|(name, node)| !known.contains(&&**name) && !says_nothing(node))
        .map(|(name, _)| name)
        .collect()
}

fn include_usage(root: Node<'_, '_>) -> Result<bool, Misfit> {
    let Some(options) = root.object("stream_options")? else {
        return Ok(false);
    };
    Ok(options.switch("include_usage")?.unwrap_or(false))
}

fn tools<'a>(root: Node<'_, 'a>) -> Result<Vec<Tool<'a>>, Refusal> {
    let Some(tools) = root.array("tools")? else {
        return Ok(Vec::new());
    };
    tools.elements().map(tool).collect()
}

fn tool<'a>(node: Node<'_, 'a>) -> Result<Tool<'a>, Refusal> {
    let kind = node.string("type")?.unwrap_or_else(|| "function".into());
    if kind != "function" {
        return Err(Refusal::unsupported_kind("tools", &kind));
    }
    let function = node.object("function")?.ok_or(Refusal::Missing("function"))?;
    function_tool(function, "parameters")
}

/// Reads the members that describe a function, wherever a dialect puts them.
pub(crate) fn function_tool<'a>(
    function: Node<'_, 'a>,
    schema: &'static str,
) -> Result<Tool<'a>, Refusal> {
    Ok(Tool {
        name: function.string("name")?.ok_or(Refusal::Missing("name"))?,
        description: function.string("description")?,
        schema: function.object(schema)?.map(|schema| schema.raw().into()),
        strict: function.switch("strict")?,
        cache: None,
    })
}

fn tool_choice<'a>(node: Node<'_, 'a>) -> Result<ToolChoice<'a>, Refusal> {
    if let Some(word) = node.text() {
        return choice_word(&word);
    }
    let wrong = Misfit { member: "tool_choice", must: "be a known word or object" };
    match node.string("type")?.as_deref() {
        Some("function") => {
            let name = match node.object("function")? {
                Some(function) => function.string("name")?,
                None => node.string("name")?,
            };
            Ok(ToolChoice::Named(name.ok_or(Refusal::Missing("name"))?))
        }
        Some("allowed_tools") => {
            let allowed = node.object("allowed_tools")?.unwrap_or(node);
            let required = allowed.text_of("mode").is_some_and(|mode| mode == "required");
            Ok(ToolChoice::Among(allowed_names(allowed)?, required))
        }
        Some(kind) => Err(Refusal::unsupported_kind("tool_choice", kind)),
        None => Err(wrong.into()),
    }
}

/// The words that stand for a choice in both of OpenAI's dialects.
pub(crate) fn choice_word<'a>(word: &str) -> Result<ToolChoice<'a>, Refusal> {
    match word {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" | "any" => Ok(ToolChoice::Required),
        _ => Err(Misfit { member: "tool_choice", must: "be a known word or object" }.into()),
    }
}

/// The names in a list of allowed tools.
pub(crate) fn allowed_names<'a>(allowed: Node<'_, 'a>) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let tools = allowed.array("tools")?.ok_or(Refusal::Missing("tools"))?;
    let name = |tool: Node<'_, 'a>| {
        let function = tool.object("function")?.unwrap_or(tool);
        function.string("name")?.ok_or(Refusal::Missing("name"))
    };
    tools.elements().map(name).collect()
}

fn format<'a>(root: Node<'_, 'a>) -> Result<Format<'a>, Refusal> {
    let Some(format) = root.object("response_format")? else {
        return Ok(Format::Text);
    };
    match format.string("type")?.as_deref() {
        Some("text") | None => Ok(Format::Text),
        Some("json_object") => Ok(Format::Json),
        Some("json_schema") => {
            let inner = format.object("json_schema")?.ok_or(Refusal::Missing("json_schema"))?;
            Ok(Format::Schema(schema(inner)?))
        }
        Some(kind) => Err(Refusal::unsupported_kind("response_format", kind)),
    }
}

/// Reads the members that describe a schema, wherever a dialect puts them.
pub(crate) fn schema<'a>(node: Node<'_, 'a>) -> Result<Schema<'a>, Refusal> {
    Ok(Schema {
        name: node.string("name")?,
        description: node.string("description")?,
        schema: node.object("schema")?.map(|schema| schema.raw().into()),
        strict: node.switch("strict")?,
    })
}

fn sampling<'a>(root: Node<'_, 'a>) -> Result<Sampling<'a>, Refusal> {
    Ok(Sampling {
        temperature: root.any_number("temperature")?,
        top_p: root.any_number("top_p")?,
        top_k: root.any_number("top_k")?,
        frequency_penalty: root.any_number("frequency_penalty")?,
        presence_penalty: root.any_number("presence_penalty")?,
        seed: root.any_number("seed")?,
        logit_bias: root.object("logit_bias")?.map(|bias| bias.raw()),
    })
}

fn stop<'a>(root: Node<'_, 'a>) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let Some(stop) = root.get("stop") else {
        return Ok(Vec::new());
    };
    if let Some(text) = stop.text() {
        return Ok(vec![text]);
    }
    texts(stop, "stop")
}

/// Reads an array of strings.
pub(crate) fn texts<'a>(
    node: Node<'_, 'a>,
    member: &'static str,
) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let wrong = Misfit { member, must: "be an array of strings" };
    let texts: Option<Vec<_>> = node.elements().map(|text| text.text()).collect();
    let texts = texts.filter(|_| node.kind() == crate::json::Kind::Array);
    Ok(texts.ok_or(wrong)?)
}

/// The effort, or Anthropic's way of saying it, which other gateways accept here.
fn reasoning(root: Node<'_, '_>) -> Result<Reasoning, Refusal> {
    let effort = root.string("reasoning_effort")?.map(|word| effort(&word)).transpose()?;
    let thinking = root.object("thinking")?;
    let mut reasoning = Reasoning { effort, ..Reasoning::default() };
    match thinking.and_then(|thinking| thinking.text_of("type")).as_deref() {
        Some("enabled") => {
            reasoning.budget_tokens = thinking.and_then(|node| node.count_of("budget_tokens"));
            reasoning.shown = Some(true);
        }
        Some("disabled") => reasoning.effort = Some(Effort::None),
        Some(_) | None => {}
    }
    Ok(reasoning)
}

/// Reads the word for an effort.
pub(crate) fn effort(word: &str) -> Result<Effort, Refusal> {
    let wrong = Misfit { member: "reasoning_effort", must: "be a known word such as `medium`" };
    Ok(Effort::parse(word).ok_or(wrong)?)
}

fn logprobs(root: Node<'_, '_>) -> Result<Option<u64>, Refusal> {
    let wanted = root.switch("logprobs")?.unwrap_or(false);
    let top = root.whole("top_logprobs")?;
    Ok(wanted.then_some(top.unwrap_or(0)))
}
