//! What an operator says about a channel's circuit, over what the breaker found out by itself.
//!
//! Kept as configuration is: it survives restarts and travels to every node. Invariant: while one
//! is in force, nothing automatic changes whether the channel is called (SPEC 7).

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// No call goes there, also not as a last resort.
    ForcedOpen,
    /// Calls go there whatever was found out, also about credentials.
    ForcedClosed,
    /// The breaker judges, and shows what it would do, but skips nothing.
    MetricsOnly,
}

impl Mode {
    /// The word for metrics and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::MetricsOnly => "metrics_only",
        }
    }
}

/// An operator's word about a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manual {
    /// What is wanted.
    pub mode: Mode,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub actor: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None` until it is taken back.
    pub until: Option<Timestamp>,
}

impl Manual {
    /// Whether it holds at `now`.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_ends_it_by_itself() {
        let until = Timestamp::from_micros(10);
        let mut manual = Manual {
            mode: Mode::ForcedOpen,
            reason: "maintenance".into(),
            actor: "root".into(),
            since: Timestamp::default(),
            until: Some(until),
        };
        assert!(manual.is_in_force(Timestamp::from_micros(9)));
        assert!(!manual.is_in_force(until));
        manual.until = None;
        assert!(manual.is_in_force(Timestamp::MAX));
    }
}
