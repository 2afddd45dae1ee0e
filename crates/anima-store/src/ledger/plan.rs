//! What a batch reads before it is judged, and what it writes after.
//!
//! Plain rows, the same for both databases: a store fills [`Known`] and writes a [`Plan`] in the
//! same transaction. Nothing is decided here; that is `judge`'s part.
//! Invariant: a plan's rows name accounts and prices by ids that exist.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::promo::{Credit, Taken};
use anima_core::ledger::{Attempt, Hold, Leg};
use anima_core::money::{Currency, Multiplier};

use super::digest::Digest;
use super::operation::PreparedCheckpoint;

/// A gated balance as it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wallet {
    pub(super) debits: i64,
    pub(super) credits: i64,
    pub(super) held: i64,
    pub(super) floor: i64,
    /// What is left of its grants, expired ones included until they are posted back. Only apps that
    /// were ever given promotional credit have more than 0, and `promo_id`, the account of it.
    pub(super) promo: i64,
    pub(super) promo_id: Option<i64>,
    /// It must be written.
    pub(super) changed: bool,
}

/// How a stored hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Open, and who may close it.
    Open { node: Uuid },
    /// Closed, by whom and by what.
    Closed { node: Uuid, charged: i64, uncollected: i64, digest: Digest },
}

/// A stored hold.
#[derive(Debug, Clone)]
pub(super) struct StoredHold {
    pub(super) account_id: i64,
    pub(super) price_id: i64,
    pub(super) amount: i64,
    pub(super) kid: Arc<str>,
    pub(super) alias: Arc<str>,
    /// Which promotional credit it may use: what was valid then.
    pub(super) created_at: Timestamp,
    pub(super) state: State,
}

/// The posting gate's key: subject, kind, seq.
pub(super) type GateKey = (Uuid, i16, i16);

/// What the database says about everything that a batch names.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// This node's lease was taken away: it places no holds.
    pub(super) is_fenced: bool,
    pub(super) wallets: BTreeMap<i64, Wallet>,
    pub(super) holds: HashMap<Uuid, StoredHold>,
    pub(super) gates: HashMap<GateKey, (Uuid, Digest)>,
    /// Grants of the wallets that have promotional credit.
    pub(super) credits: BTreeMap<i64, Vec<Credit>>,
    /// Of holds that are to be corrected.
    pub(super) booked: HashMap<Uuid, Booked>,
}

/// A correction that is booked.
#[derive(Debug, Clone, Copy)]
pub(super) struct BookedTrueup {
    pub(super) seq: i16,
    pub(super) journal: Uuid,
    pub(super) digest: Digest,
    /// What the customer got back by it; below zero what was charged more.
    pub(super) given_back: i64,
}

/// What stands in the books about one hold.
#[derive(Debug, Default)]
pub(super) struct Booked {
    /// All its legs, in the order of their journals.
    pub(super) legs: Vec<Leg>,
    /// Its corrections.
    pub(super) trueups: Vec<BookedTrueup>,
    /// Numbers of the attempts that are recorded.
    pub(super) attempts: Vec<i16>,
}

/// A hold to be written.
#[derive(Debug)]
pub(super) struct OpenedHold<'a> {
    pub(super) hold: &'a Hold,
    pub(super) account_id: i64,
    pub(super) price_id: i64,
    pub(super) cost_price_id: Option<i64>,
    pub(super) fx_id: Option<i64>,
}

/// A hold to be closed, if it is still open and ours.
#[derive(Debug)]
pub(super) struct ClosedHold {
    pub(super) id: Uuid,
    /// What is held, as the wallet no longer holds it.
    pub(super) amount: i64,
    /// What was taken; `None` for a release.
    pub(super) settled: Option<i64>,
    pub(super) uncollected: i64,
    pub(super) digest: Digest,
    pub(super) at: Timestamp,
}

/// A journal entry to be written.
#[derive(Debug)]
pub(super) struct JournalRow<'a> {
    pub(super) id: Uuid,
    pub(super) key: GateKey,
    pub(super) at: Timestamp,
    pub(super) estimate: bool,
    pub(super) digest: Digest,
    pub(super) reference: &'a str,
}

/// A leg to be written.
#[derive(Debug)]
pub(super) struct LegRow {
    pub(super) journal: Uuid,
    pub(super) n: i16,
    pub(super) debit_id: i64,
    pub(super) credit_id: i64,
    pub(super) amount: i64,
    pub(super) currency: Currency,
    pub(super) component: i16,
    pub(super) attempt: Option<i16>,
    pub(super) price_id: Option<i64>,
    pub(super) estimate: bool,
}

/// An attempt to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptRow<'a> {
    pub(super) hold: Uuid,
    pub(super) attempt: &'a Attempt,
    /// As JSON.
    pub(super) usage: &'a str,
    pub(super) cost_price_id: Option<i64>,
}

