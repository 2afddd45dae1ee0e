//! Calls that wait for their turn (queue mode WAIT).
//!
//! The line of each app or token group is kept beside its counters, by all nodes together where
//! they share them: what is given back is taken there for the next in line, and its node is told.
//! Here is the node's side: a task for each line in which calls of this node wait says every 250 ms
//! that they do, which finds what a lost message would have said. Invariant: a call that stops
//! waiting is out of the line, and what was taken for it is given back. Source: `reliability` 2.4.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::config::{LimitKind, QueueMode};
use anima_core::failure::Failure;
use anima_core::queue::line::{self, Joined, Joining};
use anima_core::quota::rule::Take;
use anima_core::quota::{Bound, Check, Pass, Standing, Tag, Verdict};
use anima_store::pubsub::Delivery;
use anima_store::quota;
use anima_store::quota::line::{InTurn, call_of};

use super::super::call::Call;
use super::ticket::Ticket;
use super::{Admission, Turn, drain};
use crate::http::caller;
use crate::http::rate_limits::RateLimits;
use crate::http::reply::Refusal;
use crate::http::terms::Terms;

mod rooms; // who waits on this node

pub(super) use rooms::Rooms;
use rooms::{Room, Said, Seat};

/// The longest that a line is not looked at (`reliability` 2.4).
const SAFETY: Duration = Duration::from_millis(250);
/// The longest that the keys of those who wait are not looked at: they end by time, too.
const REVIEW: Duration = Duration::from_secs(2);
/// The shortest time between two looks of a node at a line.
const LEAST: Duration = Duration::from_millis(1);

/// What a waiter is told.
type Answer = Result<(Ticket, RateLimits), Refusal>;

/// A call that is to wait.
#[derive(Debug)]
pub(super) struct Coming {
    pub(super) take: Take,
    /// Whose limit stands in the way.
    pub(super) tag: Tag,
    /// What the call would be told if it did not wait.
    pub(super) refusal: Refusal,
    /// How long the first in line waits, and each behind it longer; `None` when nobody knows.
    pub(super) expected: Option<(Duration, Duration)>,
}

/// What came of asking when its turn came.
enum Asked {
    Admitted(Box<(Ticket, RateLimits)>),
    /// This is in its way now.
    Waits(Tag),
}

/// Why a call waits no more where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    ItsTurn,
    /// It has to join anew.
    StandsForElse,
}

/// A call on its way through lines. Whoever drops it takes the call out.
struct Waiter<'a> {
    admission: &'a Arc<Admission>,
    call: &'a Arc<Call>,
    terms: Arc<Terms>,
    take: Take,
    tag: Tag,
    /// What it stands in line for.
    stands_for: Vec<Bound>,
    since_us: i64,
    until: Instant,
    /// It may be in line, or have been called.
    inside: bool,
}

/// Waits for a call's turn: its ticket, or why it has none.
pub(super) async fn wait(admission: &Arc<Admission>, call: &Arc<Call>, coming: Coming) -> Answer {
    let began = Instant::now();
    let terms = Arc::clone(&call.caller.terms);
    let until = call.deadline.min(began + terms.wait);
    let Coming { take, tag, refusal, mut expected } = coming;
    let (stands_for, since_us, inside) = (Vec::new(), 0, false);
    let mut waiter =
        Waiter { admission, call, terms, take, tag, stands_for, since_us, until, inside };
    let mut seen = call.caller.pinned.changes;
    loop {
        let (said, mut hear) = mpsc::unbounded_channel();
        let room = waiter.sit(said);
        // What changed before it sat down was told to those who sat here then.
        let changes = admission.live.changes();
        if changes != seen {
            seen = changes;
            waiter.catch_up(&refusal).await?;
        }
        if !waiter.join(&room, expected.take()).await?
            && waiter.listen(&mut hear, &refusal, began).await? == Heard::StandsForElse
        {
            continue;
        }
        match waiter.ask().await? {
            Asked::Admitted(answer) => {
                waiter.inside = false;
                admission.store.served(&waiter.tag, call.arrival.id);
                return Ok(*answer);
            }
            Asked::Waits(tag) if tag == waiter.tag => {}
            Asked::Waits(tag) => {
                admission.store.served(&waiter.tag, call.arrival.id);
                waiter.tag = tag;
            }
        }
    }
}

