//! A quota: a named list of limits, and what happens to a call that is over them.
//!
//! Not here: counting and judging. Invariant: a limit's amount is a count or a decimal in a string,
//! as its kind demands (`check`).

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A quota's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// All of them hold together.
    pub limits: Vec<Limit>,
}

/// One rule of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// What is limited.
    pub kind: LimitKind,
    /// Tokens only: which ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<TokenCount>,
    /// Over which span. Concurrency has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// How much: a whole number, or for cost a decimal in a string.
    pub limit: Amount,
    /// Requests only: how many may come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// What happens without shared state.
    #[serde(default)]
    pub on_outage: OnOutage,
    /// It counts what it would refuse, and refuses nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Another amount for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<Raised>,
}

/// Another amount of a limit, until an instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raised {
    /// How much, as the limit's own amount is written.
    pub limit: Amount,
    /// From here on the limit's own amount is in force again.
    pub until: Timestamp,
}

/// A limit's amount: a number of things, or money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// A count.
    Count(u64),
    /// A decimal amount of the app's currency.
    Money(String),
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are the words of SPEC 6")]
pub enum LimitKind {
    Concurrency,
    Requests,
    Tokens,
    Cost,
}

impl LimitKind {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
        }
    }
}

/// Which tokens a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are the words of SPEC 6")]
pub enum TokenCount {
    Input,
    Output,
    Total,
}

impl TokenCount {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Total => "total",
        }
    }
}

/// A limit's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Window {
    /// A second.
    #[serde(rename = "1s")]
    Second,
    /// A minute.
    #[serde(rename = "1m")]
    Minute,
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
    /// A calendar day.
    #[serde(rename = "1d")]
    Day,
    /// A calendar month.
    #[serde(rename = "1mo")]
    Month,
    /// For ever.
    #[serde(rename = "total")]
    Total,
}

impl Window {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Second => "1s",
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "1d",
            Self::Month => "1mo",
            Self::Total => "total",
        }
    }

    /// Its length where it is a rate, microseconds. A month and all of time are no rates; they
    /// count as 30 days.
    pub const fn micros(self) -> i64 {
        let seconds = match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Month | Self::Total => 30 * 86_400,
        };
        seconds * 1_000_000
    }
}

/// What a limit does when the shared state is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOutage {
    /// Each node enforces its share.
    #[default]
    Share,
    /// Nothing passes.
    Closed,
    /// Everything passes.
    Open,
}

/// What happens to a call over its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum QueueMode {
    /// Refused at once.
    Reject,
    /// Waits its turn.
    Wait,
    /// Accepted as a task.
    Async,
}
