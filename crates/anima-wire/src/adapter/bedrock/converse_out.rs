//! A request in the canonical form, written for Converse.
//!
//! Converse is one dialect for the models of many vendors, so it has what all of them have. What
//! only one has (`top_k`, a budget for thoughts) is left out by name. Media are bytes, never
//! addresses. Invariant: what is not written is in `Dropped`, or the whole request is refused.
//! Source: AWS's API reference of Converse, `b-outbound-chat` B.3 and B.7, `c-conversion` C.1 to
//! C.5.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::canonical::{
    Body, Cache, Carried, Dropped, Effort, Format, Issuer, Part, Refusal, Request, Role, Source,
    Tool, ToolChoice, Turn, paired,
};
use crate::dialect::anthropic::{arguments, plain_id};
use crate::json::Writer;

/// What the user says first when the conversation begins with the model, and what stands for a
/// turn of nothing.
const FIRST_WORD: &str = ".";

/// The instructions that stand for a wish for JSON.
const JSON_INSTRUCTION: &str = "Answer with one JSON object and nothing else.";
const SCHEMA_INSTRUCTION: &str =
    "Answer with one JSON value of this JSON schema and nothing else: ";

/// Stop texts that are accepted.
const STOPS_MAX: usize = 4;

/// Whose models take any point of a cache, and Amazon's own, who take none among tools and know
/// one lifetime. What an application's inference profile leads to, its ARN does not tell. All
/// others answer 403 to the first point.
const CACHING: &[&str] = &["anthropic.claude", ":application-inference-profile/"];
const CACHING_PROMPTS: &str = "amazon.nova";

/// What stands for the schema of a tool that the caller has not described.
const OPEN_SCHEMA: &str = r#"{"type":"object","properties":{}}"#;

/// Where a model takes points up to which the prompt is worth caching.
#[derive(Debug, Clone, Copy)]
struct Points {
    in_prompt: bool,
    in_tools: bool,
    for_long: bool,
}

impl Points {
    fn of(model: &str) -> Self {
        let all = CACHING.iter().any(|name| model.contains(name));
        let in_prompt = all || model.contains(CACHING_PROMPTS);
        Self { in_prompt, in_tools: all, for_long: all }
    }

    /// Behind a part of the prompt.
    fn write(self, w: &mut Writer, kept: Option<Cache>, dropped: &mut Dropped) {
        self.write_where(w, kept, self.in_prompt, dropped);
    }

    fn write_where(self, w: &mut Writer, kept: Option<Cache>, is_taken: bool, d: &mut Dropped) {
        let Some(kept) = kept else { return };
        if !is_taken {
            return d.note("cache_control");
        }
        let is_long = kept == Cache::Long;
        d.note_if(is_long && !self.for_long, "cache_control.ttl");
        w.object();
        w.key("cachePoint").object();
        w.key("type").string("default");
        w.maybe("ttl", (is_long && self.for_long).then_some("1h"));
        w.end_object();
        w.end_object();
    }
}

/// Writes a request for a model.
pub(super) fn write(request: &Request<'_>, model: &str) -> Result<Carried, Refusal> {
    if request.choices.is_some_and(|choices| choices > 1) {
        return Err(Refusal::unsupported("n"));
    }
    if request.logprobs.is_some() {
        return Err(Refusal::unsupported("logprobs"));
    }
    let mut dropped = Dropped::default();
    request.unplaced.iter().for_each(|name| dropped.note_unplaced(name));
    dropped.note_if(request.cache_key.is_some(), "prompt_cache_key");
    dropped.note_if(request.user.is_some(), "user");
    let wish = request.reasoning;
    let thinks = wish.adaptive || wish.as_effort().is_some_and(|effort| effort != Effort::None);
    dropped.note_if(thinks, "reasoning_effort");
    let turns = paired(&request.turns);
    let points = Points::of(model);
    let mut w = Writer::with_capacity(1024);
    w.object();
    system(&mut w, request, points, &mut dropped)?;
    w.key("messages").array();
    messages(&mut w, &turns, points, &mut dropped)?;
    w.end_array();
    inference(&mut w, request, &mut dropped);
    tools(&mut w, request, (&turns, points), &mut dropped);
    match request.service_tier.as_deref() {
        Some(tier @ ("default" | "flex" | "priority")) => {
            w.key("serviceTier").object();
            w.key("type").string(tier);
            w.end_object();
        }
        Some("auto") | None => {}
        Some(_) => dropped.note("service_tier"),
    }
    w.end_object();
    Ok(Carried { body: w.finish(), dropped })
}

