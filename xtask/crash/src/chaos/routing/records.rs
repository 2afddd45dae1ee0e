//! What circuits did, as decision records and metrics tell it.
//!
//! Invariant: every opening that any node showed is in the record of a call and in the metrics of
//! each node that showed it. Source: SPEC 10 and 11.

use anyhow::Result;
use serde_json::Value;

use super::stamp;
use super::watch::{Opening, Place};
use crate::books;
use crate::chaos::table::Line;
use crate::chaos::world::World;
use crate::operator::member;

/// Fewer openings prove nothing.
const LEAST: usize = 10;

/// A state of a circuit that a call's record tells of: it changed it, or passed it by.
#[derive(Debug)]
struct Told {
    channel: String,
    to: String,
    until_us: Option<i64>,
}

/// See the module.
///
/// # Errors
/// When records or metrics cannot be read.
pub(crate) async fn tell_all(world: &mut World) -> Result<Vec<Line>> {
    let told = told(&books::decisions(&world.stores.database).await?)?;
    let openings: Vec<(Place, Opening)> = std::mem::take(&mut world.day.openings)
        .into_iter()
        .flat_map(|(place, all)| all.into_iter().map(move |one| (place.clone(), one)))
        .collect();
    // By the call that opened it; where all nodes together did, by those that passed it by.
    let is_told = |(place, opening): &&(Place, Opening)| {
        let of = |one: &&Told| one.channel == place.0 && one.to == "open";
        // A provider's word may have moved the end since.
        told.iter().filter(of).any(|one| {
            one.until_us.is_some_and(|at| at > opening.since_us && at <= opening.until_us)
        })
    };
    let untold: Vec<_> = openings.iter().filter(|one| !is_told(one)).collect();
    for one in untold.iter().take(5) {
        eprintln!("anima-chaos: no record tells of {one:?}");
    }
    let closed = told.iter().filter(|one| one.to == "closed").count();
    let (missing, looked) = metrics(world, &openings).await?;
    let what = "openings that no decision record tells of";
    Ok(vec![
        Line::none_of(what, untold.len(), (openings.len(), LEAST)),
        Line::check(
            "circuits that probes closed, told by records",
            closed > 0,
            &closed.to_string(),
        ),
        Line::none_of(
            "openings that a node showed and its metrics did not",
            missing,
            (looked, LEAST),
        ),
    ])
}

fn told(records: &[Value]) -> Result<Vec<Told>> {
    let mut found = Vec::new();
    for record in records {
        for attempt in member(record, "attempts").as_array().into_iter().flatten() {
            let change = member(attempt, "circuit_change");
            let Some(to) = member(&change, "to").as_str().map(str::to_owned) else { continue };
            let until = member(&change, "until");
            let until_us = until.as_str().map(stamp::micros).transpose()?;
            let channel = member(attempt, "channel").as_str().unwrap_or_default().to_owned();
            found.push(Told { channel, to, until_us });
        }
        for skip in member(record, "skips").as_array().into_iter().flatten() {
            let until = member(skip, "until");
            if member(skip, "circuit") == "open" && until.is_string() {
                let until_us = until.as_str().map(stamp::micros).transpose()?;
                let channel = member(skip, "channel").as_str().unwrap_or_default().to_owned();
                found.push(Told { channel, to: "open".to_owned(), until_us });
            }
        }
    }
    Ok(found)
}

/// How many openings are missing in the metrics of a node that showed them, and how many were
/// looked for.
async fn metrics(world: &World, openings: &[(Place, Opening)]) -> Result<(usize, usize)> {
    let mut pages = Vec::new();
    for n in 0..world.plan.nodes {
        pages.push(world.page(n, "/actuator/prometheus").await?.1);
    }
    let (mut missing, mut looked) = (0, 0);
    for ((channel, model), opening) in openings {
        let model = model.as_deref().unwrap_or("*");
        let cause = &opening.cause;
        let labels = format!("cause=\"{cause}\",channel=\"{channel}\",model=\"{model}\"");
        let line = format!("anima_circuit_transitions_total{{{labels},to=\"open\"}}");
        for n in &opening.nodes {
            looked += 1;
            missing += usize::from(!pages.get(*n).is_some_and(|page| page.contains(&line)));
        }
    }
    Ok((missing, looked))
}
