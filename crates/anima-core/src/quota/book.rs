//! The counters of one process: the same arithmetic as the scripts on the shared ones.
//!
//! [`Book::judge`] looks at every bound and writes nothing, [`Book::take`] writes all of them.
//! Whoever spans several books judges in each before it takes in any. Invariant: what a ticket took
//! is closed once; a slot is given back by its owner or by its expiry, so no count can fall below
//! zero; what an owner that is gone held of a purse counts as spent. Source: `reliability` 2.2.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::config::LimitKind;

use super::rate::{self, Judged};
use super::{Ask, Bound, Check, Counter, Pass, Rate, Span, Standing, Verdict, verdict};

mod birth; // from when on the ledger knows of all that a purse does not
mod more; // what a running call takes and gives beyond its admission

pub use birth::{Birth, LATE_US, RIPENS_US};
pub use more::more_standing;

/// Of a purse, the share at which a warning is due (`reliability` 2.2).
const WARN_PERCENT: i128 = 80;

/// Leases that are looked at in one go; the rest waits for the next.
const PURGED_MAX: usize = 64;

/// Where a counter is: of money there is one for each span, by its beginning, microseconds.
type Place = (Counter, i64);

fn place(counter: &Counter, span: Option<Span>) -> Place {
    (counter.clone(), span.map_or(0, |span| span.from.micros()))
}

fn place_of(bound: &Bound) -> Place {
    match bound.check {
        Check::Purse { span, .. } => place(&bound.counter, Some(span)),
        Check::Slots { .. } | Check::Rate(_) => place(&bound.counter, None),
    }
}

/// What one counter knows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Expiry of each lease, microseconds.
    Slots(BTreeMap<Uuid, i64>),
    /// The instant at which the rate is whole again, microseconds.
    Rate(i64),
    /// One span's money.
    Purse(Purse),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Purse {
    span: Span,
    spent: i64,
    held: i64,
    /// Expiry and amount.
    holds: BTreeMap<Uuid, (i64, i64)>,
    /// The last charge from outside. A repetition comes before the next.
    charged: Option<Uuid>,
    /// Changes with each charge and repair.
    mended: i64,
}

/// What a ticket took of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    counter: Counter,
    what: Share,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Share {
    Slot,
    /// How far it moved the instant, and to where.
    Rate(i64, i64),
    Money(Span, i64),
}

impl Taken {
    fn place(&self) -> Place {
        match self.what {
            Share::Money(span, _) => place(&self.counter, Some(span)),
            Share::Slot | Share::Rate(..) => place(&self.counter, None),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ticket {
    expires_us: i64,
    taken: Vec<Taken>,
}

/// What a counter shows to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Units in use, spent or ahead of time.
    pub used: i64,
    /// Of those, held by calls that run. Purses only.
    pub held: i64,
    /// Microseconds until it is whole again; 0 when unknown.
    pub reset_us: i64,
}

/// What a purse believes, to be compared with the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What was spent by calls that have ended.
    pub spent: i64,
    /// The calls that hold something of it, whose amounts are not among that.
    pub holds: Vec<Uuid>,
    /// Tells whether somebody has corrected it since.
    pub mended: i64,
}

/// The counters. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    counters: BTreeMap<Place, State>,
    births: BTreeMap<Counter, birth::Born>,
    tickets: BTreeMap<Uuid, Ticket>,
}

#[expect(clippy::multiple_inherent_impl, reason = "a call's admission and its life are two files")]
impl Book {
    /// Judges and takes in one go, for a caller with one book.
    pub fn admit(&mut self, ask: Ask<'_>) -> Verdict {
        let standings = ask.bounds.iter().map(|bound| self.judge(bound, ask)).collect();
        let verdict = verdict(ask.bounds, standings);
        let Verdict::Admitted(standings) = verdict else { return verdict };
        for (bound, standing) in ask.bounds.iter().zip(&standings) {
            self.take(bound, *standing, ask);
        }
        Verdict::Admitted(standings)
    }

