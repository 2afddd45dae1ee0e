//! The line of one tag: who waits for its limits, and who of them may run.
//!
//! Whatever changes the line or gives something back ends with [`Line::hand_off`], which takes for
//! the next in line what is there, under a claim that its call has to renew. The twin of the
//! script `line.lua`. Invariant: nobody behind is called before one ahead that could run; who is
//! called was taken everything that it waited for. Source: `reliability` 2.4.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{Queue, Waiter, turn};
use crate::clock::Timestamp;
use crate::quota::{Ask, Book, Bound, Check, Counter, Pass, Scope, Standing, Verdict, verdict};

/// How many that wait for what others wait for too are tried before nobody behind them is.
const DEPTH: usize = 8;
/// How many are looked at for that, as those that only their own key's limits stop do not count.
const LOOKED_MAX: usize = 64;
/// How many are looked at in one go, however many are called.
const LOOKS_MAX: usize = 512;
/// How many are called or taken out in one go, and how many of dead nodes beside them.
const CHANGES_MAX: usize = 64;
/// How long what is taken for a called one waits for it, microseconds.
pub const CLAIM_US: i64 = 5_000_000;
/// A node that was not heard of for this long is dead, and those that wait on it are out,
/// microseconds.
pub const NODE_US: i64 = 5_000_000;

/// How long what a hand-off found to be in the way is believed, microseconds: nodes whose calls
/// wait look four times in it, and when they are gone nobody waits.
const SHORT_US: i64 = 1_000_000;

/// A call that is to wait.
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// The call.
    pub id: Uuid,
    /// Whose share it takes.
    pub tenant: &'a Arc<str>,
    /// When it began to wait, if it comes back, which it always may; 0: now.
    pub since_us: i64,
    /// How long it waits, microseconds.
    pub within_us: i64,
    /// A higher weight is a larger share.
    pub weight: u32,
    /// How many of its tenant may wait.
    pub most: i64,
    /// How many of its tenant may be ahead of it, or its turn comes too late.
    pub ahead_max: i64,
    /// What it waits for: slots and rates of the line's tag.
    pub bounds: &'a [Bound],
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// What it waits for was taken for it.
    Called,
    /// It waits, since then, and it may be looked at again after so many microseconds.
    Waits(i64, Option<i64>),
    /// As many of its tenant wait as may.
    Full(i64),
    /// So many of its tenant are ahead that its turn comes too late.
    Vain(i64),
}

/// What a node is told of its waiters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attended {
    /// Those that are not in the line: called, or lost.
    pub absent: Vec<Uuid>,
    /// After so many microseconds somebody may run. `None`: when something is given back.
    pub next_us: Option<i64>,
}

/// Whom a hand-off called, and when to look again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Called {
    /// The calls.
    pub ids: Vec<Uuid>,
    /// As [`Attended::next_us`].
    pub next_us: Option<i64>,
}

/// The line. See the module.
#[derive(Debug, Clone, Default)]
pub struct Line {
    queue: Queue,
    asks: BTreeMap<Uuid, Vec<Bound>>,
    /// When each node is taken for dead, microseconds.
    nodes: BTreeMap<Uuid, i64>,
    /// What others share with those whose turn it is and that stands in their way, as the last
    /// hand-off found, and how much one of them needs of it: of a rate, microseconds.
    short: BTreeMap<Counter, i64>,
    /// When that was found, microseconds.
    short_at_us: i64,
}

/// What one in line is told.
enum Tried {
    Runs(Vec<Standing>),
    /// In how many microseconds its rates let it pass, if that is all; and what is in the way that
    /// is not its key's own, with what it needs of it.
    Waits(Option<i64>, Vec<(Counter, i64)>),
}

/// What a waiter may wait for under a tag: budgets are asked when its turn comes, and shadows stand
/// in nobody's way.
pub fn awaited(bounds: &[Bound], tag: &crate::quota::Tag) -> Vec<Bound> {
    let waits = |bound: &&Bound| {
        bound.tag == *tag
            && !bound.counter.rule.shadow
            && !matches!(bound.check, Check::Purse { .. })
    };
    bounds.iter().filter(waits).cloned().collect()
}