/// What a correction says of a sale, to be written beside its journal.
#[derive(Debug)]
pub(super) struct CorrectionRow {
    pub(super) hold: Uuid,
    pub(super) seq: i16,
    /// What is owed for the sale, in the wallet's currency. `None`: nothing is said of it.
    pub(super) owed: Option<i64>,
    /// The same in the price's currency. `None` where nothing is sold.
    pub(super) priced: Option<i64>,
    pub(super) estimate: bool,
    /// The customer might be charged more.
    pub(super) upward: bool,
}

/// What a correction says of an attempt, to be written beside its journal.
#[derive(Debug)]
pub(super) struct CorrectedRow<'a> {
    pub(super) hold: Uuid,
    pub(super) seq: i16,
    pub(super) n: i16,
    /// Nobody knew of it before.
    pub(super) is_new: bool,
    /// `None` for one that was booked and is not part of what is known now.
    pub(super) attempt: Option<AttemptRow<'a>>,
}

/// What a settlement takes of one grant.
#[derive(Debug)]
pub(super) struct UseRow {
    pub(super) hold: Uuid,
    pub(super) taken: Taken,
}

/// What a correction gives back to the grants that a hold used, the last one first.
#[derive(Debug)]
pub(super) struct ReturnRow {
    pub(super) hold: Uuid,
    pub(super) amount: i64,
}

/// Everything that a batch writes, but for the wallets, which are in [`Known`].
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    pub(super) holds: Vec<OpenedHold<'a>>,
    /// What holds that are open and ours hold, and are to hold in all.
    pub(super) extensions: BTreeMap<Uuid, (i64, i64)>,
    /// One per hold. Those of holds that are not open, or not ours, have no effect.
    pub(super) checkpoints: BTreeMap<Uuid, &'a PreparedCheckpoint>,
    pub(super) closings: Vec<ClosedHold>,
    pub(super) journals: Vec<JournalRow<'a>>,
    pub(super) legs: Vec<LegRow>,
    pub(super) attempts: Vec<AttemptRow<'a>>,
    /// What corrections rest on.
    pub(super) corrections: Vec<CorrectionRow>,
    pub(super) corrected: Vec<CorrectedRow<'a>>,
    /// What settlements and corrections take of grants, and what corrections give back to them.
    pub(super) uses: Vec<UseRow>,
    pub(super) returns: Vec<ReturnRow>,
    /// Debits and credits of house accounts, summed.
    pub(super) house: BTreeMap<i64, (i128, i128)>,
}

impl Plan<'_> {
    /// Puts rows in the order of their keys, so that indexes are filled from one end: pages that
    /// are split in their middle stay half empty.
    pub(super) fn sort(&mut self) {
        self.holds.sort_unstable_by_key(|row| row.hold.id);
        self.closings.sort_unstable_by_key(|row| row.id);
        self.journals.sort_unstable_by_key(|row| row.id);
        self.legs.sort_unstable_by_key(|row| (row.journal, row.n));
        self.attempts.sort_unstable_by_key(|row| (row.hold, row.attempt.n));
    }
}

/// A factor as it is stored. What does not fit is a factor of trillions, which prices nothing.
pub(super) fn ppm(multiplier: Multiplier) -> i64 {
    i64::try_from(multiplier.ppm()).unwrap_or(i64::MAX)
}

/// Days since 1970 UTC: the row of a house account that a posting belongs to.
pub(super) const fn day(posted_at: Timestamp) -> i64 {
    posted_at.seconds().div_euclid(86_400)
}

impl Wallet {
    /// What is left above `floor`, promotional credit included.
    pub(super) const fn above(&self, floor: i64) -> i64 {
        self.credits
            .saturating_sub(self.debits)
            .saturating_add(self.promo)
            .saturating_sub(self.held)
            .saturating_sub(floor)
    }

    /// What of that is the app's own money: promotional credit is for calls alone.
    pub(super) const fn money_above(&self, floor: i64) -> i64 {
        let (above, money) = (self.above(floor), self.credits.saturating_sub(self.debits));
        let money = money.saturating_sub(floor);
        if money < above { money } else { above }
    }

    /// Takes over a floor, unless the wallet is below it already.
    pub(super) const fn follow_floor(&mut self, floor: i64) {
        if self.floor != floor && self.above(floor) >= 0 {
            self.floor = floor;
            self.changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(journal: u128, n: i16) -> LegRow {
        LegRow {
            journal: Uuid::from_u128(journal),
            n,
            debit_id: 1,
            credit_id: 2,
            amount: 1,
            currency: Currency::USD,
            component: 1,
            attempt: None,
            price_id: None,
            estimate: false,
        }
    }

    #[test]
    fn rows_are_written_in_the_order_of_their_keys() {
        let legs = vec![leg(2, 1), leg(1, 2), leg(2, 2), leg(1, 1)];
        let mut plan = Plan { legs, ..Plan::default() };
        plan.sort();
        let keys: Vec<_> = plan.legs.iter().map(|l| (l.journal.as_u128(), l.n)).collect();
        assert_eq!(keys, [(1, 1), (1, 2), (2, 1), (2, 2)]);
    }
}
