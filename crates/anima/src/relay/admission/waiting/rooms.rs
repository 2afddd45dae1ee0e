//! Who waits on this node, and where each of them is told that its turn has come.
//!
//! Not the order: that is the line's. Invariant: there is a room, and a task that attends to it,
//! for each line in which calls of this node wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use anima_core::quota::Tag;

use crate::http::reply::Refusal;
use crate::http::terms::Terms;

/// What a waiter is told.
#[derive(Debug)]
pub(super) enum Said {
    YourTurn,
    /// Its key's terms are these now.
    Changed(Arc<Terms>),
    /// It waits no more: for this reason, or with what it would have been told at the door.
    Over(Option<Box<Refusal>>),
}

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) tag: Tag,
    pub(super) kid: Arc<str>,
    /// Nobody waits for its answer.
    pub(super) is_task: bool,
    /// The line knows of it.
    pub(super) joined: bool,
    pub(super) said: mpsc::UnboundedSender<Said>,
}

/// A line in which calls of this node wait.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) tag: Tag,
    wake: Notify,
    /// When it is looked at next.
    next: Mutex<Option<Instant>>,
}

impl Room {
    /// Sees to it that the line is looked at after so many microseconds.
    pub(super) fn look_after(&self, us: Option<i64>) {
        let Some(us) = us.and_then(|us| u64::try_from(us).ok()) else { return };
        let at = Instant::now() + Duration::from_micros(us);
        if self.next.lock().is_none_or(|next| at < next) {
            self.wake.notify_one();
        }
    }

    /// Waits for so long, or until somebody wants it looked at.
    pub(super) async fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        *self.next.lock() = Some(until);
        tokio::select! {
            () = self.wake.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

#[derive(Debug, Default)]
struct Inside {
    rooms: BTreeMap<Tag, Arc<Room>>,
    seats: BTreeMap<Uuid, Seat>,
}

/// All who wait on this node.
#[derive(Debug, Default)]
pub(in super::super) struct Rooms(Mutex<Inside>);

impl Rooms {
    /// Gives a call a seat, another than it had. `true` when nobody attends to its room yet.
    pub(super) fn sit(&self, id: Uuid, seat: Seat) -> (Arc<Room>, bool) {
        let mut inside = self.0.lock();
        let tag = seat.tag.clone();
        inside.seats.insert(id, seat);
        if let Some(room) = inside.rooms.get(&tag) {
            return (Arc::clone(room), false);
        }
        let (wake, next) = (Notify::new(), Mutex::new(None));
        let room = Arc::new(Room { tag: tag.clone(), wake, next });
        inside.rooms.insert(tag, Arc::clone(&room));
        (room, true)
    }

    /// The line knows of a call.
    pub(super) fn joined(&self, id: Uuid) {
        if let Some(seat) = self.0.lock().seats.get_mut(&id) {
            seat.joined = true;
        }
    }

    /// A call waits no more.
    pub(super) fn stand_up(&self, id: Uuid) {
        self.0.lock().seats.remove(&id);
    }

    /// Those whose turn has come.
    pub(in super::super) fn call(&self, ids: &[Uuid]) {
        if ids.is_empty() {
            return;
        }
        let mut inside = self.0.lock();
        for id in ids {
            if let Some(seat) = inside.seats.get_mut(id) {
                seat.joined = false;
                drop(seat.said.send(Said::YourTurn));
            }
        }
    }

    /// The turn of a call in a line has come. `false` when it does not wait there.
    pub(super) fn call_up(&self, tag: &Tag, id: Uuid) -> bool {
        let mut inside = self.0.lock();
        let Some(seat) = inside.seats.get_mut(&id).filter(|seat| seat.tag == *tag) else {
            return false;
        };
        seat.joined = false;
        drop(seat.said.send(Said::YourTurn));
        true
    }

    /// Has every line looked at.
    pub(super) fn look(&self) {
        for room in self.0.lock().rooms.values() {
            room.wake.notify_one();
        }
    }

    /// Those that a line has to know of.
    pub(super) fn in_line(&self, tag: &Tag) -> Vec<Uuid> {
        let inside = self.0.lock();
        let of_line = inside.seats.iter().filter(|(_, seat)| seat.joined && seat.tag == *tag);
        of_line.map(|(id, _)| *id).collect()
    }

    /// The keys whose calls wait in a line.
    pub(super) fn keys(&self, tag: &Tag) -> BTreeSet<Arc<str>> {
        let inside = self.0.lock();
        let of_line = inside.seats.values().filter(|seat| seat.tag == *tag);
        of_line.map(|seat| Arc::clone(&seat.kid)).collect()
    }

    /// Tells something to the calls in a line: by their key, and by whether they are tasks.
    pub(super) fn tell(&self, tag: &Tag, what: impl Fn(&str, bool) -> Option<Said>) {
        let inside = self.0.lock();
        for seat in inside.seats.values().filter(|seat| seat.tag == *tag) {
            if let Some(said) = what(&seat.kid, seat.is_task) {
                drop(seat.said.send(said));
            }
        }
    }

    /// Takes a room away that nobody waits in.
    pub(super) fn close(&self, room: &Room) -> bool {
        let mut inside = self.0.lock();
        let empty = inside.seats.values().all(|seat| seat.tag != room.tag);
        if empty {
            inside.rooms.remove(&room.tag);
        }
        empty
    }
}