    /// Where a bound stands for an ask, after taking when it passes. What has expired is cleared on
    /// the way, nothing else is written.
    pub fn judge(&mut self, bound: &Bound, ask: Ask<'_>) -> Standing {
        let now_us = ask.now.micros();
        let again = self.has_taken(ask.id, &bound.counter);
        let state = self.counters.get_mut(&place_of(bound));
        match bound.check {
            Check::Slots { limit } => {
                let leases = match state {
                    Some(State::Slots(leases)) => {
                        expire_leases(leases, now_us);
                        Some(&*leases)
                    }
                    Some(State::Rate(_) | State::Purse(_)) | None => None,
                };
                let used =
                    leases.map_or(0, |leases| i64::try_from(leases.len()).unwrap_or(i64::MAX));
                // One whose lease is over may be another's by now.
                let again = again && leases.is_some_and(|leases| leases.contains_key(&ask.id));
                slots(limit, used, again)
            }
            Check::Rate(rate) => {
                let tat = match state {
                    Some(State::Rate(tat)) => *tat,
                    Some(State::Slots(_) | State::Purse(_)) | None => 0,
                };
                rated(rate, (tat, now_us), bound.units, again)
            }
            Check::Purse { limit, span } => match state {
                Some(State::Purse(purse)) if purse.span == span => {
                    purse.expire(now_us);
                    let reset_us = if span.is_ever() { 0 } else { span.to.since(ask.now) };
                    purse.standing(limit, bound.units, (reset_us, again))
                }
                Some(_) | None => {
                    Standing { pass: Pass::Unseeded, limit, remaining: 0, reset_us: 0, warn: false }
                }
            },
        }
    }

    /// Takes what `standing` said could be taken; a slot that the ticket has is kept for this
    /// lease. A shadow limit that is over takes nothing, as if it had refused.
    pub fn take(&mut self, bound: &Bound, standing: Standing, ask: Ask<'_>) {
        let again = self.has_taken(ask.id, &bound.counter);
        if standing.pass != Pass::Yes || (again && !matches!(bound.check, Check::Slots { .. })) {
            return;
        }
        let (now_us, expires_us) =
            (ask.now.micros(), ask.now.micros().saturating_add(ask.lease_us));
        let what = match bound.check {
            Check::Slots { .. } => {
                let state = self.counters.entry(place_of(bound));
                let fresh = State::Slots(BTreeMap::new());
                if let State::Slots(leases) = state.or_insert(fresh) {
                    // A claim does not shorten the lease of one that runs.
                    let lease = leases.entry(ask.id).or_insert(expires_us);
                    *lease = expires_us.max(*lease);
                }
                Share::Slot
            }
            Check::Rate(rate) => {
                let state = self.counters.entry(place_of(bound)).or_insert(State::Rate(0));
                let cost = rate.cost_us(bound.units);
                let State::Rate(tat) = state else { return };
                *tat = rate.start(*tat, now_us).saturating_add(cost);
                Share::Rate(cost, *tat)
            }
            Check::Purse { span, .. } => {
                let Some(State::Purse(purse)) = self.counters.get_mut(&place_of(bound)) else {
                    return;
                };
                purse.held = purse.held.saturating_add(bound.units);
                purse.holds.insert(ask.id, (expires_us, bound.units));
                Share::Money(span, bound.units)
            }
        };
        let ticket = self.tickets.entry(ask.id).or_default();
        ticket.expires_us = expires_us.max(ticket.expires_us);
        if !again {
            ticket.taken.push(Taken { counter: bound.counter.clone(), what });
        }
    }

    /// Closes a ticket with what the call really used of each bound: 0 gives back. `false` when
    /// there is none, because it was closed before or has expired; then nothing is written.
    pub fn close(&mut self, id: Uuid, used: &[Bound], now_us: i64) -> bool {
        let Some(ticket) = self.tickets.remove(&id) else { return false };
        for taken in ticket.taken {
            let Some(state) = self.counters.get_mut(&taken.place()) else { continue };
            let bound = used.iter().find(|bound| bound.counter == taken.counter);
            match (state, taken.what) {
                (State::Slots(leases), Share::Slot) => {
                    leases.remove(&id);
                }
                (State::Rate(tat), Share::Rate(reserved_us, end_us)) => {
                    let actual = bound.map_or(reserved_us, |bound| match bound.check {
                        Check::Rate(rate) => rate.cost_us(bound.units),
                        Check::Slots { .. } | Check::Purse { .. } => reserved_us,
                    });
                    *tat = rate::correct(*tat, now_us, (reserved_us, end_us), actual);
                }
                (State::Purse(purse), Share::Money(span, amount)) if purse.span == span => {
                    // A hold that expired was counted as spent; what is known now stands instead.
                    if purse.holds.remove(&id).is_some() {
                        purse.held -= amount;
                    } else {
                        purse.spent -= amount;
                    }
                    let actual = bound.map_or(amount, |bound| bound.units);
                    purse.spent = purse.spent.saturating_add(actual);
                }
                (State::Slots(_) | State::Rate(_) | State::Purse(_), _) => {}
            }
        }
        true
    }

