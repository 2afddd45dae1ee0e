//! What operators see of limits: how far each is used, and who waits.
//!
//! Read only. Invariant: what is shown is what calls are judged by.

use anima_core::money::Currency;
use anima_core::quota::book::Level;
use anima_core::quota::rule::Take;
use anima_core::quota::{Bound, Check, Standing};
use anima_store::quota::Unavailable;
use anima_store::quota::line::Waits;

use super::super::call::Call;
use super::Admission;
use crate::http::rate_limits::RateLimits;
use crate::http::terms::Terms;

/// One limit and how far it is used.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The limit as it is now.
    pub bound: Bound,
    /// How far it is used; `None` for a budget that no call has asked for yet.
    pub level: Option<Level>,
}

/// Every limit that calls under these terms are judged by.
///
/// # Errors
/// When the counters cannot be reached.
pub async fn usage(
    admission: &Admission,
    terms: &Terms,
    currency: Currency,
) -> Result<Vec<Usage>, Unavailable> {
    let now = admission.clock.now();
    let bounds = terms.bounds(now, currency, Take::default());
    let levels = admission.store.levels(&bounds, now).await?;
    let both = bounds.into_iter().zip(levels);
    Ok(both.map(|(bound, level)| Usage { bound, level }).collect())
}

/// Where the limits of a call stand that was not judged by them. `None` when nobody can say.
pub(super) async fn told(admission: &Admission, call: &Call, take: Take) -> Option<RateLimits> {
    let now = admission.clock.now();
    let bounds = call.caller.terms.bounds(now, call.caller.currency, take);
    let levels = admission.store.levels(&bounds, now).await.ok()?;
    let standing = |(bound, level): (&Bound, &Option<Level>)| {
        let limit = match bound.check {
            Check::Slots { limit } | Check::Purse { limit, .. } => limit,
            Check::Rate(rate) => rate.burst,
        };
        let (used, reset_us) = level.map_or((0, 0), |level| (level.used, level.reset_us));
        let remaining = limit.saturating_sub(used).max(0);
        Standing { limit, remaining, reset_us, ..Standing::FREE }
    };
    let standings: Vec<Standing> = bounds.iter().zip(&levels).map(standing).collect();
    Some(RateLimits::of(&bounds, &standings, now))
}

/// Everyone who waits, on all nodes where they share the line, those of one key together.
///
/// # Errors
/// When the counters cannot be reached.
pub async fn waiting(admission: &Admission) -> Result<Vec<Waits>, Unavailable> {
    admission.store.waiting().await
}
