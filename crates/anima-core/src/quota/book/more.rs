//! What a running call holds more of its purses, or less, and what is spent elsewhere.
//!
//! Not here: slots and rates, which a call takes once. Invariant: more is taken of all purses or of
//! none; to hold less is always allowed. Source: `reliability` 1.5 and 2.3.

use uuid::Uuid;

use super::super::{Ask, Bound, Check, Counter, Pass, Span, Standing, Verdict, verdict};
use super::{Book, Seen, Share, State, Taken, place_of, purse_standing};

impl Book {
    /// Sets what a ticket holds of some purses to their units: of all of them, or of none when one
    /// does not have so much. A ticket that is not known takes all of it anew.
    pub fn extend(&mut self, ask: Ask<'_>) -> Verdict {
        let standings = ask.bounds.iter().map(|bound| self.judge_more(bound, ask)).collect();
        let verdict = verdict(ask.bounds, standings);
        let Verdict::Admitted(standings) = verdict else { return verdict };
        for (bound, standing) in ask.bounds.iter().zip(&standings) {
            self.take_more(bound, *standing, ask);
        }
        Verdict::Admitted(standings)
    }

    /// Where a purse stands when a ticket is to hold so much of it. Writes nothing.
    pub fn judge_more(&self, bound: &Bound, ask: Ask<'_>) -> Standing {
        let Check::Purse { limit, span } = bound.check else { return Standing::FREE };
        let held = self.held(ask.id, &bound.counter, span);
        let reset_us = if span.is_ever() { 0 } else { span.to.since(ask.now) };
        match self.counters.get(&place_of(bound)) {
            Some(State::Purse(purse)) if purse.span == span => {
                let used = purse.spent.saturating_add(purse.held);
                more_standing((limit, used), (held, bound.units), reset_us)
            }
            Some(_) | None => {
                Standing { pass: Pass::Unseeded, limit, remaining: 0, reset_us: 0, warn: false }
            }
        }
    }

    /// Holds so much of a purse for a ticket, if `standing` said that it can.
    pub fn take_more(&mut self, bound: &Bound, standing: Standing, ask: Ask<'_>) {
        let Check::Purse { span, .. } = bound.check else { return };
        if standing.pass != Pass::Yes {
            return;
        }
        let before = self.held(ask.id, &bound.counter, span);
        let expires_us = ask.now.micros().saturating_add(ask.lease_us);
        let Some(State::Purse(purse)) = self.counters.get_mut(&place_of(bound)) else { return };
        if purse.holds.insert(ask.id, (expires_us, bound.units)).is_some() {
            purse.held -= before;
        } else {
            // It had expired and counted as spent.
            purse.spent -= before;
        }
        purse.held = purse.held.saturating_add(bound.units);
        let ticket = self.tickets.entry(ask.id).or_default();
        ticket.expires_us = expires_us;
        ticket.taken.retain(|taken| taken.counter != bound.counter);
        let what = Share::Money(span, bound.units);
        ticket.taken.push(Taken { counter: bound.counter.clone(), what });
    }

    /// What a purse believes. `None` when nobody has seeded it.
    pub fn look(&mut self, bound: &Bound, now_us: i64) -> Option<Seen> {
        let Check::Purse { span, .. } = bound.check else { return None };
        match self.counters.get_mut(&place_of(bound)) {
            Some(State::Purse(purse)) if purse.span == span => {
                purse.expire(now_us);
                let holds = purse.holds.keys().copied().collect();
                Some(Seen { spent: purse.spent, holds, mended: purse.mended })
            }
            Some(_) | None => None,
        }
    }

    /// Adds to what a purse believes was spent, or takes away, unless somebody has done so since it
    /// was looked at. `false` then.
    pub fn repair(&mut self, bound: &Bound, (mended, by): (i64, i64)) -> bool {
        let Check::Purse { span, .. } = bound.check else { return false };
        match self.counters.get_mut(&place_of(bound)) {
            Some(State::Purse(purse)) if purse.span == span && purse.mended == mended => {
                purse.mended += 1;
                purse.spent = purse.spent.saturating_add(by);
                true
            }
            Some(_) | None => false,
        }
    }

    fn held(&self, id: Uuid, counter: &Counter, span: Span) -> i64 {
        let taken = self.tickets.get(&id).and_then(|ticket| {
            ticket.taken.iter().find(|taken| taken.counter == *counter).map(|taken| taken.what)
        });
        match taken {
            Some(Share::Money(of, amount)) if of == span => amount,
            Some(Share::Money(..) | Share::Slot | Share::Rate(..)) | None => 0,
        }
    }

    /// Adds to what was spent of a purse, once for each charge. `false` when it was charged before
    /// or nobody has seeded the purse: its seed knows.
    pub fn charge(&mut self, bound: &Bound, charge: Uuid) -> bool {
        let Check::Purse { span, .. } = bound.check else { return false };
        match self.counters.get_mut(&place_of(bound)) {
            Some(State::Purse(purse)) if purse.span == span && purse.charged != Some(charge) => {
                purse.charged = Some(charge);
                purse.mended += 1;
                purse.spent = purse.spent.saturating_add(bound.units);
                true
            }
            Some(_) | None => false,
        }
    }
}

/// Where a purse stands, of which `used` is spent or held, for a ticket that holds `before` of it
/// and is to hold `after`. To hold less is always allowed.
pub fn more_standing(
    (limit, used): (i64, i64),
    (before, after): (i64, i64),
    reset_us: i64,
) -> Standing {
    let more = after.saturating_sub(before);
    let used = used.saturating_add(more.min(0));
    purse_standing(limit, used, more.max(0), (reset_us, more <= 0))
}
