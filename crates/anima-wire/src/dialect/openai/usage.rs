//! Usage objects of the OpenAI family, turned into disjoint meters.
//!
//! Vendors nest counts in one another, under several names, and some lie. Invariant: the meters of
//! a report add up to the provider's totals, none is negative or above [`Usage::LIMIT`], and
//! totals that had to be bent are flagged as suspect; parts of the prompt that overlap are not.
//! Reasoning is part of the completion unless the total says otherwise (xAI), or stands beside it
//! with what was read of the web (Perplexity). Sources: `a-inbound` A.1.3, `b-outbound-chat` B.2,
//! Perplexity's pricing page (read November 2026).

use anima_core::usage::{Meter, Usage};

use crate::json::{Cursor, Error, Kind, Value};

/// What a provider says that a call consumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Disjoint meters. `None` when nothing was reported or what was reported makes no sense.
    pub usage: Option<Usage>,
    /// Whether the report contradicts itself or common sense.
    pub suspect: bool,
}

impl Report {
    /// The same with what is paid by the piece and no token count, such as searches of the web.
    pub(crate) fn with_fees(self, meter: Meter, count: u64) -> Self {
        if count == 0 {
            return self;
        }
        let suspect = self.suspect || count > Usage::LIMIT;
        let count = count.min(Usage::LIMIT);
        Self { usage: self.usage.map(|usage| usage.with(meter, count)), suspect }
    }
}

/// A usage of a chat in which the web was searched, by its citations or because it was asked to:
/// at least one search, where the provider counts none (`a-inbound` A.1.3).
pub(crate) fn with_search(mut usage: Usage, searched: bool) -> Usage {
    if searched && usage.of(Meter::SearchCalls) == 0 {
        usage.set(Meter::SearchCalls, 1);
    }
    usage
}

/// A count as it stands in the object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Count {
    /// Not there, or null.
    #[default]
    Absent,
    /// So many.
    Of(u64),
    /// Negative, fractional, or not a number.
    Unreadable,
}

impl Count {
    fn read(value: &Value<'_>) -> Self {
        Self::of(value.kind, std::str::from_utf8(value.raw).unwrap_or_default())
    }

    /// Reads a value of this kind.
    pub(crate) fn of(kind: Kind, raw: &str) -> Self {
        match kind {
            Kind::Null => Self::Absent,
            // Digits that do not fit are absurd, not unreadable: they are capped later.
            Kind::Number if raw.bytes().all(|byte| byte.is_ascii_digit()) => {
                Self::Of(raw.parse().unwrap_or(u64::MAX))
            }
            Kind::False | Kind::True | Kind::Number | Kind::String | Kind::Array | Kind::Object => {
                Self::Unreadable
            }
        }
    }

