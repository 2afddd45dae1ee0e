//! A request for generateContent, read into the canonical form.
//!
//! Not the contents, which are next door. Invariant: every member is read, refused or named.
//! Source: `a-inbound` A.3.2.

use std::borrow::Cow;

use super::{contents_in, schema};
use crate::canonical::{
    Effort, Format, Reasoning, Refusal, Request, Sampling, Schema, Tool, ToolChoice,
};
use crate::dialect::openai::chat::{texts, unplaced};
use crate::dialect::strays;
use crate::json::{Misfit, Node, Outline};

/// Members that are read. The model and the stream stand in the path; some clients repeat them.
const KNOWN: &[&str] = &[
    "model",
    "contents",
    "systemInstruction",
    "system_instruction",
    "tools",
    "toolConfig",
    "tool_config",
    "generationConfig",
    "generation_config",
    "serviceTier",
    "service_tier",
];

/// Members of the configuration that are read.
const KNOWN_CONFIG: &[&str] = &[
    "maxOutputTokens",
    "max_output_tokens",
    "candidateCount",
    "candidate_count",
    "temperature",
    "topP",
    "top_p",
    "topK",
    "top_k",
    "seed",
    "frequencyPenalty",
    "frequency_penalty",
    "presencePenalty",
    "presence_penalty",
    "stopSequences",
    "stop_sequences",
    "responseMimeType",
    "response_mime_type",
    "responseSchema",
    "response_schema",
    "responseJsonSchema",
    "response_json_schema",
    "responseModalities",
    "response_modalities",
    "responseLogprobs",
    "response_logprobs",
    "logprobs",
    "thinkingConfig",
    "thinking_config",
];

/// The member under either of its two spellings.
pub(crate) fn either<'t, 'a>(
    node: Node<'t, 'a>,
    camel: &'static str,
    snake: &'static str,
) -> Option<Node<'t, 'a>> {
    node.get(camel).or_else(|| node.get(snake))
}

/// Reads a request.
pub(crate) fn read<'a>(outline: &Outline<'a>) -> Result<Request<'a>, Refusal> {
    let root = outline.root();
    if either(root, "cachedContent", "cached_content").is_some() {
        return Err(Refusal::unsupported("cachedContent"));
    }
    let mut request = Request {
        include_usage: true,
        tools: tools(root)?,
        tool_choice: tool_choice(root)?,
        service_tier: either(root, "serviceTier", "service_tier").and_then(|tier| tier.text()).map(
            |tier| match &*tier {
                "standard" | "STANDARD" => Cow::Borrowed("default"),
                _ => tier,
            },
        ),
        unplaced: unplaced(root, KNOWN),
        ..Request::default()
    };
    if let Some(config) = either(root, "generationConfig", "generation_config") {
        configure(config, &mut request)?;
    }
    if let Some(system) = either(root, "systemInstruction", "system_instruction") {
        contents_in::system(system, &mut request)?;
    }
    let contents = root.get("contents").ok_or(Refusal::Missing("contents"))?;
    contents_in::read(contents, &mut request)?;
    strays::of_gemini(root, &mut request);
    Ok(request)
}

fn configure<'a>(config: Node<'_, 'a>, request: &mut Request<'a>) -> Result<(), Refusal> {
    let named = unplaced(config, KNOWN_CONFIG);
    request
        .unplaced
        .extend(named.iter().map(|name| Cow::Owned(format!("generationConfig.{name}"))));
    request.output_tokens_max = whole(config, "maxOutputTokens", "max_output_tokens")?;
    request.choices = whole(config, "candidateCount", "candidate_count")?;
    request.sampling = Sampling {
        temperature: config.any_number("temperature")?,
        top_p: number(config, "topP", "top_p")?,
        top_k: number(config, "topK", "top_k")?,
        seed: config.any_number("seed")?,
        frequency_penalty: number(config, "frequencyPenalty", "frequency_penalty")?,
        presence_penalty: number(config, "presencePenalty", "presence_penalty")?,
        logit_bias: None,
    };
    if let Some(stop) = either(config, "stopSequences", "stop_sequences") {
        request.stop = texts(stop, "stopSequences")?;
    }
    if let Some(modalities) = either(config, "responseModalities", "response_modalities")
        && modalities.elements().any(|modality| !modality.is("TEXT"))
    {
        return Err(Refusal::unsupported("generationConfig.responseModalities"));
    }
    if let Some(kind) = either(config, "responseMimeType", "response_mime_type")
        && !["application/json", "text/plain"].iter().any(|known| kind.is(known))
    {
        return Err(Refusal::unsupported("generationConfig.responseMimeType"));
    }
    request.format = format(config)?;
    if either(config, "responseLogprobs", "response_logprobs").and_then(|flag| flag.flag())
        == Some(true)
    {
        request.logprobs = Some(config.whole("logprobs")?.unwrap_or(0));
    }
    if let Some(thinking) = either(config, "thinkingConfig", "thinking_config") {
        request.reasoning = reasoning(thinking)?;
    }
    Ok(())
}

fn whole(
    node: Node<'_, '_>,
    camel: &'static str,
    snake: &'static str,
) -> Result<Option<u64>, Misfit> {
    Ok(node.whole(camel)?.or(node.whole(snake)?))
}

