//! Resolves what processes left behind that are gone: their open holds.
//!
//! Each pass takes over the holds of dead nodes, and of this one those that are overdue and that no
//! call owns any more (the database refused their settlement), asks the providers that can be
//! asked, and closes each hold as `anima-core`'s ladder says. The ladder decides; this only finds
//! out. Invariant: a hold whose settlement is known, because it waits in the spool, is left to
//! that. Source: `reliability` 1.5 and 1.6, row 12.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use anima_core::ledger::PriceRef;
use anima_core::ledger::fx::FxRate;
use anima_core::ledger::recovery::{self, Orphan, Resolution};
use anima_core::money::Money;
use anima_core::pricing::PriceList;
use anima_store::ledger::{Claimed, Error, LedgerStore};

use super::Relay;
use crate::shortfall::Shortfall;
use ask::Silent;
use calls::{Evidence, Known};

mod ask; // the providers' side
mod calls; // which upstream calls may have been made

/// Between two passes.
const EVERY: Duration = Duration::from_secs(5);

/// How long the database must have been back before anything is taken over. Nobody could renew a
/// lease meanwhile: who lives does that first, and writes what waits in its spool.
const STEADY: Duration = Duration::from_secs(10);

/// How long a provider may take to say what became of a call (`reliability` 1.5: chat).
const WITHIN: Duration = Duration::from_mins(10);

/// Holds that are taken over in one go.
const TOGETHER: usize = 1_000;

/// Holds that are resolved in one pass at most. Far more than a node has open.
const PASS: usize = 20_000;

/// Holds that are resolved at one time.
const AT_ONCE: usize = 32;

/// Takes over and resolves until the task is aborted, side by side: a provider that does not answer
/// never keeps holds with a process that is gone.
pub async fn run(relay: Arc<Relay>) {
    let found = Notify::new();
    tokio::join!(claim(&relay, &found), resolve_all(&relay, &found));
}

/// Takes over every so often.
async fn claim(relay: &Relay, found: &Notify) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away_at = None;
    loop {
        let now = every.tick().await;
        if !relay.ledger.healthy() {
            away_at = Some(now);
        }
        if away_at.is_some_and(|at| now.duration_since(at) < STEADY) {
            continue;
        }
        match claim_once(relay).await {
            // One that is left over from before is found by its own tick.
            Ok(0) => {}
            Ok(_) => found.notify_one(),
            Err(error) => {
                tracing::warn!(%error, "failed to look for holds of processes that are gone");
            }
        }
    }
}

/// Resolves what was taken over: at once, and again every so often.
async fn resolve_all(relay: &Arc<Relay>, found: &Notify) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = found.notified() => {}
        }
        if let Err(error) = pass(relay).await {
            tracing::warn!(%error, "failed to look into holds of processes that are gone");
        }
    }
}

/// Takes over the open holds of all nodes that are gone. They are resolved by the passes.
///
/// # Errors
/// When the database does not answer, or this node's own lease is lost.
pub async fn take_over(ledger: &dyn LedgerStore) -> Result<usize, Error> {
    let mut all = 0;
    loop {
        let claimed = ledger.claim_orphans(TOGETHER, WITHIN).await?.len();
        all += claimed;
        if claimed > 0 {
            tracing::warn!(holds = claimed, "taken over from processes that are gone");
        }
        if claimed < TOGETHER {
            return Ok(all);
        }
    }
}

async fn claim_once(relay: &Relay) -> Result<usize, Error> {
    let orphans = take_over(&*relay.ledger).await?;
    // Taken first: a call that begins after this has a hold that is not overdue.
    let running = relay.keeper.running();
    let overdue = relay.ledger.claim_overdue(running, WITHIN).await?;
    if overdue > 0 {
        tracing::error!(holds = overdue, "taken over from this node: they were never settled");
    }
    Ok(orphans + overdue)
}

/// Resolves what can be resolved now.
async fn pass(relay: &Arc<Relay>) -> Result<(), Error> {
    // A node that lost its lease takes over from itself what still runs: that ends by itself.
    let unresolved = relay.ledger.unresolved(PASS).await?.into_iter();
    let orphans: Vec<_> = unresolved.filter(|claimed| !relay.keeper.knows(&claimed.hold)).collect();
    let mut orphans = orphans.into_iter();
    let mut waiting = orphans.len();
    let mut resolving = JoinSet::new();
    let silent = Arc::new(Silent::default());
    loop {
        while resolving.len() < AT_ONCE
            && let Some(claimed) = orphans.next()
        {
            let (relay, silent) = (Arc::clone(relay), Arc::clone(&silent));
            resolving.spawn(async move { resolve(&relay, &silent, claimed).await });
        }
        let Some(resolved) = resolving.join_next().await else { break };
        waiting -= usize::from(resolved.unwrap_or(false));
    }
    relay.metrics.recovery.orphans.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    Ok(())
}

