//! Alias + routes → plan: which channels to try, in which order, and why others were left out.
//!
//! Highest priority first; inside a priority a weighted draw without replacement. Invariant: a plan
//! never repeats a candidate, and every route is either a candidate or a skip with its reason.

use crate::clock::Rng;
use crate::snapshot::AliasEntry;

/// Why a route is not a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The channel's live switch is off.
    ChannelDisabled,
    /// The channel has no cost price for the model, and what cannot be booked is not sold.
    CostUnpriced,
    /// The channel's provider has no translator for the endpoint.
    EndpointUnserved,
    /// The channel has no credential to use.
    NoCredential,
}

/// A route that is not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// Index into the alias's routes.
    pub route: usize,
    /// Why.
    pub reason: SkipReason,
}

/// What to try, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Indices into the alias's routes, first choice first. No index twice.
    pub candidates: Vec<usize>,
    /// The rest.
    pub skips: Vec<Skip>,
}

/// Orders an alias's routes.
pub fn plan(alias: &AliasEntry, rng: &dyn Rng) -> Plan {
    let mut plan = Plan::default();
    for (route, entry) in alias.routes.iter().enumerate() {
        let reason = if !entry.channel.enabled {
            Some(SkipReason::ChannelDisabled)
        } else if entry.cost.is_none() {
            Some(SkipReason::CostUnpriced)
        } else {
            None
        };
        match reason {
            Some(reason) => plan.skips.push(Skip { route, reason }),
            None => plan.candidates.push(route),
        }
    }
    if plan.candidates.len() > 1 {
        order(alias, &mut plan.candidates, rng);
    }
    plan
}

/// Sorts by priority, then draws by weight inside each priority (Efraimidis and Spirakis, 2006: the
/// order of `ln(u) / weight` is a weighted draw without replacement).
fn order(alias: &AliasEntry, candidates: &mut [usize], rng: &dyn Rng) {
    let mut keyed: Vec<(i32, f64, usize)> = candidates
        .iter()
        .filter_map(|index| {
            let route = alias.routes.get(*index)?;
            let key = unit(rng.next_u64()).ln() / f64::from(route.weight.max(1));
            Some((route.priority, key, *index))
        })
        .collect();
    keyed.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
    for (slot, (_, _, index)) in candidates.iter_mut().zip(keyed) {
        *slot = index;
    }
}

/// A number in (0, 1] from 53 random bits.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double's mantissa exactly")]
fn unit(bits: u64) -> f64 {
    ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{SeededRng, Timestamp};
    use crate::config::{Route, Tables, Version};
    use crate::snapshot::Snapshot;

    fn alias(routes: &[(i32, u32)], disabled: &[usize]) -> std::sync::Arc<AliasEntry> {
        let row = |code: String, body: serde_json::Value, enabled: bool| Version {
            code,
            app: None,
            version_no: 1,
            effective_from: Timestamp::default(),
            effective_to: None,
            enabled,
            body,
        };
        let mut tables = Tables::default();
        let mut wanted = vec![];
        for (n, (priority, weight)) in routes.iter().enumerate() {
            let channel = format!("c{n}");
            let body = serde_json::json!({"provider": "p", "base_url": "http://x/v1"});
            let body = row(channel.clone(), body, !disabled.contains(&n));
            tables.channels.push(typed(body));
            let body = serde_json::json!({"side": "cost", "channel": channel, "model": "m",
                "currency": "USD", "meters": [{"meter": "requests", "amount": "1"}]});
            tables.prices.push(typed(row(format!("p{n}"), body, true)));
            wanted.push(Route { channel, model: "m".into(), priority: *priority, weight: *weight });
        }
        let body = serde_json::json!({"kind": "chat", "routes": wanted});
        tables.aliases.push(typed(row("a".into(), body, true)));
        std::sync::Arc::clone(Snapshot::compile(&tables, Timestamp::default()).alias("a").unwrap())
    }

    fn typed<B: serde::de::DeserializeOwned>(row: Version<serde_json::Value>) -> Version<B> {
        let body = serde_json::from_value(row.body).unwrap();
        Version {
            code: row.code,
            app: row.app,
            version_no: row.version_no,
            effective_from: row.effective_from,
            effective_to: row.effective_to,
            enabled: row.enabled,
            body,
        }
    }

    #[test]
    fn the_highest_number_goes_first_and_disabled_channels_are_skipped() {
        let alias = alias(&[(0, 1), (10, 1), (5, 1)], &[2]);
        let plan = plan(&alias, &SeededRng::new(1));
        assert_eq!(plan.candidates, vec![1, 0]);
        assert_eq!(plan.skips, vec![Skip { route: 2, reason: SkipReason::ChannelDisabled }]);
    }

    #[test]
    fn weights_share_the_first_place() {
        let alias = alias(&[(0, 3), (0, 1)], &[]);
        let rng = SeededRng::new(42);
        let first = (0..10_000).filter(|_| plan(&alias, &rng).candidates[0] == 0).count();
        assert!((7_300..7_700).contains(&first), "{first} of 10000, expected about 7500");
    }

    proptest! {
        #[test]
        fn a_plan_never_repeats_a_candidate(
            routes in prop::collection::vec((-3_i32..3, 1_u32..100), 1..12), seed: u64,
        ) {
            let alias = alias(&routes, &[]);
            let plan = plan(&alias, &SeededRng::new(seed));
            let mut seen = plan.candidates.clone();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), routes.len());
            let priorities: Vec<i32> = plan.candidates.iter().map(|c| routes[*c].0).collect();
            prop_assert!(priorities.windows(2).all(|w| w[0] >= w[1]));
        }
    }
}
