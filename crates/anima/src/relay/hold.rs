//! Money reserved before the first attempt.
//!
//! Invariant: an [`Open`] hold is consumed by `settle`; one that is dropped instead (a panic, a
//! defect) is released by a task of its own and rings an alarm, so money is never forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use anima_core::failure::Failure;
use anima_core::ledger::{Close, Hold, Settlement};
use anima_core::money::Money;
use anima_core::usage::{Meter, Usage};
use anima_store::ledger::{self, LedgerStore};

use super::Limits;
use super::call::Call;
use crate::http::reply::Refusal;

/// After the call's deadline its hold is kept this much longer before it counts as orphaned: time
/// to drain and to settle.
const GRACE: Duration = Duration::from_mins(1);

/// A hold that is on disk and not yet settled.
#[derive(Debug)]
#[must_use = "an open hold is the customer's money: settle it"]
pub struct Open {
    hold: Option<Hold>,
    ledger: Arc<dyn LedgerStore>,
    /// Shutdown waits for what is spawned here.
    tasks: TaskTracker,
}

impl Open {
    /// How much is held, in units.
    pub fn amount(&self) -> i64 {
        self.hold.as_ref().map_or(0, |hold| hold.amount)
    }

    /// Takes the hold out, to settle it.
    pub fn take(mut self) -> Option<Hold> {
        self.hold.take()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        tracing::error!(request_id = %hold.id, "a hold was dropped without settlement");
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let ledger = Arc::clone(&self.ledger);
        let release = async move {
            let settlement = Settlement {
                hold: hold.id,
                app: hold.app,
                currency: hold.currency,
                close: Close::Release,
                sale_price: hold.sale_price,
                attempts: vec![],
                at: hold.created_at,
            };
            if let Err(error) = ledger.settle(settlement).await {
                tracing::error!(request_id = %hold.id, %error, "failed to release a dropped hold");
            }
        };
        self.tasks.spawn_on(release, &runtime);
    }
}

/// Places the hold for a call.
///
/// # Errors
/// [`Failure::InsufficientFunds`] or [`Failure::ServiceUnavailable`].
pub async fn place(
    (ledger, tasks): (&Arc<dyn LedgerStore>, &TaskTracker),
    call: &Call,
    limits: &Limits,
) -> Result<Open, Refusal> {
    let amount = amount(call, limits)?;
    let keep = call.deadline.duration_since(call.arrival.instant) + GRACE;
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    let hold = Hold {
        id: call.arrival.id,
        app: Arc::clone(&call.caller.app),
        kid: Arc::clone(&call.caller.kid),
        alias: Arc::clone(&call.alias.code),
        currency: call.caller.currency,
        amount,
        floor: call.caller.floor,
        sale_price: call.sale_ref(),
        created_at: call.arrival.at,
        expires_at: call.arrival.at.plus_millis(keep_ms),
    };
    match ledger.hold(hold.clone()).await {
        Ok(()) => Ok(Open { hold: Some(hold), ledger: Arc::clone(ledger), tasks: tasks.clone() }),
        Err(error) => Err(refusal(call, amount, &error)),
    }
}

/// What the call can come to: the prompt by its bytes (two per token bounds ordinary text,
/// `f-tokens` F.1) and the output by the caller's own limit, else by a default.
fn amount(call: &Call, limits: &Limits) -> Result<i64, Refusal> {
    let request = &call.request;
    let mut usage = Usage::default().with(Meter::InputTokens, request.estimate_input_tokens());
    if super::admit::meters(request.endpoint).contains(&Meter::OutputTokens) {
        let each = request.output_tokens_max.unwrap_or(limits.hold_output_tokens);
        usage.set(Meter::OutputTokens, each.saturating_mul(request.choices));
    }
    // The provider decides which tier it really used, so a cheaper one that was asked for does not
    // lower the hold.
    let multiplier = call.caller.multiplier();
    let charge = |tier| call.sale.charge(&usage, tier, multiplier).map(|c| c.units);
    let plain = charge(None);
    let asked = request.service_tier.as_deref().map_or(plain, |tier| charge(Some(tier)));
    plain.and_then(|plain| asked.map(|asked| asked.max(plain))).map_err(|error| {
        tracing::error!(request_id = %call.arrival.id, %error, "failed to price a hold");
        Refusal::new(Failure::ModelUnpriced, "This call cannot be priced. Ask the operator.")
    })
}

fn refusal(call: &Call, amount: i64, error: &ledger::Error) -> Refusal {
    match error {
        ledger::Error::InsufficientFunds { available } => {
            let money = |units: i64| Money::new(units.max(0), call.caller.currency);
            let message = format!(
                "This call needs up to {} {currency} and {} {currency} is available. Top up the \
                 app, or lower the output limit.",
                money(amount),
                money(*available),
                currency = call.caller.currency,
            );
            Refusal::new(Failure::InsufficientFunds, message)
        }
        ledger::Error::Conflict
        | ledger::Error::HoldUnknown
        | ledger::Error::Overloaded
        | ledger::Error::Unavailable(_)
        | ledger::Error::Refused(_) => {
            tracing::error!(request_id = %call.arrival.id, %error, "failed to place a hold");
            let message = "Calls cannot be booked at the moment. Try again shortly.";
            Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000)
        }
    }
}
