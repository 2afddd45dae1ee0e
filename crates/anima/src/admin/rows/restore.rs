//! Restores an old version: writes a new one that says the same, from now on.
//!
//! History is not rewritten and nothing scheduled is cancelled. Invariant: an old body is judged
//! like a new one.

use serde_json::{Map, Value};

use anima_store::config::{Change, NewVersion};

use super::change::fresh;
use super::delete::refuse_all_but_version;
use super::{Intent, Place, Writer, numbered};
use crate::admin::Admin;
use crate::admin::collection::Draft;
use crate::admin::envelope::Envelope;
use crate::admin::problem::Problem;

/// What writing the body of version `version_no` again comes to, from now on.
///
/// The old body is judged anew: what it names may be gone.
///
/// # Errors
/// A stale version with the current row; no such version; a bad member; or the store's.
pub(crate) async fn restore_intent(
    admin: &Admin,
    place: Place<'_>,
    writer: Writer<'_>,
    (code, version_no): (&str, i64),
    body: Map<String, Value>,
) -> Result<Intent, Problem> {
    let mut envelope = Envelope::parse(body, &[])?;
    refuse_all_but_version(&envelope)?;
    let history = place.existing(admin, code).await?;
    let old = numbered(&history, version_no)?;
    let read = fresh(place, &history, envelope.stated_version(writer.if_match)?)?;
    let (body, history) = (old.body.clone(), history.as_slice());
    let draft = Draft { code, body, origin: Some(&old.body), history };
    let prepared = place.collection.prepare(admin, draft).await?;
    let version = NewVersion {
        resource: place.resource(),
        code: code.to_owned(),
        app: old.app.clone(),
        body: prepared.body,
        scope: prepared.scope,
        effective_from: None,
        effective_to: None,
        secret_hash: None,
    };
    let actor = writer.because(envelope.reason.take());
    let change = Change::Add { version, read, action: "restore" };
    Ok(Intent { changes: vec![change], actor })
}
