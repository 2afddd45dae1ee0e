//! What the budgets of a call hold for it after it was admitted: more, where a stream grows, and
//! the same once more, where its hold was late.
//!
//! Not here: the wallet's hold, which its ledger extends. Invariant: all budgets hold what is asked
//! for, or all of them what they held.

use std::sync::Arc;

use anima_core::quota::{Ask, Bound, Pass, Standing, Verdict};
use anima_store::quota::Unavailable;

use super::{Admission, LEASE, SEEDS, Ticket, refuse, seeding, unreachable_now};
use crate::http::reply::Refusal;
use crate::relay::call::Call;

/// What came of asking the budgets of a running call for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Held {
    /// They hold what was asked for.
    All,
    /// They hold what they held, and have so much more, in units.
    Left(i64),
    /// They cannot be asked.
    Unknown,
}

/// What the purses that refused have left.
fn left(purses: &[Bound], standings: &[Standing]) -> i64 {
    let refused = purses
        .iter()
        .zip(standings)
        .filter(|(bound, standing)| standing.pass != Pass::Yes && !bound.counter.rule.shadow);
    refused.map(|(_, standing)| standing.remaining).min().unwrap_or(0)
}

#[expect(clippy::multiple_inherent_impl, reason = "a call's admission and its life are two files")]
impl Admission {
    /// Has the budgets of a running call hold `amount` for it: all of them, or none.
    pub(in crate::relay) async fn hold(&self, call: &Call, amount: i64) -> Held {
        let Some(ticket) = &call.ticket else { return Held::All };
        let purses = ticket.purses(amount);
        match self.extend(call, &purses).await {
            Some(Verdict::Admitted(standings)) => {
                self.warn(call, &purses, &standings);
                ticket.still_open().await;
                Held::All
            }
            Some(Verdict::Refused(_, standings)) => Held::Left(left(&purses, &standings)),
            Some(Verdict::Unseeded(_)) | None => Held::Unknown,
        }
    }

    /// Asks the budgets of a call again whose hold was in the ledger so late that they may have
    /// been seeded without it.
    ///
    /// # Errors
    /// When they have no room for it any more, or cannot be asked. It must not be sent then.
    pub(in crate::relay) async fn confirm(&self, call: &Call, amount: i64) -> Result<(), Refusal> {
        let late = |ticket: &&Arc<Ticket>| ticket.asked().is_late(&*self.clock);
        let Some(ticket) = call.ticket.as_ref().filter(late) else { return Ok(()) };
        let purses = ticket.purses(amount);
        match self.extend(call, &purses).await {
            Some(Verdict::Admitted(_)) => Ok(()),
            Some(Verdict::Refused(n, standings)) => {
                Err(refuse(self, call, purses.get(n).zip(standings.get(n))))
            }
            Some(Verdict::Unseeded(_)) | None => {
                Err(unreachable_now(&Unavailable("a late hold is not confirmed".to_owned())))
            }
        }
    }

    /// Has purses hold other amounts for a call. `None` when that is not known.
    async fn extend(&self, call: &Call, purses: &[Bound]) -> Option<Verdict> {
        if purses.is_empty() {
            return Some(Verdict::Admitted(vec![]));
        }
        let lease_us = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
        for _ in 0..SEEDS {
            let ask = Ask { id: call.arrival.id, bounds: purses, now: self.clock.now(), lease_us };
            let which = match self.store.extend(ask).await {
                Ok(Verdict::Unseeded(which)) => which,
                Ok(verdict) => return Some(verdict),
                Err(error) => {
                    tracing::warn!(%error, "failed to ask budgets for more");
                    return None;
                }
            };
            let unseeded = which.iter().filter_map(|n| purses.get(*n));
            seeding::seed_all(self, unseeded).await.ok()?;
        }
        None
    }
}
