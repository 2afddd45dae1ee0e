//! The circuits of this node as an operator reads them.
//!
//! Read only; the operator's own words about them are set elsewhere.

use serde_json::{Value, json};

use super::Admin;
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;

/// Every channel's circuits, or one channel's.
///
/// # Errors
/// A bad query, a channel that does not exist, or no configuration.
pub(crate) fn list(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["channel"])?;
    let Some(pinned) = admin.live.pin(admin.clock.now()) else {
        return Err(Problem::new(Code::ServiceUnavailable, "the configuration is not there yet"));
    };
    let wanted = call.query.get("channel");
    let shown = admin.circuits.show(&pinned.snapshot);
    let shown = shown.iter().filter(|c| wanted.is_none_or(|code| *code == c.channel));
    let items: Vec<Value> = shown.map(|channel| json!(channel)).collect();
    if items.is_empty() && wanted.is_some() {
        return Err(Problem::new(Code::NotFound, "no channel of that code exists"));
    }
    Ok(Reply::page(items, Value::Null))
}
