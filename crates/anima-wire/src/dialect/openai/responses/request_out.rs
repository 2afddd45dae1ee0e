//! A request in the canonical form, written for Responses.
//!
//! Nothing is stored at OpenAI, since nobody could ask for it; thoughts are asked for sealed.
//! Invariant: what is not written is in `Dropped`, or the whole request is refused.
//! Sources: `a-inbound` A.1.2, `c-conversion` C.1, C.2 and C.4.

use super::items_out;
use crate::canonical::{Carried, Dropped, Effort, Format, Refusal, Request};
use crate::dialect::openai::chat::{write_function, write_schema, write_tool_choice};
use crate::dialect::openai::models::{self, Maker};
use crate::json::Writer;

/// Writes a request for this model.
pub(crate) fn write(request: &Request<'_>, model: &str) -> Result<Carried, Refusal> {
    let mut dropped = Dropped::default();
    check(request, &mut dropped)?;
    let habits = models::habits(Maker::Anyone, model, &request.reasoning);
    let mut takes = |name: &'static str, is_there: bool| {
        let lacks = habits.lacks.contains(&name);
        dropped.note_if(is_there && lacks, name);
        is_there && !lacks
    };
    let has_logprobs = takes("logprobs", request.logprobs.is_some());
    let sampling = &request.sampling;
    let temperature = sampling.temperature.filter(|_| takes("temperature", true));
    let top_p = sampling.top_p.filter(|_| takes("top_p", true));
    let mut w = Writer::with_capacity(1024);
    w.object();
    w.key("model").string(model);
    w.key("input").array();
    items_out::write(&mut w, &request.turns, &mut dropped)?;
    w.end_array();
    if request.stream {
        w.key("stream").flag(true);
    }
    w.key("store").flag(false);
    w.key("include").array();
    w.string("reasoning.encrypted_content");
    if has_logprobs {
        w.string("message.output_text.logprobs");
    }
    w.end_array();
    w.maybe_number("top_logprobs", request.logprobs.filter(|_| has_logprobs));
    // Below 16 it is refused; but what the client has set is what it will pay for.
    w.maybe_number("max_output_tokens", request.output_tokens_max);
    tools(&mut w, request);
    format(&mut w, &request.format);
    reasoning(&mut w, request);
    w.maybe_raw("temperature", temperature);
    w.maybe_raw("top_p", top_p);
    w.maybe("safety_identifier", request.user.as_deref());
    w.maybe("service_tier", request.service_tier.as_deref());
    w.maybe("prompt_cache_key", request.cache_key.as_deref());
    w.end_object();
    Ok(Carried { body: w.finish(), dropped })
}

fn check(request: &Request<'_>, dropped: &mut Dropped) -> Result<(), Refusal> {
    if request.choices.is_some_and(|choices| choices > 1) {
        return Err(Refusal::unsupported("n"));
    }
    if !request.stop.is_empty() {
        return Err(Refusal::unsupported("stop"));
    }
    request.unplaced.iter().for_each(|name| dropped.note_unplaced(name));
    let sampling = &request.sampling;
    dropped.note_if(request.cache.is_some(), "cache_control");
    dropped.note_if(sampling.top_k.is_some(), "top_k");
    dropped.note_if(sampling.seed.is_some(), "seed");
    dropped.note_if(sampling.frequency_penalty.is_some(), "frequency_penalty");
    dropped.note_if(sampling.presence_penalty.is_some(), "presence_penalty");
    dropped.note_if(sampling.logit_bias.is_some(), "logit_bias");
    dropped.note_if(request.tools.iter().any(|tool| tool.cache.is_some()), "cache_control");
    Ok(())
}

fn tools(w: &mut Writer, request: &Request<'_>) {
    if request.tools.is_empty() {
        return;
    }
    w.key("tools").array();
    for tool in &request.tools {
        w.object();
        w.key("type").string("function");
        write_function(w, tool);
        // Here the habit is to be strict, which most schemas are not made for.
        if tool.strict.is_none() {
            w.key("strict").flag(false);
        }
        w.end_object();
    }
    w.end_array();
    if let Some(choice) = &request.tool_choice {
        w.key("tool_choice");
        write_tool_choice(w, choice, false);
    }
    if let Some(parallel) = request.parallel_tool_calls {
        w.key("parallel_tool_calls").flag(parallel);
    }
}

fn format(w: &mut Writer, format: &Format<'_>) {
    if *format == Format::Text {
        return;
    }
    w.key("text").object();
    w.key("format").object();
    if let Format::Schema(schema) = format {
        w.key("type").string("json_schema");
        write_schema(w, schema);
    } else {
        w.key("type").string("json_object");
    }
    w.end_object();
    w.end_object();
}

fn reasoning(w: &mut Writer, request: &Request<'_>) {
    let effort = request.reasoning.as_effort();
    let shown = request.reasoning.shown == Some(true);
    if effort.is_none() && !shown {
        return;
    }
    w.key("reasoning").object();
    w.maybe("effort", effort.map(Effort::word));
    w.maybe("summary", shown.then_some("auto"));
    w.end_object();
}
