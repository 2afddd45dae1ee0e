//! Prices: what one unit of a meter costs.
//!
//! Special about them: what a price is for is its scope, and two of one scope never overlap.

use async_trait::async_trait;
use serde_json::Value;

use anima_core::config::{Price, Resource};
use anima_store::config::{Actor, Row};

use super::Admin;
use super::collection::{Collection, Draft, Prepared, checked, ensure_optional};
use super::problem::Problem;
use super::rows::{self, Creation, Place};
use super::typed;

/// The prices.
#[derive(Debug)]
pub(crate) struct Prices;

/// Creates a price from its payload.
///
/// # Errors
/// The first bad member, a code that is taken, or the store's.
pub async fn create(admin: &Admin, actor: &Actor, body: Value) -> Result<Row, Problem> {
    let place = Place { collection: &Prices, app: None };
    let creation = Creation { place, minted: None };
    let body = typed::members(body)?;
    rows::create(admin, actor, creation, body).await.map(|created| created.row)
}

#[async_trait]
impl Collection for Prices {
    fn resource(&self) -> Resource {
        Resource::Price
    }

    fn path(&self) -> &'static str {
        "prices"
    }

    async fn prepare(&self, admin: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let price: Price = checked(draft.body)?;
        let rows = [
            (Resource::Channel, price.channel.as_deref(), "channel"),
            (Resource::Alias, price.alias.as_deref(), "alias"),
            (Resource::TokenGroup, price.token_group.as_deref(), "token_group"),
        ];
        for (resource, code, member) in rows {
            ensure_optional(admin, resource, code, member).await?;
        }
        Ok(Prepared { scope: Some(price.scope()), ..Prepared::of(&price)? })
    }
}
