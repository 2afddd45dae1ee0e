//! What is written down about a call while it runs, for whoever has to end it in its place.
//!
//! A [`Checkpoint`] says how far a call has come: a provisional settlement that posts nothing. An
//! [`Extension`] reserves more for the same hold. Not here: what is decided from them (`recovery`).
//! Invariant: a checkpoint only ever adds to what the hold itself says. Source: `reliability` 1.5.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use super::{Attempt, PriceRef};
use crate::clock::Timestamp;
use crate::money::Currency;
use crate::usage::Usage;

/// How far a call has come, as far as its last checkpoint says.
///
/// [`Phase::Intent`] does not prove that nothing was sent: a call goes on as soon as its hold is on
/// disk, and the first checkpoint comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Only the hold is known.
    #[default]
    Intent,
    /// A request was sent, or is about to be.
    Dispatched,
    /// Content has gone to the customer.
    Streaming,
    /// The provider has taken a task on, which goes on without us.
    AsyncAccepted,
}

impl Phase {
    /// The number it is stored as. Never reused.
    pub const fn number(self) -> i16 {
        match self {
            Self::Intent => 0,
            Self::Dispatched => 1,
            Self::Streaming => 2,
            Self::AsyncAccepted => 3,
        }
    }

    /// The phase stored as that number.
    pub fn from_number(number: i16) -> Option<Self> {
        let all = [Self::Intent, Self::Dispatched, Self::Streaming, Self::AsyncAccepted];
        all.into_iter().find(|phase| phase.number() == number)
    }
}

/// Where a call will go first, and the most that it can cost us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The first candidate.
    pub channel: Arc<str>,
    /// The highest cost of any candidate, in units; not negative.
    pub amount: i64,
    /// Of the amount.
    pub currency: Currency,
    /// The cost price that gave the amount.
    pub price: PriceRef,
}

/// An upstream call whose end is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Counts up from 1 inside the request.
    pub n: i16,
    /// Which channel.
    pub channel: Arc<str>,
    /// Which of its credentials.
    pub credential: Arc<str>,
    /// The upstream model.
    pub model: Arc<str>,
    /// The cost price pinned when it started.
    pub cost_price: PriceRef,
    /// The provider's own id of the call, when it was seen.
    pub upstream_ref: Option<String>,
    /// What it has consumed so far, by our own count.
    pub usage: Usage,
    /// Whether content has gone to the customer.
    pub delivered: bool,
    /// When it started.
    pub started_at: Timestamp,
}

/// How far a call has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The hold, by the request's id.
    pub hold: Uuid,
    /// Whose wallet.
    pub app: Arc<str>,
    /// Of the wallet.
    pub currency: Currency,
    /// How far it has come.
    pub phase: Phase,
    /// What the customer would owe if it ended here, in units; not negative.
    pub progress: i64,
    /// Upstream calls that have ended, in order.
    pub ended: Vec<Attempt>,
    /// The upstream call that is under way.
    pub running: Option<Running>,
    /// After this its owner is gone or stuck.
    pub expires_at: Timestamp,
}

/// More money reserved for a hold that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The hold, by the request's id.
    pub hold: Uuid,
    /// Whose wallet.
    pub app: Arc<str>,
    /// Of the wallet.
    pub currency: Currency,
    /// What is to be held in all, in units. No more than is held already has no effect.
    pub amount: i64,
    /// The lowest balance the wallet may have, in units; 0 or negative.
    pub floor: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_keep_their_numbers() {
        let numbers = (0..=3).map(|n| Phase::from_number(n).map(Phase::number));
        assert_eq!(numbers.collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(Phase::from_number(4), None);
    }
}
