//! Rows between the database and the types: what both backends do alike.
//!
//! Invariant: what goes to the audit has no secret in it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use anima_core::config::{Resource, Version};

use super::{Actor, AuditRecord, Error, Row};
use crate::config::decide::Writes;
use anima_core::clock::Timestamp;

/// Members that hold a secret, in clear or sealed.
const SECRET_MEMBERS: [&str; 2] = ["secret", "sealed"];

/// Gives a body its type.
///
/// # Errors
/// [`Error::Damaged`], which names the row.
pub(crate) fn typed<B: DeserializeOwned>(
    resource: Resource,
    row: Row,
) -> Result<Version<B>, Error> {
    let body =
        B::deserialize(&row.body).map_err(|e| damaged(resource, &row.code, row.version_no, &e))?;
    Ok(Version {
        code: row.code,
        app: row.app,
        version_no: row.version_no,
        effective_from: row.effective_from,
        effective_to: row.effective_to,
        enabled: row.enabled,
        body,
    })
}

/// Names a row that cannot be read.
pub(crate) fn damaged(
    resource: Resource,
    code: &str,
    version_no: i64,
    problem: &dyn std::fmt::Display,
) -> Error {
    let table = resource.name();
    Error::Damaged(format!("{table} `{code}` version {version_no}: {problem}"))
}

/// The audit record of a change.
pub(super) fn audit_record(
    resource: Resource,
    writes: &Writes,
    actor: &Actor,
    (before, after): (Option<&Row>, &Row),
    now: Timestamp,
) -> AuditRecord {
    let deleted = writes.head.deleted_at.is_some();
    AuditRecord {
        id: 0,
        at: now,
        actor: actor.name.clone(),
        action: writes.action.to_owned(),
        resource: resource.name().to_owned(),
        code: after.code.clone(),
        reason: actor.reason.clone(),
        before: before.map(shown),
        after: (!deleted).then(|| shown(after)),
    }
}

fn shown(row: &Row) -> Value {
    serde_json::to_value(row).unwrap_or(Value::Null)
}

/// Takes every secret out, however deep.
pub(super) fn without_secrets(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(name, _)| !SECRET_MEMBERS.contains(&name.as_str()))
            .map(|(name, member)| (name, without_secrets(member)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_secrets).collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let body = serde_json::json!({
            "credentials": [{"code": "main", "secret": "sk-1", "sealed": "AAAA"}],
            "settings": {"deep": [{"secret": "x", "region": "eu"}]},
        });
        let clean = serde_json::json!({
            "credentials": [{"code": "main"}],
            "settings": {"deep": [{"region": "eu"}]},
        });
        assert_eq!(without_secrets(body), clean);
    }
}
