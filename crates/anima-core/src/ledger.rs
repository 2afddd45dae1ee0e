//! Holds, settlements and postings: the vocabulary of double entry, and what a settlement posts.
//!
//! A [`Hold`] reserves money before the first attempt. A [`Settlement`] closes it once: it names
//! what the customer owes (sale) and what each attempt costs us (cost). [`legs`] turns it into
//! legs; one leg is one debit and one credit of one amount, so an unbalanced entry cannot be
//! written down. Not here: storage, batching, or how usage becomes an amount (`pricing`). Source:
//! SPEC 8; `reliability` 1.4 to 1.6.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::money::Currency;
use crate::usage::{Usage, UsageSource};

/// An account of the books. Its text is its code: `wallet:<app>`, `payable:<channel>`, `revenue`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// What we owe an app: its prepaid balance. Gated: holds are judged against it.
    Wallet(Arc<str>),
    /// Money that came in through the payment provider.
    PspClearing,
    /// What we owe a provider, as it reported.
    Payable(Arc<str>),
    /// What we may owe a provider, by our own estimate, until its invoice says.
    PayableEstimated(Arc<str>),
    /// Sales.
    Revenue,
    /// Sales given back and goodwill (contra revenue).
    Refunds,
    /// Cost of attempts that served a customer.
    CostOfSales,
    /// Cost of attempts that did not: failed, abandoned.
    WastedCost,
    /// Corrections by an operator, with a reason.
    Adjustments,
}

/// Which side increases an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normal {
    /// Assets and expenses.
    Debit,
    /// Liabilities and revenue.
    Credit,
}

impl Account {
    /// Class number of the chart of accounts (`reliability` 1.4).
    pub const fn class(&self) -> i16 {
        match self {
            Self::PspClearing => 1010,
            Self::Wallet(_) => 2010,
            Self::Payable(_) => 2030,
            Self::PayableEstimated(_) => 2031,
            Self::Revenue => 4010,
            Self::Refunds => 4020,
            Self::CostOfSales => 5010,
            Self::WastedCost => 5020,
            Self::Adjustments => 5060,
        }
    }

    /// Which side increases it.
    pub const fn normal(&self) -> Normal {
        match self {
            Self::Wallet(_) | Self::Payable(_) | Self::PayableEstimated(_) | Self::Revenue => {
                Normal::Credit
            }
            Self::PspClearing
            | Self::Refunds
            | Self::CostOfSales
            | Self::WastedCost
            | Self::Adjustments => Normal::Debit,
        }
    }

    /// Whether holds are judged against its balance.
    pub const fn is_gated(&self) -> bool {
        matches!(self, Self::Wallet(_))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wallet(app) => write!(f, "wallet:{app}"),
            Self::PspClearing => f.write_str("psp_clearing"),
            Self::Payable(channel) => write!(f, "payable:{channel}"),
            Self::PayableEstimated(channel) => write!(f, "payable_estimated:{channel}"),
            Self::Revenue => f.write_str("revenue"),
            Self::Refunds => f.write_str("refunds"),
            Self::CostOfSales => f.write_str("cost_of_sales"),
            Self::WastedCost => f.write_str("wasted_cost"),
            Self::Adjustments => f.write_str("adjustments"),
        }
    }
}

/// One version of a price list, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PriceRef {
    /// The price's code.
    pub code: Arc<str>,
    /// Its version.
    pub version_no: i64,
}

/// Money reserved on an app's wallet for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The request's id.
    pub id: Uuid,
    /// Whose wallet.
    pub app: Arc<str>,
    /// Which key asked.
    pub kid: Arc<str>,
    /// The alias that was asked for.
    pub alias: Arc<str>,
    /// Of the wallet.
    pub currency: Currency,
    /// How much, in units; not negative.
    pub amount: i64,
    /// The lowest balance the wallet may have, in units; 0 or negative.
    pub floor: i64,
    /// The sale price pinned at admission.
    pub sale_price: PriceRef,
    /// When it was made.
    pub created_at: Timestamp,
    /// After this its owner is gone or stuck.
    pub expires_at: Timestamp,
}

/// What one attempt costs us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptCost {
    /// In units; not negative.
    pub amount: i64,
    /// Of the cost price.
    pub currency: Currency,
    /// The cost price pinned when the attempt started.
    pub price: PriceRef,
    /// The amount rests on our own count or on a rate that stood in.
    pub estimate: bool,
}

