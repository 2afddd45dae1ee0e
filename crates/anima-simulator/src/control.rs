//! The endpoints that steer the simulator itself, under `/_simulator/`.
//!
//! They need no key, are not logged and never fail on purpose. They cannot choose files: where the
//! log goes is decided when the simulator is made. Formats are in `docs/simulator.md`.

use http::{Method, Uri};
use serde::Serialize;

use crate::refusal::{ErrorBody, Face};
use crate::script::Script;
use crate::simulator::Simulator;

const PREFIX: &str = "/_simulator/";

/// Calls per page of the log when the caller does not say.
const LIMIT_DEFAULT: usize = 10_000;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    /// Calls received, also those that are no longer in the log.
    calls: u64,
    /// Entries that could not be written to the log file.
    lost_entries: u64,
}

/// Whether a path is one of these.
pub(crate) fn owns(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Answers with a status and a JSON body, which is empty for 204.
pub(crate) fn answer(
    simulator: &Simulator,
    method: &Method,
    uri: &Uri,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let name = uri.path().strip_prefix(PREFIX).unwrap_or_default();
    match (name, method.as_str()) {
        ("calls", "GET") => calls(simulator, uri.query().unwrap_or_default()),
        ("calls", "DELETE") => {
            simulator.clear_calls();
            (204, Vec::new())
        }
        ("script", "GET") => (200, json(&simulator.script())),
        ("script", "PUT") => match Script::from_json(body) {
            Ok(script) => {
                let shown = json(&script);
                simulator.set_script(script);
                (200, shown)
            }
            Err(error) => refused(&ErrorBody::invalid(error.to_string())),
        },
        ("gate", "POST") => {
            simulator.open_gate();
            (204, Vec::new())
        }
        ("health", "GET") => {
            let log = simulator.log();
            let health = Health { status: "ok", calls: log.arrived(), lost_entries: log.lost() };
            (200, json(&health))
        }
        ("calls" | "script" | "health" | "gate", _) => {
            refused(&ErrorBody::no_path(405, format!("Not allowed to {method} on {name}.")))
        }
        _ => refused(&ErrorBody::no_path(404, format!("The simulator has no {name}."))),
    }
}

fn calls(simulator: &Simulator, query: &str) -> (u16, Vec<u8>) {
    let (mut after, mut limit) = (0, LIMIT_DEFAULT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let read = match pair.split_once('=') {
            Some(("after", number)) => number.parse().map(|number| after = number).is_ok(),
            Some(("limit", number)) => number.parse().map(|number| limit = number).is_ok(),
            _ => false,
        };
        if !read {
            let message = format!("Only after=N and limit=N are known here, not {pair:?}.");
            return refused(&ErrorBody::invalid(message));
        }
    }
    let mut calls = simulator.calls_after(after);
    calls.truncate(limit);
    (200, json(&calls))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Plain structs with text keys always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

fn refused(error: &ErrorBody) -> (u16, Vec<u8>) {
    (error.status, error.json(Face::Openai))
}
