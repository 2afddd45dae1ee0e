//! A request in the canonical form, written for Messages.
//!
//! Thinking is where models differ most: older ones want a budget, newer ones an effort, and both
//! refuse what does not go with it (forced tools, sampling, turns without signed thoughts).
//! Invariant: what is not written is in `Dropped`, or the whole request is refused.
//! Sources: `b-outbound-chat` B.3, `c-conversion` C.1, C.2, C.4, C.5.

use super::content_out;
use super::models::Sampling as Takes;
use crate::canonical::{
    Cache, Carried, Dropped, Effort, Format, Issuer, Refusal, Request, Role, ToolChoice, Turn,
    paired,
};
use crate::json::Writer;

/// Who will read the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The model, as the provider names it.
    pub(crate) model: &'a str,
    /// Whether the model wants a budget for its thoughts; newer ones want an effort.
    pub(crate) thinks_by_budget: bool,
}

/// What is generated at most for a client that sets no limit, since the dialect demands one. The
/// oldest models that are still served take no more.
const OUTPUT_TOKENS_DEFAULT: u64 = 4_096;

/// The smallest budget for thoughts that is accepted.
const BUDGET_TOKENS_MIN: u64 = 1_024;

/// The instruction that stands for a wish for JSON without a schema.
const JSON_INSTRUCTION: &str = "Answer with one JSON object and nothing else.";

/// What a request comes to once the dialect's own rules are applied.
struct Shaped<'r, 'a> {
    request: &'r Request<'a>,
    turns: Vec<Turn<'a>>,
    thinking: Thinking,
    output_tokens_max: u64,
}

/// How the model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinking {
    /// As is its habit.
    Unsaid,
    Off,
    Budget(u64),
    Effort(Option<Effort>),
}

impl Thinking {
    const fn is_on(self) -> bool {
        matches!(self, Self::Budget(_) | Self::Effort(_))
    }
}

/// Writes a request.
pub(crate) fn write(request: &Request<'_>, target: Target<'_>) -> Result<Carried, Refusal> {
    let mut dropped = Dropped::default();
    let shaped = shape(request, target, &mut dropped)?;
    let mut w = Writer::with_capacity(1024);
    w.object();
    w.key("model").string(target.model);
    w.key("max_tokens").number(shaped.output_tokens_max);
    system(&mut w, request, &mut dropped)?;
    w.key("messages").array();
    content_out::messages(&mut w, &shaped.turns, &mut dropped)?;
    w.end_array();
    if request.stream {
        w.key("stream").flag(true);
    }
    tools(&mut w, request);
    tool_choice(&mut w, request);
    thinking(&mut w, &shaped);
    sampling(&mut w, &shaped, Takes::of(target.model), &mut dropped);
    if let Some(user) = &request.user {
        w.key("metadata").object();
        w.key("user_id").string(user);
        w.end_object();
    }
    service_tier(&mut w, request, &mut dropped);
    if let Some(kept) = request.cache {
        cache(&mut w, kept);
    }
    w.end_object();
    Ok(Carried { body: w.finish(), dropped })
}

