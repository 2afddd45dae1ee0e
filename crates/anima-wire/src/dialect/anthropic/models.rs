//! What some of Claude's models want otherwise than others, told by their names.
//!
//! A name says its version: `claude-opus-4-7`, `claude-3-5-haiku`, `anthropic.claude-opus-5-v1:0`.
//! One that is not understood is a model like the older ones. Invariant: what is left out is named
//! to the caller. Sources: `a-inbound` A.2.2, `b-outbound-chat` B.3, Anthropic's migration guide
//! (by way of `docs.memberjunction.org`, `RejectsSamplingParams`, read November 2026).

/// Since when temperature and nucleus exclude each other.
const ONE_OF_TWO: (u32, u32) = (4, 1);

/// Since when the caller cannot say how tokens are drawn.
const NONE: (u32, u32) = (4, 7);

/// A model without a version that is as new as those with [`NONE`].
const UNNUMBERED: &str = "mythos";

/// Digits of the longest version number; dates have eight.
const DIGITS_MAX: usize = 2;

/// What a model takes of how tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// All.
    Any,
    /// Temperature or nucleus, not both.
    OneOfTwo,
    /// Nothing.
    None,
}

impl Sampling {
    pub(super) fn of(model: &str) -> Self {
        match version(model) {
            Some(version) if version >= NONE => Self::None,
            Some(version) if version >= ONE_OF_TWO => Self::OneOfTwo,
            None if model.contains(UNNUMBERED) => Self::None,
            Some(_) | None => Self::Any,
        }
    }
}

/// The first number behind `claude`, and the one right after it.
fn version(model: &str) -> Option<(u32, u32)> {
    let (_, name) = model.split_once("claude")?;
    let is_short = |word: &&str| word.len() <= DIGITS_MAX;
    let mut words = name.split(|sign: char| !sign.is_ascii_alphanumeric());
    let major = words.find_map(|word| word.parse().ok().filter(|_| is_short(&word)))?;
    let minor = words.next().filter(is_short).and_then(|word| word.parse().ok());
    Some((major, minor.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_a_model_takes() {
        for (model, expected) in [
            ("claude-3-7-sonnet-latest", Sampling::Any),
            ("claude-3-haiku-20240307", Sampling::Any),
            ("claude-sonnet-4-20250514", Sampling::Any),
            ("claude-opus-4@20250514", Sampling::Any),
            ("claude-upstream", Sampling::Any),
            ("upstream-model", Sampling::Any),
            ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/x", Sampling::Any),
            ("claude-opus-4-1-20250805", Sampling::OneOfTwo),
            ("claude-sonnet-4-5@20250929", Sampling::OneOfTwo),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", Sampling::OneOfTwo),
            ("claude-opus-4-6", Sampling::OneOfTwo),
            ("claude-opus-4-7", Sampling::None),
            ("anthropic/claude-opus-4.8", Sampling::None),
            ("global.anthropic.claude-sonnet-5", Sampling::None),
            ("us.anthropic.claude-opus-5-5-20260901-v1:0", Sampling::None),
            ("claude-fable-5-1", Sampling::None),
            ("claude-mythos-preview", Sampling::None),
        ] {
            assert_eq!(Sampling::of(model), expected, "{model}");
        }
    }
}
