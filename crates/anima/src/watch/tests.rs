//! What looks find and forbid, and who looks when.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use anima_core::clock::ManualClock;

use super::*;

fn finding(invariant: &'static str, breaches: &[&str]) -> Finding {
    Finding {
        invariant,
        statement: "",
        not_applicable: None,
        checked: 1,
        breaches: breaches.iter().map(|b| (*b).to_owned()).collect(),
    }
}

#[test]
fn clean_books_forbid_nothing() {
    let seen = Seen::of(&[finding("I1", &[]), finding("I4", &[])]);
    assert!(!seen.is_frozen());
    assert_eq!(seen, Seen::default());
}

#[test]
fn a_breach_of_one_wallet_freezes_that_wallet_alone() {
    let seen = Seen::of(&[finding("I4", &["wallet:acme in USD: 5 posted"])]);
    assert_eq!(seen.forbids("acme"), Some("I4"));
    assert_eq!(seen.forbids("zeta"), None);
}

#[test]
fn more_breaches_than_are_listed_freeze_everything() {
    let breach = "wallet:acme in USD: 5 posted";
    let almost = Seen::of(&[finding("I3", &[breach; BREACHES_LISTED - 1])]);
    assert_eq!(almost.forbids("zeta"), None);
    let full = Seen::of(&[finding("I3", &[breach; BREACHES_LISTED])]);
    assert_eq!(full.forbids("zeta"), Some("I3"));
}

#[test]
fn entries_that_cannot_be_believed_freeze_everything() {
    for invariant in ["I1", "I2", "I5", "I7"] {
        assert_eq!(Seen::of(&[finding(invariant, &["x"])]).forbids("zeta"), Some(invariant));
    }
}

#[test]
fn a_breach_of_the_refunds_forbids_refunds_and_nothing_else() {
    let seen = Seen::of(&[finding("I8", &["x"])]);
    assert_eq!((seen.refunds, seen.forbids("acme")), (Some("I8"), None));
    assert!(seen.is_frozen());
    assert_eq!(Seen::of(&[finding("I1", &["x"])]).refunds, Some("I1"));
    assert_eq!(Seen::of(&[finding("I4", &["wallet:acme in USD: 5"])]).refunds, None);
}

/// The row of all nodes, and books with a breach or without.
#[derive(Debug, Default)]
struct Shared {
    scopes: Mutex<Vec<Scope>>,
    away: AtomicBool,
    breach: Mutex<Option<(&'static str, &'static str)>>,
    last: Mutex<Option<WholeLook>>,
    turn: Mutex<Option<Uuid>>,
}

#[async_trait::async_trait]
impl Auditor for Shared {
    async fn audit(&self, _now: Timestamp, scope: Scope) -> Result<Vec<Finding>, Error> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::Unavailable("away".to_owned()));
        }
        self.scopes.lock().push(scope);
        let breach = *self.breach.lock();
        // Old entries are seen by a look at everything alone.
        let seen = breach.filter(|_| scope == Scope::Everything);
        let breaches = |of| seen.filter(|(i, _)| *i == of).map(|(_, words)| words);
        let all = ["I1", "I3", "I4", "I12"];
        Ok(all.iter().map(|i| finding(i, breaches(*i).as_slice())).collect())
    }

    async fn last_look(&self) -> Result<Option<WholeLook>, Error> {
        Ok(self.last.lock().clone())
    }

    async fn take_turn(&self, turn: Turn) -> Result<bool, Error> {
        let known = self.last.lock().as_ref().map(|look| look.at);
        let mut whose = self.turn.lock();
        if whose.is_some_and(|node| node != turn.node) || known != turn.after {
            return Ok(false);
        }
        *whose = Some(turn.node);
        Ok(true)
    }

    async fn end_turn(&self, node: Uuid, look: WholeLook) -> Result<bool, Error> {
        if self.turn.lock().take_if(|whose| *whose == node).is_none() {
            return Ok(false);
        }
        *self.last.lock() = Some(look);
        Ok(true)
    }
}

const MINUTE: i64 = 60_000;
const DAY: i64 = 1_440 * MINUTE;

/// Nodes that started together on one database, and their clock.
struct Nodes {
    shared: Arc<Shared>,
    clock: Arc<ManualClock>,
    watches: Vec<Watch>,
}

impl Nodes {
    fn start(count: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let noon = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
        let clock = Arc::new(ManualClock::new(noon));
        let mut nodes = Self { shared, clock, watches: Vec::new() };
        for _ in 0..count {
            nodes.join();
        }
        nodes
    }

    fn join(&mut self) {
        let metrics = Arc::new(Metrics::new().unwrap());
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        self.watches.push(Watch::new(Arc::<Shared>::clone(&self.shared), metrics, clock));
    }

    /// A minute later each of them looks; how many looked at everything.
    async fn minute(&self) -> usize {
        self.clock.advance_millis(MINUTE);
        for (n, watch) in (1..).zip(&self.watches) {
            watch.look().await;
            watch.look_at_all_in_turn(&rounds(n, Some(DAY))).await;
        }
        let looked = std::mem::take(&mut *self.shared.scopes.lock());
        looked.iter().filter(|scope| **scope == Scope::Everything).count()
    }

    fn forbidden(&self) -> Vec<bool> {
        self.watches.iter().map(|watch| watch.permit("acme").is_err()).collect()
    }
}

