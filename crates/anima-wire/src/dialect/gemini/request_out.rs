//! A request in the canonical form, written for generateContent.
//!
//! Invariant: what is not written is in `Dropped`, or the whole request is refused.
//! Sources: `b-outbound-chat` B.3, `c-conversion` C.1, C.2 and C.4.

use super::contents_out;
use crate::canonical::{
    Carried, Dropped, Effort, Format, Refusal, Request, Role, ToolChoice, paired,
};
use crate::json::Writer;

/// Who will read the request. The model's name stands in the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The model, as the provider names it.
    pub(crate) model: &'a str,
    /// Whether the model is of the third generation or later: thinks by level, wants signatures.
    pub(crate) is_newer: bool,
    /// Whether calls and results have ids; results are matched by order and name elsewhere.
    pub(crate) takes_ids: bool,
}

/// Stop texts that are accepted.
const STOP_MAX: usize = 5;

/// Writes a request.
pub(crate) fn write(request: &Request<'_>, target: Target<'_>) -> Result<Carried, Refusal> {
    let mut dropped = Dropped::default();
    check(request, &mut dropped)?;
    let mut w = Writer::with_capacity(1024);
    w.object();
    system(&mut w, request, &mut dropped)?;
    w.key("contents").array();
    let turns = paired(&request.turns);
    contents_out::write(&mut w, &turns, target, &mut dropped)?;
    w.end_array();
    tools(&mut w, request, &mut dropped);
    tool_choice(&mut w, request);
    w.key("generationConfig").object();
    config(&mut w, request, target);
    w.end_object();
    match request.service_tier.as_deref() {
        Some("default") => w.key("serviceTier").string("standard"),
        Some(tier @ ("flex" | "priority" | "standard")) => w.key("serviceTier").string(tier),
        Some("auto") | None => {}
        Some(_) => dropped.note("service_tier"),
    }
    w.end_object();
    Ok(Carried { body: w.finish(), dropped })
}

fn check(request: &Request<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    if request.parallel_tool_calls == Some(false) && !request.tools.is_empty() {
        if !is_one_tool_forced(request) {
            return Err(Refusal::unsupported("parallel_tool_calls"));
        }
        dropped.note("parallel_tool_calls");
    }
    if request.stop.len() > STOP_MAX {
        return Err(Refusal::unsupported("stop"));
    }
    request.unplaced.iter().for_each(|name| dropped.note_unplaced(name));
    dropped.note_if(request.cache_key.is_some(), "prompt_cache_key");
    dropped.note_if(request.cache.is_some(), "cache_control");
    dropped.note_if(request.user.is_some(), "user");
    dropped.note_if(request.sampling.logit_bias.is_some(), "logit_bias");
    Ok(())
}

/// Whether the answer is to be the call of one certain tool. SDKs that ask so for a structured
/// answer say beside it that one call is enough, which then goes without saying.
fn is_one_tool_forced(request: &Request<'_>) -> bool {
    match &request.tool_choice {
        Some(ToolChoice::Named(_)) => true,
        Some(ToolChoice::Required) => request.tools.len() == 1,
        Some(ToolChoice::Among(names, is_required)) => *is_required && names.len() == 1,
        Some(ToolChoice::Auto | ToolChoice::None) | None => false,
    }
}

fn system(w: &mut Writer, request: &Request<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    let turns = request.turns.iter().filter(|turn| turn.role == Role::System);
    for part in turns.flat_map(|turn| &turn.parts) {
        dropped.note_if(part.cache.is_some(), "cache_control");
        if part.as_text().is_none() {
            return Err(Refusal::unsupported("system"));
        }
    }
    let texts: Vec<&str> = request
        .turns
        .iter()
        .filter(|turn| turn.role == Role::System)
        .flat_map(|turn| &turn.parts)
        .filter_map(|part| part.as_text())
        .collect();
    if texts.is_empty() {
        return Ok(());
    }
    w.key("systemInstruction").object();
    w.key("parts").array();
    for text in texts {
        w.object();
        w.key("text").string(text);
        w.end_object();
    }
    w.end_array();
    w.end_object();
    Ok(())
}

