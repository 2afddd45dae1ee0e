//! A request in the canonical form, written as a chat completion's.
//!
//! Not the messages, which are next door. Usage of a stream is always asked for; the reader hides
//! it from clients that did not ask. Invariant: what is not written is in `Dropped`, or the whole
//! request is refused. Sources: `a-inbound` A.1.2, `b-outbound-chat` B.3, `c-conversion` C.1.

use super::messages_out;
use crate::canonical::{Carried, Dropped, Format, Refusal, Request, Schema, Tool, ToolChoice};
use crate::dialect::openai::models::{self, Habits};
use crate::dialect::openai::quirks::Quirks;
use crate::json::Writer;

/// Who will read the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The model, as the provider names it.
    pub(crate) model: &'a str,
    /// Whether it is OpenAI itself, which knows newer members and refuses foreign ones, and not
    /// one of those who copy it.
    pub(crate) is_openai: bool,
    /// What the vendor wants otherwise.
    pub(crate) quirks: &'static Quirks,
}

impl Target<'_> {
    /// What the model wants otherwise.
    pub(super) fn habits(&self, request: &Request<'_>) -> &'static Habits {
        models::habits(self.quirks.maker, self.model, &request.reasoning)
    }

    /// Whether a member can be sent. If not, and if it is there, it is named.
    fn takes(
        &self,
        habits: &Habits,
        (name, is_there): (&'static str, bool),
        dropped: &mut Dropped,
    ) -> bool {
        let lacks = habits.lacks.contains(&name);
        dropped.note_if(is_there && lacks, name);
        !lacks && self.quirks.takes(name, is_there, dropped)
    }
}

/// Writes a request.
pub(crate) fn write(request: &Request<'_>, target: Target<'_>) -> Result<Carried, Refusal> {
    let mut dropped = Dropped::default();
    request.unplaced.iter().for_each(|name| dropped.note_unplaced(name));
    dropped.note_if(request.cache.is_some(), "cache_control");
    let mut w = Writer::with_capacity(1024);
    w.object();
    w.key("model").string(target.model);
    w.key("messages").array();
    messages_out::write(&mut w, request, target, &mut dropped)?;
    w.end_array();
    if request.stream {
        w.key("stream").flag(true);
    }
    if request.stream && target.quirks.asks_usage {
        w.key("stream_options").object();
        w.key("include_usage").flag(true);
        w.end_object();
    }
    tools(&mut w, request, target, &mut dropped)?;
    format(&mut w, &request.format);
    let habits = target.habits(request);
    let is_newer = target.is_openai || habits.is_newer;
    let cap = if is_newer { "max_completion_tokens" } else { "max_tokens" };
    w.maybe_number(cap, request.output_tokens_max);
    sampling(&mut w, request, target, &mut dropped)?;
    let quirks = target.quirks;
    quirks.think(&mut w, &request.reasoning, &mut dropped);
    if let Some(top) = request.logprobs
        && target.takes(habits, ("logprobs", true), &mut dropped)
    {
        w.key("logprobs").flag(true);
        w.key("top_logprobs").number(top);
    }
    for (name, value) in [
        ("user", &request.user),
        ("service_tier", &request.service_tier),
        ("prompt_cache_key", &request.cache_key),
    ] {
        if quirks.takes(name, value.is_some(), &mut dropped) {
            w.maybe(name, value.as_deref());
        }
    }
    if let Some((name, json)) = quirks.extra {
        w.key(name).raw(json);
    }
    w.end_object();
    Ok(Carried { body: w.finish(), dropped })
}

fn tools(
    w: &mut Writer,
    request: &Request<'_>,
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    if request.tools.is_empty() {
        return Ok(());
    }
    w.key("tools").array();
    for tool in &request.tools {
        dropped.note_if(tool.cache.is_some(), "cache_control");
        w.object();
        w.key("type").string("function");
        w.key("function").object();
        if target.quirks.takes("tools.strict", tool.strict.is_some(), dropped) {
            function(w, tool);
        } else {
            function(w, &Tool { strict: None, ..tool.clone() });
        }
        w.end_object();
        w.end_object();
    }
    w.end_array();
    if let Some(choice) = &request.tool_choice {
        w.key("tool_choice");
        match choice {
            ToolChoice::Required => w.string(target.quirks.must_call()?),
            ToolChoice::Auto | ToolChoice::None | ToolChoice::Named(_) | ToolChoice::Among(..) => {
                tool_choice(w, choice, true);
            }
        }
    }
    let parallel = request.parallel_tool_calls;
    if target.quirks.takes("parallel_tool_calls", parallel.is_some(), dropped) {
        w.key("parallel_tool_calls").flag(parallel.unwrap_or(true));
    }
    Ok(())
}

/// Writes the members that describe a function.
pub(crate) fn function(w: &mut Writer, tool: &Tool<'_>) {
    w.key("name").string(&tool.name);
    w.maybe("description", tool.description.as_deref());
    w.maybe_raw("parameters", tool.schema.as_deref());
    if let Some(strict) = tool.strict {
        w.key("strict").flag(strict);
    }
}

/// Writes a choice; chat nests names where Responses does not.
pub(crate) fn tool_choice(w: &mut Writer, choice: &ToolChoice<'_>, nested: bool) {
    match choice {
        ToolChoice::Auto => w.string("auto"),
        ToolChoice::None => w.string("none"),
        ToolChoice::Required => w.string("required"),
        ToolChoice::Named(name) => named(w, name, nested),
        ToolChoice::Among(names, required) => {
            w.object();
            w.key("type").string("allowed_tools");
            if nested {
                w.key("allowed_tools").object();
            }
            w.key("mode").string(if *required { "required" } else { "auto" });
            w.key("tools").array();
            for name in names {
                named(w, name, nested);
            }
            w.end_array();
            if nested {
                w.end_object();
            }
            w.end_object();
        }
    }
}

fn named(w: &mut Writer, name: &str, nested: bool) {
    w.object();
    w.key("type").string("function");
    if nested {
        w.key("function").object();
    }
    w.key("name").string(name);
    if nested {
        w.end_object();
    }
    w.end_object();
}

fn format(w: &mut Writer, format: &Format<'_>) {
    match format {
        Format::Text => {}
        Format::Json => {
            w.key("response_format").object();
            w.key("type").string("json_object");
            w.end_object();
        }
        Format::Schema(inner) => {
            w.key("response_format").object();
            w.key("type").string("json_schema");
            w.key("json_schema").object();
            schema(w, inner);
            w.end_object();
            w.end_object();
        }
    }
}

/// Writes the members that describe a schema. A name is required, so one is made up if need be.
pub(crate) fn schema(w: &mut Writer, schema: &Schema<'_>) {
    w.key("name").string(schema.name.as_deref().unwrap_or("answer"));
    w.maybe("description", schema.description.as_deref());
    w.maybe_raw("schema", schema.schema.as_deref());
    if let Some(strict) = schema.strict {
        w.key("strict").flag(strict);
    }
}

fn sampling(
    w: &mut Writer,
    request: &Request<'_>,
    target: Target<'_>,
    dropped: &mut Dropped,
) -> Result<(), Refusal> {
    let (sampling, quirks) = (&request.sampling, target.quirks);
    let habits = target.habits(request);
    let temperature = sampling.temperature.map(|told| quirks.warmth(told, dropped));
    let nucleus = sampling.top_p.map(|told| quirks.nucleus(told, dropped));
    for (name, value) in [
        ("temperature", temperature),
        ("top_p", nucleus),
        ("top_k", sampling.top_k),
        ("frequency_penalty", sampling.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty),
        ("logit_bias", sampling.logit_bias),
    ] {
        if target.takes(habits, (name, value.is_some()), dropped) {
            w.maybe_raw(name, value);
        }
    }
    w.maybe_raw(quirks.seed, sampling.seed);
    let choices = request.choices.filter(|choices| quirks.choices || *choices != 1);
    if choices.is_some() && !quirks.choices {
        return Err(Refusal::unsupported("n"));
    }
    w.maybe_number("n", choices);
    let is_over = quirks.stops_max.is_some_and(|most| request.stop.len() > most);
    if is_over || (!request.stop.is_empty() && !habits.stops) {
        return Err(Refusal::unsupported("stop"));
    }
    if !request.stop.is_empty() {
        w.key("stop").list(&request.stop);
    }
    Ok(())
}
