//! A channel: an upstream account at one provider, with its timeouts and its circuit's settings.
//!
//! Invariant: a credential's secret is never shown by `Debug`, and at rest it is sealed. Defaults
//! come from `reliability` 3.2 and 4. Not here: the provider's translator (`anima-wire`).

use serde::{Deserialize, Serialize};

use super::FaultRule;
use crate::clock::Timestamp;

/// A channel's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The vendor or dialect, resolved by the adapter registry: `openai`, `openai_compatible`, ….
    pub provider: String,
    /// What the provider's own SDK takes: with `/v1` for the `OpenAI` family.
    pub base_url: String,
    /// Keys at the provider; several are used in turn. At rest each holds `sealed`, never `secret`.
    #[serde(default)]
    pub credentials: Vec<Credential>,
    /// How long each step may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When the circuit trips and how it recovers.
    #[serde(default)]
    pub breaker: Breaker,
    /// Calls in flight at most; `None` is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Whether the base URL may lead to loopback and private addresses.
    #[serde(default)]
    pub allow_private_network: bool,
    /// What happens to a running call when its client leaves.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
    /// Faults of the operator's own, to rehearse with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultRule>,
    /// The provider's own settings.
    #[serde(default)]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// One key at a provider.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its name inside the channel.
    pub code: String,
    /// The secret as written by an admin. Present only on the way in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The secret encrypted, base64. Present only at rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("code", &self.code).finish_non_exhaustive()
    }
}

/// How long each step of an upstream call may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// DNS, TCP and TLS together.
    pub connect_ms: u32,
    /// From the request's last byte to the answer's first.
    pub first_byte_ms: u32,
    /// Between two pieces of an answer.
    pub idle_ms: u32,
    /// From the attempt's start to the answer's end.
    pub total_ms: u32,
}

impl Default for Timeouts {
    /// Connect 5 s: 2 s for TCP and 3 s for TLS (`reliability` 4). First byte 120 s: the slow bound
    /// for reasoning models (3.2). Idle 60 s (4). Total 600 s: the SDKs' own default.
    fn default() -> Self {
        Self { connect_ms: 5_000, first_byte_ms: 120_000, idle_ms: 60_000, total_ms: 600_000 }
    }
}

/// A circuit's settings; defaults from `reliability` 3.2. Rates are in percent, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Length of the sliding window.
    pub window_ms: u32,
    /// The window is the last so many calls instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_calls: Option<u32>,
    /// Calls in the window before a rate counts.
    pub minimum_calls: u32,
    /// Failures that trip, in percent of the window's calls.
    pub failure_rate: u8,
    /// Failures in a row that trip; 0 turns this rule off.
    pub consecutive_failures: u32,
    /// A first byte later than this is slow.
    pub slow_call_ms: u32,
    /// Slow calls that trip, in percent.
    pub slow_rate: u8,
    /// How long the circuit stays open at first.
    pub open_ms: u32,
    /// How long it stays open at most.
    pub max_open_ms: u32,
    /// Probes allowed while half open, over all nodes.
    pub half_open_permits: u32,
    /// Until then the circuits judge and show what they would do, and leave no call out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_only_until: Option<Timestamp>,
}

impl Breaker {
    /// Whether the circuits only judge.
    pub fn only_measures(&self, now: Timestamp) -> bool {
        self.metrics_only_until.is_some_and(|until| now < until)
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window_ms: 30_000,
            window_calls: None,
            minimum_calls: 20,
            failure_rate: 50,
            consecutive_failures: 5,
            slow_call_ms: 30_000,
            slow_rate: 80,
            open_ms: 5_000,
            max_open_ms: 300_000,
            half_open_permits: 3,
            metrics_only_until: None,
        }
    }
}

/// What happens to a running call when its client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// Read the answer to its end, up to a cap, and charge the reported usage: right for providers
    /// that charge abandoned calls in full, and so the default (`reliability` 1.6, row 8).
    #[default]
    Drain,
    /// Close the upstream connection and charge what was delivered.
    Cancel,
}