/// Resolves one hold. `false` when it has to be looked at again.
async fn resolve(relay: &Relay, silent: &Silent, claimed: Claimed) -> bool {
    let id = claimed.hold;
    let gathered = match gather(relay, silent, &claimed).await {
        Ok(Some(gathered)) => gathered,
        // No configuration: nobody can be asked and nothing priced.
        Ok(None) => return false,
        Err(error) => {
            tracing::warn!(request_id = %id, %error, "failed to look into an open hold");
            return false;
        }
    };
    let (app, kid, currency) = (claimed.app.clone(), claimed.kid.clone(), claimed.currency);
    let Resolution::Close { settlement, rung } = decide(relay, claimed, &gathered) else {
        return false;
    };
    match relay.ledger.settle(*settlement).await {
        Ok(settled) => {
            relay.metrics.recovery.recovered(rung.name());
            if settled.uncollected > 0 && !settled.replayed {
                let money = |units| Money::new(units, currency);
                let (charged, uncollected) = (money(settled.charged), money(settled.uncollected));
                let shortfall = Shortfall { request: id, app, kid, charged, uncollected };
                relay.shortfalls.note(shortfall, &relay.tasks);
            }
            tracing::warn!(
                request_id = %id,
                by = rung.name(),
                charged_units = settled.charged,
                "resolved the hold of a process that is gone"
            );
            true
        }
        // It is in the spool, or another node's by now.
        Err(error) => {
            tracing::warn!(request_id = %id, %error, "failed to close an open hold");
            false
        }
    }
}

/// What is known of a hold's upstream calls, with the price lists that they need.
struct Gathered {
    known: Vec<Known>,
    prices: BTreeMap<PriceRef, PriceList>,
    fx: Option<FxRate>,
}

async fn gather(
    relay: &Relay,
    silent: &Silent,
    claimed: &Claimed,
) -> Result<Option<Gathered>, anima_store::config::Error> {
    let Some(pinned) = relay.live.pin(relay.clock.now()) else { return Ok(None) };
    let candidates = calls::candidates(claimed, &pinned);
    let mut evidence = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let answer = ask::ask(relay, silent, claimed.hold, &candidate).await;
        evidence.push(Evidence { candidate, answer });
    }
    let known = calls::open_calls(claimed, evidence);
    let mut prices = BTreeMap::new();
    let costs = known.iter().map(|call| &call.cost);
    for price in costs.chain([&claimed.sale_price]) {
        if !prices.contains_key(price)
            && let Some(list) = relay.live.price(&price.code, price.version_no).await?
        {
            prices.insert(price.clone(), list);
        }
    }
    let fx = match &claimed.fx {
        Some(rate) => relay.live.fx_rate(rate).await?,
        None => None,
    };
    Ok(Some(Gathered { known, prices, fx }))
}

fn decide(relay: &Relay, claimed: Claimed, gathered: &Gathered) -> Resolution {
    // A price that cannot be read any more prices nothing; the ladder flags what rests on it.
    let unreadable: BTreeMap<_, _> = gathered
        .known
        .iter()
        .filter(|call| !gathered.prices.contains_key(&call.cost))
        .map(|call| (call.cost.clone(), calls::empty_list(&call.cost, claimed.currency)))
        .collect();
    let list = |price: &PriceRef| gathered.prices.get(price).or_else(|| unreadable.get(price));
    let open = gathered.known.iter().filter_map(|call| Some(call.open(list(&call.cost)?)));
    let orphan = Orphan {
        hold: claimed.hold,
        app: claimed.app,
        currency: claimed.currency,
        amount: claimed.amount,
        exposure: claimed.exposure,
        sale: gathered.prices.get(&claimed.sale_price),
        fx: gathered.fx.as_ref(),
        sale_price: claimed.sale_price.clone(),
        multiplier: claimed.multiplier,
        ended: claimed.ended,
        open: open.collect(),
    };
    recovery::resolve(orphan, relay.clock.now(), claimed.resolve_by)
}