fn number<'a>(
    node: Node<'_, 'a>,
    camel: &'static str,
    snake: &'static str,
) -> Result<Option<&'a str>, Misfit> {
    Ok(node.any_number(camel)?.or(node.any_number(snake)?))
}

/// The object of either spelling, strictly: a schema that is something else is nothing that another
/// provider could be sent.
fn object<'t, 'a>(
    node: Node<'t, 'a>,
    camel: &'static str,
    snake: &'static str,
) -> Result<Option<Node<'t, 'a>>, Misfit> {
    Ok(node.object(camel)?.or(node.object(snake)?))
}

fn format<'a>(config: Node<'_, 'a>) -> Result<Format<'a>, Misfit> {
    let json = object(config, "responseJsonSchema", "response_json_schema")?;
    let own = object(config, "responseSchema", "response_schema")?;
    let schema = json.map(|node| node.raw().into()).or_else(|| own.map(schema::plain));
    if let Some(schema) = schema {
        return Ok(Format::Schema(Schema { schema: Some(schema), ..Schema::default() }));
    }
    let kind = either(config, "responseMimeType", "response_mime_type");
    let is_json = kind.is_some_and(|kind| kind.is("application/json"));
    Ok(if is_json { Format::Json } else { Format::Text })
}

fn reasoning(thinking: Node<'_, '_>) -> Result<Reasoning, Refusal> {
    let shown = either(thinking, "includeThoughts", "include_thoughts");
    let mut reasoning =
        Reasoning { shown: shown.and_then(|shown| shown.flag()), ..Reasoning::default() };
    if let Some(level) = either(thinking, "thinkingLevel", "thinking_level") {
        let wrong = Misfit { member: "thinkingLevel", must: "be a known word such as `low`" };
        let word = level.text().unwrap_or_default().to_ascii_lowercase();
        reasoning.effort = Some(Effort::parse(&word).ok_or(wrong)?);
    }
    if let Some(budget) = either(thinking, "thinkingBudget", "thinking_budget") {
        match budget.raw() {
            "-1" => reasoning.adaptive = true,
            "0" => reasoning.effort = Some(Effort::None),
            _ => {
                let wrong = Misfit { member: "thinkingBudget", must: "be a whole number" };
                reasoning.budget_tokens = Some(budget.unsigned().ok_or(wrong)?);
            }
        }
    }
    Ok(reasoning)
}

fn tools<'a>(root: Node<'_, 'a>) -> Result<Vec<Tool<'a>>, Refusal> {
    let mut tools = Vec::new();
    for group in root.array("tools")?.iter().flat_map(Node::elements) {
        for (name, member) in group.members() {
            if !matches!(&*name, "functionDeclarations" | "function_declarations") {
                return Err(Refusal::unsupported_kind("tools", &name));
            }
            for function in member.elements() {
                tools.push(tool(function)?);
            }
        }
    }
    Ok(tools)
}

fn tool<'a>(function: Node<'_, 'a>) -> Result<Tool<'a>, Refusal> {
    let json = object(function, "parametersJsonSchema", "parameters_json_schema")?;
    let own = function.object("parameters")?;
    Ok(Tool {
        name: function.string("name")?.ok_or(Refusal::Missing("name"))?,
        description: function.string("description")?,
        schema: json.map(|node| node.raw().into()).or_else(|| own.map(schema::plain)),
        ..Tool::default()
    })
}

fn tool_choice<'a>(root: Node<'_, 'a>) -> Result<Option<ToolChoice<'a>>, Refusal> {
    let config = either(root, "toolConfig", "tool_config");
    let calling =
        config.and_then(|node| either(node, "functionCallingConfig", "function_calling_config"));
    let Some(calling) = calling else {
        return Ok(None);
    };
    let mode = calling.string("mode")?;
    let allowed = either(calling, "allowedFunctionNames", "allowed_function_names");
    let mut names = match allowed {
        Some(allowed) => texts(allowed, "allowedFunctionNames")?,
        None => Vec::new(),
    };
    let is_any = mode.as_deref() == Some("ANY");
    Ok(Some(match (mode.as_deref(), names.len()) {
        (Some("NONE"), _) => ToolChoice::None,
        (Some("ANY"), 0) => ToolChoice::Required,
        (Some("ANY"), 1) => ToolChoice::Named(names.pop().unwrap_or_default()),
        (_, 0) => ToolChoice::Auto,
        (_, _) => ToolChoice::Among(names, is_any),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_no_object_is_refused_by_its_name() {
        for (document, member) in [
            (
                r#"{"tools":[{"functionDeclarations":[{"name":"f","parametersJsonSchema":1}]}]}"#,
                "parametersJsonSchema",
            ),
            (r#"{"generationConfig":{"responseJsonSchema":1e300}}"#, "responseJsonSchema"),
            (r#"{"generationConfig":{"response_schema":"x"}}"#, "response_schema"),
        ] {
            let outline = Outline::read(document.as_bytes()).unwrap();
            let refusal = read(&outline).unwrap_err();
            let must = Misfit { member, must: "be an object" };
            assert_eq!(refusal, Refusal::from(must), "{document}");
        }
    }
}
