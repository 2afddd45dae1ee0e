//! Which channels to try, in which order: the pure plan of the alias and of every alias that it
//! falls back to, with what this node knows about the health of each.
//!
//! Made once, before the hold, so that the hold covers the dearest candidate of the whole chain.
//! Invariant: every candidate has a translator for the endpoint, a credential and a cost price.
//! Source: SPEC 7, `reliability` 3.2 and 4.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use anima_core::clock::Timestamp;
use anima_core::failure::{Class, Failure};
use anima_core::routing::{self, DEPTH_MAX, Seen, Skip, SkipReason};
use anima_core::snapshot::{AliasEntry, RouteEntry};
use anima_store::config::publish::Forced;
use anima_wire::adapter;

use super::admit::{covers, serves};
use super::call::Call;
use super::{Relay, steer};
use crate::circuits::{Circuits, Way};
use crate::http::reply::Refusal;
use crate::live::Upstream;

/// An alias of the chain.
#[derive(Debug, Clone)]
pub struct Link {
    /// The alias.
    pub alias: Arc<AliasEntry>,
    /// Its routes in order, and why others are left out.
    pub order: routing::Plan,
}

/// A place to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Index into the chain.
    pub link: usize,
    /// Index into its alias's routes.
    pub route: usize,
}

/// How the call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first candidate.
    Proper,
    /// With this one, when its rest is over: there is no other.
    After(Candidate, Timestamp),
    /// With this one, the least bad: every circuit is open.
    LastResort(Candidate),
}

/// What a call may try.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The alias that was asked for, then those that it may fall back to.
    pub links: Vec<Link>,
    /// How it begins.
    pub start: Start,
}

impl Plan {
    /// Every candidate, in order.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let first = match self.start {
            Start::Proper => None,
            Start::After(candidate, _) | Start::LastResort(candidate) => Some(candidate),
        };
        let listed = self.links.iter().enumerate().flat_map(|(link, part)| {
            part.order.candidates.iter().map(move |route| Candidate { link, route: *route })
        });
        first.into_iter().chain(listed)
    }

    /// A candidate's route.
    pub fn route(&self, candidate: Candidate) -> Option<&RouteEntry> {
        self.links.get(candidate.link)?.alias.routes.get(candidate.route)
    }

    /// How a candidate asks to be let through.
    pub fn way(&self, candidate: Candidate) -> Way {
        let link = self.links.get(candidate.link);
        let slow = link.is_some_and(|link| link.order.readmitted.contains(&candidate.route));
        if slow { Way::Readmitted } else { Way::Proper }
    }

    /// The links to go to after a failure of a class in a link, in order.
    pub fn after(&self, link: usize, class: Class) -> Vec<usize> {
        let Some(from) = self.links.get(link) else { return vec![] };
        let wanted = from.alias.fallbacks.after(class).iter();
        let place = |code: &String| self.links.iter().position(|l| *l.alias.code == **code);
        wanted.filter_map(place).collect()
    }

    /// The links that stand in for one none of whose places may be tried now, in order. A circuit
    /// is open for failures of many kinds, so whatever follows any of them does.
    pub fn around(&self, link: usize) -> Vec<usize> {
        let Some(part) = self.links.get(link) else { return vec![] };
        let has =
            |wanted: fn(SkipReason) -> bool| part.order.skips.iter().any(|s| wanted(s.reason));
        let classes: &[Class] = if has(|reason| reason == SkipReason::CoolingDown) {
            &[Class::RateLimited, Class::Error, Class::Timeout]
        } else if has(|r| Circuits::is_tripped(r) || r == SkipReason::ProbesTaken) {
            &[Class::Error, Class::Timeout, Class::RateLimited]
        } else {
            &[Class::Error]
        };
        let mut next = Vec::new();
        for found in classes.iter().flat_map(|class| self.after(link, *class)) {
            if !next.contains(&found) {
                next.push(found);
            }
        }
        next
    }

    /// The links that a call comes to before anything has failed.
    fn first_links(&self) -> Vec<usize> {
        let (mut found, mut at) = (vec![0], 0);
        while let Some(link) = found.get(at).copied() {
            for next in self.around(link) {
                if !found.contains(&next) {
                    found.push(next);
                }
            }
            at += 1;
        }
        found
    }

    /// How long until the first of the places in `links` that are left out may be tried.
    pub fn soonest_ms(&self, links: &[usize], now: Timestamp) -> Option<u64> {
        let links = links.iter().filter_map(|link| self.links.get(*link));
        let soonest = links.filter_map(|link| link.order.soonest()).min()?;
        Some(u64::try_from(soonest.since(now).max(0).div_euclid(1_000) + 1).unwrap_or(0))
    }

    fn skips(&self, links: &[usize]) -> impl Iterator<Item = (Candidate, &Skip)> {
        let links = links.iter().filter_map(|link| Some((*link, self.links.get(*link)?)));
        links.flat_map(|(link, part)| {
            let place = move |skip: &Skip| Candidate { link, route: skip.route };
            part.order.skips.iter().map(move |skip| (place(skip), skip))
        })
    }
}

