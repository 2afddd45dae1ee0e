//! What an app's wallet holds.
//!
//! The books outlive the app: a deleted one still has its balance. Amounts are decimal strings.

use serde_json::{Value, json};

use anima_core::config::App;
use anima_core::money::Money;
use anima_store::ledger::money::GrantState;

use super::{Apps, body_of};
use crate::admin::Admin;
use crate::admin::problem::{Code, Problem};
use crate::admin::rows::{Place, shown_version};

/// The balance of an app.
///
/// # Errors
/// No such app, or the ledger's.
pub(crate) async fn balance(admin: &Admin, code: &str) -> Result<Value, Problem> {
    balance_of(admin, code, &app_of(admin, code).await?).await
}

/// An app, a deleted one too: its books outlive it.
///
/// # Errors
/// No such app, or the store's.
pub(super) async fn app_of(admin: &Admin, code: &str) -> Result<App, Problem> {
    let place = Place { collection: &Apps, app: None };
    let versions = place.history(admin, code).await?;
    match shown_version(&versions, admin.clock.now()) {
        Some(row) => body_of(row),
        None => Err(Problem::not_found("app")),
    }
}

/// The balance of an app that is known already.
///
/// The floor is the one that the next hold will be judged by, which is the app's present credit
/// limit; the wallet itself learns of a new limit with its next movement.
///
/// # Errors
/// The ledger's.
pub(super) async fn balance_of(admin: &Admin, code: &str, app: &App) -> Result<Value, Problem> {
    let mut balance = admin.stores.ledger.balance(code, app.currency).await?;
    balance.floor = floor_of(app)?;
    // What has expired stays in the wallet's sum until it is posted back, and is for no new call.
    let now = admin.clock.now();
    let grants = admin.stores.money.grants(code, app.currency).await?;
    let valid = grants.iter().filter(|grant| grant.expires_at > now).map(GrantState::left);
    balance.promo = valid.fold(0, i64::saturating_add);
    let text = |units: i64| Money::new(units, app.currency).to_string();
    Ok(json!({
        "currency": app.currency.code(),
        "posted": text(balance.posted),
        "promo": text(balance.promo),
        "held": text(balance.held),
        "available": text(balance.available()),
        "credit_limit": text(balance.floor.saturating_neg()),
    }))
}

/// The lowest balance that an app's wallet may have, in units.
///
/// # Errors
/// When the stored credit limit cannot be read, which takes a damaged row.
pub(super) fn floor_of(app: &App) -> Result<i64, Problem> {
    app.floor_units().map_err(|error| Problem::new(Code::Internal, error.to_string()))
}
