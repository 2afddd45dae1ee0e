//! Gemini's usage, in and out of disjoint meters.
//!
//! The prompt includes what was cached, the candidates exclude thoughts, and results of tools that
//! ran at Google are counted apart and are input. In a stream each chunk has the sum so far.
//! Invariant: the meters add up to the total, and totals that had to be bent are flagged as
//! suspect. Source: `a-inbound` A.3.3, `c-conversion` C.6.

use std::borrow::Cow;

use anima_core::usage::{Meter, Usage};

use super::request_in::either;
use crate::canonical::tier as words;
use crate::dialect::openai::chat::cached;
use crate::dialect::openai::usage::{Count, Prompt, Report};
use crate::json::{Node, Writer};

/// A list of counts by modality. Video and documents have the prices of images or text at Google,
/// and no meters of their own.
#[derive(Default)]
struct Kinds {
    audio: u64,
    image: u64,
}

impl Kinds {
    fn read(list: Option<Node<'_, '_>>) -> Self {
        let mut kinds = Self::default();
        for entry in list.iter().flat_map(Node::elements) {
            let tokens = either(entry, "tokenCount", "token_count");
            let tokens = tokens.and_then(|tokens| tokens.unsigned()).unwrap_or(0);
            match entry.text_of("modality").as_deref() {
                Some("AUDIO") => kinds.audio = kinds.audio.saturating_add(tokens),
                Some("IMAGE") => kinds.image = kinds.image.saturating_add(tokens),
                Some(_) | None => {}
            }
        }
        kinds
    }
}

/// Reads a usage object.
pub(crate) fn read(node: Node<'_, '_>) -> Report {
    let count = |camel, snake| {
        let found = either(node, camel, snake);
        found.map_or(Count::Absent, |found| Count::of(found.kind(), found.raw()))
    };
    let prompt = count("promptTokenCount", "prompt_token_count");
    let cached = count("cachedContentTokenCount", "cached_content_token_count");
    let candidates = count("candidatesTokenCount", "candidates_token_count");
    let thoughts = count("thoughtsTokenCount", "thoughts_token_count");
    let tools = count("toolUsePromptTokenCount", "tool_use_prompt_token_count");
    let total = count("totalTokenCount", "total_token_count");
    let all = [prompt, cached, candidates, thoughts, tools, total];
    if all.iter().all(|count| *count == Count::Absent) {
        return Report::default();
    }
    if all.contains(&Count::Unreadable) || prompt == Count::Absent {
        return Report { usage: None, suspect: true };
    }
    let of = |count: Count| count.value().unwrap_or(0).min(Usage::LIMIT * 2);
    let sum = of(prompt) + of(tools) + of(candidates) + of(thoughts);
    // Where a total says more than its parts, what was not told is thoughts.
    let untold = match total.value() {
        Some(total) if thoughts == Count::Absent => total.saturating_sub(sum),
        Some(_) | None => 0,
    };
    let reasoning = of(thoughts).saturating_add(untold);
    let mut suspect = total.value().is_some_and(|total| total != sum + untold);
    suspect |= all.iter().any(|count| count.value().is_some_and(|count| count > Usage::LIMIT));

    let list = |camel, snake| Kinds::read(either(node, camel, snake));
    let heard = list("promptTokensDetails", "prompt_tokens_details");
    let kept = list("cacheTokensDetails", "cache_tokens_details");
    let made = list("candidatesTokensDetails", "candidates_tokens_details");
    let mut usage = Prompt {
        whole: of(prompt) + of(tools),
        audio: heard.audio,
        image: heard.image,
        cached: of(cached),
        cached_audio: kept.audio,
        cached_image: kept.image,
        ..Prompt::default()
    }
    .split();
    let mut left = of(candidates);
    for (meter, count) in
        [(Meter::OutputAudioTokens, made.audio), (Meter::OutputImageTokens, made.image)]
    {
        suspect |= count > left;
        usage.set(meter, count.min(left));
        left -= count.min(left);
    }
    usage.set(Meter::OutputTokens, left);
    usage.set(Meter::ReasoningTokens, reasoning);
    Report { usage: Some(usage), suspect }
}

