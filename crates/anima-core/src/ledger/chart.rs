//! The chart of accounts, what a leg is for, and the kinds of journal entry.
//!
//! Each has a word, which people and the API see, and a number, which is stored. Not here: which
//! event posts what (`legs` and the files beside this one). Invariant: a number that was ever
//! stored is never given to something else. Source: `reliability` 1.4.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An account of the books. Its text is its code: `wallet:<app>`, `payable:<channel>`, `revenue`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// What we owe an app: its prepaid balance. Gated: holds are judged against it.
    Wallet(Arc<str>),
    /// What we gave an app to use before its own money. What is left of its grants.
    Promo(Arc<str>),
    /// Money that came in through the payment provider.
    PspClearing,
    /// What we owe a provider, as it reported.
    Payable(Arc<str>),
    /// What we may owe a provider, by our own estimate, until its invoice says.
    PayableEstimated(Arc<str>),
    /// What we hold in a currency because of conversions: in one currency a debt, in another a
    /// claim, worth the same at the rates that were used.
    FxPosition,
    /// Sales.
    Revenue,
    /// Sales given back and goodwill (contra revenue).
    Refunds,
    /// Promotional credit that was sold and expired unused.
    Breakage,
    /// Cost of attempts that served a customer.
    CostOfSales,
    /// Cost of attempts that did not: failed, abandoned.
    WastedCost,
    /// What no customer pays for: what calls may cost whose end nobody saw, and the part of a sale
    /// that no hold and no balance covered.
    Exposure,
    /// Promotional credit that was given away.
    PromoCost,
    /// What the payment provider keeps of a top-up.
    PaymentFees,
    /// Corrections by an operator, with a reason.
    Adjustments,
    /// What conversions earn or lose: the spread on a rate.
    FxResult,
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
    /// Reads a code. `None` when no account has it.
    pub fn parse(code: &str) -> Option<Self> {
        if let Some((word, owner)) = code.split_once(':') {
            return Some(match word {
                "wallet" => Self::Wallet(owner.into()),
                "promo" => Self::Promo(owner.into()),
                "payable" => Self::Payable(owner.into()),
                "payable_estimated" => Self::PayableEstimated(owner.into()),
                _ => return None,
            });
        }
        Some(match code {
            "psp_clearing" => Self::PspClearing,
            "fx_position" => Self::FxPosition,
            "revenue" => Self::Revenue,
            "refunds" => Self::Refunds,
            "breakage" => Self::Breakage,
            "cost_of_sales" => Self::CostOfSales,
            "wasted_cost" => Self::WastedCost,
            "exposure" => Self::Exposure,
            "promo_cost" => Self::PromoCost,
            "payment_fees" => Self::PaymentFees,
            "adjustments" => Self::Adjustments,
            "fx_result" => Self::FxResult,
            _ => return None,
        })
    }

    /// Class number of the chart of accounts (`reliability` 1.4).
    pub const fn class(&self) -> i16 {
        match self {
            Self::PspClearing => 1010,
            Self::Wallet(_) => 2010,
            Self::Promo(_) => 2020,
            Self::Payable(_) => 2030,
            Self::PayableEstimated(_) => 2031,
            Self::FxPosition => 3010,
            Self::Revenue => 4010,
            Self::Refunds => 4020,
            Self::Breakage => 4030,
            Self::CostOfSales => 5010,
            Self::WastedCost => 5020,
            Self::Exposure => 5030,
            Self::PromoCost => 5040,
            Self::PaymentFees => 5050,
            Self::Adjustments => 5060,
            Self::FxResult => 5070,
        }
    }

    /// Which side increases it.
    pub const fn normal(&self) -> Normal {
        match self {
            Self::Wallet(_)
            | Self::Promo(_)
            | Self::Payable(_)
            | Self::PayableEstimated(_)
            | Self::Revenue
            | Self::Breakage => Normal::Credit,
            Self::PspClearing
            | Self::FxPosition
            | Self::Refunds
            | Self::CostOfSales
            | Self::WastedCost
            | Self::Exposure
            | Self::PromoCost
            | Self::PaymentFees
            | Self::Adjustments
            | Self::FxResult => Normal::Debit,
        }
    }

    /// Whether holds are judged against its balance.
    pub const fn is_gated(&self) -> bool {
        matches!(self, Self::Wallet(_))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Wallet(app) => return write!(f, "wallet:{app}"),
            Self::Promo(app) => return write!(f, "promo:{app}"),
            Self::Payable(channel) => return write!(f, "payable:{channel}"),
            Self::PayableEstimated(channel) => return write!(f, "payable_estimated:{channel}"),
            Self::PspClearing => "psp_clearing",
            Self::FxPosition => "fx_position",
            Self::Revenue => "revenue",
            Self::Refunds => "refunds",
            Self::Breakage => "breakage",
            Self::CostOfSales => "cost_of_sales",
            Self::WastedCost => "wasted_cost",
            Self::Exposure => "exposure",
            Self::PromoCost => "promo_cost",
            Self::PaymentFees => "payment_fees",
            Self::Adjustments => "adjustments",
            Self::FxResult => "fx_result",
        };
        f.write_str(word)
    }
}

