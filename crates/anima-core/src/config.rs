//! The configuration's rows as values, in the shape in which the admin API writes them (SPEC 15).
//!
//! A row is a [`Version`]: a body that is in force in a half-open window of time, beside the live
//! switch `enabled`. Bodies refuse unknown members; [`Check::check`] names the first bad one.
//! Not here: how rows are stored, and what the whole of them means (`snapshot`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::money::{Currency, Money, Multiplier};

mod alias;
mod channel;
mod check;
mod fault;
mod fx_rate;
mod price;
mod quota;

pub use alias::{Alias, Fallbacks, Kind, RetryBudget, Route};
pub use channel::{Breaker, Channel, Credential, OnDisconnect, Timeouts};
pub use check::{Check, Problem};
pub use fault::{FAULT_AHEAD_MS, FaultKind, FaultRule};
pub use fx_rate::FxRate;
pub use price::{MeterPrice, Price, Side};
pub use quota::{Amount, Limit, LimitKind, OnOutage, QueueMode, Quota, Raised, TokenCount, Window};

/// The kinds of row, one table each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// An upstream account at one provider.
    Channel,
    /// A model name that clients use.
    Alias,
    /// What one unit of a meter costs.
    Price,
    /// A named list of limits.
    Quota,
    /// A set of keys that share aliases, a multiplier, a quota and a queue mode.
    TokenGroup,
    /// A customer's application: owns keys and one wallet.
    App,
    /// A key of an app.
    UserApiKey,
    /// What one currency is in another.
    FxRate,
}

impl Resource {
    /// Every resource, in the order in which they may refer to one another.
    pub const ALL: &'static [Self] = &[
        Self::Channel,
        Self::Alias,
        Self::Quota,
        Self::TokenGroup,
        Self::Price,
        Self::App,
        Self::UserApiKey,
        Self::FxRate,
    ];

    /// The table's name, also the word in audit records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Alias => "alias",
            Self::Price => "price",
            Self::Quota => "quota",
            Self::TokenGroup => "token_group",
            Self::App => "app",
            Self::UserApiKey => "user_api_key",
            Self::FxRate => "fx_rate",
        }
    }

    /// Reads a table's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.name() == name)
    }
}

/// One version of one row: its body and the window in which it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version<B> {
    /// The row's code; for a key, its `kid`.
    pub code: String,
    /// For a key, its app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Counts up from 1 with every change of the row.
    pub version_no: i64,
    /// In force from here on.
    pub effective_from: Timestamp,
    /// In force until just before here; `None` is open.
    pub effective_to: Option<Timestamp>,
    /// The live switch of the row: the same for all its versions.
    pub enabled: bool,
    /// What the row says.
    pub body: B,
}

impl<B> Version<B> {
    /// Whether the version is in force at `at`.
    pub fn is_effective(&self, at: Timestamp) -> bool {
        self.effective_from <= at && self.effective_to.is_none_or(|end| at < end)
    }
}

/// A token group's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenGroup {
    /// Aliases that its keys may use; `*` is all.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Factor on sale prices, a decimal in a string.
    #[serde(default = "times_one")]
    pub multiplier: String,
    /// A quota's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
    /// Default of its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_mode: Option<QueueMode>,
}

fn times_one() -> String {
    "1".to_owned()
}

impl TokenGroup {
    /// The multiplier as a number.
    ///
    /// # Errors
    /// When the text is not a decimal with up to six decimals.
    pub fn factor(&self) -> Result<Multiplier, crate::money::Error> {
        Multiplier::parse(&self.multiplier)
    }
}

/// An app's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Of its wallet. Cannot change once there are postings.
    #[serde(default = "dollars")]
    pub currency: Currency,
    /// How far below zero the wallet may go, a decimal in a string.
    #[serde(default = "nothing")]
    pub credit_limit: String,
    /// Where its days and months begin, such as `Europe/Berlin`.
    #[serde(default = "universal", skip_serializing_if = "is_universal")]
    pub time_zone: String,
    /// Default of its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_group: Option<String>,
    /// A quota's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

fn dollars() -> Currency {
    Currency::USD
}

fn universal() -> String {
    "UTC".to_owned()
}

fn is_universal(zone: &str) -> bool {
    zone == "UTC"
}

fn nothing() -> String {
    "0".to_owned()
}

impl App {
    /// The lowest balance the wallet may have, in units: minus the credit limit.
    ///
    /// # Errors
    /// When the credit limit is not a decimal, is negative or does not fit.
    pub fn floor_units(&self) -> Result<i64, crate::money::Error> {
        let limit = Money::parse(&self.credit_limit, self.currency)?;
        if limit.units < 0 {
            return Err(crate::money::Error::NotDecimal);
        }
        limit.units.checked_neg().ok_or(crate::money::Error::Overflow)
    }
}

/// A key's body. Its secret is not here: hashes have a table of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// For people.
    pub name: String,
    /// Overrides the app's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_group: Option<String>,
    /// A quota's code, beside those of the app and the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
    /// Overrides the group's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_mode: Option<QueueMode>,
    /// WAIT only: how long a call may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_timeout_ms: Option<u32>,
    /// WAIT only: how many may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u32>,
    /// The key is dead from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Addresses or CIDR blocks that may use it; empty is all.
    pub allowed_ips: Vec<String>,
    /// Whether its calls may ask how they were routed; overrides the gateway's setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_trace: Option<bool>,
}

/// Everything that the gateway is configured with, but for apps and keys: all versions that are in
/// force now or later, and the number of the last change they contain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "one list per resource")]
pub struct Tables {
    pub rev: i64,
    pub channels: Vec<Version<Channel>>,
    pub aliases: Vec<Version<Alias>>,
    pub prices: Vec<Version<Price>>,
    pub quotas: Vec<Version<Quota>>,
    pub token_groups: Vec<Version<TokenGroup>>,
    pub fx_rates: Vec<Version<FxRate>>,
}

/// Picks what is in force at `at`, by code.
pub fn effective<B>(versions: &[Version<B>], at: Timestamp) -> BTreeMap<&str, &Version<B>> {
    versions.iter().filter(|v| v.is_effective(at)).map(|v| (v.code.as_str(), v)).collect()
}
