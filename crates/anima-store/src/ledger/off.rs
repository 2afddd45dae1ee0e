//! The ledger that is not there: books nothing, refuses nothing.
//!
//! For nodes whose operator turned billing off. Invariant: it never claims that anything was
//! booked: every settlement charges zero.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Balance, Checkpoint, Entry, Extension, Hold, Settlement};
use anima_core::money::Currency;

use super::{
    Claimed, Correction, Error, Finding, Health, Lease, Leases, LedgerStore, OpenHolds, Posted,
    Posting, Registration, Settled, TrialLine, TruedUp,
};
use crate::idempotency::UsedKey;

/// No ledger.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off;

impl Health for Off {}

#[async_trait]
impl LedgerStore for Off {
    async fn hold(&self, _hold: Hold) -> Result<(), Error> {
        Ok(())
    }

    async fn settle(&self, _settlement: Settlement) -> Result<Settled, Error> {
        Ok(Settled { charged: 0, uncollected: 0, replayed: false })
    }

    async fn post(&self, _entry: Entry) -> Result<Posted, Error> {
        Err(Error::Refused("billing is off".to_owned()))
    }

    async fn balance(&self, _app: &str, currency: Currency) -> Result<Balance, Error> {
        // Nothing is refused for want of it.
        Ok(Balance { currency, posted: i64::MAX, promo: 0, held: 0, floor: 0 })
    }

    async fn postings(&self, _subject: Uuid) -> Result<Vec<Posting>, Error> {
        Ok(Vec::new())
    }

    async fn verify(&self, _now: Timestamp) -> Result<Vec<Finding>, Error> {
        Ok(Vec::new())
    }

    async fn trial_balance(&self) -> Result<Vec<TrialLine>, Error> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Leases for Off {
    async fn register(&self, _registration: Registration) -> Result<(), Error> {
        Ok(())
    }

    async fn renew(&self, _ttl: Duration) -> Result<(), Error> {
        Ok(())
    }

    async fn release(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl OpenHolds for Off {
    async fn settle_repeatable(
        &self,
        settlement: Settlement,
        _key: Option<UsedKey>,
    ) -> Result<Settled, Error> {
        self.settle(settlement).await
    }

    async fn checkpoint(&self, _checkpoints: Vec<Checkpoint>) -> Result<(), Error> {
        Ok(())
    }

    async fn extend(&self, _extension: Extension) -> Result<(), Error> {
        Ok(())
    }

    async fn claim_orphans(&self, _: usize, _: Duration) -> Result<Vec<Claimed>, Error> {
        Ok(Vec::new())
    }

    async fn claim_overdue(&self, _: BTreeSet<Uuid>, _: Duration) -> Result<usize, Error> {
        Ok(0)
    }

    async fn unresolved(&self, _limit: usize) -> Result<Vec<Claimed>, Error> {
        Ok(Vec::new())
    }

    async fn true_up(&self, _correction: Correction) -> Result<TruedUp, Error> {
        Ok(TruedUp { journal: None, given_back: 0, replayed: false })
    }
}
