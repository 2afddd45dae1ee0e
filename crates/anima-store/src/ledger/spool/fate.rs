//! What becomes of a settlement that its database did not take in time.
//!
//! Not here: where it is kept meanwhile. Invariant: what a customer has is sold at what it came to,
//! also when another node has sold it at an estimate by then, or closed it as not sold and its key,
//! if it has one, is used for no other call; what was withheld is not sold.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::ledger::{Close, Settlement};

use super::record::Told;
use super::{PAUSE, SpoolObserver, Spooled};
use crate::config;
use crate::idempotency::IdempotencyStore;
use crate::ledger::{Correction, Error, LedgerStore, SaleCorrection, Settled};

/// What became of a try.
pub(super) enum Fate {
    /// It is in the books.
    Done,
    /// It will never be: it is refused for good.
    Refused,
    /// The database is away.
    Away,
    /// Another node has still to close the hold, or something else is just posted about it.
    Fenced,
}

/// Writes one, or corrects what another node has made of its hold.
pub(super) async fn write_one(
    (inner, keys): (&dyn LedgerStore, &dyn IdempotencyStore),
    observer: &dyn SpoolObserver,
    spooled: &Spooled,
) -> Fate {
    let settlement = &spooled.settlement;
    let id = settlement.hold;
    match inner.settle(settlement.clone()).await {
        Ok(settled) => written(inner, observer, spooled, settled).await,
        Err(Error::Unavailable(_) | Error::Overloaded) => Fate::Away,
        Err(Error::Fenced | Error::Conflict) => correct((inner, keys), observer, spooled).await,
        Err(error) => lost(observer, id, &error),
    }
}

async fn written(
    inner: &dyn LedgerStore,
    observer: &dyn SpoolObserver,
    spooled: &Spooled,
    settled: Settled,
) -> Fate {
    let settlement = &spooled.settlement;
    if !spooled.told.counts && settlement.close != Close::Release {
        return match inner.true_up(unsold(settlement.clone())).await {
            Ok(done) => {
                tracing::warn!(id = %settlement.hold, given_back = done.given_back, "not sold");
                Fate::Done
            }
            // Something else is posted about it at this moment: what is sold is taken back then.
            Err(Error::Fenced) => Fate::Fenced,
            Err(Error::Unavailable(_) | Error::Overloaded) => Fate::Away,
            Err(error) => lost(observer, settlement.hold, &error),
        };
    }
    tracing::info!(id = %settlement.hold, settled.replayed, "written from the spool");
    // Nobody was told of one that the database took without an answer.
    if settled.uncollected > 0 {
        observer.short(settlement, settled);
    }
    Fate::Done
}

/// Which way the customer's side is corrected.
///
/// What counts as made was delivered, and is sold unless its key leads to another call, which may
/// be sold in its place. So the key is retired first, on disk, and the sale follows: after a crash
/// between the two the key is found retired, and what was taken over before stays so. A call that
/// is not sold leaves its key free.
///
/// # Errors
/// The database does not say.
async fn direction(
    keys: &dyn IdempotencyStore,
    Spooled { settlement, told, .. }: &Spooled,
) -> Result<SaleCorrection, config::Error> {
    let is_sale = matches!(settlement.close, Close::Settle { sale: 1.., .. });
    Ok(match told {
        // Of what was withheld a customer is never charged more: what was sold is what was known
        // in time.
        Told { counts: false, .. } => SaleCorrection::DownOnly,
        Told { once: true, .. } => SaleCorrection::Delivered,
        Told { key: Some(key), .. } if is_sale && keys.retire(key, settlement.hold).await? => {
            SaleCorrection::Delivered
        }
        Told { .. } => SaleCorrection::BothWays,
    })
}

/// Corrects what another node has made of the hold.
async fn correct(
    (inner, keys): (&dyn LedgerStore, &dyn IdempotencyStore),
    observer: &dyn SpoolObserver,
    spooled: &Spooled,
) -> Fate {
    let settlement = &spooled.settlement;
    let id = settlement.hold;
    let sale = match direction(keys, spooled).await {
        Ok(sale) => sale,
        Err(error) => {
            tracing::warn!(%id, %error, "failed to retire the key of a spooled settlement");
            return Fate::Away;
        }
    };
    let reference = "settled late".to_owned();
    let correction = Correction { settlement: settlement.clone(), sale, report: None, reference };
    match inner.true_up(correction).await {
        Ok(corrected) => {
            let (given_back, is_keyed) = (corrected.given_back, spooled.told.key.is_some());
            tracing::warn!(%id, given_back, ?sale, is_keyed, "settled late: corrected");
            observer.corrected();
            Fate::Done
        }
        Err(Error::Fenced) => Fate::Fenced,
        Err(Error::Unavailable(_) | Error::Overloaded) => Fate::Away,
        // This process has claimed the hold since it was refused: it is to be settled after all.
        Err(error @ Error::Refused(_)) => match inner.settle(settlement.clone()).await {
            Ok(settled) => written(inner, observer, spooled, settled).await,
            Err(Error::Unavailable(_) | Error::Overloaded) => Fate::Away,
            Err(Error::Fenced | Error::Conflict) => Fate::Fenced,
            Err(_refused) => lost(observer, id, &error),
        },
        Err(error) => lost(observer, id, &error),
    }
}

fn lost(observer: &dyn SpoolObserver, id: Uuid, error: &Error) -> Fate {
    tracing::error!(%id, %error, "a spooled settlement is refused for good");
    observer.lost();
    Fate::Refused
}

/// The correction that takes a sale back whose answer was withheld. What it cost is our loss.
fn unsold(settlement: Settlement) -> Correction {
    let mut unsold = Settlement { close: Close::Release, conversion: None, ..settlement };
    unsold.attempts.iter_mut().for_each(|attempt| attempt.served = false);
    Correction {
        settlement: unsold,
        sale: SaleCorrection::DownOnly,
        report: None,
        reference: "the answer was withheld".to_owned(),
    }
}

/// Takes back the sale of a settlement that neither the database nor the file took, once the ledger
/// has written it after all.
pub(super) async fn take_back(inner: Arc<dyn LedgerStore>, settlement: Settlement) {
    let id = settlement.hold;
    if settlement.close == Close::Release {
        return;
    }
    let correction = unsold(settlement);
    loop {
        tokio::time::sleep(PAUSE).await;
        if !inner.healthy() {
            continue;
        }
        match inner.true_up(correction.clone()).await {
            Ok(done) => {
                tracing::warn!(%id, given_back = done.given_back, "withheld, and not sold");
                return;
            }
            // Not written yet, or another node's to close first.
            Err(Error::Unavailable(_) | Error::Overloaded | Error::Fenced | Error::Refused(_)) => {}
            Err(error) => {
                tracing::error!(%id, %error, "failed to take back what was withheld");
                return;
            }
        }
    }
}
