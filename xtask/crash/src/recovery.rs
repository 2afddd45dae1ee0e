//! How long the holds of a node stayed open after it was killed or stopped.
//!
//! A hold was orphaned when its key says that this node was asked, it was made within that
//! process's life, and it was not closed in it. Read after the run from the rows' own times.
//! Invariant: every kill and every stop has its line, also one that orphaned nothing.

use crate::books::Books;
use crate::faults::Event;
use crate::fleet::Life;
use crate::operator::Keys;

/// What became of the holds that one process left open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Holds that it left open.
    pub(crate) orphans: usize,
    /// Of these, those that are open still.
    pub(crate) open: usize,
    /// Of these, those that were closed before a stopped process went on: by others.
    pub(crate) taken_over: usize,
    /// From its end until the last one was closed, in milliseconds; `None` without closed orphans.
    pub(crate) last_ms: Option<i64>,
}

/// One per killed process, in order.
pub(crate) fn of_kills(books: &Books, keys: &Keys, killed: &[Life]) -> Vec<Recovery> {
    killed.iter().map(|life| of(books, keys, life, i64::MAX)).collect()
}

/// One per stopped process, in order.
pub(crate) fn of_stops(books: &Books, keys: &Keys, events: &[Event]) -> Vec<Recovery> {
    let stop = |event: &Event| {
        let life = Life { node: event.node?, born_us: 0, killed_us: event.from_us };
        Some(of(books, keys, &life, event.to_us))
    };
    events.iter().filter_map(stop).collect()
}

/// `back_us` is when the process went on.
fn of(books: &Books, keys: &Keys, life: &Life, back_us: i64) -> Recovery {
    let kids: Vec<&str> =
        keys.get(life.node).into_iter().flatten().map(|key| key.kid.as_str()).collect();
    let mut recovery = Recovery::default();
    for hold in books.holds.values() {
        let made = (life.born_us..=life.killed_us).contains(&hold.created_us);
        let closed_in_time = hold.closed_us.is_some_and(|closed| closed <= life.killed_us);
        if !made || closed_in_time || !kids.contains(&hold.kid.as_str()) {
            continue;
        }
        recovery.orphans += 1;
        match hold.closed_us {
            None => recovery.open += 1,
            Some(closed) => {
                let ms = (closed - life.killed_us) / 1_000;
                recovery.last_ms = recovery.last_ms.max(Some(ms));
                recovery.taken_over += usize::from(closed < back_us);
            }
        }
    }
    recovery
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::Hold;
    use crate::operator::Key;

    fn hold(created_us: i64, closed_us: Option<i64>) -> Hold {
        Hold {
            kid: "k0".to_owned(),
            node: String::new(),
            state: String::new(),
            settled: 0,
            uncollected: 0,
            created_us,
            closed_us,
        }
    }

    #[test]
    fn only_holds_that_a_process_left_open_are_its_orphans() {
        let mut books = Books::default();
        let holds = [
            hold(5, Some(9)),          // of a life before
            hold(15, Some(19)),        // closed in time
            hold(15, Some(5_000_020)), // taken over after five seconds
            hold(16, None),            // still open
            hold(30, Some(31)),        // of a life after
        ];
        for (n, hold) in holds.into_iter().enumerate() {
            books.holds.insert(n.to_string(), hold);
        }
        let key = |kid: &str| Key { kid: kid.to_owned(), secret: String::new() };
        let keys = vec![vec![key("k0")], vec![key("k1")]];
        let life = Life { node: 0, born_us: 10, killed_us: 20 };
        let found = of(&books, &keys, &life, i64::MAX);
        let wanted = Recovery { orphans: 2, open: 1, taken_over: 1, last_ms: Some(5_000) };
        assert_eq!(found, wanted);
        let other = Life { node: 1, ..life };
        assert_eq!(of(&books, &keys, &other, i64::MAX), Recovery::default());
        assert_eq!(of(&books, &keys, &life, 4_000_000).taken_over, 0);
    }
}
