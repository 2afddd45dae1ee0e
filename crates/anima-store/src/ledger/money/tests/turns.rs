//! Turns to look at all books, and what a look leaves for the others.

use std::sync::Arc;

use uuid::Uuid;

use super::{Desk, NOON};
use crate::ledger::{Scope, Turn, WholeLook};

const MINUTE: i64 = 60_000;

/// A turn of a minute.
fn turn(node: u128, minute: i64, after: Option<i64>) -> Turn {
    Turn {
        node: Uuid::from_u128(node),
        now: NOON.plus_millis(minute * MINUTE),
        until: NOON.plus_millis((minute + 1) * MINUTE),
        after: after.map(|minute| NOON.plus_millis(minute * MINUTE)),
    }
}

pub(super) async fn one_node_at_a_time_has_the_turn(desk: Arc<Desk>) {
    let auditor = &desk.auditor;
    assert!(auditor.take_turn(turn(1, 0, None)).await.unwrap());
    assert!(!auditor.take_turn(turn(2, 0, None)).await.unwrap());
    // It goes on, and so keeps it.
    assert!(auditor.take_turn(turn(1, 1, None)).await.unwrap());
    assert!(!auditor.take_turn(turn(2, 2, None)).await.unwrap());
    // It is gone, and comes back too late.
    assert!(auditor.take_turn(turn(2, 3, None)).await.unwrap());
    assert!(!auditor.take_turn(turn(1, 3, None)).await.unwrap());
    let look = WholeLook { at: NOON, findings: Vec::new() };
    assert!(!auditor.end_turn(Uuid::from_u128(1), look.clone()).await.unwrap());
    assert_eq!(auditor.last_look().await.unwrap(), None);
    assert!(auditor.end_turn(Uuid::from_u128(2), look).await.unwrap());
    // Who does not know of that look need not look again; who does may.
    assert!(!auditor.take_turn(turn(1, 4, None)).await.unwrap());
    assert!(auditor.take_turn(turn(1, 4, Some(0))).await.unwrap());
}

pub(super) async fn a_look_is_read_by_every_node(desk: Arc<Desk>) {
    let auditor = &desk.auditor;
    let mut findings = auditor.audit(NOON, Scope::Everything).await.unwrap();
    for (invariant, breaches) in [(3, vec!["wallet:acme in USD: 5"]), (11, vec!["a", "\"b\""])] {
        findings[invariant].breaches = breaches.into_iter().map(str::to_owned).collect();
    }
    let look = WholeLook { at: NOON.plus_millis(1), findings };
    assert!(auditor.take_turn(turn(1, 0, None)).await.unwrap());
    assert!(auditor.end_turn(Uuid::from_u128(1), look.clone()).await.unwrap());
    let read = auditor.last_look().await.unwrap().unwrap();
    assert_eq!(read.at, look.at);
    let said = |look: &WholeLook| {
        let findings = look.findings.iter();
        findings.map(|f| (f.invariant, f.not_applicable, f.breaches.clone())).collect::<Vec<_>>()
    };
    assert_eq!(said(&read), said(&look));
}
