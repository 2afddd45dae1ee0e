//! A price that changes at an instant: right for each request, on each node.
//!
//! What was charged is read from the books, by the version of the price that the sale names. All
//! processes have one clock here. Invariant: a call that was under way at the instant may have
//! pinned either version; it is counted apart and judged by nobody. Source: SPEC 5, `reliability`
//! T2.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::load::Reply;
use super::table::Line;
use super::world::{World, chat};
use crate::books;
use crate::money::Rates;
use crate::operator::{member, price};
use crate::process::now_us;

const OTHER: Rates = Rates { input: "3.3", cached: "3.3", output: "3.3" };

/// How much longer than planned the calls may take, microseconds.
const TOO_LONG_US: i64 = 60_000_000;

/// See the module.
///
/// # Errors
/// When the change is refused, or the books cannot be read.
pub(crate) async fn at_an_instant(world: &mut World) -> Result<Vec<Line>> {
    let admin = world.admin(1)?;
    let half = Duration::from_millis(world.plan.price_calls * 600 / world.plan.calls_per_second);
    let start_us = now_us() + i64::try_from(half.as_micros())? + 2_000_000;
    let row = admin.call(Method::GET, "/prices/sale-chat", &Value::Null).await?;
    let meters = price(&OTHER, json!({})).get("meters").cloned().context("no meters")?;
    let body = json!({
        "version_no": member(&row, "version_no"), "meters": meters,
        "effective_from": rfc3339(start_us),
    });
    let changed = admin.call(Method::PATCH, "/prices/sale-chat", &body).await?;
    let before = member(&row, "version_no").as_i64().context("no version")?;
    let after = member(&changed, "version_no").as_i64().context("no version")?;
    let load = world.load(vec![chat("chat", &world.key)]);
    let until_us = start_us + i64::try_from(half.as_micros())?;
    let least = usize::try_from(world.plan.price_calls)?;
    // A machine that cannot keep the rate takes longer for as many calls.
    let enough = |at_us: i64| load.count() > least || at_us > until_us + TOO_LONG_US;
    while now_us() < until_us || !enough(now_us()) {
        sleep(Duration::from_millis(20)).await;
    }
    let (replies, _) = load.stop().await?;
    world.settled().await?;
    let sold = books::sold_at(&world.stores.database).await?;
    let (mut wrong, mut judged, mut under_way) = (0, vec![0; world.plan.nodes], 0);
    for reply in &replies {
        let Some(expected) = expected(reply, start_us, (before, after)) else {
            under_way += 1;
            continue;
        };
        let right = reply.is_served() && sold.get(&reply.request_id) == Some(&expected);
        wrong += usize::from(!right);
        if let Some(count) = judged.get_mut(reply.node) {
            *count += 1;
        }
    }
    let all: usize = judged.iter().sum();
    let nodes = Line::check(
        "calls of that which each node had",
        judged.iter().all(|count| *count > 0),
        &format!("{judged:?}, and {under_way} under way at the instant"),
    );
    Ok(vec![
        Line::none_of(
            "a price changes at an instant: calls at the wrong price",
            wrong,
            (all, least),
        ),
        nodes,
    ])
}

/// The version that a call must have been sold at; `None` when it was under way at the instant.
fn expected(reply: &Reply, start_us: i64, (before, after): (i64, i64)) -> Option<i64> {
    if reply.ended_us() < start_us {
        Some(before)
    } else if reply.sent_us >= start_us {
        Some(after)
    } else {
        None
    }
}

/// Microseconds since 1970 as the admin API takes them (civil from days, Hinnant 2013).
fn rfc3339(at_us: i64) -> String {
    let (secs, micros) = (at_us.div_euclid(1_000_000), at_us.rem_euclid(1_000_000));
    let (days, of_day) = (secs.div_euclid(86_400) + 719_468, secs.rem_euclid(86_400));
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_people_write_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(rfc3339(1_795_406_388_250_000), "2026-11-23T03:59:48.250000Z");
    }
}