    /// Keeps what tickets took for so much longer. Gives how many of them are still open.
    pub fn renew(&mut self, ids: &[Uuid], (now_us, lease_us): (i64, i64)) -> usize {
        let expires_us = now_us.saturating_add(lease_us);
        let mut open = 0;
        for id in ids {
            let Some(ticket) = self.tickets.get_mut(id) else { continue };
            open += 1;
            ticket.expires_us = expires_us;
            for taken in &ticket.taken {
                if let Some(state) = self.counters.get_mut(&taken.place()) {
                    state.renew(*id, expires_us);
                }
            }
        }
        open
    }

    /// Says what was spent of a purse before it was counted here. The first one to say so is
    /// believed; `false` for all others.
    pub fn seed(&mut self, counter: &Counter, span: Span, spent: i64) -> bool {
        if let Some(State::Purse(purse)) = self.counters.get(&place(counter, Some(span)))
            && purse.span == span
        {
            return false;
        }
        let purse =
            Purse { span, spent, held: 0, holds: BTreeMap::new(), charged: None, mended: 0 };
        self.counters.insert(place(counter, Some(span)), State::Purse(purse));
        true
    }

    /// What a counter shows now. `None` for a purse that nobody has seeded.
    pub fn level(&mut self, bound: &Bound, now_us: i64) -> Option<Level> {
        let state = self.counters.get_mut(&place_of(bound));
        match (bound.check, state) {
            (Check::Slots { .. }, Some(State::Slots(leases))) => {
                expire_leases(leases, now_us);
                let used = i64::try_from(leases.len()).unwrap_or(i64::MAX);
                Some(Level { used, held: 0, reset_us: 0 })
            }
            (Check::Rate(rate), Some(State::Rate(tat))) => {
                let ahead = rate.start(*tat, now_us) - now_us;
                let used = rate.burst.saturating_sub(rate.remaining(*tat, now_us));
                Some(Level { used, held: 0, reset_us: ahead })
            }
            (Check::Purse { span, .. }, Some(State::Purse(purse))) if purse.span == span => {
                purse.expire(now_us);
                let reset_us = if span.is_ever() { 0 } else { span.to.micros() - now_us };
                let used = purse.spent.saturating_add(purse.held);
                Some(Level { used, held: purse.held, reset_us })
            }
            (Check::Purse { .. }, _) => None,
            (Check::Slots { .. } | Check::Rate(_), _) => {
                Some(Level { used: 0, held: 0, reset_us: 0 })
            }
        }
    }

    /// Forgets what says nothing any more: counters that are whole, spans that are over, tickets
    /// whose owner is long gone.
    pub fn sweep(&mut self, now_us: i64, keep_us: i64) {
        self.tickets.retain(|_, ticket| ticket.expires_us.saturating_add(keep_us) > now_us);
        self.sweep_births(now_us);
        self.counters.retain(|_, state| match state {
            State::Slots(leases) => {
                leases.retain(|_, expires_us| *expires_us > now_us);
                !leases.is_empty()
            }
            State::Rate(tat) => *tat > now_us,
            State::Purse(purse) => {
                purse.span.is_ever() || purse.span.to.micros().saturating_add(keep_us) > now_us
            }
        });
    }