    /// Of two members for one thing the larger; unreadable wins.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Of(one), Self::Of(two)) => Self::Of(one.max(two)),
            (Self::Absent, count) | (count, Self::Absent) => count,
            (Self::Unreadable, _) | (_, Self::Unreadable) => Self::Unreadable,
        }
    }

    /// The count, if there is one that can be read.
    pub(crate) fn value(self) -> Option<u64> {
        match self {
            Self::Of(count) => Some(count),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

/// The counts that are read, each under all its names.
#[derive(Debug, Default)]
struct Counts {
    prompt: Count,
    completion: Count,
    total: Count,
    cached: Count,
    cache_write: Count,
    input_audio: Count,
    input_image: Count,
    reasoning: Count,
    /// The same beside the details, where Perplexity has it.
    reasoning_apart: Count,
    /// What Perplexity read of the pages that it cites, which is paid like the prompt.
    citations: Count,
    output_audio: Count,
    output_image: Count,
    /// Searches of the web, or the sources that they found: xAI's and Perplexity's.
    searches: Count,
}

/// What a report says of a prompt: parts of it that may be told twice, by what they are and by
/// whether they were cached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Prompt {
    /// All of it.
    pub(crate) whole: u64,
    /// Written to the cache.
    pub(crate) write: u64,
    /// Sound, and pictures, cached or not.
    pub(crate) audio: u64,
    pub(crate) image: u64,
    /// Read from the cache, whatever it is.
    pub(crate) cached: u64,
    /// Of that what is known to be sound, and pictures.
    pub(crate) cached_audio: u64,
    pub(crate) cached_image: u64,
}

impl Prompt {
    /// The disjoint parts. What was cached and is not known to be sound or pictures is text as far
    /// as there is text (`c-conversion` C.6), and then what there is. More than the whole is cut to
    /// it (`b-outbound-chat` B.2): xAI reports more cached tokens than the prompt has.
    pub(crate) fn split(self) -> Usage {
        let whole = self.whole.min(Usage::LIMIT);
        let mut left = whole;
        let mut take = |count: u64| {
            let part = count.min(left);
            left -= part;
            part
        };
        let write = take(self.write);
        let audio = take(self.audio.max(self.cached_audio));
        let image = take(self.image.max(self.cached_image));
        let text = left;
        let mut unplaced = self.cached.min(whole - write);
        let mut cache = |most: u64| {
            let part = unplaced.min(most);
            unplaced -= part;
            part
        };
        let mut cached_audio = cache(self.cached_audio.min(audio));
        let mut cached_image = cache(self.cached_image.min(image));
        let cached_text = cache(text);
        cached_image += cache(image - cached_image);
        cached_audio += cache(audio - cached_audio);
        Usage::default()
            .with(Meter::InputTokens, text - cached_text)
            .with(Meter::CachedInputTokens, cached_text)
            .with(Meter::CacheWriteTokens, write)
            .with(Meter::InputAudioTokens, audio - cached_audio)
            .with(Meter::CachedInputAudioTokens, cached_audio)
            .with(Meter::InputImageTokens, image - cached_image)
            .with(Meter::CachedInputImageTokens, cached_image)
    }
}

/// Reads a usage object. Another kind of value, or an object without counts, reports nothing.
///
/// # Errors
/// When the JSON is malformed.
pub fn read(cursor: &mut Cursor<'_>) -> Result<Report, Error> {
    let mut counts = Counts::default();
    let is_object = cursor.members(|cursor, name| {
        let slot = match name.raw() {
            b"prompt_tokens" | b"input_tokens" => &mut counts.prompt,
            b"completion_tokens" | b"output_tokens" => &mut counts.completion,
            b"total_tokens" => &mut counts.total,
            b"prompt_cache_hit_tokens"
            | b"cached_tokens"
            | b"num_cached_tokens"
            | b"cache_read_input_tokens" => &mut counts.cached,
            b"cache_creation_input_tokens" => &mut counts.cache_write,
            b"reasoning_tokens" => &mut counts.reasoning_apart,
            b"citation_tokens" => &mut counts.citations,
            b"num_sources_used" | b"num_search_queries" => &mut counts.searches,
            b"prompt_tokens_details"
            | b"prompt_token_details"
            | b"input_tokens_details"
            | b"input_token_details" => {
                return counts.read_input_details(cursor);
            }
            b"completion_tokens_details" | b"output_tokens_details" | b"output_token_details" => {
                return counts.read_output_details(cursor);
            }
            _ => return cursor.value().map(|_| ()),
        };
        *slot = slot.or(Count::read(&cursor.value()?));
        Ok::<(), Error>(())
    })?;
    Ok(if is_object { counts.report() } else { Report::default() })
}

impl Counts {
    fn read_input_details(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        cursor.members(|cursor, name| {
            let count = Count::read(&cursor.value()?);
            let slot = match name.raw() {
                b"cached_tokens" => &mut self.cached,
                b"cache_write_tokens" | b"cache_creation_input_tokens" => &mut self.cache_write,
                b"audio_tokens" => &mut self.input_audio,
                b"image_tokens" => &mut self.input_image,
                _ => return Ok::<(), Error>(()),
            };
            *slot = slot.or(count);
            Ok(())
        })?;
        Ok(())
    }

    fn read_output_details(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        cursor.members(|cursor, name| {
            let count = Count::read(&cursor.value()?);
            let slot = match name.raw() {
                b"reasoning_tokens" => &mut self.reasoning,
                b"audio_tokens" => &mut self.output_audio,
                b"image_tokens" => &mut self.output_image,
                _ => return Ok::<(), Error>(()),
            };
            *slot = slot.or(count);
            Ok(())
        })?;
        Ok(())
    }

    /// Makes the counts disjoint.
    fn report(&self) -> Report {
        if *self == Self::default() {
            return Report::default();
        }
        let nonsense = Report { usage: None, suspect: true };
        if self.all().contains(&Count::Unreadable) {
            return nonsense;
        }
        let total = self.total.value();
        let (prompt, completion) = match (self.prompt.value(), self.completion.value()) {
            (Some(prompt), Some(completion)) => (prompt, completion),
            (Some(prompt), None) => (prompt, total.unwrap_or(prompt).saturating_sub(prompt)),
            // A total alone, as old MiniMax models report, cannot be split.
            (None, None) if self.total != Count::Absent => return Report::default(),
            // Pictures of Ark's: what was generated, and a total that has no more.
            (None, Some(completion)) => match total {
                Some(total) => (total.saturating_sub(completion), completion),
                None => return nonsense,
            },
            (None, None) => return nonsense,
        };
        self.split(prompt, completion, total)
    }

    /// Splits two totals into their parts.
    fn split(&self, prompt: u64, completion: u64, total: Option<u64>) -> Report {
        let told = self.reasoning.or(self.reasoning_apart);
        let reasoning = told.value().unwrap_or(0);
        let sum = prompt.saturating_add(completion);
        let is_in_total = reasoning > 0 && total == Some(sum.saturating_add(reasoning));
        // Perplexity's total leaves out what it does not call completion.
        let apart = self.reasoning_apart.value().unwrap_or(0);
        let is_apart = self.reasoning.value().is_none()
            && (self.citations.value().is_some() || apart > completion)
            && total.is_none_or(|total| total == sum);
        let outside = is_in_total || is_apart;
        let mut suspect = !outside && total.is_some_and(|total| total != sum);
        let prompt = prompt.saturating_add(self.citations.value().unwrap_or(0));
        let completion = if outside { completion.saturating_add(reasoning) } else { completion };
        let is_absurd = |count: &Count| count.value().is_some_and(|count| count > Usage::LIMIT);
        suspect |= completion > Usage::LIMIT || self.all().iter().any(is_absurd);

        let of = |count: Count| count.value().unwrap_or(0);
        let mut usage = Prompt {
            whole: prompt,
            write: of(self.cache_write),
            audio: of(self.input_audio),
            image: of(self.input_image),
            cached: of(self.cached),
            ..Prompt::default()
        }
        .split();
        let mut left = completion.min(Usage::LIMIT);
        for (meter, count) in [
            (Meter::ReasoningTokens, told),
            (Meter::OutputAudioTokens, self.output_audio),
            (Meter::OutputImageTokens, self.output_image),
        ] {
            let part = of(count);
            suspect |= part > left;
            usage.set(meter, part.min(left));
            left -= part.min(left);
        }
        usage.set(Meter::OutputTokens, left);
        usage.set(Meter::SearchCalls, of(self.searches));
        Report { usage: Some(usage), suspect }
    }

    fn all(&self) -> [Count; 13] {
        [
            self.prompt,
            self.completion,
            self.total,
            self.cached,
            self.cache_write,
            self.input_audio,
            self.input_image,
            self.reasoning,
            self.reasoning_apart,
            self.citations,
            self.output_audio,
            self.output_image,
            self.searches,
        ]
    }
}

impl PartialEq for Counts {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(json: &str) -> Report {
        read(&mut Cursor::new(json.as_bytes())).unwrap()
    }

    #[track_caller]
    fn check(json: &str, suspect: bool, meters: &[(Meter, u64)]) {
        let usage = meters.iter().fold(Usage::default(), |usage, (m, n)| usage.with(*m, *n));
        assert_eq!(report(json), Report { usage: Some(usage), suspect }, "{json}");
    }

    #[test]
    fn nested_counts_become_disjoint() {
        check(
            r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,
            "prompt_tokens_details":{"cached_tokens":30,"cache_write_tokens":20,
            "audio_tokens":10,"text_tokens":40},
            "completion_tokens_details":{"reasoning_tokens":35,"audio_tokens":5,
            "accepted_prediction_tokens":3}}"#,
            false,
            &[
                (Meter::InputTokens, 40),
                (Meter::CachedInputTokens, 30),
                (Meter::CacheWriteTokens, 20),
                (Meter::InputAudioTokens, 10),
                (Meter::OutputTokens, 10),
                (Meter::ReasoningTokens, 35),
                (Meter::OutputAudioTokens, 5),
            ],
        );
    }

    #[test]
    fn reasoning_outside_the_completion_is_known_by_the_total() {
        let usage = |total: u64| {
            format!(
                r#"{{"prompt_tokens":10,"completion_tokens":5,"total_tokens":{total},
                "completion_tokens_details":{{"reasoning_tokens":4}}}}"#
            )
        };
        let outside =
            [(Meter::InputTokens, 10), (Meter::OutputTokens, 5), (Meter::ReasoningTokens, 4)];
        check(&usage(19), false, &outside);
        let inside =
            [(Meter::InputTokens, 10), (Meter::OutputTokens, 1), (Meter::ReasoningTokens, 4)];
        check(&usage(15), false, &inside);
        check(&usage(16), true, &inside);
    }

    #[test]
    fn what_perplexity_thinks_and_reads_is_beside_its_totals() {
        let usage = |total: u64, rest: &str| {
            format!(
                r#"{{"prompt_tokens":33,"completion_tokens":7163,"total_tokens":{total}{rest}}}"#
            )
        };
        let rest = r#","citation_tokens":19710,"num_search_queries":42,"reasoning_tokens":71985"#;
        let all = [
            (Meter::InputTokens, 33 + 19_710),
            (Meter::OutputTokens, 7_163),
            (Meter::ReasoningTokens, 71_985),
            (Meter::SearchCalls, 42),
        ];
        check(&usage(7_196, rest), false, &all);
        let short = r#","citation_tokens":9,"reasoning_tokens":100"#;
        let less =
            [(Meter::InputTokens, 42), (Meter::OutputTokens, 7_163), (Meter::ReasoningTokens, 100)];
        check(&usage(7_196, short), false, &less);
        // Of others it is inside, wherever it stands.
        let inside =
            [(Meter::InputTokens, 33), (Meter::OutputTokens, 7_063), (Meter::ReasoningTokens, 100)];
        check(&usage(7_196, r#","reasoning_tokens":100"#), false, &inside);
        check(&usage(7_196, r#","reasoning_tokens":100,"citation_tokens":null"#), false, &inside);
    }

    #[test]
    fn other_names_for_cached_tokens_are_read() {
        for cached in [
            r#""prompt_cache_hit_tokens":6,"prompt_cache_miss_tokens":4"#,
            r#""cached_tokens":6"#,
            r#""num_cached_tokens":6,"prompt_tokens_details":{"cached_tokens":6}"#,
            r#""prompt_token_details":{"cached_tokens":6}"#,
        ] {
            let json = format!(r#"{{"prompt_tokens":10,"completion_tokens":0,{cached}}}"#);
            check(&json, false, &[(Meter::InputTokens, 4), (Meter::CachedInputTokens, 6)]);
        }
    }

    #[test]
    fn more_generated_than_there_is_is_clamped_and_flagged() {
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,
            "prompt_tokens_details":{"cached_tokens":12},
            "completion_tokens_details":{"reasoning_tokens":9}}"#,
            true,
            &[(Meter::CachedInputTokens, 10), (Meter::ReasoningTokens, 5)],
        );
    }

    #[test]
    fn more_cached_than_there_is_is_clamped_and_believed() {
        check(
            r#"{"prompt_tokens":10,"completion_tokens":5,
            "prompt_tokens_details":{"cached_tokens":12}}"#,
            false,
            &[(Meter::CachedInputTokens, 10), (Meter::OutputTokens, 5)],
        );
    }

    #[test]
    fn what_is_cached_is_text_first_and_then_pictures_or_sound() {
        check(
            r#"{"prompt_tokens":1000,"completion_tokens":5,
            "prompt_tokens_details":{"cached_tokens":768,"image_tokens":800,"text_tokens":200}}"#,
            false,
            &[
                (Meter::CachedInputTokens, 200),
                (Meter::InputImageTokens, 232),
                (Meter::CachedInputImageTokens, 568),
                (Meter::OutputTokens, 5),
            ],
        );
        check(
            r#"{"prompt_tokens":100,"completion_tokens":5,
            "prompt_tokens_details":{"cached_tokens":60,"audio_tokens":90}}"#,
            false,
            &[
                (Meter::CachedInputTokens, 10),
                (Meter::InputAudioTokens, 40),
                (Meter::CachedInputAudioTokens, 50),
                (Meter::OutputTokens, 5),
            ],
        );
    }

    #[test]
    fn absurd_counts_are_capped_and_flagged() {
        for absurd in ["1000000000000000000", "99999999999999999999999999"] {
            check(
                &format!(r#"{{"prompt_tokens":1,"completion_tokens":{absurd}}}"#),
                true,
                &[(Meter::InputTokens, 1), (Meter::OutputTokens, Usage::LIMIT)],
            );
        }
    }

    #[test]
    fn unreadable_counts_make_the_report_worthless() {
        for bad in ["-1", "1.5", "\"7\"", "1e3", "true", "{}"] {
            let json = format!(r#"{{"prompt_tokens":{bad},"completion_tokens":1}}"#);
            assert_eq!(report(&json), Report { usage: None, suspect: true }, "{json}");
            let json = format!(
                r#"{{"prompt_tokens":9,"completion_tokens":1,
                "prompt_tokens_details":{{"cached_tokens":{bad}}}}}"#
            );
            assert_eq!(report(&json), Report { usage: None, suspect: true }, "{json}");
        }
    }

    #[test]
    fn what_is_no_report_reports_nothing() {
        for json in ["null", "{}", "[]", "7", r#"{"total_tokens":9}"#, r#"{"prompt_tokens":null}"#]
        {
            assert_eq!(report(json), Report::default(), "{json}");
        }
    }

    #[test]
    fn embeddings_have_no_completion() {
        check(r#"{"prompt_tokens":8,"total_tokens":8}"#, false, &[(Meter::InputTokens, 8)]);
    }

    proptest! {
        #[test]
        fn meters_add_up_to_the_totals(
            prompt in 0..200_000_u64, completion in 0..200_000_u64,
            parts in prop::array::uniform7(0..150_000_u64),
        ) {
            let [cached, write, audio, image, reasoning, sound, picture] = parts;
            let read = report(&format!(
                r#"{{"prompt_tokens":{prompt},"completion_tokens":{completion},
                "prompt_tokens_details":{{"cached_tokens":{cached},"cache_write_tokens":{write},
                "audio_tokens":{audio},"image_tokens":{image}}},
                "completion_tokens_details":{{"reasoning_tokens":{reasoning},"audio_tokens":{sound},
                "image_tokens":{picture}}}}}"#
            ));
            let usage = read.usage.unwrap();
            prop_assert_eq!((usage.input_tokens(), usage.output_tokens()), (prompt, completion));
            let all_cached = [Meter::CachedInputTokens, Meter::CachedInputAudioTokens,
                Meter::CachedInputImageTokens].iter().map(|meter| usage.of(*meter)).sum::<u64>();
            prop_assert_eq!(all_cached, cached.min(prompt - usage.of(Meter::CacheWriteTokens)));
            prop_assert_eq!(read.suspect, reasoning + sound + picture > completion);
        }
    }
}
