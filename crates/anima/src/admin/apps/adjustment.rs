//! Corrects an app's wallet by hand, either way, with a reason.
//!
//! Against `adjustments`, never against an earlier posting. What takes money may not take the
//! wallet below its floor, nor what open calls have reserved. No hold covers it: it is judged and
//! posted under the wallet's lock, whole or not at all, once per idempotency key.

use serde::Deserialize;
use serde_json::{Value, json};

use anima_core::ledger::{Account, Component, Entry, EntryKind, Leg};
use anima_core::money::Money;
use anima_store::config::Actor;
use anima_store::ledger::Error as LedgerError;

use super::balance::{app_of, balance_of, floor_of};
use super::movement::{
    Moved, check_key, check_reference, record, signed_amount, subject, too_much,
};
use crate::admin::Admin;
use crate::admin::problem::{Code, Problem};
use crate::admin::typed::typed;

/// The payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    amount: String,
    reason: String,
    #[serde(default)]
    reference: String,
}

/// Adjusts an app's wallet. The books outlive the app: a deleted one's can be brought to zero.
///
/// # Errors
/// No such app; a bad member or key; more than the wallet has above its floor; the key used before
/// with another body; or the ledger's.
pub(crate) async fn adjust(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    key: &str,
    body: Value,
) -> Result<Moved, Problem> {
    check_key(key)?;
    let payload: Payload = typed(body)?;
    let row = app_of(admin, app).await?;
    let amount = signed_amount("amount", &payload.amount, row.currency)?;
    if amount.units == 0 {
        return Err(Problem::invalid("amount", "a decimal other than 0"));
    }
    if payload.reason.trim().is_empty() {
        return Err(Problem::member(Code::InvalidMember, "reason", "says why; it is required"));
    }
    check_reference(&payload.reference)?;
    let reference = match payload.reference.as_str() {
        "" => payload.reason.clone(),
        reference => format!("{reference}: {}", payload.reason),
    };
    let entry = Entry {
        subject: subject("adjustment", app, key),
        kind: EntryKind::Adjust,
        seq: 0,
        legs: vec![leg(app, amount)],
        reference: reference.clone(),
        at: admin.clock.now(),
        floor: floor_of(&row)?,
    };
    let posted = match admin.stores.ledger.post(entry).await {
        Ok(posted) => posted,
        Err(LedgerError::InsufficientFunds { available }) => {
            return Err(too_much(available, row.currency));
        }
        Err(error) => return Err(error.into()),
    };
    let body = json!({
        "id": posted.journal,
        "amount": amount.to_string(),
        "currency": amount.currency.code(),
        "reference": reference,
        "replayed": posted.replayed,
        "balance": balance_of(admin, app, &row).await?,
    });
    record(admin, actor, ("adjust", app), Some(payload.reason), body.clone()).await?;
    Ok(Moved { body, replayed: posted.replayed })
}

fn leg(app: &str, amount: Money) -> Leg {
    let wallet = Account::Wallet(app.into());
    let (debit, credit) = if amount.units > 0 {
        (Account::Adjustments, wallet)
    } else {
        (wallet, Account::Adjustments)
    };
    Leg {
        debit,
        credit,
        amount: amount.units.saturating_abs(),
        currency: amount.currency,
        component: Component::Adjustment,
        attempt: None,
        price: None,
        estimate: false,
    }
}
