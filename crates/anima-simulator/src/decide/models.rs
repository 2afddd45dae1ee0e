//! The list of models and their cards.
//!
//! With a script that names its models, the list holds the names without wildcards; otherwise two
//! examples, since every name is known. The answers cost nothing and have no usage.

use super::{Draft, Scene};
use crate::usage::Usage;

/// 1 January 2025: the cards of real models are old, too, and do not change.
const CREATED_S: u64 = 1_735_689_600;
/// What the list shows when every model is known.
const EXAMPLES: [&str; 2] = ["sim-chat", "sim-embedding"];

/// The plan of the list.
pub(super) fn list(scene: &Scene<'_>) -> Draft {
    let exact: Vec<&str> = scene.script.models.iter().filter_map(|glob| glob.name()).collect();
    let names = if scene.script.models.is_empty() { EXAMPLES.as_slice() } else { &exact };
    let cards: Vec<String> = names.iter().map(|name| card(name)).collect();
    let body = format!("{{\"object\":\"list\",\"data\":[{}]}}", cards.join(","));
    scene.json(body.into_bytes(), Usage::default(), None)
}

/// The plan of one card.
pub(super) fn one(scene: &Scene<'_>, name: &str) -> Draft {
    scene.json(card(name).into_bytes(), Usage::default(), None)
}

fn card(name: &str) -> String {
    let id = serde_json::Value::from(name);
    format!(
        "{{\"id\":{id},\"object\":\"model\",\"created\":{CREATED_S},\"owned_by\":\"simulator\"}}"
    )
}
