//! Holds, settlements and postings: the vocabulary of double entry, and what a settlement posts.
//!
//! A [`Hold`] reserves money before the first attempt. A [`Settlement`] closes it once: it names
//! what the customer owes (sale) and what each attempt costs us (cost). [`legs`] turns it into
//! legs; one leg is one debit and one credit of one amount, so an unbalanced entry cannot be
//! written down. Not here: storage, batching, or how usage becomes an amount (`pricing`). Source:
//! SPEC 8; `reliability` 1.4 to 1.6.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::money::{Currency, Multiplier};
use crate::usage::{Usage, UsageSource};

mod chart; // accounts, components, kinds of entry
pub mod fx; // sales in one currency, paid in another
pub mod promo; // credit that is used before money
pub mod recovery; // what becomes of a hold whose owner is gone
mod running; // checkpoints and extensions
mod trueup; // corrections by later knowledge

pub use chart::{Account, Component, EntryKind, Normal};
pub use running::{Checkpoint, Exposure, Extension, Phase, Running};
pub use trueup::{Room, true_up, true_up_named};

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
    /// The conversion rate pinned with it. `None` when the price is in the wallet's own currency.
    pub fx: Option<PriceRef>,
    /// The caller's factor on the sale price.
    pub multiplier: Multiplier,
    /// Where it goes first and what it can cost us. `None` when nothing is sent upstream, or when
    /// it is not known.
    pub exposure: Option<Exposure>,
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
    /// How the sale was made in another currency. `None` when the price is in the wallet's own.
    pub conversion: Option<fx::Conversion>,
    /// Every upstream call, in order.
    pub attempts: Vec<Attempt>,
    /// When it happened.
    pub at: Timestamp,
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
    legs_with_promo(settlement, charged, 0)
}

/// The same, with `promo` units of `charged` taken from promotional credit and the rest from the
/// wallet.
pub fn legs_with_promo(settlement: &Settlement, charged: i64, promo: i64) -> Vec<Leg> {
    let mut legs = Vec::with_capacity(settlement.attempts.len().saturating_add(2));
    if let Close::Settle { sale, estimate } = settlement.close {
        legs.extend(fx::sale_legs(settlement, (sale, estimate), charged, promo));
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
    } else if attempt.outcome == recovery::OUTCOME && cost.estimate {
        (Account::Exposure, Component::Exposure)
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
/// wallet has left above its floor; the rest is not collected, and booked as our loss
/// (`reliability` 1.6, row 20).
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

/// A wallet as it stands, in units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Of the amounts.
    pub currency: Currency,
    /// What the postings to the wallet come to.
    pub posted: i64,
    /// What is left of promotional credit. The store's includes what has expired and was not posted
    /// back yet.
    pub promo: i64,
    /// What open holds reserve.
    pub held: i64,
    /// The lowest it may go.
    pub floor: i64,
}

impl Balance {
    /// What a new hold may take.
    pub const fn available(&self) -> i64 {
        self.posted.saturating_add(self.promo).saturating_sub(self.held).saturating_sub(self.floor)
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
            conversion: None,
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
