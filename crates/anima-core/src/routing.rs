//! Alias + routes → plan: which channels to try, in which order, and why others were left out.
//!
//! Highest priority first; inside a priority a weighted draw without replacement, and of two equal
//! routes in front the one with less to do. Not here: what is known about a route's health, which
//! the caller tells. Invariant: a plan never repeats a candidate, and every route is either a
//! candidate or a skip with its reason. Source: SPEC 7, `reliability` 3.2 and 4.

use crate::breaker::State;
use crate::clock::Timestamp;
use crate::snapshot::{AliasEntry, RouteEntry};

mod allowance;
mod chain;

pub use allowance::Allowance;
pub use chain::{DEPTH_MAX, cycle};

/// Declares the reasons and their words in one place.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $word:literal;)*) => {
        /// Why a route is not a candidate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SkipReason { $($(#[$doc])* $name),* }

        impl SkipReason {
            /// The word for metrics and records.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

reasons! {
    /// The channel's live switch is off.
    ChannelDisabled "channel_disabled";
    /// The channel has no cost price for the model, and what cannot be booked is not sold.
    CostUnpriced "cost_unpriced";
    /// The channel's provider has no translator for the endpoint.
    EndpointUnserved "endpoint_unserved";
    /// The channel has no credential to use.
    NoCredential "no_credential";
    /// An operator opened the channel's circuit.
    ForcedOpen "forced_open";
    /// The circuit of the channel's model is open.
    CircuitOpen "circuit_open";
    /// The circuit of the channel as a whole is open.
    ChannelCircuitOpen "channel_circuit_open";
    /// The circuit is half open and its probes are under way.
    ProbesTaken "probes_taken";
    /// Every credential of the channel is refused or used up.
    CredentialsFaulted "credentials_faulted";
    /// Every credential rests for as long as the provider asked.
    CoolingDown "cooling_down";
    /// As many calls as it may take at once are under way.
    Full "full";
    /// The caller asked for other channels.
    Steered "steered";
    /// It costs more than the caller wants to pay.
    AbovePriceLimit "above_price_limit";
}

/// What is known about a route when a call is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Why it is left out.
    pub skip: Option<SkipReason>,
    /// When that may be over.
    pub until: Option<Timestamp>,
    /// What its circuit does, that of the channel as a whole first.
    pub circuit: State,
    /// It is left out only because it is slow, or let in only as a probe for that reason.
    pub slow: bool,
    /// Others go first for a moment.
    pub yields: bool,
    /// What it has to do: calls under way by their usual time. Only compared.
    pub load: u64,
    /// The caller's own order, lower first.
    pub rank: usize,
}

impl Default for Seen {
    /// A route that nothing speaks against.
    fn default() -> Self {
        Self {
            skip: None,
            until: None,
            circuit: State::Closed,
            slow: false,
            yields: false,
            load: 0,
            rank: 0,
        }
    }
}

/// A route that is not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// Index into the alias's routes.
    pub route: usize,
    /// Why.
    pub reason: SkipReason,
    /// When that may be over.
    pub until: Option<Timestamp>,
    /// What its circuit did.
    pub circuit: State,
}

/// What to try, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Indices into the alias's routes, first choice first. No index twice.
    pub candidates: Vec<usize>,
    /// Those of the candidates that are let in although they are slow.
    pub readmitted: Vec<usize>,
    /// The rest.
    pub skips: Vec<Skip>,
}

impl Plan {
    /// When the first route that is left out for a while may be tried again.
    pub fn soonest(&self) -> Option<Timestamp> {
        self.skips.iter().filter_map(|skip| skip.until).min()
    }
}

/// What decides a candidate's place.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// What goes before chance, lowest first: whether it yields, the caller's own order, and the
    /// priority, highest first. In one number, since a plan compares some hundreds of them.
    ahead: u64,
    /// What chance says, lowest first.
    drawn: u64,
    load: u64,
    weight: u32,
    route: u32,
}

