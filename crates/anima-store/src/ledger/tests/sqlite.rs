//! The suite on SQLite, and what only SQLite can be asked.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::fixtures::*;
use crate::ledger::sqlite::open;
use crate::ledger::{Error, LedgerStore};
use crate::sqlite;

crate::ledger::tests::suite!(books);

async fn books() -> Option<Books> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.db");
    sqlite::migrate(&mut sqlite::open(&path).unwrap()).unwrap();
    let ledger = open(&path, &opener()).unwrap();
    Some(Books { ledger: Arc::new(ledger), place: Box::new(place) })
}

/// A file with a settled hold, an open one and a top-up.
async fn used() -> (tempfile::TempDir, std::path::PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.db");
    sqlite::migrate(&mut sqlite::open(&path).unwrap()).unwrap();
    let ledger = open(&path, &opener()).unwrap();
    ledger.post(topup(9, "acme", 1_000)).await.unwrap();
    let (first, second) = (hold(1, "acme", 100), hold(2, "acme", 50));
    ledger.hold(first.clone()).await.unwrap();
    ledger.settle(settle(&first, 90)).await.unwrap();
    ledger.hold(second).await.unwrap();
    (place, path)
}

#[tokio::test]
async fn a_hold_outlives_the_process_and_is_fenced_from_the_next_one() {
    let (_place, path) = used().await;
    let mut next = opener();
    next.node = uuid::Uuid::from_u128(0xB);
    let next = open(&path, &next).unwrap();
    let open_hold = hold(2, "acme", 50);
    assert_eq!(next.settle(settle(&open_hold, 5)).await, Err(Error::HoldUnknown));
    assert_eq!(wallet(&next, "acme").await, (910, 50, 0));
    let same = open(&path, &opener()).unwrap();
    assert_eq!(same.settle(settle(&open_hold, 5)).await.unwrap().charged, 5);
    let replay = next.settle(settle(&open_hold, 5)).await.unwrap();
    assert!(replay.replayed);
    assert_clean(&next).await;
}

#[tokio::test]
async fn what_is_written_stays_as_it_was_written() {
    let (_place, path) = used().await;
    let connection = sqlite::open(&path).unwrap();
    for statement in [
        "UPDATE leg SET amount = 1",
        "DELETE FROM leg",
        "UPDATE journal SET reference = 'x'",
        "DELETE FROM journal",
        "UPDATE attempt SET cost = 0",
        "DELETE FROM attempt",
        "DELETE FROM hold",
        "UPDATE hold SET state = 'HELD', settled = NULL, digest = NULL, closed_at = NULL",
    ] {
        let error = connection.execute(statement, []).unwrap_err().to_string();
        assert!(error.contains("append-only") || error.contains("hold is"), "{statement}: {error}");
    }
    for (statement, constraint) in [
        ("UPDATE gated_balance SET held = 2000", "CHECK"),
        ("UPDATE hold SET state = 'SETTLED' WHERE state = 'HELD'", "CHECK"),
        ("INSERT INTO journal SELECT x'00112233445566778899aabbccddeeff', kind, subject, seq, at,
          posted_at, estimate, digest, reference FROM journal LIMIT 1", "UNIQUE"),
    ] {
        let error = connection.execute(statement, []).unwrap_err().to_string();
        assert!(error.contains(constraint), "{statement}: {error}");
    }
}

/// Damages the books past every guard, and gives the invariants that notice.
async fn noticed(damage: &str) -> Vec<&'static str> {
    let (_place, path) = used().await;
    plant(&path, damage);
    let ledger = open(&path, &opener()).unwrap();
    let findings = ledger.verify(NOON).await.unwrap();
    findings.iter().filter(|f| !f.breaches.is_empty()).map(|f| f.invariant).collect()
}

fn plant(path: &Path, damage: &str) {
    let connection = Connection::open(path).unwrap();
    let triggers: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for trigger in triggers {
        connection.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    connection
        .execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF")
        .unwrap();
    connection.execute_batch(damage).unwrap();
}

#[tokio::test]
async fn verification_finds_what_was_damaged() {
    let damages: &[(&str, &[&str])] = &[
        ("SELECT 1", &[]),
        ("UPDATE leg SET amount = amount + 1 WHERE component = 2", &["I3"]),
        ("UPDATE leg SET amount = amount + 1 WHERE component = 1", &["I3", "I5"]),
        ("UPDATE leg SET currency = 'EUR' WHERE component = 2", &["I1"]),
        ("UPDATE leg SET credit_id = 999 WHERE component = 2", &["I1", "I3"]),
        ("UPDATE house_balance SET debits = debits + 1 WHERE debits = 7", &["I2", "I3"]),
        ("UPDATE gated_balance SET credits = credits + 1", &["I2", "I3"]),
        ("UPDATE gated_balance SET held = held + 1", &["I3"]),
        ("UPDATE gated_balance SET floor = 900", &["I4"]),
        ("UPDATE hold SET settled = 91 WHERE settled = 90", &["I5"]),
        ("DELETE FROM journal WHERE kind = 1", &["I1", "I5"]),
        ("UPDATE hold SET expires_at = 5 WHERE state = 'HELD'", &["I6"]),
        ("UPDATE attempt SET hold = x'00112233445566778899aabbccddeeff'", &["I7"]),
        (
            "UPDATE journal SET kind = 4, subject = (SELECT id FROM hold WHERE settled = 90)
             WHERE kind = 3;
             UPDATE leg SET component = 5 WHERE component = 4",
            &["I8"],
        ),
    ];
    for (damage, invariants) in damages {
        assert_eq!(&noticed(damage).await, invariants, "{damage}");
    }
}

#[tokio::test]
async fn a_locked_file_refuses_holds_and_delays_settlements() {
    let (_place, path) = used().await;
    let ledger = Arc::new(open(&path, &opener()).unwrap());
    let other = sqlite::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let settling = {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move { ledger.settle(settle(&hold(2, "acme", 50), 50)).await })
    };
    // A reader is not in the way, and not held up.
    assert_eq!(wallet(&*ledger, "acme").await, (910, 50, 0));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(settling.await.unwrap().unwrap().charged, 50);
}
