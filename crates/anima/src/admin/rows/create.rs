//! Creates a row, or one again whose code was deleted.
//!
//! A key's code is minted by the caller; all others are chosen by the admin. Invariant: what is
//! stored was judged whole, and its code can be written in a path.

use serde_json::{Map, Value};

use anima_store::config::{Actor, Change, NewVersion};

use super::{Intent, Outcome, Place};
use crate::admin::Admin;
use crate::admin::collection::{Codes, Draft};
use crate::admin::envelope::Envelope;
use crate::admin::problem::{Code, Problem};
use crate::secrets::MintedKey;

/// What a creation needs beside the body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Creation<'a> {
    /// Where.
    pub(crate) place: Place<'a>,
    /// For a key, what was minted.
    pub(crate) minted: Option<&'a MintedKey>,
}

/// Creates a row from what an admin wrote.
///
/// # Errors
/// The first bad member, a code that is taken, or the store's.
pub(crate) async fn create(
    admin: &Admin,
    actor: &Actor,
    creation: Creation<'_>,
    body: Map<String, Value>,
) -> Result<Outcome, Problem> {
    let intent = create_intent(admin, actor, creation, body).await?;
    creation.place.apply(admin, intent).await
}

/// The same up to the store.
///
/// # Errors
/// As [`create`].
pub(crate) async fn create_intent(
    admin: &Admin,
    actor: &Actor,
    creation: Creation<'_>,
    body: Map<String, Value>,
) -> Result<Intent, Problem> {
    let Creation { place, minted } = creation;
    let identity: &[&'static str] =
        if place.collection.codes() == Codes::Minted { &[] } else { &["code"] };
    let envelope = Envelope::parse(body, identity)?;
    if envelope.version_no.is_some() {
        return Err(Problem::member(Code::UnknownMember, "version_no", "a new row starts at 1"));
    }
    let code = code_of(place, &envelope, minted)?;
    let (effective_from, effective_to) = envelope.window::<Value>(admin.clock.now(), None)?;
    envelope.cut()?;
    let (enabled, reason) = (envelope.enabled, envelope.reason);
    place.collection.vet(&envelope.body)?;
    let history = admin.stores.config.versions(place.resource(), &code).await?;
    let draft =
        Draft { code: &code, body: Value::Object(envelope.body), origin: None, history: &history };
    let prepared = place.collection.prepare(admin, draft).await?;
    let version = NewVersion {
        resource: place.resource(),
        code: code.clone(),
        app: place.app.map(str::to_owned),
        body: prepared.body,
        scope: prepared.scope,
        effective_from,
        effective_to,
        secret_hash: minted.map(|key| key.hash),
    };
    let name = actor.name.clone();
    let actor = Actor { name, reason: reason.unwrap_or_else(|| actor.reason.clone()) };
    let mut changes = vec![Change::Create(version)];
    if enabled == Some(false) {
        let resource = place.resource();
        changes.push(Change::Switch { resource, code, enabled: false, cut: false });
    }
    Ok(Intent { changes, actor })
}

fn code_of(
    place: Place<'_>,
    envelope: &Envelope,
    minted: Option<&MintedKey>,
) -> Result<String, Problem> {
    if let Some(key) = minted {
        return Ok(key.kid.clone());
    }
    let Some((_, code)) = envelope.identity.first() else {
        return Err(Problem::member(Code::InvalidMember, "code", "is required"));
    };
    place.collection.codes().check(code)?;
    Ok(code.clone())
}
