//! What speaking and hearing come to, by what the provider tells and by what is known without it.
//!
//! Some providers tell seconds, some tokens, some nothing; and a price list has rates for the one
//! or the other. So both are always there, with the word which of them is the provider's own: an
//! amount made of the others is an estimate. Invariant: an answer about sound is never without
//! usage. Sources: `a-inbound` A.1.3, OpenAI's audio guide (tokens per second), November 2026.

use anima_core::usage::{Meter, Usage};

use super::Told;
use crate::dialect::openai::usage;
use crate::json::{Cursor, Node};
use crate::request::{CallRequest, Endpoint};
use crate::tokens;

/// Tokens of a second of sound that is heard: one for each 100 ms.
const HEARD_TOKENS_PER_SECOND: u64 = 10;

/// Tokens of sound for two characters that are spoken: 20 in a second, of some 14 characters.
const SPOKEN_TOKENS_PER_PAIR: u64 = 3;

/// What a call about sound is known to come to without its provider's word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis {
    endpoint: Endpoint,
    characters: u64,
    seconds: u64,
    prompt_tokens: u64,
}

/// What a call about sound comes to as far as it is known without its provider; `None` of others.
pub fn sound_usage(request: &CallRequest) -> Option<Usage> {
    let is_about_sound = request.endpoint.hears() || request.endpoint == Endpoint::Speech;
    is_about_sound.then(|| Basis::of(request).known(None, None, "").usage)
}

/// What is known of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) usage: Usage,
    pub(super) told: Told,
}

impl Basis {
    pub(super) fn of(request: &CallRequest) -> Self {
        Self {
            endpoint: request.endpoint,
            characters: request.characters,
            seconds: request.audio_seconds,
            prompt_tokens: request.estimate_input_tokens() / 2,
        }
    }

    /// What an answer came to, with the provider's `usage`, the length that it tells beside, and
    /// the words that were heard.
    pub(super) fn known(
        &self,
        told: Option<Node<'_, '_>>,
        length: Option<u64>,
        text: &str,
    ) -> Known {
        let report = told.and_then(|told| {
            let report = usage::read(&mut Cursor::new(told.raw().as_bytes())).ok()?;
            report.usage.filter(|usage| !report.suspect && !usage.is_empty())
        });
        if self.endpoint == Endpoint::Speech {
            return self.spoken(report);
        }
        let seconds = told.and_then(|told| told.get("seconds")).and_then(whole).or(length);
        self.heard(report, seconds.filter(|seconds| *seconds > 0), text)
    }

    /// What was spoken: characters are counted by whoever has them.
    fn spoken(&self, report: Option<Usage>) -> Known {
        let Some(report) = report else {
            let usage = Usage::default()
                .with(Meter::InputTokens, self.prompt_tokens)
                .with(Meter::OutputAudioTokens, self.characters * SPOKEN_TOKENS_PER_PAIR / 2)
                .with(Meter::Characters, self.characters);
            return Known { usage, told: Told::Units };
        };
        let mut usage = report.with(Meter::Characters, self.characters);
        if usage.of(Meter::OutputAudioTokens) == 0 {
            usage.set(Meter::OutputAudioTokens, usage.of(Meter::OutputTokens));
            usage.set(Meter::OutputTokens, 0);
        }
        Known { usage, told: Told::All }
    }

    fn heard(&self, report: Option<Usage>, seconds: Option<u64>, text: &str) -> Known {
        let told = match (report, seconds) {
            (Some(_), Some(_)) => Told::All,
            (Some(_), None) => Told::Tokens,
            (None, Some(_)) => Told::Units,
            (None, None) => Told::Nothing,
        };
        let seconds = seconds.unwrap_or(self.seconds);
        let usage = report.unwrap_or_else(|| {
            Usage::default()
                .with(Meter::InputTokens, self.prompt_tokens)
                .with(Meter::InputAudioTokens, seconds * HEARD_TOKENS_PER_SECOND)
                .with(Meter::OutputTokens, tokens::count(text))
        });
        Known { usage: usage.with(Meter::AudioSeconds, seconds), told }
    }
}

/// A number of seconds, rounded up. Providers write it with and without a fraction, and as a text.
/// More than a meter can hold tells nothing.
pub(super) fn whole(node: Node<'_, '_>) -> Option<u64> {
    let text = node.text();
    let number = text.as_deref().or_else(|| node.number())?;
    let (seconds, part) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(part) {
        return None;
    }
    let seconds: u64 = seconds.parse().ok().filter(|seconds| *seconds < Usage::LIMIT)?;
    Some(seconds + u64::from(part.bytes().any(|digit| digit != b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Outline;

    fn basis(endpoint: Endpoint) -> Basis {
        Basis { endpoint, characters: 100, seconds: 60, prompt_tokens: 5 }
    }

    fn known(endpoint: Endpoint, usage: &str, length: Option<u64>) -> (Vec<(Meter, u64)>, Told) {
        let outline = Outline::read(usage.as_bytes()).unwrap();
        let known = basis(endpoint).known(Some(outline.root()), length, "");
        (known.usage.iter().collect(), known.told)
    }

    #[test]
    fn seconds_are_paid_as_told_and_tokens_are_derived() {
        let expected =
            vec![(Meter::InputTokens, 5), (Meter::InputAudioTokens, 90), (Meter::AudioSeconds, 9)];
        let told = known(Endpoint::Transcriptions, r#"{"type":"duration","seconds":8.47}"#, None);
        assert_eq!(told, (expected.clone(), Told::Units));
        assert_eq!(known(Endpoint::Translations, "null", Some(9)), (expected, Told::Units));
    }

    #[test]
    fn tokens_are_paid_as_told_and_seconds_are_measured() {
        let told = r#"{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,
            "audio_tokens":10},"output_tokens":45,"total_tokens":59}"#;
        let expected = vec![
            (Meter::InputTokens, 4),
            (Meter::OutputTokens, 45),
            (Meter::InputAudioTokens, 10),
            (Meter::AudioSeconds, 60),
        ];
        assert_eq!(known(Endpoint::Transcriptions, told, None), (expected, Told::Tokens));
    }

    #[test]
    fn what_nobody_tells_is_measured_and_said_to_be() {
        let (usage, told) = known(Endpoint::Transcriptions, r#"{"input_tokens":-1}"#, None);
        assert_eq!(told, Told::Nothing);
        assert!(usage.contains(&(Meter::AudioSeconds, 60)), "{usage:?}");
    }

    #[test]
    fn characters_are_sure_and_spoken_tokens_are_sound() {
        let (usage, told) = known(Endpoint::Speech, "null", None);
        let derived = [(Meter::OutputAudioTokens, 150), (Meter::Characters, 100)];
        assert_eq!((&usage[1..], told), (&derived[..], Told::Units));
        let told = r#"{"input_tokens":7,"output_tokens":90,"total_tokens":97}"#;
        let expected =
            vec![(Meter::InputTokens, 7), (Meter::OutputAudioTokens, 90), (Meter::Characters, 100)];
        assert_eq!(known(Endpoint::Speech, told, None), (expected, Told::All));
    }

    #[test]
    fn a_length_is_rounded_up_however_it_is_written() {
        for (json, seconds) in [
            ("9", Some(9)),
            ("9.0", Some(9)),
            ("8.000001", Some(9)),
            ("\"8.47\"", Some(9)),
            ("-1", None),
            ("10000000", None),
            ("18446744073709551615.5", None),
            ("1e3", None),
            ("null", None),
        ] {
            assert_eq!(whole(Outline::read(json.as_bytes()).unwrap().root()), seconds, "{json}");
        }
    }
}