/// Where a bound stands for a call that does not wait, when its turn at a rate comes after so many
/// microseconds and those who wait for it have theirs first.
pub fn behind(bound: &Bound, found: Standing, wait_us: i64) -> Standing {
    let is_free = found.pass == Pass::Yes;
    match bound.check {
        Check::Slots { .. } if is_free => {
            Standing { pass: Pass::WhenFree, remaining: found.remaining + 1, ..found }
        }
        Check::Rate(rate) if found.pass != Pass::Never => {
            let (reset_us, units) = used(found, (rate.cost_us(bound.units), bound.units));
            let remaining = found.remaining + units;
            Standing { pass: Pass::After(wait_us), remaining, reset_us, ..found }
        }
        Check::Slots { .. } | Check::Rate(_) | Check::Purse { .. } => found,
    }
}

/// What of a rate is used before a call takes of it, and what the call was given, if it was.
fn used(found: Standing, (cost_us, units): (i64, i64)) -> (i64, i64) {
    let given = found.pass == Pass::Yes;
    if given { (found.reset_us - cost_us, units) } else { (found.reset_us, 0) }
}

impl Line {
    /// Where a bound stands for a call that does not wait and overtakes nobody: what it shares with
    /// one that waits for it is not there for it.
    pub fn judge(&self, book: &mut Book, bound: &Bound, ask: Ask<'_>) -> Standing {
        let found = book.judge(bound, ask);
        let counter = &bound.counter;
        let Some(first_us) = self.short.get(counter) else { return found };
        let is_old = ask.now.micros().saturating_sub(self.short_at_us) > SHORT_US;
        if is_old || counter.rule.shadow || book.holds(counter, ask.id) {
            return found;
        }
        let wait_us = match bound.check {
            Check::Rate(rate) => {
                let cost_us = rate.cost_us(bound.units);
                // The others in line are taken for as large as this one, which comes last.
                let waiting = i64::try_from(self.queue.len()).unwrap_or(i64::MAX);
                let all_us = first_us.saturating_add(cost_us.saturating_mul(waiting));
                let (used_us, _) = used(found, (cost_us, bound.units));
                used_us.saturating_add(all_us).saturating_sub(rate.burst_us()).max(1)
            }
            Check::Slots { .. } | Check::Purse { .. } => 1,
        };
        behind(bound, found, wait_us)
    }

    /// Takes all that is asked for under the line's tag, or nothing, and overtakes nobody.
    pub fn admit(&self, book: &mut Book, ask: Ask<'_>) -> Verdict {
        let standings = ask.bounds.iter().map(|bound| self.judge(book, bound, ask)).collect();
        let verdict = verdict(ask.bounds, standings);
        if let Verdict::Admitted(standings) = &verdict {
            for (bound, standing) in ask.bounds.iter().zip(standings) {
                book.take(bound, *standing, ask);
            }
        }
        verdict
    }

