//! Whose turn it is: a start-time fair queue of calls that wait.
//!
//! First come, first served inside a tenant; among tenants each gets its share, however many calls
//! it lets wait. A tenant stands where its last turn ended, or, if it comes anew, at the queue's
//! virtual time: where the tenant stood that was served last. Not here: whether the one whose turn
//! it is may run ([`mod@line`]). Invariant: a waiter is served or removed exactly once, and one
//! that is removed costs its tenant nothing. Source: `reliability` 2.4.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

pub mod line; // the queue of one tag: who in it may run

pub use line::Line;

/// What one turn costs a tenant of weight 1.
const TURN: u64 = 1_000;

/// How long a waiter may be overtaken by smaller ones before it stops the line, microseconds.
pub const PATIENCE_US: i64 = 2_000_000;

/// Weight of what is known in the running mean of the time between turns, of 8.
const PACE_KEEP: i64 = 7;

/// What a turn costs a tenant of some weight: a higher weight is a larger share.
pub fn turn(weight: u32) -> u64 {
    TURN / u64::from(weight.max(1)).min(TURN)
}

/// One call that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The call.
    pub id: Uuid,
    /// Whose share it takes.
    pub tenant: Arc<str>,
    /// The node that waits with it.
    pub node: Uuid,
    /// When it began to wait, microseconds: its place inside its tenant.
    pub since_us: i64,
    /// When it stops waiting, microseconds.
    pub deadline_us: i64,
}

/// Inside a tenant: when it came, and the call.
type Place = (i64, Uuid);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seat {
    waiter: Waiter,
    turn: u64,
    /// Since when others have been served before it although it was its turn.
    passed_over_us: Option<i64>,
}

/// How fast a tenant's turns come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Pace {
    /// When it had its last turn, if it has been waiting since, microseconds.
    last_us: Option<i64>,
    /// The running mean of the time between two of its turns, microseconds.
    mean_us: Option<i64>,
}

impl Pace {
    fn turn(&mut self, now_us: i64) {
        if let Some(last_us) = self.last_us {
            let gap_us = now_us.saturating_sub(last_us).max(0);
            let mean = |mean_us: i64| mean_us.saturating_mul(PACE_KEEP).saturating_add(gap_us) / 8;
            self.mean_us = Some(self.mean_us.map_or(gap_us, mean));
        }
        self.last_us = Some(now_us);
    }
}

/// Those of one tenant, as operators see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Whose calls they are.
    pub tenant: Arc<str>,
    /// How many.
    pub calls: usize,
    /// Since when the first in line waits, microseconds.
    pub since_us: i64,
    /// The time between two of its turns, microseconds; `None` before there were two.
    pub pace_us: Option<i64>,
}

/// What a call finds that comes again to a line in which its tenant is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Calls of its tenant that wait, without itself.
    pub calls: i64,
    /// Tenants that take turns, its own among them.
    pub tenants: i64,
    /// The time between two turns of its tenant, microseconds; `None` before there were two.
    pub pace_us: Option<i64>,
}

/// Those of one tenant. Never empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Share {
    tag: u64,
    seats: BTreeMap<Place, Seat>,
}

/// The queue. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    tenants: BTreeMap<Arc<str>, Share>,
    /// Tenants by where they stand, then by who came first.
    order: BTreeSet<(u64, i64, Arc<str>)>,
    places: BTreeMap<Uuid, (Arc<str>, i64)>,
    /// Calls by the node that waits with them.
    homes: BTreeSet<(Uuid, Uuid)>,
    /// Where tenants begin that come again.
    finish: BTreeMap<Arc<str>, u64>,
    paces: BTreeMap<Arc<str>, Pace>,
    virtual_time: u64,
}

