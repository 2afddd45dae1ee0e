//! What becomes of a hold whose owner is gone: the ladder, as one decision.
//!
//! The rungs are tried in order: what the provider says when asked, what a checkpoint says, a
//! stated estimate. The sale is what had reached the customer, as far as we can prove it; the cost
//! is the worst plausible exposure, marked as an estimate unless the provider said it. Not here:
//! who asks, who may close the hold (fencing), and how it is stored. Invariants: a call that was
//! made is never booked as free for want of an answer, and a customer never pays for what no record
//! shows to have been delivered. Source: `reliability` 1.5 and 1.6, rows 7, 8 and 12.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use super::fx::{Conversion, FxRate};
use super::{Attempt, AttemptCost, Close, Exposure, PriceRef, Settlement};
use crate::clock::Timestamp;
use crate::money::{Currency, Multiplier};
use crate::pricing::{self, PriceList};
use crate::usage::{Usage, UsageSource};

/// How an attempt is recorded that its process did not live to end.
pub const OUTCOME: &str = "orphaned";

/// A hold without an owner, and the prices that its request pinned.
#[derive(Debug, Clone)]
pub struct Orphan<'a> {
    /// The hold, by the request's id.
    pub hold: Uuid,
    /// Whose wallet.
    pub app: Arc<str>,
    /// Of the wallet.
    pub currency: Currency,
    /// How much is held, in units. Stands in for a cost where even `exposure` is not known.
    pub amount: i64,
    /// Where the request went first and the most that it can cost us, as the hold says.
    pub exposure: Option<Exposure>,
    /// The sale price pinned at admission.
    pub sale_price: PriceRef,
    /// That price's list. Nothing is sold without it.
    pub sale: Option<&'a PriceList>,
    /// The conversion rate that was pinned with it. Without one that fits, nothing is sold in
    /// another currency than the wallet's.
    pub fx: Option<&'a FxRate>,
    /// The caller's factor on the sale price.
    pub multiplier: Multiplier,
    /// Upstream calls that had ended before, as a checkpoint recorded them. In order.
    pub ended: Vec<Attempt>,
    /// Upstream calls of which no end is recorded: the one of the checkpoint, or, without a
    /// checkpoint, each that may have been made. In order.
    pub open: Vec<OpenCall<'a>>,
}

/// An upstream call that was made, or may have been, and whose end is not recorded.
#[derive(Debug, Clone)]
pub struct OpenCall<'a> {
    /// Counts up from 1 inside the request.
    pub n: i16,
    /// Which channel.
    pub channel: Arc<str>,
    /// Which of its credentials.
    pub credential: Arc<str>,
    /// The upstream model.
    pub model: Arc<str>,
    /// The cost price pinned when the attempt started.
    pub cost: &'a PriceList,
    /// When it started, or the hold was made.
    pub started_at: Timestamp,
    /// The provider's own id of the call, when it was seen.
    pub upstream_ref: Option<String>,
    /// What the checkpoint says of it. `None` when it is not even known to have been made.
    pub progress: Option<Progress>,
    /// What the provider said.
    pub look_up: LookUp,
}

/// A call as of its last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it had consumed, by our own count. Empty when only its dispatch is recorded.
    pub usage: Usage,
    /// Whether content had gone to the customer.
    pub delivered: bool,
}

/// What a provider said when it was asked what became of a call.
#[expect(clippy::large_enum_variant, reason = "one at a time, and never on a call's path")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// It cannot be asked.
    Impossible,
    /// It was asked and did not answer.
    Silent,
    /// The call is not over.
    Running,
    /// It never took such a call on.
    NeverMade,
    /// The call is over, and this is what it charges for.
    Over {
        /// What it consumed. Empty when the provider charges nothing.
        usage: Usage,
        /// The service tier that the provider reports.
        tier: Option<String>,
    },
}

/// What the decision about a hold rests on: the lowest rung that was needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// No upstream call is known to have been made.
    NothingSent,
    /// The provider said what became of it.
    LookUp,
    /// A checkpoint says how far it had come.
    Checkpoint,
    /// Nobody knows: the most that it can cost stands in.
    Estimate,
}

