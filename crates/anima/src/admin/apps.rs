//! Apps: customers' applications, each with keys and one wallet.
//!
//! Special about them: the wallet's currency is for ever.

use async_trait::async_trait;
use serde_json::Value;

use anima_core::config::{App, Resource};
use anima_store::config::{Actor, Row};

use super::Admin;
use super::collection::{Collection, Draft, Prepared, checked, ensure_optional};
use super::problem::{Code, Problem};
use super::rows::{self, Creation, Place};
use super::typed;

mod adjustment;
mod balance;
mod movement;
mod promo;
mod refund;
mod statement;
mod topup;

pub(crate) use adjustment::adjust;
pub(crate) use balance::balance;
pub(crate) use movement::{Moved, Noted, check_key, check_reference, note, subject};
pub(crate) use promo::{grant, grants};
pub(crate) use refund::refund;
pub(crate) use statement::{Asked, statement};
pub use topup::{Topup, topup};

/// The apps.
#[derive(Debug)]
pub(crate) struct Apps;

/// Creates an app from its payload.
///
/// # Errors
/// The first bad member, a code that is taken, or the store's.
pub async fn create(admin: &Admin, actor: &Actor, body: Value) -> Result<Row, Problem> {
    let place = Place { collection: &Apps, app: None };
    let creation = Creation { place, minted: None };
    let body = typed::members(body)?;
    rows::create(admin, actor, creation, body).await.map(|created| created.row)
}

#[async_trait]
impl Collection for Apps {
    fn resource(&self) -> Resource {
        Resource::App
    }

    fn path(&self) -> &'static str {
        "apps"
    }

    async fn prepare(&self, admin: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let app: App = checked(draft.body)?;
        let before = draft.history.first().and_then(|row| row.body.get("currency"));
        if before.is_some_and(|currency| currency != app.currency.code()) {
            let detail = "cannot be changed: the wallet has one currency";
            return Err(Problem::member(Code::InvalidMember, "currency", detail));
        }
        let group = app.token_group.as_deref();
        ensure_optional(admin, Resource::TokenGroup, group, "token_group").await?;
        ensure_optional(admin, Resource::Quota, app.quota.as_deref(), "quota").await?;
        Prepared::of(&app)
    }
}

/// An app that is there: in force, or about to be.
///
/// # Errors
/// [`Code::NotFound`] when there is none or it has ended, or the store's.
pub(crate) async fn live_app(admin: &Admin, code: &str) -> Result<App, Problem> {
    let now = admin.clock.now();
    let place = Place { collection: &Apps, app: None };
    let versions = place.history(admin, code).await?;
    let live = versions.iter().any(|row| rows::is_ahead(row, now));
    match rows::shown_version(&versions, now).filter(|_| live) {
        Some(row) => body_of(row),
        None => Err(Problem::not_found("app")),
    }
}

/// The body of a stored app.
fn body_of(row: &Row) -> Result<App, Problem> {
    serde_json::from_value(row.body.clone())
        .map_err(|error| anima_store::config::Error::Damaged(error.to_string()).into())
}
