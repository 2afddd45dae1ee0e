//! The recovery pass of a process: takes over the holds of processes that are believed dead, and
//! resolves each by the product's own ladder.
//!
//! What a process learnt about an orphan it knows only while it lives: a hold that it took over and
//! did not resolve is an orphan again when its own lease runs out.
//! Invariant: only the owner of a hold closes it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use anima_core::clock::Timestamp;
use anima_core::ledger::recovery::{self, LookUp, OpenCall, Orphan, Progress, Resolution};
use anima_core::ledger::{Close, Running, Settlement};
use anima_core::money::Currency;

use super::call::price_ref;
use super::process::Process;
use super::upstream::{CHANNELS, cost_list, sale_list};
use crate::ledger::{Claimed, Error};

/// Between two passes.
const EVERY: Duration = Duration::from_secs(7);

pub(super) async fn run(process: Arc<Process>) {
    let mut orphans: Vec<Claimed> = Vec::new();
    loop {
        tokio::time::sleep(EVERY).await;
        process.step("recovery.begin").await;
        if process.world.is_cut_off() {
            continue;
        }
        let now = process.world.now();
        let claimed = process.world.state.lock().store.claim(process.id, now);
        let Ok(claimed) = claimed else { continue };
        orphans.extend(claimed);
        process.step("recovery.claimed").await;
        let now = process.world.now();
        // Taken before the holds are looked at, as the process does it.
        let running = process.running.lock().clone();
        let overdue = process.world.state.lock().store.claim_overdue(process.id, &running, now);
        let overdue = overdue.unwrap_or_default();
        if !overdue.is_empty() {
            orphans.extend(overdue);
            process.step("recovery.overdue").await;
        }
        let mut waiting = Vec::new();
        for claimed in orphans {
            if !resolve(&process, &claimed).await {
                waiting.push(claimed);
            }
        }
        orphans = waiting;
    }
}

/// `false` when it has to be looked at again.
async fn resolve(process: &Process, claimed: &Claimed) -> bool {
    let asked = ask(process, claimed).await;
    let (sale, costs) = (sale_list(), CHANNELS.map(|channel| cost_list(&channel)));
    let open = |(n, at, progress, look_up): &Asked| OpenCall {
        n: *n,
        channel: CHANNELS[*at].name.into(),
        credential: "main".into(),
        model: "m".into(),
        cost: &costs[*at],
        started_at: claimed.created_at,
        upstream_ref: None,
        progress: *progress,
        look_up: look_up.clone(),
    };
    let orphan = Orphan {
        hold: claimed.hold,
        app: Arc::clone(&claimed.app),
        currency: claimed.currency,
        amount: claimed.amount,
        exposure: claimed.exposure.clone(),
        sale_price: claimed.sale_price.clone(),
        sale: Some(&sale),
        fx: None,
        multiplier: claimed.multiplier,
        ended: claimed.ended.clone(),
        open: asked.iter().map(open).collect(),
    };
    let resolution = if process.world.bugs().recovers_by_releasing {
        released(claimed, process.world.now())
    } else {
        recovery::resolve(orphan, process.world.now(), claimed.resolve_by)
    };
    let Resolution::Close { settlement, .. } = resolution else {
        process.step("recovery.waits").await;
        return false;
    };
    process.step("recovery.resolved").await;
    match process.ledger.settle(*settlement).await {
        Ok(_) => process.step("recovery.settled").await,
        Err(Error::Fenced) => process.step("recovery.fenced").await,
        // What its own process says of it may be refused for its content; it is asked again.
        Err(Error::Refused(_)) => return false,
        // It is kept and tried until it is written, or this process dies; or its own process's
        // settlement came before it.
        Err(Error::Unavailable(_) | Error::Conflict) => {}
        Err(error) => process.world.fail(format!("a recovered settlement was refused: {error}")),
    }
    true
}

/// A call: its number, its channel, what a checkpoint says of it and what the channel says.
type Asked = (i16, usize, Option<Progress>, LookUp);

/// Asks the channel of the checkpoint; without one, the channel that the hold names.
async fn ask(process: &Process, claimed: &Claimed) -> Option<Asked> {
    let place = |name: &str| CHANNELS.iter().position(|channel| channel.name == name);
    let first = || claimed.exposure.as_ref().and_then(|exposure| place(&exposure.channel));
    let call = match &claimed.running {
        Some(Running { n, channel, usage, delivered, .. }) => {
            let progress = Progress { usage: *usage, delivered: *delivered };
            place(channel).map(|at| (*n, at, Some(progress)))
        }
        None => first().map(|at| (1, at, None)),
    };
    let (n, at, progress) = call?;
    process.step("recovery.asked").await;
    let (mut said, may_be_silent) = look_up(process, (claimed.hold, n), at);
    if may_be_silent && said != LookUp::Impossible && process.world.chance(300_000) {
        said = LookUp::Silent;
        process.step("recovery.silent").await;
    }
    Some((n, at, progress, said))
}

/// What a provider says of a call, and whether it may as well say nothing.
fn look_up(process: &Process, key: (Uuid, i16), at: usize) -> (LookUp, bool) {
    let now = process.world.now();
    let state = process.world.state.lock();
    let said = state.upstream.look_up(key, &CHANNELS[at], now);
    (said, !state.calm && state.faults.upstream > 0)
}

/// A planted bug: the customer's money back, and no question asked.
fn released(claimed: &Claimed, now: Timestamp) -> Resolution {
    let settlement = Settlement {
        hold: claimed.hold,
        app: Arc::clone(&claimed.app),
        currency: Currency::USD,
        close: Close::Release,
        sale_price: price_ref(&sale_list()),
        conversion: None,
        attempts: Vec::new(),
        at: now,
    };
    Resolution::Close { settlement: Box::new(settlement), rung: recovery::Rung::NothingSent }
}