fn shape<'r, 'a>(
    request: &'r Request<'a>,
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<Shaped<'r, 'a>, Refusal> {
    if request.choices.is_some_and(|choices| choices > 1) {
        return Err(Refusal::unsupported("n"));
    }
    if request.logprobs.is_some() {
        return Err(Refusal::unsupported("logprobs"));
    }
    request.unplaced.iter().for_each(|name| dropped.note_unplaced(name));
    dropped.note_if(request.cache_key.is_some(), "prompt_cache_key");
    let turns = paired(&request.turns);
    let wanted = wanted(request, target);
    let forced = matches!(
        request.tool_choice,
        Some(ToolChoice::Required | ToolChoice::Named(_) | ToolChoice::Among(_, true))
    );
    let unfit = wanted.is_on() && (forced || lacks_thoughts(&turns));
    let thinking = if unfit { Thinking::Off } else { wanted };
    let (thinking, output_tokens_max) = within(thinking, request.output_tokens_max);
    dropped.note_if(wanted.is_on() && !thinking.is_on(), "reasoning_effort");
    Ok(Shaped { request, turns, thinking, output_tokens_max })
}

/// The budget is part of the limit, and the answer needs room behind it. A limit that the client
/// has set is what it will pay for, so that the budget gives way; ours grows by the budget.
fn within(thinking: Thinking, limit: Option<u64>) -> (Thinking, u64) {
    let Thinking::Budget(budget) = thinking else {
        return (thinking, limit.unwrap_or(OUTPUT_TOKENS_DEFAULT).max(1));
    };
    let Some(limit) = limit else {
        return (thinking, budget.saturating_add(OUTPUT_TOKENS_DEFAULT));
    };
    if budget < limit {
        (thinking, limit)
    } else if limit / 2 >= BUDGET_TOKENS_MIN {
        (Thinking::Budget(limit / 2), limit)
    } else {
        (Thinking::Off, limit.max(1))
    }
}

/// How the model shall think by the client's wish.
fn wanted(request: &Request<'_>, target: Target<'_>) -> Thinking {
    let reasoning = request.reasoning;
    match (reasoning.effort, reasoning.budget_tokens) {
        (Some(Effort::None), None) => Thinking::Off,
        (None, None) if !reasoning.adaptive => Thinking::Unsaid,
        (_, Some(budget)) if target.thinks_by_budget => {
            Thinking::Budget(budget.max(BUDGET_TOKENS_MIN))
        }
        (effort, _) if target.thinks_by_budget => {
            Thinking::Budget(effort.unwrap_or(Effort::Medium).budget_tokens())
        }
        (_, _) => Thinking::Effort(reasoning.as_effort()),
    }
}

/// Whether the conversation stands behind a call that lacks its signed thoughts. With thinking
/// switched on such a conversation is refused.
fn lacks_thoughts(turns: &[Turn<'_>]) -> bool {
    let Some(turn) = turns.iter().rfind(|turn| turn.role == Role::Assistant) else {
        return false;
    };
    let open = turns.last().is_some_and(|last| {
        last.parts.iter().any(|part| part.as_result().is_some())
            && last.parts.iter().all(|part| part.as_result().is_some())
    });
    open && !turn.parts.iter().any(|part| content_out::is_own_thought(part))
}

fn system(w: &mut Writer, request: &Request<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    let parts: Vec<_> = request
        .turns
        .iter()
        .filter(|turn| turn.role == Role::System)
        .flat_map(|turn| &turn.parts)
        .filter(|part| part.as_text() != Some(""))
        .collect();
    let wants_json = request.format == Format::Json;
    if parts.is_empty() && !wants_json {
        return Ok(());
    }
    w.key("system").array();
    for part in parts {
        content_out::block(w, part, dropped)?;
    }
    if wants_json {
        w.object();
        w.key("type").string("text");
        w.key("text").string(JSON_INSTRUCTION);
        w.end_object();
    }
    w.end_array();
    Ok(())
}

fn tools(w: &mut Writer, request: &Request<'_>) {
    let allowed = |name: &str| match &request.tool_choice {
        Some(ToolChoice::Among(names, _)) => names.iter().any(|allowed| allowed == name),
        Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::Named(_))
        | None => true,
    };
    if request.tools.is_empty() {
        return;
    }
    w.key("tools").array();
    for tool in request.tools.iter().filter(|tool| allowed(&tool.name)) {
        w.object();
        w.key("name").string(&tool.name);
        w.maybe("description", tool.description.as_deref());
        w.key("input_schema")
            .raw(tool.schema.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#));
        if let Some(strict) = tool.strict {
            w.key("strict").flag(strict);
        }
        if let Some(kept) = tool.cache {
            cache(w, kept);
        }
        w.end_object();
    }
    w.end_array();
}

fn tool_choice(w: &mut Writer, request: &Request<'_>) {
    let serial = request.parallel_tool_calls.map(|parallel| !parallel);
    if request.tools.is_empty() || (request.tool_choice.is_none() && serial.is_none()) {
        return;
    }
    w.key("tool_choice").object();
    let (kind, name) = match &request.tool_choice {
        None | Some(ToolChoice::Auto | ToolChoice::Among(_, false)) => ("auto", None),
        Some(ToolChoice::None) => ("none", None),
        Some(ToolChoice::Required | ToolChoice::Among(_, true)) => ("any", None),
        Some(ToolChoice::Named(name)) => ("tool", Some(&**name)),
    };
    w.key("type").string(kind);
    w.maybe("name", name);
    if let Some(serial) = serial.filter(|_| kind != "none") {
        w.key("disable_parallel_tool_use").flag(serial);
    }
    w.end_object();
}

/// Writes how to think, and the form of the answer, which shares a member with the effort.
fn thinking(w: &mut Writer, shaped: &Shaped<'_, '_>) {
    let effort = match shaped.thinking {
        Thinking::Unsaid => None,
        Thinking::Off => {
            w.key("thinking").object();
            w.key("type").string("disabled");
            w.end_object();
            None
        }
        Thinking::Budget(budget) => {
            w.key("thinking").object();
            w.key("type").string("enabled");
            w.key("budget_tokens").number(budget);
            w.end_object();
            None
        }
        Thinking::Effort(effort) => {
            w.key("thinking").object();
            w.key("type").string("adaptive");
            w.maybe(
                "display",
                (shaped.request.reasoning.shown == Some(false)).then_some("omitted"),
            );
            w.end_object();
            effort
        }
    };
    // The dialect has no word below `low`.
    let effort = effort.map(|effort| effort.max(Effort::Low));
    let schema =
        if let Format::Schema(schema) = &shaped.request.format { Some(schema) } else { None };
    if effort.is_none() && schema.is_none() {
        return;
    }
    w.key("output_config").object();
    w.maybe("effort", effort.map(Effort::word));
    if let Some(schema) = schema {
        w.key("format").object();
        w.key("type").string("json_schema");
        w.key("schema").raw(schema.schema.as_deref().unwrap_or("{}"));
        w.end_object();
    }
    w.end_object();
}

fn sampling(w: &mut Writer, shaped: &Shaped<'_, '_>, takes: Takes, dropped: &mut Dropped) {
    let sampling = &shaped.request.sampling;
    if shaped.thinking.is_on() || takes == Takes::None {
        // Refused next to thoughts, and by the newest models at all.
        dropped.note_if(sampling.temperature.is_some(), "temperature");
        dropped.note_if(sampling.top_p.is_some(), "top_p");
        dropped.note_if(sampling.top_k.is_some(), "top_k");
    } else {
        let too_hot = |number: &str| number.parse::<f64>().is_ok_and(|number| number > 1.0);
        let clamped = |number| if too_hot(number) { "1" } else { number };
        w.maybe_raw("temperature", sampling.temperature.map(clamped));
        let excluded = takes == Takes::OneOfTwo && sampling.temperature.is_some();
        dropped.note_if(excluded && sampling.top_p.is_some(), "top_p");
        w.maybe_raw("top_p", sampling.top_p.filter(|_| !excluded));
        w.maybe_raw("top_k", sampling.top_k);
    }
    dropped.note_if(sampling.seed.is_some(), "seed");
    dropped.note_if(sampling.frequency_penalty.is_some(), "frequency_penalty");
    dropped.note_if(sampling.presence_penalty.is_some(), "presence_penalty");
    dropped.note_if(sampling.logit_bias.is_some(), "logit_bias");
    // White space alone is refused as a stop text.
    let says = |text: &&std::borrow::Cow<'_, str>| !text.trim().is_empty();
    let stop: Vec<_> = shaped.request.stop.iter().filter(says).collect();
    dropped.note_if(stop.len() < shaped.request.stop.len(), "stop");
    if !stop.is_empty() {
        w.key("stop_sequences").list(&stop);
    }
}

fn service_tier(w: &mut Writer, request: &Request<'_>, dropped: &mut Dropped) {
    match request.service_tier.as_deref() {
        Some("auto") => w.key("service_tier").string("auto"),
        Some("default" | "standard_only") => w.key("service_tier").string("standard_only"),
        Some(_) => dropped.note("service_tier"),
        None => {}
    }
}

/// Writes a breakpoint.
pub(super) fn cache(w: &mut Writer, cache: Cache) {
    w.key("cache_control").object();
    w.key("type").string("ephemeral");
    w.maybe("ttl", (cache == Cache::Long).then_some("1h"));
    w.end_object();
}

/// Whose signatures stay.
pub(super) const OWN: Issuer = Issuer::Anthropic;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_the_client_has_set_is_never_raised_for_thoughts() {
        assert_eq!(
            within(Thinking::Budget(8_192), Some(20_000)),
            (Thinking::Budget(8_192), 20_000)
        );
        assert_eq!(within(Thinking::Budget(8_192), Some(4_000)), (Thinking::Budget(2_000), 4_000));
        assert_eq!(within(Thinking::Budget(8_192), Some(2_000)), (Thinking::Off, 2_000));
        let ours = 8_192 + OUTPUT_TOKENS_DEFAULT;
        assert_eq!(within(Thinking::Budget(8_192), None), (Thinking::Budget(8_192), ours));
        assert_eq!(within(Thinking::Unsaid, None), (Thinking::Unsaid, OUTPUT_TOKENS_DEFAULT));
    }
}
