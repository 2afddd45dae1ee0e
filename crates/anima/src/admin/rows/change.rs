//! Changes a row: a further version, the live switch, or both.
//!
//! The new version is made from the one in force at its start, so a scheduled change is neither
//! lost nor pulled ahead. Invariant: nothing is written from a version that is not the latest.

use serde_json::{Map, Value};

use anima_store::config::{Change, Error, NewVersion, Row};

use super::{Intent, Outcome, Place, Writer, origin_version};
use crate::admin::Admin;
use crate::admin::collection::Draft;
use crate::admin::envelope::{Envelope, Member};
use crate::admin::problem::{Code, Problem};

/// Applies what an admin wrote to a row: members given replace, objects merge, null resets
/// (RFC 7396).
///
/// # Errors
/// A stale version with the current row; the first bad member; or the store's.
pub(crate) async fn change(
    admin: &Admin,
    place: Place<'_>,
    writer: Writer<'_>,
    code: &str,
    body: Map<String, Value>,
) -> Result<Outcome, Problem> {
    let intent = change_intent(admin, place, writer, code, body).await?;
    let is_version = intent.changes.iter().any(|change| matches!(change, Change::Add { .. }));
    let outcome = place.apply(admin, intent).await?;
    if is_version {
        return Ok(outcome);
    }
    // A switch is answered with the row as of now; its latest version may lie ahead.
    let shown = super::read(admin, place, code).await?;
    Ok(Outcome { delayed: outcome.delayed, rev: outcome.rev, ..shown })
}

/// The same up to the store.
///
/// # Errors
/// As [`change`].
pub(crate) async fn change_intent(
    admin: &Admin,
    place: Place<'_>,
    writer: Writer<'_>,
    code: &str,
    body: Map<String, Value>,
) -> Result<Intent, Problem> {
    let mut envelope = Envelope::parse(body, place.identity())?;
    for (member, written) in &envelope.identity {
        let is = if *member == "app" { place.app.unwrap_or_default() } else { code };
        if written != is {
            return Err(Problem::invalid(*member, "the name in the path: it cannot be changed"));
        }
    }
    let history = place.existing(admin, code).await?;
    let actor = writer.because(envelope.reason.take());
    let mut changes = Vec::new();
    if envelope.changes_version() {
        let read = fresh(place, &history, envelope.stated_version(writer.if_match)?)?;
        let version = next_version(admin, place, &envelope, &history).await?;
        changes.push(Change::Add { version, read, action: "change" });
    } else if let Some(read) = envelope.version_no.or(writer.if_match) {
        fresh(place, &history, read)?;
    }
    let cut = envelope.cut()?;
    if let Some(enabled) = envelope.enabled {
        let resource = place.resource();
        changes.push(Change::Switch { resource, code: code.to_owned(), enabled, cut });
    }
    if changes.is_empty() {
        return Err(Problem::new(Code::NothingToChange, "name at least one member"));
    }
    Ok(Intent { changes, actor })
}

/// The stated version, if it is the latest.
pub(super) fn fresh(place: Place<'_>, history: &[Row], stated: i64) -> Result<i64, Problem> {
    match history.first() {
        Some(latest) if latest.version_no != stated => {
            Err(place.problem(Error::VersionConflict(Box::new(latest.clone()))))
        }
        _ => Ok(stated),
    }
}

async fn next_version(
    admin: &Admin,
    place: Place<'_>,
    envelope: &Envelope,
    history: &[Row],
) -> Result<NewVersion, Problem> {
    let now = admin.clock.now();
    let start = match envelope.effective_from {
        Member::Given(at) => at.max(now),
        Member::Absent | Member::Null => now,
    };
    // What is in force at the new version's start, so that a scheduled change is not pulled ahead.
    let Some(origin) = origin_version(history, start) else {
        return Err(Error::NotFound(place.resource()).into());
    };
    let (effective_from, effective_to) = envelope.window(now, Some(origin))?;
    place.collection.vet(&envelope.body)?;
    let mut body = origin.body.clone();
    merge(&mut body, &envelope.body);
    let draft = Draft { code: &origin.code, body, origin: Some(&origin.body), history };
    let prepared = place.collection.prepare(admin, draft).await?;
    Ok(NewVersion {
        resource: place.resource(),
        code: origin.code.clone(),
        app: origin.app.clone(),
        body: prepared.body,
        scope: prepared.scope,
        effective_from,
        effective_to,
        secret_hash: None,
    })
}

/// RFC 7396, section 2. Bodies come from a parser that stops at a depth of 128.
fn merge(target: &mut Value, patch: &Map<String, Value>) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(members) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        match value {
            Value::Null => {
                members.remove(name);
            }
            Value::Object(inner) => {
                merge(members.entry(name.clone()).or_insert(Value::Null), inner);
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                members.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn given_members_replace_objects_merge_and_null_resets() {
        let mut row = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1, 2], "d": "d"});
        let patch =
            json!({"a": 2, "b": {"y": null, "z": 3}, "c": [3], "d": null, "e": {"f": null}});
        merge(&mut row, patch.as_object().unwrap());
        assert_eq!(row, json!({"a": 2, "b": {"x": 1, "z": 3}, "c": [3], "e": {}}));
    }
}
