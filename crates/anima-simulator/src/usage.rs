//! Honest usage, and what the caller is told instead when the script lies.
//!
//! [`Usage`] is the truth that the provider would bill. [`Reported`] is what goes over the wire;
//! it is signed, since one of the lies is a negative count. The invariant: without a lie both say
//! the same.

use serde::{Deserialize, Serialize};

use crate::behaviour::UsageLie;

/// A count that no real call has, yet fits every integer of the gateway: 10^12.
const ABSURD_TOKENS: i64 = 1_000_000_000_000;

/// Tokens as billed. Cached are part of the prompt, reasoning is part of the completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All input tokens.
    pub prompt_tokens: u64,
    /// All output tokens, over all choices.
    pub completion_tokens: u64,
    /// The part of the prompt that came from the prompt cache.
    pub cached_tokens: u64,
    /// The part of the completion that was reasoning.
    pub reasoning_tokens: u64,
    /// Characters that were spoken.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub characters: u64,
    /// Seconds that were heard.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub audio_seconds: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Usage as the caller was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// `usage.prompt_tokens`.
    pub prompt_tokens: i64,
    /// `usage.completion_tokens`; 0 for embeddings, whose usage has no such member.
    pub completion_tokens: i64,
    /// `usage.total_tokens`.
    pub total_tokens: i64,
    /// `usage.prompt_tokens_details.cached_tokens`, left out of the wire when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<i64>,
    /// `usage.completion_tokens_details.reasoning_tokens`, left out of the wire when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<i64>,
}

impl Reported {
    /// What the caller is told of `usage`; `None` when it is told nothing. Details are told when
    /// they are not zero.
    pub(crate) fn of(usage: &Usage, lie: Option<UsageLie>) -> Option<Self> {
        let honest = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        let (prompt_tokens, completion_tokens) = match lie {
            None | Some(UsageLie::Twice) => {
                (honest(usage.prompt_tokens), honest(usage.completion_tokens))
            }
            Some(UsageLie::Missing) => return None,
            Some(UsageLie::Absurd) => (ABSURD_TOKENS, ABSURD_TOKENS),
            Some(UsageLie::Negative) => (
                honest(usage.prompt_tokens).max(1).saturating_neg(),
                honest(usage.completion_tokens).max(1).saturating_neg(),
            ),
        };
        Some(Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            cached_tokens: (usage.cached_tokens > 0).then(|| honest(usage.cached_tokens)),
            reasoning_tokens: (usage.reasoning_tokens > 0).then(|| honest(usage.reasoning_tokens)),
        })
    }

    /// The same for an answer whose usage has no completion.
    pub(crate) fn without_completion(self) -> Self {
        Self { completion_tokens: 0, total_tokens: self.prompt_tokens, ..self }
    }

    /// The usage object of a chat or text completion.
    pub(crate) fn completion_json(&self) -> String {
        let mut json = format!(
            "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{}",
            self.prompt_tokens, self.completion_tokens, self.total_tokens
        );
        if let Some(cached) = self.cached_tokens {
            json.push_str(&format_detail("prompt", "cached", cached));
        }
        if let Some(reasoning) = self.reasoning_tokens {
            json.push_str(&format_detail("completion", "reasoning", reasoning));
        }
        json.push('}');
        json
    }

    /// The usage object of embeddings, which knows no completion.
    pub(crate) fn embedding_json(&self) -> String {
        format!(
            "{{\"prompt_tokens\":{},\"total_tokens\":{}}}",
            self.prompt_tokens, self.total_tokens
        )
    }
}

fn format_detail(side: &str, kind: &str, tokens: i64) -> String {
    format!(",\"{side}_tokens_details\":{{\"{kind}_tokens\":{tokens},\"audio_tokens\":0}}")
}