impl Queue {
    /// Lets a call wait, whose turn costs so much. `false` when it waits already.
    pub fn push(&mut self, waiter: Waiter, turn: u64) -> bool {
        if self.places.contains_key(&waiter.id) {
            return false;
        }
        let tenant = Arc::clone(&waiter.tenant);
        let tag = self.step_out(&tenant).unwrap_or_else(|| {
            self.finish.get(&tenant).copied().unwrap_or(0).max(self.virtual_time)
        });
        self.places.insert(waiter.id, (Arc::clone(&tenant), waiter.since_us));
        self.homes.insert((waiter.node, waiter.id));
        let share = self.tenants.entry(Arc::clone(&tenant)).or_default();
        let place = (waiter.since_us, waiter.id);
        share.seats.insert(place, Seat { waiter, turn, passed_over_us: None });
        self.step_in(&tenant, tag);
        true
    }

    /// Takes out a call that does not wait any more.
    pub fn remove(&mut self, id: Uuid) -> Option<Waiter> {
        let (tag, seat) = self.take(id)?;
        self.step_in(&seat.waiter.tenant, tag);
        Some(seat.waiter)
    }

    /// Takes out a call whose turn it is.
    pub fn serve(&mut self, id: Uuid, now_us: i64) -> Option<Waiter> {
        let (tag, seat) = self.take(id)?;
        self.virtual_time = self.virtual_time.max(tag);
        self.paces.entry(Arc::clone(&seat.waiter.tenant)).or_default().turn(now_us);
        self.step_in(&seat.waiter.tenant, tag.saturating_add(seat.turn));
        Some(seat.waiter)
    }

    fn take(&mut self, id: Uuid) -> Option<(u64, Seat)> {
        let (tenant, since_us) = self.places.remove(&id)?;
        let tag = self.step_out(&tenant)?;
        let seat = self.tenants.get_mut(&tenant)?.seats.remove(&(since_us, id))?;
        self.homes.remove(&(seat.waiter.node, id));
        Some((tag, seat))
    }

    /// Takes a tenant out of the order: where it stood.
    fn step_out(&mut self, tenant: &Arc<str>) -> Option<u64> {
        let share = self.tenants.get(tenant)?;
        let (since_us, _) = *share.seats.first_key_value()?.0;
        self.order.remove(&(share.tag, since_us, Arc::clone(tenant)));
        Some(share.tag)
    }

    /// Puts a tenant back into the order, or forgets it when none of it waits. An empty queue has
    /// no past.
    fn step_in(&mut self, tenant: &Arc<str>, tag: u64) {
        let Some(share) = self.tenants.get_mut(tenant) else { return };
        if let Some(((since_us, _), _)) = share.seats.first_key_value() {
            share.tag = tag;
            self.order.insert((tag, *since_us, Arc::clone(tenant)));
            return;
        }
        self.tenants.remove(tenant);
        if let Some(pace) = self.paces.get_mut(tenant) {
            // Until it waits again, no time passes between its turns.
            pace.last_us = None;
        }
        self.finish.insert(Arc::clone(tenant), tag);
        if self.tenants.is_empty() {
            *self = Self::default();
        }
    }

    /// The first of each tenant, in the order in which they are to be tried; at most so many.
    pub fn heads(&self, most: usize) -> Vec<Uuid> {
        let first =
            |tenant: &Arc<str>| Some(self.tenants.get(tenant)?.seats.first_key_value()?.0.1);
        self.order.iter().take(most).filter_map(|(_, _, tenant)| first(tenant)).collect()
    }

    /// Notes that the turn of a call came and it could not run. `true` when it has been passed over
    /// for so long that nobody behind it may be tried.
    pub fn pass_over(&mut self, id: Uuid, now_us: i64) -> bool {
        let Some((tenant, since_us)) = self.places.get(&id) else { return false };
        let share = self.tenants.get_mut(tenant);
        let seat = share.and_then(|share| share.seats.get_mut(&(*since_us, id)));
        let Some(seat) = seat else { return false };
        let since = *seat.passed_over_us.get_or_insert(now_us);
        now_us.saturating_sub(since) >= PATIENCE_US
    }

    /// One who waits.
    pub fn find(&self, id: Uuid) -> Option<&Waiter> {
        let (tenant, since_us) = self.places.get(&id)?;
        Some(&self.tenants.get(tenant)?.seats.get(&(*since_us, id))?.waiter)
    }

