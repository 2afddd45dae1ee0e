//! What is stored, as a file that `plan` takes.
//!
//! Each row as of now; a version that has not begun is written with its start only where the row
//! has no other. Invariant: no secret is written, not even a sealed one, and a fresh export changes
//! nothing when it is applied.

use serde_json::{Map, Value, json};

use anima_core::clock::Timestamp;
use anima_store::config::{Page, Row};

use super::{declarable, section};
use crate::admin::Admin;
use crate::admin::collection::Collection;
use crate::admin::problem::Problem;
use crate::admin::rows::is_ahead;

/// Rows read at once.
const PAGE: u32 = 500;

/// Every declarable row.
///
/// # Errors
/// The store's.
pub async fn export(admin: &Admin) -> Result<Value, Problem> {
    let now = admin.clock.now();
    let ahead = admin.stores.publish.scheduled(now).await?;
    let follows = |row: &Row| {
        let next = ahead.iter().find(|(_, next)| next.code == row.code);
        next.is_some_and(|(_, next)| Some(next.effective_from) == row.effective_to)
    };
    let mut document = Map::new();
    for collection in declarable() {
        let rows = all(admin, collection).await?;
        let rows = rows.iter().filter(|row| is_ahead(row, now));
        // An end that the next version makes is that version's to say.
        let rows = rows.map(|row| shown(collection, row, (now, !follows(row))));
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() {
            document.insert(section(collection), Value::Array(rows));
        }
    }
    Ok(Value::Object(document))
}

/// Every row of a collection, as of now.
///
/// # Errors
/// The store's.
pub(super) async fn all(admin: &Admin, collection: &dyn Collection) -> Result<Vec<Row>, Problem> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.code.clone());
        let resource = collection.resource();
        let page = Page { resource, app: None, after: after.as_deref(), limit: PAGE };
        let found = admin.stores.config.list(page, admin.clock.now()).await?;
        let is_last = found.len() < PAGE as usize;
        rows.extend(found);
        if is_last {
            return Ok(rows);
        }
    }
}

fn shown(collection: &dyn Collection, row: &Row, (now, ends): (Timestamp, bool)) -> Value {
    let mut members = Map::from_iter([("code".to_owned(), json!(row.code))]);
    if let Value::Object(mut body) = row.body.clone() {
        collection.veil(&mut body);
        members.extend(body.into_iter().filter(|(_, value)| !value.is_null()));
    }
    if !row.enabled {
        members.insert("enabled".to_owned(), json!(false));
    }
    if row.effective_from > now {
        members.insert("effective_from".to_owned(), json!(row.effective_from));
    }
    if let Some(end) = row.effective_to.filter(|_| ends) {
        members.insert("effective_to".to_owned(), json!(end));
    }
    Value::Object(members)
}
