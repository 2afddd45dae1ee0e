//! Anthropic's usage, in and out of disjoint meters.
//!
//! Input excludes what was read from or written to the cache; output includes thoughts. In a
//! stream the counts of `message_delta` are cumulative and lack the split of writes by lifetime,
//! which only `message_start` has. Invariant: an overlay never makes a count smaller, and the
//! meters add up to what the provider said. Source: `a-inbound` A.2.3, `b-outbound-chat` B.2.

use anima_core::usage::{Meter, Usage};

use crate::canonical::tier;
use crate::dialect::openai::usage::{Count, Report};
use crate::json::{Node, Writer};

/// Counts as they stand in the object, the latest of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    input: Count,
    read: Count,
    written: Count,
    written_5m: Count,
    written_1h: Count,
    output: Count,
    thinking: Count,
    searches: Count,
}

impl Counts {
    /// Lays what an object says over what was said before.
    pub(super) fn overlay(&mut self, node: Node<'_, '_>) {
        // Where an answer took several rounds, the list has all of them and the top may not.
        if let Some(rounds) = node.get("iterations").filter(|list| list.elements().next().is_some())
        {
            let mut sum = Self::default();
            for round in rounds.elements() {
                let mut one = Self::default();
                one.overlay_plain(round);
                sum.add(one);
            }
            *self = self.larger(sum);
        }
        let mut top = Self::default();
        top.overlay_plain(node);
        *self = self.larger(top);
    }

    fn overlay_plain(&mut self, node: Node<'_, '_>) {
        let count = |place: Node<'_, '_>, name: &str| {
            place.get(name).map_or(Count::Absent, |found| Count::of(found.kind(), found.raw()))
        };
        self.input = count(node, "input_tokens");
        self.read = count(node, "cache_read_input_tokens");
        self.written = count(node, "cache_creation_input_tokens");
        self.output = count(node, "output_tokens");
        if let Some(split) = node.get("cache_creation") {
            self.written_5m = count(split, "ephemeral_5m_input_tokens");
            self.written_1h = count(split, "ephemeral_1h_input_tokens");
        }
        if let Some(details) = node.get("output_tokens_details") {
            self.thinking = count(details, "thinking_tokens");
        }
        if let Some(tools) = node.get("server_tool_use") {
            self.searches = count(tools, "web_search_requests");
        }
    }

    fn larger(self, other: Self) -> Self {
        self.each(other, Count::or)
    }

    fn add(&mut self, other: Self) {
        *self = self.each(other, |one, two| match (one, two) {
            (Count::Of(one), Count::Of(two)) => Count::Of(one.saturating_add(two)),
            (one, two) => one.or(two),
        });
    }

    fn each(self, other: Self, join: impl Fn(Count, Count) -> Count) -> Self {
        Self {
            input: join(self.input, other.input),
            read: join(self.read, other.read),
            written: join(self.written, other.written),
            written_5m: join(self.written_5m, other.written_5m),
            written_1h: join(self.written_1h, other.written_1h),
            output: join(self.output, other.output),
            thinking: join(self.thinking, other.thinking),
            searches: join(self.searches, other.searches),
        }
    }

    /// The meters.
    pub(super) fn report(self) -> Report {
        if self == Self::default() {
            return Report::default();
        }
        let all = [
            self.input,
            self.read,
            self.written,
            self.written_5m,
            self.written_1h,
            self.output,
            self.thinking,
            self.searches,
        ];
        if all.contains(&Count::Unreadable) || self.input == Count::Absent {
            return Report { usage: None, suspect: true };
        }
        let of = |count: Count| count.value().unwrap_or(0);
        let long = of(self.written_1h);
        // The total may have grown after the split was told; what has no lifetime is short.
        let written = of(self.written).max(of(self.written_5m).saturating_add(long));
        let thinking = of(self.thinking).min(of(self.output));
        let mut suspect = of(self.thinking) > of(self.output);
        let mut usage = Usage::default();
        for (meter, count) in [
            (Meter::InputTokens, of(self.input)),
            (Meter::CachedInputTokens, of(self.read)),
            (Meter::CacheWriteTokens, written - long.min(written)),
            (Meter::CacheWrite1hTokens, long),
            (Meter::OutputTokens, of(self.output) - thinking),
            (Meter::ReasoningTokens, thinking),
            (Meter::SearchCalls, of(self.searches)),
        ] {
            suspect |= count > Usage::LIMIT;
            usage.set(meter, count);
        }
        Report { usage: Some(usage), suspect }
    }
}