fn system(
    w: &mut Writer,
    request: &Request<'_>,
    points: Points,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    let is_said = |part: &&Part<'_>| part.as_text() != Some("");
    let turns = request.turns.iter().filter(|turn| turn.role == Role::System);
    let parts: Vec<_> = turns.flat_map(|turn| &turn.parts).filter(is_said).collect();
    let format = match &request.format {
        Format::Text => None,
        Format::Json => Some(JSON_INSTRUCTION.to_owned()),
        Format::Schema(schema) => {
            dropped.note("response_format.strict");
            let schema = schema.schema.as_deref().unwrap_or("{}");
            Some(format!("{SCHEMA_INSTRUCTION}{schema}"))
        }
    };
    if parts.is_empty() && format.is_none() {
        // A point with nothing before it is refused.
        dropped.note_if(request.cache.is_some(), "cache_control");
        return Ok(());
    }
    w.key("system").array();
    for part in parts {
        block(w, part, points, dropped)?;
    }
    if let Some(format) = format {
        text(w, &format);
    }
    points.write(w, request.cache, dropped);
    w.end_array();
    Ok(())
}

fn messages(
    w: &mut Writer,
    turns: &[Turn<'_>],
    points: Points,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    let turn = |w: &mut Writer, is_user: bool| {
        w.object();
        w.key("role").string(if is_user { "user" } else { "assistant" });
        w.key("content").array();
    };
    if turns.first().is_some_and(|turn| turn.role == Role::Assistant) {
        turn(w, true);
        text(w, FIRST_WORD);
        w.end_array();
        w.end_object();
    }
    let mut documents = 0;
    for one in turns {
        turn(w, one.role == Role::User);
        for part in one.parts.iter().filter(|part| !is_blank(part)) {
            if let Body::Document(source, name) = &part.body {
                documents += 1;
                document(w, source, (name.as_deref(), documents))?;
                points.write(w, part.cache, dropped);
            } else {
                block(w, part, points, dropped)?;
            }
        }
        if !one.parts.iter().any(says) {
            text(w, FIRST_WORD);
        }
        w.end_array();
        w.end_object();
    }
    Ok(())
}

/// Whether a part becomes a block.
fn says(part: &Part<'_>) -> bool {
    match &part.body {
        Body::Reasoning(_) => part.signed_by(Issuer::Anthropic).is_some(),
        Body::Redacted(sealed) => sealed.issuer == Issuer::Anthropic,
        Body::Text(_)
        | Body::Refusal(_)
        | Body::Image(..)
        | Body::Audio(..)
        | Body::Document(..)
        | Body::ToolUse(_)
        | Body::ToolResult(_) => !is_blank(part),
    }
}

/// Whether a part is a text of nothing, which is refused.
fn is_blank(part: &Part<'_>) -> bool {
    part.as_text().is_some_and(|text| text.trim().is_empty())
}

fn text(w: &mut Writer, text: &str) {
    w.object();
    w.key("text").string(text);
    w.end_object();
}

/// Writes a part, and behind it the point up to which the prompt is worth caching.
fn block(
    w: &mut Writer,
    part: &Part<'_>,
    points: Points,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    said(w, part, dropped)?;
    // Within a result there is no such point; behind it is the nearest.
    let inner = part.as_result().and_then(|result| result.content.iter().find_map(|p| p.cache));
    points.write(w, part.cache.or(inner), dropped);
    Ok(())
}

fn said(w: &mut Writer, part: &Part<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    match &part.body {
        Body::Text(words) | Body::Refusal(words) => text(w, words),
        Body::Image(source, detail) => {
            dropped.note_if(detail.is_some(), "messages.content.image_url.detail");
            image(w, source)?;
        }
        Body::ToolUse(call) => {
            w.object();
            w.key("toolUse").object();
            w.key("toolUseId").string(&plain_id(&call.id));
            w.key("name").string(&call.name);
            w.key("input");
            arguments(w, &call.arguments);
            w.end_object();
            w.end_object();
        }
        Body::ToolResult(result) => {
            w.object();
            w.key("toolResult").object();
            w.key("toolUseId").string(&plain_id(&result.id));
            w.key("content").array();
            let mut parts = result.content.iter().filter(|part| !is_blank(part)).peekable();
            if parts.peek().is_none() {
                w.object();
                w.key("json").raw("{}");
                w.end_object();
            }
            for part in parts {
                said(w, part, dropped)?;
            }
            w.end_array();
            w.maybe("status", result.is_error.then_some("error"));
            w.end_object();
            w.end_object();
        }
        Body::Reasoning(_) | Body::Redacted(_) => thought(w, part, dropped),
        Body::Document(source, name) => document(w, source, (name.as_deref(), 0))?,
        Body::Audio(..) => return Err(Refusal::unsupported("messages.content.input_audio")),
    }
    Ok(())
}

/// Thoughts that their model will know again; no others.
fn thought(w: &mut Writer, part: &Part<'_>, dropped: &mut Dropped) {
    let own = part.signed_by(Issuer::Anthropic);
    if let Body::Redacted(sealed) = &part.body
        && sealed.issuer == Issuer::Anthropic
    {
        w.object();
        w.key("reasoningContent").object();
        w.key("redactedContent").strings(&sealed.written(Issuer::Anthropic));
    } else if let (Some(thought), Some(signature)) = (part.as_thought(), own) {
        w.object();
        w.key("reasoningContent").object();
        w.key("reasoningText").object();
        w.key("text").string(thought);
        w.key("signature").string(signature);
        w.end_object();
    } else {
        return dropped.note("messages.content.thinking");
    }
    w.end_object();
    w.end_object();
}

fn image(w: &mut Writer, source: &Source<'_>) -> Result<(), Refusal> {
    let unsupported = || Refusal::unsupported("messages.content.image_url");
    let Source::Base64 { media_type, content } = source else { return Err(unsupported()) };
    let format = match &**media_type {
        "image/png" => "png",
        "image/jpeg" | "image/jpg" => "jpeg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => return Err(unsupported()),
    };
    medium(w, ("image", format, None), content);
    Ok(())
}

fn document(
    w: &mut Writer,
    source: &Source<'_>,
    (name, number): (Option<&str>, usize),
) -> Result<(), Refusal> {
    let unsupported = || Refusal::unsupported("messages.content.file");
    let encoded;
    let (format, content) = match source {
        Source::Plain(text) => {
            encoded = STANDARD.encode(text.as_bytes());
            ("txt", encoded.as_str())
        }
        Source::Base64 { media_type, content } => {
            let format = match &**media_type {
                "application/pdf" => "pdf",
                "text/plain" => "txt",
                "text/csv" => "csv",
                "text/html" => "html",
                "text/markdown" => "md",
                _ => return Err(unsupported()),
            };
            (format, &**content)
        }
        Source::Url(_) => return Err(unsupported()),
    };
    // A name of few kinds of signs, that no other document has.
    let is_plain = |sign: &char| sign.is_ascii_alphanumeric() || *sign == '-';
    let name: String = name.unwrap_or("document").chars().filter(is_plain).take(60).collect();
    medium(w, ("document", format, Some(&format!("{name}-{number}"))), content);
    Ok(())
}

fn medium(w: &mut Writer, (kind, format, name): (&str, &str, Option<&str>), content: &str) {
    w.object();
    w.key(kind).object();
    w.key("format").string(format);
    w.maybe("name", name);
    w.key("source").object();
    w.key("bytes").string(content);
    w.end_object();
    w.end_object();
    w.end_object();
}

fn inference(w: &mut Writer, request: &Request<'_>, dropped: &mut Dropped) {
    let sampling = &request.sampling;
    dropped.note_if(sampling.top_k.is_some(), "top_k");
    dropped.note_if(sampling.seed.is_some(), "seed");
    dropped.note_if(sampling.frequency_penalty.is_some(), "frequency_penalty");
    dropped.note_if(sampling.presence_penalty.is_some(), "presence_penalty");
    dropped.note_if(sampling.logit_bias.is_some(), "logit_bias");
    let stops: Vec<_> = request.stop.iter().take(STOPS_MAX).collect();
    dropped.note_if(stops.len() < request.stop.len(), "stop");
    let is_plain = sampling.temperature.is_none() && sampling.top_p.is_none();
    if request.output_tokens_max.is_none() && is_plain && stops.is_empty() {
        return;
    }
    w.key("inferenceConfig").object();
    w.maybe_number("maxTokens", request.output_tokens_max);
    w.maybe_raw("temperature", sampling.temperature);
    w.maybe_raw("topP", sampling.top_p);
    if !stops.is_empty() {
        w.key("stopSequences").list(&stops);
    }
    w.end_object();
}

/// The tools to choose from. A conversation that shows calls is refused without any, so the tools
/// that it names stand for those that the caller does not repeat.
fn offered<'r>(request: &'r Request<'_>, turns: &'r [Turn<'_>]) -> Vec<Cow<'r, Tool<'r>>> {
    let allowed = |name: &str| match &request.tool_choice {
        Some(ToolChoice::Among(names, _)) => names.iter().any(|allowed| allowed == name),
        Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::Named(_))
        | None => true,
    };
    let told: Vec<_> =
        request.tools.iter().filter(|tool| allowed(&tool.name)).map(Cow::Borrowed).collect();
    let calls = || turns.iter().flat_map(|turn| &turn.parts).filter_map(Part::as_call);
    // There is no word for "none": the tools are left out, unless the conversation shows some.
    let is_off = request.tool_choice == Some(ToolChoice::None) && calls().next().is_none();
    if is_off {
        return Vec::new();
    }
    if !told.is_empty() {
        return told;
    }
    let names: BTreeSet<&str> = calls().map(|call| &*call.name).collect();
    let open = |name| Tool { name: Cow::Borrowed(name), ..Tool::default() };
    names.into_iter().map(|name| Cow::Owned(open(name))).collect()
}

