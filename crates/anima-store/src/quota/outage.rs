//! What a node does while the shared counters are away: it enforces its share alone.
//!
//! The counters of this process stand in, each limit divided by the nodes that were alive, or as
//! its `on_outage` says. They begin anew with each outage. Invariant: while Redis answers only
//! Redis decides; a budget is divided as the ledger knows it, so that all nodes together never
//! overspend it. Source: SPEC 6 and 12, `reliability` 2.3.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use anima_core::clock::Timestamp;
use anima_core::quota::book::Level;
use anima_core::quota::share::{alone, spent_alone};
use anima_core::quota::{Ask, Bound, Check, Pass, Standing, Verdict, verdict};

use super::memory::MemoryQuotas;
use super::{QuotaStore, Ticket, Unavailable};

/// Shared counters, and what stands in for them. See the module.
#[derive(Debug)]
pub struct SharedQuotas {
    shared: Arc<dyn QuotaStore>,
    own: ArcSwap<MemoryQuotas>,
    away: AtomicBool,
    /// Live nodes, as they were last known.
    nodes: Arc<AtomicI64>,
}

impl SharedQuotas {
    /// Counters of which this is one of `nodes` users.
    pub fn new(shared: Arc<dyn QuotaStore>, nodes: Arc<AtomicI64>) -> Self {
        let own = ArcSwap::from_pointee(MemoryQuotas::default());
        Self { shared, own, away: AtomicBool::new(false), nodes }
    }

    fn nodes(&self) -> i64 {
        self.nodes.load(Ordering::Relaxed).max(1)
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Notes that the shared counters answer, or do not.
    fn note(&self, away: bool) {
        if self.away.swap(away, Ordering::AcqRel) == away {
            return;
        }
        if away {
            tracing::warn!("the shared counters are away: limits are enforced by node share");
        } else {
            tracing::info!("the shared counters are back");
            self.own.store(Arc::default());
        }
    }

    async fn admit_alone(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        let shares: Vec<Option<Bound>> =
            ask.bounds.iter().map(|bound| alone(bound, self.nodes())).collect();
        let bounds: Vec<Bound> = shares.iter().flatten().cloned().collect();
        let own = self.own.load_full();
        let decided = own.admit(Ask { bounds: &bounds, ..ask }).await?;
        let place = |n: usize| {
            // From a place among the shares to the place among all bounds.
            let places = shares.iter().enumerate().filter(|(_, share)| share.is_some());
            places.map(|(at, _)| at).nth(n).unwrap_or(n)
        };
        let standings = match decided {
            Verdict::Unseeded(which) => {
                return Ok(Verdict::Unseeded(which.into_iter().map(place).collect()));
            }
            Verdict::Admitted(standings) | Verdict::Refused(_, standings) => standings,
        };
        let mut judged = standings.into_iter();
        let all = shares.iter().zip(ask.bounds).map(|(share, bound)| match share {
            Some(_) => judged.next().unwrap_or_else(|| open(bound)),
            None => open(bound),
        });
        Ok(verdict(ask.bounds, all.collect()))
    }
}

/// Where a bound stands that lets everything pass.
fn open(bound: &Bound) -> Standing {
    let limit = match bound.check {
        Check::Slots { limit } | Check::Purse { limit, .. } => limit,
        Check::Rate(rate) => rate.burst,
    };
    Standing { pass: Pass::Yes, limit, remaining: limit, reset_us: 0, warn: false }
}

#[async_trait]
impl QuotaStore for SharedQuotas {
    async fn admit(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        match self.shared.admit(ask).await {
            Ok(verdict) => {
                self.note(false);
                Ok(verdict)
            }
            Err(_logged) => {
                self.note(true);
                self.admit_alone(ask).await
            }
        }
    }

    async fn close(&self, ticket: &Ticket, now: Timestamp) -> Result<bool, Unavailable> {
        let here = self.own.load_full().close(ticket, now).await?;
        // Also when it was taken here: an answer that was lost may have been a yes.
        match self.shared.close(ticket, now).await {
            Ok(there) => Ok(here || there),
            Err(_) if here => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn renew(
        &self,
        tickets: &[Ticket],
        now: Timestamp,
        lease_us: i64,
    ) -> Result<(), Unavailable> {
        self.own.load_full().renew(tickets, now, lease_us).await?;
        self.shared.renew(tickets, now, lease_us).await
    }

    async fn seed(&self, purse: &Bound, spent: i64) -> Result<(), Unavailable> {
        if !self.is_away() {
            match self.shared.seed(purse, spent).await {
                Ok(()) => return Ok(()),
                Err(_logged) => self.note(true),
            }
        }
        let spent = match purse.check {
            Check::Purse { limit, .. } => spent_alone(limit, spent, self.nodes()),
            Check::Slots { .. } | Check::Rate(_) => spent,
        };
        self.own.load_full().seed(purse, spent).await
    }

    async fn repair(&self, purse: &Bound, amounts: (i64, i64)) -> Result<bool, Unavailable> {
        self.shared.repair(purse, amounts).await
    }

    async fn levels(
        &self,
        bounds: &[Bound],
        now: Timestamp,
    ) -> Result<Vec<Option<Level>>, Unavailable> {
        match self.shared.levels(bounds, now).await {
            Ok(levels) => Ok(levels),
            Err(_logged) => self.own.load_full().levels(bounds, now).await,
        }
    }

    async fn sweep(&self, now: Timestamp) {
        self.own.load_full().sweep(now).await;
    }
}
