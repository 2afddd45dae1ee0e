//! A request for Messages, read into the canonical form.
//!
//! Not the blocks, which are next door. Invariant: every member is read, refused or named.
//! Source: `a-inbound` A.2.2.

use std::borrow::Cow;

use super::content_in;
use crate::canonical::{
    Effort, Format, Reasoning, Refusal, Request, Role, Sampling, Schema, Tool, ToolChoice,
    push_part,
};
use crate::dialect::openai::chat::{cache, texts, unplaced};
use crate::dialect::strays;
use crate::json::{Kind, Misfit, Node, Outline};

/// Members that are read.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "system",
    "max_tokens",
    "stream",
    "metadata",
    "service_tier",
    "thinking",
    "output_config",
    "tools",
    "tool_choice",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "cache_control",
];

/// Members whose loss the caller would see in the answer.
const REFUSED: &[&str] = &["container", "mcp_servers"];

/// Reads a request.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Request<'a>, Refusal> {
    let root = outline.root();
    for member in REFUSED {
        if root.get(member).is_some() {
            return Err(Refusal::unsupported(*member));
        }
    }
    let choice = root.object("tool_choice")?;
    let serial = choice.map(|choice| choice.switch("disable_parallel_tool_use")).transpose()?;
    let mut request = Request {
        model: root.string("model")?.unwrap_or_default(),
        stream: root.switch("stream")?.unwrap_or(false),
        include_usage: true,
        tools: tools(root)?,
        tool_choice: choice.map(tool_choice).transpose()?,
        parallel_tool_calls: serial.flatten().map(|serial| !serial),
        format: format(root)?,
        output_tokens_max: root.whole("max_tokens")?,
        sampling: Sampling {
            temperature: root.any_number("temperature")?,
            top_p: root.any_number("top_p")?,
            top_k: root.any_number("top_k")?,
            ..Sampling::default()
        },
        stop: match root.get("stop_sequences") {
            Some(stop) => texts(stop, "stop_sequences")?,
            None => Vec::new(),
        },
        reasoning: reasoning(root)?,
        user: root.object("metadata")?.and_then(|metadata| metadata.text_of("user_id")),
        service_tier: root.string("service_tier")?.map(tier),
        cache: cache(root),
        unplaced: unplaced(root, KNOWN),
        ..Request::default()
    };
    if let Some(system) = root.get("system") {
        content_in::read(system, "system", |part| {
            push_part(&mut request.turns, Role::System, part);
        })?;
    }
    messages(root, &mut request)?;
    strays::of_anthropic(root, &mut request);
    Ok(request)
}

fn messages<'a>(root: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Refusal> {
    let messages = root.array("messages")?.ok_or(Refusal::Missing("messages"))?;
    for message in messages.elements() {
        if message.kind() != Kind::Object {
            return Err(Misfit { member: "messages", must: "be an array of objects" }.into());
        }
        let role = match &*message.string("role")?.ok_or(Refusal::Missing("role"))? {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            role => return Err(Refusal::unsupported_kind("messages.role", role)),
        };
        let content = message.get("content").ok_or(Refusal::Missing("content"))?;
        content_in::read(content, "content", |part| push_part(&mut request.turns, role, part))?;
    }
    Ok(())
}

fn tools<'a>(root: Node<'_, 'a>) -> Result<Vec<Tool<'a>>, Refusal> {
    let Some(tools) = root.array("tools")? else {
        return Ok(Vec::new());
    };
    tools.elements().map(tool).collect()
}

fn tool<'a>(node: Node<'_, 'a>) -> Result<Tool<'a>, Refusal> {
    // A tool of another type runs at Anthropic.
    if let Some(kind) = node.string("type")?.filter(|kind| kind != "custom") {
        return Err(Refusal::unsupported_kind("tools", &kind));
    }
    Ok(Tool {
        name: node.string("name")?.ok_or(Refusal::Missing("name"))?,
        description: node.string("description")?,
        schema: node.object("input_schema")?.map(|schema| schema.raw().into()),
        strict: node.switch("strict")?,
        cache: cache(node),
    })
}

fn tool_choice<'a>(node: Node<'_, 'a>) -> Result<ToolChoice<'a>, Refusal> {
    match node.string("type")?.as_deref() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("any") => Ok(ToolChoice::Required),
        Some("none") => Ok(ToolChoice::None),
        Some("tool") => {
            Ok(ToolChoice::Named(node.string("name")?.ok_or(Refusal::Missing("name"))?))
        }
        Some(kind) => Err(Refusal::unsupported_kind("tool_choice", kind)),
        None => Err(Refusal::Missing("tool_choice.type")),
    }
}

fn format<'a>(root: Node<'_, 'a>) -> Result<Format<'a>, Refusal> {
    let Some(config) = root.object("output_config")? else {
        return Ok(Format::Text);
    };
    let Some(format) = config.object("format")? else {
        return Ok(Format::Text);
    };
    match format.string("type")?.as_deref() {
        Some("json_schema") => {
            let schema = format.object("schema")?.map(|schema| schema.raw().into());
            Ok(Format::Schema(Schema { schema, strict: Some(true), ..Schema::default() }))
        }
        Some("text") | None => Ok(Format::Text),
        Some(kind) => Err(Refusal::unsupported_kind("output_config.format", kind)),
    }
}

fn reasoning(root: Node<'_, '_>) -> Result<Reasoning, Refusal> {
    let wrong = Misfit { member: "effort", must: "be a known word such as `medium`" };
    let effort = match root.object("output_config")? {
        Some(config) => config.string("effort")?,
        None => None,
    };
    let effort = effort.map(|word| Effort::parse(&word).ok_or(wrong)).transpose()?;
    let mut reasoning = Reasoning { effort, ..Reasoning::default() };
    let Some(thinking) = root.object("thinking")? else {
        return Ok(reasoning);
    };
    let shown = thinking.string("display")?.is_none_or(|display| display != "omitted");
    match thinking.string("type")?.as_deref() {
        Some("enabled") => {
            let budget_tokens = thinking.whole("budget_tokens")?;
            reasoning.budget_tokens = Some(budget_tokens.ok_or(Refusal::Missing("budget_tokens"))?);
            reasoning.shown = Some(shown);
        }
        Some("adaptive") => {
            reasoning.adaptive = true;
            reasoning.shown = Some(shown);
        }
        Some("disabled") => reasoning.effort = Some(Effort::None),
        Some(kind) => return Err(Refusal::unsupported_kind("thinking", kind)),
        None => return Err(Refusal::Missing("thinking.type")),
    }
    Ok(reasoning)
}

/// The tier in OpenAI's words.
fn tier(tier: Cow<'_, str>) -> Cow<'_, str> {
    if tier == "standard_only" { Cow::Borrowed("default") } else { tier }
}
