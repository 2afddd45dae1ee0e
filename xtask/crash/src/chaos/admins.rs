//! Two administrators who save the same row at once, through two nodes.
//!
//! Invariant: exactly one succeeds; the other is told of the row that is. Source: SPEC 5,
//! `reliability` K3.

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use super::table::Line;
use super::world::{World, path_of};
use crate::operator::member;

/// How often.
const ROUNDS: usize = 20;

/// See the module.
///
/// # Errors
/// When the admin API does not answer.
pub(crate) async fn two_at_once(world: &mut World) -> Result<Vec<Line>> {
    let key = path_of(&world.key);
    let mut wrong = Vec::new();
    for turn in 0..ROUNDS {
        let places = [
            ("/aliases/chat", json!({"retry": {"max_attempts": 2 + turn % 3}})),
            ("/channels/main", json!({"max_concurrency": 10_000 + turn})),
            (key.as_str(), json!({"name": format!("chaos {turn}")})),
        ];
        let place = places.get(turn % places.len()).cloned().unwrap_or_default();
        wrong.extend(race(world, turn, place).await?);
    }
    for why in &wrong {
        eprintln!("anima-chaos: {why}");
    }
    let what = "two administrators save the same row: not one success and one 409 with that row";
    Ok(vec![Line::none_of(what, wrong.len(), (ROUNDS, ROUNDS))])
}

/// Why it did not go as it must, if so.
async fn race(world: &World, turn: usize, (path, change): (&str, Value)) -> Result<Option<String>> {
    let (ada, bob) = (world.admin(turn)?, world.admin(turn + 1)?);
    let row = ada.call(Method::GET, path, &Value::Null).await?;
    let mut body = change;
    if let Some(members) = body.as_object_mut() {
        members.insert("version_no".to_owned(), member(&row, "version_no"));
    }
    let (one, other) = tokio::join!(
        ada.attempt(Method::PATCH, path, &body),
        bob.attempt(Method::PATCH, path, &body)
    );
    let (one, other) = (one?, other?);
    let (saved, refused) = if one.status == 200 { (one, other) } else { (other, one) };
    let now = ada.call(Method::GET, path, &Value::Null).await?;
    let problem = refused.json();
    let told = member(&problem, "code") == "version_conflict" && member(&problem, "current") == now;
    let right = saved.status == 200 && refused.status == 409 && told;
    let why =
        || format!("{path}: {} and {}: {problem}, and now {now}", saved.status, refused.status);
    Ok((!right).then(why))
}
