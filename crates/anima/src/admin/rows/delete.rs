//! Deletes a row: ends it now and cancels what was scheduled. Its history stays.
//!
//! Rows that name it keep naming it; what that means is the snapshot's to judge. Invariant: a
//! stated version must be the latest, or nothing happens.

use serde_json::{Map, Value};

use anima_store::config::{Change, Row};

use super::change::fresh;
use super::{Intent, Place, Writer};
use crate::admin::Admin;
use crate::admin::envelope::{Envelope, Member};
use crate::admin::problem::{Code, Problem};

/// What deleting a row comes to. A stated version must be the latest; none is needed.
///
/// # Errors
/// A stale version with the current row; members that have no meaning here; or the store's.
pub(crate) async fn delete_intent(
    admin: &Admin,
    place: Place<'_>,
    writer: Writer<'_>,
    code: &str,
    body: Map<String, Value>,
) -> Result<Intent, Problem> {
    let mut envelope = Envelope::parse(body, &[])?;
    refuse_all_but_version(&envelope)?;
    let history = place.existing(admin, code).await?;
    let read = match (envelope.version_no, writer.if_match) {
        (None, None) => None,
        _ => Some(fresh(place, &history, envelope.stated_version(writer.if_match)?)?),
    };
    let actor = writer.because(envelope.reason.take());
    let change = Change::Delete { resource: place.resource(), code: code.to_owned(), read };
    Ok(Intent { changes: vec![change], actor })
}

/// What taking back a version comes to that has not begun. The row's versions are at hand.
///
/// # Errors
/// A stale version with the current row, or members that have no meaning here.
pub(crate) fn cancel_intent(
    place: Place<'_>,
    writer: Writer<'_>,
    (history, version_no): (&[Row], i64),
    body: Map<String, Value>,
) -> Result<Intent, Problem> {
    let mut envelope = Envelope::parse(body, &[])?;
    refuse_all_but_version(&envelope)?;
    let read = match (envelope.version_no, writer.if_match) {
        (None, None) => None,
        _ => Some(fresh(place, history, envelope.stated_version(writer.if_match)?)?),
    };
    let actor = writer.because(envelope.reason.take());
    let code = history.first().map(|row| row.code.clone()).unwrap_or_default();
    let change = Change::Cancel { resource: place.resource(), code, version_no, read };
    Ok(Intent { changes: vec![change], actor })
}

/// A deletion and a restoration take a version and a reason, nothing else.
pub(super) fn refuse_all_but_version(envelope: &Envelope) -> Result<(), Problem> {
    let other = envelope.body.keys().next().map(String::as_str);
    let enabled = envelope.enabled.map(|_| "enabled");
    let from = (envelope.effective_from != Member::Absent).then_some("effective_from");
    let to = (envelope.effective_to != Member::Absent).then_some("effective_to");
    let running = envelope.running.map(|_| "running");
    match other.or(enabled).or(running).or(from).or(to) {
        Some(member) => {
            let detail = "is not a member here: expected `version_no` or `reason`";
            Err(Problem::member(Code::UnknownMember, member, detail))
        }
        None => Ok(()),
    }
}
