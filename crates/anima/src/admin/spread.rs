//! What a reply says about how far its change has come, and a caller's wish to rehearse or to wait.
//!
//! The id of a change's propagation is its revision. Invariant: a reply never waits longer than
//! [`WAIT_MAX`] for other nodes; what had not come by then is read at `GET /propagation/{id}`.

use std::time::Duration;

use anima_store::config::Error;

use super::Admin;
use super::call::Call;
use super::problem::Problem;
use super::reply::Reply;
use crate::live::propagation::{self, Propagation};

/// The member of the query: how long to wait for other nodes, in milliseconds.
pub(crate) const WAIT: &str = "wait_ms";
/// The member of the query: judge and show, but write nothing.
pub(crate) const DRY_RUN: &str = "dry_run";
/// How long a hatch waits when the caller does not say: as long as it may take (SPEC 10).
pub(crate) const WAIT_HATCH: Duration = Duration::from_secs(1);
/// At most.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long a call wants to wait.
///
/// # Errors
/// When it is not a number in range.
pub(crate) fn wait_of(call: &Call, usual: Duration) -> Result<Duration, Problem> {
    let Some(text) = call.query.get(WAIT) else { return Ok(usual) };
    let wait = text.parse().ok().map(Duration::from_millis).filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| Problem::invalid(WAIT, "milliseconds from 0 to 5000"))
}

/// Whether a call only wants to see what would happen.
///
/// # Errors
/// When it is neither `true` nor `false`.
pub(crate) fn is_dry_run(call: &Call) -> Result<bool, Problem> {
    match call.query.get(DRY_RUN).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::invalid(DRY_RUN, "true or false")),
    }
}

/// How far a change has come.
///
/// # Errors
/// The store's.
pub(crate) async fn of(admin: &Admin, rev: i64, within: Duration) -> Result<Propagation, Error> {
    propagation::wait(&*admin.stores.publish, rev, &*admin.clock, within).await
}

/// A reply that says how far its change has come. A change that was made is answered as such even
/// when nobody can say how far it is.
pub(crate) async fn told(admin: &Admin, reply: Reply, rev: i64, within: Duration) -> Reply {
    if within.is_zero() {
        return reply.propagating(rev, None);
    }
    match of(admin, rev, within).await {
        Ok(found) => reply.propagating(rev, Some(&found)),
        Err(error) => {
            tracing::warn!(%error, rev, "failed to read who has a change");
            reply.propagating(rev, None)
        }
    }
}
