//! LiteLLM's `model_prices_and_context_window.json`: an object by model name, USD per single unit.
//!
//! A field is a base name and perhaps `_above_200k_tokens` and `_flex` or `_priority`. Fields whose
//! meaning depends on the entry's mode are read in that mode alone (`e-pricing` E.2, traps).
//! Invariant: numbers are taken as they are written; a field with `cost` in its name that is not
//! known is named as left out.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use anima_core::pricing::When;
use anima_core::usage::Meter;

use super::{Listed, decimal, price};

type Members = BTreeMap<String, Box<RawValue>>;

/// Prices per token, whatever the mode.
const TOKENS: [(&str, Meter); 12] = [
    ("input_cost_per_token", Meter::InputTokens),
    ("output_cost_per_token", Meter::OutputTokens),
    ("cache_read_input_token_cost", Meter::CachedInputTokens),
    ("cache_creation_input_token_cost", Meter::CacheWriteTokens),
    ("cache_creation_input_token_cost_above_1hr", Meter::CacheWrite1hTokens),
    ("output_cost_per_reasoning_token", Meter::ReasoningTokens),
    ("input_cost_per_audio_token", Meter::InputAudioTokens),
    ("output_cost_per_audio_token", Meter::OutputAudioTokens),
    ("cache_read_input_audio_token_cost", Meter::CachedInputAudioTokens),
    ("input_cost_per_image_token", Meter::InputImageTokens),
    ("output_cost_per_image_token", Meter::OutputImageTokens),
    ("cache_read_input_image_token_cost", Meter::CachedInputImageTokens),
];

/// Prices per unit: field, mode, meter.
const UNITS: [(&str, &str, Meter); 11] = [
    ("output_cost_per_image", "image_generation", Meter::Images),
    ("output_cost_per_image", "image_edit", Meter::Images),
    ("input_cost_per_image", "video_generation", Meter::InputImages),
    ("input_cost_per_image", "image_edit", Meter::InputImages),
    ("output_cost_per_second", "video_generation", Meter::VideoSeconds),
    ("output_cost_per_video_per_second", "video_generation", Meter::VideoSeconds),
    ("input_cost_per_second", "audio_transcription", Meter::AudioSeconds),
    ("input_cost_per_character", "audio_speech", Meter::Characters),
    ("input_cost_per_query", "rerank", Meter::Queries),
    ("input_cost_per_query", "search", Meter::Queries),
    ("ocr_cost_per_page", "ocr", Meter::Pages),
];

/// Fees for the provider's own tools, whatever the mode: field, how many it is for, meter.
const FEES: [(&str, u64, Meter); 2] = [
    ("file_search_cost_per_1k_calls", 1_000, Meter::FileSearchCalls),
    ("code_interpreter_cost_per_session", 1, Meter::CodeSessions),
];

/// An example of the shape, not a model.
const SAMPLE: &str = "sample_spec";

/// Reads a file.
///
/// # Errors
/// That it is no such JSON.
pub(super) fn read(text: &str) -> Result<Vec<Listed>, String> {
    let models: Members = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut listed = Vec::new();
    for (key, entry) in models.iter().filter(|(key, _)| *key != SAMPLE) {
        let members: Members = serde_json::from_str(entry.get()).map_err(|e| {
            format!("{key}: expected an object, as LiteLLM's model prices have it: {e}")
        })?;
        let word = |name: &str| {
            let text = members.get(name).map(|raw| raw.get());
            text.and_then(|text| serde_json::from_str::<String>(text).ok()).unwrap_or_default()
        };
        let mut one = Listed::new(&word("litellm_provider"), key, &word("mode"));
        if let Err(fault) = take_all(&members, 0, &mut one) {
            // One bad entry among thousands is told to who asks for it.
            one.meters.clear();
            one.left_out = vec![fault];
        }
        let retires = word("deprecation_date");
        if !retires.is_empty() {
            one.remarks.push(format!("retires {retires}"));
        }
        if !one.meters.is_empty() || !one.left_out.is_empty() {
            listed.push(one);
        }
    }
    Ok(listed)
}