impl Place {
    fn new(at: (usize, &RouteEntry), seen: &Seen, drawn: u64) -> Self {
        let rank = u64::try_from(seen.rank).unwrap_or(RANK_MAX).min(RANK_MAX);
        let ahead =
            (u64::from(seen.yields) << 63) | (rank << 32) | u64::from(behind(at.1.priority));
        let route = u32::try_from(at.0).unwrap_or(u32::MAX);
        Self { ahead, drawn, load: seen.load, weight: at.1.weight.max(1), route }
    }

    const fn order(&self) -> u128 {
        ((self.ahead as u128) << 64) | self.drawn as u128
    }

    /// By priority alone, highest first.
    const fn behind(&self) -> u64 {
        self.ahead & 0xFFFF_FFFF
    }

    fn index(&self) -> usize {
        usize::try_from(self.route).unwrap_or(usize::MAX)
    }
}

/// The last place of a caller's own order that is told from others: 31 bits.
const RANK_MAX: u64 = (1 << 31) - 1;

/// A priority as a number that is lower the higher it is.
const fn behind(priority: i32) -> u32 {
    !(priority.cast_unsigned() ^ (1 << 31))
}

/// Orders an alias's routes. `bits` decide what is left to chance; `see` tells what is known about
/// a route.
pub fn plan(
    alias: &AliasEntry,
    bits: u64,
    mut see: impl FnMut(usize, &RouteEntry) -> Seen,
) -> Plan {
    let mut plan = Plan::default();
    let mut places = Vec::with_capacity(alias.routes.len());
    let mut slow = Vec::new();
    let mut bits = bits;
    let mut weights = alias.routes.iter().map(|entry| entry.weight.max(1));
    let is_even = weights.next().is_none_or(|first| weights.all(|weight| weight == first));
    for at in alias.routes.iter().enumerate() {
        let seen = see(at.0, at.1);
        let place = Place::new(at, &seen, drawn(next(&mut bits), at.1.weight, is_even));
        match seen.skip {
            None => places.push(place),
            Some(reason) => {
                let Seen { until, circuit, .. } = seen;
                plan.skips.push(Skip { route: at.0, reason, until, circuit });
            }
        }
        if seen.slow {
            slow.push(place);
        }
    }
    readmit(&mut plan, &mut places, slow);
    places.sort_unstable_by_key(Place::order);
    if let [first, second, ..] = &mut places[..] {
        let equal = |p: &Place| (p.ahead, p.weight);
        if equal(first) == equal(second) && second.load < first.load {
            std::mem::swap(first, second);
        }
    }
    plan.candidates.extend(places.iter().map(Place::index));
    plan
}

/// Takes slow routes back until at most half of the weight is left out for slowness: slow answers
/// are better than too few channels (`reliability` 3.2). Those that only probes may try are as good
/// as left out.
fn readmit(plan: &mut Plan, places: &mut Vec<Place>, mut slow: Vec<Place>) {
    let sum = |places: &[Place]| places.iter().map(|p| u64::from(p.weight)).sum::<u64>();
    let is_in = |places: &[Place], place: &Place| places.iter().any(|p| p.route == place.route);
    let mut ejected = sum(&slow);
    let fit = places.iter().filter(|place| !is_in(&slow, place));
    let total = fit.map(|place| u64::from(place.weight)).sum::<u64>() + ejected;
    slow.sort_unstable_by_key(|place| (place.behind(), place.load));
    let mut back = slow.into_iter();
    while ejected * 2 > total {
        let Some(place) = back.next() else { return };
        ejected -= u64::from(place.weight);
        plan.readmitted.push(place.index());
        if !is_in(places, &place) {
            plan.skips.retain(|skip| skip.route != place.index());
            places.push(place);
        }
    }
}

