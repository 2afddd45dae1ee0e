//! What becomes of a settlement that its database did not take in time.
//!
//! Not here: where it is kept meanwhile. Invariant: what a customer has is sold at what it came to,
//! also when another node has sold it at an estimate by then; what another node has closed as not
//! sold, and what was withheld, is not.

use std::sync::Arc;

use uuid::Uuid;

use anima_core::ledger::{Close, Settlement};

use super::{PAUSE, SpoolObserver, Spooled};
use crate::ledger::{Correction, Error, LedgerStore, SaleCorrection, Settled};

/// What became of a try.
pub(super) enum Fate {
    /// It is in the books.
    Done,
    /// It will never be: it is refused for good.
    Refused,
    /// The database is away.
    Away,
    /// Another node has still to close the hold.
    Fenced,
}

/// Writes one, or corrects what another node has made of its hold.
pub(super) async fn write_one(
    inner: &dyn LedgerStore,
    observer: &dyn SpoolObserver,
    spooled: &Spooled,
) -> Fate {
    let settlement = &spooled.settlement;
    let id = settlement.hold;
    match inner.settle(settlement.clone()).await {
        Ok(settled) => written(observer, settlement, settled),
        Err(Error::Unavailable(_) | Error::Overloaded) => Fate::Away,
        Err(Error::Fenced | Error::Conflict) => correct(inner, observer, spooled).await,
        Err(error) => lost(observer, id, &error),
    }
}

fn written(observer: &dyn SpoolObserver, settlement: &Settlement, settled: Settled) -> Fate {
    tracing::info!(id = %settlement.hold, settled.replayed, "written from the spool");
    // Nobody was told of one that the database took without an answer.
    if settled.uncollected > 0 {
        observer.short(settlement, settled);
    }
    Fate::Done
}

/// Corrects what another node has made of the hold.
async fn correct(inner: &dyn LedgerStore, observer: &dyn SpoolObserver, spooled: &Spooled) -> Fate {
    let settlement = &spooled.settlement;
    let id = settlement.hold;
    // What counted as made was delivered. Of the rest a customer is never charged more: what was
    // sold is what was known in time.
    let sale = if spooled.counts { SaleCorrection::BothWays } else { SaleCorrection::DownOnly };
    let reference = "settled late".to_owned();
    let correction = Correction { settlement: settlement.clone(), sale, report: None, reference };
    match inner.true_up(correction).await {
        Ok(corrected) => {
            tracing::warn!(%id, given_back = corrected.given_back, "settled late: corrected");
            observer.corrected();
            Fate::Done
        }
        Err(Error::Fenced) => Fate::Fenced,
        Err(Error::Unavailable(_) | Error::Overloaded) => Fate::Away,
        // This process has claimed the hold since it was refused: it is to be settled after all.
        Err(error @ Error::Refused(_)) => match inner.settle(settlement.clone()).await {
            Ok(settled) => written(observer, settlement, settled),
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

/// Takes back the sale of a settlement that neither the database nor the file took, once the ledger
/// has written it after all: its answer was withheld. What it cost is our loss.
pub(super) async fn take_back(inner: Arc<dyn LedgerStore>, settlement: Settlement) {
    let id = settlement.hold;
    if settlement.close == Close::Release {
        return;
    }
    let mut unsold = Settlement { close: Close::Release, conversion: None, ..settlement };
    unsold.attempts.iter_mut().for_each(|attempt| attempt.served = false);
    let correction = Correction {
        settlement: unsold,
        sale: SaleCorrection::DownOnly,
        report: None,
        reference: "the answer was withheld".to_owned(),
    };
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