    /// Whether a call has something of a counter that it need not ask for again.
    pub fn holds(&self, counter: &Counter, id: Uuid) -> bool {
        self.has_taken(id, counter)
            && match self.counters.get(&place(counter, None)) {
                Some(State::Slots(leases)) => leases.contains_key(&id),
                Some(State::Rate(_) | State::Purse(_)) => true,
                // Money has a place for each span.
                None => counter.rule.kind == LimitKind::Cost,
            }
    }

    fn has_taken(&self, id: Uuid, counter: &Counter) -> bool {
        let ticket = self.tickets.get(&id);
        ticket.is_some_and(|ticket| ticket.taken.iter().any(|taken| taken.counter == *counter))
    }
}

fn expire_leases(leases: &mut BTreeMap<Uuid, i64>, now_us: i64) {
    let gone: Vec<Uuid> = leases
        .iter()
        .filter(|(_, expires_us)| **expires_us <= now_us)
        .take(PURGED_MAX)
        .map(|(id, _)| *id)
        .collect();
    for id in gone {
        leases.remove(&id);
    }
}

/// Where slots stand of which `used` are taken, for one more.
pub fn slots(limit: i64, used: i64, again: bool) -> Standing {
    let pass = match (again || used < limit, limit) {
        (true, _) => Pass::Yes,
        (false, ..=0) => Pass::Never,
        (false, _) => Pass::WhenFree,
    };
    let used = used + i64::from(pass == Pass::Yes && !again);
    Standing { pass, limit, remaining: (limit - used).max(0), reset_us: 0, warn: false }
}

/// Where a rate stands for so many units, asked for again or for the first time.
pub fn rated(rate: Rate, (tat, now_us): (i64, i64), units: i64, again: bool) -> Standing {
    let (pass, after) = match rate.judge(tat, now_us, units) {
        _ if again => (Pass::Yes, tat),
        Judged::Pass(after) => (Pass::Yes, after),
        Judged::After(wait_us) => (Pass::After(wait_us), tat),
        Judged::Never => (Pass::Never, tat),
    };
    Standing {
        pass,
        limit: rate.burst,
        remaining: rate.remaining(after, now_us).max(0),
        reset_us: rate.start(after, now_us) - now_us,
        warn: false,
    }
}

impl State {
    fn renew(&mut self, id: Uuid, expires_us: i64) {
        match self {
            // A slot that had expired is taken again: its call runs, whatever the limit.
            Self::Slots(leases) => {
                leases.insert(id, expires_us);
            }
            Self::Purse(purse) => {
                if let Some(hold) = purse.holds.get_mut(&id) {
                    hold.0 = expires_us;
                }
            }
            Self::Rate(_) => {}
        }
    }
}

impl Purse {
    fn expire(&mut self, now_us: i64) {
        let gone: Vec<(Uuid, i64)> = self
            .holds
            .iter()
            .filter(|(_, (expires_us, _))| *expires_us <= now_us)
            .take(PURGED_MAX)
            .map(|(id, (_, amount))| (*id, *amount))
            .collect();
        for (id, amount) in gone {
            self.holds.remove(&id);
            self.held -= amount;
            self.spent = self.spent.saturating_add(amount);
        }
    }

    fn standing(&self, limit: i64, units: i64, (reset_us, again): (i64, bool)) -> Standing {
        purse_standing(limit, self.spent.saturating_add(self.held), units, (reset_us, again))
    }
}

/// Where a purse stands, of which `used` is spent or held, for so many units more.
pub fn purse_standing(
    limit: i64,
    used: i64,
    units: i64,
    (reset_us, again): (i64, bool),
) -> Standing {
    let left = limit.saturating_sub(used);
    let pass = if again || units <= left {
        Pass::Yes
    } else if units > limit || reset_us == 0 {
        Pass::Never
    } else {
        Pass::After(reset_us)
    };
    let after = used.saturating_add(if pass == Pass::Yes && !again { units } else { 0 });
    let threshold = i128::from(limit) * WARN_PERCENT;
    let is_over = |used: i64| i128::from(used) * 100 >= threshold;
    Standing {
        pass,
        limit,
        remaining: limit.saturating_sub(after).max(0),
        reset_us,
        warn: pass == Pass::Yes && is_over(after) && !is_over(used),
    }
}

#[cfg(test)]
pub(crate) mod tests;