/// The next 64 of a repeatable sequence of bits (`SplitMix64`).
const fn next(bits: &mut u64) -> u64 {
    *bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*bits ^ (*bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What chance gives a route of such a weight, lowest first: a weighted draw without replacement
/// is the order of `-ln(u) / weight`, u in (0, 1] (Efraimidis and Spirakis, 2006). Of equal weights
/// that is the order of `u` itself, highest first.
fn drawn(bits: u64, weight: u32, is_even: bool) -> u64 {
    let bits = bits >> 11;
    if is_even {
        return !bits;
    }
    // Never below nothing, and of such numbers the bits are in the numbers' order.
    (unit(bits).ln().abs() / f64::from(weight.max(1))).to_bits()
}

/// A number in (0, 1] from 53 random bits.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double's mantissa exactly")]
fn unit(bits: u64) -> f64 {
    (bits + 1) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Rng as _, SeededRng, Timestamp};
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

    /// What a snapshot alone tells.
    fn plain(entry: &RouteEntry) -> Seen {
        let skip = (!entry.channel.enabled).then_some(SkipReason::ChannelDisabled);
        Seen { skip, ..Seen::default() }
    }

    fn first(alias: &AliasEntry, rng: &SeededRng, see: impl Fn(usize) -> Seen) -> usize {
        plan(alias, rng.next_u64(), |n, _| see(n)).candidates[0]
    }

    #[test]
    fn the_highest_number_goes_first_and_disabled_channels_are_skipped() {
        let alias = alias(&[(0, 1), (10, 1), (5, 1)], &[2]);
        let plan = plan(&alias, 1, |_, entry| plain(entry));
        assert_eq!(plan.candidates, vec![1, 0]);
        let reason = SkipReason::ChannelDisabled;
        assert_eq!(
            plan.skips,
            vec![Skip { route: 2, reason, until: None, circuit: State::Closed }]
        );
    }

    #[test]
    fn weights_share_the_first_place() {
        let alias = alias(&[(0, 3), (0, 1)], &[]);
        let rng = SeededRng::new(42);
        let first = (0..10_000).filter(|_| first(&alias, &rng, |_| Seen::default()) == 0).count();
        assert!((7_300..7_700).contains(&first), "{first} of 10000, expected about 7500");
    }

    #[test]
    fn of_two_equal_routes_the_one_with_less_to_do_goes_first() {
        let alias = alias(&[(0, 1), (0, 1), (0, 1)], &[]);
        let rng = SeededRng::new(42);
        let load = |n| Seen { load: [100, 1, 100][n], ..Seen::default() };
        let idle = (0..3_000).filter(|_| first(&alias, &rng, load) == 1).count();
        assert!((1_900..2_100).contains(&idle), "{idle} of 3000: whenever it was one of the two");
    }

    #[test]
    fn load_moves_nothing_between_priorities_or_weights() {
        for routes in [[(1, 1), (0, 1)], [(0, 1_000_000), (0, 1)]] {
            let alias = alias(&routes, &[]);
            let load = |n| Seen { load: [100, 1][n], ..Seen::default() };
            assert_eq!(first(&alias, &SeededRng::new(3), load), 0);
        }
    }

    #[test]
    fn chance_orders_equal_weights_as_it_orders_others() {
        for bits in [0, 1 << 11, u64::MAX / 2, u64::MAX - (1 << 11), u64::MAX] {
            let next = bits.saturating_add(1 << 11);
            assert!(drawn(next, 7, true) <= drawn(bits, 7, true));
            assert!(drawn(next, 7, false) <= drawn(bits, 7, false), "{bits}");
        }
        assert_eq!(drawn(u64::MAX, 7, false), 0);
    }

    #[test]
    fn a_rank_goes_before_any_priority_and_yielding_before_any_rank() {
        let alias = alias(&[(i32::MIN, 1), (i32::MAX, 1), (0, 1), (i32::MAX, 1)], &[]);
        let seen = |n: usize, _: &RouteEntry| {
            let rank = [0, 1, 0, usize::MAX][n];
            Seen { rank, yields: n == 2, ..Seen::default() }
        };
        assert_eq!(plan(&alias, 1, seen).candidates, vec![0, 1, 3, 2]);
    }

    #[test]
    fn a_route_that_yields_goes_behind_all_others() {
        let alias = alias(&[(9, 1), (0, 1)], &[]);
        let yields = |n| Seen { yields: n == 0, ..Seen::default() };
        assert_eq!(first(&alias, &SeededRng::new(3), yields), 1);
    }

    #[test]
    fn at_most_half_of_the_weight_is_left_out_for_slowness() {
        let alias = alias(&[(0, 1), (0, 1), (0, 1)], &[]);
        let skip = Some(SkipReason::CircuitOpen);
        let slow = |_: usize, _: &RouteEntry| Seen { skip, slow: true, ..Seen::default() };
        let made = plan(&alias, 1, slow);
        assert_eq!((made.candidates.len(), made.skips.len()), (2, 1));
        let (mut readmitted, mut candidates) = (made.readmitted, made.candidates);
        readmitted.sort_unstable();
        candidates.sort_unstable();
        assert_eq!(readmitted, candidates, "the plan says whom it took back");
        let failing = |_: usize, _: &RouteEntry| Seen { skip, ..Seen::default() };
        assert_eq!(plan(&alias, 1, failing).candidates.len(), 0, "failures have no such bound");
    }

    #[test]
    fn a_slow_route_that_probes_may_try_is_taken_back_too() {
        let alias = alias(&[(0, 1), (0, 1), (0, 1)], &[]);
        // One is open, one half open, one fit.
        let seen = |fit: bool| {
            move |n: usize, _: &RouteEntry| Seen {
                skip: (n == 0).then_some(SkipReason::CircuitOpen),
                slow: n < 2 || !fit,
                load: [9, 1, 5][n],
                ..Seen::default()
            }
        };
        let made = plan(&alias, 1, seen(true));
        assert_eq!((made.readmitted, made.skips.len()), (vec![1], 1));
        let made = plan(&alias, 1, seen(false));
        assert_eq!((made.readmitted, made.skips.len()), (vec![1, 2], 1), "and each once");
        assert_eq!(made.candidates.len(), 2);
    }

    #[test]
    fn the_soonest_time_is_that_of_any_skip() {
        let alias = alias(&[(0, 1), (0, 1)], &[]);
        let made = plan(&alias, 1, |n, _| Seen {
            skip: Some(SkipReason::CircuitOpen),
            until: Some(Timestamp::from_micros([9, 5][n])),
            ..Seen::default()
        });
        assert_eq!(made.soonest(), Some(Timestamp::from_micros(5)));
    }

    proptest! {
        #[test]
        fn a_plan_never_repeats_a_candidate_and_forgets_no_route(
            routes in prop::collection::vec((-3_i32..3, 1_u32..100), 1..12),
            known in prop::collection::vec((prop::bool::ANY, prop::bool::ANY, 0_u64..5), 12),
            seed: u64,
        ) {
            let alias = alias(&routes, &[]);
            let plan = plan(&alias, seed, |n, _| {
                let (skipped, slow, load) = known[n];
                let skip = skipped.then_some(SkipReason::CircuitOpen);
                Seen { skip, slow, load, ..Seen::default() }
            });
            let mut all: Vec<usize> = plan.candidates.clone();
            all.extend(plan.skips.iter().map(|skip| skip.route));
            all.sort_unstable();
            prop_assert_eq!(all, (0..routes.len()).collect::<Vec<_>>());
            let priorities: Vec<i32> = plan.candidates.iter().map(|c| routes[*c].0).collect();
            prop_assert!(priorities.windows(2).all(|w| w[0] >= w[1]));
        }
    }
}