/// What a leg is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The customer's side: whatever a sale takes from a wallet and from promotional credit.
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
    /// What somebody else keeps of money that came in.
    Fee,
    /// Promotional credit given, or taken back unused.
    Promo,
    /// The other currency's side of a sale.
    Fx,
    /// An attempt whose end nobody saw.
    Exposure,
    /// The part of a sale that could not be taken: it is revenue, and our loss.
    Uncollected,
}

impl Component {
    /// Each of them.
    pub const ALL: &'static [Self] = &[
        Self::Sale,
        Self::Cost,
        Self::Waste,
        Self::Topup,
        Self::Refund,
        Self::Adjustment,
        Self::Fee,
        Self::Promo,
        Self::Fx,
        Self::Exposure,
        Self::Uncollected,
    ];

    /// The number it is stored as. Never reused.
    pub const fn number(self) -> i16 {
        match self {
            Self::Sale => 1,
            Self::Cost => 2,
            Self::Waste => 3,
            Self::Topup => 4,
            Self::Refund => 5,
            Self::Adjustment => 6,
            Self::Exposure => 10,
            Self::Uncollected => 11,
            Self::Fee => 20,
            Self::Promo => 21,
            Self::Fx => 22,
        }
    }

    /// The component stored as that number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.number() == number)
    }
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
    /// Promotional credit given or sold.
    PromoGrant,
    /// Promotional credit that expired unused.
    PromoExpiry,
    /// What a settlement would have been, had all been known.
    Trueup,
}

impl EntryKind {
    /// Each of them.
    pub const ALL: &'static [Self] = &[
        Self::Settle,
        Self::ReleaseCost,
        Self::Topup,
        Self::Refund,
        Self::Adjust,
        Self::PromoGrant,
        Self::PromoExpiry,
        Self::Trueup,
    ];

    /// The number it is stored as. Never reused.
    pub const fn number(self) -> i16 {
        match self {
            Self::Settle => 1,
            Self::ReleaseCost => 2,
            Self::Topup => 3,
            Self::Refund => 4,
            Self::Adjust => 5,
            Self::Trueup => 10,
            Self::PromoGrant => 20,
            Self::PromoExpiry => 21,
        }
    }

    /// The kind stored as that number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_stored_number_stands_for_one_thing() {
        let components: BTreeSet<_> = Component::ALL.iter().map(|c| c.number()).collect();
        assert_eq!(components.len(), Component::ALL.len());
        let kinds: BTreeSet<_> = EntryKind::ALL.iter().map(|k| k.number()).collect();
        assert_eq!(kinds.len(), EntryKind::ALL.len());
        assert!(Component::ALL.iter().all(|c| Component::from_number(c.number()) == Some(*c)));
        assert!(EntryKind::ALL.iter().all(|k| EntryKind::from_number(k.number()) == Some(*k)));
        assert_eq!((Component::from_number(7), EntryKind::from_number(6)), (None, None));
    }

    #[test]
    fn a_code_reads_back_as_its_account() {
        for account in [
            Account::Wallet("a:b".into()),
            Account::Promo("a".into()),
            Account::PspClearing,
            Account::Payable("c".into()),
            Account::PayableEstimated("c".into()),
            Account::FxPosition,
            Account::Revenue,
            Account::Refunds,
            Account::Breakage,
            Account::CostOfSales,
            Account::WastedCost,
            Account::Exposure,
            Account::PromoCost,
            Account::PaymentFees,
            Account::Adjustments,
            Account::FxResult,
        ] {
            assert_eq!(Account::parse(&account.to_string()), Some(account));
        }
        assert_eq!((Account::parse("wallets:a"), Account::parse("")), (None, None));
    }

    #[test]
    fn only_wallets_are_gated_and_codes_name_their_owner() {
        let app: Arc<str> = "acme".into();
        assert!(Account::Wallet(Arc::clone(&app)).is_gated());
        assert!(!Account::Promo(Arc::clone(&app)).is_gated());
        assert_eq!(Account::Promo(app).to_string(), "promo:acme");
        assert_eq!(Account::Adjustments.class(), 5060);
    }
}
