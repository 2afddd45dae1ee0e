//! What a node does while the shared counters are away: it enforces its share alone.
//!
//! The counters of this process stand in, each limit divided by the nodes that were alive, or as
//! its `on_outage` says. They begin anew with each outage. When the shared counters answer again
//! they are told first what was spent and is held without them, by every node, and only then asked.
//! Invariant: a budget is divided as the ledger knows it and charged with what was spent of it, so
//! that all nodes together never overspend it. Source: SPEC 6 and 12, `reliability` 2.3.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::quota::book::{Birth, Level, Seen};
use anima_core::quota::share::{alone, spent_alone};
use anima_core::quota::{Ask, Bound, Check, Pass, Standing, Verdict, verdict};

use self::debts::Debts;
use super::memory::MemoryQuotas;
use super::{PurseStore, QuotaStore, SeedStore, Ticket, Unavailable, UndoStore};

mod births; // when the shared counters may be told by the ledger
mod debts; // what the shared counters do not know yet
mod line; // who waits
mod undo; // what they may know too much

/// How long a node goes on alone after the shared counters are back, so that all nodes have told
/// them what they spent before any of them asks: a node notices within a second and tells at once.
const GRACE: Duration = Duration::from_secs(3);

/// Shared counters, and what stands in for them. See the module.
#[derive(Debug)]
pub struct SharedQuotas {
    shared: Arc<dyn QuotaStore>,
    own: ArcSwap<MemoryQuotas>,
    /// Changed with the debts locked.
    away: AtomicBool,
    debts: Mutex<Debts>,
    gone: line::Gone,
    undos: undo::Undos,
    /// One pays at a time: since when the shared counters have been answering again.
    payer: tokio::sync::Mutex<Option<Instant>>,
    /// Live nodes, as the shared counters last knew them.
    nodes: Arc<AtomicI64>,
    /// The same, as the database did: shared counters that were lost know of fewer than there are.
    in_database: AtomicI64,
}

impl SharedQuotas {
    /// Counters of which this node is one of so many users.
    pub fn new(shared: Arc<dyn QuotaStore>, node: Uuid, nodes: Arc<AtomicI64>) -> Self {
        Self {
            shared,
            own: ArcSwap::from_pointee(MemoryQuotas::default()),
            away: AtomicBool::new(false),
            debts: Mutex::new(Debts::of(node)),
            gone: line::Gone::default(),
            undos: undo::Undos::default(),
            payer: tokio::sync::Mutex::default(),
            nodes,
            in_database: AtomicI64::new(1),
        }
    }