/// One upstream call as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Counts up from 1 inside the request.
    pub n: i16,
    /// Which channel.
    pub channel: Arc<str>,
    /// Which of its credentials.
    pub credential: Arc<str>,
    /// The upstream model.
    pub model: Arc<str>,
    /// `ok` or the failure's code.
    pub outcome: &'static str,
    /// Whether its answer went to the customer.
    pub served: bool,
    /// What it consumed.
    pub usage: Usage,
    /// Where the usage comes from.
    pub usage_source: UsageSource,
    /// What it costs us; `None` when the provider charges nothing.
    pub cost: Option<AttemptCost>,
    /// The provider's own id of the call.
    pub upstream_ref: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When its first byte came.
    pub first_byte_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Timestamp,
}

/// How a hold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The customer owes this many units, which may be 0.
    Settle {
        /// In units of the wallet's currency; not negative.
        sale: i64,
        /// The amount rests on our own count or on a rate that stood in.
        estimate: bool,
    },
    /// The customer owes nothing: nothing was delivered.
    Release,
}

/// The end of one request's money: closes its hold, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The hold, by the request's id.
    pub hold: Uuid,
    /// Whose wallet.
    pub app: Arc<str>,
    /// Of the wallet.
    pub currency: Currency,
    /// How it ends.
    pub close: Close,
    /// The sale price pinned at admission.
    pub sale_price: PriceRef,
    /// Every upstream call, in order.
    pub attempts: Vec<Attempt>,
    /// When it happened.
    pub at: Timestamp,
}

/// What a leg is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The customer's side.
    Sale,
    /// A served attempt.
    Cost,
    /// An attempt that served nobody.
    Waste,
    /// Money that came in.
    Topup,
    /// Money given back.
    Refund,
    /// A correction.
    Adjustment,
}

impl Component {
    /// The number it is stored as. Never reused.
    pub const fn number(self) -> i16 {
        match self {
            Self::Sale => 1,
            Self::Cost => 2,
            Self::Waste => 3,
            Self::Topup => 4,
            Self::Refund => 5,
            Self::Adjustment => 6,
        }
    }

    /// The component stored as that number.
    pub fn from_number(number: i16) -> Option<Self> {
        let all =
            [Self::Sale, Self::Cost, Self::Waste, Self::Topup, Self::Refund, Self::Adjustment];
        all.into_iter().find(|c| c.number() == number)
    }
}

/// One debit and one credit of one amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// The account that is debited.
    pub debit: Account,
    /// The account that is credited. Never the same.
    pub credit: Account,
    /// In units; above 0.
    pub amount: i64,
    /// Of both accounts.
    pub currency: Currency,
    /// What it is for.
    pub component: Component,
    /// Which attempt, for a cost.
    pub attempt: Option<i16>,
    /// The price version that gave the amount.
    pub price: Option<PriceRef>,
    /// The amount is an estimate.
    pub estimate: bool,
}

/// The legs of a settlement, with `charged` units actually taken from the wallet.
///
/// The store decides `charged` under the wallet's lock: at most the sale, and never so much that
/// the wallet would fall below its floor. Amounts of 0 post nothing.
pub fn legs(settlement: &Settlement, charged: i64) -> Vec<Leg> {
    let mut legs = Vec::with_capacity(settlement.attempts.len().saturating_add(1));
    if let Close::Settle { estimate, .. } = settlement.close
        && charged > 0
    {
        legs.push(Leg {
            debit: Account::Wallet(Arc::clone(&settlement.app)),
            credit: Account::Revenue,
            amount: charged,
            currency: settlement.currency,
            component: Component::Sale,
            attempt: None,
            price: Some(settlement.sale_price.clone()),
            estimate,
        });
    }
    for attempt in &settlement.attempts {
        legs.extend(attempt.cost.as_ref().and_then(|cost| cost_leg(attempt, cost)));
    }
    legs
}

fn cost_leg(attempt: &Attempt, cost: &AttemptCost) -> Option<Leg> {
    if cost.amount <= 0 {
        return None;
    }
    let channel = Arc::clone(&attempt.channel);
    let (debit, component) = if attempt.served {
        (Account::CostOfSales, Component::Cost)
    } else {
        (Account::WastedCost, Component::Waste)
    };
    let credit =
        if cost.estimate { Account::PayableEstimated(channel) } else { Account::Payable(channel) };
    Some(Leg {
        debit,
        credit,
        amount: cost.amount,
        currency: cost.currency,
        component,
        attempt: Some(attempt.n),
        price: Some(cost.price.clone()),
        estimate: cost.estimate,
    })
}

