//! The configuration's rows as values, in the shape in which the admin API writes them (SPEC 15).
//!
//! A row is a [`Version`]: a body that is in force in a half-open window of time, beside the live
//! switch `enabled`. Bodies refuse unknown members; [`Check::check`] names the first bad one.
//! Not here: how rows are stored, and what the whole of them means (`snapshot`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::money::{Currency, Money, Multiplier, Rate};
use crate::pricing::When;
use crate::usage::Meter;

mod check;

pub use check::{Check, Problem};

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
    /// Calls in the window before a rate counts.
    pub minimum_calls: u32,
    /// Failures that trip, in percent of the window's calls.
    pub failure_rate: u8,
    /// Failures in a row that trip.
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
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            window_ms: 30_000,
            minimum_calls: 20,
            failure_rate: 50,
            consecutive_failures: 5,
            slow_call_ms: 30_000,
            slow_rate: 80,
            open_ms: 5_000,
            max_open_ms: 300_000,
            half_open_permits: 3,
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

/// Which book a price belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What the provider charges us.
    Cost,
    /// What we charge the customer.
    Sale,
}

/// A price's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Cost or sale.
    pub side: Side,
    /// Cost only: the channel's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Cost only: the upstream model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Sale only: the alias's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Sale only: the token group that this price is for; without one it is for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_group: Option<String>,
    /// Currency of every amount.
    pub currency: Currency,
    /// The rates.
    pub meters: Vec<MeterPrice>,
}

impl Price {
    /// What the price is for, as one text: two prices of one scope may not be in force together.
    pub fn scope(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        match self.side {
            Side::Cost => format!("cost|{}|{}", part(&self.channel), part(&self.model)),
            Side::Sale => format!("sale|{}|{}", part(&self.alias), part(&self.token_group)),
        }
    }
}

/// One meter's price as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeterPrice {
    /// What is counted.
    pub meter: Meter,
    /// For how many units the amount is: a power of ten up to 10^9.
    #[serde(default = "single")]
    pub per: u64,
    /// A decimal in a string.
    pub amount: String,
    /// When it applies.
    #[serde(default)]
    pub when: When,
}

const fn single() -> u64 {
    1
}

impl MeterPrice {
    /// The exact rate.
    ///
    /// # Errors
    /// Whatever is wrong with `amount` or `per`.
    pub fn rate(&self, currency: Currency) -> Result<Rate, crate::money::Error> {
        Rate::parse(&self.amount, self.per, currency)
    }
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are the words of SPEC 6")]
pub enum LimitKind {
    Concurrency,
    Requests,
    Tokens,
    Cost,
}

/// Which tokens a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the variants are the words of SPEC 6")]
pub enum TokenCount {
    Input,
    Output,
    Total,
}

/// A limit's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Everything that the gateway is configured with, but for apps and keys: all versions that are in
/// force now or later, and the number of the last change they contain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "one list per resource")]
pub struct Tables {
    pub rev: i64,
    pub channels: Vec<Version<Channel>>,
    pub aliases: Vec<Version<Alias>>,
    pub prices: Vec<Version<Price>>,
    pub quotas: Vec<Version<Quota>>,
    pub token_groups: Vec<Version<TokenGroup>>,
}

/// Picks what is in force at `at`, by code.
pub fn effective<B>(versions: &[Version<B>], at: Timestamp) -> BTreeMap<&str, &Version<B>> {
    versions.iter().filter(|v| v.is_effective(at)).map(|v| (v.code.as_str(), v)).collect()
}
