//! Which channels to try, in which order: the pure plan, minus what this node cannot call.
//!
//! Invariant: every candidate has a translator for the endpoint, a credential and a cost price.

use std::sync::Arc;

use anima_core::clock::Rng;
use anima_core::failure::Failure;
use anima_core::routing::{self, Seen, Skip, SkipReason};
use anima_core::snapshot::RouteEntry;
use anima_store::config::publish::Forced;

use super::admit::covers;
use super::call::Call;
use crate::http::reply::Refusal;
use crate::live::Upstream;

/// The candidates of a call: indices into the alias's routes, first choice first.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What to try. Not empty.
    pub candidates: Vec<usize>,
    /// What was left out, and why.
    pub skips: Vec<Skip>,
}

/// Plans a call.
///
/// # Errors
/// [`Failure::ModelUnpriced`] when only cost prices are missing, else
/// [`Failure::NoHealthyChannel`].
pub fn plan(call: &Call, rng: &dyn Rng) -> Result<Plan, Refusal> {
    let routing::Plan { candidates, skips } =
        routing::plan(&call.alias, rng.next_u64(), |index, _| Seen {
            skip: unusable(call, index),
            ..Seen::default()
        });
    if !candidates.is_empty() {
        return Ok(Plan { candidates, skips });
    }
    let unpriced = skips.iter().any(|s| s.reason == SkipReason::CostUnpriced);
    let model = &call.alias.code;
    Err(if unpriced {
        let message = format!("The model `{model}` has no cost price. The operator must add one.");
        Refusal::new(Failure::ModelUnpriced, message).param(Some("model"))
    } else {
        let message = format!("No channel can serve the model `{model}` at the moment.");
        Refusal::new(Failure::NoHealthyChannel, message).retry_after(5_000)
    })
}

fn unusable(call: &Call, index: usize) -> Option<SkipReason> {
    let Some((route, upstream)) = candidate(call, index) else {
        return Some(SkipReason::EndpointUnserved);
    };
    let serves = upstream.adapter.is_some_and(|a| a.serves(call.request.endpoint));
    let covered = route.cost.as_ref().is_some_and(|c| covers(c, call.request.endpoint));
    let pinned = &call.caller.pinned;
    let forced = pinned.forced(&route.channel.code, &route.model, call.arrival.at);
    if !route.channel.enabled {
        Some(SkipReason::ChannelDisabled)
    } else if forced == Some(Forced::Open) {
        Some(SkipReason::ForcedOpen)
    } else if !serves {
        Some(SkipReason::EndpointUnserved)
    } else if upstream.credentials.is_empty() {
        Some(SkipReason::NoCredential)
    } else if !covered {
        Some(SkipReason::CostUnpriced)
    } else {
        None
    }
}

/// A candidate's route and its callable channel.
pub fn candidate(call: &Call, index: usize) -> Option<(&RouteEntry, &Arc<Upstream>)> {
    let route = call.alias.routes.get(index)?;
    Some((route, call.caller.pinned.upstream(route.channel.index)?))
}
