//! The audit log: who changed what, and why.
//!
//! Records are shown without secrets whatever the store holds: a sealed credential is nobody's
//! business either.

use serde_json::{Value, json};

use anima_store::config::AuditRecord;

use super::Admin;
use super::call::Call;
use super::channels;
use super::problem::Problem;
use super::reply::Reply;

/// A page of records, newest first; `before` is the id of the page before's last.
///
/// # Errors
/// A bad query, or the store's.
pub(crate) async fn list(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["before", "limit"])?;
    let limit = call.limit()?;
    let before = match call.query.get("before") {
        Some(text) => match text.parse() {
            Ok(id) => Some(id),
            Err(_) => return Err(Problem::invalid("before", "the id of a record")),
        },
        None => None,
    };
    let mut records = admin.stores.config.audit(before, limit.saturating_add(1)).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = records.len() > wanted;
    records.truncate(wanted);
    let next = records.last().filter(|_| more).map(|record| record.id);
    Ok(Reply::page(records.into_iter().map(show).collect(), json!(next)))
}

fn show(record: AuditRecord) -> Value {
    json!({
        "id": record.id,
        "at": record.at,
        "actor": record.actor,
        "action": record.action,
        "resource": record.resource,
        "code": record.code,
        "reason": record.reason,
        "before": record.before.map(veiled),
        "after": record.after.map(veiled),
    })
}

/// A row's image without its credentials, wherever the store keeps its body.
fn veiled(mut image: Value) -> Value {
    if let Value::Object(members) = &mut image {
        channels::veil(members);
        if let Some(Value::Object(body)) = members.get_mut("body") {
            channels::veil(body);
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_never_shows_a_credential() {
        let credentials = json!([{"code": "main", "sealed": "canary"}]);
        for image in [
            json!({"credentials": credentials}),
            json!({"version_no": 1, "body": {"credentials": credentials}}),
        ] {
            let shown = veiled(image).to_string();
            assert!(shown.contains("main") && !shown.contains("canary"), "{shown}");
        }
    }
}
