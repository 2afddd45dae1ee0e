//! Money reserved before the first attempt.
//!
//! Invariant: an [`Open`] hold is consumed by `settle`; one that is dropped instead (a panic, a
//! defect) rings an alarm, and is released by a task of its own where nothing was sent. Where
//! something was, recovery ends it like that of a crash, so money is never forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use anima_core::failure::Failure;
use anima_core::ledger::fx::FxRate;
use anima_core::ledger::{Close, Exposure, Hold, PriceRef, Settlement};
use anima_core::money::{Currency, Money, Multiplier};
use anima_core::pricing::{self, PriceList};
use anima_core::snapshot::RouteEntry;
use anima_core::usage::{Meter, Usage};
use anima_store::ledger::{self, LedgerStore};

use super::call::{Call, price_ref};
use super::keeper::Entered;
use super::plan::Plan;
use super::progress::Progress;
use super::{Limits, Relay, admit};
use crate::http::reply::Refusal;

/// After the call's deadline its hold is kept this much longer before it counts as orphaned: time
/// to drain and to settle.
const GRACE: Duration = Duration::from_mins(1);

/// How often a call is lowered to what its wallet has left while others take from it. Each try is
/// one more wait for the disk.
const CLAMPS: usize = 3;

/// A hold that is on disk and not yet settled.
#[derive(Debug)]
#[must_use = "an open hold is the customer's money: settle it"]
pub struct Open {
    hold: Option<Hold>,
    /// How far the call has come, for the keeper and for the call itself.
    pub(super) progress: Arc<Progress>,
    /// `None` once the hold is taken out.
    entered: Option<Entered>,
    ledger: Arc<dyn LedgerStore>,
    /// Shutdown waits for what is spawned here.
    tasks: TaskTracker,
}

impl Open {
    /// How much is held, in units, extensions included.
    pub fn amount(&self) -> i64 {
        self.progress.held()
    }

    /// Takes the hold out, to settle it. The call counts as running until the other value is
    /// dropped, so that nobody on this node takes its hold for an orphan.
    pub(super) fn take(mut self) -> Option<(Hold, Entered)> {
        self.hold.take().zip(self.entered.take())
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
        if self.progress.was_dispatched() {
            // The provider may have worked, and the client may have seen it: the hold stands until
            // its time is over, and is then resolved by what was written down here.
            let progress = Arc::clone(&self.progress);
            let note = async move {
                let checkpoint = progress.checkpoint(Instant::now()).await;
                if let Err(error) = ledger.checkpoint(vec![checkpoint]).await {
                    tracing::error!(request_id = %hold.id, %error, "failed to note a dropped hold");
                }
            };
            self.tasks.spawn_on(note, &runtime);
            return;
        }
        let release = async move {
            let settlement = Settlement {
                hold: hold.id,
                app: hold.app,
                currency: hold.currency,
                close: Close::Release,
                sale_price: hold.sale_price,
                conversion: None,
                attempts: vec![],
                at: hold.created_at,
            };
            let released = ledger.settle(settlement).await;
            if let Err(error) = released
                && !matches!(error, ledger::Error::Spooled(_))
            {
                tracing::error!(request_id = %hold.id, %error, "failed to release a dropped hold");
            }
        };
        self.tasks.spawn_on(release, &runtime);
    }
}

/// Places the hold for a call. Where the wallet cannot cover the whole of it, the call's output
/// limit is lowered to what it can, unless that is too little to be of use.
///
/// # Errors
/// [`Failure::InsufficientFunds`] or [`Failure::ServiceUnavailable`].
pub async fn place(relay: &Relay, call: &mut Arc<Call>, plan: &Plan) -> Result<Open, Refusal> {
    relay.watch.permit(&call.caller.app)?;
    let (ledger, limits) = (&relay.ledger, &relay.limits);
    let wanted = wanted_output(call, limits);
    let needed = amount(call, wanted)?;
    let mut hold = hold_of(call, needed, exposure(call, plan, wanted));
    // Who asks again under the key believes that nothing is sent once the lease of the claim is
    // over: of what is held under a later one, nothing is.
    let claimed_under = call.keyed.as_ref().map(|keyed| keyed.lease);
    let held_under = claimed_under.unwrap_or_else(|| relay.term.number());
    let mut verdict = ledger.hold(hold.clone()).await;
    for _ in 0..CLAMPS {
        let Err(ledger::Error::InsufficientFunds { available }) = verdict else { break };
        let least = limits.min_output_tokens.saturating_sub(1);
        let wanted = wanted_output(call, limits);
        let Some(tokens) = longest(call, available, (least, wanted)) else { break };
        Arc::make_mut(call).request.limit_output(tokens);
        hold.amount = amount(call, tokens)?;
        hold.exposure = exposure(call, plan, tokens);
        verdict = ledger.hold(hold.clone()).await;
    }
    verdict.map_err(|error| refusal(call, needed, &error))?;
    let progress = Arc::new(Progress::new(Arc::clone(call), (hold.clone(), held_under), limits));
    Ok(Open {
        hold: Some(hold),
        entered: Some(relay.keeper.enter(&progress)),
        progress,
        ledger: Arc::clone(ledger),
        tasks: relay.tasks.clone(),
    })
}

