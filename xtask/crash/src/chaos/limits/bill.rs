//! The money of every call under limits, against the provider's truth log.
//!
//! Not a second judgement: that of the crash harness (`audit`). Calls that are charged by a list of
//! their own, and tasks whose workers were killed, are judged by their scenarios and left out here.
//! Invariant: what is left out is left out of books and truth alike.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use crate::audit::{self, Class};
use crate::books::Books;
use crate::chaos::table::Line;
use crate::chaos::world::{APP, World};
use crate::money::dollars;

use super::line;

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
    let mut books = Books::read(&world.stores.database).await?;
    let apart: BTreeSet<String> = books
        .holds
        .iter()
        .filter(|(_, hold)| world.kept.apart.contains(&hold.kid))
        .map(|(id, _)| id.clone())
        .collect();
    books.holds.retain(|id, _| !apart.contains(id));
    books.attempts.retain(|id, _| !apart.contains(id));
    books.legs.retain(|id, _| !apart.contains(id));
    truth.retain(|call| call.request_id.as_ref().is_none_or(|id| !apart.contains(id)));
    let mut apps = vec![APP];
    apps.extend(books.wallets.contains_key(&format!("wallet:{}", line::APP)).then_some(line::APP));
    let audit = audit::audit_of(&apps, &books, &truth, &world.kept.seen)?;
    let mut lines = vec![Line::check("billing: no hold is open", open == 0, &open.to_string())];
    for class in Class::ALL {
        let of = audit.findings.iter().filter(|finding| finding.class == class);
        for finding in of.take(SHOWN) {
            eprintln!("anima-chaos: {}, {}: {}", class.word(), finding.request, finding.what);
        }
        let what = format!("billing against the truth log: {}", class.word());
        lines.push(Line::none_of(&what, audit.count(class), (audit.requests, 10)));
    }
    for wrong in &audit.bank {
        eprintln!("anima-chaos: bank: {wrong}");
    }
    lines.push(Line::check(
        "billing: wallets are their top-ups less their sales",
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