/// The tier that was used, in OpenAI's words. Vertex tells it as the type of traffic:
/// `ON_DEMAND` is the standard, and before the others stands the same (`ON_DEMAND_PRIORITY`,
/// `ON_DEMAND_FLEX`), but for what was bought beforehand (`PROVISIONED_THROUGHPUT`).
pub(super) fn tier<'a>(node: Node<'_, 'a>) -> Option<Cow<'a, str>> {
    let told = |camel, snake| either(node, camel, snake).and_then(|tier| tier.text());
    let tier = told("serviceTier", "service_tier").or_else(|| told("trafficType", "traffic_type"));
    let tier = tier?.to_ascii_lowercase();
    if tier.ends_with("unspecified") {
        return None;
    }
    match tier.strip_prefix("on_demand").unwrap_or(&tier).trim_start_matches('_') {
        "" | "standard" => Some(Cow::Borrowed("default")),
        tier => Some(Cow::Owned(tier.to_owned())),
    }
}

/// Writes meters as a usage object, with the tier.
pub(super) fn write(w: &mut Writer, usage: &Usage, served: Option<&str>) {
    let thoughts = usage.of(Meter::ReasoningTokens);
    let (input, output) = (usage.input_tokens(), usage.output_tokens());
    let positive = |count: u64| Some(count).filter(|count| *count > 0);
    w.object();
    w.key("promptTokenCount").number(input);
    w.maybe_number("cachedContentTokenCount", positive(cached(usage)));
    w.key("candidatesTokenCount").number(output.saturating_sub(thoughts));
    w.maybe_number("thoughtsTokenCount", positive(thoughts));
    w.key("totalTokenCount").number(input + output);
    w.maybe("serviceTier", served.and_then(words::of_gemini));
    w.end_object();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::Outline;

    fn report(object: &str) -> Report {
        read(Outline::read(object.as_bytes()).unwrap().root())
    }

    #[test]
    fn what_a_total_has_more_than_its_parts_is_thoughts() {
        let found =
            report(r#"{"prompt_token_count":5,"candidates_token_count":2,"total_token_count":17}"#);
        assert!(!found.suspect);
        assert_eq!(found.usage.unwrap().of(Meter::ReasoningTokens), 10);
    }

    #[test]
    fn nonsense_is_no_report_or_suspect() {
        for object in [r#"{"promptTokenCount":-1}"#, r#"{"candidatesTokenCount":3}"#] {
            assert_eq!(report(object), Report { usage: None, suspect: true }, "{object}");
        }
        assert_eq!(report("{}"), Report::default());
        for object in [
            r#"{"promptTokenCount":5,"totalTokenCount":4}"#,
            r#"{"promptTokenCount":99999999999999999999}"#,
        ] {
            assert!(report(object).suspect, "{object}");
        }
    }

    #[test]
    fn what_is_cached_of_a_sound_without_details_is_text_first() {
        let found = report(
            r#"{"promptTokenCount":1000,"cachedContentTokenCount":768,"candidatesTokenCount":1,
            "promptTokensDetails":[{"modality":"TEXT","tokenCount":200},
            {"modality":"AUDIO","tokenCount":800}]}"#,
        );
        let usage = found.usage.unwrap();
        let meters = [Meter::CachedInputTokens, Meter::CachedInputAudioTokens];
        assert_eq!(meters.map(|meter| usage.of(meter)), [200, 568]);
        assert_eq!((usage.of(Meter::InputAudioTokens), found.suspect), (232, false));
    }

    proptest! {
        #[test]
        fn meters_add_up_to_the_total(
            prompt in 0..1_000_000_u64, cached in 0..1_000_000_u64, made in 0..1_000_000_u64,
            thoughts in 0..1_000_000_u64, tools in 0..1_000_000_u64, audio in 0..1_000_000_u64,
        ) {
            let total = prompt + made + thoughts + tools;
            let found = report(&format!(
                r#"{{"promptTokenCount":{prompt},"cachedContentTokenCount":{cached},
                "candidatesTokenCount":{made},"thoughtsTokenCount":{thoughts},
                "toolUsePromptTokenCount":{tools},"totalTokenCount":{total},
                "promptTokensDetails":[{{"modality":"AUDIO","tokenCount":{audio}}}]}}"#
            ));
            let usage = found.usage.unwrap();
            prop_assert_eq!(usage.input_tokens(), prompt + tools);
            prop_assert_eq!(usage.output_tokens(), made + thoughts);
            let parts = [Meter::CachedInputTokens, Meter::CachedInputAudioTokens];
            let kept: u64 = parts.iter().map(|meter| usage.of(*meter)).sum();
            prop_assert_eq!(kept, cached.min(prompt + tools));
            prop_assert!(!found.suspect);
        }
    }
}
