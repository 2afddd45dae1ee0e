//! A hold that was taken over, from its row to what its new owner needs.
//!
//! Rows, the same for both databases. Invariant: a row that cannot be read whole is still handed
//! out with what can be: the hold has to be resolved.

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::{Exposure, Phase, PriceRef};
use anima_core::money::{Currency, Multiplier};

use super::{Claimed, Error, LeaseState, trail};

/// A row of `hold`, with its prices spelled out.
#[derive(Debug)]
pub(super) struct ClaimedRow {
    pub(super) id: Uuid,
    pub(super) app: String,
    pub(super) kid: String,
    pub(super) alias: String,
    pub(super) currency: String,
    pub(super) amount: i64,
    pub(super) sale_price: (String, i64),
    pub(super) fx: Option<(String, i64)>,
    pub(super) multiplier: i64,
    pub(super) channel: Option<String>,
    pub(super) cost_cap: Option<i64>,
    pub(super) cost_currency: Option<String>,
    pub(super) cost_price: Option<(String, i64)>,
    pub(super) created_at: i64,
    pub(super) expires_at: i64,
    pub(super) phase: i16,
    pub(super) progress: i64,
    pub(super) trail: Option<String>,
}

impl ClaimedRow {
    /// Reads codes and numbers back into what they stand for.
    pub(super) fn read(self) -> Result<Claimed, Error> {
        let currency = currency(&self.currency)?;
        let exposure = self.exposure()?;
        let (ended, running) = trail::read(self.trail.as_deref());
        Ok(Claimed {
            hold: self.id,
            app: self.app.into(),
            kid: self.kid.into(),
            alias: self.alias.into(),
            currency,
            amount: self.amount,
            sale_price: price(self.sale_price),
            fx: self.fx.map(price),
            multiplier: u64::try_from(self.multiplier)
                .map_or(Multiplier::ONE, Multiplier::from_ppm),
            exposure,
            created_at: Timestamp::from_micros(self.created_at),
            resolve_by: Timestamp::from_micros(self.expires_at),
            phase: Phase::from_number(self.phase).unwrap_or_default(),
            progress: self.progress,
            ended,
            running,
        })
    }

    fn exposure(&self) -> Result<Option<Exposure>, Error> {
        let (Some(channel), Some(amount), Some(code), Some(cost_price)) =
            (&self.channel, self.cost_cap, &self.cost_currency, &self.cost_price)
        else {
            return Ok(None);
        };
        Ok(Some(Exposure {
            channel: channel.as_str().into(),
            amount,
            currency: currency(code)?,
            price: price(cost_price.clone()),
        }))
    }
}

fn currency(code: &str) -> Result<Currency, Error> {
    Currency::parse(code)
        .map_err(|e| Error::Refused(format!("a stored hold cannot be read: {code}: {e}")))
}

fn price((code, version_no): (String, i64)) -> PriceRef {
    PriceRef { code: code.into(), version_no }
}

/// The state of a lease, by its word.
pub(super) fn lease_state(word: &str) -> LeaseState {
    match word {
        "UP" => LeaseState::Up,
        "DEAD" => LeaseState::Dead,
        _ => LeaseState::Recovered,
    }
}

/// Microseconds of a duration, for the database's clock.
pub(super) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
