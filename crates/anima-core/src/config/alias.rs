//! An alias: the model name that clients use, its routes, fallbacks and attempt budget.
//!
//! Not here: how a plan is made of routes (`routing`). Invariant: a route names its channel by
//! code, and what it names is resolved when a snapshot is compiled.

use serde::{Deserialize, Serialize};

/// What an alias serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are the words of SPEC 15")]
pub enum Kind {
    Chat,
    Embedding,
    Image,
    Video,
    Music,
    Speech,
    Transcription,
    Rerank,
    Moderation,
}

/// An alias's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// Which endpoints serve it.
    pub kind: Kind,
    /// Where it can go. Highest priority first, weighted inside a priority.
    pub routes: Vec<Route>,
    /// Other aliases to fall back to, by failure class.
    #[serde(default)]
    pub fallbacks: Fallbacks,
    /// The attempt budget.
    #[serde(default)]
    pub retry: RetryBudget,
}

/// One place an alias can go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A channel's code.
    pub channel: String,
    /// The model's name at the provider.
    pub model: String,
    /// A higher number goes first.
    #[serde(default)]
    pub priority: i32,
    /// Share inside the priority.
    #[serde(default = "one")]
    pub weight: u32,
}

const fn one() -> u32 {
    1
}

/// Fallback aliases by failure class, tried in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the members are the failure classes of SPEC 7")]
pub struct Fallbacks {
    pub error: Vec<String>,
    pub rate_limited: Vec<String>,
    pub context_window: Vec<String>,
    pub content_policy: Vec<String>,
    pub timeout: Vec<String>,
}

/// How often and how long one request may try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Attempts over all candidates.
    pub max_attempts: u32,
    /// From admission to the answer's end.
    pub deadline_ms: u32,
}

impl Default for RetryBudget {
    /// 3 attempts (`reliability` 4); 600 s, the SDKs' own default timeout.
    fn default() -> Self {
        Self { max_attempts: 3, deadline_ms: 600_000 }
    }
}