impl Waiter<'_> {
    fn bounds(&self, terms: &Terms) -> Vec<Bound> {
        terms.bounds(self.admission.clock.now(), self.call.caller.currency, self.take)
    }

    /// What it waits for now.
    fn awaited(&self) -> Vec<Bound> {
        line::awaited(&self.bounds(&self.terms), &self.tag)
    }

    /// Is known to be waiting here, before anybody can call it.
    fn sit(&self, said: mpsc::UnboundedSender<Said>) -> Arc<Room> {
        let seat = Seat {
            tag: self.tag.clone(),
            kid: Arc::clone(&self.call.caller.kid),
            is_task: self.call.deferral.is_some(),
            joined: false,
            said,
        };
        let (room, is_new) = self.admission.rooms.sit(self.call.arrival.id, seat);
        if is_new {
            let seen = self.admission.live.changes();
            tokio::spawn(drive(Arc::clone(self.admission), Arc::clone(&room), seen));
        }
        room
    }

    /// Goes by its key's terms as they are now, if it may still wait.
    async fn catch_up(&mut self, refusal: &Refusal) -> Result<(), Refusal> {
        let say = told_now(self.admission, &self.call.caller.kid).await;
        match say.map(|say| say(self.call.deferral.is_some())) {
            Some(Said::Changed(terms)) => self.change(terms),
            Some(Said::Over(why)) => Err(over(why, refusal)),
            Some(Said::YourTurn) | None => Ok(()),
        }
    }

    /// Joins the line. `true` when its turn has come already.
    async fn join(
        &mut self,
        room: &Room,
        expected: Option<(Duration, Duration)>,
    ) -> Result<bool, Refusal> {
        let within = self.until.saturating_duration_since(Instant::now());
        let bounds = self.awaited();
        self.stands_for.clone_from(&bounds);
        let joining = Joining {
            id: self.call.arrival.id,
            tenant: &self.call.caller.kid,
            since_us: self.since_us,
            within_us: i64::try_from(within.as_micros()).unwrap_or(i64::MAX / 4),
            weight: 1,
            most: i64::try_from(self.terms.max_queue).unwrap_or(i64::MAX / 4),
            ahead_max: ahead_max(expected, within),
            bounds: &bounds,
        };
        self.inside = true;
        let admission = self.admission;
        let joined = admission.store.join(&self.tag, joining, admission.clock.now()).await;
        admission.rooms.call(&admission.store.called());
        match joined.map_err(|error| super::unreachable_now(&error))? {
            Joined::Called => Ok(true),
            Joined::Waits(since_us, next_us) => {
                self.since_us = since_us;
                admission.rooms.joined(joining.id);
                room.look_after(next_us);
                Ok(false)
            }
            Joined::Full(_) => Err(full(self.retry_ms().await)),
            Joined::Vain(ahead) => Err(vain(expected, ahead, within)),
        }
    }

    /// Waits until its turn comes, or until it waits for something else: its key's terms are
    /// others, or those that it has say something else by now.
    async fn listen(
        &mut self,
        hear: &mut mpsc::UnboundedReceiver<Said>,
        refusal: &Refusal,
        began: Instant,
    ) -> Result<Heard, Refusal> {
        loop {
            let said = tokio::select! {
                biased;
                said = hear.recv() => said,
                () = self.call.arrival.gone.cancelled() => {
                    let message = "The client left while its call waited.";
                    return Err(Refusal::new(Failure::ClientGone, message));
                }
                () = tokio::time::sleep_until(self.until) => {
                    return Err(timed_out(began, self.retry_ms().await));
                }
            };
            match said {
                Some(Said::YourTurn) => return Ok(Heard::ItsTurn),
                Some(Said::Changed(terms)) => {
                    // Also where the line stays as it is: a budget binds it when its turn comes.
                    self.change(terms)?;
                    if self.awaited() != self.stands_for {
                        return Ok(Heard::StandsForElse);
                    }
                }
                Some(Said::Over(why)) => return Err(over(why, refusal)),
                None => return Err(timed_out(began, self.retry_ms().await)),
            }
        }
    }

    /// After how many milliseconds it would have its turn if it came again then.
    async fn retry_ms(&self) -> u64 {
        let asked = (&*self.terms, self.take);
        drain::retry_ms(self.admission, self.call, asked, &self.tag).await
    }

    /// Goes by other terms from here on, unless it can never run under them.
    fn change(&mut self, terms: Arc<Terms>) -> Result<(), Refusal> {
        let bounds = self.bounds(&terms);
        let never = |bound: &&Bound| match bound.check {
            Check::Slots { limit } => limit <= 0,
            Check::Rate(rate) => rate.cost_us(bound.units) > rate.burst_us(),
            Check::Purse { .. } => false,
        };
        if let Some(bound) = bounds.iter().filter(|b| !b.counter.rule.shadow).find(never) {
            let standing = Standing { pass: Pass::Never, ..Standing::FREE };
            return Err(super::refuse(self.admission, self.call, Some((bound, &standing))));
        }
        self.terms = terms;
        Ok(())
    }

    /// Asks for everything, part of which was taken for it when it was called.
    async fn ask(&self) -> Result<Asked, Refusal> {
        let (admission, call) = (self.admission, self.call);
        let bounds = self.bounds(&self.terms);
        let (said, asked) = admission.ask(call, &bounds, (Turn::Mine, self.until)).await?;
        let (n, standings) = match said {
            InTurn::Judged(Verdict::Admitted(standings)) => {
                admission.note(call, &bounds, &standings);
                let told = RateLimits::of(&bounds, &standings, admission.clock.now());
                let ticket = Ticket::new(admission, call, (bounds, asked));
                return Ok(Asked::Admitted(Box::new((ticket, told))));
            }
            InTurn::Judged(Verdict::Refused(n, standings)) => (n, standings),
            InTurn::Judged(Verdict::Unseeded(_)) | InTurn::Behind(_) => {
                return Err(super::refuse(admission, call, None));
            }
        };
        let in_the_way = bounds.get(n).zip(standings.get(n));
        match in_the_way.filter(|(bound, standing)| is_worth_it(bound, standing)) {
            Some((bound, _)) => {
                give_back(admission, call.arrival.id, &bounds).await;
                Ok(Asked::Waits(bound.tag.clone()))
            }
            None => Err(super::refuse(admission, call, in_the_way)),
        }
    }
}

