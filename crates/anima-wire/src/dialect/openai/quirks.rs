//! What vendors who copy OpenAI want otherwise, in requests that are written for them.
//!
//! Not what they answer otherwise, which is read in every form from everybody, and not what a
//! client of OpenAI's own dialect sends, which passes as it came. Invariant: what a vendor cannot
//! take is left out and named, or refused by name. Source: `b-outbound-chat` B.3.

use std::borrow::Cow;

use super::models::Maker;
use crate::canonical::{Dropped, Effort, Reasoning, Refusal};
use crate::json::Writer;

/// How a vendor is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// `reasoning_effort`, as OpenAI has it.
    Effort,
    /// `thinking: {"type": "enabled"}` or `"disabled"`.
    Switch,
    /// `enable_thinking`, and `thinking_budget` where the client names tokens.
    Enable,
    /// `reasoning: {"effort": …}`.
    Nested,
    /// Not at all.
    Lacks,
}

/// See the module.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts about a vendor, each for itself")]
pub struct Quirks {
    /// How it is told how much to think.
    pub thinking: Thinking,
    /// Members that it refuses.
    pub lacks: &'static [&'static str],
    /// The member for a seed.
    pub seed: &'static str,
    /// The word for "call a tool, whichever"; `None` where it cannot be made to.
    pub must_call: Option<&'static str>,
    /// The bounds of a temperature, where they are not 0 and 2.
    pub temperature: Option<(&'static str, &'static str)>,
    /// The bounds of a nucleus, where they are not 0 and 1.
    pub nucleus: Option<(&'static str, &'static str)>,
    /// How many texts at which to stop it takes, where that is known.
    pub stops_max: Option<usize>,
    /// Whether the ids of calls are nine letters or digits.
    pub short_ids: bool,
    /// Whether content may be null next to calls.
    pub nulls: bool,
    /// Whether it takes back what was thought, in `reasoning_content`; some insist on it next to
    /// calls, and some refuse the whole conversation.
    pub replays: bool,
    /// Whether the user may speak right after a tool; elsewhere the assistant must first.
    pub user_after_tool: bool,
    /// Whether more than one answer can be asked for.
    pub choices: bool,
    /// Whether usage of a stream must be asked for; elsewhere it comes, and the wish is refused.
    pub asks_usage: bool,
    /// Whose models it has.
    pub maker: Maker,
    /// A member more, and its JSON.
    pub extra: Option<(&'static str, &'static str)>,
}

/// Who does as OpenAI does.
pub const NONE: Quirks = Quirks {
    thinking: Thinking::Effort,
    lacks: &[],
    seed: "seed",
    must_call: Some("required"),
    temperature: None,
    nucleus: None,
    stops_max: None,
    short_ids: false,
    nulls: true,
    replays: true,
    user_after_tool: true,
    choices: true,
    asks_usage: true,
    maker: Maker::Anyone,
    extra: None,
};

/// OpenAI itself, who has no `top_k` and keeps thoughts to itself.
pub static OPENAI: Quirks =
    Quirks { lacks: &["top_k"], replays: false, stops_max: Some(4), ..NONE };

impl Quirks {
    /// Whether a member can be sent. If not, and if it is there, it is named.
    pub(crate) fn takes(&self, name: &'static str, is_there: bool, dropped: &mut Dropped) -> bool {
        let lacks = self.lacks.contains(&name);
        dropped.note_if(is_there && lacks, name);
        is_there && !lacks
    }

