//! Versions that have not begun: listed, and taken back.
//!
//! An id is `<resource>:<version_no>:<code>`. Taking one back lets the version before it go on in
//! its place. Invariant: a version that has begun is history and is not touched.

use serde_json::{Value, json};

use anima_core::config::Resource;
use anima_store::config::Row;

use crate::admin::Admin;
use crate::admin::call::Call;
use crate::admin::endpoints::COLLECTIONS;
use crate::admin::problem::Problem;
use crate::admin::reply::Reply;
use crate::admin::rows::{self, Place, Writer};
use crate::admin::spread;

pub(super) async fn list(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let ahead = admin.stores.publish.scheduled(admin.clock.now()).await?;
    let items = ahead.iter().filter_map(|(resource, row)| {
        let place = place(*resource, row.app.as_deref())?;
        let (name, number, code) = (resource.name(), row.version_no, &row.code);
        Some(json!({
            "id": format!("{name}:{number}:{code}"),
            "resource": name,
            "code": code,
            "effective_from": row.effective_from,
            "row": place.show(row),
        }))
    });
    Ok(Reply::page(items.collect(), Value::Null))
}

fn place(resource: Resource, app: Option<&str>) -> Option<Place<'_>> {
    let collection = COLLECTIONS.iter().find(|c| c.resource() == resource)?;
    Some(Place { collection: *collection, app })
}

pub(super) async fn cancel(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[spread::WAIT, spread::DRY_RUN])?;
    let missing = || Problem::not_found("scheduled version");
    let mut parts = call.names.code.splitn(3, ':');
    let resource = parts.next().and_then(Resource::parse).ok_or_else(missing)?;
    let version_no = parts.next().and_then(|n| n.parse().ok()).ok_or_else(missing)?;
    let code = parts.next().ok_or_else(missing)?;
    let versions = admin.stores.config.versions(resource, code).await?;
    let app = versions.first().and_then(|row| row.app.clone());
    let now = admin.clock.now();
    let ahead = |row: &&Row| row.effective_from > now && rows::is_ahead(row, now);
    if !versions.iter().filter(ahead).any(|row| row.version_no == version_no) {
        return Err(missing());
    }
    let place = place(resource, app.as_deref()).ok_or_else(missing)?;
    let writer = Writer { actor: &call.caller.actor, if_match: call.if_match()? };
    let intent =
        rows::cancel_intent(place, writer, (&versions, version_no), call.optional_object()?)?;
    if spread::is_dry_run(call)? {
        return Ok(Reply::ok(place.rehearse(admin, intent).await?));
    }
    let within = spread::wait_of(call, std::time::Duration::ZERO)?;
    let outcome = place.apply(admin, intent).await?;
    let (rev, reply) = (outcome.rev, Reply::gone(&outcome));
    match rev {
        Some(rev) => Ok(spread::told(admin, reply, rev, within).await),
        None => Ok(reply),
    }
}
