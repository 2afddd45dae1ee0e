//! Aliases: the model names that clients use.
//!
//! Special about them: their codes look like model names, and their routes must lead somewhere.

use async_trait::async_trait;
use serde_json::Value;

use anima_core::config::{Alias, Resource};
use anima_core::routing;
use anima_store::config::{Actor, Row};

use super::Admin;
use super::collection::{Codes, Collection, Draft, Prepared, checked, ensure_exists};
use super::problem::Problem;
use super::rows::{self, Creation, Place};
use super::typed;

/// The aliases.
#[derive(Debug)]
pub(crate) struct Aliases;

/// Creates an alias from its payload.
///
/// # Errors
/// The first bad member, a code that is taken, or the store's.
pub async fn create(admin: &Admin, actor: &Actor, body: Value) -> Result<Row, Problem> {
    let place = Place { collection: &Aliases, app: None };
    let creation = Creation { place, minted: None };
    let body = typed::members(body)?;
    rows::create(admin, actor, creation, body).await.map(|created| created.row)
}

#[async_trait]
impl Collection for Aliases {
    fn resource(&self) -> Resource {
        Resource::Alias
    }

    fn path(&self) -> &'static str {
        "aliases"
    }

    fn codes(&self) -> Codes {
        Codes::ModelName
    }

    async fn prepare(&self, admin: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let alias: Alias = checked(draft.body)?;
        for (n, route) in alias.routes.iter().enumerate() {
            let member = format!("routes[{n}].channel");
            ensure_exists(admin, Resource::Channel, &route.channel, &member).await?;
        }
        ensure_fallbacks(admin, draft.code, &alias).await?;
        Prepared::of(&alias)
    }
}

/// Every fallback exists, and none leads back to the alias: not as of now, and not over changes
/// that are scheduled for the aliases as they stand now.
async fn ensure_fallbacks(admin: &Admin, code: &str, alias: &Alias) -> Result<(), Problem> {
    for (class, list) in alias.fallbacks.lists() {
        for (n, fallback) in list.iter().enumerate() {
            let member = format!("fallbacks.{class}[{n}]");
            if fallback == code {
                return Err(Problem::invalid(&member, "another alias than the row itself"));
            }
            ensure_exists(admin, Resource::Alias, fallback, &member).await?;
        }
    }
    let Some(pinned) = admin.live.pin(admin.clock.now()) else { return Ok(()) };
    let fallbacks = |code: &str| {
        let declared = admin.declared_chains.get(code);
        let found = pinned.snapshot.alias(code).map(|alias| &alias.fallbacks);
        declared.or(found).cloned().unwrap_or_default()
    };
    let Some((member, path)) = routing::cycle(code, &alias.fallbacks, fallbacks) else {
        return Ok(());
    };
    let expected = format!("a chain that does not lead back: {}", path.join(" -> "));
    Err(Problem::invalid(&member, &expected))
}
