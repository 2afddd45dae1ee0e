//! What a stored call is sold at: names of versions, which are never changed.
//!
//! Made when the call comes in, and read when it is made, so that a change of prices, of rates or
//! of the caller's group in between is for the calls after it. What it costs us is not here: that
//! is asked of the moment at which the provider works. Source: SPEC 8 (admission's version).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use anima_core::failure::Failure;
use anima_core::ledger::PriceRef;
use anima_core::ledger::fx::FxRate;
use anima_core::money::{Currency, Multiplier};
use anima_core::pricing::PriceList;
use anima_store::config::Error;

use crate::http::caller::Caller;
use crate::http::reply::Refusal;
use crate::live::Live;
use crate::relay::call::{Call, Tariff};

/// A [`Tariff`] by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pin {
    /// Code and version of the sale price.
    sale: (String, i64),
    /// Likewise of the rate, where the price is in another currency than the wallet.
    fx: Option<(String, i64)>,
    multiplier_ppm: u64,
}

impl Pin {
    /// What an admitted call is sold at.
    pub(super) fn of(call: &Call) -> Self {
        let named = |version: &PriceRef| (version.code.to_string(), version.version_no);
        Self {
            sale: named(&call.sale_ref()),
            fx: call.fx.as_ref().map(|rate| named(&rate.reference)),
            multiplier_ppm: call.multiplier.ppm(),
        }
    }

    /// The versions themselves, whether or not they are in force any more.
    ///
    /// # Errors
    /// [`Failure::ServiceUnavailable`] while they cannot be read; [`Failure::ModelUnpriced`] when
    /// they are not there, which takes a damaged row.
    pub(super) async fn tariff(
        &self,
        live: &Live,
        (caller, model): (&Caller, &str),
    ) -> Result<Tariff, Refusal> {
        let sale = self.sale(live, (caller, model)).await.map_err(|error| unread(&error))?;
        let sale = sale.ok_or_else(unknown)?;
        let fx = match &self.fx {
            None => None,
            Some((code, version_no)) => {
                let name = PriceRef { code: code.as_str().into(), version_no: *version_no };
                let found = rate(live, name, (sale.currency, caller)).await;
                Some(found.map_err(|error| unread(&error))?.ok_or_else(unknown)?)
            }
        };
        let paid_in = fx.as_ref().map_or(sale.currency, |rate| rate.to);
        let is_whole = fx.as_ref().is_none_or(|rate| rate.from == sale.currency);
        if !is_whole || paid_in != caller.currency {
            return Err(unknown());
        }
        Ok(Tariff { sale, fx, multiplier: Multiplier::from_ppm(self.multiplier_ppm) })
    }

    /// The price: as a rule the one that is in force still, and else an earlier version.
    async fn sale(
        &self,
        live: &Live,
        (caller, model): (&Caller, &str),
    ) -> Result<Option<Arc<PriceList>>, Error> {
        let (code, version_no) = (self.sale.0.as_str(), self.sale.1);
        let group = caller.group.as_ref().map(|group| &*group.code);
        let alias = caller.pinned.snapshot.alias(model);
        let mut in_force = alias.into_iter().flat_map(|alias| alias.sale_prices(group));
        let is_it = |list: &&Arc<PriceList>| list.code == code && list.version_no == version_no;
        match in_force.find(is_it) {
            Some(list) => Ok(Some(Arc::clone(list))),
            None => Ok(live.price(code, version_no).await?.map(Arc::new)),
        }
    }

    #[cfg(test)]
    pub(super) fn named(sale: (&str, i64), fx: Option<(&str, i64)>, multiplier_ppm: u64) -> Self {
        let owned = |(code, version_no): (&str, i64)| (code.to_owned(), version_no);
        Self { sale: owned(sale), fx: fx.map(owned), multiplier_ppm }
    }
}

/// The rate of that name, likewise.
async fn rate(
    live: &Live,
    name: PriceRef,
    (from, caller): (Currency, &Caller),
) -> Result<Option<Arc<FxRate>>, Error> {
    let in_force = caller.pinned.snapshot.fx(from, caller.currency);
    match in_force.filter(|rate| rate.reference == name) {
        Some(rate) => Ok(Some(Arc::clone(rate))),
        None => Ok(live.fx_rate(&name).await?.map(Arc::new)),
    }
}

fn unread(error: &Error) -> Refusal {
    tracing::warn!(%error, "failed to read what a task is sold at");
    let message = "Prices cannot be read at the moment. Try again shortly.";
    Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000)
}

fn unknown() -> Refusal {
    let message = "What this call was to be sold at is not there any more.";
    Refusal::new(Failure::ModelUnpriced, message)
}
