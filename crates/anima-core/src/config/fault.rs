//! Faults that an operator puts on a channel's calls, to rehearse chains in production.
//!
//! Part of the channel's row, and so versioned, audited and in force on every node. Not what a
//! provider does (`failure`). Invariant: each ends by itself. Source: SPEC 7.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::failure::Failure;

/// The longest that a rule may lie ahead when it is saved.
pub const FAULT_AHEAD_MS: i64 = 7 * 86_400_000;

/// One rule: a share of the calls is delayed, and then fails or goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Of so many calls in a hundred.
    pub percent: u8,
    /// Waits so long before it, milliseconds.
    #[serde(default)]
    pub delay_ms: u32,
    /// Fails it so instead of sending it; `None` sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<FaultKind>,
    /// Of one model of the channel; all without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Until when.
    pub until: Timestamp,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the words of the failures that they stand for")]
pub enum FaultKind {
    Unreachable,
    ConnectionLost,
    Error,
    Overloaded,
    RateLimited,
    Timeout,
}

impl FaultKind {
    /// What the call fails with, for circuits, chains and callers alike.
    pub const fn failure(self) -> Failure {
        match self {
            Self::Unreachable => Failure::ConnectFailed,
            Self::ConnectionLost => Failure::ConnectionLost,
            Self::Error => Failure::ServerError,
            Self::Overloaded => Failure::Overloaded,
            Self::RateLimited => Failure::RateLimited,
            Self::Timeout => Failure::FirstByteTimeout,
        }
    }
}

impl FaultRule {
    /// The word for metrics.
    pub const fn name(&self) -> &'static str {
        match self.fail {
            None => "delay",
            Some(FaultKind::Unreachable) => "unreachable",
            Some(FaultKind::ConnectionLost) => "connection_lost",
            Some(FaultKind::Error) => "error",
            Some(FaultKind::Overloaded) => "overloaded",
            Some(FaultKind::RateLimited) => "rate_limited",
            Some(FaultKind::Timeout) => "timeout",
        }
    }

    /// The first rule that takes a call to a model, decided by random bits.
    pub fn of<'a>(rules: &'a [Self], model: &str, now: Timestamp, bits: u64) -> Option<&'a Self> {
        let concerns = |rule: &Self| rule.model.as_deref().is_none_or(|only| only == model);
        let mut draw = bits;
        rules.iter().find(|rule| {
            let hit = draw % 100 < u64::from(rule.percent);
            // Seven bits' worth of luck each, so that rules do not hit together.
            draw = draw.rotate_right(7);
            hit && now < rule.until && concerns(rule)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(percent: u8) -> FaultRule {
        let until = Timestamp::from_micros(10);
        FaultRule { percent, delay_ms: 0, fail: Some(FaultKind::Error), model: None, until }
    }

    #[test]
    fn a_rule_takes_its_share_until_its_end_and_of_its_model() {
        let rules = [FaultRule { model: Some("m".to_owned()), ..rule(30) }];
        let before = Timestamp::from_micros(9);
        let hits = (0..1_000).filter(|n| FaultRule::of(&rules, "m", before, *n).is_some()).count();
        assert_eq!(hits, 300);
        assert_eq!(FaultRule::of(&rules, "other", before, 0), None);
        assert_eq!(FaultRule::of(&rules, "m", Timestamp::from_micros(10), 0), None);
        assert!(FaultRule::of(&[rule(100)], "any", before, 99).is_some());
    }
}
