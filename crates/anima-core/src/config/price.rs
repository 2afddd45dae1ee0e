//! A price as written: which book, for what, and its meters' amounts as decimal text.
//!
//! Not here: the arithmetic (`pricing`). Invariant: amounts stay text until they become exact
//! rates, so nothing is rounded on the way.

use serde::{Deserialize, Serialize};

use crate::money::{Currency, Rate};
use crate::pricing::When;
use crate::usage::Meter;

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
