//! Aliases: the model names that clients use.
//!
//! Special about them: their codes look like model names, and their routes must lead somewhere.

use async_trait::async_trait;
use serde_json::Value;

use anima_core::config::{Alias, Resource, Route};
use anima_core::routing;
use anima_store::config::{Actor, Row};
use anima_wire::adapter;

use super::Admin;
use super::collection::{Codes, Collection, Draft, Prepared, checked, ensure_exists};
use super::problem::Problem;
use super::rows::{self, Creation, Place, shown_version};
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
            ensure_spoken(admin, route, n).await?;
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
        let found = pinned.snapshot.alias(code);
        found.map(|found| found.fallbacks.clone()).unwrap_or_default()
    };
    let Some((member, path)) = routing::cycle(code, &alias.fallbacks, fallbacks) else {
        return Ok(());
    };
    let expected = format!("a chain that does not lead back: {}", path.join(" -> "));
    Err(Problem::invalid(&member, &expected))
}

/// Some providers have models whose dialect is not spoken.
async fn ensure_spoken(admin: &Admin, route: &Route, n: usize) -> Result<(), Problem> {
    let versions = admin.stores.config.versions(Resource::Channel, &route.channel).await?;
    let shown = shown_version(&versions, admin.clock.now());
    // A channel that the same file declares has no body yet: a plan then skips the route.
    let provider = shown.and_then(|row| row.body.get("provider")?.as_str()).unwrap_or_default();
    if adapter::speaks(provider, &route.model) {
        return Ok(());
    }
    let expected = "a model of Claude's: of others at Bedrock the dialect is not spoken";
    Err(Problem::invalid(format!("routes[{n}].model"), expected))
}