impl Rung {
    /// The word for it in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NothingSent => "nothing_sent",
            Self::LookUp => "look_up",
            Self::Checkpoint => "checkpoint",
            Self::Estimate => "estimate",
        }
    }
}

/// What is to be done with an orphan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// A provider may still say more: ask again later.
    Wait,
    /// Close the hold with this settlement.
    Close {
        /// What to book.
        settlement: Box<Settlement>,
        /// What it rests on.
        rung: Rung,
    },
}

/// One open call, judged.
struct Judged {
    attempt: Option<Attempt>,
    tier: Option<String>,
    rung: Rung,
}

/// Decides about an orphan at instant `now`. Until `give_up_at` it waits for providers that may
/// still answer; from then on it decides with what there is.
pub fn resolve(orphan: Orphan<'_>, now: Timestamp, give_up_at: Timestamp) -> Resolution {
    let may_answer = |call: &OpenCall<'_>| matches!(call.look_up, LookUp::Silent | LookUp::Running);
    if now < give_up_at && orphan.open.iter().any(may_answer) {
        return Resolution::Wait;
    }
    // One estimate stands for all calls of which nothing is known: they were made in turn, and the
    // hold covers one of them.
    let mut known = orphan.open.iter().any(is_known);
    let mut rung = Rung::NothingSent;
    let mut sold = None;
    let mut attempts = orphan.ended.clone();
    for call in &orphan.open {
        let judged = judge(&orphan, call, (now, known));
        known |= judged.attempt.is_some();
        rung = rung.max(judged.rung);
        if let Some(attempt) = judged.attempt {
            if attempt.served {
                sold = Some((attempt.usage, attempt.usage_source, judged.tier));
            }
            attempts.push(attempt);
        }
    }
    let sold = sold.and_then(|(usage, source, tier)| {
        sale(&orphan, &usage, (tier.as_deref(), source == UsageSource::Counted))
    });
    let (close, conversion) = sold.unwrap_or((Close::Release, None));
    let settlement = Settlement {
        hold: orphan.hold,
        app: orphan.app,
        currency: orphan.currency,
        close,
        sale_price: orphan.sale_price,
        conversion,
        attempts,
        at: now,
    };
    Resolution::Close { settlement: Box::new(settlement), rung }
}

/// The sale of what was delivered, converted where its price is in another currency than the
/// wallet. Where it does not fit, the hold stands in for it. `None` without a price or a rate.
fn sale(
    orphan: &Orphan<'_>,
    usage: &Usage,
    (tier, counted): (Option<&str>, bool),
) -> Option<(Close, Option<Conversion>)> {
    let list = orphan.sale?;
    let fits = |rate: &&FxRate| rate.from == list.currency && rate.to == orphan.currency;
    let rate = if list.currency == orphan.currency { None } else { Some(orphan.fx.filter(fits)?) };
    let owed = priced(list, usage, (tier, orphan.multiplier)).and_then(|(units, odd)| {
        let estimate = odd || counted;
        let Some(rate) = rate else { return Some((Close::Settle { sale: units, estimate }, None)) };
        let converted = rate.convert(units).ok()?;
        let close = Close::Settle { sale: converted.owed, estimate };
        Some((close, Some(rate.conversion(units, converted))))
    });
    Some(owed.unwrap_or((Close::Settle { sale: orphan.amount, estimate: true }, None)))
}

/// Whether something shows that the call was made.
fn is_known(call: &OpenCall<'_>) -> bool {
    call.progress.is_some() || matches!(call.look_up, LookUp::Running | LookUp::Over { .. })
}