/// How many units may be taken from a wallet at settlement.
///
/// The hold is always there to be taken. What the sale is above it may be taken from what the
/// wallet has left above its floor; the rest is not collected (`reliability` 1.6, row 20).
pub fn collectable(sale: i64, held: i64, available: i64) -> i64 {
    let extra = sale.saturating_sub(held).clamp(0, available.max(0));
    sale.min(held).saturating_add(extra).max(0)
}

/// A journal entry that stands on its own: a top-up, a refund, an adjustment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it explains; with `kind` and `seq` the key under which it happens once.
    pub subject: Uuid,
    /// What kind of entry.
    pub kind: EntryKind,
    /// Tells several of one kind for one subject apart.
    pub seq: i16,
    /// What is posted. Not empty.
    pub legs: Vec<Leg>,
    /// The operator's reference or reason.
    pub reference: String,
    /// When it happened.
    pub at: Timestamp,
    /// New floor of the wallet concerned, in units.
    pub floor: i64,
}

/// What a journal entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A request's settlement.
    Settle,
    /// Costs of a request that the customer does not pay.
    ReleaseCost,
    /// Money that came in.
    Topup,
    /// Money given back.
    Refund,
    /// A correction by an operator.
    Adjust,
}

impl EntryKind {
    /// The number it is stored as. Never reused.
    pub const fn number(self) -> i16 {
        match self {
            Self::Settle => 1,
            Self::ReleaseCost => 2,
            Self::Topup => 3,
            Self::Refund => 4,
            Self::Adjust => 5,
        }
    }

    /// The kind stored as that number.
    pub fn from_number(number: i16) -> Option<Self> {
        let all = [Self::Settle, Self::ReleaseCost, Self::Topup, Self::Refund, Self::Adjust];
        all.into_iter().find(|k| k.number() == number)
    }
}

/// A wallet as it stands, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Of the amounts.
    pub currency: Currency,
    /// What the postings come to.
    pub posted: i64,
    /// What open holds reserve.
    pub held: i64,
    /// The lowest it may go.
    pub floor: i64,
}

impl Balance {
    /// What a new hold may take.
    pub const fn available(&self) -> i64 {
        self.posted.saturating_sub(self.held).saturating_sub(self.floor)
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attempt(n: i16, served: bool, amount: i64, estimate: bool) -> Attempt {
        let price = PriceRef { code: "cost".into(), version_no: 3 };
        Attempt {
            n,
            channel: "up".into(),
            credential: "main".into(),
            model: "m".into(),
            outcome: "ok",
            served,
            usage: Usage::default(),
            usage_source: UsageSource::Provider,
            cost: Some(AttemptCost { amount, currency: Currency::USD, price, estimate }),
            upstream_ref: None,
            started_at: Timestamp::default(),
            first_byte_at: None,
            ended_at: Timestamp::default(),
        }
    }

    fn settlement(close: Close, attempts: Vec<Attempt>) -> Settlement {
        Settlement {
            hold: Uuid::nil(),
            app: "acme".into(),
            currency: Currency::USD,
            close,
            sale_price: PriceRef { code: "sale".into(), version_no: 1 },
            attempts,
            at: Timestamp::default(),
        }
    }

    #[test]
    fn a_sale_and_every_attempt_are_posted() {
        let close = Close::Settle { sale: 90, estimate: false };
        let attempts = vec![attempt(1, false, 7, true), attempt(2, true, 40, false)];
        let legs = legs(&settlement(close, attempts), 90);
        let shown: Vec<String> =
            legs.iter().map(|l| format!("{} {} {}", l.debit, l.credit, l.amount)).collect();
        assert_eq!(
            shown,
            [
                "wallet:acme revenue 90",
                "wasted_cost payable_estimated:up 7",
                "cost_of_sales payable:up 40"
            ]
        );
    }

    #[test]
    fn a_release_still_books_what_was_wasted() {
        let legs = legs(&settlement(Close::Release, vec![attempt(1, false, 7, false)]), 0);
        assert_eq!(legs.len(), 1);
        assert_eq!(legs[0].component, Component::Waste);
    }

    proptest! {
        #[test]
        fn a_wallet_never_falls_below_its_floor(
            sale in 0_i64..1_000, held in 0_i64..1_000, available in 0_i64..1_000,
        ) {
            let charged = collectable(sale, held, available);
            prop_assert!(charged <= sale);
            prop_assert!(charged <= held + available);
            prop_assert!(charged >= sale.min(held));
        }
    }
}