/// Whether the wallet covers now what a call that is made later costs at least. It is asked again,
/// and the money held, when the call is made.
///
/// # Errors
/// [`Failure::InsufficientFunds`]. A ledger that cannot be asked is asked when the call is made.
pub async fn covered(relay: &Relay, call: &Call) -> Result<(), Refusal> {
    let Ok(mut balance) = relay.ledger.balance(&call.caller.app, call.caller.currency).await else {
        return Ok(());
    };
    balance.floor = call.caller.floor;
    let wanted = wanted_output(call, &relay.limits);
    let least = if call.request.endpoint.generates() {
        wanted.min(relay.limits.min_output_tokens.max(1))
    } else {
        wanted
    };
    let available = balance.available();
    if amount(call, least)? <= available && available >= 0 {
        return Ok(());
    }
    Err(refusal(call, amount(call, wanted)?, &ledger::Error::InsufficientFunds { available }))
}

fn hold_of(call: &Call, amount: i64, exposure: Option<Exposure>) -> Hold {
    let keep = call.deadline.duration_since(call.arrival.instant) + GRACE;
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    Hold {
        id: call.arrival.id,
        app: Arc::clone(&call.caller.app),
        kid: Arc::clone(&call.caller.kid),
        alias: Arc::clone(&call.alias.code),
        currency: call.caller.currency,
        amount,
        floor: call.caller.floor,
        sale_price: call.sale_ref(),
        fx: call.fx.as_ref().map(|rate| rate.reference.clone()),
        multiplier: call.multiplier,
        exposure,
        created_at: call.arrival.at,
        expires_at: call.arrival.at.plus_millis(keep_ms),
    }
}

/// The tokens of one answer that a hold covers: the caller's own limit, else the default.
pub(super) fn wanted_output(call: &Call, limits: &Limits) -> u64 {
    call.request.output_tokens_max.unwrap_or(limits.hold_output_tokens)
}

/// The longest answer that `available` units cover, longer than `from` tokens and shorter than
/// `to`. `None` when there is none.
pub(super) fn longest(call: &Call, available: i64, (from, to): (u64, u64)) -> Option<u64> {
    if !call.request.endpoint.generates() {
        return None;
    }
    let fits = |tokens: u64| amount(call, tokens).is_ok_and(|amount| amount <= available);
    let (mut below, mut above) = (from.saturating_add(1), to);
    if below >= above || !fits(below) {
        return None;
    }
    while above - below > 1 {
        let middle = below.midpoint(above);
        if fits(middle) { below = middle } else { above = middle }
    }
    Some(below)
}

/// Where the call goes first, and the most that it can cost us on any channel of the plan.
fn exposure(call: &Call, plan: &Plan, output_tokens: u64) -> Option<Exposure> {
    let usage = worst_usage(call, output_tokens);
    let cost = |route: &RouteEntry| {
        let list = route.cost.as_ref()?;
        let priced = |tier| most(list, &usage, (tier, Multiplier::ONE)).ok();
        let standard = priced(None)?;
        let chosen = call.request.service_tier.as_deref().and_then(|tier| priced(Some(tier)));
        Some((standard.max(chosen.unwrap_or(standard)), list.currency, price_ref(list)))
    };
    let routes = || plan.candidates().filter_map(|candidate| plan.route(candidate));
    let wallet = call.caller.currency;
    let rate = |from| call.caller.pinned.snapshot.fx(from, wallet).map(AsRef::as_ref);
    let (amount, currency, price) = dearest(routes().filter_map(cost), wallet, rate)?;
    let channel = Arc::clone(&routes().next()?.channel.code);
    Some(Exposure { channel, amount, currency, price })
}