    /// The word for "call a tool, whichever".
    ///
    /// # Errors
    /// Where there is none: an answer in prose is not what the caller waits for.
    pub(crate) fn must_call(&self) -> Result<&'static str, Refusal> {
        self.must_call.ok_or_else(|| Refusal::unsupported("tool_choice.required"))
    }

    /// A temperature within the bounds.
    pub(crate) fn warmth<'t>(&self, told: &'t str, dropped: &mut Dropped) -> &'t str {
        within(self.temperature, ("temperature", told), dropped)
    }

    /// A nucleus within the bounds.
    pub(crate) fn nucleus<'t>(&self, told: &'t str, dropped: &mut Dropped) -> &'t str {
        within(self.nucleus, ("top_p", told), dropped)
    }

    /// Writes how much to think.
    pub(crate) fn think(&self, w: &mut Writer, asked: &Reasoning, dropped: &mut Dropped) {
        let Some(effort) = asked.as_effort() else { return };
        let thinks = effort != Effort::None;
        match self.thinking {
            Thinking::Effort => w.key("reasoning_effort").string(effort.word()),
            Thinking::Switch => {
                w.key("thinking").object();
                w.key("type").string(if thinks { "enabled" } else { "disabled" });
                w.end_object();
                // The switch says nothing of how much.
                dropped.note_if(thinks, "reasoning_effort");
            }
            Thinking::Enable => {
                w.key("enable_thinking").flag(thinks);
                let budget = asked.budget_tokens.filter(|_| thinks);
                w.maybe_number("thinking_budget", budget);
                dropped.note_if(thinks && budget.is_none(), "reasoning_effort");
            }
            Thinking::Nested => {
                let word = if effort == Effort::Max { Effort::Xhigh } else { effort }.word();
                w.key("reasoning").object();
                w.key("effort").string(word);
                w.end_object();
            }
            Thinking::Lacks => dropped.note("reasoning_effort"),
        }
    }

    /// The id of a call as the vendor takes it. The same id always becomes the same one.
    pub(crate) fn id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        const SHORT: usize = 9;
        let fits = id.len() == SHORT && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !self.short_ids || fits {
            return Cow::Borrowed(id);
        }
        // FNV-1a, and as many digits to the base of 36 as there is room for.
        let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut short = String::with_capacity(SHORT);
        for _ in 0..SHORT {
            let digit = u32::try_from(hash % 36).unwrap_or(0);
            short.push(char::from_digit(digit, 36).unwrap_or('0'));
            hash /= 36;
        }
        Cow::Owned(short)
    }
}

/// A number within bounds. Numbers that cannot be compared stay as they are.
fn within<'t>(
    bounds: Option<(&'static str, &'static str)>,
    (name, told): (&'static str, &'t str),
    dropped: &mut Dropped,
) -> &'t str {
    let Some((least, most)) = bounds else { return told };
    let number = |text: &str| text.parse::<f64>().ok();
    let (Some(value), Some(low), Some(high)) = (number(told), number(least), number(most)) else {
        return told;
    };
    let bounded = if value < low {
        least
    } else if value > high {
        most
    } else {
        return told;
    };
    dropped.note(name);
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shortened_alike_each_time_and_one_that_fits_stays() {
        let mistral = Quirks { short_ids: true, ..NONE };
        assert_eq!(mistral.id("abcDEF123"), "abcDEF123");
        let short = mistral.id("call_0123456789");
        assert_eq!(short, mistral.id("call_0123456789"));
        assert_ne!(short, mistral.id("call_0123456788"));
        assert_eq!(short.len(), 9);
        assert!(short.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(NONE.id("call_1"), "call_1");
    }

    #[test]
    fn a_temperature_is_bounded_and_said_so() {
        let inside = Quirks { temperature: Some(("0.01", "0.99")), ..NONE };
        for (told, sent, noted) in
            [("0.5", "0.5", ""), ("0", "0.01", "temperature"), ("1.5", "0.99", "temperature")]
        {
            let mut dropped = Dropped::default();
            assert_eq!(inside.warmth(told, &mut dropped), sent);
            assert_eq!(dropped.header(), noted, "{told}");
        }
        let inside = Quirks { nucleus: Some(("0.01", "0.99")), ..NONE };
        let mut dropped = Dropped::default();
        assert_eq!((inside.nucleus("1", &mut dropped), &*dropped.header()), ("0.99", "top_p"));
        assert_eq!(NONE.warmth("2", &mut Dropped::default()), "2");
    }
}
