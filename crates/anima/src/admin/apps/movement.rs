//! What every movement of an app's money has in common: a key that names it, an amount, a
//! reference, and a record of who made it.
//!
//! Not here: what is posted. Invariant: every accepted call leaves an audit record, a repeated one
//! too, so that a crash between the posting and its record is healed by the retry that it provokes.

use aws_lc_rs::digest;
use serde_json::Value;
use uuid::Uuid;

use anima_core::money::{Currency, Money};
use anima_store::config::{Actor, AuditRecord};

use crate::admin::Admin;
use crate::admin::problem::{Code, Problem};

/// A reference is a document's number, not the document.
const REFERENCE_CHARS_MAX: usize = 500;
/// Longest idempotency key, as the drafts of the header and the vendors have it.
const KEY_CHARS_MAX: usize = 255;

/// Judges an idempotency key.
pub(crate) fn check_key(key: &str) -> Result<(), Problem> {
    let visible = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !visible {
        return Err(Problem::invalid("Idempotency-Key", "a header of 1 to 255 ASCII characters"));
    }
    Ok(())
}

/// Judges a reference.
pub(crate) fn check_reference(reference: &str) -> Result<(), Problem> {
    if reference.chars().count() > REFERENCE_CHARS_MAX {
        return Err(Problem::invalid("reference", "a text of up to 500 characters"));
    }
    Ok(())
}

/// Reads an amount above 0.
pub(super) fn amount_of(
    member: &'static str,
    text: &str,
    currency: Currency,
) -> Result<Money, Problem> {
    match signed_amount(member, text, currency)? {
        amount if amount.units > 0 => Ok(amount),
        _ => Err(Problem::invalid(member, "a decimal above 0")),
    }
}

/// Reads an amount of either sign.
pub(super) fn signed_amount(
    member: &'static str,
    text: &str,
    currency: Currency,
) -> Result<Money, Problem> {
    let amount = Money::parse(text, currency);
    amount.map_err(|error| anima_core::config::Problem::new(member, error.to_string()).into())
}

/// What cannot be taken or given back, because so much is not there.
pub(super) fn too_much(left: i64, currency: Currency) -> Problem {
    let left = Money::new(left.max(0), currency);
    let detail = format!("is more than there is: {left} {currency}");
    Problem::member(Code::AmountUnavailable, "amount", detail)
}

/// The movement's name, made from what it is, the app and its key alone. Codes hold no `|`.
pub(crate) fn subject(kind: &str, app: &str, key: &str) -> Uuid {
    let hash = digest::digest(&digest::SHA256, format!("{kind}|{app}|{key}").as_bytes());
    let mut bytes = [0_u8; 16];
    for (to, from) in bytes.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What an audit record is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noted<'a> {
    /// What was done.
    pub(crate) action: &'a str,
    /// To which kind of thing.
    pub(crate) resource: &'a str,
    /// To which one.
    pub(crate) code: &'a str,
}

/// Writes who did it to an app.
pub(super) async fn record(
    admin: &Admin,
    actor: &Actor,
    (action, app): (&str, &str),
    reason: Option<String>,
    after: Value,
) -> Result<(), Problem> {
    note(admin, actor, Noted { action, resource: "app", code: app }, reason, after).await
}

/// Writes who did it.
pub(crate) async fn note(
    admin: &Admin,
    actor: &Actor,
    Noted { action, resource, code }: Noted<'_>,
    reason: Option<String>,
    after: Value,
) -> Result<(), Problem> {
    let record = AuditRecord {
        id: 0,
        at: admin.clock.now(),
        actor: actor.name.clone(),
        action: action.to_owned(),
        resource: resource.to_owned(),
        code: code.to_owned(),
        reason: reason.unwrap_or_else(|| actor.reason.clone()),
        before: None,
        after: Some(after),
    };
    Ok(admin.stores.config.record(record).await?)
}

/// An answer and whether it had been given before.
#[derive(Debug)]
pub(crate) struct Moved {
    /// The body of the reply.
    pub(crate) body: Value,
    /// Nothing was posted now.
    pub(crate) replayed: bool,
}