/// The dearest of costs that may be in several currencies, by what each is in the wallet's. One
/// that has no rate counts as less than all that have one, and is compared by its units with its
/// like.
fn dearest<'r>(
    costs: impl Iterator<Item = (i64, Currency, PriceRef)>,
    wallet: Currency,
    rate: impl Fn(Currency) -> Option<&'r FxRate>,
) -> Option<(i64, Currency, PriceRef)> {
    let worth = |units: i64, currency| {
        if currency == wallet {
            return Some(units);
        }
        // What does not fit is dearer than all that does.
        Some(rate(currency)?.convert(units).map_or(i64::MAX, |converted| converted.plain))
    };
    costs.max_by_key(|(units, currency, _)| (worth(*units, *currency), *units))
}

/// The prompt by its bytes (two per token bounds ordinary text, `f-tokens` F.1) and so many tokens
/// of output per answer.
fn worst_usage(call: &Call, output_tokens: u64) -> Usage {
    let request = &call.request;
    let mut usage = admit::most(request);
    if request.endpoint.generates() {
        usage.set(Meter::OutputTokens, output_tokens.saturating_mul(request.choices));
    }
    usage
}

/// The dearer of the two ways in which a list may say the same thing: by the unit, and by tokens.
fn most(
    list: &PriceList,
    usage: &Usage,
    (tier, multiplier): (Option<&str>, Multiplier),
) -> Result<i64, pricing::Error> {
    let by_tokens = list.charge(usage, tier, multiplier)?.units;
    let by_unit = list.charge(&list.in_units(usage), tier, multiplier)?.units;
    Ok(by_tokens.max(by_unit))
}

/// What the call can come to with so many tokens of output per answer.
pub(super) fn amount(call: &Call, output_tokens: u64) -> Result<i64, Refusal> {
    let (request, usage) = (&call.request, worst_usage(call, output_tokens));
    // The provider decides which tier it really used, so a cheaper one that was asked for does not
    // lower the hold.
    let multiplier = call.multiplier;
    let charge = |tier| most(&call.sale, &usage, (tier, multiplier));
    let plain = charge(None);
    let asked = request.service_tier.as_deref().map_or(plain, |tier| charge(Some(tier)));
    let most = plain.and_then(|plain| asked.map(|asked| asked.max(plain)));
    most.and_then(|most| Ok(call.owed(most)?)).map_err(|error| {
        tracing::error!(request_id = %call.arrival.id, %error, "failed to price a hold");
        Refusal::new(Failure::ModelUnpriced, "This call cannot be priced. Ask the operator.")
    })
}

/// What a call is told that cannot be held for want of the database.
pub fn database_down() -> Refusal {
    let message = "Calls cannot be booked at the moment. Try again shortly.";
    Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000)
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
        | ledger::Error::Fenced
        | ledger::Error::Overloaded
        | ledger::Error::Unavailable(_)
        | ledger::Error::Spooled(_)
        | ledger::Error::Refused(_) => {
            tracing::error!(request_id = %call.arrival.id, %error, "failed to place a hold");
            database_down()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price() -> PriceRef {
        PriceRef { code: "p".into(), version_no: 1 }
    }

    #[test]
    fn costs_in_several_currencies_are_compared_in_one() {
        let [eur, jpy, gbp] = ["EUR", "JPY", "GBP"].map(|code| Currency::parse(code).unwrap());
        let to_usd = |from, digits, decimals| FxRate {
            reference: price(),
            from,
            to: Currency::USD,
            digits,
            decimals,
            spread_ppm: 0,
        };
        let rates = [to_usd(eur, 125, 2), to_usd(jpy, 7, 3)];
        let rate = |from| rates.iter().find(|rate| rate.from == from);
        let found = |costs: &[(i64, Currency)]| {
            let costs = costs.iter().map(|(units, currency)| (*units, *currency, price()));
            dearest(costs, Currency::USD, rate).map(|(units, currency, _)| (units, currency))
        };
        let one = |currency: Currency| 10_i64.pow(currency.scale().into());
        let yen = (300 * one(jpy), jpy);
        let dollars = (3 * one(Currency::USD), Currency::USD);
        let euros = (5 * one(eur) / 2, eur);
        assert_eq!(found(&[yen, dollars]), Some(dollars), "300 yen are 2.10 dollars");
        assert_eq!(found(&[euros, yen, dollars]), Some(euros), "2.50 euros are 3.125 dollars");
        let huge = (i64::MAX, eur);
        assert_eq!(found(&[huge, dollars]), Some(huge), "what does not fit is dearer");
        let (small, large) = ((1, gbp), (900 * one(gbp), gbp));
        assert_eq!(found(&[large, small]), Some(large), "without a rate among their like");
        assert_eq!(found(&[large, dollars, small]), Some(dollars));
        assert_eq!(found(&[]), None);
    }
}