/// Plans a call.
///
/// # Errors
/// What was planned, with [`Failure::ModelUnpriced`] when only cost prices are missing,
/// [`Failure::RateLimited`] when every credential rests for longer than the call may wait, else
/// [`Failure::NoHealthyChannel`].
pub fn plan(relay: &Relay, call: &Call) -> Result<Plan, Box<(Plan, Refusal)>> {
    let now = relay.clock.now();
    let mut plan = Plan { links: chain(relay, call, now), start: Start::Proper };
    for part in &plan.links {
        for skip in &part.order.skips {
            if let Some(route) = part.alias.routes.get(skip.route) {
                relay.metrics.routing.skipped(&route.channel.code, skip.reason);
            }
        }
    }
    if plan.links.first().is_some_and(|own| !own.order.candidates.is_empty()) {
        return Ok(plan);
    }
    let links = plan.first_links();
    let mut places = links.iter().filter_map(|link| plan.links.get(*link));
    if places.all(|link| link.order.candidates.is_empty()) {
        match begin_anyway(relay, call, (&plan, &links), now) {
            Ok(start) => plan.start = start,
            Err(refusal) => return Err(Box::new((plan, refusal))),
        }
    }
    Ok(plan)
}

/// The alias and those that it may fall back to, each once, breadth first.
fn chain(relay: &Relay, call: &Call, now: Timestamp) -> Vec<Link> {
    let mut links = vec![link(relay, call, (&call.alias, now))];
    let (mut at, mut depth, mut level_ends) = (0, 0, 1);
    while let Some(from) = links.get(at).map(|link| Arc::clone(&link.alias)) {
        for (_, list) in from.fallbacks.lists() {
            for code in list {
                let known = links.iter().any(|link| *link.alias.code == **code);
                let alias = call.caller.pinned.snapshot.alias(code).filter(|a| a.enabled);
                let fit = alias.filter(|a| !known && serves(a.kind, call.request.endpoint));
                links.extend(fit.map(|alias| link(relay, call, (alias, now))));
            }
        }
        at += 1;
        if at == level_ends {
            (depth, level_ends) = (depth + 1, links.len());
            if depth >= DEPTH_MAX {
                break;
            }
        }
    }
    links
}

fn link(relay: &Relay, call: &Call, (alias, now): (&Arc<AliasEntry>, Timestamp)) -> Link {
    let order = routing::plan(alias, relay.rng.next_u64(), |_, route| {
        if let Some(reason) = unusable(call, route) {
            let circuit = relay.circuits.state_of(route);
            return Seen { skip: Some(reason), circuit, ..Seen::default() };
        }
        steer::apply(&call.steering, route, see(relay, call, (route, now)))
    });
    Link { alias: Arc::clone(alias), order }
}

