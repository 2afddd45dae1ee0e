//! Deletes a row: ends it now and cancels what was scheduled. Its history stays.
//!
//! Rows that name it keep naming it; what that means is the snapshot's to judge. Invariant: a
//! stated version must be the latest, or nothing happens.

use serde_json::{Map, Value};

use anima_store::config::Change;

use super::change::fresh;
use super::{Outcome, Place, Writer};
use crate::admin::Admin;
use crate::admin::envelope::{Envelope, Member};
use crate::admin::problem::{Code, Problem};

/// Deletes a row. A stated version must be the latest; none is needed.
///
/// # Errors
/// A stale version with the current row; members that have no meaning here; or the store's.
pub(crate) async fn delete(
    admin: &Admin,
    place: Place<'_>,
    writer: Writer<'_>,
    code: &str,
    body: Map<String, Value>,
) -> Result<Outcome, Problem> {
    let mut envelope = Envelope::parse(body, &[])?;
    refuse_all_but_version(&envelope)?;
    let history = place.existing(admin, code).await?;
    let read = match (envelope.version_no, writer.if_match) {
        (None, None) => None,
        _ => Some(fresh(place, &history, envelope.stated_version(writer.if_match)?)?),
    };
    let actor = writer.because(envelope.reason.take());
    let change = Change::Delete { resource: place.resource(), code: code.to_owned(), read };
    place.apply(admin, change, &actor).await
}

/// A deletion and a restoration take a version and a reason, nothing else.
pub(super) fn refuse_all_but_version(envelope: &Envelope) -> Result<(), Problem> {
    let other = envelope.body.keys().next().map(String::as_str);
    let enabled = envelope.enabled.map(|_| "enabled");
    let from = (envelope.effective_from != Member::Absent).then_some("effective_from");
    let to = (envelope.effective_to != Member::Absent).then_some("effective_to");
    match other.or(enabled).or(from).or(to) {
        Some(member) => {
            let detail = "is not a member here: expected `version_no` or `reason`";
            Err(Problem::member(Code::UnknownMember, member, detail))
        }
        None => Ok(()),
    }
}
