//! The tier that a call was served by, in each dialect's own words.
//!
//! For clients only: what a call is paid by is the provider's word as it came. Invariant: a word
//! that a dialect does not have is not said in it. Sources: `a-inbound` A.1.2, A.2.3 and A.3.3.

/// In OpenAI's words, which others extend.
pub(crate) fn of_openai(tier: &str) -> &str {
    if tier.eq_ignore_ascii_case("standard") { "default" } else { tier }
}

/// In Anthropic's words.
pub(crate) fn of_anthropic(tier: &str) -> Option<&'static str> {
    match tier {
        "standard" | "default" | "auto" | "on_demand" => Some("standard"),
        "priority" | "fast" | "scale" => Some("priority"),
        "batch" => Some("batch"),
        _ => None,
    }
}

/// In Gemini's words.
pub(crate) fn of_gemini(tier: &str) -> Option<&'static str> {
    match tier {
        "standard" | "default" | "auto" | "on_demand" => Some("standard"),
        "priority" | "fast" | "scale" => Some("priority"),
        "flex" => Some("flex"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_said_in_the_clients_words_or_not_at_all() {
        for (tier, openai, anthropic, gemini) in [
            ("default", "default", Some("standard"), Some("standard")),
            ("standard", "default", Some("standard"), Some("standard")),
            ("priority", "priority", Some("priority"), Some("priority")),
            ("flex", "flex", None, Some("flex")),
            ("batch", "batch", Some("batch"), None),
            ("of my own", "of my own", None, None),
        ] {
            assert_eq!(of_openai(tier), openai);
            assert_eq!((of_anthropic(tier), of_gemini(tier)), (anthropic, gemini), "{tier}");
        }
    }
}
