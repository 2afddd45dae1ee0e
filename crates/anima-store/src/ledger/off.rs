//! The ledger that is not there: books nothing, refuses nothing.
//!
//! For nodes whose operator turned billing off. Invariant: it never claims that anything was
//! booked: every settlement charges zero.

use async_trait::async_trait;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Balance, Entry, Hold, Settlement};
use anima_core::money::Currency;

use super::{Error, Finding, Health, LedgerStore, Posted, Posting, Settled, TrialLine};

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
        Ok(Balance { currency, posted: 0, held: 0, floor: 0 })
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
