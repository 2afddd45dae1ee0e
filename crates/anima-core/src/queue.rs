//! Whose turn it is: a start-time fair queue of calls that wait.
//!
//! First come, first served inside a tenant; among tenants each gets its share, however many calls
//! it lets wait. A waiter's tag is the later of the queue's virtual time and its tenant's last tag
//! plus one turn; the virtual time is the tag that was served last. Not here: whether the one whose
//! turn it is may run (`quota`). Invariant: a waiter is served, removed or expired exactly once,
//! and one that is not served gives its turn back to its tenant. Source: `reliability` 2.4.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

/// What one turn costs a tenant of weight 1.
const TURN: u64 = 1_000;

/// How long a waiter may be overtaken by smaller ones before it stops the line, microseconds.
pub const PATIENCE_US: i64 = 2_000_000;

/// One call that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The call.
    pub id: Uuid,
    /// Whose share it takes.
    pub tenant: Arc<str>,
    /// When it began to wait, microseconds.
    pub since_us: i64,
    /// When it stops waiting, microseconds.
    pub deadline_us: i64,
}

/// Tag and order of arrival.
type Place = (u64, u64);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seat {
    waiter: Waiter,
    turn: u64,
    /// Since when others have been served before it although it was its turn.
    passed_over_us: Option<i64>,
}

/// The queue. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    seats: BTreeMap<Place, Seat>,
    places: BTreeMap<Uuid, Place>,
    /// The tag that each tenant's next waiter begins at. Tenants that are behind are not kept.
    finish: BTreeMap<Arc<str>, u64>,
    /// How many of each tenant wait.
    counts: BTreeMap<Arc<str>, usize>,
    virtual_time: u64,
    arrivals: u64,
}

impl Queue {
    /// Lets a call wait. A higher weight is a larger share. `false` when it waits already.
    pub fn push(&mut self, waiter: Waiter, weight: u32) -> bool {
        if self.places.contains_key(&waiter.id) {
            return false;
        }
        let turn = TURN / u64::from(weight.max(1)).min(TURN);
        let begun = self.finish.get(&waiter.tenant).copied().unwrap_or(0);
        let tag = begun.max(self.virtual_time);
        self.finish.insert(Arc::clone(&waiter.tenant), tag.saturating_add(turn));
        *self.counts.entry(Arc::clone(&waiter.tenant)).or_default() += 1;
        self.arrivals += 1;
        let place = (tag, self.arrivals);
        self.places.insert(waiter.id, place);
        self.seats.insert(place, Seat { waiter, turn, passed_over_us: None });
        true
    }

    /// Takes out a call that does not wait any more. Its turn is its tenant's again.
    pub fn remove(&mut self, id: Uuid) -> Option<Waiter> {
        let seat = self.take(id)?;
        if let Some(finish) = self.finish.get_mut(&seat.waiter.tenant) {
            *finish = finish.saturating_sub(seat.turn);
        }
        Some(seat.waiter)
    }

    /// Takes out a call whose turn it is.
    pub fn serve(&mut self, id: Uuid) -> Option<Waiter> {
        let tag = self.places.get(&id)?.0;
        let seat = self.take(id)?;
        self.virtual_time = self.virtual_time.max(tag);
        if self.seats.is_empty() {
            self.finish.clear();
        }
        Some(seat.waiter)
    }