impl Drop for Waiter<'_> {
    /// A call that stops waiting, whatever the reason.
    fn drop(&mut self) {
        let (admission, id) = (Arc::clone(self.admission), self.call.arrival.id);
        admission.rooms.stand_up(id);
        if !self.inside {
            return;
        }
        let (tag, bounds) = (self.tag.clone(), std::mem::take(&mut self.stands_for));
        let tasks = admission.tasks.clone();
        let leaving = async move {
            let now = admission.clock.now();
            match admission.store.leave(&tag, id, now).await {
                Ok(true) => admission.rooms.call(&admission.store.called()),
                // It was called, or is not known.
                Ok(false) => give_back(&admission, id, &bounds).await,
                Err(error) => tracing::warn!(%error, "failed to leave a line: its time ends"),
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            tasks.spawn_on(leaving, &runtime);
        }
    }
}

/// Gives back what was taken for a call when it was called.
async fn give_back(admission: &Admission, id: Uuid, bounds: &[Bound]) {
    let none = |bound: &Bound| Bound { units: 0, ..bound.clone() };
    let ticket = quota::Ticket { id, bounds: bounds.iter().map(none).collect() };
    if let Err(error) = admission.store.close(&ticket, admission.clock.now()).await {
        tracing::warn!(%error, "failed to give a turn back: its claim ends");
    }
    admission.rooms.call(&admission.store.called());
}

/// Whether waiting helps against a limit.
pub(super) fn is_worth_it(bound: &Bound, standing: &Standing) -> bool {
    bound.counter.rule.kind != LimitKind::Cost
        && matches!(standing.pass, Pass::After(_) | Pass::WhenFree)
}

/// How many of its key may be ahead of a call that may wait so long.
fn ahead_max(expected: Option<(Duration, Duration)>, within: Duration) -> i64 {
    let Some((first, each)) = expected else { return i64::MAX / 4 };
    let Some(left) = within.checked_sub(first) else { return -1 };
    let turns = left.as_micros().checked_div(each.as_micros());
    turns.and_then(|turns| i64::try_from(turns).ok()).unwrap_or(i64::MAX / 4)
}

