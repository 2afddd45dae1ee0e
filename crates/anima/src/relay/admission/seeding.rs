//! Budgets of which nobody knows what was spent are told by the ledger, once it knows.
//!
//! A call has its ticket first and its hold in the ledger a moment later. What counters do not know
//! is read from the ledger only when all calls from before they were lost have their holds there;
//! one call of this node waits and reads for all that ask for the same budget. A call whose hold
//! took longer than that asks its budgets again ([`Asking`]). Invariant: of two calls that ask for
//! one budget, the ledger or the counter knows of the first when the second is let through.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::Instant;

use anima_core::clock::{Clock, Timestamp};
use anima_core::failure::Failure;
use anima_core::quota::book::{LATE_US, RIPENS_US};
use anima_core::quota::{Bound, Check, Counter};
use anima_store::quota::Unavailable;

use super::{Admission, unreachable_now};
use crate::http::reply::Refusal;

/// A budget in a span: its counter, and when the span began.
type Name = (Counter, Timestamp);

/// What came of seeding, once it has.
type Outcome = Option<Result<(), Refusal>>;

/// The budgets that are being seeded by this node.
#[derive(Debug, Default)]
pub(super) struct Seeding(Mutex<HashMap<Name, Arc<tokio::sync::Mutex<Outcome>>>>);

/// When a call asked for its ticket, or for more.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct Asking {
    since: Instant,
    /// A machine that was suspended has lost time on the other clock.
    at: Timestamp,
}

impl Asking {
    pub(in crate::relay) fn now(clock: &dyn Clock) -> Self {
        Self { since: Instant::now(), at: clock.now() }
    }

    /// Whether a hold that is in the ledger now may be missing in a seed that began after this.
    pub(in crate::relay) fn is_late(self, clock: &dyn Clock) -> bool {
        self.since.elapsed() >= micros(LATE_US) || clock.now().since(self.at) >= LATE_US
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// Tells budgets what the ledger says was spent, side by side: each has to wait for the same.
///
/// # Errors
/// When the ledger cannot be read, or the counters do not answer, or forget it again and again
/// `until` then.
pub(super) async fn seed_all<'p>(
    admission: &Admission,
    purses: impl Iterator<Item = &'p Bound>,
    until: Instant,
) -> Result<(), Refusal> {
    let all = try_join_all(purses.map(|purse| seed(admission, purse)));
    let forgotten = || Unavailable("a budget is lost whenever it is seeded".to_owned());
    let seeded = tokio::time::timeout_at(until, all).await;
    seeded.unwrap_or_else(|_late| Err(unreachable_now(&forgotten()))).map(|_all| ())
}

/// Tells a budget what the ledger says was spent.
///
/// # Errors
/// When the ledger cannot be read, or the counters do not answer.
async fn seed(admission: &Admission, purse: &Bound) -> Result<(), Refusal> {
    let Check::Purse { span, .. } = purse.check else { return Ok(()) };
    let name = (purse.counter.clone(), span.from);
    let turn = Arc::clone(admission.seeding.0.lock().entry(name.clone()).or_default());
    let mut outcome = turn.lock().await;
    if let Some(said) = &*outcome {
        return said.clone();
    }
    let said = told(admission, purse).await;
    *outcome = Some(said.clone());
    // Whoever comes later begins anew.
    admission.seeding.0.lock().remove(&name);
    said
}

/// Reads for as long as the caller waits: a counter may be lost or put off again and again, after a
/// fail-over by each node that comes back, each within seconds.
///
/// What nodes spend alone in an outage is counted anew with it, and each budget is born when its
/// first call asks. It would be ripe sooner if it were taken for as old as the outage. But one that
/// is set in an outage, on a key whose calls run, cannot be told from one that was there before,
/// and those calls would be in neither sum.
async fn told(admission: &Admission, purse: &Bound) -> Result<(), Refusal> {
    let Check::Purse { span, .. } = purse.check else { return Ok(()) };
    let (store, ledger) = (&admission.store, &admission.spend);
    loop {
        let birth = store.birth(purse, admission.clock.now()).await;
        let Some(birth) = birth.map_err(|error| unreachable_now(&error))? else { return Ok(()) };
        tokio::time::sleep(micros(birth.wait_us.min(RIPENS_US))).await;
        let spent = ledger.spent(&purse.counter, &purse.tag, span).await;
        let spent = spent.map_err(|error| unread(&error))?;
        // Among so many what is left may have to be divided.
        store.shared_by(ledger.nodes().await.map_err(|error| unread(&error))?);
        admission.metrics.quotas.seeds.inc();
        let seeded = store.seed(purse, (birth.name, spent)).await;
        if seeded.map_err(|error| unreachable_now(&error))? {
            return Ok(());
        }
    }
}

fn unread(error: &anima_store::config::Error) -> Refusal {
    tracing::error!(%error, "failed to read what was spent");
    let message = "Budgets cannot be checked at the moment. Try again shortly.";
    Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000)
}
