//! The nodes of the installation as an operator reads them.
//!
//! Read only, from memory: it answers while nothing else does.

use serde_json::{Value, json};

use super::Admin;
use super::call::Call;
use super::problem::Problem;
use super::reply::Reply;

/// Every node that was heard of lately.
///
/// # Errors
/// A bad query.
pub(crate) fn list(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let now = admin.clock.now();
    let own = admin.nodes.own().id;
    let items = admin.nodes.all().into_iter().map(|report| {
        let mut item = json!(report);
        if let Value::Object(members) = &mut item {
            members.insert("alive".to_owned(), json!(report.is_alive(now)));
            members.insert("answering".to_owned(), json!(report.id == own));
        }
        item
    });
    Ok(Reply::page(items.collect(), Value::Null))
}