fn tools(
    w: &mut Writer,
    request: &Request<'_>,
    (turns, points): (&[Turn<'_>], Points),
    dropped: &mut Dropped,
) {
    let tools = offered(request, turns);
    if tools.is_empty() {
        return;
    }
    dropped.note_if(request.tool_choice == Some(ToolChoice::None), "tool_choice");
    dropped.note_if(request.parallel_tool_calls == Some(false), "parallel_tool_calls");
    w.key("toolConfig").object();
    w.key("tools").array();
    for tool in tools {
        dropped.note_if(tool.strict == Some(true), "tools.strict");
        w.object();
        w.key("toolSpec").object();
        w.key("name").string(&tool.name);
        w.maybe("description", tool.description.as_deref().filter(|text| !text.is_empty()));
        w.key("inputSchema").object();
        w.key("json").raw(tool.schema.as_deref().unwrap_or(OPEN_SCHEMA));
        w.end_object();
        w.end_object();
        w.end_object();
        points.write_where(w, tool.cache, points.in_tools, dropped);
    }
    w.end_array();
    let (word, name) = match &request.tool_choice {
        Some(ToolChoice::Required | ToolChoice::Among(_, true)) => ("any", None),
        Some(ToolChoice::Named(name)) => ("tool", Some(&**name)),
        Some(ToolChoice::Auto) => ("auto", None),
        Some(ToolChoice::None | ToolChoice::Among(_, false)) | None => ("", None),
    };
    if !word.is_empty() {
        w.key("toolChoice").object();
        w.key(word).object();
        w.maybe("name", name);
        w.end_object();
        w.end_object();
    }
    w.end_object();
}
