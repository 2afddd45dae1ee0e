//! Quotas: named lists of limits.
//!
//! Nothing is special about them: a body that passes its own check may be stored.

use async_trait::async_trait;
use serde_json::Value;

use anima_core::config::{Quota, Resource};
use anima_store::config::{Actor, Row};

use super::Admin;
use super::collection::{Collection, Draft, Prepared, checked};
use super::problem::Problem;
use super::rows::{self, Creation, Place};
use super::typed;

/// The quotas.
#[derive(Debug)]
pub(crate) struct Quotas;

/// Creates a quota from its payload.
///
/// # Errors
/// The first bad member, a code that is taken, or the store's.
pub async fn create(admin: &Admin, actor: &Actor, body: Value) -> Result<Row, Problem> {
    let place = Place { collection: &Quotas, app: None };
    let creation = Creation { place, minted: None };
    let body = typed::members(body)?;
    rows::create(admin, actor, creation, body).await.map(|created| created.row)
}

#[async_trait]
impl Collection for Quotas {
    fn resource(&self) -> Resource {
        Resource::Quota
    }

    fn path(&self) -> &'static str {
        "quotas"
    }

    async fn prepare(&self, _: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let quota: Quota = checked(draft.body)?;
        Prepared::of(&quota)
    }
}
