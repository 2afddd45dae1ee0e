//! Posts promotional credit back that has expired unused, once a minute, and counts it.
//!
//! Every node does; the wallet's lock lets one of them post. A call cannot use expired credit
//! whether this ran or not: it only brings the books up to date. A crash between any two lines
//! leaves credit that the next round finds. Invariant: what is counted was posted by this node.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use anima_core::clock::Clock;
use anima_store::ledger::Error;
use anima_store::ledger::money::Money;

use crate::metrics::Metrics;

/// Between two rounds.
const EVERY: Duration = Duration::from_mins(1);

/// Goes round until it is aborted.
pub async fn run(money: Arc<dyn Money>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = round(&*money, &*clock, &metrics).await {
            tracing::warn!(%error, "failed to post expired credit back");
        }
    }
}

/// One round: how many grants something was posted back of.
///
/// # Errors
/// The ledger's; what was posted before it stays, and is not counted.
pub(super) async fn round(
    money: &dyn Money,
    clock: &dyn Clock,
    metrics: &Metrics,
) -> Result<usize, Error> {
    let expired = money.expire_promo(clock.now()).await?;
    for credit in &expired {
        metrics.promo_expired(credit.amount);
        let (app, grant, amount) = (&*credit.app, credit.grant, credit.amount.to_string());
        let currency = credit.amount.currency.code();
        tracing::info!(app, %grant, amount, currency, "promotional credit expired unused");
    }
    Ok(expired.len())
}
