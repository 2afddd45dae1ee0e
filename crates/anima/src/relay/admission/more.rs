//! What the budgets of a call hold for it after it was admitted: more, where a stream grows, and
//! the same once more, where its hold was late.
//!
//! Not here: the wallet's hold, which its ledger extends. Invariant: all budgets hold what is asked
//! for, or all of them what they held.

use std::sync::Arc;

use anima_core::quota::{Ask, Bound, Check, Pass, Standing, Verdict};
use anima_store::quota::Unavailable;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Admission, LEASE, SEEDS_FOR, Ticket, refuse, seeding, unreachable_now};
use crate::http::reply::Refusal;
use crate::relay::call::Call;

/// How often a budget is looked at that others correct meanwhile.
const LOOKS: usize = 3;

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
        let mut said = self.extend(call, &purses).await;
        // Those of one tag say nothing of another, which is not asked after a refusal.
        for _ in 0..purses.len() {
            let Some(Verdict::Refused(_, standings)) = &said else { break };
            if !self.take_seeds_out(call.arrival.id, (&purses, standings)).await {
                break;
            }
            said = self.extend(call, &purses).await;
        }
        match said {
            Some(Verdict::Admitted(_)) => Ok(()),
            Some(Verdict::Refused(n, standings)) => {
                Err(refuse(self, call, purses.get(n).zip(standings.get(n))))
            }
            Some(Verdict::Unseeded(_)) | None => {
                Err(unreachable_now(&Unavailable("a late hold is not confirmed".to_owned())))
            }
        }
    }

    /// Takes what a call holds in the ledger out of the purses that refused it. Whether it was in
    /// one of them.
    async fn take_seeds_out(&self, id: Uuid, (purses, said): (&[Bound], &[Standing])) -> bool {
        let mut taken = false;
        for (purse, standing) in purses.iter().zip(said) {
            if standing.pass != Pass::Yes && !purse.counter.rule.shadow {
                taken |= self.take_seed_out(id, purse).await;
            }
        }
        taken
    }

    /// The same of one: it was lost with the call's ticket, and seeded from the ledger when that
    /// knew of the call's hold. What it says was spent is never less afterwards than what the
    /// ledger says of all calls that neither it holds for nor this one is: were the hold not in
    /// its seed, there would have to be as much too much of others. Whoever corrects it meanwhile
    /// makes this look again. A crash before the call is counted anew leaves a hold of a call that
    /// was not sent.
    async fn take_seed_out(&self, id: Uuid, purse: &Bound) -> bool {
        let Check::Purse { span, .. } = purse.check else { return false };
        for _ in 0..LOOKS {
            let seen = self.store.look(purse, self.clock.now()).await;
            let Ok(Some(seen)) = seen else { return false };
            if seen.holds.contains(&id) {
                return false;
            }
            // Looked at first: what comes into the ledger in between is only more.
            let besides: Vec<Uuid> = seen.holds.iter().copied().chain([id]).collect();
            let place = (&purse.counter, &purse.tag, span);
            let Ok(others) = self.spend.spent_besides(place, &besides).await else { return false };
            if seen.spent.saturating_sub(others) < purse.units {
                return false;
            }
            match self.store.repair(purse, (seen.mended, purse.units.saturating_neg())).await {
                Ok(true) => {
                    self.metrics.quotas.repaired(false);
                    return true;
                }
                Ok(false) => {}
                Err(_unknown) => return false,
            }
        }
        false
    }

    /// Has purses hold other amounts for a call. `None` when that is not known.
    async fn extend(&self, call: &Call, purses: &[Bound]) -> Option<Verdict> {
        if purses.is_empty() {
            return Some(Verdict::Admitted(vec![]));
        }
        let lease_us = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
        // Whatever deadline the call had: it may run, and be cut where this fails.
        let until = Instant::now() + SEEDS_FOR;
        loop {
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
            seeding::seed_all(self, unseeded, until).await.ok()?;
        }
    }
}
