//! Promotional credit for an app: given once per idempotency key, used before its money, and
//! posted back when it expires.
//!
//! See `anima_store::ledger::money` for the contract.

use serde::Deserialize;
use serde_json::{Value, json};

use anima_core::clock::Timestamp;
use anima_store::config::Actor;
use anima_store::ledger::money::{Grant, GrantState};

use anima_core::money::Money;

use super::balance::{app_of, balance_of};
use super::live_app;
use super::movement::{Moved, amount_of, check_key, check_reference, record, subject};
use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::admin::typed::typed;

/// The payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    amount: String,
    expires_at: Timestamp,
    #[serde(default)]
    sold: bool,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    reason: Option<String>,
}

/// Gives an app promotional credit.
///
/// # Errors
/// No such app; a bad member or key; the key used before with another body; or the ledger's.
pub(crate) async fn grant(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    key: &str,
    body: Value,
) -> Result<Moved, Problem> {
    check_key(key)?;
    let payload: Payload = typed(body)?;
    let row = live_app(admin, app).await?;
    let amount = amount_of("amount", &payload.amount, row.currency)?;
    let now = admin.clock.now();
    if payload.expires_at <= now {
        return Err(Problem::invalid("expires_at", "a time in the future"));
    }
    check_reference(&payload.reference)?;
    let id = subject("promo", app, key);
    let grant = Grant {
        id,
        app: app.into(),
        currency: row.currency,
        amount: amount.units,
        sold: payload.sold,
        expires_at: payload.expires_at,
        reference: payload.reference.clone(),
        at: now,
    };
    let granted = admin.stores.money.grant(grant).await?;
    let body = json!({
        "id": id,
        "amount": amount.to_string(),
        "currency": row.currency.code(),
        "sold": payload.sold,
        "expires_at": payload.expires_at,
        "reference": payload.reference,
        "replayed": granted.replayed,
        "balance": balance_of(admin, app, &row).await?,
    });
    record(admin, actor, ("grant", app), payload.reason, body.clone()).await?;
    Ok(Moved { body, replayed: granted.replayed })
}

/// An app's grants, the first to expire first.
///
/// # Errors
/// No such app, or the ledger's.
pub(crate) async fn grants(admin: &Admin, app: &str) -> Result<Vec<Value>, Problem> {
    let row = app_of(admin, app).await?;
    let grants = admin.stores.money.grants(app, row.currency).await?;
    Ok(grants.iter().map(show).collect())
}

fn show(grant: &GrantState) -> Value {
    let currency = grant.granted.currency;
    let text = |units: i64| Money::new(units, currency).to_string();
    json!({
        "id": grant.id,
        "amount": grant.granted.to_string(),
        "used": text(grant.used),
        "expired": text(grant.expired),
        "left": text(grant.left()),
        "currency": currency.code(),
        "sold": grant.sold,
        "granted_at": grant.granted_at,
        "expires_at": grant.expires_at,
        "reference": grant.reference,
    })
}
