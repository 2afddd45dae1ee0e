//! Requests in the dialects of others: Anthropic's Messages, Responses, Gemini's generateContent.
//!
//! Read as JSON trees, which is slower than what `OpenAI`'s chat gets and need not be faster. The
//! count of tokens is the same for all: four for each message, and one for each begun four bytes of
//! its text, whatever tells it. Sources: the vendors' API references, as of November 2026.

use std::borrow::Cow;

use serde_json::Value;

use super::pictures;
use super::tally::tokens_of;
use super::tools::{self, Choice, Names, Tool, Wanted, Wish};
use super::{Ask, Completion, Dialect, Embedding, Input, Vectors, percent_decoded};
use crate::refusal::ErrorBody;

/// Anthropic's `POST /v1/messages`.
pub(super) fn messages(body: &Value) -> Result<Completion<'static>, ErrorBody> {
    let turns = list(body, "messages")?;
    let cap = body.get("max_tokens").and_then(Value::as_u64);
    let cap = cap.ok_or_else(|| ErrorBody::invalid("max_tokens: Field required"))?;
    let choice = body.get("tool_choice").map(|choice| match text(choice, "type") {
        "none" => Choice::Never,
        "any" => Choice::Must,
        "tool" => Choice::This(text(choice, "name").to_owned()),
        _ => Choice::Auto,
    });
    let format = body.get("output_config").and_then(|config| config.get("format"));
    let wish = Wish {
        tools: tools::flat(body.get("tools"), &["input_schema"]),
        choice,
        serial: body.pointer("/tool_choice/disable_parallel_tool_use") == Some(&Value::Bool(true)),
        answered: ends_in(turns, |part| text(part, "type") == "tool_result"),
        format: format.and_then(tools::openai_format),
    };
    Ok(Completion {
        cap: Some(cap),
        prompt_tokens: message_tokens(turns).saturating_add(instructions(body.get("system"))),
        ..named(Dialect::Messages, body, wish)?
    })
}

/// `OpenAI`'s `POST /v1/responses`.
pub(super) fn responses(body: &Value) -> Result<Completion<'static>, ErrorBody> {
    let input = body.get("input").unwrap_or(&Value::Null);
    let (tokens, answered) = match input {
        Value::String(words) => (words_tokens(words.len()), false),
        Value::Array(items) if !items.is_empty() => {
            let last = items.last().is_some_and(|i| text(i, "type") == "function_call_output");
            (message_tokens(items), last)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(ErrorBody::invalid("Missing required parameter: 'input'."));
        }
    };
    let format = body.get("text").and_then(|text| text.get("format"));
    let wish = Wish {
        tools: tools::flat(body.get("tools"), &["parameters"]),
        choice: body.get("tool_choice").map(tools::openai_choice),
        serial: body.get("parallel_tool_calls") == Some(&Value::Bool(false)),
        answered,
        format: format.and_then(tools::openai_format),
    };
    Ok(Completion {
        cap: body.get("max_output_tokens").and_then(Value::as_u64),
        prompt_tokens: tokens.saturating_add(instructions(body.get("instructions"))),
        ..named(Dialect::Responses, body, wish)?
    })
}

