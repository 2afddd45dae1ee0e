//! Slots held on purpose: calls that do not end before a gate is opened.
//!
//! Not what took them before. Invariant: when all calls have begun and no more end, those that have
//! not ended are those that hold a slot.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::Method;
use tokio::time::{Instant, sleep};

use super::clients::{Rush, Told};
use super::rows;
use crate::chaos::load::Lane;
use crate::chaos::world::World;
use crate::http_client::{Ask, whole};

/// The alias whose calls wait at the gate.
pub(super) const GATED: &str = "gated";

/// Nothing has ended for so long: all that hold a slot do.
const STILL: Duration = Duration::from_secs(4);

/// How long the answers may take when the gate stands open.
const OPEN_WITHIN: Duration = Duration::from_mins(2);

/// Makes the alias, once.
///
/// # Errors
/// When the admin API refuses it.
pub(super) async fn make(world: &World) -> Result<()> {
    let there = world.admin(0)?;
    let path = format!("/aliases/{GATED}");
    if there.attempt(Method::GET, &path, &serde_json::Value::Null).await?.status == 404 {
        rows::alias(world, GATED, ("+gate", rows::Charged::Tokens)).await?;
    }
    Ok(())
}

/// Sends so many calls at once, lets those that pass hold their slots until all others are
/// refused, and then lets them end. `expected` pass if all is well, which only saves time.
///
/// # Errors
/// When the calls do not end although the gate is open.
pub(super) async fn fill(
    world: &World,
    what: &Lane,
    (calls, at_once, expected): (usize, usize, usize),
) -> Result<Vec<Told>> {
    let rush = Rush::start(&world.nodes(), what, (calls, at_once));
    let (mut last, mut since) = (0, Instant::now());
    loop {
        sleep(Duration::from_millis(50)).await;
        let ended = rush.ended();
        if ended != last {
            (last, since) = (ended, Instant::now());
        }
        let enough = ended + expected >= calls && since.elapsed() > Duration::from_millis(400);
        if enough || since.elapsed() > STILL {
            break;
        }
    }
    // One that was let pass a moment ago may come to the gate after it was opened.
    let began = Instant::now();
    while rush.ended() < calls {
        ensure!(began.elapsed() < OPEN_WITHIN, "calls do not end: {} of {calls}", rush.ended());
        open(world).await?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(rush.over().await)
}

/// Lets all end that wait at the gate.
///
/// # Errors
/// When the provider does not answer.
pub(super) async fn open(world: &World) -> Result<()> {
    let ask = Ask {
        address: world.provider.address,
        method: Method::POST,
        path: "/_simulator/gate".to_owned(),
        token: String::new(),
        body: String::new(),
        idempotency_key: None,
    };
    whole(&ask).await.map(drop)
}