/// How long a call waits that has so many ahead, milliseconds.
fn expected_ms(expected: Option<(Duration, Duration)>, ahead: i64) -> Option<u64> {
    let (first, each) = expected?;
    let turns = u32::try_from(ahead).unwrap_or(u32::MAX);
    let wait = first.saturating_add(each.saturating_mul(turns));
    Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

fn full(retry_ms: u64) -> Refusal {
    let message = "As many calls of this API key wait as may. Try again later.";
    Refusal::new(Failure::QueueFull, message).retry_after(retry_ms)
}

fn vain(expected: Option<(Duration, Duration)>, ahead: i64, within: Duration) -> Refusal {
    let wait_ms = expected_ms(expected, ahead).unwrap_or(1_000);
    let message = format!(
        "The call's turn would come in about {:.1} s, and it may wait {:.1} s. Try again later.",
        Duration::from_millis(wait_ms).as_secs_f64(),
        within.as_secs_f64()
    );
    Refusal::new(Failure::DeadlineUnreachable, message).retry_after(wait_ms)
}

/// What a call is told that may wait no more.
fn over(why: Option<Box<Refusal>>, at_the_door: &Refusal) -> Refusal {
    why.map_or_else(|| at_the_door.clone(), |why| *why)
}

fn timed_out(since: Instant, retry_ms: u64) -> Refusal {
    let message = format!(
        "The call waited {:.1} s for its turn and did not get one. Try again later.",
        since.elapsed().as_secs_f64()
    );
    Refusal::new(Failure::QueueTimeout, message).retry_after(retry_ms)
}

/// Attends to a line for as long as calls of this node wait in it. `seen`: the changes there were
/// when the first of them sat down.
async fn drive(admission: Arc<Admission>, room: Arc<Room>, mut seen: (i64, u64)) {
    let (mut asked, mut reviewed) = (None, Instant::now());
    let mut reviewing = None;
    loop {
        let changes = admission.live.changes();
        if (changes != seen || reviewed.elapsed() >= REVIEW)
            && reviewing.as_ref().is_none_or(JoinHandle::is_finished)
        {
            (seen, reviewed) = (changes, Instant::now());
            // What it reads may wait for the database; who waits must be heard of meanwhile.
            reviewing = Some(tokio::spawn(review(Arc::clone(&admission), Arc::clone(&room))));
        }
        // A look because somebody may run asks after nobody: who is called is told. However many
        // wait, they are asked after in no shorter time than lost messages may be found.
        let is_due = asked.is_none_or(|at: Instant| at.elapsed() >= SAFETY);
        let ids = if is_due { admission.rooms.in_line(&room.tag) } else { Vec::new() };
        asked = asked.filter(|_| !is_due).or_else(|| Some(Instant::now()));
        let next = match admission.store.attend(&room.tag, &ids, admission.clock.now()).await {
            Ok(attended) => {
                admission.rooms.call(&attended.absent);
                attended.next_us
            }
            Err(error) => {
                tracing::warn!(%error, "failed to attend to a line");
                None
            }
        };
        admission.rooms.call(&admission.store.called());
        if admission.rooms.close(&room) {
            return;
        }
        let next = next.and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros);
        room.pause(next.unwrap_or(SAFETY).clamp(LEAST, SAFETY)).await;
    }
}

/// Looks at the keys of those who wait: their limits and their mode may have changed.
async fn review(admission: Arc<Admission>, room: Arc<Room>) {
    let mut told = BTreeMap::new();
    for kid in admission.rooms.keys(&room.tag) {
        if let Some(say) = told_now(&admission, &kid).await {
            told.insert(kid, say);
        }
    }
    let of = |kid: &str, is_task| told.get(kid).map(|say| say(is_task));
    admission.rooms.tell(&room.tag, of);
}

/// What the calls of a key that wait are told of it as it is now, by whether they are tasks.
/// `None`: it cannot be read, and stays as it is.
async fn told_now(admission: &Admission, kid: &Arc<str>) -> Option<impl Fn(bool) -> Said + use<>> {
    let found = caller::terms(&admission.live, admission.clock.now(), kid).await;
    if found.as_ref().is_err_and(|refusal| refusal.failure == Failure::AuthUnavailable) {
        return None;
    }
    let found = found.map(|terms| (Arc::new(terms.of_task()), Arc::new(terms)));
    Some(move |is_task| match &found {
        Ok((of_task, _)) if is_task => Said::Changed(Arc::clone(of_task)),
        // Calls become tasks from the next one on; those that wait are served.
        Ok((_, terms)) if terms.mode != QueueMode::Reject => Said::Changed(Arc::clone(terms)),
        Ok(_) => Said::Over(None),
        Err(refusal) => Said::Over(Some(Box::new(refusal.clone()))),
    })
}

/// Hears, for as long as the node lives, of calls whose turn came where another node gave back.
pub(super) async fn hear(admission: &Arc<Admission>) {
    let Some(mut calls) = admission.store.calls().await else { return };
    loop {
        match calls.next().await {
            Delivery::Message(message) => {
                if let Some((id, tag)) = call_of(&message)
                    && !admission.rooms.call_up(&tag, id)
                    && !admission.registry.knows(id)
                {
                    admission.tasks.spawn(disown(Arc::clone(admission), tag, id));
                }
            }
            Delivery::Missed => admission.rooms.look(),
        }
    }
}

/// Gives on at once what was taken for a call that neither waits there any more nor runs.
async fn disown(admission: Arc<Admission>, tag: Tag, id: Uuid) {
    if let Err(error) = admission.store.disown(&tag, id, admission.clock.now()).await {
        tracing::warn!(%error, "failed to give on the turn of a call that left: its claim ends");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_may_wait_for_ten_turns_may_be_the_eleventh() {
        let second = Duration::from_secs(1);
        assert_eq!(ahead_max(Some((second, second)), second * 11), 10);
        assert_eq!(ahead_max(Some((second * 2, second)), second), -1);
        assert_eq!(expected_ms(Some((second, second)), 10), Some(11_000));
        assert!(ahead_max(None, second) > 1_000_000);
    }
}
