//! Keys: what applications authenticate with.
//!
//! Special about them: they are minted here, and the whole key is in the reply to its creation
//! only.

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use anima_core::config::{Key, Resource};
use anima_store::config::{Actor, Row};

use super::collection::{Codes, Collection, Draft, Prepared, checked, ensure_optional};
use super::problem::Problem;
use super::rows::{self, Creation, Intent, Outcome, Place};
use super::{Admin, apps, typed};

/// The keys.
#[derive(Debug)]
pub(crate) struct Keys;

/// A key that was just made.
pub struct NewKey {
    /// The row; its code is the public id.
    pub row: Row,
    /// The whole key, `sk-<kid>-<secret>`: here and never again.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("row", &self.row).finish_non_exhaustive()
    }
}

/// Creates a key of an app from its payload.
///
/// # Errors
/// No such app, the first bad member, or the store's.
pub async fn create(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    body: Value,
) -> Result<NewKey, Problem> {
    let (created, secret) = mint(admin, actor, app, typed::members(body)?).await?;
    Ok(NewKey { row: created.row, secret })
}

/// The same, with what the HTTP reply says beside the row.
///
/// # Errors
/// Those of [`create`].
pub(crate) async fn mint(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    body: Map<String, Value>,
) -> Result<(Outcome, Zeroizing<String>), Problem> {
    let (intent, secret) = intent(admin, actor, app, body).await?;
    let place = Place { collection: &Keys, app: Some(app) };
    Ok((place.apply(admin, intent).await?, secret))
}

/// What a creation comes to, and the whole key.
///
/// # Errors
/// Those of [`create`], but for the store's refusal.
pub(crate) async fn intent(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    body: Map<String, Value>,
) -> Result<(Intent, Zeroizing<String>), Problem> {
    apps::live_app(admin, app).await?;
    let minted = admin.secrets.mint_key();
    let place = Place { collection: &Keys, app: Some(app) };
    let creation = Creation { place, minted: Some(&minted) };
    let intent = rows::create_intent(admin, actor, creation, body).await?;
    Ok((intent, minted.text))
}

/// Why a key that is switched off was paused by this gateway, if it was.
///
/// # Errors
/// The store's.
pub(crate) async fn pause(
    admin: &Admin,
    place: Place<'_>,
    row: &Row,
) -> Result<Option<Value>, Problem> {
    if place.collection.resource() != Resource::UserApiKey || row.enabled {
        return Ok(None);
    }
    let pause = admin.stores.money.pause(&row.code).await?;
    Ok(pause.map(|pause| json!({ "at": pause.at, "calls": pause.calls, "reason": pause.reason })))
}

#[async_trait]
impl Collection for Keys {
    fn resource(&self) -> Resource {
        Resource::UserApiKey
    }

    fn path(&self) -> &'static str {
        "keys"
    }

    fn codes(&self) -> Codes {
        Codes::Minted
    }

    async fn prepare(&self, admin: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let key: Key = checked(draft.body)?;
        let group = key.token_group.as_deref();
        ensure_optional(admin, Resource::TokenGroup, group, "token_group").await?;
        ensure_optional(admin, Resource::Quota, key.quota.as_deref(), "quota").await?;
        Prepared::of(&key)
    }
}