/// Writes meters as a usage object, with the tier. Without meters, what is believed of the input.
pub(super) fn write(
    w: &mut Writer,
    usage: Option<&Usage>,
    input_tokens: u64,
    served: Option<&str>,
) {
    let of = |meter| usage.map_or(0, |usage| usage.of(meter));
    let read = usage.map_or(0, crate::dialect::openai::chat::cached);
    let written = usage.map_or(0, crate::dialect::openai::chat::written);
    let input = usage.map_or(input_tokens, |usage| usage.input_tokens() - read - written);
    w.object();
    w.key("input_tokens").number(input);
    w.key("cache_creation_input_tokens").number(written);
    w.key("cache_read_input_tokens").number(read);
    w.key("cache_creation").object();
    w.key("ephemeral_5m_input_tokens").number(of(Meter::CacheWriteTokens));
    w.key("ephemeral_1h_input_tokens").number(of(Meter::CacheWrite1hTokens));
    w.end_object();
    w.key("output_tokens").number(usage.map_or(0, Usage::output_tokens));
    w.maybe("service_tier", served.and_then(tier::of_anthropic));
    w.end_object();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::Outline;

    fn report(objects: &[&str]) -> Report {
        let mut counts = Counts::default();
        for object in objects {
            counts.overlay(Outline::read(object.as_bytes()).unwrap().root());
        }
        counts.report()
    }

    #[test]
    fn a_null_keeps_what_was_said_before() {
        let first = r#"{"input_tokens":9,"cache_read_input_tokens":5,"output_tokens":1}"#;
        let last = r#"{"input_tokens":null,"output_tokens":7}"#;
        let usage = report(&[first, last]).usage.unwrap();
        assert_eq!((usage.input_tokens(), usage.output_tokens()), (14, 7));
    }

    #[test]
    fn rounds_are_added_where_the_top_leaves_some_out() {
        let usage = report(&[r#"{"input_tokens":10,"output_tokens":5,"iterations":[
            {"type":"compaction","input_tokens":100,"output_tokens":20},
            {"type":"message","input_tokens":10,"output_tokens":5}]}"#]);
        let usage = usage.usage.unwrap();
        assert_eq!((usage.input_tokens(), usage.output_tokens()), (110, 25));
    }

    #[test]
    fn nonsense_is_no_report() {
        for object in
            [r#"{"input_tokens":-1}"#, r#"{"output_tokens":3}"#, r#"{"input_tokens":1.5}"#]
        {
            assert_eq!(report(&[object]), Report { usage: None, suspect: true }, "{object}");
        }
        assert_eq!(report(&["{}"]), Report::default());
        assert!(report(&[r#"{"input_tokens":1,"output_tokens":99999999999999999999}"#]).suspect);
    }

    proptest! {
        #[test]
        fn meters_add_up_to_what_was_said(
            input in 0..1_000_000_u64, read in 0..1_000_000_u64, short in 0..1_000_000_u64,
            long in 0..1_000_000_u64, output in 0..1_000_000_u64,
        ) {
            let total = short + long;
            let usage = report(&[&format!(
                r#"{{"input_tokens":{input},"cache_read_input_tokens":{read},
                "cache_creation_input_tokens":{total},"cache_creation":
                {{"ephemeral_5m_input_tokens":{short},"ephemeral_1h_input_tokens":{long}}},
                "output_tokens":{output}}}"#
            )]).usage.unwrap();
            prop_assert_eq!(usage.input_tokens(), input + read + total);
            prop_assert_eq!(usage.of(Meter::CacheWrite1hTokens), long);
            prop_assert_eq!(usage.output_tokens(), output);
        }
    }
}
