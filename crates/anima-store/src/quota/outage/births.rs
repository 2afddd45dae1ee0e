//! Purses that the shared counters lost, and calls of this node that nobody has told them of.
//!
//! Such a purse is seeded from the ledger, which knows of a call that was admitted alone when its
//! hold is written. Whoever is about to seed the purse is put off: not for each call, for that
//! would keep others waiting for as long as there are calls to tell of, but now and then while
//! they are told of. Invariant: a call that is not counted in a purse was admitted before the
//! purse was last put off: the ledger is read when its hold is there, or the call asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use anima_core::quota::{Bound, Check, Counter, Span, Tag};

use crate::quota::{QuotaStore, Unavailable};

/// How often a purse is put off at most: before it is ripe again, so that it is not seeded with
/// calls that are told of after that and then counted twice.
const AGAIN: Duration = Duration::from_millis(250);

/// When purses were put off while calls were told of that had been admitted before.
#[derive(Debug, Default)]
pub(super) struct PutOff(BTreeMap<(Tag, Counter, Span), Instant>);

impl PutOff {
    /// Puts a purse off of which nobody seemed to know what was spent. `true` when somebody has
    /// seeded it meanwhile, so that it has to be told of the call after all.
    pub(super) async fn is_seeded(
        &mut self,
        shared: &dyn QuotaStore,
        purse: &Bound,
    ) -> Result<bool, Unavailable> {
        let Check::Purse { span, .. } = purse.check else { return Ok(false) };
        let name = (purse.tag.clone(), purse.counter.clone(), span);
        if self.0.get(&name).is_some_and(|at| at.elapsed() < AGAIN) {
            return Ok(false);
        }
        let began = Instant::now();
        if !shared.put_off(purse).await? {
            return Ok(true);
        }
        self.0.insert(name, began);
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use anima_core::clock::Timestamp;
    use anima_core::config::{LimitKind, OnOutage};
    use anima_core::quota::{RuleName, Scope};

    use super::*;
    use crate::quota::SeedStore as _;
    use crate::quota::memory::MemoryQuotas;

    #[tokio::test(start_paused = true)]
    async fn a_purse_is_put_off_now_and_then_until_somebody_has_seeded_it() {
        let (shared, mut put_off) = (MemoryQuotas::default(), PutOff::default());
        let rule = RuleName {
            kind: LimitKind::Cost,
            count: None,
            window: None,
            currency: None,
            rate: None,
            shadow: false,
        };
        let counter = Counter { scope: Scope::App, code: "acme".into(), rule };
        let at = Timestamp::from_micros;
        let span = Span { from: at(0), to: at(3_600_000_000) };
        let check = Check::Purse { limit: 100, span };
        let tag = Tag::App("acme".into());
        let purse = Bound { counter, tag, check, units: 1, on_outage: OnOutage::Share };
        let name = async || shared.birth(&purse, at(7)).await.unwrap().unwrap().name;
        let mut told = async || put_off.is_seeded(&shared, &purse).await.unwrap();
        let first = name().await;
        assert!(!told().await);
        let second = name().await;
        assert_ne!(first, second, "whoever read for it reads again");
        assert!(!told().await);
        assert_eq!(name().await, second, "the next call does not keep others waiting");
        tokio::time::advance(AGAIN).await;
        assert!(!told().await);
        let third = name().await;
        assert_ne!(second, third, "nor is it seeded while there are more to tell of");
        assert!(shared.seed(&purse, (third, 60)).await.unwrap());
        tokio::time::advance(AGAIN).await;
        assert!(told().await, "the call is to be told of: its hold may be in no sum");
    }
}
