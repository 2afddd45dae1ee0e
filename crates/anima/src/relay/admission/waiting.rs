//! Calls that wait for their turn (queue mode WAIT).
//!
//! One room for each app or token group whose limit stands in the way, and one task for each room
//! that has waiters: it takes what is given back for the next in line and hands it over, so that
//! nobody polls and nobody overtakes. It is woken when a call ends and when a rate lets one pass,
//! and at the latest every 250 ms, for what other nodes give back and keys that changed. Invariant:
//! a waiter gets one answer; what was taken for one that has left is given back. Source:
//! `reliability` 2.4.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::config::QueueMode;
use anima_core::failure::Failure;
use anima_core::queue::{Queue, Waiter};
use anima_core::quota::rule::Take;
use anima_core::quota::{Bound, Pass, Scope, Standing, Tag, Verdict};

use super::super::call::Call;
use super::Admission;
use super::report::Waiting;
use super::ticket::Ticket;
use crate::http::caller;
use crate::http::rate_limits::RateLimits;
use crate::http::reply::Refusal;
use crate::http::terms::Terms;

/// The longest that a room is not looked at (`reliability` 2.4).
const SAFETY: Duration = Duration::from_millis(250);
/// How many are tried when the first in line cannot run (`reliability` 2.4).
const DEPTH: usize = 8;

/// What a waiter is told.
type Answer = Result<(Ticket, RateLimits), Refusal>;

#[derive(Debug)]
struct Seat {
    call: Arc<Call>,
    take: Take,
    terms: Arc<Terms>,
    /// What the call would be told if it did not wait.
    refusal: Refusal,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Line {
    queue: Queue,
    seats: HashMap<Uuid, Seat>,
}

#[derive(Debug)]
struct Room {
    tag: Tag,
    line: Mutex<Line>,
    wake: Notify,
}

/// All rooms that have waiters.
#[derive(Debug, Default)]
pub(super) struct Rooms(Mutex<HashMap<Tag, Arc<Room>>>);

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

impl Rooms {
    /// Looks at the rooms of some bounds again, because something was given back.
    pub(super) fn wake(&self, bounds: &[Bound]) {
        let rooms = self.0.lock();
        if rooms.is_empty() {
            return;
        }
        for room in bounds.iter().filter_map(|bound| rooms.get(&bound.tag)) {
            room.wake.notify_one();
        }
    }

    /// The room in which a call has to wait behind others, if there is one.
    pub(super) fn behind(&self, call: &Call) -> Option<Tag> {
        let rooms = self.0.lock();
        if rooms.is_empty() {
            return None;
        }
        let group = call.caller.group.as_ref().map(|g| Tag::TokenGroup(Arc::clone(&g.code)));
        let own = [Some(Tag::App(Arc::clone(&call.caller.app))), group];
        own.into_iter().flatten().find(|tag| rooms.contains_key(tag))
    }

    /// Everyone who waits, those of one key together.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let rooms: Vec<Arc<Room>> = self.0.lock().values().cloned().collect();
        let mut all = Vec::new();
        for room in rooms {
            let line = room.line.lock();
            let mut of_room: BTreeMap<&Arc<str>, (usize, i64)> = BTreeMap::new();
            for waiter in line.queue.iter() {
                let (calls, since_us) =
                    of_room.entry(&waiter.tenant).or_insert((0, waiter.since_us));
                *calls += 1;
                *since_us = (*since_us).min(waiter.since_us);
            }
            all.extend(of_room.into_iter().map(|(kid, (calls, since_us))| Waiting {
                tag: room.tag.clone(),
                kid: Arc::clone(kid),
                calls,
                since_us,
            }));
        }
        all
    }

    /// Takes a room away that nobody waits in.
    fn close(&self, room: &Room) -> bool {
        let mut rooms = self.0.lock();
        let empty = room.line.lock().queue.is_empty();
        if empty {
            rooms.remove(&room.tag);
        }
        empty
    }
}

/// Waits for a call's turn: its ticket, or why it has none.
pub(super) async fn wait(admission: &Arc<Admission>, call: &Arc<Call>, coming: Coming) -> Answer {
    let now = Instant::now();
    let until = call.deadline.min(now + call.caller.terms.wait);
    let (answer, mut answered) = oneshot::channel();
    let room = enter(admission, call, coming, (until.saturating_duration_since(now), answer))?;
    let gone = &call.arrival.gone;
    tokio::select! {
        biased;
        answer = &mut answered => answer.unwrap_or_else(|_closed| Err(timed_out(now, None))),
        () = gone.cancelled() => {
            drop(room.leave(call.arrival.id));
            Err(Refusal::new(Failure::ClientGone, "The client left while its call waited."))
        }
        () = tokio::time::sleep_until(until) => {
            let left = room.leave(call.arrival.id);
            Err(timed_out(now, left.and_then(|seat| seat.refusal.retry_after_ms)))
        }
    }
}