fn tools(w: &mut Writer, request: &Request<'_>, dropped: &mut Dropped) {
    if request.tools.is_empty() {
        return;
    }
    w.key("tools").array();
    w.object();
    w.key("functionDeclarations").array();
    for tool in &request.tools {
        dropped.note_if(tool.cache.is_some(), "cache_control");
        dropped.note_if(tool.strict == Some(true), "tools.strict");
        w.object();
        w.key("name").string(&tool.name);
        w.maybe("description", tool.description.as_deref());
        w.maybe_raw("parametersJsonSchema", tool.schema.as_deref());
        w.end_object();
    }
    w.end_array();
    w.end_object();
    w.end_array();
}

fn tool_choice(w: &mut Writer, request: &Request<'_>) {
    let Some(choice) = request.tool_choice.as_ref().filter(|_| !request.tools.is_empty()) else {
        return;
    };
    let (mode, names): (_, Vec<&str>) = match choice {
        ToolChoice::Auto => ("AUTO", Vec::new()),
        ToolChoice::None => ("NONE", Vec::new()),
        ToolChoice::Required => ("ANY", Vec::new()),
        ToolChoice::Named(name) => ("ANY", vec![&**name]),
        ToolChoice::Among(names, is_required) => {
            let mode = if *is_required { "ANY" } else { "VALIDATED" };
            (mode, names.iter().map(AsRef::as_ref).collect())
        }
    };
    w.key("toolConfig").object();
    w.key("functionCallingConfig").object();
    w.key("mode").string(mode);
    if !names.is_empty() {
        w.key("allowedFunctionNames").list(&names);
    }
    w.end_object();
    w.end_object();
}

fn config(w: &mut Writer, request: &Request<'_>, target: Target<'_>) {
    let sampling = &request.sampling;
    w.maybe_number("maxOutputTokens", request.output_tokens_max);
    w.maybe_raw("temperature", sampling.temperature);
    w.maybe_raw("topP", sampling.top_p);
    w.maybe_raw("topK", sampling.top_k);
    w.maybe_raw("seed", sampling.seed);
    w.maybe_raw("frequencyPenalty", sampling.frequency_penalty);
    w.maybe_raw("presencePenalty", sampling.presence_penalty);
    w.maybe_number("candidateCount", request.choices);
    if !request.stop.is_empty() {
        w.key("stopSequences").list(&request.stop);
    }
    match &request.format {
        Format::Text => {}
        Format::Json => w.key("responseMimeType").string("application/json"),
        Format::Schema(schema) => {
            w.key("responseMimeType").string("application/json");
            w.maybe_raw("responseJsonSchema", schema.schema.as_deref());
        }
    }
    if let Some(top) = request.logprobs {
        w.key("responseLogprobs").flag(true);
        w.key("logprobs").number(top);
    }
    thinking(w, request, target);
}

fn thinking(w: &mut Writer, request: &Request<'_>, target: Target<'_>) {
    let reasoning = request.reasoning;
    let is_unsaid = reasoning.as_effort().is_none() && !reasoning.adaptive;
    if is_unsaid && reasoning.shown.is_none() {
        return;
    }
    w.key("thinkingConfig").object();
    if reasoning.shown == Some(true) {
        w.key("includeThoughts").flag(true);
    }
    if target.is_newer {
        let level = reasoning.as_effort().map(|effort| match effort {
            // It cannot be switched off.
            Effort::None | Effort::Minimal => "minimal",
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High | Effort::Xhigh | Effort::Max => "high",
        });
        w.maybe("thinkingLevel", level);
    } else if reasoning.adaptive && reasoning.effort.is_none() {
        w.key("thinkingBudget").raw("-1");
    } else if let Some(effort) = reasoning.as_effort() {
        budget(w, effort, request, target);
    }
    w.end_object();
}

/// A budget for models of the second generation, of which the large ones always think.
fn budget(w: &mut Writer, effort: Effort, request: &Request<'_>, target: Target<'_>) {
    let least = if target.model.contains("pro") { 128 } else { 0 };
    let wanted = request.reasoning.budget_tokens.filter(|_| effort != Effort::None);
    let budget = wanted.unwrap_or(match effort {
        Effort::None => 0,
        Effort::Minimal => 512,
        Effort::Low => 1_024,
        Effort::Medium => 8_192,
        Effort::High | Effort::Xhigh | Effort::Max => 24_576,
    });
    w.key("thinkingBudget").number(budget.max(least));
}
