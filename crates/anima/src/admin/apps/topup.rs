//! Puts money into an app's wallet: debits the payment provider's clearing account for it.
//!
//! The idempotency key names the entry, so a repeated call posts nothing. Invariant: every accepted
//! call leaves an audit record, a repeated one too, so that a crash between the posting and its
//! record is healed by the retry that it provokes.

use aws_lc_rs::digest;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use anima_core::config::App;
use anima_core::ledger::{Account, Component, Entry, EntryKind, Leg};
use anima_core::money::{Currency, Money};
use anima_store::config::{Actor, AuditRecord};

use super::balance::{balance_of, floor_of};
use super::live_app;
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
    reference: String,
    #[serde(default)]
    reason: Option<String>,
}

/// A reference is a document's number, not the document.
const REFERENCE_CHARS_MAX: usize = 500;
/// Longest idempotency key, as the drafts of the header and the vendors have it.
const KEY_CHARS_MAX: usize = 255;

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
    let amount = amount_of(&payload.amount, row.currency)?;
    if payload.reference.chars().count() > REFERENCE_CHARS_MAX {
        return Err(Problem::invalid("reference", "a text of up to 500 characters"));
    }
    let entry = entry(admin, (app, &row), (idempotency_key, amount), payload.reference.clone())?;
    let posted = admin.stores.ledger.post(entry).await?;
    let balance = balance_of(admin, app, &row).await?;
    let reference = payload.reference;
    let topup = Topup { id: posted.journal, amount, reference, replayed: posted.replayed, balance };
    record(admin, actor, app, payload.reason, &topup).await?;
    Ok(topup)
}

fn check_key(key: &str) -> Result<(), Problem> {
    let visible = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !visible {
        return Err(Problem::invalid("Idempotency-Key", "a header of 1 to 255 ASCII characters"));
    }
    Ok(())
}

fn amount_of(text: &str, currency: Currency) -> Result<Money, Problem> {
    match Money::parse(text, currency) {
        Ok(amount) if amount.units > 0 => Ok(amount),
        Ok(_) => Err(Problem::invalid("amount", "a decimal above 0")),
        Err(error) => Err(anima_core::config::Problem::new("amount", error.to_string()).into()),
    }
}

fn entry(
    admin: &Admin,
    (app, row): (&str, &App),
    (key, amount): (&str, Money),
    reference: String,
) -> Result<Entry, Problem> {
    let leg = Leg {
        debit: Account::PspClearing,
        credit: Account::Wallet(app.into()),
        amount: amount.units,
        currency: amount.currency,
        component: Component::Topup,
        attempt: None,
        price: None,
        estimate: false,
    };
    Ok(Entry {
        subject: subject(app, key),
        kind: EntryKind::Topup,
        seq: 0,
        legs: vec![leg],
        reference,
        at: admin.clock.now(),
        floor: floor_of(row)?,
    })
}

/// The entry's name, made from the app and its idempotency key alone. Codes hold no `|`.
fn subject(app: &str, key: &str) -> Uuid {
    let hash = digest::digest(&digest::SHA256, format!("topup|{app}|{key}").as_bytes());
    let mut bytes = [0_u8; 16];
    for (to, from) in bytes.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

async fn record(
    admin: &Admin,
    actor: &Actor,
    app: &str,
    reason: Option<String>,
    topup: &Topup,
) -> Result<(), Problem> {
    let record = AuditRecord {
        id: 0,
        at: admin.clock.now(),
        actor: actor.name.clone(),
        action: "topup".to_owned(),
        resource: "app".to_owned(),
        code: app.to_owned(),
        reason: reason.unwrap_or_else(|| actor.reason.clone()),
        before: None,
        after: Some(topup.to_json()),
    };
    Ok(admin.stores.config.record(record).await?)
}