    fn nodes(&self) -> i64 {
        self.nodes.load(Ordering::Relaxed).max(self.in_database.load(Ordering::Relaxed)).max(1)
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// The shared counters do not answer.
    fn leave_shared(&self) {
        let _debts = self.debts.lock();
        if !self.away.swap(true, Ordering::AcqRel) {
            tracing::warn!("the shared counters are away: limits are enforced by node share");
        }
    }

    /// Goes back to the shared counters if they answer, know everything, and the other nodes have
    /// had the time to tell them too. While they are given that time, only who `looks` asks the
    /// counters, and begins to count anew when they are away again.
    async fn comes_back(&self, looks: bool, (now, lease_us): (Timestamp, i64)) -> bool {
        let Ok(mut since) = self.payer.try_lock() else { return false };
        if !self.is_away() {
            return true;
        }
        let waits = |since: Instant| self.nodes() > 1 && since.elapsed() < GRACE;
        if !looks && since.is_some_and(waits) {
            return false;
        }
        if self.pay(now, lease_us).await.is_err() {
            *since = None;
            return false;
        }
        if waits(*since.get_or_insert_with(Instant::now)) {
            return false;
        }
        let debts = self.debts.lock();
        if !debts.are_told() || !self.undos.is_empty() {
            return false;
        }
        self.own.store(Arc::default());
        self.away.store(false, Ordering::Release);
        drop(debts);
        *since = None;
        tracing::info!("the shared counters are back");
        true
    }

    /// Waits for what the shared counters say to an ask. When they say nothing, what they may have
    /// taken is to be taken back.
    async fn heard<T>(
        &self,
        ask: Ask<'_>,
        judged: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        self.undo_before(ask.id, ask.now).await?;
        let judged = judged.await;
        if judged.is_err() {
            self.undos.note(ask);
        }
        judged
    }

    /// Takes back what an earlier ask of a call may have taken, so that it is not taken back from a
    /// later one.
    async fn undo_before(&self, id: Uuid, now: Timestamp) -> Result<(), Unavailable> {
        if !self.undos.has(id) {
            return Ok(());
        }
        let _turn = self.payer.lock().await;
        self.undos.take_back(id, (&*self.shared, now)).await
    }

    /// Tells the shared counters what they do not know.
    async fn pay(&self, now: Timestamp, lease_us: i64) -> Result<(), Unavailable> {
        // Before a call of them is told of that was admitted since.
        self.undos.clear(&*self.shared, now).await?;
        let untold = self.debts.lock().untold();
        self.shared.renew(&untold, now, lease_us).await?;
        self.gone.clear(&*self.shared, now).await?;
        let charges = self.debts.lock().charges();
        for (charge, purse) in charges {
            self.shared.charge(&purse, charge).await?;
            self.debts.lock().paid(charge);
        }
        let mut put_off = births::PutOff::default();
        for ticket in untold {
            self.tell(&ticket, (now, lease_us), &mut put_off).await?;
        }
        Ok(())
    }

    /// Has the shared counters hold what a call holds that was admitted without them, whatever
    /// their limits: it runs.
    async fn tell(
        &self,
        ticket: &Ticket,
        (now, lease_us): (Timestamp, i64),
        put_off: &mut births::PutOff,
    ) -> Result<(), Unavailable> {
        let mut purses = debts::unlimited(&ticket.bounds);
        while !purses.is_empty() {
            let ask = Ask { id: ticket.id, bounds: &purses, now, lease_us };
            let Verdict::Unseeded(which) = self.shared.extend(ask).await? else { break };
            let mut known = Vec::with_capacity(purses.len());
            for (n, purse) in purses.into_iter().enumerate() {
                if !which.contains(&n) || put_off.is_seeded(&*self.shared, &purse).await? {
                    known.push(purse);
                }
            }
            purses = known;
        }
        if !self.debts.lock().told(ticket) {
            // The call ended meanwhile, and what it spent is among the charges.
            let none = debts::nothing_of(ticket);
            self.shared.close(&none, now).await?;
        }
        Ok(())
    }

    /// Admits by this node's share. `None` when the shared counters came back meanwhile: nobody
    /// would tell them of the call.
    async fn admit_alone(&self, ask: Ask<'_>) -> Result<Option<Verdict>, Unavailable> {
        let own = self.own.load_full();
        let verdict = by_share(ask, self.nodes(), async |ask| own.admit(ask).await).await?;
        let taken = matches!(verdict, Verdict::Admitted(_));
        Ok((!taken || self.remember(ask)).then_some(verdict))
    }

    async fn extend_alone(&self, ask: Ask<'_>) -> Result<Option<Verdict>, Unavailable> {
        let own = self.own.load_full();
        let verdict = by_share(ask, self.nodes(), async |ask| own.extend(ask).await).await?;
        let taken = matches!(verdict, Verdict::Admitted(_));
        Ok((!taken || self.remember(ask)).then_some(verdict))
    }

    fn remember(&self, ask: Ask<'_>) -> bool {
        let mut debts = self.debts.lock();
        let away = self.is_away();
        if away {
            debts.took(ask);
            self.undos.forget(ask.id);
        }
        away
    }
}

/// Asks for this node's share of each bound, and says of all what came of it.
async fn by_share(
    ask: Ask<'_>,
    nodes: i64,
    judge: impl AsyncFnOnce(Ask<'_>) -> Result<Verdict, Unavailable>,
) -> Result<Verdict, Unavailable> {
    let shares: Vec<Option<Bound>> = ask.bounds.iter().map(|bound| alone(bound, nodes)).collect();
    let bounds: Vec<Bound> = shares.iter().flatten().cloned().collect();
    let decided = judge(Ask { bounds: &bounds, ..ask }).await?;
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

/// Where a bound stands that lets everything pass.
fn open(bound: &Bound) -> Standing {
    let limit = match bound.check {
        Check::Slots { limit } | Check::Purse { limit, .. } => limit,
        Check::Rate(rate) => rate.burst,
    };
    Standing { pass: Pass::Yes, limit, remaining: limit, reset_us: 0, warn: false }
}

#[async_trait]
impl SeedStore for SharedQuotas {
    async fn birth(&self, purse: &Bound, now: Timestamp) -> Result<Option<Birth>, Unavailable> {
        if !self.is_away() {
            match self.shared.birth(purse, now).await {
                Ok(birth) => return Ok(birth),
                Err(_logged) => self.leave_shared(),
            }
        }
        self.own.load_full().birth(purse, now).await
    }

    async fn put_off(&self, purse: &Bound) -> Result<bool, Unavailable> {
        self.shared.put_off(purse).await
    }

    async fn seed(&self, purse: &Bound, (birth, spent): (i64, i64)) -> Result<bool, Unavailable> {
        if !self.is_away() {
            match self.shared.seed(purse, (birth, spent)).await {
                Ok(seeded) => return Ok(seeded),
                Err(_logged) => self.leave_shared(),
            }
        }
        let spent = match purse.check {
            Check::Purse { limit, .. } => spent_alone(limit, spent, self.nodes()),
            Check::Slots { .. } | Check::Rate(_) => spent,
        };
        self.own.load_full().seed(purse, (birth, spent)).await
    }
}

#[async_trait]
impl PurseStore for SharedQuotas {
    async fn charge(&self, purse: &Bound, charge: Uuid) -> Result<bool, Unavailable> {
        self.shared.charge(purse, charge).await
    }

    async fn look(&self, purse: &Bound, now: Timestamp) -> Result<Option<Seen>, Unavailable> {
        self.shared.look(purse, now).await
    }

    async fn repair(&self, purse: &Bound, mend: (i64, i64)) -> Result<bool, Unavailable> {
        self.shared.repair(purse, mend).await
    }

    fn shared_by(&self, nodes: i64) {
        self.in_database.store(nodes, Ordering::Relaxed);
    }

    async fn reconcile(&self, now: Timestamp, lease_us: i64) {
        if self.is_away() {
            self.comes_back(true, (now, lease_us)).await;
        } else if !(self.debts.lock().are_told() && self.gone.is_empty() && self.undos.is_empty())
            && let Ok(_turn) = self.payer.try_lock()
            && let Err(error) = self.pay(now, lease_us).await
        {
            tracing::warn!(%error, "failed to charge what was spent without the shared counters");
        }
    }
}

#[async_trait]
impl UndoStore for SharedQuotas {
    async fn undo(&self, ticket: &Ticket, now: Timestamp) -> Result<(), Unavailable> {
        self.shared.undo(ticket, now).await
    }
}

#[async_trait]
impl QuotaStore for SharedQuotas {
    async fn admit(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        if !self.is_away() || self.comes_back(false, (ask.now, ask.lease_us)).await {
            match self.heard(ask, self.shared.admit(ask)).await {
                Ok(verdict) => return Ok(verdict),
                Err(_logged) => self.leave_shared(),
            }
        }
        match self.admit_alone(ask).await? {
            Some(verdict) => Ok(verdict),
            None => self.heard(ask, self.shared.admit(ask)).await,
        }
    }

    async fn extend(&self, ask: Ask<'_>) -> Result<Verdict, Unavailable> {
        if !self.is_away() {
            match self.shared.extend(ask).await {
                Ok(verdict) => return Ok(verdict),
                Err(_logged) => self.leave_shared(),
            }
        }
        match self.extend_alone(ask).await? {
            Some(verdict) => Ok(verdict),
            None => self.shared.extend(ask).await,
        }
    }

    async fn close(&self, ticket: &Ticket, now: Timestamp) -> Result<bool, Unavailable> {
        let here = self.own.load_full().close(ticket, now).await?;
        let known = self.debts.lock().ended(ticket.id);
        // Also when it was taken here: an answer that was lost may have been a yes.
        if known == Some(debts::Known::No) {
            let uncharged = self.shared.close_untold(ticket, now).await;
            self.debts.lock().owe(&uncharged);
            return Ok(true);
        }
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