fn timed_out(since: Instant, retry_after_ms: Option<u64>) -> Refusal {
    let message = format!(
        "The call waited {:.1} s for its turn and did not get one. Try again later.",
        since.elapsed().as_secs_f64()
    );
    Refusal::new(Failure::QueueTimeout, message).retry_after(retry_after_ms.unwrap_or(1_000))
}

/// Says why a call need not begin to wait, if that is so: too many do, or it would be in vain.
fn hopeless(
    terms: &Terms,
    ahead: usize,
    expected: Option<(Duration, Duration)>,
    within: Duration,
) -> Option<Refusal> {
    let turns = u32::try_from(ahead).unwrap_or(u32::MAX);
    let expected = expected.map(|(first, each)| first.saturating_add(each.saturating_mul(turns)));
    let ms = |wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    if ahead >= terms.max_queue {
        let message = "As many calls of this API key wait as may. Try again later.";
        let refusal = Refusal::new(Failure::QueueFull, message);
        return Some(refusal.retry_after(expected.map_or(1_000, ms)));
    }
    let expected = expected.filter(|expected| *expected > within)?;
    let message = format!(
        "The call's turn would come in about {:.1} s, and it may wait {:.1} s. Try again later.",
        expected.as_secs_f64(),
        within.as_secs_f64()
    );
    Some(Refusal::new(Failure::DeadlineUnreachable, message).retry_after(ms(expected)))
}

/// Takes a seat, if there is one and the wait is not in vain.
fn enter(
    admission: &Arc<Admission>,
    call: &Arc<Call>,
    coming: Coming,
    (within, answer): (Duration, oneshot::Sender<Answer>),
) -> Result<Arc<Room>, Refusal> {
    let Coming { take, tag, refusal, expected } = coming;
    let terms = Arc::clone(&call.caller.terms);
    let mut rooms = admission.rooms.0.lock();
    let known = rooms.get(&tag).cloned();
    let kid = &call.caller.kid;
    let ahead = known.as_ref().map_or(0, |room| room.line.lock().queue.len_of(kid));
    if let Some(refusal) = hopeless(&terms, ahead, expected, within) {
        return Err(refusal);
    }
    let is_new = known.is_none();
    let room = known.unwrap_or_else(|| {
        let (line, wake) = (Mutex::default(), Notify::new());
        Arc::new(Room { tag: tag.clone(), line, wake })
    });
    let since_us = admission.clock.now().micros();
    let within_us = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
    let deadline_us = since_us.saturating_add(within_us);
    let (id, tenant) = (call.arrival.id, Arc::clone(kid));
    {
        let mut line = room.line.lock();
        line.queue.push(Waiter { id, tenant, since_us, deadline_us }, 1);
        line.seats.insert(id, Seat { call: Arc::clone(call), take, terms, refusal, answer });
    }
    if is_new {
        rooms.insert(tag, Arc::clone(&room));
        tokio::spawn(drive(Arc::clone(admission), Arc::clone(&room)));
    } else {
        room.wake.notify_one();
    }
    drop(rooms);
    Ok(room)
}