/// What is known about a route's health, the operator's word first.
pub(super) fn see(relay: &Relay, call: &Call, (route, now): (&RouteEntry, Timestamp)) -> Seen {
    match forced(call, route) {
        Some(Forced::Open) => {
            let (circuit, pinned) = (relay.circuits.state_of(route), &call.caller.pinned);
            let until = pinned.forced_until(&route.channel.code, &route.model, call.arrival.at);
            Seen { skip: Some(SkipReason::ForcedOpen), until, circuit, ..Seen::default() }
        }
        Some(Forced::Closed) => Seen::default(),
        None => relay.circuits.see(route, now),
    }
}

/// What to do when nothing may be tried now: wait for the first rest that ends soon enough, else
/// let a few calls through to the circuit that was to be tried first anyway.
fn begin_anyway(
    relay: &Relay,
    call: &Call,
    (plan, links): (&Plan, &[usize]),
    now: Timestamp,
) -> Result<Start, Refusal> {
    let soonest = |wanted: fn(SkipReason) -> bool| {
        let fit = plan.skips(links).filter(|(_, skip)| wanted(skip.reason));
        fit.filter_map(|(at, skip)| Some((skip.until?, at))).min_by_key(|(until, _)| *until)
    };
    let cooling = soonest(|reason| reason == SkipReason::CoolingDown);
    if let Some((until, candidate)) = cooling {
        let wait = micros(until.since(now));
        let left = call.deadline.saturating_duration_since(Instant::now());
        if wait < left && wait <= relay.limits.retry_wait {
            return Ok(Start::After(candidate, until));
        }
    }
    if let Some((_, candidate)) = soonest(Circuits::is_tripped) {
        return Ok(Start::LastResort(candidate));
    }
    Err(refusal(call, (plan, links), now))
}

fn refusal(call: &Call, (plan, links): (&Plan, &[usize]), now: Timestamp) -> Refusal {
    let model = &call.alias.code;
    let has = |reason| plan.skips(links).any(|(_, skip)| skip.reason == reason);
    if has(SkipReason::CostUnpriced) {
        let message = format!("The model `{model}` has no cost price. The operator must add one.");
        return Refusal::new(Failure::ModelUnpriced, message).param(Some("model"));
    }
    // A seat is soon free again; what else is in the way lasts.
    let usual_ms = if has(SkipReason::Full) { 1_000 } else { 5_000 };
    let wait_ms = plan.soonest_ms(links, now).unwrap_or(usual_ms);
    if has(SkipReason::CoolingDown) {
        let message = format!("Every provider of the model `{model}` asks to wait.");
        return Refusal::new(Failure::RateLimited, message).retry_after(wait_ms);
    }
    if has(SkipReason::AbovePriceLimit) {
        let message = "No channel is left below the limits of the x-anima-max-price header.";
        return Refusal::new(Failure::NoHealthyChannel, message).retry_after(wait_ms);
    }
    if has(SkipReason::Steered) {
        let message = "No channel is left that the x-anima-only and x-anima-ignore headers allow.";
        return Refusal::new(Failure::NoHealthyChannel, message).retry_after(wait_ms);
    }
    let message = format!("No channel can serve the model `{model}` at the moment.");
    Refusal::new(Failure::NoHealthyChannel, message).retry_after(wait_ms)
}

fn unusable(call: &Call, route: &RouteEntry) -> Option<SkipReason> {
    let Some(upstream) = upstream(call, route) else {
        return Some(SkipReason::EndpointUnserved);
    };
    let serves = upstream
        .adapter
        .is_some_and(|a| adapter::of_model(a, &route.model).serves(call.request.endpoint));
    let covered = route.cost.as_ref().is_some_and(|c| covers(c, call.request.endpoint));
    if !route.channel.enabled {
        Some(SkipReason::ChannelDisabled)
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

/// What an operator said about the circuit of a route.
pub fn forced(call: &Call, route: &RouteEntry) -> Option<Forced> {
    call.caller.pinned.forced(&route.channel.code, &route.model, call.arrival.at)
}

/// A route's callable channel.
pub fn upstream<'a>(call: &'a Call, route: &RouteEntry) -> Option<&'a Arc<Upstream>> {
    call.caller.pinned.upstream(route.channel.index)
}

/// Microseconds as a duration; nothing when negative.
pub(super) fn micros(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
