//! The day's money: every call against the provider's truth log.
//!
//! Not a second judgement: that of the crash harness (`audit`), on all calls of the day. What a
//! broken wire swallowed is told to it as what it is: a report that nobody heard, a call that may
//! have arrived. Invariant: an amount that is not marked as an estimate is the provider's own
//! usage at its price, to the last unit.

use std::collections::BTreeSet;
use std::time::Duration;

use anima_simulator::{Call, Outcome, Usage};
use anyhow::Result;

use crate::audit::{self, Class};
use crate::books::{self, Books};
use crate::chaos::table::Line;
use crate::chaos::world::{APP, World};
use crate::money::dollars;

/// How long a call may run when nobody waits for it any more.
const TRUTH_WITHIN: Duration = Duration::from_secs(30);

/// Findings that are shown, per class.
const SHOWN: usize = 5;

/// See the module.
///
/// # Errors
/// When the books or the log cannot be read.
pub(crate) async fn against_the_truth(world: &mut World) -> Result<Vec<Line>> {
    let open = world.settled().await?;
    let mut truth = world.provider.truth(TRUTH_WITHIN).await?;
    swallowed(world, &mut truth).await?;
    let books = Books::read(&world.stores.database).await?;
    let audit = audit::audit_of(&[APP], &books, &truth, &world.day.seen)?;
    let mut lines = vec![Line::check("billing: no hold is open", open == 0, &open.to_string())];
    for class in Class::ALL {
        let of = audit.findings.iter().filter(|finding| finding.class == class);
        for finding in of.take(SHOWN) {
            eprintln!("anima-chaos: {}, {}: {}", class.word(), finding.request, finding.what);
        }
        let what = format!("billing against the truth log: {}", class.word());
        lines.push(Line::none_of(&what, audit.count(class), (audit.requests, 100)));
    }
    for wrong in &audit.bank {
        eprintln!("anima-chaos: bank: {wrong}");
    }
    lines.push(Line::check(
        "billing: the wallet is its top-up less its sales",
        audit.bank.is_empty(),
        "",
    ));
    let found = format!(
        "{} calls, {} answers; billed {} USD, booked {} as reported and {} by estimate",
        audit.upstream_calls,
        audit.answers,
        dollars(audit.billed),
        dollars(audit.booked),
        dollars(audit.estimated)
    );
    lines.push(Line::check("billing: what it came to", true, &found));
    Ok(lines)
}

/// Says of calls over a broken wire what their sender can know of them.
async fn swallowed(world: &World, truth: &mut Vec<Call>) -> Result<()> {
    for (channel, from_us, to_us) in &world.day.void {
        let within = |ms: u64| {
            i64::try_from(ms).is_ok_and(|ms| ms >= from_us / 1_000 && ms <= to_us / 1_000)
        };
        let model = format!("sim-{channel}");
        let of = |call: &Call| call.model.split('+').next() == Some(model.as_str());
        for call in truth.iter_mut().filter(|call| of(call) && within(call.received_ms)) {
            call.reported = None;
        }
        let arrived: BTreeSet<String> =
            truth.iter().filter_map(|call| call.attempt_id.clone()).collect();
        let Some(like) = truth.iter().find(|call| of(call)).cloned() else { continue };
        let made = books::attempts_at(&world.stores.database, channel, (*from_us, *to_us));
        let mut lost = Vec::new();
        for (request, n) in made.await? {
            let attempt_id = format!("{request}-{n}");
            if !arrived.contains(&attempt_id) {
                lost.push(Call {
                    attempt_id: Some(attempt_id),
                    request_id: Some(request),
                    status: None,
                    billed: Usage::default(),
                    reported: None,
                    outcome: Outcome::Silent,
                    ..like.clone()
                });
            }
        }
        // First: what served, if anything, is the last of a request.
        truth.splice(0..0, lost);
    }
    Ok(())
}
