//! What some models want otherwise than others of the same vendor, told by their names.
//!
//! Models that reason draw their tokens in their own way and refuse who meddles. A name that is
//! not known here is a model like any other. Invariant: what is left out is named to the caller,
//! and what would change where an answer ends is refused. Source: `b-outbound-chat` B.3.

use crate::canonical::{Effort, Reasoning};

/// Whose models a vendor serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// OpenAI's among others.
    Anyone,
    /// xAI's own.
    Xai,
    /// Moonshot's own.
    Moonshot,
}

/// What a model wants otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Habits {
    /// Members that it refuses.
    pub(crate) lacks: &'static [&'static str],
    /// Whether texts at which to stop can be named.
    pub(crate) stops: bool,
    /// Whether it is one of OpenAI's that reason: instructions come from the developer, and the
    /// limit has its newer name.
    pub(crate) is_newer: bool,
}

const PLAIN: Habits = Habits { lacks: &[], stops: true, is_newer: false };
/// Unless it is told not to think.
static REASONS: Habits = Habits {
    lacks: &["temperature", "top_p", "frequency_penalty", "presence_penalty", "logprobs"],
    stops: true,
    is_newer: true,
};
static AT_REST: Habits = Habits { is_newer: true, ..PLAIN };
static GROK: Habits =
    Habits { lacks: &["frequency_penalty", "presence_penalty"], stops: false, is_newer: false };
/// Its temperature is 1.
static KIMI: Habits = Habits { lacks: &["temperature"], ..PLAIN };
static ORDINARY: Habits = PLAIN;

/// What a model wants otherwise, given how much it shall think.
pub(crate) fn habits(maker: Maker, model: &str, asked: &Reasoning) -> &'static Habits {
    let name = model.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    match maker {
        Maker::Anyone if !reasons(&name) => &ORDINARY,
        Maker::Anyone if asked.as_effort() == Some(Effort::None) => &AT_REST,
        Maker::Anyone => &REASONS,
        Maker::Xai if is_grok_that_reasons(&name) => &GROK,
        Maker::Moonshot if name.contains("thinking") => &KIMI,
        Maker::Xai | Maker::Moonshot => &ORDINARY,
    }
}

/// `o1` and on, `gpt-5` and on; those for chat alone do not reason.
fn reasons(name: &str) -> bool {
    let number = |rest: &str| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest.get(..digits).and_then(|digits| digits.parse::<u32>().ok())
    };
    let is_o = name.strip_prefix('o').and_then(number).is_some_and(|n| n > 0);
    let is_gpt = name.strip_prefix("gpt-").and_then(number).is_some_and(|n| n >= 5);
    (is_o || is_gpt) && !name.contains("-chat")
}

fn is_grok_that_reasons(name: &str) -> bool {
    let families = ["grok-3-mini", "grok-4", "grok-5", "grok-code"];
    let is_told = name.contains("reasoning") || families.iter().any(|f| name.starts_with(f));
    is_told && !name.contains("non-reasoning")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_reason_are_known_by_their_names() {
        let asked = Reasoning::default();
        let habits = |maker, model: &str| habits(maker, model, &asked);
        for model in ["o1", "o3-mini", "openai/o4-mini", "gpt-5", "GPT-5.1-codex", "gpt-6.1-sol"] {
            assert_eq!(habits(Maker::Anyone, model), &REASONS, "{model}");
        }
        for model in ["gpt-4o", "gpt-5-chat-latest", "o", "omni-moderation", "gpt-oss-120b", "olmo"]
        {
            assert_eq!(habits(Maker::Anyone, model), &PLAIN, "{model}");
        }
        for (model, expected) in [
            ("grok-4", &GROK),
            ("grok-3-mini-fast", &GROK),
            ("grok-3", &PLAIN),
            ("grok-4-fast-non-reasoning", &PLAIN),
        ] {
            assert_eq!(habits(Maker::Xai, model), expected, "{model}");
        }
        assert_eq!(habits(Maker::Moonshot, "kimi-k2-thinking"), &KIMI);
        assert_eq!(habits(Maker::Moonshot, "kimi-k2-0905-preview"), &PLAIN);
    }

    #[test]
    fn who_shall_not_think_takes_what_others_take() {
        let asked = Reasoning { effort: Some(Effort::None), ..Reasoning::default() };
        assert_eq!(habits(Maker::Anyone, "gpt-5.1", &asked), &AT_REST);
    }
}
