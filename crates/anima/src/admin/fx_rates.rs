//! Conversion rates: at what rate prices in one currency are paid from wallets in another.
//!
//! Special about them: at any time at most one is in force per pair of currencies, whatever its
//! code.

use async_trait::async_trait;

use anima_core::config::{FxRate, Resource};

use super::Admin;
use super::collection::{Collection, Draft, Prepared, checked};
use super::problem::Problem;

/// The rates.
#[derive(Debug)]
pub(crate) struct FxRates;

#[async_trait]
impl Collection for FxRates {
    fn resource(&self) -> Resource {
        Resource::FxRate
    }

    fn path(&self) -> &'static str {
        "fx-rates"
    }

    async fn prepare(&self, _: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let rate: FxRate = checked(draft.body)?;
        Ok(Prepared { scope: Some(rate.scope()), ..Prepared::of(&rate)? })
    }
}
