//! Gives back what a request was charged, whole or in part, once per idempotency key.
//!
//! Never more than is left of what was charged. The posting is `refunds` to the wallet, and to
//! promotional credit what was paid with it. See `anima_store::ledger::money` for the contract.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use anima_core::money::Money;
use anima_store::config::Actor;
use anima_store::ledger::Error as LedgerError;
use anima_store::ledger::money::{MoveError, Refund};

use super::balance::{app_of, balance_of};
use super::movement::{Moved, amount_of, check_key, check_reference, record, subject, too_much};
use crate::admin::Admin;
use crate::admin::books::request_id;
use crate::admin::problem::{Code, Problem};
use crate::admin::typed::typed;

/// The payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    request_id: String,
    #[serde(default)]
    amount: Option<String>,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    reason: Option<String>,
}

/// Refunds a request. The books outlive the app: one of a deleted app can be refunded.
///
/// # Errors
/// No such app or settled request; a bad member or key; more than is left; the key used before
/// with another body; or the ledger's.
pub(crate) async fn refund(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    key: &str,
    body: Value,
) -> Result<Moved, Problem> {
    check_key(key)?;
    if let Some(invariant) = admin.watch.forbids_refunds() {
        let detail = format!("refunds are refused: the books do not hold invariant {invariant}");
        return Err(Problem::new(Code::BooksBreached, detail));
    }
    let payload: Payload = typed(body)?;
    let row = app_of(admin, app).await?;
    let currency = row.currency;
    let request = request_id(&payload.request_id)?;
    let amount = payload.amount.as_deref().map(|text| amount_of("amount", text, currency));
    check_reference(&payload.reference)?;
    let refund = Refund {
        request,
        app: app.into(),
        currency,
        amount: amount.transpose()?.map(|amount| amount.units),
        key: subject("refund", app, key),
        reference: payload.reference.clone(),
        at: admin.clock.now(),
    };
    let done = match admin.stores.money.refund(refund).await {
        Ok(done) => done,
        Err(MoveError::TooMuch { left }) => return Err(too_much(left, currency)),
        Err(MoveError::Ledger(LedgerError::HoldUnknown)) => {
            return Err(Problem::not_found("settled request of the app"));
        }
        Err(MoveError::Ledger(error)) => return Err(error.into()),
    };
    let text = |units: i64| Money::new(units, currency).to_string();
    let body = json!({
        "id": done.journal,
        "request_id": shown(request),
        "amount": text(done.to_money.saturating_add(done.to_promo)),
        "to_wallet": text(done.to_money),
        "to_promo": text(done.to_promo),
        "currency": currency.code(),
        "refundable": text(done.left),
        "reference": payload.reference,
        "replayed": done.replayed,
        "balance": balance_of(admin, app, &row).await?,
    });
    record(admin, actor, ("refund", app), payload.reason, body.clone()).await?;
    Ok(Moved { body, replayed: done.replayed })
}

fn shown(request: Uuid) -> String {
    format!("req_{}", request.simple())
}
