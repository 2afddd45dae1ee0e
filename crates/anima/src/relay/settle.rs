//! Usage → postings, durable before the last byte.
//!
//! Takes the open hold by value: it is settled here or nowhere. Invariant: when this returns `Ok`,
//! both sides of the call are on disk: in the database, or in the spool of this node while the
//! database is away.

use std::sync::Arc;

use anima_core::failure::Failure;
use anima_core::ledger::fx::Conversion;
use anima_core::ledger::{Attempt, Close, Settlement};
use anima_core::money::Money;
use anima_store::ledger::{Error, Settled};

use super::call::Call;
use super::hold::Open;
use super::trial::Trial;
use super::{Relay, booking};
use crate::shortfall::Shortfall;
use booking::{Delivered, End, Known, Part};

/// What a call came to, as it stands in the books.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    /// Taken from the wallet.
    pub(super) charged: Money,
    /// What each attempt costs us.
    pub(super) costs: Vec<Money>,
    /// Tokens in and out of the attempt that served.
    pub(super) tokens: (u64, u64),
    /// The amounts rest on our own count.
    pub(super) estimate: bool,
}

/// Settles a call that was served, whole or in part.
///
/// # Errors
/// When the settlement is not on disk.
pub(super) async fn served(
    relay: &Relay,
    call: &Arc<Call>,
    open: Open,
    (mut attempts, trial, delivered, outcome): (Vec<Attempt>, Trial, Delivered, &'static str),
) -> Result<Receipt, Error> {
    let known = booking::known(call, &trial.cost, &delivered).await;
    let tier = delivered.tier.as_deref();
    if delivered.reported.is_none() || delivered.suspect {
        relay.metrics.usage_suspect(&trial.channel);
    }
    // A stream that did not come to its end never came to its usage either.
    if delivered.part == Part::Whole {
        relay.reporting.note(&trial.channel, delivered.reported.is_some());
    }
    relay.metrics.attempt(&trial.channel, outcome);
    let end = End { outcome, served: !delivered.empty, at: relay.clock.now() };
    let exposed = booking::exposed(call, &known, delivered.part);
    attempts.push(booking::served(&trial, &exposed, tier, (end, &open.progress.hold)));
    // An empty answer is not sold (SPEC 8); what the provider charges for it is still booked.
    let close = if delivered.empty {
        Close::Release
    } else if let Some(sold) = booking::sold(call, &known, (delivered.part, &relay.limits)) {
        let sale = booking::price(&call.sale, &sold, (tier, call.multiplier));
        // A piece of an answer may hold more than a budget has left, which is known when it is
        // here. What nobody but us has counted of it is not charged.
        let is_within = delivered.reported.is_none() && outcome == Failure::BudgetExceeded.reason();
        let most = if is_within { open.amount() } else { i64::MAX };
        let sale = sale.map(|sale| booking::within(|units| call.owed(units), sale, most));
        return sell(relay, call, open, attempts, (sale, known)).await;
    } else {
        Close::Settle { sale: 0, estimate: true }
    };
    commit(relay, call, open, attempts, (close, None, Some(known))).await
}

/// Settles a sale, converted when its price is in another currency than the wallet. Where the sale
/// or its conversion does not fit, the hold stands in for it, as it is: never nothing.
async fn sell(
    relay: &Relay,
    call: &Arc<Call>,
    open: Open,
    attempts: Vec<Attempt>,
    (sale, known): (Option<booking::Priced>, Known),
) -> Result<Receipt, Error> {
    let held = (Close::Settle { sale: open.amount(), estimate: true }, None);
    let (close, conversion) = sale.and_then(|sale| converted(call, sale)).unwrap_or(held);
    commit(relay, call, open, attempts, (close, conversion, Some(known))).await
}

/// A sale in the wallet's currency. `None` where it does not fit.
fn converted(call: &Call, sale: booking::Priced) -> Option<(Close, Option<Conversion>)> {
    let booking::Priced { units, estimate } = sale;
    let Some(rate) = &call.fx else { return Some((Close::Settle { sale: units, estimate }, None)) };
    match rate.convert(units) {
        Ok(converted) => {
            let close = Close::Settle { sale: converted.owed, estimate };
            Some((close, Some(rate.conversion(units, converted))))
        }
        Err(error) => {
            tracing::error!(request_id = %call.arrival.id, %error, "failed to convert a sale");
            None
        }
    }
}

/// Releases the hold of a call that was not served, and books what its attempts cost.
///
/// # Errors
/// When the release is not on disk.
pub(super) async fn unserved(
    relay: &Relay,
    call: &Arc<Call>,
    open: Open,
    attempts: Vec<Attempt>,
) -> Result<Receipt, Error> {
    commit(relay, call, open, attempts, (Close::Release, None, None)).await
}

async fn commit(
    relay: &Relay,
    call: &Arc<Call>,
    open: Open,
    attempts: Vec<Attempt>,
    (close, conversion, known): (Close, Option<Conversion>, Option<Known>),
) -> Result<Receipt, Error> {
    let costs = attempts.iter().filter_map(|a| a.cost.as_ref());
    let costs = costs.map(|c| Money::new(c.amount, c.currency)).collect();
    let Some((hold, _entered)) = open.take() else {
        return Err(Error::HoldUnknown);
    };
    let settlement = Settlement {
        hold: hold.id,
        app: hold.app,
        currency: hold.currency,
        close,
        sale_price: hold.sale_price,
        conversion,
        attempts,
        at: relay.clock.now(),
    };
    let sale = match close {
        Close::Settle { sale, .. } => sale,
        Close::Release => 0,
    };
    let settled = if call.keyed.is_some() || call.deferral.is_some() {
        let key = call.keyed.as_ref().map(|keyed| keyed.key.clone());
        relay.ledger.settle_repeatable(settlement, key).await
    } else {
        relay.ledger.settle(settlement).await
    };
    let settled = match settled {
        // Synced to this node's disk, and from there it comes into the books: it is made.
        Err(Error::Spooled(why)) => {
            tracing::warn!(request_id = %hold.id, why, "settled on disk");
            Ok(Settled { charged: sale, uncollected: 0, replayed: false })
        }
        settled => settled,
    };
    let settled = settled.inspect_err(|error| {
        relay.metrics.settle_failures.inc();
        tracing::error!(request_id = %hold.id, %error, "failed to settle");
    });
    let sold = settled.as_ref().map_or(sale, |settled| settled.charged);
    relay.admission.settle(call, known.as_ref().map(|known| &known.usage), sold);
    let Settled { charged, uncollected, replayed } = settled?;
    if uncollected > 0 && !replayed {
        let money = |units| Money::new(units, hold.currency);
        let shortfall = Shortfall {
            request: hold.id,
            app: Arc::clone(&call.caller.app),
            kid: hold.kid,
            charged: money(charged),
            uncollected: money(uncollected),
        };
        relay.shortfalls.note(shortfall, &relay.tasks);
    }
    let receipt = Receipt {
        charged: Money::new(charged, call.caller.currency),
        costs,
        tokens: known.map_or((0, 0), |k| (k.usage.input_tokens(), k.usage.output_tokens())),
        estimate: matches!(close, Close::Settle { estimate: true, .. }),
    };
    Ok(receipt)
}
