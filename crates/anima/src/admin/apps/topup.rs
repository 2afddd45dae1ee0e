//! Puts money into an app's wallet: debits the payment provider's clearing account for it.
//!
//! What the payment provider keeps is a leg of its own: the app gets what it paid, the fee is our
//! expense. The idempotency key names the entry, so a repeated call posts nothing.
//! No hold covers a top-up: it only gives. A crash before its commit leaves nothing, after it only
//! the audit record may lack, which the retry writes.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use anima_core::ledger::{Account, Component, Entry, EntryKind, Leg};
use anima_core::money::Money;
use anima_store::config::Actor;

use super::balance::{balance_of, floor_of};
use super::live_app;
use super::movement::{amount_of, check_key, check_reference, record, subject};
use crate::admin::Admin;
use crate::admin::problem::Problem;
use crate::admin::typed::typed;

/// A top-up that is in the books.
#[derive(Debug, Clone, PartialEq)]
pub struct Topup {
    /// The journal entry.
    pub id: Uuid,
    /// How much.
    pub amount: Money,
    /// What the payment provider kept of it.
    pub fee: Option<Money>,
    /// The operator's reference.
    pub reference: String,
    /// It had been posted before; nothing was posted now.
    pub replayed: bool,
    /// The wallet as it now is, as `GET …/balance` shows it.
    pub balance: Value,
}

impl Topup {
    /// The body of the reply.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "amount": self.amount.to_string(),
            "currency": self.amount.currency.code(),
            "fee": self.fee.map(|fee| fee.to_string()),
            "reference": self.reference,
            "replayed": self.replayed,
            "balance": self.balance,
        })
    }
}

/// The payload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    amount: String,
    #[serde(default)]
    fee: Option<String>,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    reason: Option<String>,
}

/// Tops up an app's wallet, once per idempotency key.
///
/// # Errors
/// No such app; a bad member or key; the key used before with another body; or the ledger's.
pub async fn topup(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    idempotency_key: &str,
    body: Value,
) -> Result<Topup, Problem> {
    check_key(idempotency_key)?;
    let payload: Payload = typed(body)?;
    let row = live_app(admin, app).await?;
    let amount = amount_of("amount", &payload.amount, row.currency)?;
    let fee = payload.fee.as_deref().map(|fee| amount_of("fee", fee, row.currency)).transpose()?;
    if fee.is_some_and(|fee| fee.units > amount.units) {
        return Err(Problem::invalid("fee", "no more than the amount"));
    }
    check_reference(&payload.reference)?;
    let entry = Entry {
        subject: subject("topup", app, idempotency_key),
        kind: EntryKind::Topup,
        seq: 0,
        legs: legs(app, amount, fee),
        reference: payload.reference.clone(),
        at: admin.clock.now(),
        floor: floor_of(&row)?,
    };
    let posted = admin.stores.ledger.post(entry).await?;
    let topup = Topup {
        id: posted.journal,
        amount,
        fee,
        reference: payload.reference,
        replayed: posted.replayed,
        balance: balance_of(admin, app, &row).await?,
    };
    record(admin, actor, ("topup", app), payload.reason, topup.to_json()).await?;
    Ok(topup)
}

fn legs(app: &str, amount: Money, fee: Option<Money>) -> Vec<Leg> {
    let leg = |debit, credit, money: Money, component| Leg {
        debit,
        credit,
        amount: money.units,
        currency: money.currency,
        component,
        attempt: None,
        price: None,
        estimate: false,
    };
    let wallet = Account::Wallet(app.into());
    let mut legs = vec![leg(Account::PspClearing, wallet, amount, Component::Topup)];
    legs.extend(
        fee.map(|fee| leg(Account::PaymentFees, Account::PspClearing, fee, Component::Fee)),
    );
    legs
}