    /// Some of those who wait on a node, at most so many.
    pub fn of_node(&self, node: Uuid, most: usize) -> Vec<Uuid> {
        let own = self.homes.range((node, Uuid::nil())..=(node, Uuid::max()));
        own.take(most).map(|(_, id)| *id).collect()
    }

    /// The tenants that wait, in the order in which their turns come.
    pub fn waiting(&self) -> impl Iterator<Item = Waiting> {
        self.order.iter().map(|(_, since_us, tenant)| Waiting {
            tenant: Arc::clone(tenant),
            calls: self.len_of(tenant),
            since_us: *since_us,
            pace_us: self.paces.get(tenant).and_then(|pace| pace.mean_us),
        })
    }

    /// What a call of a tenant finds that comes again.
    pub fn ahead(&self, tenant: &str, id: Uuid) -> Ahead {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let own = self.places.get(&id).is_some_and(|(of, _)| **of == *tenant);
        let is_new = !self.tenants.contains_key(tenant);
        Ahead {
            calls: number(self.len_of(tenant)) - i64::from(own),
            tenants: number(self.tenants.len()) + i64::from(is_new),
            pace_us: self.paces.get(tenant).and_then(|pace| pace.mean_us),
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many of a tenant wait.
    pub fn len_of(&self, tenant: &str) -> usize {
        self.tenants.get(tenant).map_or(0, |share| share.seats.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiter(id: u128, tenant: &str) -> Waiter {
        let since_us = i64::try_from(id).unwrap();
        let (id, node) = (Uuid::from_u128(id), Uuid::nil());
        Waiter { id, tenant: tenant.into(), node, since_us, deadline_us: i64::MAX }
    }

    fn order(queue: &mut Queue) -> Vec<u128> {
        let mut order = vec![];
        while let Some(id) = queue.heads(1).first().copied() {
            queue.serve(id, 0).unwrap();
            order.push(id.as_u128());
        }
        order
    }

    #[test]
    fn a_tenant_is_served_in_the_order_of_arrival() {
        let mut queue = Queue::default();
        for id in 0..20 {
            assert!(queue.push(waiter(id, "a"), turn(1)));
        }
        assert!(!queue.push(waiter(3, "a"), turn(1)), "it waits already");
        assert_eq!(order(&mut queue), (0..20).collect::<Vec<_>>());
    }

    /// The measured case of `reliability` 2.4.
    #[test]
    fn a_tenant_that_floods_pushes_nobody_back() {
        let mut queue = Queue::default();
        for id in 0..300 {
            queue.push(waiter(id, "flood"), turn(1));
        }
        for n in 0..10 {
            queue.push(waiter(1_000 + n, "plain"), turn(1));
            queue.push(waiter(2_000 + n, "heavy"), turn(2));
        }
        let served = order(&mut queue);
        let last =
            |from: u128| served.iter().rposition(|id| (from..from + 10).contains(id)).unwrap() + 1;
        assert_eq!(served.len(), 320);
        assert!(last(1_000) <= 34, "{}", last(1_000));
        assert!(last(2_000) <= 24, "{}", last(2_000));
    }

    #[test]
    fn who_leaves_costs_its_tenant_nothing() {
        let mut queue = Queue::default();
        for id in 0..5 {
            queue.push(waiter(id, "a"), turn(1));
        }
        for id in 0..4 {
            assert!(queue.remove(Uuid::from_u128(id)).is_some());
        }
        queue.push(waiter(10, "b"), turn(1));
        queue.push(waiter(11, "a"), turn(1));
        queue.push(waiter(12, "b"), turn(1));
        assert_eq!(order(&mut queue), [4, 10, 11, 12]);
        assert!(queue.remove(Uuid::from_u128(10)).is_none(), "once");
    }

    #[test]
    fn who_comes_after_others_left_does_not_overtake_its_own() {
        let mut queue = Queue::default();
        for id in 0..3 {
            queue.push(waiter(id, "a"), turn(1));
        }
        queue.remove(Uuid::from_u128(0));
        queue.remove(Uuid::from_u128(1));
        queue.push(waiter(3, "a"), turn(1));
        assert_eq!(order(&mut queue), [2, 3]);
    }

    #[test]
    fn who_comes_back_has_its_old_place() {
        let mut queue = Queue::default();
        for (id, tenant) in [(1, "a"), (2, "b"), (3, "a")] {
            queue.push(waiter(id, tenant), turn(1));
        }
        let lost = queue.remove(Uuid::from_u128(1)).unwrap();
        queue.push(lost, turn(1));
        assert_eq!(order(&mut queue), [1, 2, 3]);
    }

    #[test]
    fn the_time_between_turns_is_known_while_a_tenant_waits() {
        let mut queue = Queue::default();
        for (id, tenant) in [(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "b"), (6, "a")] {
            queue.push(waiter(id, tenant), turn(1));
        }
        let pace = |queue: &Queue, tenant: &str| {
            queue.waiting().find(|one| *one.tenant == *tenant).and_then(|one| one.pace_us)
        };
        queue.serve(Uuid::from_u128(1), 100);
        assert_eq!(pace(&queue, "a"), None, "one turn is no pace");
        queue.serve(Uuid::from_u128(2), 900);
        assert_eq!(pace(&queue, "a"), Some(800));
        queue.serve(Uuid::from_u128(3), 900);
        assert_eq!(pace(&queue, "a"), Some(700));
        queue.remove(Uuid::from_u128(4));
        queue.remove(Uuid::from_u128(6));
        queue.push(waiter(7, "a"), turn(1));
        queue.push(waiter(8, "a"), turn(1));
        queue.serve(Uuid::from_u128(7), 9_000_000);
        assert_eq!(pace(&queue, "a"), Some(700), "it did not wait meanwhile");
        let calls: Vec<_> = queue.waiting().map(|one| (one.calls, one.since_us)).collect();
        assert_eq!(calls, [(1, 5), (1, 8)]);
    }

    #[test]
    fn the_first_of_each_tenant_is_tried_and_patience_ends() {
        let mut queue = Queue::default();
        for (id, tenant) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            queue.push(waiter(id, tenant), turn(1));
        }
        let ids = |list: &[u128]| list.iter().map(|id| Uuid::from_u128(*id)).collect::<Vec<_>>();
        assert_eq!(queue.heads(8), ids(&[1, 3, 4]));
        assert_eq!(queue.heads(2), ids(&[1, 3]));
        assert!(!queue.pass_over(Uuid::from_u128(1), 10));
        assert!(!queue.pass_over(Uuid::from_u128(1), PATIENCE_US));
        assert!(queue.pass_over(Uuid::from_u128(1), PATIENCE_US + 10));
    }

    proptest! {
        #[test]
        fn everyone_is_served_or_removed_once_and_in_order(
            steps in prop::collection::vec((0_u8..3, 0_u128..40, 0_usize..4, 1_u32..4), 1..300),
        ) {
            let (mut queue, mut waiting) = (Queue::default(), BTreeMap::new());
            for (what, id, tenant, weight) in steps {
                let tenant = ["a", "b", "c", "d"][tenant];
                match what {
                    0 => {
                        let fresh = !waiting.contains_key(&id);
                        waiting.entry(id).or_insert(tenant);
                        prop_assert_eq!(queue.push(waiter(id, tenant), turn(weight)), fresh);
                    }
                    1 => {
                        let was = waiting.remove(&id).is_some();
                        prop_assert_eq!(queue.remove(Uuid::from_u128(id)).is_some(), was);
                    }
                    _ => {
                        if let Some(head) = queue.heads(1).first().copied() {
                            let tenant = waiting.remove(&head.as_u128()).unwrap();
                            let served = queue.serve(head, 0).unwrap();
                            prop_assert_eq!(&*served.tenant, tenant);
                            let earlier = |(id, of): (&u128, &&str)| {
                                *of == tenant && *id < head.as_u128()
                            };
                            prop_assert!(!waiting.iter().any(earlier));
                        }
                    }
                }
                prop_assert_eq!(queue.len(), waiting.len());
                let of_all: usize = ["a", "b", "c", "d"].iter().map(|t| queue.len_of(t)).sum();
                prop_assert_eq!(of_all, waiting.len());
            }
        }
    }
}