/// Gemini's `POST …/models/{model}:generateContent` and `:streamGenerateContent`.
pub(super) fn gemini(ask: &Ask<'_>, body: &Value) -> Result<Completion<'static>, ErrorBody> {
    let (model, stream) = gemini_call(ask.path).unwrap_or_default();
    let turns = list(body, "contents")?;
    let config = either(body, "generationConfig", "generation_config").unwrap_or(&Value::Null);
    let number = |camel, snake| either(config, camel, snake).and_then(Value::as_u64);
    let system = either(body, "systemInstruction", "system_instruction");
    let choices = number("candidateCount", "candidate_count").unwrap_or(1);
    let choices = u32::try_from(choices).unwrap_or(u32::MAX);
    let answered =
        ends_in(turns, |part| either(part, "functionResponse", "function_response").is_some());
    let wish = Wish {
        tools: declarations(body),
        choice: gemini_choice(body),
        serial: false,
        answered,
        format: gemini_format(config),
    };
    Ok(Completion {
        dialect: Dialect::Gemini { array: !ask.query.split('&').any(|pair| pair == "alt=sse") },
        model: Cow::Owned(percent_decoded(model)),
        stream,
        include_usage: true,
        cap: number("maxOutputTokens", "max_output_tokens"),
        choices: super::choices(Some(choices), "candidateCount")?,
        generated: choices,
        prompt_tokens: message_tokens(turns).saturating_add(instructions(system)),
        pictures: pictures::of(body),
        wanted: Wanted::named(wish, Names::Dotted)?,
    })
}

/// The model and whether to stream, of a path of Gemini's.
pub(super) fn gemini_call(path: &str) -> Option<(&str, bool)> {
    let own = ["/v1beta/models/", "/v1/models/"].iter().find_map(|p| path.strip_prefix(p));
    // At Vertex it stands below a project.
    let at_vertex = || Some(path.split_once("/publishers/google/models/")?.1);
    let rest = own.or_else(at_vertex)?;
    let (model, verb) = rest.rsplit_once(':')?;
    match verb {
        "generateContent" => Some((model, false)),
        "streamGenerateContent" => Some((model, true)),
        _ => None,
    }
}

/// The model and whether for a list, of a path of Gemini's for vectors.
pub(super) fn gemini_vectors(path: &str) -> Option<(&str, bool)> {
    let rest = ["/v1beta/models/", "/v1/models/"].iter().find_map(|p| path.strip_prefix(p))?;
    match rest.rsplit_once(':')? {
        (model, "embedContent") => Some((model, false)),
        (model, "batchEmbedContents") => Some((model, true)),
        _ => None,
    }
}

/// Gemini's `POST …/models/{model}:embedContent` and `:batchEmbedContents`.
pub(super) fn embed_content(ask: &Ask<'_>, body: &Value) -> Result<Embedding<'static>, ErrorBody> {
    let (model, is_list) = gemini_vectors(ask.path).unwrap_or_default();
    let model = percent_decoded(model);
    let requests = if is_list { list(body, "requests")? } else { std::slice::from_ref(body) };
    let (mut inputs, mut dimensions) = (Vec::new(), None);
    for request in requests {
        // Google refuses a name that is not the path's; in a list it must be there.
        let named = request.get("model").and_then(Value::as_str);
        let is_wrong = named.map_or(is_list, |name| name.trim_start_matches("models/") != model);
        if is_wrong {
            return Err(ErrorBody::invalid("model: must be that of the path"));
        }
        let parts = request.pointer("/content/parts").and_then(Value::as_array);
        let parts = parts.ok_or_else(|| ErrorBody::invalid("content: is missing"))?;
        let words: String = parts.iter().map(|part| text(part, "text")).collect();
        inputs.push(Input::of_text(&words));
        let asked = either(request, "outputDimensionality", "output_dimensionality");
        let asked = asked.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        dimensions = asked.map(super::dimensions).transpose()?;
    }
    let form = if is_list { Vectors::Many } else { Vectors::One };
    Ok(Embedding { model: Cow::Owned(model), inputs, form, dimensions })
}

/// What all bodies that name their model have alike.
fn named(dialect: Dialect, body: &Value, wish: Wish) -> Result<Completion<'static>, ErrorBody> {
    let model = body.get("model").and_then(Value::as_str);
    let model = model.ok_or_else(|| ErrorBody::invalid("model: Field required"))?;
    let names = if dialect == Dialect::Messages { Names::Long } else { Names::Plain };
    Ok(Completion {
        dialect,
        model: Cow::Owned(model.to_owned()),
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        include_usage: true,
        cap: None,
        choices: 1,
        generated: 1,
        prompt_tokens: 0,
        pictures: pictures::of(body),
        wanted: Wanted::named(wish, names)?,
    })
}

fn declarations(body: &Value) -> Vec<Tool> {
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten();
    let of = |tool: &Value| {
        let list = either(tool, "functionDeclarations", "function_declarations");
        tools::flat(list, &["parametersJsonSchema", "parameters_json_schema", "parameters"])
    };
    tools.flat_map(of).collect()
}

fn gemini_choice(body: &Value) -> Option<Choice> {
    let config = either(body, "toolConfig", "tool_config")?;
    let config = either(config, "functionCallingConfig", "function_calling_config")?;
    let names = either(config, "allowedFunctionNames", "allowed_function_names");
    let first = names.and_then(|names| names.get(0)).and_then(Value::as_str);
    match (text(config, "mode"), first) {
        ("NONE", _) => Some(Choice::Never),
        ("ANY", Some(name)) => Some(Choice::This(name.to_owned())),
        ("ANY", None) => Some(Choice::Must),
        _ => None,
    }
}

fn gemini_format(config: &Value) -> Option<Value> {
    let mime = either(config, "responseMimeType", "response_mime_type")?;
    let schema = either(config, "responseJsonSchema", "response_json_schema")
        .or_else(|| either(config, "responseSchema", "response_schema"));
    (mime == "application/json").then(|| schema.cloned().unwrap_or_default())
}

/// A member under either of the names that Google takes.
fn either<'v>(value: &'v Value, camel: &str, snake: &str) -> Option<&'v Value> {
    value.get(camel).or_else(|| value.get(snake))
}

pub(super) fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'v>(body: &'v Value, member: &str) -> Result<&'v [Value], ErrorBody> {
    let turns = body.get(member).and_then(Value::as_array).filter(|turns| !turns.is_empty());
    turns.map(Vec::as_slice).ok_or_else(|| ErrorBody::invalid(format!("{member}: Field required")))
}

/// Whether the last turn has a part of a kind.
fn ends_in(turns: &[Value], kind: impl Fn(&Value) -> bool) -> bool {
    let parts = turns.last().and_then(|turn| turn.get("content").or_else(|| turn.get("parts")));
    parts.and_then(Value::as_array).is_some_and(|parts| parts.iter().any(kind))
}

pub(super) fn message_tokens(turns: &[Value]) -> u64 {
    turns.iter().map(|turn| words_tokens(text_bytes(turn))).sum()
}

pub(super) fn instructions(system: Option<&Value>) -> u64 {
    system.map_or(0, |system| words_tokens(text_bytes(system)))
}

fn words_tokens(bytes: usize) -> u64 {
    tokens_of(u64::try_from(bytes).unwrap_or(u64::MAX)).saturating_add(4)
}

/// Bytes of what is said: of texts, and of members that hold some.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(words) => words.len(),
        Value::Array(parts) => parts.iter().map(text_bytes).sum(),
        Value::Object(_) => ["text", "content", "parts", "output"]
            .iter()
            .filter_map(|member| value.get(*member))
            .map(text_bytes)
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