/// Serves a room until nobody waits in it.
async fn drive(admission: Arc<Admission>, room: Arc<Room>) {
    let mut seen = admission.live.changes();
    loop {
        let changes = admission.live.changes();
        if changes != seen {
            seen = changes;
            room.review(&admission).await;
        }
        let next = room.serve(&admission).await;
        if admission.rooms.close(&room) {
            return;
        }
        tokio::select! {
            () = room.wake.notified() => {}
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// What came of trying one in line.
enum Tried {
    /// It has its answer.
    Answered,
    /// It waits on, for so long at least, and those behind it may be tried.
    Waits(Duration),
    /// It waits on and stops the line.
    Stops(Duration),
}

impl Room {
    /// Takes out a call that does not wait any more.
    fn leave(&self, id: Uuid) -> Option<Seat> {
        let mut line = self.line.lock();
        line.queue.remove(id);
        line.seats.remove(&id)
    }

    /// Answers a call whose turn it is.
    fn answer(&self, id: Uuid, answer: Answer) {
        let seat = {
            let mut line = self.line.lock();
            line.queue.serve(id);
            line.seats.remove(&id)
        };
        // Of one that has left, the answer is dropped, and with it its ticket.
        if let Some(seat) = seat {
            drop(seat.answer.send(answer));
        }
    }

    /// The first in line, with all that is needed to ask for them.
    fn heads(&self) -> Vec<(Arc<Call>, Take, Arc<Terms>)> {
        let line = self.line.lock();
        let seat = |id: Uuid| {
            let seat = line.seats.get(&id)?;
            Some((Arc::clone(&seat.call), seat.take, Arc::clone(&seat.terms)))
        };
        line.queue.heads(DEPTH).into_iter().filter_map(seat).collect()
    }

    /// Takes for those in line what is there. Gives how long it may take until there is more.
    async fn serve(&self, admission: &Arc<Admission>) -> Duration {
        loop {
            let (mut next, mut answered) = (SAFETY, false);
            for (call, take, terms) in self.heads() {
                match self.attempt(admission, (&call, take, &terms)).await {
                    Tried::Answered => answered = true,
                    Tried::Waits(wait) => {
                        next = next.min(wait);
                        continue;
                    }
                    Tried::Stops(wait) => next = next.min(wait),
                }
                break;
            }
            if !answered {
                return next;
            }
        }
    }

    async fn attempt(
        &self,
        admission: &Arc<Admission>,
        (call, take, terms): (&Arc<Call>, Take, &Terms),
    ) -> Tried {
        let (id, now) = (call.arrival.id, admission.clock.now());
        let bounds = terms.bounds(now, call.caller.currency, take);
        match admission.ask(call, &bounds).await {
            Ok(Verdict::Admitted(standings)) => {
                admission.note(call, &bounds, &standings);
                let told = RateLimits::of(&bounds, &standings, now);
                self.answer(id, Ok((Ticket::new(admission, call, bounds), told)));
                Tried::Answered
            }
            Ok(Verdict::Refused(n, standings)) => {
                let Some(in_the_way) = bounds.get(n).zip(standings.get(n)) else {
                    return Tried::Waits(SAFETY);
                };
                if in_the_way.1.pass == Pass::Never {
                    // It never fits, and nobody behind it should wait for that.
                    self.answer(id, Err(super::refuse(admission, call, Some(in_the_way))));
                    return Tried::Answered;
                }
                self.passed_over(id, now.micros(), in_the_way)
            }
            Ok(Verdict::Unseeded(_)) => Tried::Waits(SAFETY),
            Err(refusal) => {
                self.answer(id, Err(refusal));
                Tried::Answered
            }
        }
    }

    fn passed_over(&self, id: Uuid, now_us: i64, (bound, standing): (&Bound, &Standing)) -> Tried {
        let wait = match standing.pass {
            Pass::After(us) => Duration::from_micros(u64::try_from(us).unwrap_or(0)).min(SAFETY),
            Pass::Yes | Pass::WhenFree | Pass::Never | Pass::Unseeded => SAFETY,
        };
        let tired = self.line.lock().queue.pass_over(id, now_us);
        // A limit of its own key is in nobody else's way.
        let stops = tired && bound.counter.scope != Scope::Key;
        if stops { Tried::Stops(wait) } else { Tried::Waits(wait) }
    }

    /// Looks at the keys of those who wait: their limits and their mode may have changed.
    async fn review(&self, admission: &Arc<Admission>) {
        let kids: std::collections::BTreeSet<Arc<str>> =
            self.line.lock().queue.iter().map(|waiter| Arc::clone(&waiter.tenant)).collect();
        for kid in kids {
            match caller::terms(&admission.live, admission.clock.now(), &kid).await {
                Ok(terms) if terms.mode == QueueMode::Wait => self.renew(&kid, &Arc::new(terms)),
                Ok(_other_mode) => self.dismiss(&kid, None),
                // What cannot be read stays as it is.
                Err(refusal) if refusal.failure == Failure::AuthUnavailable => {}
                Err(refusal) => self.dismiss(&kid, Some(&refusal)),
            }
        }
    }

    fn renew(&self, kid: &str, terms: &Arc<Terms>) {
        let mut line = self.line.lock();
        for seat in line.seats.values_mut().filter(|seat| *seat.call.caller.kid == *kid) {
            seat.terms = Arc::clone(terms);
        }
    }

    /// Ends the wait of a key's calls: with what each would have been told at the door, or with
    /// what is wrong with the key.
    fn dismiss(&self, kid: &str, refusal: Option<&Refusal>) {
        let mut line = self.line.lock();
        let of_key = |seat: &Seat| *seat.call.caller.kid == *kid;
        let out: Vec<Uuid> =
            line.seats.iter().filter(|(_, seat)| of_key(seat)).map(|(id, _)| *id).collect();
        for id in out {
            line.queue.remove(id);
            if let Some(seat) = line.seats.remove(&id) {
                drop(seat.answer.send(Err(refusal.cloned().unwrap_or(seat.refusal))));
            }
        }
    }
}
