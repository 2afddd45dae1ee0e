//! Token groups: sets of keys that share aliases, a multiplier, a quota and a queue mode.
//!
//! The aliases they allow need not exist yet, as a pattern of names would not.

use async_trait::async_trait;
use serde_json::Value;

use anima_core::config::{Resource, TokenGroup};
use anima_store::config::{Actor, Row};

use super::Admin;
use super::collection::{Collection, Draft, Prepared, checked, ensure_optional};
use super::problem::Problem;
use super::rows::{self, Creation, Place};
use super::typed;

/// The token groups.
#[derive(Debug)]
pub(crate) struct TokenGroups;

/// Creates a token group from its payload.
///
/// # Errors
/// The first bad member, a code that is taken, or the store's.
pub async fn create(admin: &Admin, actor: &Actor, body: Value) -> Result<Row, Problem> {
    let place = Place { collection: &TokenGroups, app: None };
    let creation = Creation { place, minted: None };
    let body = typed::members(body)?;
    rows::create(admin, actor, creation, body).await.map(|created| created.row)
}

#[async_trait]
impl Collection for TokenGroups {
    fn resource(&self) -> Resource {
        Resource::TokenGroup
    }

    fn path(&self) -> &'static str {
        "token-groups"
    }

    async fn prepare(&self, admin: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let group: TokenGroup = checked(draft.body)?;
        ensure_optional(admin, Resource::Quota, group.quota.as_deref(), "quota").await?;
        Prepared::of(&group)
    }
}