fn judge(orphan: &Orphan<'_>, call: &OpenCall<'_>, (now, known): (Timestamp, bool)) -> Judged {
    let delivered = call.progress.is_some_and(|progress| progress.delivered);
    let counted = call.progress.map(|progress| progress.usage).filter(|usage| !usage.is_empty());
    match &call.look_up {
        LookUp::Over { usage, tier } => {
            let tier = tier.as_deref();
            let attempt = over(orphan, call, (usage, tier), (now, delivered));
            Judged { attempt: Some(attempt), tier: tier.map(str::to_owned), rung: Rung::LookUp }
        }
        LookUp::NeverMade => {
            let attempt = call.progress.map(|_| record(call, now));
            Judged { attempt, tier: None, rung: Rung::LookUp }
        }
        LookUp::Impossible | LookUp::Silent | LookUp::Running => match counted {
            Some(usage) => {
                let mut attempt = record(call, now);
                attempt.served = delivered;
                attempt.usage = usage;
                attempt.usage_source = UsageSource::Counted;
                let priced = priced(call.cost, &usage, PLAIN);
                attempt.cost = Some(match priced {
                    Some((amount, _)) => cost(call.cost, amount, true),
                    None => worst(orphan, call),
                });
                Judged { attempt: Some(attempt), tier: None, rung: Rung::Checkpoint }
            }
            None if known && !is_known(call) => {
                Judged { attempt: None, tier: None, rung: Rung::NothingSent }
            }
            None => Judged {
                attempt: Some(unseen(orphan, call, now)),
                tier: None,
                rung: Rung::Estimate,
            },
        },
    }
}

/// No tier, no factor: how costs are priced that the provider did not report.
const PLAIN: (Option<&str>, Multiplier) = (None, Multiplier::ONE);

/// A call whose end the provider told.
fn over(
    orphan: &Orphan<'_>,
    call: &OpenCall<'_>,
    (usage, tier): (&Usage, Option<&str>),
    (now, delivered): (Timestamp, bool),
) -> Attempt {
    let mut attempt = record(call, now);
    if !usage.is_empty() {
        let priced = priced(call.cost, usage, (tier, Multiplier::ONE));
        attempt.served = delivered;
        attempt.usage = *usage;
        attempt.usage_source = UsageSource::Provider;
        attempt.cost = Some(match priced {
            Some((amount, odd)) => cost(call.cost, amount, odd),
            None => worst(orphan, call),
        });
    }
    attempt
}

/// A call of which nobody knows what it consumed: the most that it can have cost us.
fn unseen(orphan: &Orphan<'_>, call: &OpenCall<'_>, now: Timestamp) -> Attempt {
    let mut attempt = record(call, now);
    attempt.cost = Some(worst(orphan, call));
    attempt
}

/// What stands in for a cost that cannot be computed: the exposure that the hold states, else all
/// that is held, each in its own currency.
fn worst(orphan: &Orphan<'_>, call: &OpenCall<'_>) -> AttemptCost {
    let mut worst = cost(call.cost, orphan.amount, true);
    worst.currency = orphan.currency;
    if let Some(Exposure { amount, currency, price, .. }) = &orphan.exposure {
        worst = AttemptCost { amount: *amount, currency: *currency, price: price.clone(), ..worst };
    }
    worst
}

fn record(call: &OpenCall<'_>, now: Timestamp) -> Attempt {
    Attempt {
        n: call.n,
        channel: Arc::clone(&call.channel),
        credential: Arc::clone(&call.credential),
        model: Arc::clone(&call.model),
        outcome: OUTCOME,
        served: false,
        usage: Usage::default(),
        usage_source: UsageSource::None,
        cost: None,
        upstream_ref: call.upstream_ref.clone(),
        started_at: call.started_at,
        first_byte_at: None,
        ended_at: now.max(call.started_at),
    }
}

fn cost(list: &PriceList, amount: i64, estimate: bool) -> AttemptCost {
    let price = PriceRef { code: list.code.as_str().into(), version_no: list.version_no };
    AttemptCost { amount, currency: list.currency, price, estimate }
}

/// Prices usage, and says whether the amount is not what the list says of all of it: a meter
/// without a rate is left out. `None` when it does not fit, or when nothing that matters has a
/// rate. The call was made, so refusing is too late.
fn priced(
    list: &PriceList,
    all: &Usage,
    (tier, multiplier): (Option<&str>, Multiplier),
) -> Option<(i64, bool)> {
    let mut usage = *all;
    let mut odd = false;
    loop {
        match list.charge(&usage, tier, multiplier) {
            Ok(_) if odd && list.misses(all) => return None,
            Ok(charge) => return Some((charge.units, odd || charge.stood_in)),
            Err(pricing::Error::Unpriced(meter)) => {
                usage.set(meter, 0);
                odd = true;
            }
            Err(pricing::Error::Amount(_)) => return None,
        }
    }
}

#[cfg(test)]
mod tests;
