//! What tells nodes about changes, what they answer, and the escape hatches beside the rows.
//!
//! Contract, for every backend:
//! - Each change of a row or a hatch writes one [`Event`] under its revision, in its own
//!   transaction. Revisions have no gap, so a node that read every event up to a number knows
//!   everything up to it.
//! - On PostgreSQL the transaction also says the number on the channel `anima_config`, which
//!   reaches listeners when it commits and not before.
//! - A hatch is a row of its own with reason, actor and time; it outlives restarts and is audited.
//!
//! Not here: publishing on Redis and what a node does with an event (`anima::live`). Events and
//! acknowledgements are kept for a week.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::{Actor, AuditRecord, Error, Row};

pub(crate) mod listen;
pub(crate) mod postgres;
mod sql;
pub(crate) mod sqlite;

/// How long events and acknowledgements are kept, in milliseconds.
const KEEP_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// What one change was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Notice {
    /// A row.
    Row {
        /// Which table.
        resource: Resource,
        /// Which row.
        code: String,
        /// Whether what streams through it ends now.
        #[serde(default)]
        cut: bool,
    },
    /// The manual state of a channel's circuits.
    Circuit {
        /// Which channel.
        channel: String,
        /// One model of it; all without.
        model: Option<String>,
    },
    /// The switch of the whole data plane.
    Gateway {
        /// Whether what streams ends now.
        cut: bool,
    },
    /// Something is to be dropped from memory and read again.
    Forget {
        /// What: `all`, `config`, `keys`, `key:<kid>`, `apps`, `app:<code>`.
        scope: String,
    },
}

/// What one revision changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision.
    pub rev: i64,
    /// When it was made.
    pub at: Timestamp,
    /// What it was about.
    pub notices: Vec<Notice>,
}

/// A node and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Its id: one process start.
    pub node: String,
    /// The last revision in force there.
    pub rev: i64,
    /// When it was last heard of.
    pub seen_at: Timestamp,
    /// When the revision that was asked for, or a later one, was put in force there.
    pub applied_at: Option<Timestamp>,
}

/// Which way a circuit was forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forced {
    /// No call goes through.
    Open,
    /// Calls go through, whatever the outcomes.
    Closed,
}

impl Forced {
    /// The word in the database and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// A circuit that was set by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManualCircuit {
    /// Which channel.
    pub channel: String,
    /// One model of it; all without.
    pub model: Option<String>,
    /// Which way.
    pub state: Forced,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// When.
    pub set_at: Timestamp,
    /// Back to automatic from here on; `None` is never.
    pub expires_at: Option<Timestamp>,
}

impl ManualCircuit {
    /// Whether it still counts.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// The switch of the whole data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaySwitch {
    /// Off refuses every call.
    pub enabled: bool,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
    /// When; `None` when it never was touched.
    pub changed_at: Option<Timestamp>,
}

impl Default for GatewaySwitch {
    fn default() -> Self {
        Self { enabled: true, reason: String::new(), actor: String::new(), changed_at: None }
    }
}

/// Every hatch as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hatches {
    /// The whole data plane.
    pub gateway: GatewaySwitch,
    /// Circuits set by hand, by channel and model; some may have expired.
    pub circuits: Vec<ManualCircuit>,
}

/// A pull at a hatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hatch {
    /// Forces a circuit, or with no state gives it back to its breaker.
    Circuit {
        /// Which channel.
        channel: String,
        /// One model of it; all without.
        model: Option<String>,
        /// Which way; `None` is back to automatic.
        state: Option<Forced>,
        /// Until when.
        expires_at: Option<Timestamp>,
    },
    /// Switches the data plane.
    Gateway {
        /// On or off.
        enabled: bool,
        /// Whether what streams ends now.
        cut: bool,
    },
    /// Drops something from the memory of every node.
    Forget {
        /// As in [`Notice::Forget`].
        scope: String,
    },
}

impl Hatch {
    fn notice(&self) -> Notice {
        match self {
            Self::Circuit { channel, model, .. } => {
                Notice::Circuit { channel: channel.clone(), model: model.clone() }
            }
            Self::Gateway { enabled, cut } => Notice::Gateway { cut: *cut && !enabled },
            Self::Forget { scope } => Notice::Forget { scope: scope.clone() },
        }
    }

    /// Action, resource and code of the audit record.
    fn words(&self) -> (&'static str, &'static str, String) {
        match self {
            Self::Circuit { channel, model, state, .. } => {
                let action = match state {
                    Some(Forced::Open) => "open",
                    Some(Forced::Closed) => "close",
                    None => "reset",
                };
                let code = match model {
                    Some(model) => format!("{channel}/{model}"),
                    None => channel.clone(),
                };
                (action, "circuit", code)
            }
            Self::Gateway { .. } => ("switch", "gateway", "gateway".to_owned()),
            Self::Forget { scope } => ("invalidate", "cache", scope.clone()),
        }
    }
}

impl AuditRecord {
    /// The record of a pull.
    fn of(hatch: &Hatch, actor: &Actor, now: Timestamp) -> Self {
        let (action, resource, code) = hatch.words();
        let after = match hatch {
            Hatch::Circuit { state, expires_at, .. } => {
                Some(json!({ "state": state.map(Forced::name), "expires_at": expires_at }))
            }
            Hatch::Gateway { enabled, cut } => Some(json!({ "enabled": enabled, "cut": cut })),
            Hatch::Forget { .. } => None,
        };
        Self {
            id: 0,
            at: now,
            actor: actor.name.clone(),
            action: action.to_owned(),
            resource: resource.to_owned(),
            code,
            reason: actor.reason.clone(),
            before: None,
            after,
        }
    }
}

/// Spreads changes. See the module's contract.
#[async_trait]
pub trait PublishStore: Send + Sync + fmt::Debug {
    /// Events after a revision, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    async fn events(&self, after: i64, limit: u32) -> Result<Vec<Event>, Error>;

    /// Notes that a node has everything up to `rev` in force, or that it lives.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn acknowledge(&self, node: &str, rev: i64, at: Timestamp) -> Result<(), Error>;

    /// Every node heard of in the last week, and when `rev` was put in force there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn acknowledged(&self, rev: i64) -> Result<Vec<NodeState>, Error>;

    /// Versions that have not begun, by start.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn scheduled(&self, now: Timestamp) -> Result<Vec<(Resource, Row)>, Error>;

    /// Every hatch as it stands.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn hatches(&self) -> Result<Hatches, Error>;

    /// Pulls a hatch and gives the revision.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn pull(&self, hatch: Hatch, actor: &Actor, now: Timestamp) -> Result<i64, Error>;
}

#[cfg(test)]
mod tests;