/// Takes the prices of an entry, or of one of its tiers that begins above `over` tokens.
fn take_all(members: &Members, over: u64, one: &mut Listed) -> Result<(), String> {
    for (name, raw) in members.iter().filter(|(_, raw)| raw.get() != "null") {
        match name.as_str() {
            "tiered_pricing" => take_tiers(raw, one)?,
            "search_context_cost_per_query" => take_searches(name, raw, one),
            _ => take(name, raw, over, one)?,
        }
    }
    Ok(())
}

fn take(name: &str, raw: &RawValue, over: u64, one: &mut Listed) -> Result<(), String> {
    let (field, mut when) = qualified(name);
    if over > 0 {
        when.input_tokens_over = Some(over);
    }
    // A song of Lyria's is written as an image.
    let is_song = one.model.contains("lyria");
    let unit = |(known, mode, _): &&(&str, &str, Meter)| *known == field && *mode == one.mode;
    let (meter, per, power) = if let Some((_, meter)) = TOKENS.iter().find(|t| t.0 == field) {
        (*meter, 1_000_000, 6)
    } else if let Some((_, _, meter)) = UNITS.iter().find(unit).filter(|_| !is_song) {
        (*meter, 1, 0)
    } else if let Some((_, per, meter)) = FEES.iter().find(|fee| fee.0 == field) {
        (*meter, *per, 0)
    } else {
        let is_money = name.contains("cost") || name.contains("pricing");
        if is_money && !decimal::is_zero(raw.get()) {
            one.left_out.push(name.to_owned());
        }
        return Ok(());
    };
    let text = raw.get();
    let amount = decimal::shifted(text.trim_matches('"'), power);
    let amount = amount.ok_or_else(|| format!("`{name}`: {text} is not a number"))?;
    one.take(name, price(meter, per, amount, when));
    Ok(())
}

/// A field's base name, and when it applies.
fn qualified(name: &str) -> (&str, When) {
    let mut when = When::default();
    let mut field = name;
    for tier in ["flex", "priority"] {
        if let Some(rest) = field.strip_suffix(tier).and_then(|rest| rest.strip_suffix('_')) {
            when.service_tier = Some(tier.to_owned());
            field = rest;
            break;
        }
    }
    let bound = field.strip_suffix("k_tokens").and_then(|rest| rest.rsplit_once("_above_"));
    if let Some((rest, thousands)) = bound
        && let Some(over) = thousands.parse::<u64>().ok().and_then(|n| n.checked_mul(1_000))
    {
        when.input_tokens_over = Some(over);
        field = rest;
    }
    (field, when)
}

/// `[{"range": [32000, 128000], "input_cost_per_token": …}]`
fn take_tiers(raw: &RawValue, one: &mut Listed) -> Result<(), String> {
    let wrong = || "`tiered_pricing`: expected tiers, each with its `range`".to_owned();
    let Ok(tiers) = serde_json::from_str::<Vec<Members>>(raw.get()) else { return Err(wrong()) };
    for mut tier in tiers {
        let range = tier.remove("range").ok_or_else(wrong)?;
        let bounds: Vec<Box<RawValue>> = serde_json::from_str(range.get())
            .map_err(|e| format!("`tiered_pricing`: `range`: {e}"))?;
        let start = bounds.first().and_then(|start| decimal::shifted(start.get(), 0));
        let over = start.and_then(|start| start.parse().ok()).ok_or_else(wrong)?;
        take_all(&tier, over, one)?;
    }
    Ok(())
}

/// A search costs the same whatever its size, or cannot be told.
fn take_searches(name: &str, raw: &RawValue, one: &mut Listed) {
    let sizes: Members = serde_json::from_str(raw.get()).unwrap_or_default();
    let amounts: Option<Vec<_>> =
        sizes.values().map(|amount| decimal::shifted(amount.get(), 0)).collect();
    let amounts = amounts.unwrap_or_default();
    match amounts.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => {
            one.take(name, price(Meter::SearchCalls, 1, first.clone(), When::default()));
        }
        Some(_) | None => one.left_out.push(name.to_owned()),
    }
}