    /// Lets a call wait, or gives it what it asks for. One that waits already asks for this now.
    pub fn join(
        &mut self,
        book: &mut Book,
        (node, joining): (Uuid, Joining<'_>),
        now: Timestamp,
    ) -> (Joined, Called) {
        let now_us = now.micros();
        self.hear(node, now_us);
        self.bury(now_us);
        let id = joining.id;
        let since_us = if joining.since_us == 0 { now_us } else { joining.since_us };
        if self.queue.find(id).is_none() {
            let ahead = i64::try_from(self.queue.len_of(joining.tenant)).unwrap_or(i64::MAX);
            // One that comes back was let in before, and may have been called since.
            let is_back = joining.since_us != 0;
            if !is_back && ahead >= joining.most {
                return (Joined::Full(ahead), Called::default());
            }
            if !is_back && ahead > joining.ahead_max {
                return (Joined::Vain(ahead), Called::default());
            }
            let deadline_us = now_us.saturating_add(joining.within_us);
            let tenant = Arc::clone(joining.tenant);
            let waiter = Waiter { id, tenant, node, since_us, deadline_us };
            self.queue.push(waiter, turn(joining.weight));
        }
        self.asks.insert(id, joining.bounds.to_vec());
        let called = self.hand_off(book, now);
        let since_us = self.queue.find(id).map(|waiter| waiter.since_us);
        let joined = since_us.map_or(Joined::Called, |since| Joined::Waits(since, called.next_us));
        (joined, called)
    }

    /// Takes out a call that does not wait any more. `false` when it was not in line.
    pub fn leave(&mut self, book: &mut Book, id: Uuid, now: Timestamp) -> (bool, Called) {
        self.asks.remove(&id);
        let was = self.queue.remove(id).is_some();
        (was, self.hand_off(book, now))
    }

    /// Says that a node lives, and which of these calls do not wait here.
    pub fn attend(
        &mut self,
        book: &mut Book,
        (node, ids): (Uuid, &[Uuid]),
        now: Timestamp,
    ) -> (Attended, Called) {
        self.hear(node, now.micros());
        let called = self.hand_off(book, now);
        let absent = ids.iter().filter(|id| self.queue.find(**id).is_none()).copied().collect();
        (Attended { absent, next_us: called.next_us }, called)
    }

    /// Takes what is there for those whose turn it is.
    /// Its work does not grow with the number of those who wait.
    pub fn hand_off(&mut self, book: &mut Book, now: Timestamp) -> Called {
        let is_over = self.bury(now.micros());
        let (mut ids, mut looks) = (Vec::new(), 0);
        for _ in 0..CHANGES_MAX {
            if looks >= LOOKS_MAX {
                break;
            }
            match self.step(book, now, &mut looks) {
                Step::Called(id) => ids.push(id),
                Step::Removed => {}
                Step::Done(next_us) => {
                    return Called { ids, next_us: if is_over { next_us } else { Some(0) } };
                }
            }
        }
        Called { ids, next_us: Some(0) }
    }

    fn step(&mut self, book: &mut Book, now: Timestamp, looks: &mut usize) -> Step {
        let (mut next_us, mut blocked): (Option<i64>, usize) = (None, 0);
        let mut short: BTreeMap<Counter, i64> = BTreeMap::new();
        for id in self.queue.heads(LOOKED_MAX) {
            *looks += 1;
            let over = |waiter: &Waiter| {
                waiter.deadline_us <= now.micros() || self.is_dead(waiter.node, now.micros())
            };
            if self.queue.find(id).is_none_or(over) {
                self.queue.remove(id);
                self.asks.remove(&id);
                return Step::Removed;
            }
            match self.attempt(book, id, now) {
                Tried::Runs(standings) => {
                    self.take(book, (id, &standings), now);
                    return Step::Called(id);
                }
                Tried::Waits(wait, lacking) => {
                    let both = [next_us, wait].into_iter().flatten();
                    next_us = both.min();
                    // A limit of its own key is in nobody else's way.
                    let shared = !lacking.is_empty();
                    for (counter, cost_us) in lacking {
                        let most = short.entry(counter).or_default();
                        *most = cost_us.max(*most);
                    }
                    blocked += usize::from(shared);
                    let is_tired = self.queue.pass_over(id, now.micros());
                    if shared && (is_tired || blocked >= DEPTH) {
                        break;
                    }
                }
            }
        }
        (self.short, self.short_at_us) = (short, now.micros());
        Step::Done(next_us)
    }

    fn attempt(&self, book: &mut Book, id: Uuid, now: Timestamp) -> Tried {
        let bounds = self.asks.get(&id).map_or(&[][..], Vec::as_slice);
        let ask = Ask { id, bounds, now, lease_us: CLAIM_US };
        let standings: Vec<Standing> = bounds.iter().map(|bound| book.judge(bound, ask)).collect();
        let refused = || bounds.iter().zip(&standings).filter(|(_, s)| s.pass != Pass::Yes);
        if refused().next().is_none() {
            return Tried::Runs(standings);
        }
        let wait = |(_, standing): (&Bound, &Standing)| match standing.pass {
            Pass::After(us) => Some(us),
            Pass::Yes | Pass::WhenFree | Pass::Never | Pass::Unseeded => None,
        };
        let waits: Option<Vec<i64>> = refused().map(wait).collect();
        let shared = refused().filter(|(bound, _)| bound.counter.scope != Scope::Key);
        let needs = |(bound, _): (&Bound, &Standing)| match bound.check {
            Check::Rate(rate) => (bound.counter.clone(), rate.cost_us(bound.units)),
            Check::Slots { .. } | Check::Purse { .. } => (bound.counter.clone(), 0),
        };
        let shared = shared.map(needs).collect();
        Tried::Waits(waits.and_then(|waits| waits.into_iter().max()), shared)
    }

    fn take(&mut self, book: &mut Book, (id, standings): (Uuid, &[Standing]), now: Timestamp) {
        let bounds = self.asks.remove(&id).unwrap_or_default();
        let ask = Ask { id, bounds: &bounds, now, lease_us: CLAIM_US };
        for (bound, standing) in bounds.iter().zip(standings) {
            book.take(bound, *standing, ask);
        }
        self.queue.serve(id, now.micros());
    }

    fn hear(&mut self, node: Uuid, now_us: i64) {
        self.nodes.insert(node, now_us.saturating_add(NODE_US));
    }

    fn is_dead(&self, node: Uuid, now_us: i64) -> bool {
        self.nodes.get(&node).is_none_or(|expires_us| *expires_us <= now_us)
    }

    /// Takes out some of those whose node is dead. `false` when more of them may be left.
    fn bury(&mut self, now_us: i64) -> bool {
        let nodes = self.nodes.iter().filter(|(_, expires_us)| **expires_us <= now_us);
        let dead: Vec<Uuid> = nodes.map(|(node, _)| *node).collect();
        let mut left = CHANGES_MAX;
        for node in dead {
            let out = self.queue.of_node(node, left);
            left = left.saturating_sub(out.len());
            for id in out {
                self.queue.remove(id);
                self.asks.remove(&id);
            }
            if left == 0 {
                return false;
            }
            self.nodes.remove(&node);
        }
        true
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Who waits.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}

/// What one look at the line came to.
enum Step {
    Called(Uuid),
    Removed,
    Done(Option<i64>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Tag;
    use crate::quota::book::tests::{rate, slots};

    const NODE: Uuid = Uuid::from_u128(77);

    fn at(us: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + us)
    }

    fn join(
        line: &mut Line,
        book: &mut Book,
        (id, tenant): (u128, &str),
        asks: &[Bound],
    ) -> Joined {
        let tenant = tenant.into();
        let joining = many(id, &tenant, asks);
        let now = at(i64::try_from(id).unwrap());
        line.join(book, (NODE, joining), now).0
    }

    fn many<'a>(id: u128, tenant: &'a Arc<str>, bounds: &'a [Bound]) -> Joining<'a> {
        let (id, since_us, within_us) = (Uuid::from_u128(id), 0, 60_000_000);
        let (weight, most, ahead_max) = (1, 1_000, i64::MAX);
        Joining { id, tenant, since_us, within_us, weight, most, ahead_max, bounds }
    }

    fn free(line: &mut Line, book: &mut Book, id: u128, (asks, us): (&[Bound], i64)) -> Vec<u128> {
        book.close(Uuid::from_u128(id), asks, at(us).micros());
        line.hand_off(book, at(us)).ids.iter().map(Uuid::as_u128).collect()
    }

    #[test]
    fn what_is_given_back_is_taken_for_the_next_in_line() {
        let (mut line, mut book, one) = (Line::default(), Book::default(), [slots(1)]);
        assert_eq!(join(&mut line, &mut book, (1, "a"), &one), Joined::Called);
        assert!(matches!(join(&mut line, &mut book, (2, "a"), &one), Joined::Waits(_, None)));
        assert!(matches!(join(&mut line, &mut book, (3, "b"), &one), Joined::Waits(..)));
        assert_eq!(free(&mut line, &mut book, 1, (&one, 10)), [2]);
        assert_eq!(book.level(&one[0], at(10).micros()).unwrap().used, 1);
        assert_eq!(free(&mut line, &mut book, 2, (&one, 11)), [3]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_claim_that_nobody_renews_goes_to_the_next() {
        let (mut line, mut book, one) = (Line::default(), Book::default(), [slots(1)]);
        for id in 1..=2 {
            join(&mut line, &mut book, (id, "a"), &one);
        }
        let (attended, _) = line.attend(&mut book, (NODE, &[Uuid::from_u128(2)]), at(CLAIM_US - 1));
        assert!(attended.absent.is_empty());
        let (attended, _) = line.attend(&mut book, (NODE, &[Uuid::from_u128(2)]), at(CLAIM_US + 2));
        assert_eq!(attended.absent, [Uuid::from_u128(2)]);
    }

    #[test]
    fn a_rate_says_when_to_look_again() {
        let (mut line, mut book) = (Line::default(), Book::default());
        let slow = [rate(1, 1, 1)];
        assert_eq!(join(&mut line, &mut book, (1, "a"), &slow), Joined::Called);
        let Joined::Waits(_, Some(next_us)) = join(&mut line, &mut book, (2, "a"), &slow) else {
            panic!()
        };
        let called = line.hand_off(&mut book, at(2 + next_us));
        assert_eq!(called.ids, [Uuid::from_u128(2)]);
    }

    #[test]
    fn those_of_a_dead_node_are_out() {
        let (mut line, mut book, one) = (Line::default(), Book::default(), [slots(1)]);
        for id in 1..=3 {
            join(&mut line, &mut book, (id, "a"), &one);
        }
        line.hand_off(&mut book, at(NODE_US + 3));
        assert!(line.is_empty());
    }

    #[test]
    fn many_of_a_dead_node_are_taken_out_in_parts_and_never_called() {
        let (mut line, mut book, one) = (Line::default(), Book::default(), [slots(1)]);
        let tenant = "a".into();
        for id in 1..=200_i32 {
            let joining = many(u128::try_from(id).unwrap(), &tenant, &one);
            let node = Uuid::from_u128(joining.id.as_u128() % 2);
            line.join(&mut book, (node, joining), at(id.into()));
        }
        // Node 1 lives, node 0 does not; what ran is over.
        line.attend(&mut book, (Uuid::from_u128(1), &[]), at(NODE_US - 1));
        let mut called = vec![];
        let mut looks = 0;
        loop {
            looks += 1;
            book.close(Uuid::from_u128(1), &one, at(NODE_US + 300).micros());
            let said = line.hand_off(&mut book, at(NODE_US + 300));
            called.extend(said.ids);
            if said.next_us != Some(0) {
                break;
            }
        }
        assert_eq!((looks, called), (2, vec![Uuid::from_u128(3)]));
        assert_eq!(line.queue().len(), 98);
    }

    #[test]
    fn no_more_wait_than_may_and_none_in_vain() {
        let (mut line, mut book, one) = (Line::default(), Book::default(), [slots(1)]);
        for id in 1..=3 {
            join(&mut line, &mut book, (id, "a"), &one);
        }
        let tenant = "a".into();
        let joining = Joining {
            id: Uuid::from_u128(4),
            tenant: &tenant,
            since_us: 0,
            within_us: 1,
            weight: 1,
            most: 2,
            ahead_max: 1,
            bounds: &one,
        };
        let full = line.join(&mut book, (NODE, joining), at(4)).0;
        assert_eq!(full, Joined::Full(2));
        let vain = line.join(&mut book, (NODE, Joining { most: 9, ..joining }), at(4)).0;
        assert_eq!(vain, Joined::Vain(2));
        let back = line.join(&mut book, (NODE, Joining { since_us: 9, ..joining }), at(4)).0;
        assert_eq!(back, Joined::Waits(9, None));
    }

    #[test]
    fn the_ninth_key_of_an_app_is_served_although_eight_wait_for_their_own() {
        let (mut line, mut book) = (Line::default(), Book::default());
        let of = |tenant: &str| {
            let mut one = slots(1);
            (one.counter.scope, one.counter.code) = (Scope::Key, tenant.into());
            [one]
        };
        let tenants = ["a", "b", "c", "d", "e", "f", "g", "h"];
        for (id, tenant) in (1..).zip(tenants) {
            let own = of(tenant);
            assert_eq!(join(&mut line, &mut book, (id, tenant), &own), Joined::Called);
            let again = join(&mut line, &mut book, (100 + id, tenant), &own);
            assert!(matches!(again, Joined::Waits(_, None)));
        }
        let ninth = of("i");
        assert_eq!(join(&mut line, &mut book, (200, "i"), &ninth), Joined::Called);
    }

    #[test]
    fn what_is_awaited_is_of_the_tag_and_no_budget() {
        let mut other = slots(1);
        other.tag = Tag::TokenGroup("g".into());
        let bounds = [slots(1), other, crate::quota::book::tests::purse(5)];
        assert_eq!(awaited(&bounds, &bounds[0].tag), [slots(1)]);
    }
}
