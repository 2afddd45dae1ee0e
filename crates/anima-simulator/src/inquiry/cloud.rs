//! Paths and bodies of the clouds: the same dialects elsewhere, and Converse.
//!
//! Azure puts `OpenAI`'s paths below its own, Vertex names model and method in the path, and so
//! does Bedrock. What a cloud refuses in a body that its vendor takes (a `model` of Claude's) is
//! refused here, too. Sources: the clouds' API references, as of November 2026.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::foreign::{instructions, list, message_tokens, messages, text};
use super::pictures;
use super::tools::{self, Choice, Names, Tool, Wanted, Wish};
use super::{Ask, Completion, Dialect, parse, percent_decoded};
use crate::refusal::ErrorBody;

/// `OpenAI`'s paths that Azure has below a deployment.
const DATED: [&str; 8] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
];

/// Where a path of a cloud's leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `OpenAI`'s path, and the deployment in the place of the model.
    Openai(&'a str, Option<&'a str>),
    /// Claude at Vertex: model, and whether to stream.
    Claude(&'a str, bool),
    /// Claude at Bedrock.
    Invoke(&'a str, bool),
    /// Any model at Bedrock.
    Converse(&'a str, bool),
}

/// Reads a path.
pub(super) fn place(path: &str) -> Option<Place<'_>> {
    if let Some(rest) = path.strip_prefix("/openai").filter(|rest| rest.starts_with("/v1/")) {
        return Some(Place::Openai(rest, None));
    }
    if let Some(rest) = path.strip_prefix("/openai/deployments/") {
        let (deployment, rest) = rest.split_once('/')?;
        let known = DATED.iter().find(|path| path.strip_prefix("/v1/") == Some(rest))?;
        return Some(Place::Openai(known, Some(deployment)));
    }
    if let Some((_, rest)) = path.split_once("/publishers/anthropic/models/") {
        return match rest.rsplit_once(':')? {
            (model, "rawPredict") => Some(Place::Claude(model, false)),
            (model, "streamRawPredict") => Some(Place::Claude(model, true)),
            _ => None,
        };
    }
    match path.strip_prefix("/model/")?.rsplit_once('/')? {
        (model, "invoke") => Some(Place::Invoke(model, false)),
        (model, "invoke-with-response-stream") => Some(Place::Invoke(model, true)),
        (model, "converse") => Some(Place::Converse(model, false)),
        (model, "converse-stream") => Some(Place::Converse(model, true)),
        _ => None,
    }
}

/// Claude's messages, of which the path says model and manner.
pub(super) fn claude(
    ask: &Ask<'_>,
    (model, stream): (&str, bool),
    version: &str,
) -> Result<Completion<'static>, ErrorBody> {
    let mut body: Value = parse(ask.body)?;
    if text(&body, "anthropic_version") != version {
        return Err(ErrorBody::invalid(format!("anthropic_version: must be {version}")));
    }
    let Some(members) = body.as_object_mut() else {
        return Err(ErrorBody::invalid("must be an object"));
    };
    if members.contains_key("model") {
        return Err(ErrorBody::invalid("model: Extra inputs are not permitted"));
    }
    members.insert("model".to_owned(), json!(percent_decoded(model)));
    members.insert("stream".to_owned(), json!(stream));
    messages(&body)
}

/// A conversation by Converse.
pub(super) fn converse(
    ask: &Ask<'_>,
    (model, stream): (&str, bool),
) -> Result<Completion<'static>, ErrorBody> {
    let body: Value = parse(ask.body)?;
    if body.get("model").is_some() {
        return Err(ErrorBody::invalid("model: no such member"));
    }
    let turns = list(&body, "messages")?;
    let shapes =
        ["text", "image", "document", "toolUse", "toolResult", "reasoningContent", "cachePoint"];
    let blocks = turns.iter().filter_map(|turn| turn.get("content")?.as_array()).flatten();
    for block in blocks.clone() {
        let known = block.as_object().is_some_and(|block| {
            block.len() == 1 && block.keys().all(|name| shapes.contains(&name.as_str()))
        });
        if !known {
            return Err(ErrorBody::invalid(format!("not a content block: {block}")));
        }
    }
    let last = turns.last().and_then(|turn| turn.get("content")?.as_array());
    let answered = last.is_some_and(|parts| parts.iter().any(|p| p.get("toolResult").is_some()));
    let config = body.get("toolConfig").unwrap_or(&Value::Null);
    let choice = config.get("toolChoice").map(|choice| match choice.get("tool") {
        Some(tool) => Choice::This(text(tool, "name").to_owned()),
        None if choice.get("any").is_some() => Choice::Must,
        None => Choice::Auto,
    });
    let limits = body.get("inferenceConfig");
    let wish = Wish {
        tools: specs(config),
        choice,
        answered,
        serial: false,
        format: asked_in_words(&body),
    };
    Ok(Completion {
        dialect: Dialect::Converse,
        model: Cow::Owned(percent_decoded(model)),
        stream,
        include_usage: true,
        cap: limits.and_then(|limits| limits.get("maxTokens")).and_then(Value::as_u64),
        choices: 1,
        generated: 1,
        prompt_tokens: message_tokens(turns).saturating_add(instructions(body.get("system"))),
        pictures: pictures::of(&body),
        wanted: Wanted::named(wish, Names::Plain)?,
    })
}

/// The schema that instructions end with: Converse has no member for one, so that it is asked for
/// in words, which a model obeys.
fn asked_in_words(body: &Value) -> Option<Value> {
    let last = body.get("system")?.as_array()?.last()?;
    let words = text(last, "text");
    let schema: Value = serde_json::from_str(words.get(words.find('{')?..)?).ok()?;
    schema.get("type").is_some().then_some(schema)
}

fn specs(config: &Value) -> Vec<Tool> {
    let tools = config.get("tools").and_then(Value::as_array).into_iter().flatten();
    let flat = tools.filter_map(|tool| {
        let spec = tool.get("toolSpec")?;
        let schema = spec.get("inputSchema").and_then(|schema| schema.get("json"));
        Some(json!({"name": text(spec, "name"), "input_schema": schema}))
    });
    tools::flat(Some(&flat.collect()), &["input_schema"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_at_the_end_of_instructions_is_obeyed() {
        let told = |words: &str| asked_in_words(&json!({"system": [{"text": words}]}));
        let schema = json!({"type": "object", "properties": {}});
        assert_eq!(told(&format!("Be brief.\n\nAnswer with JSON of: {schema}")), Some(schema));
        for words in ["Be brief.", "{\"a\": 1}", "use {braces}"] {
            assert_eq!(told(words), None, "{words}");
        }
    }

    #[test]
    fn a_path_of_a_cloud_leads_to_a_dialect() {
        for (path, expected) in [
            ("/openai/v1/responses", Some(Place::Openai("/v1/responses", None))),
            (
                "/openai/deployments/d/chat/completions",
                Some(Place::Openai("/v1/chat/completions", Some("d"))),
            ),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict",
                Some(Place::Claude("m", true)),
            ),
            ("/model/a%3A0/invoke", Some(Place::Invoke("a%3A0", false))),
            ("/model/m/converse-stream", Some(Place::Converse("m", true))),
            ("/model/m/other", None),
            ("/v1/chat/completions", None),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
    }
}