fn text(watch: &Watch) -> String {
    String::from_utf8(watch.metrics.text().unwrap()).unwrap()
}

fn rounds(node: u128, whole: Option<i64>) -> Rounds {
    let span = |millis: i64| Duration::from_millis(millis.unsigned_abs());
    Rounds { node: Uuid::from_u128(node), often: span(MINUTE), whole: whole.map(span) }
}

#[tokio::test]
async fn one_node_looks_at_everything_after_a_start_and_once_a_day() {
    let mut nodes = Nodes::start(3);
    assert_eq!(nodes.minute().await, 1);
    assert_eq!(nodes.minute().await, 0);
    // What was there before a start is looked at again.
    nodes.clock.advance_millis(MINUTE);
    nodes.join();
    assert_eq!(nodes.minute().await, 1);
    nodes.clock.advance_millis(DAY - 2 * MINUTE);
    assert_eq!(nodes.minute().await, 0);
    assert_eq!(nodes.minute().await, 1);
    assert_eq!(nodes.minute().await, 0);
}

#[tokio::test]
async fn a_look_that_fails_is_made_again() {
    let nodes = Nodes::start(1);
    nodes.shared.away.store(true, Ordering::Relaxed);
    assert_eq!(nodes.minute().await, 0);
    nodes.shared.away.store(false, Ordering::Relaxed);
    assert_eq!(nodes.minute().await, 1);
    assert!(
        text(&nodes.watches[0]).contains("anima_ledger_whole_audits_total{outcome=\"failed\"} 1")
    );
}

#[tokio::test]
async fn nobody_looks_while_another_node_has_the_turn() {
    let nodes = Nodes::start(2);
    *nodes.shared.turn.lock() = Some(Uuid::from_u128(9));
    assert_eq!(nodes.minute().await, 0);
    *nodes.shared.turn.lock() = None;
    assert_eq!(nodes.minute().await, 1);
}

#[tokio::test]
async fn what_one_node_found_is_refused_by_all_until_a_look_at_everything_lifts_it() {
    let nodes = Nodes::start(2);
    assert_eq!(nodes.minute().await, 1);
    *nodes.shared.breach.lock() = Some(("I3", "wallet:acme in USD: 5 posted"));
    nodes.clock.advance_millis(DAY);
    assert_eq!(nodes.minute().await, 1);
    assert_eq!(nodes.minute().await, 1);
    assert_eq!(nodes.forbidden(), [true, true]);
    *nodes.shared.breach.lock() = None;
    // Recent postings say nothing about it.
    nodes.watches[0].look().await;
    assert_eq!(nodes.forbidden(), [true, true]);
    assert_eq!(nodes.minute().await, 1);
    nodes.minute().await;
    assert_eq!(nodes.forbidden(), [false, false]);
    assert_eq!(nodes.minute().await, 0);
}

#[tokio::test]
async fn what_refuses_nothing_stays_shown_and_is_looked_at_every_hour() {
    let nodes = Nodes::start(1);
    *nodes.shared.breach.lock() = Some(("I12", "north bills 5"));
    assert_eq!(nodes.minute().await, 1);
    assert_eq!(nodes.minute().await, 0);
    assert_eq!(nodes.watches[0].breaches(), [("I12", false)]);
    nodes.clock.advance_millis(58 * MINUTE);
    *nodes.shared.breach.lock() = None;
    assert_eq!(nodes.minute().await, 1);
    assert_eq!(nodes.watches[0].breaches(), []);
}

#[tokio::test]
async fn without_an_interval_everything_is_looked_at_after_a_start_alone() {
    let nodes = Nodes::start(1);
    let never = rounds(1, None);
    for _ in 0..3 {
        nodes.watches[0].look_at_all_in_turn(&never).await;
        nodes.clock.advance_millis(DAY);
    }
    assert_eq!(*nodes.shared.scopes.lock(), [Scope::Everything]);
}

#[test]
fn what_refuses_is_not_forgotten_when_it_is_recent_no_more() {
    let mut known = Known::default();
    let at = Timestamp::from_micros;
    known.looked(at(1), Seen::of(&[finding("I1", &["x"])]));
    known.looked(at(2), Seen::of(&[finding("I1", &[])]));
    assert_eq!(known.joined().forbids("acme"), Some("I1"));
    known.looked_at_all(at(3), Seen::default());
    assert_eq!(known.joined(), Seen::default());
}

#[test]
fn what_both_looks_see_whole_is_believed_to_the_later_one() {
    let mut known = Known::default();
    let at = Timestamp::from_micros;
    known.looked_at_all(at(1), Seen::of(&[finding("I6", &["h"]), finding("I10", &["e"])]));
    known.looked(at(2), Seen::default());
    assert_eq!(known.joined().breaches.keys().collect::<Vec<_>>(), [&"I10"]);
}

#[test]
fn what_is_for_people_to_look_into_forbids_nothing() {
    for invariant in ["I6", "I9", "I10", "I14"] {
        let seen = Seen::of(&[finding(invariant, &["wallet:acme in USD"])]);
        assert!(!seen.is_frozen() && seen.breaches.contains_key(invariant));
    }
    assert!(!Seen::of(&[finding("I3", &["revenue in USD: off"])]).is_frozen());
}