    fn take(&mut self, id: Uuid) -> Option<Seat> {
        let place = self.places.remove(&id)?;
        let seat = self.seats.remove(&place)?;
        if let Some(count) = self.counts.get_mut(&seat.waiter.tenant) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&seat.waiter.tenant);
            }
        }
        Some(seat)
    }

    /// The first of each tenant, in the order in which they are to be tried; at most so many.
    pub fn heads(&self, most: usize) -> Vec<Uuid> {
        let mut seen = BTreeSet::new();
        let firsts = self.seats.values().filter(|seat| seen.insert(&seat.waiter.tenant));
        firsts.take(most).map(|seat| seat.waiter.id).collect()
    }

    /// Notes that the turn of a call came and it could not run. `true` when it has been passed over
    /// for so long that nobody behind it may be tried.
    pub fn pass_over(&mut self, id: Uuid, now_us: i64) -> bool {
        let seat = self.places.get(&id).and_then(|place| self.seats.get_mut(place));
        let Some(seat) = seat else { return false };
        let since = *seat.passed_over_us.get_or_insert(now_us);
        now_us.saturating_sub(since) >= PATIENCE_US
    }

    /// Takes out everyone whose time is over.
    pub fn expire(&mut self, now_us: i64) -> Vec<Waiter> {
        let mut over = Vec::new();
        while let Some(id) = self.first_over(now_us) {
            over.extend(self.remove(id));
        }
        over
    }

    fn first_over(&self, now_us: i64) -> Option<Uuid> {
        let over = |seat: &&Seat| seat.waiter.deadline_us <= now_us;
        self.seats.values().find(over).map(|seat| seat.waiter.id)
    }

    /// Everyone who waits, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.seats.values().map(|seat| &seat.waiter)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// How many of a tenant wait.
    pub fn len_of(&self, tenant: &str) -> usize {
        self.counts.get(tenant).copied().unwrap_or(0)
    }

    /// When the next one's time is over, microseconds.
    pub fn next_deadline_us(&self) -> Option<i64> {
        self.seats.values().map(|seat| seat.waiter.deadline_us).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiter(id: u128, tenant: &str) -> Waiter {
        let (since_us, deadline_us) = (0, 1_000_000);
        Waiter { id: Uuid::from_u128(id), tenant: tenant.into(), since_us, deadline_us }
    }

    fn order(queue: &mut Queue) -> Vec<u128> {
        let mut order = vec![];
        while let Some(id) = queue.heads(1).first().copied() {
            queue.serve(id).unwrap();
            order.push(id.as_u128());
        }
        order
    }

    #[test]
    fn a_tenant_is_served_in_the_order_of_arrival() {
        let mut queue = Queue::default();
        for id in 0..20 {
            assert!(queue.push(waiter(id, "a"), 1));
        }
        assert!(!queue.push(waiter(3, "a"), 1), "it waits already");
        assert_eq!(order(&mut queue), (0..20).collect::<Vec<_>>());
    }

    /// The measured case of `reliability` 2.4.
    #[test]
    fn a_tenant_that_floods_pushes_nobody_back() {
        let mut queue = Queue::default();
        for id in 0..300 {
            queue.push(waiter(id, "flood"), 1);
        }
        for n in 0..10 {
            queue.push(waiter(1_000 + n, "plain"), 1);
            queue.push(waiter(2_000 + n, "heavy"), 2);
        }
        let served = order(&mut queue);
        let last =
            |from: u128| served.iter().rposition(|id| (from..from + 10).contains(id)).unwrap() + 1;
        assert_eq!(served.len(), 320);
        assert!(last(1_000) <= 34, "{}", last(1_000));
        assert!(last(2_000) <= 24, "{}", last(2_000));
    }

    #[test]
    fn who_leaves_gives_its_turn_back() {
        let mut queue = Queue::default();
        for id in 0..5 {
            queue.push(waiter(id, "a"), 1);
        }
        for id in 0..5 {
            assert!(queue.remove(Uuid::from_u128(id)).is_some());
        }
        queue.push(waiter(10, "b"), 1);
        queue.push(waiter(11, "a"), 1);
        queue.push(waiter(12, "b"), 1);
        assert_eq!(order(&mut queue), [10, 11, 12]);
        assert!(queue.remove(Uuid::from_u128(10)).is_none(), "once");
    }

    #[test]
    fn the_first_of_each_tenant_is_tried_and_patience_ends() {
        let mut queue = Queue::default();
        for (id, tenant) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            queue.push(waiter(id, tenant), 1);
        }
        let ids = |list: &[u128]| list.iter().map(|id| Uuid::from_u128(*id)).collect::<Vec<_>>();
        assert_eq!(queue.heads(8), ids(&[1, 3, 4]));
        assert_eq!(queue.heads(2), ids(&[1, 3]));
        assert!(!queue.pass_over(Uuid::from_u128(1), 10));
        assert!(!queue.pass_over(Uuid::from_u128(1), PATIENCE_US));
        assert!(queue.pass_over(Uuid::from_u128(1), PATIENCE_US + 10));
    }

    #[test]
    fn who_waited_too_long_is_out() {
        let mut queue = Queue::default();
        queue.push(waiter(1, "a"), 1);
        queue.push(Waiter { deadline_us: 5, ..waiter(2, "a") }, 1);
        assert_eq!(queue.next_deadline_us(), Some(5));
        let over: Vec<_> = queue.expire(5).iter().map(|waiter| waiter.id.as_u128()).collect();
        assert_eq!((over, queue.len(), queue.len_of("a")), (vec![2], 1, 1));
    }

    proptest! {
        #[test]
        fn everyone_is_served_or_removed_once(
            steps in prop::collection::vec((0_u8..3, 0_u128..40, 0_usize..4, 1_u32..4), 1..300),
        ) {
            let (mut queue, mut waiting) = (Queue::default(), BTreeSet::new());
            for (what, id, tenant, weight) in steps {
                let tenant = ["a", "b", "c", "d"][tenant];
                match what {
                    0 => {
                        let fresh = waiting.insert(id);
                        prop_assert_eq!(queue.push(waiter(id, tenant), weight), fresh);
                    }
                    1 => {
                        let was = waiting.remove(&id);
                        prop_assert_eq!(queue.remove(Uuid::from_u128(id)).is_some(), was);
                    }
                    _ => {
                        if let Some(head) = queue.heads(1).first() {
                            waiting.remove(&head.as_u128());
                            let head = *head;
                            prop_assert!(queue.serve(head).is_some());
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
